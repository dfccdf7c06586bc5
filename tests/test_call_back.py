"""The caller is told that somebody will call back: when, how often, and what follows; pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.messages import Action, CallEnded, LegName
from callshield.messages_care import CallBackSpoken, HandOverUnanswered
from callshield.messages_media import LegOpened, OpenLeg, PlayPrompts
from sipbridge.call import Call, CallState
from sipbridge.call_steps import HangUp, Step
from tests.test_call import events, hold, media, only_stamped, prompt
from tests.test_help_request import answered, handing_over, helped, plays, report

AGENT = "agent:console"


def call_with(**changes: Any) -> Call:
    return helped(**({"call_back": prompt("call_back")} | changes))


def refused(call: Call) -> list[Step]:
    """A hand over under way, told to the caller; the manager's phone does not answer."""
    steps = handing_over(call)
    report(call, plays(steps)[LegName.CALLER])
    return call.on_helper_gone()


def heard(steps: list[Step]) -> list[str]:
    """What begins to play to the caller."""
    return [
        play.files[0].rsplit("/", 1)[1]
        for play in media(steps, PlayPrompts)
        if play.leg is LegName.CALLER
    ]


def test_a_hand_over_nobody_answered_is_a_call_back_that_the_caller_hears_of() -> None:
    call = call_with()
    steps = refused(call)
    (unanswered,) = events(steps, HandOverUnanswered)
    assert unanswered.helper_id == "kim"
    assert heard(steps) == ["call_back.wav"]
    done = report(call, plays(steps)[LegName.CALLER])
    (spoken,) = events(done, CallBackSpoken)
    assert spoken.complete
    assert call.state is CallState.CONNECTED, "caller and agent go on"


def test_it_is_said_once_however_often_nobody_answers() -> None:
    call = call_with()
    report(call, plays(refused(call))[LegName.CALLER])
    again = refused(call)
    assert len(events(again, HandOverUnanswered)) == 1
    assert heard(again) == []


def test_an_agent_who_has_left_leaves_a_caller_who_hears_it_and_then_gets_bye() -> None:
    call = call_with()
    report(call, plays(handing_over(call))[LegName.CALLER])
    assert heard(call.on_phone_gone(200)) == ["hold_on.wav"]
    steps = call.on_helper_gone()
    assert heard(steps) == ["call_back.wav"]
    assert not events(steps, CallEnded)
    done = report(call, plays(steps)[LegName.CALLER])
    assert events(done, CallBackSpoken)[0].complete
    assert [event.reason for event in events(done, CallEnded)] == ["agent_hangup"]
    assert any(isinstance(step, HangUp) and step.leg is LegName.CALLER for step in done)


def test_an_agent_who_leaves_while_it_is_said_cuts_nobody_off() -> None:
    call = call_with()
    steps = refused(call)
    assert not events(call.on_phone_gone(200), CallEnded)
    assert events(report(call, plays(steps)[LegName.CALLER]), CallEnded)


def test_a_media_worker_that_never_reports_keeps_no_caller_for_ever() -> None:
    call = call_with()
    report(call, plays(handing_over(call))[LegName.CALLER])
    call.on_phone_gone(200)
    call.on_helper_gone()
    assert events(call.on_timer("call_back"), CallEnded)


@pytest.mark.parametrize("how", ["end", "caller", "took_over"])
def test_who_ends_the_call_is_promised_nothing(how: str) -> None:
    """The end of the call takes the ringing manager with it: nobody was let down by that."""
    call = call_with()
    steps = handing_over(call)
    report(call, plays(steps)[LegName.CALLER])
    if how == "end":
        steps = call.act(Action.END, AGENT)[2]
        assert "call_back.wav" not in heard(steps)
    elif how == "caller":
        steps = call.on_caller_gone(200)
    else:
        steps = report(call, plays(answered(call))[LegName.CALLER])
    assert not events(steps, HandOverUnanswered)
    assert not events(steps, CallBackSpoken)


def test_without_call_backs_nothing_is_said_and_the_event_comes_all_the_same() -> None:
    call = helped()
    steps = refused(call)
    assert events(steps, HandOverUnanswered)
    assert heard(steps) == []
    assert call.act(Action.PROMISE_CALL_BACK, AGENT)[0] == "not_now"


def test_the_agent_promises_one_when_nobody_came() -> None:
    call = call_with()
    assert call.act(Action.PROMISE_CALL_BACK, "supervisor:t1")[0] == "not_now"
    outcome, _, steps = call.act(Action.PROMISE_CALL_BACK, AGENT)
    assert (outcome, heard(steps)) == ("done", ["call_back.wav"])
    assert call.act(Action.PROMISE_CALL_BACK, AGENT)[0] == "already"
    assert call.act(Action.WARN, AGENT)[0] == "not_now", "one announcement at a time"
    assert events(report(call, plays(steps)[LegName.CALLER]), CallBackSpoken)


def test_it_waits_for_a_warning_that_plays() -> None:
    call = call_with()
    warning = call.act(Action.WARN, AGENT)[2]
    assert heard(call.act(Action.PROMISE_CALL_BACK, AGENT)[2]) == []
    assert heard(report(call, plays(warning)[LegName.CALLER])) == ["call_back.wav"]


def test_a_caller_on_hold_hears_it_from_its_first_word_afterwards() -> None:
    call = call_with()
    steps = call.act(Action.PROMISE_CALL_BACK, AGENT)[2]
    first = plays(steps)[LegName.CALLER]
    assert heard(hold(call, True)) == []
    (stamp,) = only_stamped(report(call, first, complete=False))  # that play was forgotten
    assert (stamp.prompt_id, stamp.complete, stamp.stopped_by) == ("call_back", False, "hold")
    back = hold(call, False)
    assert heard(back) == ["call_back.wav"]
    assert events(report(call, plays(back)[LegName.CALLER]), CallBackSpoken)[0].complete


def test_what_could_not_be_played_is_not_said_to_be_spoken() -> None:
    call = call_with()
    steps = call.act(Action.PROMISE_CALL_BACK, AGENT)[2]
    done = report(call, plays(steps)[LegName.CALLER], complete=False, error="no file")
    assert [event.complete for event in events(done, CallBackSpoken)] == [False]


def test_an_end_and_a_mark_are_said_in_the_bye() -> None:
    call = call_with()
    assert not call.excluded
    call.act(Action.END, AGENT)
    assert call.excluded
    other = call_with()
    other.on_marked()
    assert other.excluded


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["promise", "hand_over", "open", "gone", "warn", "hold", "back", "agent_gone", "played"]
        ),
        max_size=25,
    )
)
def test_whatever_happens_it_is_spoken_at_most_once_to_its_end(happenings: list[str]) -> None:
    call = call_with()
    ready: list[Step] = []
    playing: PlayPrompts | None = None
    spoken = 0
    asked: list[Step] = []
    for what in happenings:
        if call.state is CallState.ENDED:
            break
        if what == "promise":
            steps = call.act(Action.PROMISE_CALL_BACK, AGENT)[2]
        elif what == "hand_over":
            steps = asked = call.act(Action.HAND_OVER, AGENT)[2]
        elif what == "open":
            if not asked:
                continue
            steps, asked = _opened(call, asked), []
        elif what == "gone":
            steps = call.on_helper_gone()
        elif what == "warn":
            steps = call.act(Action.WARN, AGENT)[2]
        elif what in ("hold", "back"):
            steps = hold(call, what == "hold")
        elif what == "agent_gone":
            steps = call.on_phone_gone(200)
        else:
            if playing is None:
                continue
            steps, playing = report(call, playing), None
        ready += steps
        playing = plays(steps).get(LegName.CALLER, playing)
        spoken += sum(event.complete for event in events(steps, CallBackSpoken))
    assert spoken <= 1


def _opened(call: Call, steps: list[Step]) -> list[Step]:
    asks = media(steps, OpenLeg)
    if not asks:
        return []
    ask = asks[0]
    return call.on_leg_opened(
        LegOpened(request_id=ask.request_id, call_id=ask.call_id, leg=ask.leg, port=26000), 9
    )
