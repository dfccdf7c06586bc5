"""When a rest begins and ends, by a clock that may be set and events that may come late."""

from __future__ import annotations

from callshield.settings import AftercareSettings
from notifier.board import Call
from notifier.device_state import device_state
from notifier.rest import Rest, Rests

NOW = 1_000_000.0


def rests(rest_s: float = 180.0, **settings: object) -> Rests:
    return Rests(AftercareSettings.model_validate({"rest_s": rest_s, **settings}))


def call(number: int = 1, *, peak: int = 2, answered: bool = True, ending: bool = False) -> Call:
    return Call(
        call_id=f"{number:032x}",
        agent_id="1001",
        pbx_call_id="",
        pbx="",
        started_ts=NOW - 60,
        answered_ts=NOW - 50 if answered else None,
        peak_level=peak,
        ending_ts=NOW if ending else None,
    )


def test_it_counts_from_the_moment_when_the_agent_was_free() -> None:
    kept = rests()
    rest = kept.agent_free(call(), NOW - 5, NOW)
    assert rest is not None
    assert (rest.began_ts, rest.until_ts, rest.reason) == (NOW - 5, NOW + 175, "level")
    assert kept.next_due() == NOW + 175
    assert kept.due(NOW + 174) == []
    assert kept.due(NOW + 175) == ["1001"]


def test_one_call_makes_one_rest_however_often_it_ends() -> None:
    """*end*, and then the call's end; or a bridge that says it again."""
    kept = rests()
    assert kept.agent_free(call(ending=True), NOW, NOW) is not None
    assert kept.agent_free(call(ending=True), NOW + 10, NOW + 10) is None
    assert kept.end("1001", "agent", NOW + 20) is not None
    assert kept.agent_free(call(ending=True), NOW + 30, NOW + 30) is None
    assert kept.resting("1001") is None


def test_a_second_bad_call_makes_the_rest_longer() -> None:
    kept = rests()
    kept.agent_free(call(1), NOW, NOW)
    rest = kept.agent_free(call(2), NOW + 60, NOW + 60)
    assert rest is not None
    assert (rest.began_ts, rest.until_ts) == (NOW, NOW + 240)


def test_the_level_and_the_end_are_reasons_of_their_own() -> None:
    for peak, ending, after_end, reason in (
        (1, False, True, None),
        (1, True, True, "ended"),
        (1, True, False, None),
        (2, True, True, "level"),
        (3, False, True, "level"),
    ):
        kept = rests(after_end=after_end)
        rest = kept.agent_free(call(peak=peak, ending=ending), NOW, NOW)
        assert (rest and rest.reason) == reason, (peak, ending, after_end)
    assert rests(from_level=3).agent_free(call(peak=2), NOW, NOW) is None
    assert rests().agent_free(call(answered=False), NOW, NOW) is None
    assert rests(rest_s=0).agent_free(call(peak=3, ending=True), NOW, NOW) is None


def test_a_rest_that_would_be_over_already_does_not_begin() -> None:
    """The bridge tells the end of a call to a notifier that was away for an hour."""
    assert rests().agent_free(call(), NOW - 3600, NOW) is None


def test_a_clock_that_is_set_makes_no_rest_longer() -> None:
    kept = rests()
    rest = kept.agent_free(call(1), NOW + 3600, NOW)  # the bridge's clock goes ahead
    assert rest is not None
    assert rest.until_ts == NOW + 180
    assert kept.due(NOW - 3600) == ["1001"]  # ours was set back: better short than for an hour


def test_what_was_stored_goes_on() -> None:
    kept = rests()
    stored = Rest("1001", f"{7:032x}", NOW, NOW + 100, "level")
    kept.restore([stored])
    assert kept.resting("1001") is stored
    assert kept.agent_free(call(7), NOW + 1, NOW + 1) is None
    over = Rest("1002", f"{8:032x}", NOW, NOW + 100, "level", NOW + 5, "agent")
    kept.restore([over])
    assert kept.resting("1002") is None
    assert kept.get("1002") is over


def test_the_device_state_is_that_of_all_calls_together() -> None:
    ringing, talking, held = call(1, answered=False), call(2), call(3)
    ending, left = call(4, ending=True), call(5)
    on_hold, gone = {held.call_id}, {left.call_id}

    def state(*calls: Call) -> str:
        return device_state(calls, on_hold, gone)

    assert state() == "NOT_INUSE"
    assert state(ringing) == "RINGING"
    assert state(talking) == "INUSE"
    assert state(talking, ringing) == state(held, ringing) == "RINGINUSE"
    assert state(held) == "ONHOLD"
    assert state(held, talking) == "INUSE"
    assert state(ending) == state(left) == state(ending, left) == "NOT_INUSE"
    assert state(ending, ringing) == "RINGING"
