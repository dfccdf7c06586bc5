"""Loudness of a whole recording as sound engineers measure it (ITU-R BS.1770-4, EBU R 128).

Every audio program shows this figure, so whoever records an announcement can meet a limit stated in
it. The K-weighting is applied as the magnitude of the recommendation's own 48 kHz filters at each
frequency, which makes it the same at 8 and 16 kHz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FILTER_HZ = 48_000
#: BS.1770-4 tables 1 and 2: numerator and denominator in z^-1.
_SHELF = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285),
    (1.0, -1.69065929318241, 0.73248077421585),
)
_HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))
_BLOCK_S, _STEP_S = 0.4, 0.1
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, 10.0
#: Of nothing at all.
SILENCE_LUFS = -120.0


def _gain(hz: NDArray[np.floating]) -> NDArray[np.float64]:
    z = np.exp(-2j * np.pi * hz / _FILTER_HZ)
    gain = np.ones(len(hz))
    for numerator, denominator in (_SHELF, _HIGH_PASS):
        gain *= np.abs(np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z))
    return gain


def _lufs(power: float) -> float:
    return float(-0.691 + 10.0 * np.log10(max(power, 1e-12)))


def integrated_lufs(samples: NDArray[np.float64], rate_hz: int) -> float:
    """Integrated loudness, gated twice.

    Args:
        samples: mono, full scale 1.0, shape ``(n,)``; less than 0.4 s count as one block.
        rate_hz: of the samples.

    Returns:
        LUFS; :data:`SILENCE_LUFS` where nothing is louder than the absolute gate.
    """
    # Zeros behind: the filters' response must not come round to the beginning.
    size = 1 << (len(samples) + rate_hz).bit_length()
    weighted = np.fft.irfft(
        np.fft.rfft(samples, size) * _gain(np.fft.rfftfreq(size, 1.0 / rate_hz)), size
    )[: len(samples)]
    energy = np.concatenate([[0.0], np.cumsum(weighted**2)])
    block, step = int(_BLOCK_S * rate_hz), int(_STEP_S * rate_hz)
    if len(samples) < block:
        block = max(len(samples), 1)
    starts = np.arange(0, max(len(samples) - block, 0) + 1, step)
    power = (energy[np.minimum(starts + block, len(samples))] - energy[starts]) / block
    loud = power[power > 10.0 ** ((_ABSOLUTE_GATE_LUFS + 0.691) / 10.0)]
    if not len(loud):
        return SILENCE_LUFS
    gate = float(np.mean(loud)) * 10.0 ** (-_RELATIVE_GATE_LU / 10.0)
    return _lufs(float(np.mean(loud[loud > gate])))
