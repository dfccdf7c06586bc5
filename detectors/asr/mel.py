"""Whisper's log-mel features, in numpy.

The spectrogram of Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision"
(2022), section 2.2: 25 ms Hann windows every 10 ms at 16 kHz, mel filters with Slaney's scale and
area normalisation, clamped to 8 decades under the loudest bin. Our lines carry nothing above
4 kHz, so the caller's 8 kHz audio is transformed as it is, with windows of half the length: the
upper mel bands stay at the floor, as they do when the audio is resampled to 16 kHz first.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Frames a second.
FRAMES_PER_S = 100
#: Rate that Whisper's mel filters are made for, Hz.
MODEL_RATE = 16_000
#: Rate of the caller's audio here, Hz.
RATE = 8_000

_WINDOW = RATE // 40  # 25 ms
_HOP = RATE // FRAMES_PER_S
#: Slaney's mel scale: linear up to 1 kHz, 27 steps for each factor 6.4 above.
_LINEAR_HZ, _BREAK_HZ, _LOG_STEP = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * _LINEAR_HZ
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_HZ / _LINEAR_HZ))
    return np.asarray(np.where(linear < _BREAK_HZ, linear, above), dtype=np.float64)


@lru_cache(maxsize=2)
def mel_filters(bands: int) -> NDArray[np.float32]:
    """Triangular filters over the bins of an 8 kHz spectrum.

    Args:
        bands: mel bands of the model: 80, or 128 for large-v3.

    Returns:
        ``(bands, 101)`` float32: bins 0-4 kHz, 40 Hz apart, as the first 101 of 201 at 16 kHz.
    """
    top_mel = _BREAK_HZ / _LINEAR_HZ + np.log(MODEL_RATE / 2 / _BREAK_HZ) / _LOG_STEP
    edges_hz = _mel_to_hz(np.linspace(0.0, top_mel, bands + 2))
    bins_hz = np.arange(_WINDOW // 2 + 1) * (RATE / _WINDOW)
    slopes = edges_hz[:, None] - bins_hz[None, :]
    width = np.diff(edges_hz)[:, None]
    weights = np.maximum(0.0, np.minimum(-slopes[:-2] / width[:-1], slopes[2:] / width[1:]))
    weights *= 2.0 / (edges_hz[2:] - edges_hz[:-2])[:, None]
    return weights.astype(np.float32)


def log_mel(samples: NDArray[np.int16], bands: int, window_s: float) -> NDArray[np.float32]:
    """Features of one utterance, filled up with silence.

    Args:
        samples: ``(n,)`` int16 at 8 kHz; what is beyond ``window_s`` is cut off.
        bands: mel bands of the model.
        window_s: length that the features stand for, seconds.

    Returns:
        ``(bands, 100 * window_s)`` float32, about -1..1.5.
    """
    frames = round(window_s * FRAMES_PER_S)
    room = frames * _HOP
    audio = np.zeros(room + _WINDOW, dtype=np.float32)
    used = samples[:room]
    audio[_WINDOW // 2 : _WINDOW // 2 + len(used)] = used.astype(np.float32) / 32768.0
    steps = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[: frames * _HOP : _HOP]
    hann = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    # A spectrum at 16 kHz sums twice as many samples: four times the power.
    power = 4.0 * np.square(np.abs(np.fft.rfft(steps * hann, axis=-1))).astype(np.float32)
    log = np.log10(np.maximum(mel_filters(bands) @ power.T, 1e-10))
    log = np.maximum(log, log.max() - 8.0)
    return np.ascontiguousarray((log + 4.0) / 4.0, dtype=np.float32)
