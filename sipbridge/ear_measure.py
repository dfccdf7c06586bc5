"""Measuring what the ear protection does: levels, test signals, tones and noise.

All signals are int16 at 8 kHz of shape (n,). Levels are in dBFS relative to an RMS of 32768 (dBov
of ITU-T G.100.1). Used by :mod:`sipbridge.ear_report` and by the tests; nothing in a call is.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from callshield import g711
from sipbridge.relay_core import Ear

RATE = g711.SAMPLE_RATE_HZ
PACKET = 160
Samples = NDArray[np.int16]
Signal = NDArray[np.float64]


def to_samples(signal: Signal) -> Samples:
    """Round a signal in full scale 1 and clip it."""
    return np.clip(np.round(signal * 32768.0), -32768, 32767).astype(np.int16)


def level_dbfs(samples: Samples | Signal) -> float:
    """RMS level; -120 for silence."""
    scale = 32768.0 if samples.dtype == np.int16 else 1.0
    power = float(np.mean(np.square(samples / scale))) if len(samples) else 0.0
    return 10.0 * math.log10(max(power, 1e-12))


def short_time_dbfs(samples: Samples, window_ms: float = 20.0) -> Signal:
    """Level of each window, one after the other: shape (n // window,)."""
    size = int(RATE * window_ms / 1000.0)
    frames = samples[: len(samples) // size * size].reshape(-1, size) / 32768.0
    result: Signal = 10.0 * np.log10(np.maximum(np.mean(np.square(frames), axis=1), 1e-12))
    return result


def active_level_dbfs(samples: Samples, margin_db: float = 15.9) -> float:
    """Active speech level (ITU-T P.56 method B: envelope of 30 ms, hangover of 200 ms).

    The threshold is searched in steps of 1 dB, so the result is good to about half a dB.
    """
    absolute = np.abs(samples / 32768.0)
    decay = np.exp(-1.0 / (RATE * 0.03))
    # Two equal one-pole filters, as an FIR long enough that nothing is left of it.
    taps = np.arange(1, int(RATE * 0.3) + 1)
    kernel = taps * (1.0 - decay) ** 2 * decay ** (taps - 1)
    envelope = np.maximum(np.convolve(absolute, kernel)[: len(absolute)], 1e-9)
    energy = float(np.sum(np.square(absolute)))
    if energy <= 0.0:
        return -120.0
    hang = int(RATE * 0.2)
    before: tuple[float, float] | None = None
    for threshold_db in range(-80, 1):
        above = np.flatnonzero(envelope >= 10.0 ** (threshold_db / 20.0))
        if not len(above):
            break
        gaps = np.minimum(np.diff(above, append=len(envelope)), hang)
        active_db = 10.0 * np.log10(energy / float(np.sum(gaps)))
        distance = active_db - threshold_db
        if distance <= margin_db:
            if before is None:
                return float(active_db)
            share = (before[1] - margin_db) / max(before[1] - distance, 1e-9)
            return float(before[0] + share * (active_db - before[0]))
        before = (float(active_db), float(distance))
    return before[0] if before else -120.0


def at_active_level(samples: Samples, wanted_dbfs: float) -> Samples:
    """The same speech at another active level, clipped where it does not fit."""
    gain_db = wanted_dbfs - active_level_dbfs(samples)
    return to_samples(samples / 32768.0 * 10.0 ** (gain_db / 20.0))


def telephone_band(signal: Signal) -> Signal:
    """300 to 3400 Hz, by smooth slopes in the frequency domain."""
    size = 1 << (len(signal) + 1024).bit_length()
    hz = np.maximum(np.fft.rfftfreq(size, 1.0 / RATE), 1.0)
    shape = 1.0 / np.sqrt((1.0 + (300.0 / hz) ** 10) * (1.0 + (hz / 3400.0) ** 20))
    result: Signal = np.fft.irfft(np.fft.rfft(signal, size) * shape)[: len(signal)]
    return result


def load(path: Path) -> Samples:
    """A recording as it comes over a G.711 line: mono, 8 kHz, telephone band, peak at -1 dBFS."""
    audio, rate = soundfile.read(path, dtype="float64", always_2d=True)
    signal = telephone_band(soxr.resample(audio[:, 0], rate, RATE))
    signal *= 10.0 ** (-1.0 / 20.0) / max(float(np.max(np.abs(signal))), 1e-9)
    return over_g711(to_samples(signal))


def over_g711(samples: Samples, payload_type: int = g711.PCMU) -> Samples:
    """What is left after one µ-law (or A-law) encoding."""
    return g711.decode(g711.encode(samples, payload_type), payload_type)


def hear(ear: Ear, samples: Samples, packet: int = PACKET) -> Samples:
    """Send samples through ``ear`` in packets of ``packet`` samples."""
    raw = samples.astype("<i2").tobytes()
    step = 2 * packet
    done = b"".join(ear.process(raw[i : i + step]) for i in range(0, len(raw), step))
    return np.frombuffer(done, "<i2").astype(np.int16)


def tones(
    frequencies_hz: list[float], level: float, seconds: float, amplitudes: list[float] | None = None
) -> Samples:
    """A sum of sines at a given RMS level in dBFS."""
    t = np.arange(int(RATE * seconds)) / RATE
    weights = amplitudes or [1.0] * len(frequencies_hz)
    pairs = enumerate(zip(frequencies_hz, weights, strict=True))
    signal = sum((w * np.sin(2.0 * np.pi * f * t + i) for i, (f, w) in pairs), np.zeros(len(t)))
    return to_samples(signal * 10.0 ** (level / 20.0) / np.sqrt(np.mean(np.square(signal))))


def whistle(level: float, seconds: float) -> Samples:
    """A pea whistle: 2.8 kHz that wavers by 150 Hz and half its amplitude, 35 times a second."""
    waver = np.sin(2.0 * np.pi * 35.0 * np.arange(int(RATE * seconds)) / RATE)
    phase = 2.0 * np.pi * np.cumsum(2800.0 + 150.0 * waver) / RATE
    signal = np.sin(phase) * (0.75 + 0.25 * waver)
    return to_samples(signal * 10.0 ** (level / 20.0) / np.sqrt(np.mean(np.square(signal))))


def noise(level: float, seconds: float, seed: int = 1) -> Samples:
    """White noise in the telephone band at a given RMS level in dBFS."""
    signal = telephone_band(np.random.default_rng(seed).standard_normal(int(RATE * seconds)))
    return to_samples(signal * 10.0 ** (level / 20.0) / np.sqrt(np.mean(np.square(signal))))


def mixed(one: Samples, other: Samples) -> Samples:
    """Sum of two signals of one length, clipped."""
    total = one.astype(np.int32) + other.astype(np.int32)
    return np.clip(total, -32768, 32767).astype(np.int16)


def a_weighting_db(hz: float) -> float:
    """The A curve of IEC 61672-1 (annex E), 0 dB at 1 kHz."""

    def curve(f: float) -> float:
        s = f * f
        low, high = 20.598997**2, 12194.217**2
        middle = np.sqrt((s + 107.65265**2) * (s + 737.86223**2))
        return float(high * s * s / ((s + low) * middle * (s + high)))

    return float(20.0 * np.log10(curve(hz) / curve(1000.0)))


def pauses(samples: Samples, quiet_dbfs: float, least_ms: float = 400.0) -> list[tuple[int, int]]:
    """Stretches (start, end) in which every 20 ms stay below a level."""
    quiet = short_time_dbfs(samples) < quiet_dbfs
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False])).astype(int)))
    found = [(int(a) * 160, int(b) * 160) for a, b in pairwise(edges) if quiet[a]]
    return [(a, b) for a, b in found if (b - a) * 1000 / RATE >= least_ms]
