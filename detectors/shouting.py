"""Shouted speech simulated from calm recordings, for training only (WORLD vocoder, pyworld).

What is changed is what the literature on vocal effort measured (Traunmüller & Eriksson 2000;
Raitio et al., Interspeech 2013): F0 up by half an octave to more than one, flatter spectral tilt,
F1 up, longer and more even syllables, firmer voicing. Calm recordings also pass the vocoder with
changes that are *not* effort (another voice's pitch and vocal tract, a brighter microphone), so
that the vocoder's own sound says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyworld
import soxr
from numpy.typing import NDArray

#: Lowest rate that WORLD's aperiodicity analysis (D4C) works at, in Hz.
_WORLD_RATE = 16000


@dataclass(frozen=True, slots=True)
class Effort:
    """How to re-speak a recording."""

    f0_octaves: float
    """Shift of F0."""
    f0_spread: float
    """Factor on F0's excursions from its median, in octaves."""
    tilt_db_per_octave: float
    """Added slope above 500 Hz."""
    f1_ratio: float
    """Factor on frequencies below 1 kHz, fading to 1 at 2.5 kHz."""
    tract_ratio: float
    """Factor on all frequencies: another speaker's vocal tract."""
    stretch: float
    """Factor on duration."""
    evenness: float
    """0 leaves the loudness contour, 1 flattens it."""
    breath: float
    """Factor on aperiodicity."""


def shouted(rng: np.random.Generator) -> Effort:
    """Draw the settings of a shout; the parts go together, as they do in a throat."""
    strength = float(rng.uniform(0.5, 1.0))
    return Effort(
        f0_octaves=strength * float(rng.uniform(0.7, 1.25)),
        f0_spread=float(rng.uniform(1.0, 1.6)),
        tilt_db_per_octave=strength * float(rng.uniform(4.0, 8.0)),
        f1_ratio=1.0 + strength * float(rng.uniform(0.15, 0.35)),
        tract_ratio=float(rng.uniform(0.95, 1.08)),
        stretch=1.0 + strength * float(rng.uniform(0.0, 0.35)),
        evenness=strength * float(rng.uniform(0.2, 0.5)),
        breath=float(rng.uniform(0.5, 1.1)),
    )


def calm(rng: np.random.Generator) -> Effort:
    """Draw the settings of another calm speaker: changes that are no effort."""
    pitch = float(rng.uniform(-0.3, 0.35))
    return Effort(
        f0_octaves=pitch,
        f0_spread=float(rng.uniform(0.7, 1.3)),
        tilt_db_per_octave=float(rng.uniform(-2.0, 2.0)),
        f1_ratio=float(rng.uniform(0.96, 1.05)),
        tract_ratio=1.0 + 0.25 * pitch + float(rng.uniform(-0.04, 0.04)),
        stretch=float(rng.uniform(0.85, 1.2)),
        evenness=float(rng.uniform(0.0, 0.2)),
        breath=float(rng.uniform(0.8, 1.2)),
    )


@dataclass(frozen=True, slots=True)
class Voice:
    """WORLD's analysis of one recording."""

    rate: int
    f0: NDArray[np.float64]
    envelope: NDArray[np.float64]
    aperiodicity: NDArray[np.float64]


def analyse(audio: NDArray[np.float32], rate: int) -> Voice:
    """Take a recording apart: ``(n,)`` float32 at any rate of 8 kHz or more."""
    if rate < _WORLD_RATE:
        # WORLD's aperiodicity has no band at 8 kHz and returns whatever was in memory.
        audio, rate = soxr.resample(audio, rate, _WORLD_RATE), _WORLD_RATE
    x = np.ascontiguousarray(audio, dtype=np.float64)
    f0, t = pyworld.dio(x, rate, f0_floor=65.0, f0_ceil=500.0)
    f0 = pyworld.stonemask(x, f0, t, rate)
    return Voice(rate, f0, pyworld.cheaptrick(x, f0, t, rate), pyworld.d4c(x, f0, t, rate))


def respeak(voice: Voice, effort: Effort) -> NDArray[np.float32]:
    """Synthesise a recording with another effort; float32 at the voice's rate."""
    frames = max(2, round(len(voice.f0) * effort.stretch))
    index = np.clip(
        np.rint(np.linspace(0, len(voice.f0) - 1, frames)).astype(int), 0, len(voice.f0) - 1
    )
    f0 = voice.f0[index].copy()
    voiced = f0 > 0
    if voiced.any():
        log_f0 = np.log2(f0[voiced])
        middle = np.median(log_f0)
        moved = middle + effort.f0_octaves + (log_f0 - middle) * effort.f0_spread
        f0[voiced] = np.clip(2.0**moved, 65.0, 620.0)
    hz = np.linspace(0, voice.rate / 2, voice.envelope.shape[1])
    fade = np.interp(hz, [0, 1000, 2500, voice.rate / 2], [1.0, 1.0, 0.0, 0.0])
    ratio = effort.tract_ratio * (1.0 + (effort.f1_ratio - 1.0) * fade)
    source = np.clip(hz / ratio, 0, hz[-1])
    envelope = np.stack([np.interp(source, hz, row) for row in voice.envelope[index]])
    energy = envelope.mean(axis=1) + 1e-12
    reference = np.quantile(energy, 0.9)
    audible = energy > reference * 1e-4
    lift = np.where(audible, (reference / energy) ** effort.evenness, 1.0)
    tilt = 10 ** (effort.tilt_db_per_octave * np.log2(np.maximum(hz, 500.0) / 500.0) / 10.0)
    # A shout is voiced effort: unvoiced frames and pauses keep their colour.
    slope = np.where(voiced[:, None], tilt[None, :], 1.0)
    envelope = envelope * lift[:, None] * slope
    aperiodicity = np.clip(voice.aperiodicity[index] * effort.breath, 1e-6, 1.0)
    out = pyworld.synthesize(
        np.ascontiguousarray(f0),
        np.ascontiguousarray(envelope),
        np.ascontiguousarray(aperiodicity),
        voice.rate,
    )
    peak = np.abs(out).max() + 1e-9
    result: NDArray[np.float32] = (out / peak * 0.7).astype(np.float32)
    return result
