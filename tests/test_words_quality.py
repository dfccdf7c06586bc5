"""How well the shipped judge does on texts that it was not trained on; with negative controls."""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.words import corpus
from detectors.words.corpus import Row
from tests.detector_sounds import DATA
from tests.words_kit import judge

pytestmark = [
    pytest.mark.skipif(not (DATA / "text" / "dev.tsv.gz").exists(), reason="needs ../shared/data"),
    pytest.mark.data,
]


@functools.cache
def rows(language: str, source: str) -> tuple[Row, ...]:
    return tuple(r for r in corpus.read(DATA, "dev", language) if r.source.startswith(source))


@functools.cache
def scores(language: str, source: str, with_model: bool = True) -> NDArray[np.float64]:
    one = judge(language, with_model=with_model)
    return np.array([one.judge(row.text, language).score for row in rows(language, source)])


def auc(language: str, source: str, with_model: bool = True) -> float:
    """Mann-Whitney: how often an abusive text scores above a clean one, ties half."""
    found = scores(language, source, with_model)
    labels = np.array([row.abusive for row in rows(language, source)])
    clean = np.sort(found[~labels])
    below = np.searchsorted(clean, found[labels], "left")
    through = np.searchsorted(clean, found[labels], "right")
    return float((below + through).mean() / 2 / len(clean))


def test_calm_spoken_korean_is_hardly_ever_flagged() -> None:
    flagged = (scores("ko", "3i4k_test") >= 0.5).mean()
    assert len(rows("ko", "3i4k_test")) > 6000
    assert flagged < 0.003


@pytest.mark.parametrize(
    ("language", "source", "least"),
    [("ko", "apeach", 0.85), ("ko", "unsmile", 0.83), ("zh", "cold_test", 0.85)],
)
def test_abuse_scores_above_clean_texts(language: str, source: str, least: float) -> None:
    assert auc(language, source) >= least


def test_the_model_is_what_makes_the_difference() -> None:
    """Negative control: the lexicon alone does not reach what is asked of model and lexicon."""
    assert auc("zh", "cold_test", with_model=False) < 0.75
    assert auc("ko", "apeach", with_model=False) < 0.80


def test_japanese_abuse_is_told_from_comments_by_the_lexicon_alone() -> None:
    assert auc("ja", "inspection") >= 0.85


def test_a_sentence_takes_two_milliseconds_at_most() -> None:
    texts = [row.text for row in rows("ko", "3i4k_test")[:500]]
    one = judge("ko")
    one.judge(texts[0], "ko")
    began = time.process_time()
    for text in texts:
        one.judge(text, "ko")
    assert (time.process_time() - began) / len(texts) < 0.002
