"""Tones to speak, and which tones a recording holds."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 8000


def write_wav(path: Path, samples: NDArray[np.float64]) -> Path:
    """16-bit mono WAV at 8 kHz from samples of full scale ±1."""
    with wave.open(str(path), "wb") as audio:
        audio.setparams((1, 2, RATE, 0, "NONE", ""))
        audio.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def write_tone(path: Path, hertz: float, seconds: float, level: float = 0.3) -> Path:
    """A steady tone."""
    time = np.arange(int(seconds * RATE)) / RATE
    return write_wav(path, level * np.sin(2 * np.pi * hertz * time))


def tone_db(samples: NDArray[np.float32], hertz: float) -> float:
    """Level of one frequency in a stretch of sound, dB relative to full scale."""
    window = np.hanning(len(samples))
    time = np.arange(len(samples)) / RATE
    value = np.abs(np.sum(samples * window * np.exp(-2j * np.pi * hertz * time)))
    return float(20 * np.log10(2 * value / np.sum(window) + 1e-9))


def blocks(samples: NDArray[np.float32], seconds: float = 0.2) -> list[NDArray[np.float32]]:
    """Cut into blocks of equal length."""
    size = int(seconds * RATE)
    return [samples[start : start + size] for start in range(0, len(samples) - size + 1, size)]


def purity(samples: NDArray[np.float32], hertz: float) -> float:
    """Share of a stretch's power that is one frequency, 0..1: 1 is that tone and nothing else."""
    power = float(np.mean(samples.astype(np.float64) ** 2))
    amplitude = 10 ** (tone_db(samples, hertz) / 20)
    return amplitude**2 / 2 / max(power, 1e-12)
