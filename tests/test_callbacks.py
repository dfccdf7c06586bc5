"""Call-backs: one a call, owed by somebody, due, and told again until they are done; pure."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from callshield.settings_care import CallbackSettings
from notifier.callbacks import Callback, Callbacks
from notifier.live import Call

NOW = 1_000_000.0
HOUR = 3600.0


def make(**settings: object) -> Callbacks:
    numbers = itertools.count(1)
    return Callbacks(
        CallbackSettings.model_validate({"within_s": HOUR, "again_s": 600, **settings}),
        lambda: f"{next(numbers):032x}",
    )


def call(number: int = 1) -> Call:
    return Call(f"{number:032x}", "1001", f"1763.{number}", "pbx", NOW - 60, NOW - 50)


def nobody(_call_id: str) -> bool:
    return False


def kim(_agent_id: str) -> str:
    return "kim"


def nobodys(_agent_id: str) -> str:
    return ""


def test_it_has_an_owner_a_deadline_and_the_pbxs_id_of_the_call() -> None:
    kept = make()
    made = kept.promise(call(), "kim", NOW)
    assert made is not None
    assert (made.owner, made.due_ts, made.pbx_call_id) == ("kim", NOW + HOUR, "1763.1")
    assert made.state == "promised"
    assert kept.promise(call(), "lee", NOW + 5) is None, "one a call"
    assert kept.spoken(call().call_id, NOW + 6) is made
    assert made.state == "spoken"
    assert kept.spoken(call().call_id, NOW + 7) is None


def test_none_are_promised_where_none_are_wanted() -> None:
    assert make(within_s=0).promise(call(), "kim", NOW) is None


def test_an_overdue_one_goes_to_the_manager_and_is_told_again_when_nothing_came_of_it() -> None:
    kept = make()
    made = kept.promise(call(), "lee", NOW)
    assert made is not None
    assert kept.overdue(NOW + HOUR - 1, nobody, kim) == []
    assert kept.overdue(NOW + HOUR, nobody, kim) == [made]
    assert (made.state, made.owner) == ("overdue", "kim")
    assert kept.overdue(NOW + HOUR + 599, nobody, kim) == []
    assert kept.overdue(NOW + HOUR + 601, lambda _: True, kim) == [], "its alert is still open"
    assert kept.overdue(NOW + HOUR + 602, nobody, nobodys) == [made]
    assert made.owner == "kim", "without a manager it stays with whoever owes it"
    done = kept.done(made.callback_id, "t1", NOW + HOUR + 700)
    assert done is made
    assert made.state == "done"
    assert kept.overdue(NOW + 10 * HOUR, nobody, kim) == []
    assert kept.done(made.callback_id, "t2", NOW) is None


def test_a_clock_that_is_set_back_tells_nobody_early_and_everybody_in_the_end() -> None:
    kept = make()
    made = kept.promise(call(), "lee", NOW)
    assert kept.overdue(NOW + HOUR, nobody, nobodys) == [made]
    assert kept.overdue(NOW - 100 * HOUR, nobody, nobodys) == []
    assert kept.overdue(NOW + HOUR + 600, nobody, nobodys) == [made]


@given(st.lists(st.tuples(st.sampled_from("psdo"), st.integers(1, 4), st.integers(0, 9000))))
def test_none_is_lost_over_a_restart(steps: list[tuple[str, int, int]]) -> None:
    kept = make()
    for what, number, later_s in steps:
        now, one = NOW + later_s, call(number)
        found = kept.of_call(one.call_id)
        match what:
            case "p":
                kept.promise(one, "lee", now)
            case "s":
                kept.spoken(one.call_id, now)
            case "d" if found is not None:
                kept.done(found.callback_id, "t1", now)
            case "o":
                kept.overdue(now, nobody, kim)
        again = make()
        again.restore(kept.open)
        assert again.open == kept.open
        assert len({item.call_id for item in kept.open}) == len(kept.open)
        assert all(isinstance(item, Callback) and item.done_ts is None for item in kept.open)
