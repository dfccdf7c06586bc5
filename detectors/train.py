"""Train the acoustic model: ``python -m detectors.train --data DATA --out FOLDER``.

Rebuilds ``vocal_effort.onnx`` and its card from the recordings that may be trained on. Seeded:
the same data, packages and machine type give the same file. Needs the packages of
``deploy/requirements-train.lock``; the running detector needs none of them.

Four small perceptrons on the features of :mod:`detectors.features` are averaged. What each
corpus weighs is fixed beforehand (:func:`_weights`), so that "which corpus is this" says little
about the answer: every corpus of calm volunteers also appears with simulated shouts.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from detectors import corpora, features, shouting, telephone
from detectors.acoustic import MODEL_FILE, SHIPPED, features_digest
from detectors.card import write_card
from detectors.engine import NEWEST_WEIGHT
from detectors.net import NETS, export, fit
from detectors.resample import RATE, to_8k

VERSION = "1"
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance as one line delivered it."""

    vectors: NDArray[np.float32]
    """``(windows, FEATURE_COUNT)``."""
    corpus: str
    speaker: str
    emotion: str
    made: str
    """``real``, ``shout`` (simulated), ``calm`` (another calm speaker, simulated)."""
    clean: bool

    @property
    def raised(self) -> bool:
        """Counts as vocal effort."""
        return self.made == "shout" or (self.made == "real" and self.emotion == "anger")


_backgrounds: list[NDArray[np.float32]] = []


def _load_backgrounds(paths: list[Path]) -> None:
    _backgrounds.extend(to_8k(*corpora.read_clip(path)) for path in paths)


def _examples(work: tuple[int, corpora.Utterance]) -> list[Example]:
    seed, utterance = work
    rng = np.random.default_rng(seed)
    clip = utterance.first
    parts = [corpora.read_clip(c.path) for c in utterance.clips]
    out: list[Example] = []

    def add(audio: list[NDArray[np.float32]], made: str, clean: bool = False) -> None:
        line = telephone.CLEAN if clean else telephone.random_line(rng)
        noisy = bool(_backgrounds) and not clean and rng.random() < 0.25
        background = _backgrounds[int(rng.integers(len(_backgrounds)))] if noisy else None
        vectors = corpora.telephoned(corpora.joined(audio, rng), line, rng, background)
        out.append(Example(vectors, clip.corpus, clip.speaker, clip.emotion, made, clean))

    real = [to_8k(*part) for part in parts]
    add(real, "real", clean=True)
    for _ in range(4 if clip.corpus == "emodb" else 3):
        add(real, "real")
    if clip.emotion in corpora.CALM:
        voices = [shouting.analyse(*part) for part in parts]
        for made in ("shout", "shout", "calm"):
            draw = shouting.shouted if made == "shout" else shouting.calm
            effort = draw(rng)
            add([to_8k(shouting.respeak(v, effort), v.rate) for v in voices], made)
    return out


def _sounds(rng: np.random.Generator) -> Iterator[Example]:
    """Chords, call-progress tones and noise that a voice activity detector lets through."""
    time_s = np.arange(5 * RATE) / RATE
    for i in range(60):
        if i % 3 == 0:
            audio = (
                rng.standard_normal(len(time_s))
                * (rng.random(len(time_s) // 800 + 1) > 0.3)[np.arange(len(time_s)) // 800]
            )
        else:
            audio = np.zeros(len(time_s))
            for start in np.arange(0, 5, 0.4 if i % 3 == 1 else 1.0):
                root = 110.0 * 2 ** (rng.integers(0, 24) / 12)
                age = np.maximum(time_s - start, 0.0)
                envelope = (time_s >= start) * np.exp(-age * rng.uniform(1, 6))
                for ratio in (1.0, 1.26, 1.5):
                    for harmonic in range(1, int(rng.integers(2, 9))):
                        phase = 2 * np.pi * root * ratio * harmonic * time_s
                        audio += envelope * np.sin(phase) / harmonic
        line = telephone.random_line(rng)
        vectors = corpora.telephoned(audio.astype(np.float32), line, rng)
        yield Example(vectors, "made_sounds", f"sound_{i}", "noise", "real", False)


def build(data: Path, seed: int, jobs: int) -> list[Example]:
    """Every training utterance over several lines, in an order that does not depend on jobs."""
    clips = [c for c in corpora.read_manifest(data) if c.may_train and not c.held_out]
    rng = np.random.default_rng(seed)
    groups = corpora.utterances(clips, rng)
    # Babies cry in callers' rooms, but also sound like screams: heard alone, never mixed in.
    noises = [
        c.path for c in clips if c.emotion.startswith("noise") and c.emotion != "noise_baby_cry"
    ]
    out: list[Example] = []
    with ProcessPoolExecutor(jobs, initializer=_load_backgrounds, initargs=(noises,)) as pool:
        work = [(seed + 1 + i, group) for i, group in enumerate(groups)]
        results = pool.map(_examples, work, chunksize=4)
        for examples in track(results, "utterances over telephone lines", total=len(work)):
            out += examples
    return out + list(_sounds(rng))


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of all examples, flat."""

    x: NDArray[np.float32]
    raised: NDArray[np.bool_]
    weight: NDArray[np.float64]
    example: NDArray[np.int_]
    group: NDArray[np.int_]
    """Speaker, for folds."""


def _weights(examples: list[Example], example: NDArray[np.int_]) -> NDArray[np.float64]:
    """One total weight for each kind of evidence, whatever its number of windows."""

    def kind(e: Example) -> tuple[str, float]:
        if e.corpus == "emodb":
            if e.made == "shout":
                return "acted, simulated shout", 0.2
            if e.raised:
                return "acted anger", 1.0
            if e.emotion in corpora.AROUSED:
                return "acted, aroused", 0.5
            return "acted, calm", 1.0
        if e.emotion.startswith("noise"):
            return e.corpus, 0.3 if e.corpus == "esc10" else 0.1
        return (f"{e.corpus} shout", 0.15) if e.made == "shout" else (e.corpus, 0.2)

    kinds = [kind(e) for e in examples]
    windows: dict[str, int] = {}
    for name, _ in (kinds[i] for i in example):
        windows[name] = windows.get(name, 0) + 1
    return np.array([kinds[i][1] / windows[kinds[i][0]] for i in example])


def flatten(examples: list[Example]) -> Windows:
    """Stack the windows of all examples."""
    example = np.concatenate([np.full(len(e.vectors), i) for i, e in enumerate(examples)])
    speakers = {s: i for i, s in enumerate(sorted({_person(e) for e in examples}))}
    return Windows(
        np.concatenate([e.vectors for e in examples]),
        np.array([examples[i].raised for i in example]),
        _weights(examples, example),
        example,
        np.array([speakers[_person(examples[i])] for i in example]),
    )


def _person(example: Example) -> str:
    return f"{example.corpus}/{example.speaker}"


def _running(log_odds: NDArray[np.float32], example: NDArray[np.int_]) -> NDArray[np.float32]:
    """The running mean that a live call would show, utterance by utterance."""
    out = log_odds.copy()
    for i in range(1, len(out)):
        if example[i] == example[i - 1]:
            out[i] = NEWEST_WEIGHT * log_odds[i] + (1 - NEWEST_WEIGHT) * out[i - 1]
    return out


def out_of_fold(windows: Windows, seed: int) -> NDArray[np.float32]:
    """Log odds of each window from nets that never heard its speaker."""
    out = np.zeros(len(windows.x), dtype=np.float32)
    folds = list(GroupKFold(_FOLDS).split(windows.x, groups=windows.group))
    for inside, outside in track(folds, "speakers left out"):
        net = fit(windows.x[inside], windows.raised[inside], windows.weight[inside], seed)
        out[outside] = net.log_odds(windows.x[outside])
    return out


def _thresholds(
    scores: NDArray[np.float32] | NDArray[np.float64],
    examples: list[Example],
    example: NDArray[np.int_],
) -> dict[str, float]:
    """Scores that calm speech of unheard speakers exceeds in a given share of its windows."""
    calm = np.array(
        [e.made == "real" and e.emotion in corpora.CALM for e in examples], dtype=np.bool_
    )[example]
    # Each corpus counts alike, however much of it there is.
    names = np.array([e.corpus for e in examples])[example]

    def exceeded(share: float) -> float:
        grid = np.linspace(0.0, 1.0, 1001)
        rate = np.mean(
            [
                [(scores[calm & (names == name)] >= g).mean() for g in grid]
                for name in sorted(set(names[calm]))
            ],
            axis=0,
        )
        return float(grid[int(np.argmax(rate <= share))])

    return {
        "caution": round(exceeded(0.02), 3),
        "serious": round(exceeded(0.0125), 3),
        "release": round(exceeded(0.06), 3),
    }


def publish(examples: list[Example], data: Path, out: Path, seed: int) -> None:
    """Fit on the examples, calibrate on speakers left out, write model and card into ``out``."""
    console = Console()
    windows = flatten(examples)
    console.print(f"{len(examples)} examples, {len(windows.x)} windows")

    held = out_of_fold(windows, seed)
    platt = LogisticRegression(C=1e6).fit(
        held[:, None], windows.raised, sample_weight=windows.weight / windows.weight.mean()
    )
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    running = _running(slope * held + offset, windows.example)
    thresholds = _thresholds(1.0 / (1.0 + np.exp(-running)), examples, windows.example)
    console.print("calibration", round(slope, 3), round(offset, 3), thresholds)

    net = fit(windows.x, windows.raised, windows.weight, seed)
    content = export(net, slope, offset)
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL_FILE).write_bytes(content)
    trained: dict[str, Any] = {}
    for clip in corpora.read_manifest(data):
        if clip.may_train and not clip.held_out:
            entry = trained.setdefault(clip.corpus, {"licence": clip.licence, "clips": 0})
            entry["clips"] += 1
    write_card(
        out,
        {
            "model": {
                "name": "vocal_effort",
                "version": VERSION,
                "sha256": hashlib.sha256(content).hexdigest(),
                "features_sha256": features_digest(),
                "licence": "GPL-3.0-or-later",
                "what": "vocal effort (raised, shouted voice) of one second of telephone speech, "
                "0..1; not an emotion, not an intention",
                "kind": f"{NETS} averaged perceptrons {features.FEATURE_COUNT}-32-16-1, "
                "calibrated on speakers left out",
                "seed": seed,
                "windows": len(windows.x),
            },
            "thresholds": thresholds,
            "data": {
                **trained,
                "simulated": {
                    "what": "shouts and other calm speakers re-spoken from the calm training "
                    "clips by detectors.shouting (WORLD vocoder)",
                    "examples": sum(e.made != "real" for e in examples),
                },
                "never_trained_on": {
                    "what": "EmoDB and FSDD dev speakers, three tenths of Speech Commands' "
                    "speakers and of the Mycroft and ESC-10 files, all of nEMO and audio/vad"
                },
            },
        },
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the acoustic model of Callshield.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    examples = build(arguments.data, arguments.seed, arguments.jobs)
    publish(examples, arguments.data, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
