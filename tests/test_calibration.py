"""Thresholds from judged alerts: what is proposed, and when nothing honestly can be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from notifier.calibration import (
    MIN_AGENTS,
    MIN_JUDGED,
    JudgedCall,
    Label,
    by_newest_model,
    propose,
    row_at,
)
from notifier.judged import label_of

QUIET = JudgedCall(
    group="",
    agent_id="1001",
    hours=0.1,
    in_force=0.76,
    reached=0.0,
    alerted=False,
    by_words=False,
    label="unjudged",
    model="ab" * 6,
)


def alert(reached: float, label: Label, agent: int = 0, **more: object) -> JudgedCall:
    call = replace(QUIET, reached=reached, alerted=True, label=label, agent_id=str(1000 + agent))
    return replace(call, **more)  # type: ignore[arg-type]


def site(
    refuted: int = 60, confirmed: int = 40, unjudged: int = 0, quiet: int = 9900
) -> list[JudgedCall]:
    """A site whose refuted alerts lie between 0.76 and 0.88 and confirmed ones between 0.80 and
    0.98; a tenth of an hour a call."""
    rng = np.random.default_rng(4)

    def some(count: int, low: float, high: float, label: Label) -> list[JudgedCall]:
        scores = np.floor(100 * rng.uniform(low, high, count)) / 100
        return [alert(float(s), label, agent=i % 8) for i, s in enumerate(scores)]

    calls = [
        *some(refuted, 0.76, 0.88, "refuted"),
        *some(confirmed, 0.80, 0.98, "confirmed"),
        *some(unjudged, 0.76, 0.95, "unjudged"),
    ]
    return calls + [replace(QUIET, agent_id=str(1000 + i % 8)) for i in range(quiet)]


def test_the_lowest_threshold_whose_upper_limit_keeps_the_target_is_proposed() -> None:
    calls = site()
    found = propose(calls, "", "serious", 0.05)
    assert found.threshold is not None
    row = found.row
    assert row is not None
    assert row.interval[1] <= 0.05 < found.rows[0].per_hour
    before = [r for r in found.rows if r.threshold < found.threshold]
    assert all(r.interval[1] > 0.05 for r in before), "no lower one would do"
    # What is said of it is what those very calls would have given.
    left = [c for c in calls if c.label == "refuted" and c.reached >= found.threshold - 1e-9]
    assert row.refuted == len(left)
    assert row.per_hour == pytest.approx(len(left) / 1000.0)
    kept, low, high = row.kept
    assert low < kept < high
    assert row.confirmed_before == 40


def test_three_alerts_are_no_ground_for_a_proposal_and_it_says_how_many_are_missing() -> None:
    found = propose(site(refuted=2, confirmed=1), "", "serious", 0.05)
    assert found.threshold is None
    assert found.why == f"3 alerts by sound are judged and {MIN_JUDGED} are needed: 27 more"


def test_few_hours_are_no_ground_either_however_few_alarms_there_were() -> None:
    calls = [replace(call, hours=0.001) for call in site()]
    found = propose(calls, "", "serious", 0.05)
    assert found.threshold is None
    assert "10.0 hours were analysed and 73.8 are needed" in found.why


def test_an_alert_that_nobody_judged_counts_as_false_at_the_upper_end() -> None:
    judged = propose(site(), "", "serious", 0.05)
    part = propose(site(unjudged=60), "", "serious", 0.05)
    assert judged.threshold is not None
    assert part.threshold is not None
    assert part.threshold > judged.threshold
    few = propose(site(unjudged=150), "", "serious", 0.05)
    assert few.threshold is None
    assert few.why == "100 of 250 alerts by sound are judged and half are needed: 25 more"


def test_a_target_that_is_kept_already_changes_nothing() -> None:
    found = propose(site(), "", "serious", 1.0)
    assert found.threshold is None
    assert "nothing to change" in found.why


def test_alerts_of_words_stay_at_every_threshold_and_are_named() -> None:
    wordy = [alert(0.77, "refuted", by_words=True) for _ in range(80)]
    found = propose(site() + wordy, "", "serious", 0.05)
    assert found.threshold is None
    assert "80 alerts that rest on words" in found.why
    assert found.rows[-1].words_refuted == 80


def test_scores_that_part_nothing_give_no_threshold() -> None:
    calls = [replace(call, reached=0.99 if call.alerted else 0.0) for call in site()]
    found = propose(calls, "", "serious", 0.01)
    assert found.threshold is None
    assert "no threshold up to 0.99" in found.why


def test_a_threshold_that_costs_most_right_alerts_says_so() -> None:
    calls = [replace(call, reached=0.77) if call.label == "confirmed" else call for call in site()]
    found = propose(calls, "", "serious", 0.05)
    assert found.threshold is not None
    assert "LOOK: of the confirmed alerts only" in found.why


@pytest.mark.parametrize("group", ["desk", ""])
def test_no_figures_are_made_about_one_person(group: str) -> None:
    calls = [replace(call, agent_id="1001", group=group) for call in site()]
    found = propose(calls, group, "serious", 0.05)
    assert found.threshold is None
    assert not found.rows, "not even the figures in force"
    assert f"fewer than {MIN_AGENTS}" in found.why
    assert ("whole node" in found.why) is bool(group)
    # Negative control: the same calls of eight agents.
    assert propose(site(), "desk", "serious", 0.05).threshold is not None


def test_calls_judged_by_a_higher_threshold_tell_nothing_of_a_lower_one() -> None:
    strict = [replace(QUIET, in_force=0.9) for _ in range(5000)]
    row = row_at(strict + site(), 0.8, 0.76)
    assert row.hours == pytest.approx(1000.0)
    assert row_at(strict + site(), 0.9, 0.76).hours == pytest.approx(1500.0)


def test_between_two_steps_a_call_counts_as_raised() -> None:
    """In force is 0.763, known is only that 0.76 was reached: the alert was there."""
    call = alert(0.76, "refuted", in_force=0.763)
    assert row_at([call], 0.763, 0.763).refuted == 1
    assert row_at([call], 0.77, 0.763).refuted == 0


def test_scores_of_two_models_are_not_mixed() -> None:
    old = [replace(call, model="0" * 12) for call in site(quiet=10)]
    kept, left_out = by_newest_model(old + site(quiet=5))
    assert (len(kept), left_out) == (105, 110)
    assert by_newest_model([]) == ([], 0)


def test_nothing_analysed_is_a_sentence() -> None:
    found = propose([], "", "serious", 0.1)
    assert found.threshold is None
    assert found.why == "no call was analysed yet"
    assert math.isnan(row_at([], 0.8, 0.76).per_hour)


def test_the_agents_word_counts_where_both_said_something() -> None:
    assert label_of([("confirmed", "refuted")]) == "confirmed"
    assert label_of([("refuted", "confirmed")]) == "refuted"
    assert label_of([("", "confirmed")]) == "confirmed"
    assert label_of([("refuted", ""), ("", "confirmed")]) == "confirmed"
    assert label_of([("", ""), ("refuted", "")]) == "refuted"
    assert label_of([("", "")]) == "unjudged"
    assert label_of([]) == "unjudged"
