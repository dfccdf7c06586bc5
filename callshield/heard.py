"""Was an announcement really heard? Find a known recording inside what a telephone recorded.

Used by the demo and by tests with real peers: a claim that a prompt was played is checked
against the far end's own recording, not against our own counters.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: A stretch that fits better than this is the prompt's own (µ-law and A-law reach 0.99).
MIN_CORRELATION = 0.85
#: Each second of the prompt must be found this close to where the ones before it say (seconds):
#: a telephone's jitter buffer may shift by a few frames, not more.
MAX_SHIFT_S = 0.15
_STEP_S = 0.5
#: The silence before and behind an announcement is below this share of its peak.
_AUDIBLE = 0.02


@dataclass(frozen=True, slots=True)
class Heard:
    """Where a prompt was found."""

    start_s: float
    """Its beginning in the recording, seconds; negative where silence in front of it is missing."""
    end_s: float
    share: float
    """Share of the prompt's audible half-seconds that were found in place, 0..1."""

    @property
    def whole(self) -> bool:
        """Every audible half-second was there."""
        return self.share >= 1.0


def read_wav(path: Path) -> NDArray[np.float32]:
    """Samples of a mono 16-bit WAV file, shape ``(n,)``, full scale ±1."""
    with wave.open(str(path), "rb") as audio:
        if audio.getsampwidth() != 2 or audio.getnchannels() != 1:
            raise ValueError(f"{path} is not 16-bit mono")
        data = audio.readframes(audio.getnframes())
    return np.asarray(np.frombuffer(data, "<i2") / 32768, dtype=np.float32)


def _correlate(needle: NDArray[np.float32], hay: NDArray[np.float32]) -> NDArray[np.float64]:
    """Normalised cross-correlation at every offset, shape ``(len(hay) - len(needle) + 1,)``."""
    size = 1 << int(np.ceil(np.log2(len(hay) + len(needle))))
    product = np.fft.irfft(np.fft.rfft(hay, size) * np.conj(np.fft.rfft(needle, size)), size)[
        : len(hay) - len(needle) + 1
    ]
    energy = np.cumsum(np.concatenate([[0.0], hay.astype(np.float64) ** 2]))
    window = energy[len(needle) :] - energy[: -len(needle)]
    norm = np.sqrt(np.maximum(window, 1e-9) * max(float(np.sum(needle**2)), 1e-9))
    return np.asarray(product / norm, dtype=np.float64)


def find(
    prompt: NDArray[np.float32],
    recording: NDArray[np.float32],
    *,
    rate: int = 8000,
    after_s: float = 0.0,
) -> Heard | None:
    """Find a prompt in a recording, half-second by half-second.

    Args:
        prompt: what should have been heard, shape ``(n,)``.
        recording: what the far end recorded, shape ``(m,)``, same rate.
        rate: samples a second of both.
        after_s: look only behind this point of the recording.

    Returns:
        where and how much of it, or None when not even its beginning is there.
    """
    begin = int(after_s * rate)
    recording = recording[begin:]
    step = int(_STEP_S * rate)
    loud = float(np.sqrt(np.mean(prompt**2)))
    # From the first sound to the last: a telephone that misses some of the silence in front of an
    # announcement misses nothing of it.
    audible = np.flatnonzero(np.abs(prompt) > _AUDIBLE * float(np.max(np.abs(prompt), initial=0.0)))
    first, end = (int(audible[0]), int(audible[-1]) + 1) if len(audible) else (0, len(prompt))
    starts = list(range(first, end - step + 1, step))
    if starts and starts[-1] + step < end:
        starts.append(end - step)
    chunks = [
        (start, prompt[start : start + step])
        for start in starts
        if float(np.sqrt(np.mean(prompt[start : start + step] ** 2))) > 0.2 * loud
    ]
    if not chunks or len(recording) < step:
        return None
    found: list[float] = []
    expected: float | None = None
    for start, chunk in chunks:
        if expected is None:
            low, high = 0, len(recording)
        else:
            middle = expected + start
            low = max(0, int(middle - MAX_SHIFT_S * rate))
            high = min(len(recording), int(middle + step + MAX_SHIFT_S * rate))
        if high - low < step:
            continue
        scores = _correlate(chunk, recording[low:high])
        best = int(np.argmax(scores))
        if scores[best] >= MIN_CORRELATION:
            expected = float(low + best - start)
            found.append(expected)
    if not found:
        return None
    start_s = (found[0] + begin) / rate
    end_s = (found[-1] + begin) / rate + len(prompt) / rate
    return Heard(start_s, end_s, len(found) / len(chunks))


def read_growing_wav(path: Path) -> NDArray[np.float32]:
    """Samples of a 16-bit mono WAV file that is still being written.

    Its header is not final yet: everything behind the ``data`` tag counts as samples.
    """
    raw = path.read_bytes()
    body = raw[raw.find(b"data") + 8 :]
    return np.asarray(np.frombuffer(body[: len(body) // 2 * 2], "<i2") / 32768, dtype=np.float32)
