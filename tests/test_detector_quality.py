"""Does the shipped model hear anger in speakers that it never heard? With negative controls."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import corpora, evaluate, telephone
from detectors.acoustic import AcousticModel, Scores
from detectors.corpora import Clip
from tests.detector_sounds import DATA, needs_data

pytestmark = [needs_data, pytest.mark.data]

#: What RECIPES' baseline reached on the same speakers.
BASELINE_AUC = 0.85


class Inverted(AcousticModel):
    """Control: the shipped model, upside down."""

    def score(
        self,
        vectors: NDArray[np.float32],
        references: NDArray[np.float32] | None = None,
        known: NDArray[np.float32] | None = None,
    ) -> Scores:
        found = super().score(vectors, references, known)
        return Scores(np.float32(1.0) - found.scores, np.float32(1.0) - found.alone)


@functools.cache
def dev_clips() -> tuple[Clip, ...]:
    clips = corpora.read_manifest(DATA)
    return tuple(c for c in clips if c.corpus == "emodb" and c.split == "dev")


@functools.cache
def shipped() -> tuple[evaluate.Outcome, ...]:
    return tuple(evaluate.outcomes(AcousticModel(), list(dev_clips()), 7, clean=True))


def angry_auc(found: tuple[evaluate.Outcome, ...], seed: int | None = None) -> float:
    """AUC of anger against all others; with a seed, the labels are shuffled first."""
    angry = np.array([o.clip.emotion == "anger" for o in found])
    if seed is not None:
        np.random.default_rng(seed).shuffle(angry)
    scores = np.array([o.score for o in found])
    return evaluate.auc(scores[angry], scores[~angry])


def test_anger_of_unheard_speakers_scores_above_everything_else() -> None:
    assert angry_auc(shipped()) > BASELINE_AUC


def test_control_shuffled_labels_and_inverted_scores_fail_the_same_measure() -> None:
    assert all(angry_auc(shipped(), seed) < 0.65 for seed in range(5))
    inverted = tuple(evaluate.outcomes(Inverted(), list(dev_clips())[::3], 7, clean=True))
    assert angry_auc(inverted) < 0.3


def test_angry_clips_reach_the_alarm_and_neutral_ones_do_not() -> None:
    found = list(shipped())
    assert evaluate.reached(found, frozenset({"anger"}), 2) > 0.6
    assert evaluate.reached(found, frozenset({"neutral", "boredom", "sadness"}), 2) == 0.0


def test_calm_digits_of_unheard_speakers_raise_no_alarm_in_ten_minutes() -> None:
    digits = [c for c in corpora.read_manifest(DATA) if c.corpus == "fsdd" and c.split == "dev"]
    found = evaluate.calm_calls(AcousticModel(), digits, 11, minutes=10.0)
    assert found.level_2 == 0


def test_the_licence_column_keeps_measure_only_recordings_out_of_training() -> None:
    clips = corpora.read_manifest(DATA)
    assert {c.corpus for c in clips if not c.may_train} == {"nemo"}
    trained = [c for c in clips if c.may_train and not c.held_out]
    held = [c for c in clips if c.held_out]
    for corpus in ("emodb", "fsdd", "speech_commands"):
        of = {c.speaker for c in trained if c.corpus == corpus}
        assert of
        assert not of & {c.speaker for c in held if c.corpus == corpus}


def test_the_same_seed_gives_the_same_line() -> None:
    audio = np.sin(np.arange(8000) / 5).astype(np.float32)
    once, again, other = (
        telephone.transmit(
            audio,
            telephone.random_line(np.random.default_rng(seed)),
            np.random.default_rng(seed),
        )
        for seed in (1, 1, 2)
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
