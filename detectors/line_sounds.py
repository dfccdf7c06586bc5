"""What a telephone line carries that is no speech: the network's tones, fax, music on hold.

Made for measuring the voice activity detector, from the recommendations that define the sounds.
The acoustic model is trained on tunes of :func:`music` too, with seeds that nothing measures.
Everything is float32 in -1..1 at 8 kHz, deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.resample import RATE

_ROWS_HZ, _COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)

Sound = NDArray[np.float32]


def tone(hz: Sequence[float], seconds: float, level: float = 0.15) -> Sound:
    """A sum of steady sines with edges of 2 ms, each sine of amplitude ``level``."""
    time_s = np.arange(int(seconds * RATE)) / RATE
    wave = sum((np.sin(2 * np.pi * f * time_s) for f in hz), np.zeros(len(time_s)))
    edge = np.clip(np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / 16.0, 0, 1)
    return np.asarray(level * wave * edge, dtype=np.float32)


def cadence(hz: Sequence[float], on_off_s: Sequence[float], seconds: float) -> Sound:
    """A tone switched on and off in turn (ITU-T E.180)."""
    parts: list[Sound] = []
    length, turn = 0, 0
    while length < seconds * RATE:
        step_s = on_off_s[turn % len(on_off_s)]
        part = tone(hz, step_s) if turn % 2 == 0 else np.zeros(int(step_s * RATE), np.float32)
        parts.append(part)
        length += len(part)
        turn += 1
    return np.concatenate(parts)[: int(seconds * RATE)]


def dtmf(seconds: float, on_s: float, off_s: float, seed: int = 1) -> Sound:
    """Random keys of a telephone's key pad (ITU-T Q.23)."""
    rng = np.random.default_rng(seed)
    parts: list[Sound] = []
    while sum(map(len, parts)) < seconds * RATE:
        pair = (_ROWS_HZ[int(rng.integers(4))], _COLUMNS_HZ[int(rng.integers(4))])
        parts += [tone(pair, on_s), np.zeros(int(off_s * RATE), np.float32)]
    return np.concatenate(parts)[: int(seconds * RATE)]


def fsk(mark_hz: float, space_hz: float, baud: float, seconds: float, seed: int = 1) -> Sound:
    """Continuous-phase frequency shift keying of random bits (ITU-T V.21: 300 baud)."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, int(seconds * baud) + 2)
    at = (np.arange(int(seconds * RATE)) * baud / RATE).astype(int)
    hz = np.where(bits[at] == 1, mark_hz, space_hz)
    return np.asarray(0.2 * np.sin(2 * np.pi * np.cumsum(hz) / RATE), dtype=np.float32)


def answer_tone(seconds: float, reversals: bool) -> Sound:
    """CED / ANSam: 2100 Hz, with phase reversals every 450 ms and 15 Hz AM (ITU-T V.8)."""
    time_s = np.arange(int(seconds * RATE)) / RATE
    wave = 0.2 * np.sin(2 * np.pi * 2100 * time_s)
    if reversals:
        wave *= (1 + 0.2 * np.sin(2 * np.pi * 15 * time_s)) * (-1.0) ** (time_s // 0.45)
    return np.asarray(wave, dtype=np.float32)


def _note(kind: str, hz: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    time_s = np.arange(int(seconds * RATE)) / RATE
    top = max(1, int(3600 / hz))
    if kind == "plucked":
        # Karplus & Strong, Computer Music Journal 7(2), 1983.
        period = max(2, round(RATE / hz))
        line = rng.uniform(-1, 1, period)
        out = np.empty(len(time_s))
        for start in range(0, len(out), period):
            part = out[start : start + period]
            part[:] = line[: len(part)]
            line = 0.498 * (line + np.roll(line, 1))
        return 0.7 * out
    vibrato = 0.004 * np.sin(2 * np.pi * 5.5 * time_s) if kind in ("strings", "flute") else 0.0
    phase = 2 * np.pi * np.cumsum(hz * (1.0 + vibrato * np.ones_like(time_s))) / RATE
    slope = {"piano": 1.2, "strings": 1.0, "flute": 2.5, "organ": 0.8, "synth": 1.0}[kind]
    out = np.zeros_like(time_s)
    for k in range(1, min(top, 20) + 1):
        if kind == "organ" and k not in (1, 2, 3, 4, 6, 8):
            continue
        decay = np.exp(-time_s * (1.5 + 0.8 * k)) if kind == "piano" else 1.0
        out += k**-slope * decay * np.sin(k * phase)
    attack_s = {"piano": 0.004, "organ": 0.01, "synth": 0.01}.get(kind, 0.08)
    envelope = np.minimum(1.0, time_s / attack_s) * np.minimum(1.0, (seconds - time_s) / 0.05)
    return np.asarray(0.4 * out * envelope)


def _hit(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    time_s = np.arange(int(0.15 * RATE)) / RATE
    if kind == "kick":
        return np.asarray(np.sin(2 * np.pi * 90 * time_s * np.exp(-6 * time_s)))
    noise = rng.standard_normal(len(time_s)) * np.exp(-time_s * (25 if kind == "snare" else 80))
    return np.asarray(0.4 * noise)


def music(seconds: float, lead: str, backing: str | None, drums: bool, seed: int) -> Sound:
    """A tune as a MIDI file's on-hold loop has it: lead over I-vi-IV-V chords, drums or none.

    Args:
        seconds: length.
        lead: piano, strings, flute, organ, synth or plucked.
        backing: the same for the chords; None for the lead alone.
        drums: kick, snare and hat.
        seed: of tempo, key and tune.
    """
    rng = np.random.default_rng(seed)
    beat_s = 60.0 / float(rng.uniform(72, 128))
    root_hz = 220.0 * 2 ** (float(rng.integers(-3, 6)) / 12)
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])
    out = np.zeros(int((seconds + 4) * RATE))

    def lay(sound: NDArray[np.float64], at_s: float, gain: float) -> None:
        start = int(at_s * RATE)
        part = sound[: max(0, len(out) - start)]
        out[start : start + len(part)] += gain * part

    step, beat = 3, 0
    while beat * beat_s < seconds:
        at_s = beat * beat_s
        chord = (0, 9, 5, 7)[beat // 4 % 4]
        if backing and beat % 4 == 0:
            third = 3 if chord == 9 else 4
            for semitones in (chord - 12, chord, chord + third, chord + 7):
                hz = root_hz * 2 ** (semitones / 12)
                lay(_note(backing, hz, 4 * beat_s, rng), at_s, 0.25)
        for half in range(int(rng.integers(1, 3))):
            step = int(np.clip(step + rng.integers(-2, 3), 0, len(scale) - 1))
            hz = root_hz * 2 ** (float(scale[step]) / 12)
            lay(_note(lead, hz, beat_s * float(rng.choice([0.5, 1.0])), rng), at_s, 0.5)
            at_s += 0.5 * beat_s * (half == 0)
        if drums:
            lay(_hit("kick" if beat % 2 == 0 else "snare", rng), beat * beat_s, 0.5)
            lay(_hit("hat", rng), (beat + 0.5) * beat_s, 0.3)
        beat += 1
    out = out[: int(seconds * RATE)]
    return np.asarray(0.5 * out / (np.abs(out).max() + 1e-9), dtype=np.float32)


def sounds(seconds: float = 20.0) -> dict[str, dict[str, Callable[[], Sound]]]:
    """Every sound by family and name, ``{"DTMF": {"100 ms": …}}``; made when called."""

    def steady(*hz: float) -> Callable[[], Sound]:
        return lambda: tone(hz, seconds)

    def switched(hz: Sequence[float], *on_off_s: float) -> Callable[[], Sound]:
        return lambda: cadence(hz, on_off_s, seconds)

    def tune(lead: str, backing: str | None, drums: bool, seed: int) -> Callable[[], Sound]:
        return lambda: music(seconds, lead, backing, drums, seed)

    return {
        "DTMF": {
            "40 ms": lambda: dtmf(seconds, 0.04, 0.04),
            "70 ms": lambda: dtmf(seconds, 0.07, 0.07),
            "100 ms": lambda: dtmf(seconds, 0.1, 0.1),
            "held 1 s": lambda: dtmf(seconds, 1.0, 0.3),
        },
        "call progress": {
            # ITU-T E.180 supplement 2: Korea/US, Europe/China, Japan, UK.
            "ringback 440+480": switched((440, 480), 1.0, 2.0),
            "ringback 425": switched((425,), 1.0, 4.0),
            "ringback 400+450": switched((400, 450), 0.4, 0.2, 0.4, 2.0),
            "ringback 400 x 16": switched((384, 416), 1.0, 2.0),
            "busy 480+620": switched((480, 620), 0.5, 0.5),
            "busy 425": switched((425,), 0.35, 0.35),
            "dial 350+440": steady(350, 440),
            "dial 400": steady(400),
            "dial 425": steady(425),
            "information 950/1400/1800": lambda: np.concatenate(
                [
                    np.concatenate([tone((f,), 0.33) for f in (950, 1400, 1800)] + [np.zeros(8000)])
                    for _ in range(int(seconds / 2))
                ]
            ).astype(np.float32),
        },
        "fax and modem": {
            "CNG 1100": switched((1100,), 0.5, 3.0),
            "CED 2100": lambda: answer_tone(seconds, reversals=False),
            "ANSam 2100": lambda: answer_tone(seconds, reversals=True),
            "V.21 channel 1": lambda: fsk(980, 1180, 300, seconds),
            "V.21 channel 2": lambda: fsk(1650, 1850, 300, seconds),
        },
        "IVR beeps": {
            "record 1000": switched((1000,), 0.3, 2.0),
            "record 1400": switched((1400,), 0.5, 1.5),
            "queue 425": switched((425,), 0.1, 1.0),
            "key click 2000": switched((2000,), 0.05, 0.4),
            "two-tone chime": lambda: np.concatenate(
                [
                    np.concatenate([tone((f,), 0.25) for f in (784, 622)] + [np.zeros(8000)])
                    for _ in range(int(seconds / 1.5))
                ]
            ).astype(np.float32),
        },
        "music on hold": {
            "piano": tune("piano", "piano", False, 1),
            "strings": tune("strings", "strings", False, 2),
            "flute, piano": tune("flute", "piano", False, 3),
            "synth, organ, drums": tune("synth", "organ", True, 4),
            "plucked": tune("plucked", None, False, 5),
            "plucked, strings, drums": tune("plucked", "strings", True, 6),
            "music box": tune("piano", None, False, 7),
            "lead synth alone": tune("synth", None, False, 8),
        },
    }
