"""How far a call went: the figures agree with the machine that decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.settings import DetectorSettings, Settings
from callshield.settings_sip import AgentSettings
from callshield.threshold_settings import ThresholdSettings
from detectors.acoustic import Card
from detectors.reached import GRID, Reached
from detectors.risk import Policy, RiskMachine
from detectors.thresholds import card_policy, policies, policy_with, strangers
from notifier import calibration

POLICY = Policy(caution=0.70, serious=0.76, release=0.56, sure=0.85)
CARD = Card("2", "ab" * 32, "cd" * 32, 0.705, 0.763, 0.564, 0.845)

hop = st.tuples(
    st.one_of(st.none(), st.floats(0.0, 1.0)),
    st.floats(0.02, 0.5),
    st.floats(0.0, 1.0),
)
call = st.lists(hop, min_size=1, max_size=60)


def highest_level(policy: Policy, hops: list[tuple[float | None, float, float]]) -> int:
    machine = RiskMachine(policy)
    return max(
        machine.update(0.5, 0.0 if score is None else speech_s, score, window_s).level
        for score, speech_s, window_s in hops
    )


def figures(hops: list[tuple[float | None, float, float]], policy: Policy = POLICY) -> Reached:
    reached = Reached(policy)
    for score, speech_s, window_s in hops:
        reached.update(0.5, 0.0 if score is None else speech_s, score, window_s)
    return reached


@given(call, st.integers(76, 99))
def test_a_call_reaches_level_2_at_a_threshold_exactly_when_its_figure_says_so(
    hops: list[tuple[float | None, float, float]], hundredths: int
) -> None:
    serious = hundredths / 100
    policy = replace(POLICY, serious=serious, sure=max(POLICY.sure, serious))
    reached = figures(hops).figures.serious_reached
    assert (highest_level(policy, hops) == 2) == (reached >= serious - 1e-9)


@given(call, st.integers(70, 76))
def test_the_same_holds_for_level_1(
    hops: list[tuple[float | None, float, float]], hundredths: int
) -> None:
    # Below a serious that sound cannot reach, so that level 1 is made by caution alone.
    policy = replace(POLICY, caution=hundredths / 100, serious=2.0, sure=2.0)
    reached = figures(hops, replace(POLICY, serious=2.0, sure=2.0)).figures.caution_reached
    assert (highest_level(policy, hops) >= 1) == (reached >= hundredths / 100 - 1e-9)


def test_the_peak_alone_would_not_do() -> None:
    """Negative control: a single window at 0.9 is a peak above 0.8 and makes no level 2 there."""
    hops: list[tuple[float | None, float, float]] = [(0.9, 0.2, 0.3)]
    found = figures(hops, replace(POLICY, sure=0.95)).figures
    assert found.effort_peak == 0.9
    assert found.serious_reached == 0.0
    assert highest_level(replace(POLICY, serious=0.8, sure=0.95), hops) < 2


def test_seconds_without_audio_are_not_analysed() -> None:
    reached = Reached(POLICY)
    reached.update(0.5, 0.4, 0.2, 0.4, 0.1)
    reached.update(0.5, 0.0, None, heard=False)
    found = reached.figures
    assert (found.analysed_s, found.speech_s) == (0.5, 0.4)
    assert (found.effort_peak, found.effort_sustained) == (0.2, 0.1)


def test_both_rooms_try_the_same_thresholds() -> None:
    assert GRID[1] - GRID[0] == pytest.approx(calibration.STEP)
    assert GRID[-1] == calibration.HIGHEST


def thresholds(
    caution: float | None = None, serious: float | None = None, model: str = ""
) -> ThresholdSettings:
    return ThresholdSettings(caution=caution, serious=serious, model=model)


def test_a_sites_thresholds_keep_their_order() -> None:
    base = card_policy(CARD)
    assert policy_with(CARD, base, thresholds()) == base
    raised = policy_with(CARD, base, thresholds(serious=0.9))
    assert (raised.caution, raised.serious, raised.sure) == (0.705, 0.9, 0.9)
    low = policy_with(CARD, base, thresholds(serious=0.5))
    assert (low.release, low.caution, low.serious, low.sure) == (0.5, 0.5, 0.5, 0.845)
    high = policy_with(CARD, base, thresholds(caution=0.8))
    assert (high.caution, high.serious) == (0.8, 0.8)


def test_thresholds_of_another_model_are_not_used_and_are_named() -> None:
    own = thresholds(serious=0.9, model="ab" * 6)
    other = thresholds(serious=0.95, model="ee" * 6)
    settings = Settings(
        detector=DetectorSettings(thresholds=own, groups={"sales": other, "care": thresholds(0.8)}),
        agents={"1001": AgentSettings(uri="sip:1001@192.0.2.1", group="sales")},
    )
    node, groups = policies(CARD, settings)
    assert node.serious == 0.9
    assert groups["sales"] == node, "what was found for another model falls back to the node's"
    assert (groups["care"].caution, groups["care"].serious) == (0.8, 0.9)
    assert strangers(CARD, settings) == ["detector.groups.sales"]


def test_a_caution_above_serious_is_a_configuration_error() -> None:
    with pytest.raises(ValueError, match="not above serious"):
        thresholds(caution=0.9, serious=0.8)
