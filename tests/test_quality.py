"""The estimated mean opinion score: known points of the E-model, and its order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge.quality import mean_opinion_score


def test_a_clean_line_scores_what_the_e_model_gives_for_its_delay() -> None:
    # G.107: R = 93.2 - 0.024 * 40 = 92.24, which annex B turns into 4.39.
    assert mean_opinion_score("PCMU", loss_pct=0, jitter_ms=0) == pytest.approx(4.39, abs=0.01)


def test_five_per_cent_of_loss_costs_what_g_113_says_for_hidden_losses() -> None:
    # Ie_eff = 95 * 5 / (5 + 25.1) = 15.8: R = 76.5, MOS 3.89.
    assert mean_opinion_score("PCMA", loss_pct=5, jitter_ms=0) == pytest.approx(3.89, abs=0.02)


def test_delay_beyond_177_ms_costs_extra() -> None:
    near, far, farther = (
        mean_opinion_score("PCMU", loss_pct=0, jitter_ms=0, rtt_ms=rtt) for rtt in (0, 270, 540)
    )
    assert near - far < 0.15
    assert far - farther > 0.5


@given(
    loss=st.floats(0, 100), more=st.floats(0, 50), jitter=st.floats(0, 500), rtt=st.floats(-1, 2000)
)
def test_it_stays_on_the_scale_and_never_rises_with_loss(
    loss: float, more: float, jitter: float, rtt: float
) -> None:
    score = mean_opinion_score("G722", loss_pct=loss, jitter_ms=jitter, rtt_ms=rtt)
    worse = mean_opinion_score("G722", loss_pct=min(loss + more, 100), jitter_ms=jitter, rtt_ms=rtt)
    assert 1.0 <= score <= 4.5
    assert worse <= score + 1e-9
