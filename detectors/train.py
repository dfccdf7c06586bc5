"""``callshield train acoustic``: rebuild the acoustic model.

Without the ``callshield`` command: ``python -m detectors.train --data DATA --out FOLDER``.

Rebuilds ``vocal_effort.onnx`` and its card from the recordings that may be trained on. Seeded:
the same data, packages and machine type give the same file. Needs the packages of
``deploy/requirements-train.lock``; the running detector needs none of them.

Small perceptrons on the features of :mod:`detectors.features` are averaged: some see the features,
some their distance from the speaker's own calm voice. Which kind of model was chosen, and why, is
measured by :mod:`detectors.compare`.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from detectors import corpora, features
from detectors.acoustic import MODEL_FILE, SHIPPED, features_digest
from detectors.card import write_card
from detectors.examples import Example, Windows, build, cached, flatten
from detectors.net import NETS, Calibrated, export, fit
from detectors.running import RunningScore

VERSION = "3"
_FOLDS = 5


def _running(log_odds: NDArray[np.float64], example: NDArray[np.int_]) -> NDArray[np.float64]:
    """The running score that a live call would show, utterance by utterance, 0..1."""
    out = np.zeros(len(log_odds))
    before = -1
    running = RunningScore()
    for i, (odds, now) in enumerate(zip(log_odds.tolist(), example.tolist(), strict=True)):
        if now != before:
            running, before = RunningScore(), now
        out[i], _ = running.add(1.0 / (1.0 + np.exp(-odds)))
    return out


def out_of_fold(
    x: NDArray[np.float32], windows: Windows, kept: NDArray[np.bool_], seed: int
) -> NDArray[np.float64]:
    """Log odds of each kept window from nets that never heard its speaker; others: 0."""
    out = np.zeros(len(x))
    folds = list(GroupKFold(_FOLDS).split(x, groups=windows.group))
    for inside, outside in track(folds, "speakers left out"):
        chosen = inside[kept[inside]]
        net = fit(x[chosen], windows.effort[chosen], windows.weight[chosen], seed)
        out[outside] = net.log_odds(x[outside])
    return np.where(kept, out, 0.0)


def _calibrated(
    x: NDArray[np.float32], windows: Windows, kept: NDArray[np.bool_], seed: int
) -> tuple[Calibrated, NDArray[np.float64]]:
    """A net on all kept windows, and calibrated log odds by nets that left the speaker out."""
    held = out_of_fold(x, windows, kept, seed)
    effort, weight = windows.effort[kept], windows.weight[kept] / windows.weight[kept].mean()
    platt = LogisticRegression(C=1e6).fit(
        np.tile(held[kept], 2)[:, None],
        np.repeat([1, 0], len(effort)),
        sample_weight=np.concatenate([effort, 1.0 - effort]) * np.tile(weight, 2) + 1e-12,
    )
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    net = fit(x[kept], windows.effort[kept], windows.weight[kept], seed)
    return Calibrated(net, slope, offset), slope * held + offset


#: Shares of the windows of calm speech, by speakers left out of training, above each threshold.
_EXCEEDED = {"caution": 0.02, "serious": 0.015, "release": 0.06, "sure": 0.003}


def _thresholds(
    scores: NDArray[np.float64], examples: list[Example], example: NDArray[np.int_]
) -> dict[str, float]:
    """Scores that calm speech of unheard speakers exceeds in a given share of its windows."""
    calm = np.array(
        [e.made == "real" and e.emotion in corpora.CALM for e in examples], dtype=np.bool_
    )[example]
    # Each corpus counts alike, however much of it there is.
    names = np.array([e.corpus for e in examples])[example]
    ordered = [np.sort(scores[calm & (names == name)]) for name in sorted(set(names[calm]))]

    def exceeded(share: float) -> float:
        grid = np.linspace(0.0, 1.0, 1001)
        rates = [1.0 - np.searchsorted(values, grid) / len(values) for values in ordered]
        return float(grid[int(np.argmax(np.mean(rates, axis=0) <= share))])

    return {name: round(exceeded(share), 3) for name, share in _EXCEEDED.items()}


def publish(examples: list[Example], data: Path, out: Path, seed: int) -> None:
    """Fit on the examples, calibrate on speakers left out, write model and card into ``out``."""
    console = Console()
    windows = flatten(examples)
    console.print(f"{len(examples)} examples, {len(windows.x)} windows")

    everything = np.ones(len(windows.x), dtype=np.bool_)
    alone, first = _calibrated(windows.x, windows, everything, seed)
    distance = windows.x - windows.reference
    relative, second = _calibrated(distance, windows, windows.known, seed + 100)
    mixed = np.where(windows.known, (first + second) / 2, first)
    # Half of a call is heard before the caller's own voice is known.
    scores = [_running(odds, windows.example) for odds in (first, mixed)]
    thresholds = _thresholds(
        np.concatenate(scores), examples, np.concatenate([windows.example] * 2)
    )
    for name, part in (("alone", alone), ("relative", relative)):
        console.print(name, "calibration", round(part.slope, 3), round(part.offset, 3))
    console.print(thresholds)

    content = export(alone, relative)
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
                "kind": f"{NETS} averaged perceptrons {features.FEATURE_COUNT}-32-16-1 on the "
                f"features and {NETS} on their distance from the caller's own calm voice, "
                "calibrated on speakers left out",
                "seed": seed,
                "windows": len(windows.x),
            },
            "thresholds": thresholds,
            "data": {
                **trained,
                "simulated": {
                    "what": "raised voices, shouts, screams, other calm and lively speakers "
                    "re-spoken from the calm training clips by detectors.shouting (WORLD vocoder)",
                    "examples": sum(e.made != "real" for e in examples),
                },
                "made": {
                    "what": "chords, tones, noise and music on hold (detectors.line_sounds, with "
                    "seeds that nothing measures)",
                    "examples": sum(e.corpus in ("made_sounds", "made_music") for e in examples),
                },
                "never_trained_on": {
                    "what": "EmoDB and FSDD dev speakers, three tenths of Speech Commands' "
                    "speakers and of the Mycroft and ESC-10 files, all of nEMO and audio/vad"
                },
            },
        },
    )


def train(
    data: Path,
    out: Path | None,
    *,
    seed: int,
    jobs: int,
    without: str = "",
    kept: Path | None = None,
) -> None:
    """Rebuild the model and its card from recordings.

    Args:
        data: folder with ``audio/manifest.tsv``.
        out: folder for both; the shipped model's when None.
        seed: of everything that is drawn.
        jobs: processes; the result does not depend on them.
        without: corpus to leave out, to measure transfer.
        kept: file that keeps the examples between runs on one machine.
    """
    examples = cached(kept, lambda: build(data, seed, jobs))
    publish([e for e in examples if e.corpus != without], data, out or SHIPPED, seed)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the acoustic model of Callshield.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--examples", type=Path, help="file that keeps the examples between runs")
    parser.add_argument("--without", default="", help="corpus to leave out, to measure transfer")
    a = parser.parse_args()
    train(a.data, a.out, seed=a.seed, jobs=a.jobs, without=a.without, kept=a.examples)


if __name__ == "__main__":
    main()
