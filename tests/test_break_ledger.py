"""What bad calls ate of planned breaks is owed, never negative and never lost; pure."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from callshield.settings_care import BreakSettings
from notifier.break_ledger import BreakLedger, BreakPlan, Eaten

SEOUL = ZoneInfo("Asia/Seoul")
#: A Monday.
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=SEOUL).timestamp()
MINUTE = 60.0


def make(**plan: object) -> tuple[BreakSettings, BreakPlan]:
    lunch = {"times": ["12:00-12:30"], **plan}
    settings = BreakSettings.model_validate({"plans": {"lunch": lunch}})
    return settings, BreakPlan(settings, {"1001": "billing", "1002": ""})


def ledger(**plan: object) -> BreakLedger:
    return BreakLedger(*make(**plan))


def test_breaks_are_by_the_clock_of_their_zone_and_on_their_days() -> None:
    _, plan = make(days=["mon"])
    (lunch,) = plan.of("1001", NOON - 60, NOON + 60)
    assert (lunch.begins_ts, lunch.length_s) == (NOON, 30 * MINUTE)
    assert plan.of("1001", NOON + 86400 - 60, NOON + 86400 + 60) == []
    assert plan.of("1001", NOON + 30 * MINUTE, NOON + 31 * MINUTE) == [], "it ends before"


def test_plans_are_an_agents_a_teams_or_everybodys() -> None:
    for plan, whose in (
        ({"agents": ["1002"]}, {"1002"}),
        ({"teams": ["billing"]}, {"1001"}),
        ({}, {"1001", "1002"}),
    ):
        _, planned = make(**plan)
        assert {a for a in ("1001", "1002") if planned.of(a, NOON, NOON + 1)} == whose


def test_a_break_over_midnight_and_on_the_day_when_clocks_change_keeps_its_length() -> None:
    berlin = {"time_zone": "Europe/Berlin", "plans": {"night": {"times": ["23:45-00:15"]}}}
    plan = BreakPlan(BreakSettings.model_validate(berlin), {})
    midnight = datetime(2026, 11, 24, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    (night,) = plan.of("1001", midnight + 60, midnight + 120)
    assert (night.begins_ts, night.length_s) == (midnight - 15 * MINUTE, 30 * MINUTE)
    early = {"time_zone": "Europe/Berlin", "plans": {"early": {"times": ["01:45-03:15"]}}}
    plan = BreakPlan(BreakSettings.model_validate(early), {})
    change = datetime(2026, 3, 29, 1, 45, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    (early_break,) = plan.of("1001", change, change)
    assert early_break.length_s == 90 * MINUTE


@pytest.mark.parametrize("time", ["12-13", "24:00-25:00", "12:00-12:00", "12:00", ""])
def test_times_that_are_none_are_refused(time: str) -> None:
    with pytest.raises(ValidationError, match="times like"):
        BreakSettings.model_validate({"plans": {"x": {"times": [time]}}})
    with pytest.raises(ValidationError, match="time zone"):
        BreakSettings(time_zone="Asia/Nowhere")


def test_what_a_bad_call_ate_is_owed_and_its_break_moves() -> None:
    kept = ledger()
    (row,) = kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=True)
    assert (row.eaten_s, row.moved_to_ts) == (8 * MINUTE, NOON + 8 * MINUTE)
    assert kept.owed_s("1001") == 8 * MINUTE
    assert kept.owed_s("1002") == 0


def test_a_moved_break_that_was_taken_gives_everything_back() -> None:
    kept = ledger()
    kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=True)
    kept.rested("1001", NOON + 5 * MINUTE, NOON + 38 * MINUTE)
    assert kept.owed_s("1001") == 0


def test_a_moved_break_that_was_cut_short_gives_back_what_was_taken() -> None:
    kept = ledger()
    kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=True)
    kept.rested("1001", NOON + 5 * MINUTE, NOON + 33 * MINUTE)
    assert kept.owed_s("1001") == 5 * MINUTE
    kept.rested("1001", NOON + 5 * MINUTE, NOON + 20 * MINUTE)
    assert kept.owed_s("1001") == 5 * MINUTE, "said twice counts once"


def test_an_ordinary_call_moves_a_break_and_owes_nothing_until_its_agent_calls_it_abusive() -> None:
    kept = ledger()
    (row,) = kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=False)
    assert row.moved_to_ts == NOON + 8 * MINUTE
    assert kept.owed_s("1001") == 0
    assert kept.mark_bad("c1") == [row]
    assert kept.owed_s("1001") == 8 * MINUTE
    assert kept.mark_bad("c1") == []


def test_a_call_within_the_break_moves_nothing_and_is_owed() -> None:
    kept = ledger()
    (row,) = kept.busy("1001", "c1", NOON + 600, NOON + 900, bad=True)
    assert (row.moved_to_ts, kept.owed_s("1001")) == (None, 300.0)


def test_a_break_does_not_move_for_hours() -> None:
    kept = ledger()
    (row,) = kept.busy("1001", "c1", NOON - 600, NOON + 7200, bad=True)
    assert (row.moved_to_ts, kept.owed_s("1001")) == (None, 30 * MINUTE)


def test_ready_before_the_break_moved_to_its_place() -> None:
    """The rest was to last until 12:08, and the agent ended it at 12:05: five minutes were lost."""
    kept = ledger()
    kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=True)
    (row,) = kept.rested("1001", NOON + 3 * MINUTE, NOON + 5 * MINUTE)
    assert (row.moved_to_ts, kept.owed_s("1001")) == (None, 5 * MINUTE)


def test_a_longer_rest_moves_the_break_further() -> None:
    kept = ledger()
    kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=True)
    (row,) = kept.extended("1001", 2 * MINUTE, NOON + 4 * MINUTE)
    assert (row.moved_to_ts, row.eaten_s) == (NOON + 10 * MINUTE, 10 * MINUTE)
    assert kept.extended("1001", 60.0, NOON + 20 * MINUTE) == [], "the break has begun"


def test_owed_time_is_given_back_oldest_first() -> None:
    kept = ledger(times=["10:00-10:10", "12:00-12:30"])
    kept.busy("1001", "c1", NOON - 7300, NOON - 7200 + 300, bad=True)
    kept.busy("1001", "c2", NOON + 60, NOON + 360, bad=True)
    assert kept.owed_s("1001") == 600.0
    kept.give_back("1001", 400.0)
    assert [row.owed_s for row in kept.rows("1001")] == [0.0, 200.0]
    kept.give_back("1001", 1000.0)
    assert kept.owed_s("1001") == 0


def test_the_break_before_which_nobody_calls() -> None:
    kept = ledger()
    ahead = kept.next_break("1001", NOON - 300)
    assert ahead is not None
    assert ahead.begins_ts == NOON
    assert kept.next_break("1001", NOON - 601) is None
    assert kept.next_break("1001", NOON + 60) is None, "it has begun"
    off = BreakSettings.model_validate({"before_s": 0, "plans": {"x": {"times": ["12:00-12:30"]}}})
    assert BreakLedger(off, BreakPlan(off, {})).next_break("1001", NOON) is None


def test_a_clock_that_is_set_moves_a_moved_break_with_it() -> None:
    kept = ledger()
    kept.busy("1001", "c1", NOON - 600, NOON + 8 * MINUTE, bad=True)
    (row,) = kept.clock_moved(3600.0, NOON + 3 * MINUTE + 3600)
    assert row.moved_to_ts == NOON + 8 * MINUTE + 3600
    assert kept.owed_s("1001") == 8 * MINUTE
    began_ts = NOON + 5 * MINUTE + 3600
    kept.rested("1001", began_ts, NOON + 33 * MINUTE + 3600)
    assert kept.owed_s("1001") == 5 * MINUTE, "five minutes of the moved break were not taken"
    assert kept.clock_moved(-60.0, NOON + 20000) == [], "what is past stays"


MINUTES = st.integers(-40, 90)
STEP = st.one_of(
    st.tuples(st.just("busy"), MINUTES, st.integers(0, 60), st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("rested"), MINUTES, st.integers(0, 60), st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("extended"), MINUTES, st.integers(0, 60), st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("give"), MINUTES, st.integers(0, 60), st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("mark"), MINUTES, st.integers(0, 60), st.booleans(), st.integers(0, 3)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=20))
def test_what_is_owed_is_never_negative_and_never_lost_over_a_restart(
    steps: list[tuple[str, int, int, bool, int]],
) -> None:
    kept = ledger(times=["12:00-12:30", "12:40-12:50"])
    stored: dict[tuple[str, str, float], dict[str, object]] = {}
    for what, at, length, bad, number in steps:
        ts, before = NOON + at * MINUTE, kept.owed_s("1001")
        call_id = f"c{number}"
        rows: list[Eaten]
        match what:
            case "busy":
                rows = kept.busy("1001", call_id, ts, ts + length * MINUTE, bad=bad)
                assert kept.owed_s("1001") >= before
            case "rested":
                rows = kept.rested("1001", ts, ts + length * MINUTE)
                assert kept.owed_s("1001") <= before
            case "extended":
                rows = kept.extended("1001", length * MINUTE, ts)
                assert kept.owed_s("1001") >= before
            case "give":
                rows = kept.give_back("1001", length * MINUTE)
                given_s = min(before, length * MINUTE)
                assert kept.owed_s("1001") == pytest.approx(before - given_s)
            case _:
                rows = kept.mark_bad(call_id)
                assert kept.owed_s("1001") >= before
        for row in rows:
            assert row.paid_s >= 0
            assert 0 <= row.eaten_s <= row.length_s
            assert row.owed_s >= 0
            stored[row.agent_id, row.call_id, row.break_ts] = asdict(row)
        again = ledger(times=["12:00-12:30", "12:40-12:50"])
        again.restore(Eaten(**row) for row in stored.values())  # type: ignore[arg-type]
        assert again.owed_s("1001") == kept.owed_s("1001")
        assert again.rows("1001") == kept.rows("1001")
