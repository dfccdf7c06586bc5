"""Made calls: minutes of telephone with a known truth, put together from recordings.

A call has turns, as a real one has: the caller speaks for 5 to 15 s, then is silent for 2 to 10 s
while the agent does. Calm calls have calm speech only; in an abusive one the same speaker is calm,
then angry for three to five clips, then calm again. Between the turns lie, in some calls, what a
line carries besides a voice: keys, tones, music on hold. Every call goes through a simulated line
of its own (:mod:`detectors.telephone`). Seeded: the same seed makes the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from detectors import corpora, telephone
from detectors.evaluate import EMODB_WOMEN
from detectors.resample import RATE, to_8k
from detectors.telephone import Line

#: Not angry, but lively or loud: what a caller may well be without any abuse.
RAISED = frozenset({"happiness", "surprised"})
#: Levels of line noise that are measured apart, in dB of voice over noise.
NOISE_DB = (20.0, 10.0, 5.0)
#: FSDD's own list of speakers (metadata.py): who speaks English with another language's accent.
#: Of *lucas* it says nothing in the version that was read.
ACCENTS = {"yweweler": "second-language", "theo": "first-language"}
FSDD_MEN = frozenset({"yweweler", "theo"})
_TURN_S, _GAP_S = (5.0, 15.0), (2.0, 10.0)
_LENGTH_S = 60.0

Audio = NDArray[np.float32]


class Kind(StrEnum):
    """What a call is."""

    CALM = "calm"
    """Calm speech over a line drawn as lines are."""
    NOISY = "noisy"
    """Calm speech at a fixed distance to the line's noise."""
    BACKGROUND = "background"
    """Calm speech in front of dogs, rain, a baby, …"""
    SIGNALS = "signals"
    """Calm speech with keys, tones and music on hold between the turns."""
    EMPTY = "empty"
    """No speech at all: silence, noise, tones, music."""
    RAISED = "raised"
    """A lively or loud voice without anger."""
    ABUSIVE = "abusive"
    """Calm, then anger, then calm."""


#: What an agent's ordinary hour is made of: the headline.
ORDINARY = (Kind.CALM, Kind.NOISY, Kind.BACKGROUND, Kind.SIGNALS, Kind.EMPTY)


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One call as the detector gets it, and the truth about it."""

    kind: Kind
    corpus: str
    speaker: str
    pcm: NDArray[np.int16]
    """8 kHz."""
    anger_s: tuple[float, float] | None
    """Where it is angry, first to last clip; None where it is not."""
    speech_s: float
    """Of clips."""
    line: Line
    traits: tuple[str, ...]
    """Groups that it belongs to, e.g. ``women`` or ``noise 10 dB``."""

    @property
    def seconds(self) -> float:
        return len(self.pcm) / RATE


# ------------------------------------------------------------------------------------- sounds


def _tone(hz: Sequence[float], seconds: float) -> Audio:
    time_s = np.arange(int(seconds * RATE)) / RATE
    waves = np.sin(2 * np.pi * np.outer(np.asarray(hz), time_s))
    made: Audio = waves.mean(axis=0).astype(np.float32)
    return made


def keys(rng: np.random.Generator) -> Audio:
    """A few DTMF keys, 80 to 150 ms each (ITU-T Q.23, Q.24)."""
    low, high = (697, 770, 852, 941), (1209, 1336, 1477)
    parts: list[Audio] = []
    for _ in range(int(rng.integers(3, 9))):
        parts.append(
            _tone((float(rng.choice(low)), float(rng.choice(high))), rng.uniform(0.08, 0.15))
        )
        parts.append(np.zeros(int(rng.uniform(0.08, 0.3) * RATE), np.float32))
    return np.concatenate(parts)


def ringing(rng: np.random.Generator) -> Audio:
    """Ringback of Korea and North America (440 and 480 Hz) or Germany (425 Hz), ITU-T E.180."""
    hz, on_s, off_s = ((440.0, 480.0), 1.0, 2.0) if rng.random() < 0.6 else ((425.0,), 1.0, 4.0)
    parts = [
        x for _ in range(2) for x in (_tone(hz, on_s), np.zeros(int(off_s * RATE), np.float32))
    ]
    return np.concatenate(parts)


def fax(rng: np.random.Generator) -> Audio:
    """A fax machine's calling tone, 1100 Hz for half a second every three (ITU-T T.30)."""
    part = np.concatenate([_tone((1100.0,), 0.5), np.zeros(3 * RATE, np.float32)])
    return np.tile(part, int(rng.integers(1, 3)))


def music(rng: np.random.Generator) -> Audio:
    """Music on hold: chords, a melody above them and a beat; 6 to 12 s."""
    beat_s = 60.0 / rng.uniform(80, 130)
    root = 110.0 * 2 ** (rng.integers(0, 12) / 12)
    parts: list[Audio] = []
    for chord in rng.choice([0, 3, 4, 5], int(rng.uniform(6, 12) / (4 * beat_s)) + 1):
        degrees = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19)
        notes = [root * 2 ** (degrees[int(chord) + i] / 12) for i in (0, 2, 4)]
        for _ in range(4):
            length = int(beat_s * RATE)
            time_s = np.arange(length) / RATE
            melody = root * 4 * 2 ** (degrees[int(rng.integers(0, 8))] / 12)
            sound = np.zeros(length)
            for hz, level in [*((n, 0.3) for n in notes), (melody, 0.7)]:
                for harmonic in range(1, 6):
                    sound += level / harmonic**1.5 * np.sin(2 * np.pi * hz * harmonic * time_s)
            sound *= np.minimum(1.0, 8 * time_s / beat_s) * np.exp(-1.2 * time_s / beat_s)
            hit = rng.standard_normal(length) * np.exp(-60 * time_s)
            parts.append((sound + 0.4 * hit).astype(np.float32))
    return np.concatenate(parts)


_SIGNALS = {"keys": keys, "ringing": ringing, "fax": fax, "music": music}
#: Recorded noises at 8 kHz, by what they are.
Noises = Mapping[str, Sequence[Audio]]
_NONE: Noises = {}

# -------------------------------------------------------------------------------------- calls


def _even(audio: Audio, rng: np.random.Generator) -> Audio:
    return audio * np.float32(rng.uniform(0.4, 0.8) / (float(np.abs(audio).max()) + 1e-6))


class Voices:
    """Clips of speakers, decoded once.

    Args:
        clips: that may be used; each call takes those of one speaker.
    """

    def __init__(self, clips: Sequence[corpora.Clip]) -> None:
        self._clips: dict[tuple[str, str], list[corpora.Clip]] = {}
        self._audio: dict[corpora.Clip, Audio] = {}
        for clip in clips:
            self._clips.setdefault((clip.corpus, clip.speaker), []).append(clip)

    def speakers(self, corpus: str, emotions: frozenset[str]) -> list[str]:
        """Speakers of a corpus with such clips, in order."""
        return sorted(
            speaker
            for (name, speaker), clips in self._clips.items()
            if name == corpus and any(clip.emotion in emotions for clip in clips)
        )

    def clip(
        self, corpus: str, speaker: str, emotions: frozenset[str], rng: np.random.Generator
    ) -> Audio:
        """One of the speaker's clips, at random, at about one level."""
        own = [c for c in self._clips[corpus, speaker] if c.emotion in emotions]
        chosen = own[int(rng.integers(len(own)))]
        if chosen not in self._audio:
            self._audio[chosen] = to_8k(*corpora.read_clip(chosen.path))
        return _even(self._audio[chosen], rng)

    def turn(
        self, corpus: str, speaker: str, emotions: frozenset[str], rng: np.random.Generator
    ) -> tuple[Audio, float]:
        """Clips with short pauses, 5 to 15 s; and the seconds of clips in it."""
        wanted, spoken = rng.uniform(*_TURN_S), 0.0
        parts: list[Audio] = []
        while spoken < wanted:
            clip = self.clip(corpus, speaker, emotions, rng)
            parts += [clip, _silence(rng.uniform(0.1, 0.5))]
            spoken += len(clip) / RATE
        return np.concatenate(parts), spoken


def _silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * RATE), np.float32)


def _spoken(
    voices: Voices,
    corpus: str,
    speaker: str,
    emotions: frozenset[str],
    rng: np.random.Generator,
    length_s: float,
    signal: str = "",
) -> tuple[Audio, float]:
    parts: list[Audio] = []
    spoken = 0.0
    while sum(map(len, parts)) < length_s * RATE:
        turn, seconds = voices.turn(corpus, speaker, emotions, rng)
        spoken += seconds
        parts += [turn, _silence(rng.uniform(*_GAP_S))]
        if signal:
            parts += [_even(_SIGNALS[signal](rng), rng), _silence(rng.uniform(0.5, 2.0))]
    return np.concatenate(parts), spoken


def _draw(seed: int, what: str, number: int) -> np.random.Generator:
    """Every call's own: another kind or another length elsewhere changes nothing in it."""
    return np.random.default_rng([seed, number, *what.encode()])


def traits_of(corpus: str, speaker: str) -> tuple[str, ...]:
    """What is known of a speaker; nothing is guessed from a voice."""
    if corpus == "emodb":
        # Burkhardt et al. 2005: all ten are between 21 and 35.
        return ("women" if speaker in EMODB_WOMEN else "men", "21 to 35 years")
    if corpus == "fsdd":
        accent = (ACCENTS[speaker],) if speaker in ACCENTS else ()
        return (*(("men",) if speaker in FSDD_MEN else ()), *accent)
    return ()


def _line_traits(line: Line) -> tuple[str, ...]:
    found = [f"codec {line.codec.name}"]
    if line.gsm:
        found.append("mobile (GSM)")
    if line.loss > 0:
        found.append("packet loss")
    if line.drive_db > 0:
        found.append("clipped")
    if line.room_s > 0:
        found.append("hands-free room")
    return tuple(found)


def peaceful(
    voices: Voices,
    kind: Kind,
    corpus: str,
    minutes: float,
    seed: int,
    noises: Noises = _NONE,
) -> Iterator[MadeCall]:
    """Calls of one corpus without anger, the speakers in turn.

    Args:
        voices: of which to take.
        kind: any but ``EMPTY`` and ``ABUSIVE``.
        corpus: of the speakers.
        minutes: to make.
        seed: of everything that is drawn.
        noises: for ``BACKGROUND``: without any, such calls are as calm ones.
    """
    emotions = RAISED if kind is Kind.RAISED else corpora.CALM
    names = voices.speakers(corpus, emotions)
    made_s, number = 0.0, 0
    while names and made_s < minutes * 60:
        rng = _draw(seed, f"{kind} {corpus}", number)
        speaker = names[number % len(names)]
        # Not in step with the speakers, or each would have a noise of his own.
        turn = number % len(names) + number // len(names)
        signal = list(_SIGNALS)[turn % len(_SIGNALS)] if kind is Kind.SIGNALS else ""
        audio, spoken = _spoken(voices, corpus, speaker, emotions, rng, _LENGTH_S, signal)
        line = telephone.random_line(rng)
        traits = traits_of(corpus, speaker)
        background = None
        if signal:
            traits = (*traits, f"signal {signal}")
        elif kind is Kind.NOISY:
            snr_db = NOISE_DB[turn % len(NOISE_DB)]
            line = replace(line, snr_db=snr_db)
            traits = (*traits, f"noise {snr_db:g} dB under the voice")
        elif kind is Kind.BACKGROUND and noises:
            line = replace(line, snr_db=float(rng.uniform(5, 15)))
            name = sorted(noises)[int(rng.integers(len(noises)))]
            background = noises[name][int(rng.integers(len(noises[name])))]
            traits = (*traits, f"background {name}")
        pcm = telephone.transmit(audio, line, rng, background)
        call = MadeCall(
            kind, corpus, speaker, pcm, None, spoken, line, (*traits, *_line_traits(line))
        )
        made_s += call.seconds
        number += 1
        yield call


def empty(minutes: float, seed: int, noises: Noises = _NONE) -> Iterator[MadeCall]:
    """Calls in which nobody speaks: silence and noise of the line alone, or with one kind of signal
    or recorded noise in it."""
    kinds = ["silence", *_SIGNALS, *sorted(noises)]
    made_s, number = 0.0, 0
    while made_s < minutes * 60:
        rng = _draw(seed, Kind.EMPTY, number)
        kind = kinds[number % len(kinds)]
        parts: list[Audio] = []
        while sum(map(len, parts)) < _LENGTH_S * RATE:
            if kind in _SIGNALS:
                parts.append(_even(_SIGNALS[kind](rng), rng))
            elif kind in noises:
                parts.append(_even(noises[kind][int(rng.integers(len(noises[kind])))], rng))
            parts.append(_silence(rng.uniform(1.0, 6.0)))
        line = telephone.random_line(rng)
        pcm = telephone.transmit(np.concatenate(parts), line, rng)
        trait = f"nobody speaks, {kind}"
        call = MadeCall(Kind.EMPTY, "made", f"made_{number}", pcm, None, 0.0, line, (trait,))
        made_s += call.seconds
        number += 1
        yield call


def abusive(voices: Voices, corpus: str, calls: int, seed: int) -> Iterator[MadeCall]:
    """Calls that turn angry: two calm turns, three to five angry clips, a calm turn."""
    angry = frozenset({"anger"})
    calm_ones = set(voices.speakers(corpus, corpora.CALM))
    names = [name for name in voices.speakers(corpus, angry) if name in calm_ones]
    for number in range(calls if names else 0):
        rng = _draw(seed, f"{Kind.ABUSIVE} {corpus}", number)
        speaker = names[number % len(names)]
        before, spoken = _spoken(voices, corpus, speaker, corpora.CALM, rng, 25.0)
        parts = [before]
        start = len(before)
        for _ in range(int(rng.integers(3, 6))):
            clip = voices.clip(corpus, speaker, angry, rng)
            spoken += len(clip) / RATE
            parts += [clip, _silence(rng.uniform(0.2, 0.6))]
        end = sum(map(len, parts)) - len(parts[-1])
        after, calm_s = _spoken(voices, corpus, speaker, corpora.CALM, rng, 15.0)
        line = telephone.random_line(rng)
        pcm = telephone.transmit(np.concatenate([*parts, after]), line, rng)
        yield MadeCall(
            Kind.ABUSIVE,
            corpus,
            speaker,
            pcm,
            (start / RATE, end / RATE),
            spoken + calm_s,
            line,
            (*traits_of(corpus, speaker), *_line_traits(line)),
        )
