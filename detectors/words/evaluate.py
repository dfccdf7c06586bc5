"""Measure the word judge: the tables of ``callshield eval text``.

Also ``python -m detectors.words.evaluate --data DATA [--left-out]``, which prints them. Each source
stands apart. ``--left-out`` trains once more for each source, without
it, and judges it then: the figure for texts from nowhere the model has been. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from detectors.words import Judge, corpus, train
from detectors.words.corpus import Row
from detectors.words.lexicon import LANGUAGES

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_DRAWS = 300
#: Sources left out in turn, by language: families, see :attr:`detectors.words.corpus.Row.family`.
LEFT_OUT = {"ko": ("curse2runo", "zizun_own", "beep"), "en": ("convabuse", "davidson")}
LEFT_OUT["zh"] = ("swsr", "cold")


def recall_at(labels: Flags, scores: Floats, false_positives: float) -> float:
    """Share of abusive texts above the score that this share of the clean ones exceeds."""
    return float((scores[labels] > np.quantile(scores[~labels], 1 - false_positives)).mean())


def interval(labels: Flags, scores: Floats) -> tuple[float, float]:
    """95 % of the bootstrapped AUC; texts are drawn, their writers are not known."""
    rng = np.random.default_rng(train.SEED)
    drawn = []
    for _ in range(_DRAWS):
        chosen = rng.integers(len(labels), size=len(labels))
        if 0 < labels[chosen].sum() < len(chosen):
            drawn.append(roc_auc_score(labels[chosen], scores[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _line(name: str, labels: Flags, scores: Floats, flagged: Flags) -> str:
    clean = f"{flagged[~labels].mean():.2%}" if (~labels).any() else "–"
    if labels.all() or not labels.any():
        caught = f"{flagged[labels].mean():.1%}" if labels.any() else "–"
        return f"| {name} | {labels.sum()} / {(~labels).sum()} | – | – | {caught} | {clean} |"
    low, high = interval(labels, scores)
    return (
        f"| {name} | {labels.sum()} / {(~labels).sum()} | "
        f"{roc_auc_score(labels, scores):.3f} ({low:.3f}-{high:.3f}) | "
        f"{recall_at(labels, scores, 0.01):.2f} | {flagged[labels].mean():.1%} | {clean} |"
    )


HEAD = """\
| source | abusive / clean | AUC (95 %) | recall at 1 % | abusive flagged | clean flagged |
|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Judged:
    """Dev texts of one language, which nothing was trained on, and what the judge says of them."""

    rows: list[Row]
    labels: Flags
    scores: Floats
    flagged: Flags
    crisis: Flags
    each_ms: float
    """CPU time of a text."""


def judge_dev(data: Path, language: str, *, with_model: bool = True) -> Judged:
    """Judge all dev texts of a language; there may be none."""
    rows = corpus.read(data, "dev", language)
    judge = Judge.load((language,)) if with_model else Judge.load((language,), model_dir=None)
    began = time.process_time()
    verdicts = [judge.judge(row.text, language) for row in rows]
    each_ms = 1e3 * (time.process_time() - began) / max(len(rows), 1)
    return Judged(
        rows,
        np.array([row.abusive for row in rows], dtype=np.bool_),
        np.array([verdict.score for verdict in verdicts]),
        np.array([verdict.abusive for verdict in verdicts], dtype=np.bool_),
        np.array([verdict.crisis for verdict in verdicts], dtype=np.bool_),
        each_ms,
    )


def by_source(rows: list[Row]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Rows of one source, subsets together; subsets of one label also against the clean ones."""
    names = np.array([row.source for row in rows])
    bases = np.array([name.split("/")[0] for name in names])
    for base in sorted(set(bases)):
        yield base, np.flatnonzero(bases == base)
        for name in sorted(set(names[bases == base]) - {base}):
            yield name, np.flatnonzero(names == name)


def shipped(judged: Judged) -> list[str]:
    """The shipped judge's table."""
    if not judged.rows:
        return ["No texts were held back: see the table with sources left out."]
    lines = [HEAD]
    for name, own in by_source(judged.rows):
        lines.append(_line(name, judged.labels[own], judged.scores[own], judged.flagged[own]))
    lines.append(
        f"\n{judged.each_ms:.2f} ms of CPU a text; crisis in {judged.crisis.mean():.2%} of all.\n"
    )
    return lines


def left_out(data: Path, language: str) -> list[str]:
    """Each source judged by a model that was trained without it; scores without the floor."""
    rows = corpus.read(data, "train", language) + corpus.made(language, train.SEED)
    known = len(rows)
    rows += corpus.read(data, "dev", language)
    examples = train.look(rows, language)
    families = np.array([row.family for row in rows])
    dev = np.arange(len(rows)) >= known
    spoken = np.flatnonzero(dev & np.char.startswith(families, "3i4k"))
    lines = [
        "| left out | abusive / clean | AUC (95 %) | recall at 1 % | at 2 % |",
        "|---|---|---|---|---|",
    ]
    for family in LEFT_OUT[language]:
        out = np.flatnonzero(~dev & (families == family))
        inside = np.flatnonzero(~dev & (families != family))
        model = train.fit_abuse(examples, inside)
        scores, labels = train.logits(examples, model, out), examples.labels[out]
        low, high = interval(labels, scores)
        lines.append(
            f"| {family} | {labels.sum()} / {(~labels).sum()} | "
            f"{roc_auc_score(labels, scores):.3f} ({low:.3f}-{high:.3f}) | "
            f"{recall_at(labels, scores, 0.01):.2f} | {recall_at(labels, scores, 0.02):.2f} |"
        )
        if len(spoken):
            heard = train.logits(examples, model, spoken)
            strict = np.quantile(heard, 1 - 0.003)
            lines.append(
                f"| {family}, against 3i4k's spoken sentences at 0.3 % | | | "
                f"{(scores[labels] > strict).mean():.2f} (recall) | |"
            )
    return lines


def main() -> None:
    """Print the tables of the languages asked for."""
    parser = argparse.ArgumentParser(description="Measure the word judge.")
    parser.add_argument("--data", type=Path, required=True, help="the data's folder")
    parser.add_argument("--lang", choices=LANGUAGES, action="append", help="several; all if none")
    parser.add_argument("--left-out", action="store_true", help="train without each source")
    parser.add_argument("--lexicon", action="store_true", help="the lexicon alone")
    options = parser.parse_args()
    for language in options.lang or LANGUAGES:
        if options.left_out and language not in LEFT_OUT:
            continue
        print(f"\n{language}\n")
        if options.left_out:
            print("\n".join(left_out(options.data, language)))
        else:
            judged = judge_dev(options.data, language, with_model=not options.lexicon)
            print("\n".join(shipped(judged)))


if __name__ == "__main__":
    main()
