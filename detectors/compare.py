"""Compare kinds of acoustic model by what transfers: ``python -m detectors.compare --data DATA``.

Each kind learns from the same windows and is judged on the same clips, by the peak of the sustained
score that a live call would show. Three questions:

- *a corpus left out*: fitted without any recording of one corpus. EmoDB left out is the hardest:
  then no real anger was ever heard, only simulated effort. A corpus of calm volunteers left out:
  EmoDB's angry dev clips against the calm speech of a corpus that was never heard.
- *EmoDB dev*: fitted on all training corpora; speakers that were left out.
- *nEMO*: another language, recordings nobody may train on. Measured last, after the choice.

Needs the packages of ``deploy/requirements-train.lock``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from detectors.evaluate import auc
from detectors.examples import Example, Windows, build, cached, flatten
from detectors.net import fit
from detectors.running import RunningScore

#: The corpora left out, one after the other.
LEFT_OUT = ("emodb", "fsdd", "speech_commands", "mycroft")


class Inputs(NamedTuple):
    """Windows as any kind of model may want them."""

    x: NDArray[np.float32]
    """``(n, FEATURE_COUNT)``."""
    frames: NDArray[np.float16]
    """``(n, WINDOW_FRAMES, CHANNELS)``."""


Judge = Callable[[Inputs], NDArray[np.float64]]
"""Log odds of each window."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model."""

    name: str
    fit: Callable[[Inputs, NDArray[np.float64], NDArray[np.float64], int], tuple[Judge, int]]
    """From windows, effort 0..1, weights and a seed to a judge and its number of parameters."""


def _doubled(
    effort: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float64]]:
    """A half-raised voice counts as raised and as calm, with half its weight each.

    Returns:
        Index of each window, its answer and its weight.
    """
    index = np.tile(np.arange(len(effort)), 2)
    answer = np.repeat([1, 0], len(effort))
    shared = np.concatenate([weight * effort, weight * (1.0 - effort)])
    kept = shared > 0
    return index[kept], answer[kept], shared[kept] / shared[kept].mean()


def _logistic(
    inputs: Inputs, effort: NDArray[np.float64], weight: NDArray[np.float64], seed: int
) -> tuple[Judge, int]:
    mean = np.average(inputs.x, axis=0, weights=weight)
    scale = np.sqrt(np.average(np.square(inputs.x - mean), axis=0, weights=weight)) + 1e-6

    def standard(x: NDArray[np.float32]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.clip((x - mean) / scale, -4.0, 4.0)
        return result

    index, answer, shared = _doubled(effort, weight)
    model = LogisticRegression(C=0.003, max_iter=300, random_state=seed)
    model.fit(standard(inputs.x)[index], answer, sample_weight=shared)
    return lambda q: np.asarray(model.decision_function(standard(q.x))), model.coef_.size + 1


def _boosted(
    inputs: Inputs, effort: NDArray[np.float64], weight: NDArray[np.float64], seed: int
) -> tuple[Judge, int]:
    index, answer, shared = _doubled(effort, weight)
    model = HistGradientBoostingClassifier(
        max_iter=200,
        max_leaf_nodes=8,
        learning_rate=0.05,
        min_samples_leaf=100,
        l2_regularization=10.0,
        max_features=0.3,
        random_state=seed,
    )
    model.fit(inputs.x[index], answer, sample_weight=shared)
    return lambda q: np.asarray(model.decision_function(q.x)), 200 * 15


def _perceptrons(
    inputs: Inputs, effort: NDArray[np.float64], weight: NDArray[np.float64], seed: int
) -> tuple[Judge, int]:
    net = fit(inputs.x, effort, weight, seed)
    size = sum(a.size + b.size for layers in net.layers for a, b in layers)
    return lambda q: net.log_odds(q.x).astype(np.float64), size


def _sequence(recurrent: bool) -> Callable[..., tuple[Judge, int]]:
    def fitted(
        inputs: Inputs, effort: NDArray[np.float64], weight: NDArray[np.float64], seed: int
    ) -> tuple[Judge, int]:
        # JAX is needed for these two kinds alone.
        from detectors.sequence_nets import fit_sequence_net

        net = fit_sequence_net(inputs.frames, effort, weight, seed, recurrent=recurrent)
        return lambda q: net.log_odds(q.frames).astype(np.float64), net.size

    return fitted


KINDS = (
    Kind("logistic regression", _logistic),
    Kind("boosted trees", _boosted),
    Kind("perceptrons", _perceptrons),
    Kind("depthwise CNN", _sequence(recurrent=False)),
    Kind("CRNN", _sequence(recurrent=True)),
)


def _stacked(examples: list[Example]) -> tuple[Windows, Inputs]:
    windows = flatten(examples)
    return windows, Inputs(
        windows.x, np.concatenate([e.frames for e in examples if e.frames is not None])
    )


def clip_scores(
    log_odds: NDArray[np.float64], example: NDArray[np.int_], count: int
) -> NDArray[np.float64]:
    """Peak of the sustained score of each of ``count`` examples; without windows: 0."""
    out = np.zeros(count)
    before, running = -1, RunningScore()
    for odds, now in zip(log_odds.tolist(), example.tolist(), strict=True):
        if now != before:
            running, before = RunningScore(), now
        _, sustained = running.add(1.0 / (1.0 + np.exp(-odds)))
        out[now] = max(out[now], sustained)
    return out


def _chosen(examples: list[Example], *corpora_: str) -> list[Example]:
    return [e for e in examples if e.corpus in corpora_ and e.made == "real"]


class Judged:
    """Scores of some examples by one judge."""

    def __init__(self, judge: Judge, examples: list[Example]) -> None:
        windows, inputs = _stacked(examples)
        self.scores = clip_scores(judge(inputs), windows.example, len(examples))
        self.examples = examples

    def of(self, wanted: Callable[[Example], bool]) -> NDArray[np.float64]:
        """Scores of the examples wanted."""
        return self.scores[[wanted(e) for e in self.examples]]

    def angry(self) -> tuple[float, float]:
        """AUC of anger against all others and against neutral."""
        angry = self.of(lambda e: e.emotion == "anger")
        others = self.of(lambda e: e.emotion != "anger")
        neutral = self.of(lambda e: e.emotion == "neutral")
        return auc(angry, others), auc(angry, neutral)


def compare(
    trained: list[Example],
    held: list[Example],
    kinds: Iterable[Kind],
    left_out: Sequence[str],
    seed: int,
    console: Console,
) -> dict[str, dict[str, float]]:
    """The table: for each kind its AUCs by question, its size and the CPU seconds of one fit."""
    table: dict[str, dict[str, float]] = {}
    dev = _chosen(held, "emodb")
    for kind in kinds:
        row: dict[str, float] = {}
        for corpus in (*left_out, ""):
            windows, inputs = _stacked([e for e in trained if e.corpus != corpus])
            began = time.process_time()
            judge, size = kind.fit(inputs, windows.effort, windows.weight, seed)
            seconds = time.process_time() - began
            if corpus == "emodb":
                found = Judged(judge, _chosen(trained, "emodb") + dev).angry()
                row["emodb_left_out_vs_all"], row["emodb_left_out_vs_neutral"] = found
            elif corpus:
                angry = Judged(judge, [e for e in dev if e.emotion == "anger"]).scores
                calm = Judged(judge, _chosen(trained + held, corpus)).scores
                row[f"{corpus}_left_out"] = auc(angry, calm)
            else:
                row["emodb_dev_vs_all"], row["emodb_dev_vs_neutral"] = Judged(judge, dev).angry()
                found = Judged(judge, _chosen(held, "nemo")).angry()
                row["nemo_vs_all"], row["nemo_vs_neutral"] = found
                row["parameters"], row["fit_cpu_s"] = size, seconds
        table[kind.name] = {key: round(value, 3) for key, value in row.items()}
        console.print(kind.name, table[kind.name])
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare kinds of acoustic model.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kinds", default="", help="part of their names; all kinds when absent")
    parser.add_argument("--left-out", nargs="*", choices=LEFT_OUT, default=LEFT_OUT)
    parser.add_argument("--cache", type=Path, help="folder that keeps the examples between runs")
    parser.add_argument("--out", type=Path, help="file for the table, as JSON")
    arguments = parser.parse_args()

    def made(held_out: bool) -> list[Example]:
        return build(
            arguments.data, arguments.seed, arguments.jobs, held_out=held_out, sequences=True
        )

    cache: Path | None = arguments.cache
    trained = cached(cache and cache / "examples.pkl", lambda: made(held_out=False))
    held = cached(cache and cache / "held.pkl", lambda: made(held_out=True))
    kinds = [kind for kind in KINDS if arguments.kinds in kind.name]
    table = compare(trained, held, kinds, arguments.left_out, arguments.seed, Console())
    if arguments.out:
        arguments.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
