"""Sounds for the detector's tests: made ones, and recordings where the data are present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "audio" / "manifest.tsv").exists(), reason="needs ../shared/data"
)
RATE = 8000


def tones(*hz: float, seconds: float = 2.0, level: float = 0.2) -> NDArray[np.float32]:
    """A sum of steady sines."""
    time_s = np.arange(int(seconds * RATE)) / RATE
    waves = np.array([np.sin(2 * np.pi * f * time_s) for f in hz])
    return (level * waves.sum(axis=0)).astype(np.float32)


def dtmf(seconds: float = 4.0) -> NDArray[np.float32]:
    """Keys 1 5 9 D in turn, 100 ms on, 100 ms off (ITU-T Q.23)."""
    keys = [(697, 1209), (770, 1336), (852, 1477), (941, 1633)]
    parts: list[NDArray[np.float32]] = []
    while sum(map(len, parts)) < seconds * RATE:
        parts += [tones(*keys[len(parts) // 2 % 4], seconds=0.1), np.zeros(800, np.float32)]
    return np.concatenate(parts)[: int(seconds * RATE)]


def white_noise(seconds: float = 2.0, level: float = 0.1, seed: int = 1) -> NDArray[np.float32]:
    """Gaussian noise."""
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(int(seconds * RATE))).astype(np.float32)


def vowels(
    f0_hz: float, tilt_db_per_octave: float, seconds: float = 3.0, first_formant_hz: float = 600.0
) -> NDArray[np.float32]:
    """Sung syllables: harmonics of a source with a tilt through a cascade of formants (Fant 1960).

    A calm voice has a low F0 and a steep tilt (about -12 dB an octave), a shouting one a high
    F0, a flat tilt (about -6) and a high first formant.
    """
    time_s = np.arange(int(seconds * RATE)) / RATE
    wobble = 1.0 + 0.06 * np.sin(2 * np.pi * 3.1 * time_s) + 0.1 * np.sin(2 * np.pi * 0.7 * time_s)
    phase = 2 * np.pi * np.cumsum(f0_hz * wobble) / RATE
    out = np.zeros_like(time_s)
    # The first formant moves from vowel to vowel, twice a second.
    moving = first_formant_hz * (1.0 + 0.2 * np.sign(np.sin(2 * np.pi * 1.0 * time_s)))
    for harmonic in range(1, int(3400 / f0_hz) + 1):
        hz = harmonic * f0_hz
        gain = 10 ** ((tilt_db_per_octave + 6.0) * np.log2(harmonic) / 20) * np.ones_like(time_s)
        for formant, width in ((moving, 90.0), (1400.0, 110.0), (2500.0, 150.0), (3500.0, 200.0)):
            ratio = hz / formant
            gain = gain / np.sqrt((1 - ratio**2) ** 2 + (ratio * width / formant) ** 2)
        out += gain * np.sin(harmonic * phase)
    syllables = np.clip(1.4 * np.sin(np.pi * 4.0 * time_s) ** 2, 0.0, 1.0)
    out = out * syllables + 1e-3 * np.random.default_rng(3).standard_normal(len(out))
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def calm_voice(seconds: float = 4.0) -> NDArray[np.float32]:
    """A synthetic calm voice."""
    return vowels(115.0, -12.0, seconds, 450.0)


def shouting_voice(seconds: float = 4.0) -> NDArray[np.float32]:
    """A synthetic shouting voice."""
    return vowels(310.0, -6.0, seconds, 850.0)
