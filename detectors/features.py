"""Vocal-effort features of telephone speech, free of level, vectorised over calls.

Raised voices differ from calm ones in ways that survive a telephone channel and a volume knob:
energy moves from below 1 kHz to 1-3.4 kHz (flatter spectral tilt), F0 rises and spreads, F1 rises,
voicing gets stronger, vowels longer (Traunmüller & Eriksson, JASA 107, 2000; Zhang & Hansen,
Interspeech 2007). Alpha ratio and Hammarberg index follow the extended Geneva set (Eyben et al.,
IEEE Trans. Affective Computing 7, 2016), with their bands cut to 300-3400 Hz.

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
BANDS = 16
BAND_EDGES_HZ = (300.0, 3400.0)
#: Search range of the fundamental, in Hz: low male voices to screams.
F0_RANGE_HZ = (70.0, 640.0)

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
)
LEVEL, VOICING, F0, ALPHA, HAMMARBERG, SLOPE, CENTROID, FORMANT = range(len(TRACKS))
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

    low, high = mel(np.array(BAND_EDGES_HZ))
    edges = 700.0 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    rising = (_HZ[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - _HZ[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _between(low_hz: float, high_hz: float) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (low_hz <= _HZ) & (high_hz > _HZ)
    return result


_OWN = _window_autocorrelation()
_MEL = _mel_filters()
_CENTRES = (_MEL * _HZ[:, None]).sum(axis=0) / _MEL.sum(axis=0)
_OCTAVES = (np.log2(_CENTRES) - np.log2(_CENTRES).mean()).astype(np.float32)
_TELEPHONE = _between(*BAND_EDGES_HZ)
_LOW, _HIGH = _between(300, 1000), _between(1000, 3400)
_PEAK_LOW, _PEAK_HIGH = _between(300, 2000), _between(2000, 3400)
_F1 = _between(300, 1200)


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
    power = np.abs(np.fft.rfft(windows * _WINDOW, _FFT, axis=-1)) ** 2
    power = power.astype(np.float32)
    # Some lines carry the fundamental and some do not: no feature may see it.
    power[..., _HZ < 280.0] = 0.0
    out = np.empty((calls, frames, TRACK_COUNT), dtype=np.float32)

    band = power[..., _TELEPHONE]
    total = band.sum(axis=-1) + _EPSILON
    out[..., LEVEL] = 10.0 * np.log10(total)
    out[..., ALPHA] = _ratio_db(power[..., _HIGH].sum(-1), power[..., _LOW].sum(-1))
    out[..., HAMMARBERG] = _ratio_db(power[..., _PEAK_LOW].max(-1), power[..., _PEAK_HIGH].max(-1))
    out[..., CENTROID] = np.log2((band @ _HZ[_TELEPHONE]) / total + 1.0)
    first = power[..., _F1]
    out[..., FORMANT] = np.log2((first @ _HZ[_F1]) / (first.sum(-1) + _EPSILON) + 1.0)
    bands = 10.0 * np.log10(power @ _MEL + 1e-7 * total[..., None])
    bands -= bands.mean(axis=-1, keepdims=True)
    out[..., SLOPE] = (bands @ _OCTAVES) / np.float32(np.square(_OCTAVES).sum())
    out[..., len(TRACKS) :] = bands
    out[..., VOICING], out[..., F0] = _pitch(power)
    return out


def _ratio_db(over: NDArray[np.float32], under: NDArray[np.float32]) -> NDArray[np.float32]:
    ratio = 10.0 * np.log10((over + _EPSILON) / (under + _EPSILON))
    result: NDArray[np.float32] = np.clip(ratio, -60.0, 60.0)
    return result


def _pitch(power: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Voicing strength 0..1 and log2 of F0 in Hz from power spectra.

    The strength is the highest peak of the normalised autocorrelation (Boersma 1993). F0 is
    sought in the autocorrelation of the *magnitude* spectrum (Tolonen & Karjalainen, IEEE Trans.
    Speech and Audio Processing 8, 2000): flatter, it shows the period of a voice whose
    fundamental the line took away and whose first formant drowns the rest.
    """
    plain = _lagged(power)
    strength = np.clip(plain[..., 1:-1].max(axis=-1), 0.0, 0.999)
    lagged = _lagged(np.sqrt(power))
    cost = _OCTAVE_COST * np.log2(_LAGS[1:-1] * (F0_RANGE_HZ[0] / RATE)).astype(np.float32)
    inner = lagged[..., 1:-1]
    peaks = (inner >= lagged[..., :-2]) & (inner >= lagged[..., 2:])
    best = np.where(peaks, inner - cost, -9.0).argmax(axis=-1)[..., None] + 1
    left, mid, right = (np.take_along_axis(lagged, best + d, axis=-1)[..., 0] for d in (-1, 0, 1))
    curve = np.minimum(left - 2 * mid + right, -1e-9)
    offset = np.clip(0.5 * (left - right) / curve, -0.5, 0.5)
    f0_hz = RATE / (_LAGS[best[..., 0]] + offset)
    return strength.astype(np.float32), np.log2(f0_hz).astype(np.float32)


def _lagged(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    own = np.fft.irfft(spectrum, _FFT, axis=-1).astype(np.float32, copy=False)
    lagged = own[..., _LAGS] / (own[..., :1] + np.float32(_EPSILON)) / _OWN[_LAGS]
    return lagged.astype(np.float32, copy=False)


def _masked_quantiles(
    values: NDArray[np.float32], mask: NDArray[np.bool_], quantiles: tuple[float, ...]
) -> NDArray[np.float32]:
    """Quantiles along axis 1 of the masked entries, ``(n, frames)`` to ``(n, q)``; none: 0."""
    ordered = np.sort(np.where(mask, values, np.inf), axis=1)
    count = mask.sum(axis=1)
    out = np.empty((len(values), len(quantiles)), dtype=np.float32)
    for i, q in enumerate(quantiles):
        index = np.minimum(np.rint(q * np.maximum(count - 1, 0)).astype(int), values.shape[1] - 1)
        out[:, i] = ordered[np.arange(len(values)), index]
    out[count == 0] = 0.0
    return out


def _masked_moments(
    values: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation along axis 1: ``(n, frames, k)`` and ``(n, frames)`` to two ``(n, k)``."""
    weight = mask.astype(np.float32)[..., None]
    count = np.maximum(weight.sum(axis=1), 1.0)
    mean = (values * weight).sum(axis=1) / count
    spread = np.square(values - mean[:, None, :]) * weight
    deviation = np.sqrt(spread.sum(axis=1) / count)
    return np.asarray(mean, dtype=np.float32), np.asarray(deviation, dtype=np.float32)


_MOMENTS = (ALPHA, HAMMARBERG, SLOPE, CENTROID, FORMANT)
#: Names of the columns of a feature vector, in order.
NAMES: tuple[str, ...] = (
    *(f"{TRACKS[t]}_mean" for t in _MOMENTS),
    *(f"{TRACKS[t]}_deviation" for t in _MOMENTS),
    "alpha_db_p90",
    "hammarberg_db_p10",
    "centroid_log2_p90",
    "first_formant_log2_p90",
    "voicing_mean",
    "voicing_p90",
    "hnr_db_mean",
    "voiced_share",
    "f0_log2_p10",
    "f0_log2_median",
    "f0_log2_p90",
    "f0_range_octaves",
    "f0_deviation_octaves",
    "f0_step_octaves",
    "level_deviation_db",
    "level_p90_over_median_db",
    "level_step_db",
    "spectral_flux_db",
    "voiced_run_frames",
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
    loud = _masked_quantiles(level, speech, (0.95,))
    used = speech & (level > loud - PAUSE_DB)
    voiced = used & (tracks[..., VOICING] > VOICED)
    # A whisper has no voiced frames: then all used frames stand in.
    timbre = np.where(voiced.sum(axis=1, keepdims=True) >= 5, voiced, used)

    means, deviations = _masked_moments(tracks[..., list(_MOMENTS)], timbre)
    strength = tracks[..., VOICING]
    strong = np.clip(strength, 0.01, 0.999)
    hnr_db = 10.0 * np.log10(strong / (1.0 - strong))
    voicing_mean, _ = _masked_moments(np.stack([strength, hnr_db], axis=-1), used)
    f0 = tracks[..., F0]
    f0_quantiles = _masked_quantiles(f0, voiced, (0.1, 0.5, 0.9))
    both = voiced[:, 1:] & voiced[:, :-1]
    f0_step, _ = _masked_moments(np.minimum(np.abs(np.diff(f0, axis=1)), 0.5)[..., None], both)
    _, f0_deviation = _masked_moments(f0[..., None], voiced)
    level_change = np.minimum(np.abs(np.diff(level, axis=1)), 20.0)
    flux = np.abs(np.diff(tracks[..., len(TRACKS) :], axis=1)).mean(axis=-1)
    steps, _ = _masked_moments(np.stack([level_change, flux], axis=-1), used[:, 1:] & used[:, :-1])
    _, level_deviation = _masked_moments(level[..., None], used)
    level_quantiles = _masked_quantiles(level, used, (0.5, 0.9))
    count = used.sum(axis=1)
    voiced_count = voiced.sum(axis=1)
    runs = voiced[:, 0] + (voiced[:, 1:] & ~voiced[:, :-1]).sum(axis=1)
    columns = [
        means,
        deviations,
        _masked_quantiles(tracks[..., ALPHA], timbre, (0.9,)),
        _masked_quantiles(tracks[..., HAMMARBERG], timbre, (0.1,)),
        _masked_quantiles(tracks[..., CENTROID], timbre, (0.9,)),
        _masked_quantiles(tracks[..., FORMANT], timbre, (0.9,)),
        voicing_mean[:, :1],
        _masked_quantiles(strength, used, (0.9,)),
        voicing_mean[:, 1:],
        (voiced_count / np.maximum(count, 1))[:, None],
        f0_quantiles,
        f0_quantiles[:, 2:] - f0_quantiles[:, :1],
        f0_deviation,
        f0_step,
        level_deviation,
        level_quantiles[:, 1:] - level_quantiles[:, :1],
        steps,
        (voiced_count / np.maximum(runs, 1))[:, None],
    ]
    features = np.concatenate(columns, axis=1).astype(np.float32)
    features[count == 0] = 0.0
    return features, count
