"""What the detector does with recordings that its model was not trained on.

Each goes through a simulated telephone line and then through the very pipeline of a live call.
:mod:`detectors.report` makes tables and plots of it. Seeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from callshield import g711
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors import corpora, telephone
from detectors.acoustic import AcousticModel, Scores
from detectors.engine import Detector, Verdict
from detectors.onset import CalmRange, first_heard_s
from detectors.resample import RATE, to_8k
from detectors.stream import HOP_S

_CALL = bytes(16)
#: Burkhardt et al., Interspeech 2005, table of speakers.
EMODB_WOMEN = frozenset({"emodb_08", "emodb_09", "emodb_13", "emodb_14", "emodb_16"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """One clip through the pipeline."""

    clip: corpora.Clip
    score: float
    """Peak of the sustained score, the ``acoustic`` of ``callshield analyze``; 0 when no window
    could be scored."""
    level: int
    seconds: float


def verdicts(model: AcousticModel, pcm: NDArray[np.int16]) -> list[Verdict]:
    """Play int16 audio at 8 kHz into a detector as one call."""
    detector = Detector(model)
    payloads = g711.encode(pcm, g711.PCMU)
    out: list[Verdict] = []
    for start in range(0, len(payloads), 4000):
        frames = [
            CallerFrame(
                _CALL,
                TapKind.AUDIO,
                TapCodec.PCMU,
                at // 160 % 2**16,
                at,
                0,
                payloads[at : at + 160],
            )
            for at in range(start, min(start + 4000, len(payloads)), 160)
        ]
        now_s = (start + 4000) / RATE
        detector.feed(frames, now_s)
        if start + 4000 >= len(payloads):
            detector.finish(_CALL)
        out += detector.step(now_s)
    return out


def peak(found: Iterable[Verdict]) -> tuple[float, int]:
    """Highest sustained score (0 when no window was scored) and highest level of a call."""
    score, level = 0.0, 0
    for verdict in found:
        score = max(score, verdict.sustained or 0.0)
        level = max(level, verdict.decision.level)
    return score, level


def outcomes(
    model: AcousticModel, clips: list[corpora.Clip], seed: int, *, clean: bool
) -> list[Outcome]:
    """Each clip alone, as a short call over a clean or a random line."""
    out = []
    for i, clip in enumerate(clips):
        rng = np.random.default_rng([seed, i])
        audio = corpora.joined([to_8k(*corpora.read_clip(clip.path))], rng)
        line = telephone.CLEAN if clean else telephone.random_line(rng)
        pcm = telephone.transmit(audio, line, rng)
        score, level = peak(verdicts(model, pcm))
        out.append(Outcome(clip, score, level, len(pcm) / RATE))
    return out


class Unacquainted(AcousticModel):
    """Control: the shipped model, but no caller's own voice is ever known."""

    def score(
        self,
        vectors: NDArray[np.float32],
        references: NDArray[np.float32] | None = None,
        known: NDArray[np.float32] | None = None,
    ) -> Scores:
        """As if nothing were known of any caller."""
        return super().score(vectors)


def known_caller_outcomes(
    model: AcousticModel, clips: list[corpora.Clip], seed: int
) -> list[Outcome]:
    """Each clip after three neutral clips of its speaker, over one random line.

    The outcome's score is the peak of the sustained score, its level the highest, from the clip's
    beginning on.
    """
    neutral: dict[str, list[corpora.Clip]] = {}
    for clip in clips:
        if clip.emotion == "neutral":
            neutral.setdefault(clip.speaker, []).append(clip)
    pause = np.zeros(int(0.4 * RATE), dtype=np.float32)
    out = []
    for i, clip in enumerate(clips):
        rng = np.random.default_rng([seed, 1, i])
        others = [c for c in neutral[clip.speaker] if c is not clip]
        chosen = [others[k] for k in rng.permutation(len(others))[:3]] + [clip]
        parts = [to_8k(*corpora.read_clip(c.path)) for c in chosen]
        parts = [p * np.float32(0.6 / (float(np.abs(p).max()) + 1e-6)) for p in parts]
        audio = np.concatenate([x for p in parts for x in (p, pause)])
        begin_s = sum(len(p) + len(pause) for p in parts[:3]) / RATE
        pcm = telephone.transmit(audio, telephone.random_line(rng), rng)
        score, level = peak(v for v in verdicts(model, pcm) if v.at_s > begin_s + HOP_S / 2)
        out.append(Outcome(clip, score, level, len(pcm) / RATE))
    return out


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Area under the ROC curve: chance that a positive scores higher, ties counting half."""
    if not len(positive) or not len(negative):
        return float("nan")
    above = (positive[:, None] > negative[None, :]).mean()
    ties = (positive[:, None] == negative[None, :]).mean()
    return float(above + 0.5 * ties)


def auc_interval(
    found: list[Outcome], against: frozenset[str] | None, seed: int, rounds: int = 500
) -> tuple[float, float, float]:
    """AUC of anger against other emotions with a 95 % interval, bootstrapped by speaker.

    Args:
        found: outcomes of one corpus.
        against: emotions that count as negative; all others when None.
        seed: of the bootstrap.
        rounds: of the bootstrap.
    """
    speakers = sorted({o.clip.speaker for o in found})
    by_speaker: dict[str, tuple[list[float], list[float]]] = {s: ([], []) for s in speakers}
    for o in found:
        if o.clip.emotion == "anger":
            by_speaker[o.clip.speaker][0].append(o.score)
        elif against is None or o.clip.emotion in against:
            by_speaker[o.clip.speaker][1].append(o.score)

    def over(chosen: Iterable[str]) -> float:
        names = list(chosen)
        positive = np.array([v for s in names for v in by_speaker[s][0]])
        negative = np.array([v for s in names for v in by_speaker[s][1]])
        return auc(positive, negative)

    rng = np.random.default_rng(seed)
    drawn = [over(rng.choice(speakers, len(speakers))) for _ in range(rounds)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return over(speakers), float(low), float(high)


def reached(found: list[Outcome], emotions: frozenset[str], level: int) -> float:
    """Share of the clips of some emotions that reached a level."""
    chosen = [o for o in found if o.clip.emotion in emotions]
    return float(np.mean([o.level >= level for o in chosen])) if chosen else float("nan")


@dataclass(frozen=True, slots=True)
class CalmFigures:
    """False alarms on calm speech."""

    hours: float
    """Length of the made calls, pauses included."""
    level_1: int
    """Times that the level rose from 0."""
    level_2: int
    """Times that the level rose to 2."""


def calm_calls(
    model: AcousticModel, clips: list[corpora.Clip], seed: int, minutes: float
) -> CalmFigures:
    """Calls made of one speaker's calm clips with pauses of 0.3-2 s, each over a random line.

    Args:
        model: the loaded model.
        clips: calm clips; those of one speaker are repeated in random order until the speakers
            together have talked for ``minutes``, each repetition over another line.
        seed: of order and lines.
        minutes: audio to make, in minutes.
    """
    speakers: dict[str, list[corpora.Clip]] = {}
    for clip in clips:
        # Mycroft's volunteers are unknown: each file is its own speaker there, so that a call
        # is made of many voices; that makes it no calmer.
        speakers.setdefault(clip.speaker, []).append(clip)
    loaded = {c.path: to_8k(*corpora.read_clip(c.path)) for c in clips}
    rng = np.random.default_rng(seed)
    names = sorted(speakers)
    seconds, rises_1, rises_2 = 0.0, 0, 0
    turn = 0
    while seconds < minutes * 60:
        members = speakers[names[turn % len(names)]]
        turn += 1
        pieces: list[NDArray[np.float32]] = []
        length = 0
        while length < 60 * RATE:
            clip = members[int(rng.integers(len(members)))]
            part = loaded[clip.path]
            level = np.float32(rng.uniform(0.4, 0.8) / (float(np.abs(part).max()) + 1e-6))
            pause = np.zeros(int(rng.uniform(0.3, 2.0) * RATE), dtype=np.float32)
            pieces += [part * level, pause]
            length += len(part) + len(pause)
        line = telephone.random_line(rng)
        pcm = telephone.transmit(np.concatenate(pieces), line, rng)
        for verdict in verdicts(model, pcm):
            decision = verdict.decision
            rises_1 += decision.previous == 0 and decision.level >= 1
            rises_2 += decision.previous < 2 <= decision.level
        seconds += len(pcm) / RATE
    return CalmFigures(seconds / 3600, rises_1, rises_2)


@dataclass(frozen=True, slots=True)
class Onset:
    """One call that begins calm and turns angry; times are seconds from its beginning."""

    pcm: NDArray[np.int16]
    begin_s: float
    """The first angry recording begins, silence and all."""
    heard_s: float
    """Its first sound."""
    raised_s: float
    """The first raised moment of anger, see :class:`detectors.onset.CalmRange`; NaN: none."""


def onset_calls(clips: list[corpora.Clip], seed: int, calls: int) -> Iterator[Onset]:
    """Calls that turn angry: two calm clips of a speaker, then three angry ones, pauses of 0.3 s,
    each over a random line.

    Args:
        clips: calm and angry ones of each speaker.
        seed: of the choice and the lines.
        calls: how many.
    """
    speakers = sorted({c.speaker for c in clips if c.emotion == "anger"})
    rng = np.random.default_rng(seed)
    pause = np.zeros(int(0.3 * RATE), dtype=np.float32)
    ranges: dict[str, CalmRange] = {}
    for i in range(calls):
        speaker = speakers[i % len(speakers)]
        own = [c for c in clips if c.speaker == speaker]
        calm = [c for c in own if c.emotion == "neutral"]
        angry = [c for c in own if c.emotion == "anger"]
        if speaker not in ranges:
            ranges[speaker] = CalmRange(to_8k(*corpora.read_clip(c.path)) for c in calm)
        chosen = [calm[int(rng.integers(len(calm)))] for _ in range(2)]
        chosen += [angry[int(rng.integers(len(angry)))] for _ in range(3)]
        parts = [to_8k(*corpora.read_clip(c.path)) for c in chosen]
        parts = [p * np.float32(0.6 / (float(np.abs(p).max()) + 1e-6)) for p in parts]
        audio = np.concatenate([x for p in parts for x in (p, pause)])
        starts = np.cumsum([0, *(len(p) + len(pause) for p in parts)]) / RATE
        raised = [starts[k] + ranges[speaker].first_raised_s(parts[k]) for k in (2, 3, 4)]
        begin_s = float(starts[2])
        yield Onset(
            telephone.transmit(audio, telephone.random_line(rng), rng),
            begin_s,
            begin_s + first_heard_s(parts[2]),
            float(next((at for at in raised if not np.isnan(at)), np.nan)),
        )


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds to one level in each of several calls; NaN where it was not reached, or stood
    before the anger began."""

    from_clip: list[float]
    """From where the first angry recording begins: the figure that is called the delay."""
    from_voice: list[float]
    """From its first sound."""
    from_raised: list[float]
    """From the first raised moment."""


def onset_delays(
    model: AcousticModel, clips: list[corpora.Clip], seed: int, calls: int
) -> dict[int, Delays]:
    """Delays to levels 1 and 2 in :func:`onset_calls`."""
    delays = {level: Delays([], [], []) for level in (1, 2)}
    for call in onset_calls(clips, seed, calls):
        found = verdicts(model, call.pcm)
        for level, of in delays.items():
            at = next((v.at_s for v in found if v.decision.level >= level), np.nan)
            at = at if at > call.begin_s else np.nan
            of.from_clip.append(at - call.begin_s)
            of.from_voice.append(at - call.heard_s)
            of.from_raised.append(at - call.raised_s)
    return delays


def short_shouts(
    model: AcousticModel, clips: list[corpora.Clip], seed: int, calls: int
) -> list[int]:
    """Highest level of calm calls with one shout of 0.6 s, cut from an angry clip, inside."""
    speakers = sorted({c.speaker for c in clips if c.emotion == "anger"})
    rng = np.random.default_rng(seed)
    levels = []
    for i in range(calls):
        own = [c for c in clips if c.speaker == speakers[i % len(speakers)]]
        calm = [c for c in own if c.emotion == "neutral"]
        angry = [c for c in own if c.emotion == "anger"]
        before, after = (calm[int(rng.integers(len(calm)))] for _ in range(2))
        shout = to_8k(*corpora.read_clip(angry[int(rng.integers(len(angry)))].path))
        start = int(rng.integers(0, max(1, len(shout) - int(0.6 * RATE))))
        pieces = [
            to_8k(*corpora.read_clip(before.path)),
            shout[start : start + int(0.6 * RATE)],
            to_8k(*corpora.read_clip(after.path)),
        ]
        pause = np.zeros(int(0.3 * RATE), dtype=np.float32)
        audio = np.concatenate([x for p in pieces for x in (0.6 * p / np.abs(p).max(), pause)])
        line = telephone.random_line(rng)
        pcm = telephone.transmit(audio.astype(np.float32), line, rng)
        levels.append(peak(verdicts(model, pcm))[1])
    return levels
