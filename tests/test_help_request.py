"""Who may come into a call, and what everybody is told first: the helper's leg, pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.messages import (
    Action,
    CallEnded,
    HelperChanged,
    LegName,
    NodeDegraded,
    WarningPlayed,
)
from callshield.messages_media import (
    CloseLeg,
    FlowUpdate,
    LegOpened,
    LegUpdate,
    OpenLeg,
    PlayFinished,
    PlayPrompts,
    PromoteHelper,
    StopPlay,
)
from sipbridge import sdp
from sipbridge.call import Call, CallState
from sipbridge.call_steps import CallHelper, Emit, HangUp, ReplaceAgent, StartTimer, Step, StopTimer
from sipbridge.help_plan import Helper, HelpPlan
from sipbridge.help_request import Stage
from sipbridge.leg_policy import PLAIN, LegPolicy
from sipbridge.prompt_catalogue import HelpPrompts
from sipbridge.srtp_keys import fresh_lines, parse_crypto
from tests.test_call import (
    PHONE_ANSWER,
    connected,
    events,
    hold,
    in_notice,
    media,
    only_stamped,
    played,
    prompt,
    ringing,
)

LEE = "sip:2001@127.0.0.21:5060"
KIM = "sip:2000@127.0.0.20:5060"
PLAN = HelpPlan(
    helpers=(Helper("lee", LEE, "supervisor", PLAIN), Helper("kim", KIM, "manager", PLAIN)),
    manager="kim",
    ring_timeout_s=30.0,
    prompts=HelpPrompts(
        joined=prompt("joined"),
        handing_over=prompt("handing_over"),
        hold_on=prompt("hold_on"),
        handed_over=prompt("handed_over"),
    ),
)
SUPERVISOR = "supervisor:t1"
WIDE = sdp.Negotiated(sdp.Codec(9, "G722", 8000), None)
HELPER_ANSWER = sdp.parse(
    "v=0\r\no=- 1 1 IN IP4 127.0.0.21\r\ns=-\r\nc=IN IP4 127.0.0.21\r\nt=0 0\r\n"
    "m=audio 6000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)


def helped(**changes: Any) -> Call:
    call = connected(**({"help": PLAN} | changes))
    call.media[LegName.AGENT].take_answer(PHONE_ANSWER)  # as the bridge does before it says so
    return call


def opened(call: Call, steps: list[Step], error: str = "") -> list[Step]:
    """The media worker answers the request for ports."""
    (ask,) = media(steps, OpenLeg)
    answer = LegOpened(
        request_id=ask.request_id,
        call_id=ask.call_id,
        leg=ask.leg,
        port=0 if error else 26000,
        error=error,
    )
    return call.on_leg_opened(answer, 9)


def answered(call: Call) -> list[Step]:
    """The helper's phone answers."""
    return call.on_helper_answered(HELPER_ANSWER, "127.0.0.21")


def report(call: Call, play: PlayPrompts, *, complete: bool = True, error: str = "") -> list[Step]:
    """The media worker's word about one play."""
    return call.on_play_finished(
        PlayFinished(
            call_id=play.call_id,
            play_id=play.play_id,
            leg=play.leg,
            complete=complete,
            spans=[(100.0, 101.0)],
            error=error,
        )
    )


def plays(steps: list[Step]) -> dict[LegName, PlayPrompts]:
    return {play.leg: play for play in media(steps, PlayPrompts)}


def states(steps: list[Step]) -> list[str]:
    return [event.state for event in events(steps, HelperChanged)]


def hangs_up(steps: list[Step], leg: LegName) -> bool:
    return any(isinstance(step, HangUp) and step.leg is leg for step in steps)


def joining(call: Call) -> list[Step]:
    """Up to the announcement that both hear."""
    call.act(Action.HELP, "agent:console", request_id="r1")
    outcome, _, steps = call.act(Action.JOIN, SUPERVISOR, target="lee")
    assert outcome == "done"
    opened(call, steps)
    return answered(call)


def joined(**changes: Any) -> Call:
    call = helped(**changes)
    for play in plays(joining(call)).values():
        report(call, play)
    assert call.help.stage is Stage.JOINED
    return call


def handing_over(call: Call) -> list[Step]:
    """Up to the ringing manager; the caller is being told."""
    outcome, _, steps = call.act(Action.HAND_OVER, "agent:console")
    assert outcome == "done"
    return opened(call, steps)


# ------------------------------------------------------------------------------------- join


def test_a_supervisor_joins_when_the_agent_asked_and_both_were_told() -> None:
    call = helped()
    assert call.act(Action.HELP, "agent:console", request_id="r1")[0] == "done"
    outcome, _, steps = call.act(Action.JOIN, SUPERVISOR, target="lee")
    assert outcome == "done"
    assert states(steps) == ["calling"]
    steps = opened(call, steps)
    (ring,) = [s for s in steps if isinstance(s, CallHelper)]
    assert ring.uri == LEE
    audio = sdp.parse(ring.sdp).audio
    assert audio is not None
    assert (audio.port, [c.name for c in audio.voice]) == (26000, ["PCMA", "PCMU"])
    assert [s.delay_s for s in steps if isinstance(s, StartTimer)] == [30.0]

    steps = answered(call)
    (update,) = media(steps, LegUpdate)
    assert (update.leg, update.port) == (LegName.HELPER, 6000)
    told = plays(steps)
    assert {leg: play.files for leg, play in told.items()} == {
        LegName.CALLER: ["/prompts/joined.wav"],
        LegName.AGENT: ["/prompts/joined.wav"],
    }
    assert not any(play.mix for play in told.values())
    assert not media(steps, FlowUpdate)

    assert report(call, told[LegName.AGENT]) == []  # the caller has not heard all of it yet
    assert not call.flow().message.conference  # type: ignore[union-attr]
    steps = report(call, told[LegName.CALLER])
    (flow,) = media(steps, FlowUpdate)
    assert flow.conference
    assert flow.tap
    (event,) = events(steps, HelperChanged)
    assert (event.state, event.role, event.by, event.helper_id) == (
        "joined",
        "supervisor",
        SUPERVISOR,
        "lee",
    )


def never_asked(call: Call) -> None:
    """Nobody pressed anything."""


def asked_by_a_supervisor(call: Call) -> None:
    call.act(Action.HELP, SUPERVISOR)


def asked_by_an_unknown(call: Call) -> None:
    call.act(Action.HELP, "")


def fulfilled(call: Call) -> None:
    for play in plays(joining(call)).values():
        report(call, play)
    call.on_helper_gone()


def fulfilled_and_said_again_by_the_notifier(call: Call) -> None:
    fulfilled(call)
    call.act(Action.HELP, "agent:console", request_id="r1")


def warned_and_shouted_at(call: Call) -> None:
    call.act(Action.WARN, "agent:console")
    call.on_risk(3)


def handed_over_to_another_agent(call: Call) -> None:
    call.act(Action.HELP, "agent:console", request_id="r1")
    steps = handing_over(call)
    report(call, plays(steps)[LegName.CALLER])
    report(call, plays(answered(call))[LegName.CALLER])


@pytest.mark.parametrize(
    "before",
    [
        never_asked,
        asked_by_a_supervisor,
        asked_by_an_unknown,
        fulfilled,
        fulfilled_and_said_again_by_the_notifier,
        warned_and_shouted_at,
        handed_over_to_another_agent,
    ],
)
@pytest.mark.parametrize("by", [SUPERVISOR, "agent:console", "agent:dtmf", "policy", ""])
def test_nobody_joins_without_the_agents_request(before: Any, by: str) -> None:
    call = helped()
    before(call)
    for target in ("", "lee", "kim", "nobody"):
        outcome, detail, steps = call.act(Action.JOIN, by, target=target)
        assert (outcome, steps) == ("not_now", [])
        assert detail.endswith(".")


@pytest.mark.parametrize("by", ["agent:console", "agent:dtmf", "policy", ""])
def test_only_a_supervisor_joins_even_when_help_was_asked(by: str) -> None:
    """Negative control of the test above: with the request, a supervisor gets in."""
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    assert call.act(Action.JOIN, by)[0] == "not_now"
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "done"


def test_help_asked_before_the_answer_is_remembered() -> None:
    call = ringing(help=PLAN)
    assert call.act(Action.HELP, "agent:console", request_id="r1")[0] == "done"
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "not_now"
    assert call.help.wanted


def test_a_supervisor_waits_until_the_notice_is_over() -> None:
    call, steps = in_notice(help=PLAN)
    call.media[LegName.AGENT].take_answer(PHONE_ANSWER)
    call.act(Action.HELP, "agent:dtmf")
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "not_now"
    played(call, steps)
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "done"


def test_help_asked_again_after_somebody_left_lets_another_in() -> None:
    call = joined()
    call.on_helper_gone()
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "not_now"
    call.act(Action.HELP, "agent:console", request_id="r2")
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "done"


def test_second_press_of_the_same_supervisor_calls_once_and_another_waits() -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    call.act(Action.JOIN, SUPERVISOR, target="lee")
    assert call.act(Action.JOIN, SUPERVISOR, target="lee")[0::2] == ("already", [])
    assert call.act(Action.JOIN, "supervisor:t2", target="kim")[0::2] == ("not_now", [])


@pytest.mark.parametrize("leg", [LegName.CALLER, LegName.AGENT])
@pytest.mark.parametrize("error", ["the file is gone", ""])
def test_an_announcement_that_fails_lets_nobody_in(leg: LegName, error: str) -> None:
    call = helped()
    told = plays(joining(call))
    other = LegName.AGENT if leg is LegName.CALLER else LegName.CALLER
    steps = report(call, told[other])
    steps = report(call, told[leg], complete=False, error=error)
    assert hangs_up(steps, LegName.HELPER)
    assert media(steps, CloseLeg)
    assert states(steps) == ["unreachable"]
    assert events(steps, NodeDegraded)[0].component == "prompts"
    assert call.state is CallState.CONNECTED
    assert not any(flow.conference for flow in media(steps, FlowUpdate))
    assert call.help.wanted  # the request is still open: nobody has come
    # Late words about the plays that were stopped open nothing.
    assert not media(report(call, told[other]) + report(call, told[leg]), FlowUpdate)


def test_the_first_failing_announcement_stops_the_other() -> None:
    call = helped()
    told = plays(joining(call))
    steps = report(call, told[LegName.CALLER], complete=False)
    assert {stop.leg for stop in media(steps, StopPlay)} == {LegName.CALLER, LegName.AGENT}
    assert report(call, told[LegName.AGENT]) == []
    assert call.help.stage is Stage.NONE


@pytest.mark.parametrize("who", ["caller", "agent"])
def test_an_announcement_to_somebody_on_hold_does_not_count(who: str) -> None:
    call = helped()
    told = plays(joining(call))
    held = call.on_hold_changed(caller_held=who == "caller", agent_held=who == "agent")
    assert {stop.leg for stop in media(held, StopPlay)} == {LegName.CALLER, LegName.AGENT}
    late = report(call, told[LegName.CALLER]) + report(call, told[LegName.AGENT])
    (stamp,) = only_stamped(late)
    # The agent's hold takes the caller nothing of what was over already.
    assert (stamp.complete, stamp.stopped_by) == (
        (False, "hold") if who == "caller" else (True, "")
    )
    back = call.on_hold_changed(caller_held=False, agent_held=False)
    again = plays(back)
    assert set(again) == {LegName.CALLER, LegName.AGENT}
    # Not even if the stopped ones are said, late, to have been whole.
    assert report(call, told[LegName.CALLER]) + report(call, told[LegName.AGENT]) == []
    assert [stamp.complete for stamp in only_stamped(report(call, again[LegName.CALLER]))] == [True]
    assert media(report(call, again[LegName.AGENT]), FlowUpdate)[-1].conference


def test_no_warning_cuts_the_announcement_that_the_agent_still_hears() -> None:
    call = helped()
    told = plays(joining(call))
    report(call, told[LegName.CALLER])
    assert call.act(Action.WARN, "agent:console")[0::2] == ("not_now", [])
    assert media(report(call, told[LegName.AGENT]), FlowUpdate)[-1].conference


def test_the_announcement_waits_for_a_warning_to_end() -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    opened(call, call.act(Action.JOIN, SUPERVISOR)[2])
    warning = plays(call.act(Action.WARN, "agent:console")[2])[LegName.CALLER]
    assert not plays(answered(call))
    steps = report(call, warning)
    assert events(steps, WarningPlayed)[0].complete
    assert set(plays(steps)) == {LegName.CALLER, LegName.AGENT}


def test_a_silent_media_worker_lets_nobody_in() -> None:
    call = helped()
    steps = joining(call)
    (guard,) = [s for s in steps if isinstance(s, StartTimer)]
    assert guard.delay_s == pytest.approx(6.0)
    steps = call.on_timer(guard.name)
    assert hangs_up(steps, LegName.HELPER)
    assert states(steps) == ["unreachable"]
    assert events(steps, NodeDegraded)
    assert joined().on_timer("helper") == []


def test_a_supervisor_who_hangs_up_leaves_the_two_as_they_were() -> None:
    call = joined()
    steps = call.on_helper_gone()
    assert states(steps) == ["left"]
    (flow,) = media(steps, FlowUpdate)
    assert (flow.conference, flow.caller_to_agent, flow.agent_to_caller) == (False, True, True)
    assert media(steps, CloseLeg)
    assert call.state is CallState.CONNECTED


@pytest.mark.parametrize("what", ["no ports", "ports late", "busy", "no answer", "bad answer"])
def test_a_supervisor_who_does_not_come_changes_nothing(what: str) -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    steps = call.act(Action.JOIN, SUPERVISOR)[2]
    if what == "no ports":
        steps = opened(call, steps, error="no free ports")
    elif what == "ports late":
        late, steps = steps, call.on_timer("helper")
        assert opened(call, late) == []
    else:
        opened(call, steps)
        match what:
            case "busy":
                steps = call.on_helper_gone()
            case "no answer":
                steps = call.on_timer("helper")
            case _:
                steps = call.on_helper_answered(None, "127.0.0.21")
    assert states(steps) == ["unreachable"]
    assert hangs_up(steps, LegName.HELPER) == (what in ("ports late", "no answer", "bad answer"))
    assert not media(steps, FlowUpdate)
    assert call.state is CallState.CONNECTED
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "done"  # the request is still open


def test_a_call_in_another_codec_is_not_joined() -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    g711 = call.media[LegName.AGENT].negotiated
    call.media[LegName.AGENT].negotiated = WIDE
    outcome, detail, _ = call.act(Action.JOIN, SUPERVISOR)
    assert outcome == "not_now"
    assert "G.711" in detail
    call.media[LegName.AGENT].negotiated = g711
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "done"


def test_a_helper_who_answers_with_another_codec_is_let_go() -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    opened(call, call.act(Action.JOIN, SUPERVISOR)[2])
    other = sdp.parse(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.21\r\ns=-\r\nc=IN IP4 127.0.0.21\r\nt=0 0\r\n"
        "m=audio 6000 RTP/AVP 9\r\n"
    )
    steps = call.on_helper_answered(other, "127.0.0.21")
    assert hangs_up(steps, LegName.HELPER)
    assert states(steps) == ["unreachable"]


def test_music_of_a_helper_on_hold_is_for_nobody() -> None:
    call = joined()
    assert not media(call.on_helper_hold(held=True), FlowUpdate)[-1].conference
    assert media(call.on_helper_hold(held=False), FlowUpdate)[-1].conference


def test_unknown_and_unconfigured_helpers_get_a_sentence() -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    assert "configured" in call.act(Action.JOIN, SUPERVISOR, target="nobody")[1]
    assert call.act(Action.HAND_OVER, "agent:console", target="lee")[0] == "not_now"
    alone = connected()
    alone.act(Action.HELP, "agent:dtmf")
    assert "[supervisors.ID]" in alone.act(Action.JOIN, SUPERVISOR)[1]
    assert "[supervisors.ID]" in alone.act(Action.HAND_OVER, "agent:console")[1]


@pytest.mark.parametrize("stage", ["opening", "ringing", "announcing", "joined"])
@pytest.mark.parametrize("how", ["caller", "agent", "end", "media lost", "shutdown"])
def test_whoever_ends_the_call_ends_the_helpers_leg(stage: str, how: str) -> None:
    call = helped()
    if stage == "joined":
        call = joined()
    elif stage == "announcing":
        joining(call)
    else:
        call.act(Action.HELP, "agent:dtmf")
        steps = call.act(Action.JOIN, SUPERVISOR)[2]
        if stage == "ringing":
            opened(call, steps)
    steps = {
        "caller": lambda: call.on_caller_gone(200),
        "agent": lambda: call.on_phone_gone(200),
        "end": lambda: call.act(Action.END, "agent:console")[2],
        "media lost": call.on_media_lost,
        "shutdown": call.on_shutdown,
    }[how]()
    assert hangs_up(steps, LegName.HELPER)
    assert StopTimer("helper") in steps
    assert states(steps) == ["left" if stage == "joined" else "unreachable"]
    assert not any(flow.conference for flow in media(steps, FlowUpdate))
    assert call.help.stage is Stage.NONE
    if how == "end":
        assert steps[0] == HangUp(LegName.AGENT)  # the agent is free before anything else
        assert plays(steps)[LegName.CALLER].files == ["/prompts/closing.wav"]
    else:
        assert events(steps, CallEnded)
    assert answered(call) == []
    assert call.on_helper_gone() == []


# -------------------------------------------------------------------------------- hand over


def test_hand_over_rings_the_manager_tells_the_caller_and_frees_the_agent() -> None:
    call = helped()
    steps = handing_over(call)
    (ring,) = [s for s in steps if isinstance(s, CallHelper)]
    assert ring.uri == KIM
    assert steps[-1] is ring
    first = plays(steps)
    assert first[LegName.CALLER].files == ["/prompts/handing_over.wav"]
    assert first[LegName.AGENT].mix
    assert not media(steps, FlowUpdate)  # caller and agent go on
    steps = report(call, first[LegName.CALLER])
    assert [stop.leg for stop in media(steps, StopPlay)] == [LegName.AGENT]

    steps = answered(call)
    last = plays(steps)[LegName.CALLER]
    assert last.files == ["/prompts/handed_over.wav"]
    assert not media(steps, PromoteHelper)
    steps = report(call, last)
    order = [type(s.event if isinstance(s, Emit) else s).__name__ for s in steps]
    assert order.index("ReplaceAgent") < order.index("HelperChanged")
    assert media(steps, PromoteHelper)
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap, flow.conference) == (
        True,
        True,
        True,
        False,
    )
    (event,) = events(steps, HelperChanged)
    assert (event.state, event.role, event.helper_id) == ("took_over", "manager", "kim")
    agents = call.media[LegName.AGENT]
    assert agents.negotiated is not None
    assert (agents.port, agents.negotiated.voice.name) == (26000, "PCMU")
    assert LegName.HELPER not in call.media
    # The manager's leg is the agent's now: its BYE ends the call.
    steps = call.on_phone_gone(200)
    assert hangs_up(steps, LegName.CALLER)
    assert events(steps, CallEnded)[0].reason == "agent_hangup"


def test_the_manager_who_answers_at_once_waits_for_the_first_announcement() -> None:
    call = helped()
    first = plays(handing_over(call))[LegName.CALLER]
    assert not plays(answered(call))
    steps = report(call, first)
    assert plays(steps)[LegName.CALLER].files == ["/prompts/handed_over.wav"]


def test_nobody_takes_over_by_a_broken_announcement() -> None:
    call = helped()
    report(call, plays(handing_over(call))[LegName.CALLER])
    steps = report(call, plays(answered(call))[LegName.CALLER], complete=False, error="gone")
    assert hangs_up(steps, LegName.HELPER)
    assert not any(isinstance(s, ReplaceAgent) for s in steps)
    assert not media(steps, PromoteHelper)
    assert events(steps, NodeDegraded)
    assert states(steps) == ["unreachable"]
    assert call.state is CallState.CONNECTED


def test_a_broken_first_announcement_is_an_alarm_and_no_obstacle() -> None:
    call = helped()
    first = plays(handing_over(call))[LegName.CALLER]
    assert events(report(call, first, complete=False, error="gone"), NodeDegraded)
    assert plays(answered(call))[LegName.CALLER].files == ["/prompts/handed_over.wav"]


@pytest.mark.parametrize("by", [SUPERVISOR, "policy", ""])
def test_only_the_agent_hands_over(by: str) -> None:
    call = helped()
    call.act(Action.HELP, "agent:dtmf")
    assert call.act(Action.HAND_OVER, by)[0::2] == ("not_now", [])
    assert call.act(Action.HAND_OVER, "agent:dtmf")[0] == "done"


@pytest.mark.parametrize("refusal", ["busy", "no answer"])
def test_a_manager_who_does_not_come_leaves_agent_and_caller_as_they_were(refusal: str) -> None:
    call = helped()
    report(call, plays(handing_over(call))[LegName.CALLER])
    steps = call.on_helper_gone() if refusal == "busy" else call.on_timer("helper")
    assert states(steps) == ["unreachable"]
    assert hangs_up(steps, LegName.HELPER) == (refusal == "no answer")  # CANCEL
    assert call.state is CallState.CONNECTED
    assert call.act(Action.HAND_OVER, "agent:console")[0] == "done"


def test_a_caller_who_hangs_up_while_the_manager_rings_cancels_the_manager() -> None:
    call = helped()
    handing_over(call)
    steps = call.on_caller_gone(200)
    assert hangs_up(steps, LegName.HELPER)
    assert hangs_up(steps, LegName.AGENT)
    assert events(steps, CallEnded)[0].reason == "caller_hangup"


def test_an_agent_who_leaves_before_the_manager_answers_leaves_the_caller_on_hold() -> None:
    call = helped()
    report(call, plays(handing_over(call))[LegName.CALLER])
    steps = call.on_phone_gone(200)
    assert not events(steps, CallEnded)
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (False, False, False)
    hold_on = plays(steps)[LegName.CALLER]
    assert (hold_on.files, hold_on.loop) == (["/prompts/hold_on.wav"], True)
    assert call.act(Action.WARN, "agent:console")[0] == "not_now"
    last = plays(answered(call))
    assert set(last) == {LegName.CALLER}
    # The loop that was replaced reports its end late: it decides nothing.
    only_stamped(report(call, hold_on, complete=False))
    steps = report(call, last[LegName.CALLER])
    assert media(steps, PromoteHelper)
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (True, True, True)


def test_an_agent_who_left_and_a_manager_who_does_not_come_end_the_call() -> None:
    call = helped()
    handing_over(call)
    call.on_phone_gone(200)
    steps = call.on_timer("helper")
    assert states(steps) == ["unreachable"]
    assert hangs_up(steps, LegName.CALLER)
    assert events(steps, CallEnded)[0].reason == "agent_hangup"


def test_a_held_caller_is_told_after_the_hold() -> None:
    call = helped()
    hold(call, True)
    steps = handing_over(call)
    assert not plays(steps)
    assert any(isinstance(s, CallHelper) for s in steps)
    assert plays(hold(call, False))[LegName.CALLER].files == ["/prompts/handing_over.wav"]
    hold(call, True)  # in the middle of it
    assert not plays(answered(call))
    first = plays(hold(call, False))[LegName.CALLER]
    assert first.files == ["/prompts/handing_over.wav"]
    last = plays(report(call, first))[LegName.CALLER]
    assert last.files == ["/prompts/handed_over.wav"]


def test_the_supervisor_who_joined_takes_over_on_hand_over() -> None:
    call = joined()
    outcome, _, steps = call.act(Action.HAND_OVER, "agent:console")
    assert outcome == "done"
    last = plays(steps)[LegName.CALLER]
    assert last.files == ["/prompts/handed_over.wav"]
    steps = report(call, last)
    assert media(steps, PromoteHelper)
    assert not any(flow.conference for flow in media(steps, FlowUpdate))
    assert states(steps) == ["took_over"]


def test_a_supervisor_who_should_take_over_stays_joined_when_the_announcement_fails() -> None:
    call = joined()
    last = plays(call.act(Action.HAND_OVER, "agent:console")[2])[LegName.CALLER]
    steps = report(call, last, complete=False, error="gone")
    assert events(steps, NodeDegraded)
    assert call.help.stage is Stage.JOINED
    assert not hangs_up(steps, LegName.HELPER)
    assert call.help.conference


def test_a_wideband_call_is_handed_over_in_its_own_codec_where_the_phone_may_take_it() -> None:
    call = helped()
    call.media[LegName.CALLER].negotiated = WIDE
    outcome, detail, _ = call.act(Action.HAND_OVER, "agent:console")
    assert (outcome, "hearing_protection" in detail) == ("not_now", True)
    wide = LegPolicy(codecs=("PCMU", "PCMA", "G722"))
    call = helped(help=replace(PLAN, helpers=(Helper("kim", KIM, "manager", wide),)))
    call.media[LegName.CALLER].negotiated = WIDE
    (ring,) = [s for s in handing_over(call) if isinstance(s, CallHelper)]
    audio = sdp.parse(ring.sdp).audio
    assert audio is not None
    assert [c.name for c in audio.voice] == ["G722"]


def test_a_call_with_a_helper_is_not_transferred_meanwhile_nor_the_other_way_round() -> None:
    call = helped()
    assert call.transferable
    handing_over(call)
    assert not call.transferable
    call.on_helper_gone()
    assert call.transferable
    call.on_transfer_begun()
    call.act(Action.HELP, "agent:dtmf")
    assert call.act(Action.JOIN, SUPERVISOR)[0] == "not_now"
    assert call.act(Action.HAND_OVER, "agent:dtmf")[0] == "not_now"
    # The phone hangs up before the transfer came about, and a tone there ends late: nothing ends.
    call.on_phone_gone(200)
    tone = PlayFinished(call_id="c", play_id=1, leg=LegName.AGENT, complete=False, spans=[])
    assert call.on_play_finished(tone) == []
    assert call.state is CallState.CONNECTED


def test_who_came_is_said_with_when_the_agent_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    call = helped()
    clock = iter(range(1000, 9000))
    monkeypatch.setattr(call, "now", lambda: float(next(clock)))
    call.act(Action.HELP, "agent:console", request_id="r1")
    first = float(next(clock))
    steps = joining(call)  # asks again, under the same id: that is no new request
    for play in plays(steps).values():
        steps += report(call, play)
    [joined_event] = [e for e in events(steps, HelperChanged) if e.state == "joined"]
    assert 1000 <= joined_event.asked_ts < first < joined_event.ts
    # A hand over is asked for by its own press.
    pressed = float(next(clock))
    steps = call.act(Action.HAND_OVER, "agent:dtmf")[2]
    for play in plays(steps).values():
        steps += report(call, play)
    [over] = [e for e in events(steps, HelperChanged) if e.state == "took_over"]
    assert over.asked_ts > pressed


# -------------------------------------------------------------------- whatever comes, in any order


def next_of(call: Call, draw: int) -> str:
    """What leads on from here: without it no order in a thousand would let anybody in."""
    match call.help.stage:
        case Stage.NONE if draw % 2:
            return "join" if call.help.wanted else "help"
        case Stage.NONE | Stage.JOINED:
            return "hand over"
        case Stage.OPENING:
            return "opened"
        case Stage.CALLING:
            return "answered"
        case _:
            return "heard by caller" if draw % 2 else "heard by agent"


DISTURBING = [
    "help",
    "supervisor help",
    "help again",
    "join",
    "agent join",
    "hand over",
    "supervisor hand over",
    "no ports",
    "unusable",
    "helper gone",
    "helper timer",
    "heard by caller",
    "broken for caller",
    "broken for agent",
    "caller holds",
    "agent holds",
    "resumed",
    "warn",
    "end",
    "agent gone",
    "caller gone",
    "pause",
    "resume",
    "shouting",
]
OPERATIONS = st.lists(st.one_of(*[st.integers(0, 3)] * 3, st.sampled_from(DISTURBING)), max_size=40)


@settings(max_examples=400)
@given(OPERATIONS)
def test_no_order_of_events_lets_anybody_in_unasked_or_unannounced(
    operations: list[int | str],
) -> None:
    call = helped()
    all_steps: list[Step] = []
    requests = 0
    #: Whole plays of each announcement since the helper in question was called.
    heard: list[tuple[LegName, str]] = []
    for drawn in operations:
        operation = next_of(call, drawn) if isinstance(drawn, int) else drawn
        steps: list[Step] = []
        newest = plays(all_steps)
        match operation:
            case "help" | "supervisor help" | "help again":
                by = SUPERVISOR if operation == "supervisor help" else "agent:dtmf"
                if operation == "help again":
                    by = "agent:console"
                before = call.help.wanted
                outcome, _, steps = call.act(Action.HELP, by, request_id="r")
                assert call.help.wanted == before or by != SUPERVISOR
                requests += outcome == "done" and call.help.wanted and not before
            case "join" | "agent join":
                by = SUPERVISOR if operation == "join" else "agent:console"
                steps = call.act(Action.JOIN, by)[2]
            case "hand over" | "supervisor hand over":
                by = "agent:dtmf" if operation == "hand over" else SUPERVISOR
                outcome, _, steps = call.act(Action.HAND_OVER, by)
                assert outcome != "done" or by == "agent:dtmf"
            case "opened" | "no ports" if media(all_steps, OpenLeg):
                error = "" if operation == "opened" else "no ports"
                steps = opened(call, [s for s in all_steps if _asks(s)][-1:], error)
            case "answered":
                steps = answered(call)
            case "unusable":
                steps = call.on_helper_answered(None, "127.0.0.21")
            case "helper gone":
                steps = call.on_helper_gone()
            case "helper timer":
                steps = call.on_timer("helper")
            case "heard by caller" | "heard by agent" | "broken for caller" | "broken for agent":
                leg = LegName.CALLER if operation.endswith("caller") else LegName.AGENT
                if leg in newest:
                    whole = operation.startswith("heard")
                    if whole and call.playing(leg) == newest[leg].play_id:
                        heard.append((leg, newest[leg].files[0]))
                    steps = report(call, newest[leg], complete=whole)
            case "caller holds" | "agent holds" | "resumed":
                steps = call.on_hold_changed(
                    caller_held=operation == "caller holds",
                    agent_held=operation == "agent holds",
                )
            case "warn" | "end" | "pause" | "resume":
                name = {"pause": "pause_recording", "resume": "resume_recording"}.get(
                    operation, operation
                )
                steps = call.act(Action(name), "agent:console")[2]
            case "agent gone":
                steps = call.on_phone_gone(200)
            case "caller gone":
                steps = call.on_caller_gone(200)
            case "shouting":
                steps = call.on_risk(3)
        all_steps += steps
        for flow in media(steps, FlowUpdate):
            if flow.conference:
                assert (LegName.CALLER, "/prompts/joined.wav") in heard
                assert (LegName.AGENT, "/prompts/joined.wav") in heard
            assert not (flow.tap and flow.paused)
        if media(steps, PromoteHelper):
            assert heard[-1] == (LegName.CALLER, "/prompts/handed_over.wav")
        if "calling" in states(steps):
            heard.clear()
    joins = states(all_steps).count("joined")
    assert joins <= requests
    assert len(events(all_steps, CallEnded)) <= 1
    assert (call.state is CallState.ENDED) == bool(events(all_steps, CallEnded))
    if call.state is CallState.ENDED:
        assert call.help.stage is Stage.NONE


def _asks(step: Step) -> bool:
    return bool(media([step], OpenLeg))


def test_helpers_leg_has_keys_of_its_own_and_keeps_them_when_it_becomes_the_agents() -> None:
    secure = LegPolicy(srtp="required", keys_may_travel=True)
    call = helped(help=replace(PLAN, helpers=(Helper("kim", KIM, "manager", secure),)))
    (invite,) = [step for step in handing_over(call) if isinstance(step, CallHelper)]
    offer = sdp.parse(invite.sdp).audio
    assert offer is not None
    assert (offer.profile, offer.port) == ("RTP/SAVP", 26000)
    ours = parse_crypto(offer.crypto[0])
    (theirs,) = fresh_lines(["AES_CM_128_HMAC_SHA1_80"], lambda length: b"\x07" * length)
    answer = sdp.parse(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.20\r\ns=-\r\nc=IN IP4 127.0.0.20\r\nt=0 0\r\n"
        f"m=audio 6000 RTP/SAVP 0\r\na=crypto:{theirs.written()}\r\n"
    )
    (update,) = media(call.on_helper_answered(answer, "127.0.0.20"), LegUpdate)
    assert update.leg is LegName.HELPER
    assert update.srtp is not None
    assert (update.srtp.send, update.srtp.receive) == (ours.key, b"\x07" * 30)
    helpers = call.media[LegName.HELPER]
    call.helper_took_over()
    assert call.media[LegName.AGENT] is helpers
    assert LegName.HELPER not in call.media
