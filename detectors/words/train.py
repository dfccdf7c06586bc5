"""Train the word models: ``callshield train text --data DATA``.

A language's model is a logistic regression on hashed n-grams and on what the lexicon found, one
more a kind of abuse, and one for hints of a crisis, all in one ONNX file. Seeded: the same data
and packages give the same files. Needs ``deploy/requirements-train.lock``; the running product
does not.

Sources are weighed alike whatever their size, abusive and clean halves too. Texts labelled clean
that hold a gross word of the lexicon are left out: their labels are mostly wrong.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from callshield.errors import SetupError
from detectors.words import corpus, evidence, ngrams
from detectors.words.corpus import Row
from detectors.words.export import build, write_card
from detectors.words.judge import Judge
from detectors.words.model import KIND_ROWS, LANGUAGES, SHIPPED, contract, model_file
from detectors.words.readings import READINGS
from detectors.words.surface import surface

SEED = 7
VERSION = "1"
#: Share of out-of-fold clean texts that may pass the threshold: of spoken ones where there are any.
PASSING = {"ko": 0.0003, "zh": 0.01, "en": 0.01}
_SPOKEN = {"ko": ("3i4k", "chatbot_q"), "en": ("convabuse",), "zh": ()}
_CRISIS_PASSING = 0.0002
_FOLDS = 3
_C = 2.0
#: A lexicon word weighs at least so much (log odds) by severity, whatever the written corpora
#: say: threats and harassment are nearly absent from them.
_LEAST = {1: 0.0, 2: 1.5, 3: 4.0}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows as numbers; everything has one entry a row."""

    rows: list[Row]
    grams: csr_matrix
    """``(n, 2 * BUCKETS)``."""
    findings: NDArray[np.float32]
    """``(n, evidence.SIZE)``."""
    labels: NDArray[np.bool_]
    gross: NDArray[np.bool_]
    """Holds a gross profanity as spelled."""
    kinds: NDArray[np.bool_]
    """``(n, len(ABUSE))``: known, or taken from the lexicon's hits."""
    crisis: NDArray[np.bool_]


def look(rows: list[Row], language: str) -> Examples:
    """Turn rows into numbers, just as the judge does."""
    judge = Judge.load((language,), model_dir=None)
    columns, weights, ends = [], [], [0]
    findings = np.zeros((len(rows), evidence.SIZE), dtype=np.float32)
    kinds = np.zeros((len(rows), len(evidence.ABUSE)), dtype=bool)
    gross, crisis = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    for k, row in enumerate(rows):
        hits = judge.judge(row.text, language).hits
        grams, weight = ngrams.rows(row.text, surface(row.text), language, READINGS[language])
        columns.append(grams)
        weights.append(weight)
        ends.append(ends[-1] + len(grams))
        findings[k] = evidence.features(hits)
        gross[k] = any(h.category == "profanity" and h.severity == 3 and h.exact for h in hits)
        crisis[k] = row.category == "crisis" or any(h.category == "crisis" for h in hits)
        names = (row.category,) if row.category else evidence.categories(hits)
        for name in names:
            if name in evidence.ABUSE:
                kinds[k, evidence.ABUSE.index(name)] = True
    matrix = csr_matrix(
        (np.concatenate(weights), np.concatenate(columns), np.array(ends)),
        shape=(len(rows), 2 * ngrams.BUCKETS),
    )
    labels = np.array([row.abusive for row in rows])
    return Examples(rows, matrix, findings, labels, gross, kinds, crisis)


def weigh(rows: list[Row], labels: NDArray[np.bool_]) -> Floats:
    """Each family counts as the root of its size, half for each label; mean 1."""
    families = np.array([row.family for row in rows])
    out = np.zeros(len(rows))
    for family in sorted(set(families)):
        of_family = families == family
        both = len(set(labels[of_family])) > 1
        for label in (False, True):
            chosen = of_family & (labels == label)
            if chosen.any():
                share = 1.0 if both else 1.5
                out[chosen] = share * np.sqrt(of_family.sum()) / chosen.sum()
    return np.asarray(out / out.mean(), dtype=np.float64)


def fit(x: Any, labels: NDArray[np.bool_], weights: Floats | None) -> tuple[Floats, float]:
    """Coefficients and intercept of one regression."""
    model = LogisticRegression(C=_C, max_iter=300, solver="liblinear", random_state=SEED)
    model.fit(x, labels, sample_weight=weights)
    return np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0])


def fit_abuse(examples: Examples, chosen: NDArray[np.int64]) -> tuple[Floats, Floats, float]:
    """The main regression on some rows: of n-grams, of findings, intercept."""
    kept = chosen[~(examples.gross[chosen] & ~examples.labels[chosen])]
    x = hstack([examples.grams[kept], csr_matrix(examples.findings[kept])]).tocsr()
    labels = examples.labels[kept]
    weights = weigh([examples.rows[k] for k in kept], labels)
    coefficients, intercept = fit(x, labels, weights)
    of_grams, of_findings = np.split(coefficients, [2 * ngrams.BUCKETS])
    for k in range(3 * len(evidence.ABUSE)):
        of_findings[k] = max(of_findings[k], _LEAST[k % 3 + 1] - of_findings[-5])
    return of_grams, of_findings, intercept


def logits(
    examples: Examples, model: tuple[Floats, Floats, float], chosen: NDArray[np.int64]
) -> Floats:
    """Log odds of some rows."""
    of_grams, of_findings, intercept = model
    out = examples.grams[chosen] @ of_grams + examples.findings[chosen] @ of_findings + intercept
    return np.asarray(out, dtype=np.float64)


def folds(count: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to train on and rows left out, each row left out once."""
    parts = np.array_split(np.random.default_rng(SEED).permutation(count), _FOLDS)
    return [
        (np.sort(np.concatenate([p for p in parts if p is not out])), np.sort(out)) for out in parts
    ]


def _threshold(examples: Examples, language: str) -> float:
    """The log odds that only :data:`PASSING` of the clean texts reach when left out."""
    scores = np.zeros(len(examples.rows))
    for inside, outside in folds(len(examples.rows)):
        scores[outside] = logits(examples, fit_abuse(examples, inside), outside)
    spoken = _SPOKEN[language]
    families = np.array([row.family for row in examples.rows])
    clean = ~examples.labels & ~examples.gross & (families != "made")
    if spoken:
        clean &= np.isin(families, spoken)
    return float(np.quantile(scores[clean], 1 - PASSING[language]))


def _kinds(examples: Examples) -> tuple[Floats, Floats]:
    """A regression a kind, on abusive texts whose kind is known: ``(KIND_ROWS, k)``, ``(k,)``."""
    chosen = np.flatnonzero(examples.labels & examples.kinds.any(axis=1))
    x = _folded(examples.grams[chosen])
    fitted = [fit(x, examples.kinds[chosen, k], None) for k in range(len(evidence.ABUSE))]
    return np.stack([c for c, _ in fitted], axis=1), np.array([i for _, i in fitted])


def _crisis(examples: Examples) -> tuple[Floats, float]:
    """Hints of a crisis against everything else, shifted so that few others reach 0."""
    seen = examples.crisis & ~examples.labels
    other = ~examples.crisis
    chosen = np.flatnonzero(seen | other)
    x = _folded(examples.grams)
    weights = np.where(seen, 0.1 * other.sum() / max(seen.sum(), 1), 1.0)
    scores = np.zeros(len(examples.rows))
    for inside, outside in folds(len(examples.rows)):
        inside = np.intersect1d(inside, chosen)
        coefficients, intercept = fit(x[inside], seen[inside], weights[inside])
        scores[outside] = x[outside] @ coefficients + intercept
    made = np.array([row.source == "made/calm" for row in examples.rows])
    threshold = max(
        float(np.quantile(scores[other], 1 - _CRISIS_PASSING)), float(scores[other & made].max())
    )
    coefficients, intercept = fit(x[chosen], seen[chosen], weights[chosen])
    return coefficients, intercept - threshold


def _folded(grams: csr_matrix) -> csr_matrix:
    """The n-grams' rows modulo :data:`KIND_ROWS`: kinds need less resolution than the score."""
    indices = grams.indices % KIND_ROWS
    return csr_matrix((grams.data, indices, grams.indptr), shape=(grams.shape[0], KIND_ROWS))


def train_language(data: Path, out: Path, language: str) -> dict[str, Any]:
    """Train one language's model, write it and its card to ``out``, return the card."""
    rows = corpus.read(data, "train", language) + corpus.made(language, SEED)
    examples = look(rows, language)
    everything = np.arange(len(rows))
    threshold = _threshold(examples, language)
    of_grams, of_findings, intercept = fit_abuse(examples, everything)
    of_kinds, kind_intercepts = _kinds(examples)
    of_crisis, crisis_intercept = _crisis(examples)
    model = build(
        of_grams,
        of_findings,
        intercept - threshold,
        np.concatenate([of_kinds, of_crisis[:, None]], axis=1),
        np.append(kind_intercepts, crisis_intercept),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / model_file(language)).write_bytes(model)
    sources = sorted({row.source for row in rows})
    counts = {s: sum(row.source == s for row in rows) for s in sources}
    card: dict[str, Any] = {
        "model": {
            "language": language,
            "version": VERSION,
            "sha256": hashlib.sha256(model).hexdigest(),
            "contract": contract(),
            "seed": SEED,
            "licence": "GPL-3.0-or-later; trained in part on CC BY-SA 4.0 and CC BY 4.0 texts, "
            "see docs/detection.md",
        },
        "threshold": {
            "clean_texts_that_pass": PASSING[language],
            "taken_from": ", ".join(_SPOKEN[language]) or "all clean texts",
        },
        "texts": {source.replace("/", "-"): count for source, count in counts.items()},
    }
    write_card(out, language, card)
    return card


def run(data: Path, out: Path | None, languages: list[str]) -> Iterator[str]:
    """Train some languages, all if none is named; one line of report each.

    Raises:
        SetupError: no texts where ``data`` points, or a language has no model.
    """
    for language in languages or list(LANGUAGES):
        if language not in LANGUAGES:
            raise SetupError(f"{language!r} has no texts to train on: its lexicon works alone")
        card = train_language(data, out or SHIPPED, language)
        texts = sum(card["texts"].values())
        yield f"{model_file(language)}: {texts} texts, sha256 {card['model']['sha256']}"


def main() -> None:
    """``python -m detectors.words.train``: the same where the command line is not installed."""
    parser = argparse.ArgumentParser(description="Train the word models anew.")
    parser.add_argument("--data", type=Path, required=True, help="the data's folder")
    parser.add_argument("--out", type=Path, help="folder; the installed models if none")
    parser.add_argument("--lang", choices=LANGUAGES, action="append", help="several; all if none")
    options = parser.parse_args()
    for line in run(options.data, options.out, options.lang or []):
        print(line, flush=True)


if __name__ == "__main__":
    main()
