"""From a synthesiser's output to a telephone announcement: pace, band, level, silence.

Everything works on float64 mono arrays, full scale = 1.0. Levels are RMS in dBFS, where full
scale is a constant 1.0 (a full-scale sine is -3.01 dBFS). No state, no randomness: the same
input gives the same samples.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float64]

#: Rate of every shipped announcement, Hz.
RATE = 8000
#: Rate of its second file, for legs with G.722 or Opus, Hz.
WIDE_RATE = 16_000
#: What is kept of a voice at each rate, Hz: below, small loudspeakers give only rumble; above,
#: G.711 sets (ITU-T G.712) and wide-band ones (ITU-T P.341) are silent.
BANDS_HZ = {RATE: (200.0, 3500.0), WIDE_RATE: (100.0, 7000.0)}


def shorten_pauses(x: Samples, rate: int, longest_s: float) -> Samples:
    """Cut silence at both ends and every pause inside down to ``longest_s``.

    Silence is a 20 ms mean below 1/80 (-38 dB) of the loudest 20 ms.
    """
    n = rate // 50
    envelope = np.sqrt(np.convolve(x * x, np.full(n, 1 / n), "same"))
    quiet = envelope < envelope.max() / 80
    sound = np.flatnonzero(~quiet)
    x, quiet = x[sound[0] : sound[-1] + 1], quiet[sound[0] : sound[-1] + 1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    keep = int(longest_s * rate)
    pieces: list[Samples] = []
    at = 0
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start > keep:
            pieces.append(x[at : start + keep // 2])
            at = end - (keep - keep // 2)
    pieces.append(x[at:])
    return np.concatenate(pieces)


def change_tempo(x: Samples, rate: int, factor: float) -> Samples:
    """Speak ``factor`` times as fast at the same pitch.

    WSOLA (Verhelst and Roelands, ICASSP 1993) with 30 ms windows and a search of 10 ms each way.
    Kokoro's own speed setting blurs consonants above about 1.2, this does not.
    """
    if abs(factor - 1.0) < 1e-3:
        return x
    size = rate * 30 // 1000 // 2 * 2
    hop, reach = size // 2, rate * 10 // 1000
    window = np.hanning(size + 1)[:size]
    length = int(len(x) / factor)
    out = np.zeros(length + 2 * size)
    weight = np.zeros_like(out)
    padded = np.concatenate([np.zeros(reach), x, np.zeros(2 * size + 2 * reach)])
    expected: Samples | None = None
    for k in range(length // hop + 1):
        wanted = int(k * hop * factor) + reach
        at = wanted
        if expected is not None:
            low = wanted - reach
            near = padded[low : wanted + reach + size]
            likeness = np.correlate(near, expected, "valid")
            energy = np.convolve(near * near, np.ones(size), "valid")
            at = low + int(np.argmax(likeness / np.sqrt(energy + 1e-6)))
        out[k * hop : k * hop + size] += window * padded[at : at + size]
        weight[k * hop : k * hop + size] += window
        expected = padded[at + hop : at + hop + size]
        if len(expected) < size:
            break
    return (out / np.maximum(weight, 1e-3))[:length]


def to_telephone_band(x: Samples, rate: int, out_rate: int = RATE) -> Samples:
    """Resample and keep that rate's band of :data:`BANDS_HZ` (a linear-phase FIR of 32 ms)."""
    x = np.asarray(soxr.resample(x, rate, out_rate, quality="VHQ"), dtype=np.float64)
    taps = 32 * out_rate // 1000 + 1
    n = np.arange(taps) - taps // 2

    def low_pass(hz: float) -> Samples:
        return np.asarray(2 * hz / out_rate * np.sinc(2 * hz / out_rate * n) * np.hamming(taps))

    lowest, highest = BANDS_HZ[out_rate]
    return np.asarray(np.convolve(x, low_pass(highest) - low_pass(lowest), "same"))


def active_level_dbfs(x: Samples, rate: int = RATE) -> float:
    """Active speech level, after ITU-T P.56 method B: the level while somebody speaks.

    Envelope with a time constant of 30 ms, hangover 200 ms, margin 15.9 dB.

    Returns:
        dBFS; ``-inf`` for silence.
    """
    power = float(np.mean(x * x))
    if power <= 0:
        return float("-inf")
    g = np.exp(-1 / (rate * 0.03))
    kernel = (1 - g) * g ** np.arange(int(rate * 0.3))
    smooth = np.convolve(np.convolve(np.abs(x), kernel)[: len(x)], kernel)[: len(x)]
    hang = int(rate * 0.2)
    # The running maximum over the last 200 ms is above a threshold exactly while P.56's
    # hangover counter is.
    held = _running_maximum(smooth, hang)
    level_before = float("nan")
    margin_before = float("nan")
    for threshold_db in np.arange(-80.0, 0.0, 0.5):
        threshold = 10 ** (threshold_db / 20)
        active = float(np.mean(held >= threshold))
        if active == 0:
            break
        level = 10 * np.log10(power / active)
        margin = level - threshold_db - 15.9
        if margin <= 0:
            if np.isnan(margin_before):
                return float(level)
            share = margin_before / (margin_before - margin)
            return float(level_before + share * (level - level_before))
        level_before, margin_before = level, margin
    return float(10 * np.log10(power))


def _running_maximum(x: Samples, size: int) -> Samples:
    """Maximum over the last ``size`` samples, by doubling."""
    out = x.copy()
    span = 1
    while span < size:
        step = min(span, size - span)
        out[step:] = np.maximum(out[step:], out[:-step])
        span += step
    return out


def limit_peaks(x: Samples, ceiling: float, rate: int = RATE) -> Samples:
    """Turn the gain down round every peak above ``ceiling`` (5 ms each way): never clips."""
    reach = rate * 5 // 1000
    need = np.minimum(1.0, ceiling / np.maximum(np.abs(x), 1e-9))
    ahead = -_running_maximum(-np.concatenate([need, np.ones(2 * reach)]), 2 * reach + 1)
    gain = np.convolve(ahead, np.hanning(2 * reach + 3)[1:-1] / (reach + 1), "full")
    return np.asarray(x * np.minimum(need, gain[2 * reach : 2 * reach + len(x)]))


def level_speech(x: Samples, target_dbfs: float, peak_dbfs: float, rate: int = RATE) -> Samples:
    """Bring the active speech level to ``target_dbfs`` with no sample above ``peak_dbfs``."""
    ceiling = 10 ** (peak_dbfs / 20)
    y = x
    for _ in range(4):
        gain_db = target_dbfs - active_level_dbfs(y, rate)
        y = limit_peaks(y * 10 ** (gain_db / 20), ceiling, rate)
    return y


def frame_in_silence(x: Samples, before_s: float, after_s: float, rate: int = RATE) -> Samples:
    """Fade 8 ms at both ends and put digital silence round it."""
    fade = rate * 8 // 1000
    ramp = np.sin(np.linspace(0, np.pi / 2, fade)) ** 2
    x = x.copy()
    x[:fade] *= ramp
    x[-fade:] *= ramp[::-1]
    return np.concatenate([np.zeros(int(before_s * rate)), x, np.zeros(int(after_s * rate))])
