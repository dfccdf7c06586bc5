"""The same call machine, the other way round: an agent calls out, colleagues call each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.messages import (
    Action,
    CallAnswered,
    CallEnded,
    CallStarted,
    Direction,
    LegName,
    NoticeFinished,
)
from callshield.messages_media import FlowUpdate, LegUpdate, PlayPrompts
from sipbridge import sdp
from sipbridge.call import Call, CallState
from sipbridge.call_steps import AnswerIncoming, CallOut, HangUp, StartTimer, Step
from sipbridge.help_plan import HelpPlan
from sipbridge.media_gate import MediaGate
from sipbridge.phone_status import map_trunk_status
from tests.test_call import (
    CALLER_OFFER,
    PHONE_ANSWER,
    answer,
    connected,
    events,
    hold,
    in_notice,
    make_plan,
    media,
    played,
    prompt,
    ringing,
)

OUT: dict[str, Any] = {
    "direction": Direction.OUTBOUND,
    "incoming": LegName.AGENT,
    "called_uri": "sip:0212345678@192.0.2.9",
    "trunk": "line",
    "dialled": "0212345678",
    "pbx_channel": "PJSIP/1001-1",
}
INTERNAL: dict[str, Any] = {
    "direction": Direction.INTERNAL,
    "notice": (),
    "tap_allowed": False,
    "record_allowed": False,
    "help": None,
}


# --------------------------------------------------------------------------------- outgoing


def test_the_customer_is_called_with_the_agents_codecs_at_the_callers_address() -> None:
    call = Call(make_plan(**OUT), lambda: 100.0)
    (started,) = events(call.begin(1), CallStarted)
    assert (started.direction, started.pbx_channel) == ("outbound", "PJSIP/1001-1")
    (out, timer) = call.on_media_open(20000, 25000, 7)
    assert isinstance(out, CallOut)
    assert timer == StartTimer("ring", 60.0)
    offer = sdp.parse(out.sdp)
    assert offer.audio is not None
    assert (offer.audio.address, offer.audio.port) == ("127.0.0.2", 20000)
    assert sdp.parse(call.first_answer()).audio == sdp.parse(call.first_answer()).audio
    first = sdp.parse(call.first_answer()).audio
    assert first is not None
    assert (first.address, first.port) == ("127.0.0.3", 25000)


def test_agent_is_answered_after_the_customer_and_the_customer_hears_the_notice() -> None:
    call = ringing(**OUT)
    steps = answer(call)
    (final,) = [s for s in steps if isinstance(s, AnswerIncoming)]
    described = sdp.parse(final.sdp).audio
    assert final.status == 200
    assert described is not None
    assert (described.address, described.port) == ("127.0.0.3", 25000)
    (customer,) = media(steps, LegUpdate)
    assert (customer.leg, customer.port) == (LegName.CALLER, 5000)
    assert events(steps, CallAnswered)

    steps = call.on_incoming_confirmed("127.0.0.9")
    (agent,) = media(steps, LegUpdate)
    assert (agent.leg, agent.port) == (LegName.AGENT, 4000)
    notice = [m for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER]
    assert [len(m.files) for m in notice] == [2]
    (flow,) = media(steps, FlowUpdate)
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (True, False, False)
    (flow,) = media(played(call, steps), FlowUpdate)
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (True, True, True)


def test_early_media_goes_from_the_line_to_the_agent_and_not_back() -> None:
    call = ringing(**OUT)
    negotiated = sdp.negotiate(PHONE_ANSWER)
    assert negotiated is not None
    steps = call.on_early_media(PHONE_ANSWER, negotiated, signalling_address="", session_id=8)
    (flow,) = media(steps, FlowUpdate)
    assert (flow.caller_to_agent, flow.agent_to_caller) == (True, False)
    assert (flow.tap, flow.record) == (False, False)
    assert [u.leg for u in media(steps, LegUpdate)] == [LegName.CALLER, LegName.AGENT]
    # Negative control: an inbound call's early media goes the other way.
    other = ringing()
    steps = other.on_early_media(PHONE_ANSWER, negotiated, signalling_address="", session_id=8)
    (flow,) = media(steps, FlowUpdate)
    assert (flow.caller_to_agent, flow.agent_to_caller) == (False, True)


def test_an_agent_who_gives_up_cancels_the_customers_phone() -> None:
    call = ringing(**OUT)
    steps = call.on_phone_gone(487)
    assert HangUp(LegName.CALLER) in steps
    assert not [s for s in steps if isinstance(s, AnswerIncoming)]
    assert events(steps, CallEnded)[0].reason == "cancelled"


@pytest.mark.parametrize(
    ("status", "told", "reason"),
    [
        (486, 486, "busy"),
        (600, 600, "busy"),
        (404, 404, "refused"),
        (484, 484, "refused"),
        (480, 480, "no_answer"),
        (408, 480, "no_answer"),
        (603, 603, "refused"),
        (401, 502, "not_authorised"),
        (407, 502, "not_authorised"),
        (500, 502, "refused"),
        (503, 502, "refused"),
    ],
)
def test_refusals_of_the_line_reach_the_agents_pbx(status: int, told: int, reason: str) -> None:
    assert map_trunk_status(status) == told
    steps = ringing(**OUT).on_caller_gone(status)
    assert AnswerIncoming(told) in steps
    assert events(steps, CallEnded)[0].reason == reason
    assert not [s for s in steps if isinstance(s, HangUp)]


def test_nobody_answers_in_time() -> None:
    steps = ringing(**OUT).on_timer("ring")
    assert HangUp(LegName.AGENT, 480) in steps
    assert HangUp(LegName.CALLER) in steps


def test_both_hang_up_under_their_own_names() -> None:
    assert events(connected(**OUT).on_phone_gone(200), CallEnded)[0].reason == "agent_hangup"
    assert events(connected(**OUT).on_caller_gone(200), CallEnded)[0].reason == "caller_hangup"


def test_an_offer_on_hold_of_the_customers_side_holds_the_notice_back() -> None:
    call = ringing(**OUT)
    held = sdp.parse(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.8\r\ns=-\r\nc=IN IP4 127.0.0.8\r\nt=0 0\r\n"
        "m=audio 5000 RTP/AVP 8\r\na=inactive\r\n"
    )
    negotiated = sdp.negotiate(held)
    assert negotiated is not None
    call.on_answered(held, negotiated, user_agent="", signalling_address="", session_id=8)
    steps = call.on_incoming_confirmed("127.0.0.9")
    assert not [m for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER]
    assert [m.leg for m in media(hold(call, False), PlayPrompts)] == [LegName.CALLER]


# --------------------------------------------------------------------------------- internal


@pytest.mark.parametrize(
    "changes",
    [
        {"notice": (prompt("recording"),)},
        {"tap_allowed": True},
        {"record_allowed": True},
        {"help": HelpPlan((), "", 30.0, None)},  # type: ignore[arg-type]
    ],
)
def test_a_plan_that_would_watch_colleagues_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="between colleagues"):
        make_plan(**(INTERNAL | changes))
    make_plan(**INTERNAL)
    make_plan(**changes)  # of any other call it is a good plan


def test_colleagues_are_connected_at_once_and_told_nothing() -> None:
    call, steps = in_notice(**INTERNAL)
    assert call.state is CallState.CONNECTED
    assert not media(steps, PlayPrompts)
    (finished,) = events(steps, NoticeFinished)
    assert (finished.source, finished.tapped, finished.prompts) == ("internal", False, [])
    (flow,) = media(steps, FlowUpdate)
    assert (flow.caller_to_agent, flow.agent_to_caller) == (True, True)
    assert (flow.tap, flow.record) == (False, False)


@pytest.mark.parametrize(
    "action",
    [
        Action.WARN,
        Action.SKIP_NOTICE,
        Action.PAUSE_RECORDING,
        Action.RESUME_RECORDING,
        Action.JOIN,
        Action.HAND_OVER,
    ],
)
def test_what_needs_the_tap_is_answered_with_a_sentence(action: Action) -> None:
    outcome, detail, steps = connected(**INTERNAL).act(action, "agent:console")
    assert (outcome, steps) == ("not_now", [])
    assert detail.startswith("This is a call between colleagues")
    outcome, detail, _ = connected().act(action, "agent:console")  # negative control
    assert not detail.startswith("This is a call between colleagues")


def test_end_hangs_up_on_a_colleague_without_an_announcement() -> None:
    call = connected(**INTERNAL)
    outcome, _, steps = call.act(Action.END, "agent:console")
    assert outcome == "done"
    assert not media(steps, PlayPrompts)
    assert {s.leg for s in steps if isinstance(s, HangUp)} >= {LegName.AGENT, LegName.CALLER}
    assert events(steps, CallEnded)[0].reason == "agent_hangup"


# -------------------------------------------------------------------- whatever comes, in any order

OPERATIONS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "ring",
                "answer",
                "confirm",
                "played",
                "hold",
                "resume",
                "risk",
                "replaced",
                "joined",
                "transfer",
                "not transferred",
                "transferred",
                "early",
                "caller gone",
                "agent gone",
            ]
        ),
        st.sampled_from(list(Action)),
    ),
    max_size=30,
)


def run(call: Call, operations: list[str | Action]) -> list[Step]:
    """Everything that can happen to a call, in any order."""
    negotiated = sdp.negotiate(PHONE_ANSWER)
    assert negotiated is not None
    done: list[Step] = []
    for operation in operations:
        steps: list[Step] = []
        match operation:
            case Action():
                steps = call.act(operation, "agent:console")[2]
            case "ring":
                steps = call.on_ringing(180)
            case "early":
                steps = call.on_early_media(
                    PHONE_ANSWER, negotiated, signalling_address="", session_id=8
                )
            case "answer":
                steps = answer(call)
            case "confirm":
                steps = call.on_incoming_confirmed("127.0.0.9")
            case "played" if [m for m in media(done, PlayPrompts) if m.leg is LegName.CALLER]:
                steps = played(call, done)
            case "hold" | "resume":
                steps = hold(call, operation == "hold")
            case "risk":
                steps = call.on_risk(3)
            case "replaced":
                steps = call.on_caller_replaced(PHONE_ANSWER, negotiated, "")
            case "joined":
                steps = call.on_target_joined(PHONE_ANSWER, negotiated, "")
            case "transfer":
                steps = call.on_transfer_begun()
            case "not transferred":
                steps = call.on_transfer_failed()
            case "transferred":
                steps = call.on_transferred()
            case "caller gone":
                steps = call.on_caller_gone(200)
            case "agent gone":
                steps = call.on_phone_gone(200)
        done += steps
    return done


def watched(steps: list[Step]) -> bool:
    return any(flow.tap or flow.record for flow in media(steps, FlowUpdate))


@settings(max_examples=400)
@given(OPERATIONS, st.sampled_from([LegName.CALLER, LegName.AGENT]))
def test_nothing_that_happens_opens_the_gate_between_colleagues(
    operations: list[str | Action], incoming: LegName
) -> None:
    steps = run(ringing(**INTERNAL, incoming=incoming), ["answer", "confirm", *operations])
    assert not watched(steps)
    assert not media(steps, PlayPrompts)
    assert not call_was_tapped(steps)
    gate = MediaGate("c0ffee", internal=True)
    gate.open(tap=True, record=True)
    flow = gate.flow(hears=True, talks=True, on_hold=False, paused=False, conference=False)
    assert not watched([flow])


def call_was_tapped(steps: list[Step]) -> bool:
    return any(event.tapped for event in events(steps, NoticeFinished))


def test_the_judge_of_colleagues_calls_sees_a_watched_one() -> None:
    """Negative control: the same operations on an ordinary call do open the gate."""
    steps = run(ringing(record_allowed=True), ["answer", "confirm", "played"])
    assert watched(steps)
    assert call_was_tapped(steps)
    assert media(steps, PlayPrompts)


@settings(max_examples=300)
@given(OPERATIONS)
def test_no_order_of_events_taps_an_outgoing_call_before_its_notice(
    operations: list[str | Action],
) -> None:
    call = ringing(**OUT)
    done: list[Step] = []
    heard = False
    for operation in operations:
        heard = heard or (operation == "played" and call.state is CallState.NOTICE)
        steps = run_one(call, operation, done)
        done += steps
        assert heard or not watched(steps)
    assert len(events(done, CallEnded)) <= 1


def run_one(call: Call, operation: str | Action, done: list[Step]) -> list[Step]:
    if operation == "played":
        plays = [m for m in media(done, PlayPrompts) if m.leg is LegName.CALLER]
        return played(call, done) if plays else []
    return run(call, [operation])


def test_offers_are_refused_by_the_policy_of_the_leg_they_come_on() -> None:
    plan = make_plan(**OUT)
    assert plan.offer is CALLER_OFFER
    assert plan.policy(LegName.AGENT) is plan.phone_policy
    assert plan.policy(plan.outgoing) is plan.caller_policy
