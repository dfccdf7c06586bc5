"""A prompt as the relay plays it: a WAV file of 8 or 16 kHz, 16 bit, mono, encoded before use.

G.711 is kept as one run of bytes, in which every sample can be found; G.722 and Opus as packets of
one length, because their encoders carry state from packet to packet. Reading, resampling and
encoding take tens of milliseconds and belong in a thread: what :meth:`PromptCache.cached` gives
needs none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from callshield import g711
from callshield.audio_codecs import DECODED_RATES_HZ, STATELESS, encoder, packet_ms
from callshield.errors import SetupError
from callshield.tap import TapCodec
from sipbridge.wav_file import read_wav

#: A codec and the packet length that the far end wants, in ms.
Wanted = tuple[TapCodec, int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """An encoded prompt."""

    encoded: dict[int, bytes]
    """G.711, one byte a sample at 8 kHz, by payload type (0 µ-law, 8 A-law)."""
    pcm: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16), repr=False)
    """The file's samples after the gain, at :attr:`rate_hz`."""
    rate_hz: int = g711.SAMPLE_RATE_HZ
    sha256: str = ""
    """Of the file."""
    _packets: dict[Wanted, list[bytes]] = field(default_factory=dict, repr=False)

    @property
    def samples(self) -> int:
        """Length in samples of 8 kHz, whatever the file's rate."""
        return len(self.encoded[g711.PCMU])

    def has_frames(self, codec: TapCodec, ptime_ms: int) -> bool:
        """:meth:`frames` has them ready and takes no time."""
        return codec in STATELESS or (codec, packet_ms(codec, ptime_ms)) in self._packets

    def frames(self, codec: TapCodec, ptime_ms: int) -> list[bytes]:
        """The prompt in packets, the last one filled up with silence.

        The first call for a codec and length encodes (for Opus 0.2 ms a packet): not in an event
        loop, unless :meth:`has_frames`.

        Args:
            codec: any.
            ptime_ms: what the far end wants; a packet lasts
                :func:`callshield.audio_codecs.packet_ms`.

        Raises:
            SetupError: the codec's library is not installed.
        """
        length = packet_ms(codec, ptime_ms)
        if codec in STATELESS:
            return _cut(self.encoded[codec], length * 8, g711.SILENCE[codec])
        known = self._packets.get((codec, length))
        if known is None:
            known = self._packets[codec, length] = self._encode(codec, length)
        return known

    def _encode(self, codec: TapCodec, length_ms: int) -> list[bytes]:
        # Opus takes 8 kHz as it is; G.722 has no other input than 16 kHz worth having.
        rate_hz = self.rate_hz if codec is TapCodec.OPUS else DECODED_RATES_HZ[codec][0]
        coder = encoder(codec, length_ms, rate_hz)
        return coder.encode(_resampled(self.pcm, self.rate_hz, coder.rate_hz)) + coder.finish()


def _cut(data: bytes, size: int, silence: bytes) -> list[bytes]:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    parts[-1] += silence * (size - len(parts[-1]))
    return parts


def _int16(audio: NDArray[np.float32]) -> NDArray[np.int16]:
    pcm: NDArray[np.int16] = np.clip(np.rint(audio), -32768, 32767).astype(np.int16)
    return pcm


def _resampled(pcm: NDArray[np.int16], source_hz: int, target_hz: int) -> NDArray[np.int16]:
    if source_hz == target_hz:
        return pcm
    return _int16(soxr.resample(pcm.astype(np.float32), source_hz, target_hz))


def load_prompt(path: Path, gain_db: float = 0.0) -> Prompt:
    """Read a WAV file and encode it for G.711.

    Args:
        path: of the file.
        gain_db: applied before encoding; at most 0, more counts as 0.

    Raises:
        SetupError: see :func:`sipbridge.wav_file.read_wav`.
    """
    wav = read_wav(path)
    sha256 = wav.sha256
    samples, rate_hz = wav.samples, wav.rate_hz
    if gain_db < 0.0:
        samples = _int16(samples.astype(np.float32) * np.float32(10 ** (gain_db / 20.0)))
    narrow = _resampled(samples, rate_hz, g711.SAMPLE_RATE_HZ)
    encoded = {law: g711.encode(narrow, law) for law in g711.VOICE_PAYLOAD_TYPES}
    return Prompt(encoded, samples, rate_hz, sha256)


def _fingerprint(path: Path) -> tuple[int, int]:
    """Changes with the file; all the same for those that are not there."""
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return (status.st_mtime_ns, status.st_size)


class PromptCache:
    """Prompts already loaded and encoded; a file that changed on disk is loaded anew.

    :meth:`cached` does not read a file and may be called from the event loop; :meth:`load` does
    and belongs in a thread.
    """

    def __init__(self) -> None:
        self._prompts: dict[tuple[Path, float], tuple[tuple[int, int], Prompt]] = {}

    def cached(
        self,
        path: Path,
        gain_db: float = 0.0,
        wanted: Iterable[Wanted] = (),
        *,
        sha256: str = "",
    ) -> Prompt | None:
        """The prompt, when the file is the one that was loaded and all that is wanted is encoded.

        Args:
            path: of the file.
            gain_db: see :func:`load_prompt`.
            wanted: codecs and packet lengths that it will be played in; G.711 is always there.
            sha256: what the file has to hold; empty: whatever it holds.
        """
        entry = self._prompts.get((path, gain_db))
        if entry is None or entry[0] != _fingerprint(path):
            return None
        prompt = entry[1]
        if sha256 and prompt.sha256 != sha256:
            return None
        return prompt if all(prompt.has_frames(*want) for want in wanted) else None

    def load(
        self,
        path: Path,
        gain_db: float = 0.0,
        wanted: Iterable[Wanted] = (),
        *,
        sha256: str = "",
    ) -> Prompt:
        """The prompt, from disk when need be, with all that is wanted encoded.

        Args:
            path: of the file.
            gain_db: see :func:`load_prompt`.
            wanted: see :meth:`cached`.
            sha256: see :meth:`cached`.

        Raises:
            SetupError: see :func:`load_prompt` and :meth:`Prompt.frames`; or it is another file.
        """
        prompt = self.cached(path, gain_db, sha256=sha256)
        if prompt is None:
            # Before reading: a file replaced in between is loaded anew the next time.
            fingerprint = _fingerprint(path)
            prompt = load_prompt(path, gain_db)
            if sha256 and prompt.sha256 != sha256:
                raise SetupError(
                    f"the prompt {path} is not the one that was checked when the node started "
                    "(sha256 differs), and is not played: restart the node"
                )
            self._prompts[path, gain_db] = (fingerprint, prompt)
        for codec, ptime_ms in wanted:
            prompt.frames(codec, ptime_ms)
        return prompt
