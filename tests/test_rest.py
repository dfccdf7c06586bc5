"""When a rest begins and ends, by a clock that may be set and events that may come late."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.settings_care import AftercareSettings
from notifier.device_state import device_state
from notifier.live import Call
from notifier.rest import Rest, Rests

NOW = 1_000_000.0


def rests(rest_s: float = 180.0, **more: object) -> Rests:
    return Rests(AftercareSettings.model_validate({"rest_s": rest_s, **more}))


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
    # Ours was set back while nobody was here: as long as it was, and not for an hour.
    assert kept.due(NOW - 3600) == []
    assert kept.mend(NOW - 3600) == [rest]
    assert (rest.began_ts, rest.until_ts) == (NOW - 3600, NOW - 3420)


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


def test_a_second_call_does_not_shorten_a_rest_that_was_made_longer() -> None:
    kept = rests(extend_s=600)
    kept.agent_free(call(1), NOW, NOW)
    extended = kept.extend("1001")
    assert extended is not None
    assert kept.agent_free(call(2), NOW + 10, NOW + 10) is None
    resting = kept.resting("1001")
    assert resting is not None
    assert resting.until_ts == NOW + 780


def test_the_agent_makes_it_longer_within_bounds_and_nobody_rests_for_ever() -> None:
    kept = rests(extend_s=300, longest_s=700)
    assert kept.extend("1001") is None
    rest = kept.agent_free(call(), NOW, NOW)
    assert rest is not None
    grown = []
    for _ in range(3):
        extended = kept.extend("1001")
        assert extended is not None
        grown.append(extended[1])
    assert grown == [300.0, 220.0, 0.0]
    assert rest.until_ts == NOW + 700


def test_rest_that_is_asked_for_is_as_long_as_after_a_severe_call() -> None:
    kept = rests()
    calm = call(peak=0)
    assert kept.agent_free(calm, NOW, NOW) is None
    rest = kept.ask(calm, NOW + 3600, once=False)
    assert rest is not None
    assert (rest.until_ts, rest.reason) == (NOW + 3780, "asked")
    assert kept.ask(calm, NOW + 3600, once=False) is None, "as long already"
    assert rests(rest_s=0).ask(calm, NOW, once=False) is None


def test_one_that_follows_from_a_word_comes_once_a_call() -> None:
    kept = rests()
    kept.agent_free(call(), NOW, NOW)
    kept.end("1001", "agent", NOW + 5)
    assert kept.ask(call(), NOW + 600, once=True) is None
    assert kept.ask(call(), NOW + 600, once=False) is not None


def test_a_clock_that_is_set_takes_nothing_from_a_rest() -> None:
    kept = rests()
    rest = kept.agent_free(call(), NOW, NOW)
    assert rest is not None
    assert kept.clock_moved(7200.0) == [rest]
    assert kept.due(NOW + 7200 + 100) == []
    assert kept.due(NOW + 7200 + 180) == ["1001"]
    kept.clock_moved(-9000.0)
    assert rest.until_ts == NOW + 180 - 1800
    kept.end("1001", "agent", NOW)
    assert kept.clock_moved(60.0) == []


def test_a_planned_break_is_rest_and_never_cuts_one_short() -> None:
    kept = rests()
    kept.agent_free(call(), NOW, NOW)
    assert kept.hold(call(), NOW, NOW + 60, NOW) is None
    longer = kept.hold(call(), NOW, NOW + 900, NOW)
    assert longer is not None
    assert (longer.began_ts, longer.until_ts, longer.reason) == (NOW, NOW + 900, "break")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["free", "ask", "hold", "extend", "clock", "restart", "mend"]),
        st.integers(0, 4),
        st.integers(0, 400),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_nothing_but_ready_and_time_shortens_a_rest(steps: list[tuple[str, int, int]]) -> None:
    """What is left of a rest, by a clock that nobody sets, only ever shrinks by what passed."""
    kept = rests(longest_s=1000)
    passed, shift, left = 0.0, 0.0, 0.0
    for what, number, seconds in steps:
        passed += seconds / 10
        left = max(0.0, left - seconds / 10)
        now = NOW + passed + shift
        for agent_id in kept.due(now):
            kept.end(agent_id, "timer", now)
        one = call(number, peak=2 + number % 2)
        match what:
            case "free":
                kept.agent_free(one, now, now)
            case "ask":
                kept.ask(one, now, once=False)
            case "hold":
                kept.hold(one, now, now + seconds, now)
            case "extend":
                kept.extend("1001")
            case "clock":
                by_s = (seconds - 200) * 50.0
                shift += by_s
                now += by_s
                kept.clock_moved(by_s)
            case "mend":
                kept.mend(now)
            case _:
                before = kept.get("1001")
                kept = rests(longest_s=1000)
                kept.restore([before] if before else [])
        rest = kept.resting("1001")
        still = rest.until_ts - now if rest else 0.0
        assert still >= left - 1e-3, (what, still, left)
        left = still
