"""Vocal-effort features of telephone speech, free of level, vectorised over calls.

Raised voices differ from calm ones in ways that survive a telephone channel and a volume knob:
energy moves from below 1 kHz to 1-3.4 kHz (flatter spectral tilt), F0 rises and spreads, F1 rises,
voicing gets stronger, vowels longer (Traunmüller & Eriksson, JASA 107, 2000; Zhang & Hansen,
Interspeech 2007). Alpha ratio and Hammarberg index follow the extended Geneva set (Eyben et al.,
IEEE Trans. Affective Computing 7, 2016), with their bands cut to 300-3400 Hz. Cepstral peak
prominence (Hillenbrand et al., JSHR 37, 1994) is the height of the pitch peak in the cepstrum of
that band: it tells firm voices from breathy ones.

Two stages, so that a live call pays for each 20 ms frame once:
:func:`frame_tracks` turns audio into one vector a frame, :func:`summarise` turns a window of
those vectors into one feature vector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.resample import RATE

#: Samples from one frame to the next: 20 ms at 8 kHz, the frame of the voice activity detector.
HOP = 160
#: Samples under one analysis window: two frames, 40 ms, two periods of a 50 Hz voice.
SPAN = 320
#: Mel bands between the edges of the telephone band.
BANDS = 20
BAND_EDGES_HZ = (300.0, 3400.0)
#: Search range of the fundamental, in Hz: low male voices to screams.
F0_RANGE_HZ = (70.0, 1000.0)

#: Columns of one frame vector before its mel bands.
TRACKS = (
    "level_db",
    "voicing",
    "f0_log2",
    "alpha_db",
    "hammarberg_db",
    "slope_db_per_octave",
    "centroid_log2",
    "first_formant_log2",
    "pitch_peak",
    "cepstral_peak_db",
    "share_300_db",
    "share_800_db",
    "share_1500_db",
    "share_2500_db",
    "first_peak_log2",
    "envelope_contrast",
)
LEVEL, VOICING, F0, ALPHA, HAMMARBERG, SLOPE, CENTROID, FORMANT = range(8)
PITCH_PEAK, CEPSTRAL_PEAK, SHARES, FIRST_PEAK, CONTRAST = 8, 9, slice(10, 14), 14, 15
TRACK_COUNT = len(TRACKS) + BANDS

#: Frames this far under the window's loud frames are pauses or room, in dB.
PAUSE_DB = 25.0
#: Normalised autocorrelation from which a frame counts as voiced.
VOICED = 0.5
#: What a longer period must be better by, per octave (Boersma 1993). Below 0: without its
#: fundamental a voice is more often taken for its octave than for its half (measured against
#: the full band of the training clips: 20 % of frames off, 32 % with Boersma's 0.03 on power).
_OCTAVE_COST = -0.03

_FFT = 512
_HZ = np.fft.rfftfreq(_FFT, 1.0 / RATE).astype(np.float32)
_WINDOW = np.hanning(SPAN).astype(np.float32)
_LAGS = np.arange(int(RATE / F0_RANGE_HZ[1]) - 1, int(RATE / F0_RANGE_HZ[0]) + 2)
_EPSILON = 1e-20
#: Some lines carry the fundamental and some do not: no feature may see below this.
_LOWEST_HZ = 280.0


def _window_autocorrelation() -> NDArray[np.float32]:
    # Dividing by the window's own autocorrelation undoes its taper (Boersma 1993, eq. 9).
    power = np.abs(np.fft.rfft(_WINDOW, 2 * _FFT)) ** 2
    own = np.fft.irfft(power)[: SPAN // 2]
    result: NDArray[np.float32] = (own / own[0]).astype(np.float32)
    return result


def _mel_filters() -> NDArray[np.float32]:
    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = 2595.0 * np.log10(1.0 + hz / 700.0)
        return result

    low, high = mel(np.array([_LOWEST_HZ, 3500.0]))
    edges = 700.0 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    rising = (_HZ[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - _HZ[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


_OWN = _window_autocorrelation()
#: The bins that are looked at; the others stay untouched.
_BINS = slice(int(np.argmax(_HZ >= _LOWEST_HZ)), int(np.argmax(_HZ > 3500.0)))
_HZ_SEEN = _HZ[_BINS]
_MEL = _mel_filters()[_BINS]
_CENTRES = (_MEL * _HZ_SEEN[:, None]).sum(axis=0) / _MEL.sum(axis=0)
_OCTAVES = (np.log2(_CENTRES) - np.log2(_CENTRES).mean()).astype(np.float32)


def _between(low_hz: float, high_hz: float) -> slice:
    inside = np.flatnonzero((low_hz <= _HZ_SEEN) & (high_hz > _HZ_SEEN))
    return slice(int(inside[0]), int(inside[-1]) + 1)


_TELEPHONE = _between(*BAND_EDGES_HZ)
_LOW, _HIGH = _between(300, 1000), _between(1000, 3400)
_PEAK_LOW, _PEAK_HIGH = _between(300, 2000), _between(2000, 3400)
_F1 = _between(300, 1200)
_SHARE_BANDS = [_between(*b) for b in ((300, 800), (800, 1500), (1500, 2500), (2500, 3400))]
#: From a spectrum of the bins seen to its autocorrelation at the lags sought: the few rows and
#: columns of an inverse Fourier transform that are needed, as one matrix product.
_COSINES = np.cos(2 * np.pi * np.arange(_BINS.start, _BINS.stop)[:, None] * _LAGS / _FFT).astype(
    np.float32
)
_UNTAPER = (1.0 / _OWN[_LAGS]).astype(np.float32)
_OCTAVE_BIAS = (_OCTAVE_COST * np.log2(_LAGS[1:-1] * (F0_RANGE_HZ[0] / RATE))).astype(np.float32)
#: Noise floor of the spectra that logarithms are taken of, relative to the frame's energy.
_FLOOR = 1e-5
#: Samples that make one point of the envelope inside a frame: 1 ms.
_ENVELOPE = 8


def frame_tracks(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """One vector for each 20 ms frame of many equally long stretches of audio.

    Args:
        audio: ``(calls, 160 * (frames + 1))`` float32 at 8 kHz; the first 160 samples are the
            frame before the stretch, the left half of the first window.

    Returns:
        ``(calls, frames, TRACK_COUNT)`` float32: :data:`TRACKS`, then the mel bands in dB
        relative to the frame's own mean. Only ``level_db`` depends on the gain.
    """
    calls, samples = audio.shape
    frames = samples // HOP - 1
    stride = audio.strides
    windows = np.lib.stride_tricks.as_strided(
        audio, (calls, frames, SPAN), (stride[0], HOP * stride[1], stride[1]), writeable=False
    )
    # All frames in one row of rows: a matrix product of two dimensions is one call of BLAS.
    windows = windows.reshape(calls * frames, SPAN)
    spectrum = np.fft.rfft(windows * _WINDOW, _FFT, axis=-1)[..., _BINS]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    power = np.asarray(power, dtype=np.float32)
    out = np.empty((calls * frames, TRACK_COUNT), dtype=np.float32)

    band = np.ascontiguousarray(power[..., _TELEPHONE])
    total = band.sum(axis=-1) + _EPSILON
    out[..., LEVEL] = 10.0 * np.log10(total)
    out[..., ALPHA] = _ratio_db(power[..., _HIGH].sum(-1), power[..., _LOW].sum(-1))
    out[..., HAMMARBERG] = _ratio_db(power[..., _PEAK_LOW].max(-1), power[..., _PEAK_HIGH].max(-1))
    out[..., CENTROID] = np.log2((band @ _HZ_SEEN[_TELEPHONE]) / total + 1.0)
    first = np.ascontiguousarray(power[..., _F1])
    out[..., FORMANT] = np.log2((first @ _HZ_SEEN[_F1]) / (first.sum(-1) + _EPSILON) + 1.0)
    # The first formant's peak, harmonics smoothed away by a running sum of 109 Hz.
    summed = np.cumsum(first, axis=-1)
    peak = (summed[..., 7:] - summed[..., :-7]).argmax(axis=-1) + 4
    out[..., FIRST_PEAK] = np.log2(_HZ_SEEN[_F1][peak] + 1.0)
    for i, share in enumerate(_SHARE_BANDS):
        part = power[..., share].sum(-1) / total
        out[..., SHARES.start + i] = 10.0 * np.log10(part + 1e-4)
    bands = 10.0 * np.log10(power @ _MEL + _FLOOR * total[..., None])
    bands -= bands.mean(axis=-1, keepdims=True)
    out[..., SLOPE] = (bands @ _OCTAVES) / np.float32(np.square(_OCTAVES).sum())
    out[..., len(TRACKS) :] = bands
    envelope = np.abs(windows[:, HOP:]).reshape(-1, HOP // _ENVELOPE, _ENVELOPE).mean(axis=-1)
    contrast = envelope.std(axis=-1) / (envelope.mean(axis=-1) + _EPSILON)
    out[..., CONTRAST] = np.log(contrast + 1e-3)
    out[..., VOICING], out[..., F0], out[..., PITCH_PEAK] = _pitch(power)
    out[..., CEPSTRAL_PEAK] = _cepstral_peak(band, total)
    return out.reshape(calls, frames, TRACK_COUNT)


def _ratio_db(over: NDArray[np.float32], under: NDArray[np.float32]) -> NDArray[np.float32]:
    ratio = 10.0 * np.log10((over + _EPSILON) / (under + _EPSILON))
    result: NDArray[np.float32] = np.clip(ratio, -60.0, 60.0)
    return result


def _pitch(
    power: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Voicing strength 0..1, log2 of F0 in Hz and the height of its peak from power spectra.

    The strength is the highest peak of the normalised autocorrelation (Boersma 1993). F0 is
    sought in the autocorrelation of the *magnitude* spectrum (Tolonen & Karjalainen, IEEE Trans.
    Speech and Audio Processing 8, 2000): flatter, it shows the period of a voice whose
    fundamental the line took away and whose first formant drowns the rest.
    """
    plain = _lagged(power)
    strength = np.clip(plain[..., 1:-1].max(axis=-1), 0.0, 0.999)
    lagged = _lagged(np.sqrt(power))
    inner = lagged[..., 1:-1]
    peaks = (inner >= lagged[..., :-2]) & (inner >= lagged[..., 2:])
    best = np.where(peaks, inner - _OCTAVE_BIAS, -9.0).argmax(axis=-1)[..., None] + 1
    left, mid, right = (np.take_along_axis(lagged, best + d, axis=-1)[..., 0] for d in (-1, 0, 1))
    curve = np.minimum(left - 2 * mid + right, -1e-9)
    offset = np.clip(0.5 * (left - right) / curve, -0.5, 0.5)
    f0_hz = RATE / (_LAGS[best[..., 0]] + offset)
    return strength.astype(np.float32), np.log2(f0_hz).astype(np.float32), mid


def _lagged(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised autocorrelation at the lags sought, ``(..., bins)`` to ``(..., lags)``."""
    own = spectrum.sum(axis=-1, keepdims=True) + np.float32(_EPSILON)
    lagged: NDArray[np.float32] = (spectrum @ _COSINES) * (_UNTAPER / own)
    return lagged


def _cepstral_peak(band: NDArray[np.float32], total: NDArray[np.float32]) -> NDArray[np.float32]:
    """Height of the cepstrum's peak over its mean at the lags sought, in dB."""
    count = band.shape[-1]
    log_db = 10.0 * np.log10(band + 1e-4 / count * total[..., None])
    log_db -= log_db.mean(axis=-1, keepdims=True)
    cepstrum = log_db @ _COSINES[_TELEPHONE] * np.float32(2.0 / _FFT)
    result: NDArray[np.float32] = cepstrum.max(axis=-1) - cepstrum.mean(axis=-1)
    return result


def _masked_quantiles(
    values: NDArray[np.float32], mask: NDArray[np.bool_], quantiles: tuple[float, ...]
) -> NDArray[np.float32]:
    """Quantiles over the frames of the masked entries; none: 0.

    Args:
        values: ``(n, frames)`` or ``(n, frames, k)``.
        mask: ``(n, frames)``.
        quantiles: each 0..1.

    Returns:
        ``(n, q)`` or ``(n, q, k)``.
    """
    inside = mask if values.ndim == 2 else mask[..., None]
    ordered = np.sort(np.where(inside, values, np.inf), axis=1)
    count = mask.sum(axis=1)
    rows = np.arange(len(values))[:, None]
    index = np.rint(np.array(quantiles) * np.maximum(count - 1, 0)[:, None]).astype(int)
    out: NDArray[np.float32] = ordered[rows, np.minimum(index, values.shape[1] - 1)]
    out[count == 0] = 0.0
    return out


def _masked_mean(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean over the masked frames: ``(n, frames, k)`` and ``(n, frames)`` to ``(n, k)``."""
    weight = mask.astype(np.float32)[:, None, :]
    count = np.maximum(weight.sum(axis=-1), 1.0)
    result: NDArray[np.float32] = (weight @ values)[:, 0, :] / count
    return result


def _masked_deviation(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Deviation over the masked frames: two ``(n, frames)`` to ``(n, 1)``."""
    mean = _masked_mean(values[..., None], mask)
    spread = _masked_mean(np.square(values - mean)[..., None], mask)
    result: NDArray[np.float32] = np.sqrt(spread)
    return result


_TIMBRE = (VOICING, *range(ALPHA, FORMANT + 1), PITCH_PEAK, CEPSTRAL_PEAK, *range(10, 16))
_STATISTICS = ("mean", "p10", "p90", "loud")
#: Names of the columns of a feature vector, in order.
NAMES: tuple[str, ...] = (
    *(f"{TRACKS[t]}_{statistic}" for statistic in _STATISTICS for t in _TIMBRE),
    "voiced_share",
    "voicing_used_mean",
    "pitch_peak_used_mean",
    "cepstral_peak_used_mean_db",
    "f0_log2_p10",
    "f0_log2_p25",
    "f0_log2_median",
    "f0_log2_p75",
    "f0_log2_p90",
    "f0_deviation_octaves",
    "f0_folded_log2_p10",
    "f0_folded_log2_median",
    "f0_folded_log2_p90",
    "f0_folded_deviation_octaves",
    "f0_step_octaves",
    "f0_leap_share",
    "level_deviation_db",
    "level_p90_over_median_db",
    "level_median_over_p10_db",
    "level_step_db",
    "level_rise_db",
    "spectral_flux_db",
    "voiced_run_frames",
    "voiced_runs_per_frame",
    *(f"mel_{band}_db" for band in range(BANDS)),
)
FEATURE_COUNT = len(NAMES)


def summarise(
    tracks: NDArray[np.float32], speech: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """One feature vector for each window of frames.

    Args:
        tracks: ``(n, frames, TRACK_COUNT)`` from :func:`frame_tracks`.
        speech: ``(n, frames)`` bool, frames that the voice activity detector passed.

    Returns:
        ``(features, used)``: ``(n, FEATURE_COUNT)`` float32 in the order of :data:`NAMES`,
        invariant to a constant gain, and ``(n,)`` int, the frames that they rest on: speech
        less pauses. Windows with 0 used frames have features of 0.
    """
    level = tracks[..., LEVEL]
    loudest = _masked_quantiles(level, speech, (0.95,))
    used = speech & (level > loudest - PAUSE_DB)
    voiced = used & (tracks[..., VOICING] > VOICED)
    # A whisper has no voiced frames: then all used frames stand in.
    timbre = np.where(voiced.sum(axis=1, keepdims=True) >= 5, voiced, used)
    # Stressed vowels: the loudest third.
    loud = timbre & (level >= _masked_quantiles(level, timbre, (0.67,)))
    count, voiced_count = used.sum(axis=1), voiced.sum(axis=1)

    chosen = tracks[..., list(_TIMBRE)]
    middle = _masked_mean(tracks[..., VOICING:], timbre)
    spread = _masked_quantiles(chosen, timbre, (0.1, 0.9))
    strength = _masked_mean(tracks[..., [VOICING, PITCH_PEAK, CEPSTRAL_PEAK]], used)
    runs = voiced[:, 0] + (voiced[:, 1:] & ~voiced[:, :-1]).sum(axis=1)
    columns = [
        middle[:, [t - VOICING for t in _TIMBRE]],
        spread[:, 0],
        spread[:, 1],
        _masked_mean(chosen, loud),
        (voiced_count / np.maximum(count, 1))[:, None],
        strength,
        _melody(tracks[..., F0], voiced),
        _dynamics(tracks, used),
        (voiced_count / np.maximum(runs, 1))[:, None],
        (runs / voiced.shape[1])[:, None],
        middle[:, len(TRACKS) - VOICING :],
    ]
    features = np.concatenate(columns, axis=1).astype(np.float32)
    features[count == 0] = 0.0
    return features, count


def _melody(f0: NDArray[np.float32], voiced: NDArray[np.bool_]) -> NDArray[np.float32]:
    """F0's quantiles, spread and steps, ``(n, 12)``; windows without voice: 0."""
    quantiles = _masked_quantiles(f0, voiced, (0.1, 0.25, 0.5, 0.75, 0.9))
    # A frame taken for its octave (a tenth of them) is folded back to the window's median.
    off = f0 - quantiles[:, 2:3]
    folded = f0 - np.where(np.abs(np.abs(off) - 1.0) < 0.3, np.sign(off), 0.0).astype(np.float32)
    both = voiced[:, 1:] & voiced[:, :-1]
    step = np.abs(np.diff(f0, axis=1))
    steps = np.stack([np.minimum(step, 0.5), (step > 0.3).astype(np.float32)], axis=-1)
    return np.concatenate(
        [
            quantiles,
            _masked_deviation(f0, voiced),
            _masked_quantiles(folded, voiced, (0.1, 0.5, 0.9)),
            _masked_deviation(folded, voiced),
            _masked_mean(steps, both),
        ],
        axis=1,
    )


def _dynamics(tracks: NDArray[np.float32], used: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How level and spectrum move from frame to frame, ``(n, 6)``."""
    level = tracks[..., LEVEL]
    quantiles = _masked_quantiles(level, used, (0.1, 0.5, 0.9))
    both = used[:, 1:] & used[:, :-1]
    change = np.diff(level, axis=1)
    flux = np.abs(np.diff(tracks[..., len(TRACKS) :], axis=1)).mean(axis=-1)
    moved = _masked_mean(np.stack([np.minimum(np.abs(change), 20.0), flux], axis=-1), both)
    rise = np.where(both, np.clip(change, 0.0, 20.0), 0.0).max(axis=1, keepdims=True)
    return np.concatenate(
        [
            _masked_deviation(level, used),
            quantiles[:, 2:] - quantiles[:, 1:2],
            quantiles[:, 1:2] - quantiles[:, :1],
            moved[:, :1],
            rise,
            moved[:, 1:],
        ],
        axis=1,
    )
