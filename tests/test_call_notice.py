"""What the caller decides by a key, and recording that is announced in the middle of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.messages import Action, LegName, NodeDegraded, NoticeFinished, PauseChanged
from callshield.messages_media import FlowUpdate, PlayPrompts, StopPlay
from callshield.messages_notice import PromptPlayed, ProtectionChanged
from sipbridge.call import Call, CallState
from sipbridge.call_steps import Emit, StartTimer, Step, StopTimer
from sipbridge.caller_choice import CallerChoice, NoticeKeys
from sipbridge.notice_talk import NoticeTalk
from tests.test_call import connected, hold, in_notice, media, only_stamped, played, prompt

OBJECTION = {
    "keys": NoticeKeys(objection="9", window_s=5.0),
    "objection_accepted": prompt("objection_accepted"),
    "record_allowed": True,
}
CONSENT = {"keys": NoticeKeys(consent="1", window_s=5.0), "record_allowed": True}


def events(steps: list[Step], kind: type[Any]) -> list[Any]:
    return [s.event for s in steps if isinstance(s, Emit) and isinstance(s.event, kind)]


def flow(call: Call) -> FlowUpdate:
    message = call.flow().message
    assert isinstance(message, FlowUpdate)
    return message


def watched(call: Call) -> tuple[bool, bool]:
    """What the tap and the recorder get."""
    now = flow(call)
    return now.tap, now.record


def test_nothing_is_tapped_or_recorded_before_the_time_for_an_objection_is_over() -> None:
    call, steps = in_notice(**OBJECTION)
    assert media(steps, FlowUpdate)[-1].keys
    ended = played(call, steps)
    (finished,) = events(ended, NoticeFinished)
    assert (finished.source, finished.tapped, finished.waits) == ("played", False, True)
    assert StartTimer("keys", 5.0) in ended
    assert watched(call) == (False, False)
    assert flow(call).agent_to_caller, "they talk meanwhile"
    assert (call.notice_waits, call.notice_choice) == (True, "")
    told = call.on_timer("keys")
    assert watched(call) == (True, True)
    (change,) = events(told, ProtectionChanged)
    assert (change.protected, change.reason, change.key) == (True, "no_objection", "")
    assert (call.notice_waits, call.notice_choice) == (False, "no_objection")
    assert not flow(call).keys
    assert call.on_caller_key("9") == [], "later digits are the agent's business"


def test_an_objection_in_the_notice_ends_it_and_all_analysis() -> None:
    call, steps = in_notice(**OBJECTION)
    assert media(call.on_caller_key("9"), StopPlay)[0].leg is LegName.CALLER
    ended = played(call, steps, complete=False)
    (finished,) = events(ended, NoticeFinished)
    assert (finished.source, finished.key, finished.tapped) == ("objected", "9", False)
    assert events(ended, NodeDegraded) == [], "nothing is broken"
    (says,) = [m for m in media(ended, PlayPrompts) if m.leg is LegName.CALLER]
    assert says.files == ["/prompts/objection_accepted.wav"]
    assert events(played(call, ended), PromptPlayed)[0].stamp.prompt_id == "objection_accepted"
    call.on_timer("keys")
    assert watched(call) == (False, False)
    assert call.act(Action.WARN, "agent:console")[0] == "done", "every button stays"


def test_an_objection_that_races_with_the_notices_end_counts() -> None:
    call, steps = in_notice(**OBJECTION)
    call.on_caller_key("9")
    (finished,) = events(played(call, steps, complete=True), NoticeFinished)
    assert finished.source == "objected"
    assert watched(call) == (False, False)


def test_an_objection_after_the_notice_is_told_and_nothing_begins() -> None:
    call, steps = in_notice(**OBJECTION)
    played(call, steps)
    told = call.on_caller_key("9")
    (change,) = events(told, ProtectionChanged)
    assert (change.protected, change.reason, change.key) == (False, "objection", "9")
    assert call.on_timer("keys") == []
    assert watched(call) == (False, False)


def test_any_other_key_decides_nothing() -> None:
    """Negative control of the tests above."""
    call, steps = in_notice(**OBJECTION)
    assert [call.on_caller_key(digit) for digit in "0123456780*#"] == [[]] * 12
    played(call, steps)
    call.on_timer("keys")
    assert watched(call) == (True, True)


def test_without_the_key_of_consent_the_call_goes_on_untapped_and_the_agent_sees_it() -> None:
    call, steps = in_notice(**CONSENT)
    ended = played(call, steps)
    assert events(ended, NoticeFinished)[0].waits
    (change,) = events(call.on_timer("keys"), ProtectionChanged)
    assert (change.protected, change.reason) == (False, "no_consent")
    assert watched(call) == (False, False)
    assert call.on_caller_key("1") == []
    assert call.state is CallState.CONNECTED


@pytest.mark.parametrize("late", [False, True])
def test_with_it_analysis_begins(late: bool) -> None:
    call, steps = in_notice(**CONSENT)
    if not late:
        assert call.on_caller_key("1") == []
        (finished,) = events(played(call, steps), NoticeFinished)
        assert (finished.key, finished.tapped, finished.waits) == ("1", True, False)
    else:
        played(call, steps)
        (change,) = events(call.on_caller_key("1"), ProtectionChanged)
        assert (change.protected, change.reason, change.key) == (True, "consent", "1")
    assert watched(call) == (True, True)


def test_consent_does_not_make_up_for_a_notice_that_was_not_heard() -> None:
    call, steps = in_notice(**CONSENT)
    call.on_caller_key("1")
    assert events(played(call, steps, complete=False), NoticeFinished)[0].source == "failed"
    call.on_timer("keys")
    assert watched(call) == (False, False)


def test_a_skipped_notice_asks_for_no_key() -> None:
    call, _ = in_notice(**CONSENT)
    call.act(Action.SKIP_NOTICE, "agent:console")
    assert not flow(call).keys
    assert call.on_caller_key("1") == []
    assert watched(call) == (False, False)


def test_where_the_pbx_played_the_notice_the_key_still_counts() -> None:
    call, steps = in_notice(notice=(), attested={"recording": "2"}, **OBJECTION)
    (finished,) = events(steps, NoticeFinished)
    assert (finished.source, finished.waits) == ("upstream", True)
    assert [stamp.version for stamp in finished.prompts] == ["2"]
    call.on_caller_key("9")
    call.on_timer("keys")
    assert watched(call) == (False, False)


def test_while_the_caller_is_held_no_key_is_listened_for() -> None:
    call, _ = in_notice(**OBJECTION)
    hold(call, True)
    assert not flow(call).keys
    hold(call, False)
    assert flow(call).keys


@pytest.mark.parametrize("what", ["hold", "pause", "somebody else"])
def test_the_time_for_a_key_begins_anew_when_the_caller_can_press(what: str) -> None:
    def away(there: bool) -> list[Step]:
        match what:
            case "hold":
                return hold(call, there)
            case "pause":
                action = Action.PAUSE_RECORDING if there else Action.RESUME_RECORDING
                return call.act(action, "agent:console")[2]
        return call.on_caller_named(somebody_else=there)

    call, steps = in_notice(**OBJECTION)
    played(call, steps)
    assert StopTimer("keys") in away(True)
    assert call.on_timer("keys") == [], "the timer was faster"
    assert watched(call) == (False, False)
    assert StartTimer("keys", 5.0) in away(False)
    (change,) = events(call.on_caller_key("9"), ProtectionChanged)
    assert change.reason == "objection"
    assert watched(call) == (False, False)


def test_keys_are_heard_again_when_the_caller_is_back_while_the_agent_holds() -> None:
    call, _ = in_notice(**OBJECTION)
    call.on_hold_changed(caller_held=True, agent_held=True)
    steps = call.on_hold_changed(caller_held=False, agent_held=True)
    assert media(steps, FlowUpdate)[-1].keys


def test_an_objection_before_a_hold_ends_the_notice_and_is_accepted_after_it() -> None:
    call, steps = in_notice(**OBJECTION)
    call.on_caller_key("9")
    assert media(hold(call, True), StopPlay) == [], "it is stopped already"
    assert events(played(call, steps, complete=False), NoticeFinished)[0].source == "objected"
    (says,) = [m for m in media(hold(call, False), PlayPrompts) if m.leg is LegName.CALLER]
    assert says.files == ["/prompts/objection_accepted.wav"]


def test_an_objection_that_is_told_after_a_hold_began_ends_the_notice() -> None:
    call, steps = in_notice(**OBJECTION)
    hold(call, True)
    (finished,) = events(call.on_caller_key("9"), NoticeFinished)
    assert (finished.source, finished.tapped) == ("objected", False)
    late = only_stamped(played(call, steps, complete=False))
    assert [(one.complete, one.stopped_by) for one in late] == [(True, ""), (False, "hold")]
    hold(call, False)
    assert watched(call) == (False, False)


def test_nobody_else_agrees_for_the_caller() -> None:
    call, steps = in_notice(**CONSENT)
    played(call, steps)
    call.on_caller_named(somebody_else=True)
    assert not flow(call).keys
    assert call.on_caller_key("1") == []
    call.on_caller_named(somebody_else=False)
    assert watched(call) == (False, False)
    assert flow(call).keys


def test_the_agent_sees_that_somebody_else_is_not_analysed() -> None:
    call = connected()
    (away,) = events(call.on_caller_named(somebody_else=True), ProtectionChanged)
    assert (away.protected, away.reason) == (False, "caller_changed")
    (back,) = events(call.on_caller_named(somebody_else=False), ProtectionChanged)
    assert (back.protected, back.reason) == (True, "caller_back")
    skipped, _ = in_notice()
    skipped.act(Action.SKIP_NOTICE, "agent:console")
    assert events(skipped.on_caller_named(somebody_else=True), ProtectionChanged) == []


def test_a_caller_who_was_replaced_cannot_switch_analysis_on() -> None:
    call, steps = in_notice(**CONSENT)
    played(call, steps)
    assert call.incoming_sdp is not None
    assert call.incoming_negotiated is not None
    call.on_caller_replaced(call.incoming_sdp, call.incoming_negotiated, "127.0.0.7")
    call.on_caller_key("1")
    assert watched(call) == (False, False)


@given(st.lists(st.sampled_from("19*0"), max_size=12), st.integers(0, 12))
def test_an_objection_is_final_whatever_is_pressed(digits: str, close_at: int) -> None:
    choice = CallerChoice(NoticeKeys(objection="9", consent="1"))
    choice.listen()
    objected = False
    for number, digit in enumerate(digits):
        if number == close_at:
            choice.close()
        objected |= digit == "9" and choice.listening
        choice.press(digit)
        assert choice.objected == objected
        assert not (objected and choice.allows)


# ------------------------------------------------------------------- recording in mid-call

ON_REQUEST = {"record_allowed": True, "record_on_request": prompt("recording")}


def test_recording_on_request_begins_when_its_announcement_was_heard_to_its_end() -> None:
    call = connected(**ON_REQUEST)
    assert watched(call) == (True, False)
    outcome, _, steps = call.act(Action.START_RECORDING, "agent:console")
    assert outcome == "done"
    assert watched(call) == (True, False)
    ended = played(call, steps)
    assert watched(call) == (True, True)
    assert events(ended, PromptPlayed)[0].stamp.complete
    assert call.act(Action.START_RECORDING, "agent:console")[0] == "already"


@pytest.mark.parametrize("why", ["broken", "held"])
def test_an_announcement_that_was_not_heard_begins_nothing(why: str) -> None:
    call = connected(**ON_REQUEST)
    _, _, steps = call.act(Action.START_RECORDING, "agent:console")
    if why == "held":
        hold(call, True)
        played(call, steps)  # forgotten: it played to nobody
        hold(call, False)
    else:
        ended = played(call, steps, complete=False, error="no packet could be sent")
        assert events(ended, NodeDegraded)
    assert watched(call) == (True, False)
    assert call.act(Action.START_RECORDING, "agent:console")[0] == "done"


def test_recording_on_request_needs_a_notice_that_was_heard_and_no_objection() -> None:
    skipped, _ = in_notice(**ON_REQUEST)
    skipped.act(Action.SKIP_NOTICE, "agent:console")
    assert skipped.act(Action.START_RECORDING, "agent:console")[0] == "not_now"
    objected, steps = in_notice(**{**OBJECTION, **ON_REQUEST})
    objected.on_caller_key("9")
    said = played(objected, steps, complete=False)
    played(objected, said)
    assert objected.act(Action.START_RECORDING, "agent:console")[0] == "not_now"
    always = connected(record_allowed=True)
    assert always.act(Action.START_RECORDING, "agent:console")[0] == "not_supported"
    assert watched(always) == (True, True)


def test_recording_goes_on_after_a_pause_when_the_caller_has_heard_so() -> None:
    call = connected(record_allowed=True, resumed=prompt("recording_resumed"))
    call.act(Action.PAUSE_RECORDING, "agent:console")
    outcome, _, steps = call.act(Action.RESUME_RECORDING, "agent:console")
    assert outcome == "done"
    assert flow(call).paused
    ended = played(call, steps)
    assert [event.paused for event in events(ended, PauseChanged)] == [False]
    assert not flow(call).paused
    assert watched(call) == (True, True)


def test_a_pause_that_is_wanted_while_the_caller_hears_its_end_stays() -> None:
    call = connected(record_allowed=True, resumed=prompt("recording_resumed"))
    call.act(Action.PAUSE_RECORDING, "agent:console")
    _, _, steps = call.act(Action.RESUME_RECORDING, "agent:console")
    assert call.keyed(Action.PAUSE_RECORDING) is Action.PAUSE_RECORDING
    outcome, _, stops = call.act(Action.PAUSE_RECORDING, "agent:code")
    assert outcome == "done"
    assert LegName.CALLER in [m.leg for m in media(stops, StopPlay)]
    assert events(played(call, steps), PauseChanged) == [], "its end came too late"
    assert flow(call).paused


def test_nobody_hears_that_recording_goes_on_where_there_is_none() -> None:
    objected, steps = in_notice(**OBJECTION, resumed=prompt("recording_resumed"))
    objected.on_caller_key("9")
    played(objected, played(objected, steps, complete=False))
    for call in (objected, connected(record_allowed=False, resumed=prompt("recording_resumed"))):
        call.act(Action.PAUSE_RECORDING, "agent:console")
        _, _, steps = call.act(Action.RESUME_RECORDING, "agent:console")
        assert media(steps, PlayPrompts) == []
        assert not flow(call).paused


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_recording_is_announced_to_whoever_heard_the_notice(when: str) -> None:
    call = connected(**ON_REQUEST)
    if when == "before":
        call.on_caller_named(somebody_else=True)
        assert call.act(Action.START_RECORDING, "agent:console")[0] == "not_now"
    else:
        _, _, steps = call.act(Action.START_RECORDING, "agent:console")
        call.on_caller_named(somebody_else=True)
        played(call, steps)
    call.on_caller_named(somebody_else=False)
    assert watched(call) == (True, False)


def test_only_the_agent_has_a_call_recorded() -> None:
    call = connected(**ON_REQUEST)
    assert call.act(Action.START_RECORDING, "supervisor:t1")[0] == "not_now"
    call.act(Action.PAUSE_RECORDING, "agent:console")
    assert call.act(Action.START_RECORDING, "agent:console")[0] == "not_now"


def test_without_that_announcement_it_goes_on_at_once() -> None:
    """Control of the test above."""
    call = connected(record_allowed=True)
    call.act(Action.PAUSE_RECORDING, "agent:console")
    _, _, steps = call.act(Action.RESUME_RECORDING, "agent:console")
    assert [event.paused for event in events(steps, PauseChanged)] == [False]
    assert watched(call) == (True, True)


def _held() -> None:
    test_an_announcement_that_was_not_heard_begins_nothing("held")


def _pause_wins() -> None:
    test_a_pause_that_is_wanted_while_the_caller_hears_its_end_stays()


def _somebody_else() -> None:
    test_recording_is_announced_to_whoever_heard_the_notice("before")


@pytest.mark.parametrize(
    ("name", "fault", "promise"),
    [
        ("unheard", lambda self: [], _held),
        (
            "stay_paused",
            lambda self: [],
            test_a_pause_that_is_wanted_while_the_caller_hears_its_end_stays,
        ),
        ("_cannot_tell", NoticeTalk.must_wait, _somebody_else),
    ],
)
def test_these_promises_are_seen_when_they_are_broken(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Any, promise: Callable[[], None]
) -> None:
    """Negative controls of the tests above."""
    monkeypatch.setattr(NoticeTalk, name, fault)
    with pytest.raises(AssertionError):
        promise()


# --------------------------------------------------------------- callers who are spared


@pytest.mark.parametrize("spared", ["never_automatic", "vulnerable", "relay_service"])
@pytest.mark.parametrize("by", ["policy", "policy:length"])
def test_with_some_callers_only_a_person_does_anything(spared: str, by: str) -> None:
    call = connected(spared=spared)
    call.on_risk(3, may_trigger=True)
    for action in (Action.WARN, Action.END, Action.HAND_OVER):
        outcome, why, steps = call.act(action, by)
        assert (outcome, steps) == ("not_now", [])
        assert why == "With this caller nothing is done automatically."
    assert call.act(Action.END, "agent:console")[0] == "done"
