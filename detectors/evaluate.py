"""Measure the shipped detector: ``python -m detectors.evaluate --data DATA``.

Every figure comes from recordings that the model was not trained on, sent through a telephone
line and then through the very pipeline of a live call. Writes the card's ``[figures]`` and the
plots of ``docs/detection.md``. Seeded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from callshield import g711
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors import corpora, telephone
from detectors.acoustic import SHIPPED, AcousticModel
from detectors.card import read_card, write_card
from detectors.engine import Detector, Verdict
from detectors.resample import RATE, to_8k

_CALL = bytes(16)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One clip through the pipeline."""

    clip: corpora.Clip
    score: float
    """Peak of the running score, 0 when no window could be scored."""
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


def _peak(found: Iterable[Verdict]) -> tuple[float, int]:
    score, level = 0.0, 0
    for verdict in found:
        score = max(score, verdict.score or 0.0)
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
        score, level = _peak(verdicts(model, pcm))
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


def onset_delays(
    model: AcousticModel, clips: list[corpora.Clip], seed: int, calls: int
) -> dict[int, list[float]]:
    """Seconds from the first angry word to each level in calls that begin calm.

    Each call: two calm clips of a speaker, then three angry ones, pauses of 0.3 s, over a random
    line. A level that the calm part already reached, or that is never reached, counts as NaN.
    """
    speakers = sorted({c.speaker for c in clips if c.emotion == "anger"})
    rng = np.random.default_rng(seed)
    delays: dict[int, list[float]] = {1: [], 2: []}
    pause = np.zeros(int(0.3 * RATE), dtype=np.float32)
    for i in range(calls):
        own = [c for c in clips if c.speaker == speakers[i % len(speakers)]]
        calm = [c for c in own if c.emotion == "neutral"]
        angry = [c for c in own if c.emotion == "anger"]
        chosen = [calm[int(rng.integers(len(calm)))] for _ in range(2)]
        chosen += [angry[int(rng.integers(len(angry)))] for _ in range(3)]
        parts = [to_8k(*corpora.read_clip(c.path)) for c in chosen]
        parts = [p * np.float32(0.6 / (float(np.abs(p).max()) + 1e-6)) for p in parts]
        audio = np.concatenate([x for p in parts for x in (p, pause)])
        onset_s = sum(len(p) + len(pause) for p in parts[:2]) / RATE
        found = verdicts(model, telephone.transmit(audio, telephone.random_line(rng), rng))
        for level in (1, 2):
            at = next((v.at_s for v in found if v.decision.level >= level), float("nan"))
            delays[level].append(at - onset_s if at > onset_s else float("nan"))
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
        levels.append(_peak(verdicts(model, pcm))[1])
    return levels


def figures(model: AcousticModel, data: Path, seed: int, minutes: float) -> dict[str, Any]:
    """All figures of the card, and the outcomes that the plots are drawn from.

    Returns:
        ``{"figures": tables for the card, "outcomes": {name: [Outcome]}, "delays": …}``
    """
    held = [c for c in corpora.read_manifest(data) if c.held_out]
    sets = {
        "emodb_dev": [c for c in held if c.corpus == "emodb"],
        "nemo": [c for c in held if c.corpus == "nemo"],
        "noise": [c for c in held if c.corpus == "esc10"],
    }
    neutral = frozenset({"neutral"})
    found: dict[str, list[Outcome]] = {}
    tables: dict[str, Any] = {}
    for name in track(list(sets), "clips"):
        for clean in (True, False):
            kind = f"{name}_{'clean' if clean else 'random'}_line"
            found[kind] = outcomes(model, sets[name], seed, clean=clean)
            table: dict[str, Any] = {"clips": len(found[kind])}
            if name != "noise":
                for key, against in (("auc_angry_vs_all", None), ("auc_angry_vs_neutral", neutral)):
                    value, low, high = auc_interval(found[kind], against, seed)
                    table[key] = round(value, 3)
                    table[f"{key}_interval"] = [round(low, 3), round(high, 3)]
            for emotion in sorted({o.clip.emotion for o in found[kind]}):
                for level in (1, 2):
                    share = reached(found[kind], frozenset({emotion}), level)
                    table[f"{emotion}_reaches_{level}"] = round(share, 3)
            tables[kind] = table
    calm_sets = {
        "fsdd_dev": [c for c in held if c.corpus == "fsdd"],
        "emodb_dev_neutral": [c for c in sets["emodb_dev"] if c.emotion == "neutral"],
        "speech_commands_held_out": [c for c in held if c.corpus == "speech_commands"],
        "mycroft_held_out": [c for c in held if c.corpus == "mycroft"],
        "nemo_neutral": [c for c in sets["nemo"] if c.emotion == "neutral"],
    }
    for name in track(list(calm_sets), "calm calls"):
        calm = calm_calls(model, calm_sets[name], seed, minutes)
        tables[f"calm_{name}"] = {
            "clips": len(calm_sets[name]),
            "hours": round(calm.hours, 2),
            "to_level_1_per_hour": round(calm.level_1 / calm.hours, 2),
            "to_level_2_per_hour": round(calm.level_2 / calm.hours, 2),
        }
    delays = onset_delays(model, sets["emodb_dev"], seed, 80)
    shouts = short_shouts(model, sets["emodb_dev"], seed, 80)
    tables["onset"] = {"calls": 80}
    for level, values in delays.items():
        known = np.array([v for v in values if not np.isnan(v)])
        tables["onset"][f"to_level_{level}_share"] = round(len(known) / len(values), 3)
        for q in (50, 95):
            late = float(np.percentile(known, q)) if len(known) else -1.0
            tables["onset"][f"to_level_{level}_s_p{q}"] = round(late, 2)
    tables["one_shout_of_0_6_s"] = {
        "calls": len(shouts),
        **{f"stays_at_{n}": round(shouts.count(n) / len(shouts), 3) for n in (0, 1, 2)},
    }
    return {"figures": tables, "outcomes": found, "delays": delays}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the acoustic detector of Callshield.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--plots", type=Path, default=Path("docs/img"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=60.0, help="calm audio made a corpus")
    arguments = parser.parse_args()
    model = AcousticModel(arguments.model)
    measured = figures(model, arguments.data, arguments.seed, arguments.minutes)
    # Plots need matplotlib, of the training packages; the figures do not.
    from detectors.plots import draw

    draw(measured["outcomes"], measured["delays"], model.card, arguments.plots)
    card = read_card(arguments.model)
    card["figures"] = measured["figures"]
    write_card(arguments.model, card)
    Console().print(measured["figures"])


if __name__ == "__main__":
    main()
