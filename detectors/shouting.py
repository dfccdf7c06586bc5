"""Shouted speech simulated from calm recordings, for training only (WORLD vocoder, pyworld).

What is changed is what the literature on vocal effort measured (Traunmüller & Eriksson 2000;
Raitio et al., Interspeech 2013): F0 up by half an octave to more than one, flatter spectral tilt,
F1 up, longer vowels, vowels louder beside their consonants, firmer voicing. Effort comes in
degrees: :func:`raised` is the voice across a room, :func:`shouted` across a street,
:func:`screamed` one held vowel with the roughness that marks screams (Arnal et al., Current Biology
25, 2015: modulation at 30 to 150 Hz).

Calm recordings also pass the vocoder with changes that are *not* effort (:func:`calm`: another
voice's pitch and vocal tract, a child's too, a brighter microphone; :func:`lively`: melody without
effort), so that neither the vocoder's own sound nor the height of a voice says anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyworld
import soxr
from numpy.typing import NDArray

#: Lowest rate that WORLD's aperiodicity analysis (D4C) works at, in Hz.
_WORLD_RATE = 16000
#: WORLD's frame period, in seconds.
_PERIOD_S = 0.005
#: Highest fundamental of a scream, in Hz.
_HIGHEST_F0_HZ = 1000.0


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
    """Factor on aperiodicity: below 1 firmer, above 1 breathier."""
    vowel_stretch: float = 1.0
    """Factor on the duration of voiced frames, on top of ``stretch``."""
    vowel_db: float = 0.0
    """Gain of voiced frames over unvoiced ones, in dB."""
    roughness: float = 0.0
    """Depth of the amplitude modulation, 0..1."""
    roughness_hz: float = 70.0
    """Its rate."""


def raised(rng: np.random.Generator) -> Effort:
    """Draw the settings of a raised voice."""
    return _loud(rng, float(rng.uniform(0.25, 0.55)))


def shouted(rng: np.random.Generator) -> Effort:
    """Draw the settings of one shout."""
    return _loud(rng, float(rng.uniform(0.55, 1.0)))


def _loud(rng: np.random.Generator, strength: float) -> Effort:
    return Effort(
        f0_octaves=strength * float(rng.uniform(0.5, 1.25)),
        f0_spread=float(rng.uniform(0.9, 1.6)),
        tilt_db_per_octave=strength * float(rng.uniform(4.0, 8.5)),
        f1_ratio=1.0 + strength * float(rng.uniform(0.12, 0.38)),
        tract_ratio=float(rng.uniform(0.93, 1.1)),
        stretch=float(rng.uniform(0.85, 1.15)),
        evenness=strength * float(rng.uniform(0.1, 0.5)),
        breath=float(rng.uniform(0.4, 1.0)),
        vowel_stretch=1.0 + strength * float(rng.uniform(0.0, 0.5)),
        vowel_db=strength * float(rng.uniform(0.0, 8.0)),
        # Some voices go rough before they go high.
        roughness=strength * float(rng.uniform(0.1, 0.5)) if rng.random() < 0.25 else 0.0,
        roughness_hz=float(rng.uniform(40.0, 120.0)),
    )


def screamed(rng: np.random.Generator) -> Effort:
    """Draw the settings of a scream, for :func:`held`."""
    return Effort(
        f0_octaves=float(rng.uniform(1.0, 2.4)),
        f0_spread=float(rng.uniform(0.3, 1.2)),
        tilt_db_per_octave=float(rng.uniform(4.0, 9.0)),
        f1_ratio=float(rng.uniform(1.2, 1.6)),
        tract_ratio=float(rng.uniform(0.95, 1.15)),
        stretch=1.0,
        evenness=float(rng.uniform(0.5, 1.0)),
        breath=float(rng.uniform(0.4, 1.5)),
        roughness=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.8 else 0.0,
        roughness_hz=float(rng.uniform(30.0, 150.0)),
    )


def calm(rng: np.random.Generator) -> Effort:
    """Draw the settings of another calm speaker: changes that are no effort."""
    pitch = float(rng.uniform(-0.35, 0.45))
    child = rng.random() < 0.15
    if child:
        pitch = float(rng.uniform(0.4, 0.9))
    return Effort(
        f0_octaves=pitch,
        f0_spread=float(rng.uniform(0.7, 1.3)),
        tilt_db_per_octave=float(rng.uniform(-2.0, 2.0)),
        f1_ratio=float(rng.uniform(0.96, 1.05)),
        tract_ratio=1.0 + 0.25 * pitch + float(rng.uniform(-0.04, 0.04)),
        stretch=float(rng.uniform(0.85, 1.2)),
        evenness=float(rng.uniform(0.0, 0.2)),
        breath=float(rng.uniform(0.8, 1.2)),
        vowel_stretch=float(rng.uniform(0.9, 1.1)),
        vowel_db=float(rng.uniform(-2.0, 2.0)),
    )


def lively(rng: np.random.Generator) -> Effort:
    """Draw the settings of lively speech: much melody and quick, hardly any effort."""
    pitch = float(rng.uniform(0.05, 0.4))
    return Effort(
        f0_octaves=pitch,
        f0_spread=float(rng.uniform(1.3, 2.2)),
        tilt_db_per_octave=float(rng.uniform(-2.0, 1.5)),
        f1_ratio=float(rng.uniform(0.97, 1.06)),
        tract_ratio=float(rng.uniform(0.96, 1.08)),
        stretch=float(rng.uniform(0.75, 1.05)),
        evenness=float(rng.uniform(0.0, 0.1)),
        breath=float(rng.uniform(0.8, 1.3)),
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


def held(voice: Voice, seconds: float) -> Voice:
    """The longest voiced stretch of a recording, held: what a scream is made of."""
    voiced = np.concatenate([[0], (voice.f0 > 0).astype(int), [0]])
    starts, ends = (np.flatnonzero(np.diff(voiced) == sign) for sign in (1, -1))
    if not len(starts):
        return voice
    longest = int(np.argmax(ends - starts))
    # The middle of the vowel; its edges lean towards the consonants.
    start, end = int(starts[longest]), int(ends[longest])
    margin = (end - start) // 4
    index = np.linspace(start + margin, end - 1 - margin, max(2, int(seconds / _PERIOD_S)))
    # There and back in small steps: a vowel stretched alone stands still like a machine.
    step = np.rint(index + np.random.default_rng(len(voice.f0)).normal(0.0, 1.5, len(index)))
    chosen = np.clip(step.astype(int), start, end - 1)
    return Voice(voice.rate, voice.f0[chosen], voice.envelope[chosen], voice.aperiodicity[chosen])


def respeak(voice: Voice, effort: Effort) -> NDArray[np.float32]:
    """Synthesise a recording with another effort; float32 at the voice's rate."""
    index = _warped(voice.f0 > 0, effort)
    f0 = voice.f0[index].copy()
    voiced = f0 > 0
    if voiced.any():
        log_f0 = np.log2(f0[voiced])
        middle = np.median(log_f0)
        moved = middle + effort.f0_octaves + (log_f0 - middle) * effort.f0_spread
        f0[voiced] = np.clip(2.0**moved, 65.0, _HIGHEST_F0_HZ)
    hz = np.linspace(0, voice.rate / 2, voice.envelope.shape[1])
    fade = np.interp(hz, [0, 1000, 2500, voice.rate / 2], [1.0, 1.0, 0.0, 0.0])
    ratio = effort.tract_ratio * (1.0 + (effort.f1_ratio - 1.0) * fade)
    source = np.clip(hz / ratio, 0, hz[-1])
    envelope = np.stack([np.interp(source, hz, row) for row in voice.envelope[index]])
    energy = envelope.mean(axis=1) + 1e-12
    reference = np.quantile(energy, 0.9)
    audible = energy > reference * 1e-4
    lift = np.where(audible, (reference / energy) ** effort.evenness, 1.0)
    lift = lift * np.where(voiced, 10 ** (effort.vowel_db / 10.0), 1.0)
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
    if effort.roughness > 0:
        time_s = np.arange(len(out)) / voice.rate
        # The rate wanders, or it would be a tone of its own.
        wander = 1.0 + 0.15 * np.sin(2 * np.pi * 3.0 * time_s)
        phase = 2 * np.pi * effort.roughness_hz * np.cumsum(wander) / voice.rate
        out = out * (1.0 - effort.roughness * (0.5 + 0.5 * np.sin(phase)))
    peak = np.abs(out).max() + 1e-9
    result: NDArray[np.float32] = (out / peak * 0.7).astype(np.float32)
    return result


def _warped(voiced: NDArray[np.bool_], effort: Effort) -> NDArray[np.int_]:
    """Which frame of the recording stands at each frame of the new one."""
    length = effort.stretch * np.where(voiced, effort.vowel_stretch, 1.0)
    ends = np.cumsum(length)
    at = np.arange(max(2, round(float(ends[-1])))) + 0.5
    result: NDArray[np.int_] = np.clip(np.searchsorted(ends, at), 0, len(voiced) - 1)
    return result
