"""A shout made from calm synthetic speech, by what raised vocal effort does to a voice.

The WORLD vocoder (Morise et al., IEICE 2016; ``pyworld``) separates pitch, spectral envelope and
aperiodicity; each is changed as shouted speech differs from spoken (Traunmüller & Eriksson, JASA
107, 2000; Rostolland, Acustica 50, 1982; Raitio et al., Interspeech 2013) and the parts are put
together again:

* F0 up by an octave and more, with wider movement;
* F1 up by a quarter (the jaw opens), fading to no change at 2.5 kHz;
* a flatter spectrum: 1 to 4 kHz up against what lies below, the fundamental itself weaker
  (a shorter open phase of the glottis);
* long, even vowels: voiced parts stretched, loudness contour compressed;
* a firmer and rougher voice: cycle-to-cycle irregularity of pitch and level at about 30-70 Hz;
* an overdriven handset: soft clipping.

It is a simulation, used by the demo alone. It is not the code that trains the detectors.
"""

from __future__ import annotations

import numpy as np
import pyworld
from numpy.typing import NDArray

Samples = NDArray[np.float64]

#: Milliseconds between WORLD's frames.
_FRAME_MS = 5.0


def shout(
    x: Samples, rate: int, effort: float, *, octaves: float = 1.3, tilt_db: float = 16.0
) -> Samples:
    """Re-speak ``x`` with raised vocal effort.

    Args:
        x: speech, full scale 1.0, at 16 kHz or more.
        rate: Hz.
        effort: 0 (only the vocoder) to 1; scales every change.
        octaves: rise of F0 at full effort.
        tilt_db: rise of 1-4 kHz against 400 Hz at full effort.

    Returns:
        Speech of about 1.1 times the length at full effort, not levelled.
    """
    f0, at = pyworld.harvest(x, rate, f0_floor=60.0, f0_ceil=500.0, frame_period=_FRAME_MS)
    envelope = pyworld.cheaptrick(x, f0, at, rate)
    breath = pyworld.d4c(x, f0, at, rate)
    hz = np.linspace(0.0, rate / 2, envelope.shape[1])

    f0 = _raise_pitch(f0, effort, octaves)
    envelope = _raise_first_formant(envelope, hz, effort)
    envelope = _flatten(envelope, hz, f0, effort, tilt_db)
    envelope = _compress(envelope, effort)
    breath = np.clip(breath * (1.0 - 0.4 * effort), 1e-3, 1.0)

    frames = _stretch_voiced(f0, effort)
    y = pyworld.synthesize(
        np.ascontiguousarray(f0[frames]),
        np.ascontiguousarray(envelope[frames]),
        np.ascontiguousarray(breath[frames]),
        rate,
        _FRAME_MS,
    )
    return np.asarray(y, np.float64)


def overdrive(x: Samples, drive_db: float) -> Samples:
    """Soft clipping of a handset's microphone: ``tanh``, loudest 0.1 % driven by ``drive_db``."""
    top = float(np.quantile(np.abs(x), 0.999))
    gain = 10 ** (drive_db / 20) / top
    return np.asarray(np.tanh(x * gain))


def _raise_pitch(f0: Samples, effort: float, octaves: float) -> Samples:
    voiced = f0 > 0
    log = np.log2(f0[voiced])
    middle = float(np.median(log))
    out = f0.copy()
    raised = middle + effort * octaves + (log - middle) * (1.0 + 0.7 * effort)
    # Irregular cycles of a strained voice: seeded, so that a rendering can be repeated.
    jitter = np.random.default_rng(3).normal(0.0, 0.012 * effort, raised.shape)
    out[voiced] = 2 ** np.minimum(raised + jitter, middle + effort * octaves + 0.8)
    return out


def _raise_first_formant(envelope: Samples, hz: Samples, effort: float) -> Samples:
    ratio = 1.0 + 0.25 * effort * np.clip((2500.0 - hz) / 1500.0, 0.0, 1.0)
    log = np.log(envelope)
    warped = np.stack([np.interp(hz / ratio, hz, frame) for frame in log])
    return np.asarray(np.exp(warped))


def _flatten(envelope: Samples, hz: Samples, f0: Samples, effort: float, tilt_db: float) -> Samples:
    octaves = np.log2(np.clip(hz, 400.0, 4000.0) / 400.0)
    rise_db = effort * tilt_db * np.minimum(octaves / np.log2(1600.0 / 400.0), 1.0)
    gain = np.tile(rise_db, (len(envelope), 1))
    for i, pitch in enumerate(f0):
        if pitch > 0:
            # The fundamental of a pressed voice is some 6 dB weaker than its second harmonic.
            gain[i] -= 6.0 * effort * np.clip(1.0 - (hz - pitch) / (0.7 * pitch), 0.0, 1.0)
        else:
            # Hiss of s and ch grows less than vowels do.
            gain[i] *= 0.4
    return np.asarray(envelope * 10 ** (gain / 10))


def _compress(envelope: Samples, effort: float) -> Samples:
    level = 10 * np.log10(envelope.mean(axis=1) + 1e-16)
    loud = float(np.quantile(level, 0.95))
    near = np.maximum(level, loud - 30.0)
    gain_db = 0.45 * effort * (loud - near) * (level > loud - 40.0)
    kernel = np.hanning(13)
    gain_db = np.convolve(gain_db, kernel / kernel.sum(), "same")
    rough = np.random.default_rng(4).normal(0.0, 1.0 * effort, len(level))
    return np.asarray(envelope * 10 ** ((gain_db + rough) / 10)[:, None])


def _stretch_voiced(f0: Samples, effort: float) -> NDArray[np.intp]:
    step = np.where(f0 > 0, 1.0 / (1.0 + 0.15 * effort), 1.0)
    pace = np.cumsum(1.0 / step)
    wanted = np.arange(0.0, pace[-1], 1.0)
    return np.minimum(np.searchsorted(pace, wanted), len(f0) - 1)
