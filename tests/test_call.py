"""The promises of the house, told by the pure call: no socket, no clock, no pjsua2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.messages import (
    Action,
    CallAnswered,
    CallEnded,
    CallEnding,
    EarChanged,
    LegName,
    NodeDegraded,
    NoticeFinished,
    NoticeStarted,
    WarningPlayed,
)
from callshield.messages_media import (
    CloseSession,
    EarUpdate,
    FlowUpdate,
    LegUpdate,
    PlayFinished,
    PlayPrompts,
    StopPlay,
)
from callshield.messages_notice import PromptPlayed, PromptStamp
from sipbridge import sdp
from sipbridge.call import Call, CallState
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import (
    AnswerIncoming,
    CallOut,
    CallSupervisor,
    Emit,
    HangUp,
    StartTimer,
    Step,
    StopTimer,
    ToMedia,
)
from sipbridge.phone_status import map_phone_status
from sipbridge.prompt_catalogue import Prompt

T = TypeVar("T")
CALLER_OFFER = sdp.parse(
    "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0 8 96\r\na=rtpmap:96 telephone-event/8000\r\n"
)
PHONE_ANSWER = sdp.parse(
    "v=0\r\no=- 1 1 IN IP4 127.0.0.8\r\ns=-\r\nc=IN IP4 127.0.0.8\r\nt=0 0\r\n"
    "m=audio 5000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)


def prompt(prompt_id: str, duration_s: float = 1.0) -> Prompt:
    return Prompt(prompt_id, "ko", Path(f"/prompts/{prompt_id}.wav"), "1", "00", duration_s)


def make_plan(**changes: Any) -> CallPlan:
    values: dict[str, Any] = {
        "call_id": "c0ffee",
        "agent_id": "1001",
        "pbx_call_id": "1700000000.1",
        "pbx": "pbx",
        "offer": CALLER_OFFER,
        "pbx_address": "127.0.0.2",
        "phone_address": "127.0.0.3",
        "notice": (prompt("abuse_prevention"), prompt("recording")),
        "closing": prompt("closing"),
        "warnings": (prompt("warning_1"), prompt("warning_2"), prompt("warning_3")),
        "notice_tone": prompt("notice_tone"),
    }
    return CallPlan(**(values | changes))


def ringing(**changes: Any) -> Call:
    call = Call(make_plan(**changes), lambda: 100.0)
    call.begin(1)
    call.on_media_open(20000, 25000, 7)
    return call


def answer(call: Call) -> list[Step]:
    negotiated = sdp.negotiate(PHONE_ANSWER)
    assert negotiated is not None
    return call.on_answered(
        PHONE_ANSWER,
        negotiated,
        user_agent="Yealink SIP-T46S 66.85.0.5",
        signalling_address="127.0.0.8",
        session_id=8,
    )


def in_notice(**changes: Any) -> tuple[Call, list[Step]]:
    call = ringing(**changes)
    answer(call)
    return call, call.on_incoming_confirmed("127.0.0.9")


def played(call: Call, steps: list[Step], complete: bool = True, error: str = "") -> list[Step]:
    play = [m for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER][-1]
    spans = [(100.0 + i, 101.0 + i) for i in range(len(play.files))]
    return call.on_play_finished(
        PlayFinished(
            call_id=play.call_id,
            play_id=play.play_id,
            leg=play.leg,
            complete=complete,
            spans=spans,
            error=error,
        )
    )


def only_stamped(steps: list[Step]) -> list[PromptStamp]:
    """The stamps that these steps put on record, and they do nothing else."""
    found = events(steps, PromptPlayed)
    assert len(found) == len(steps), steps
    return [event.stamp for event in found]


def hold(call: Call, held: bool) -> list[Step]:
    """The caller's side (the PBX) holds or resumes."""
    return call.on_hold_changed(caller_held=held, agent_held=False)


def connected(**changes: Any) -> Call:
    call, steps = in_notice(**changes)
    if call.state is CallState.NOTICE:
        played(call, steps)
    assert call.state is CallState.CONNECTED
    return call


def media(steps: list[Step], kind: type[T]) -> list[T]:
    return [
        step.message
        for step in steps
        if isinstance(step, ToMedia) and isinstance(step.message, kind)
    ]


def events(steps: list[Step], kind: type[T]) -> list[T]:
    return [step.event for step in steps if isinstance(step, Emit) and isinstance(step.event, kind)]


# ------------------------------------------------------------------------------------- set-up


def test_phone_is_offered_the_callers_codecs_at_our_own_address() -> None:
    call = Call(make_plan(), lambda: 100.0)
    call.begin(1)
    (phone,) = [s for s in call.on_media_open(20000, 25000, 7) if isinstance(s, CallOut)]
    audio = sdp.parse(phone.sdp).audio
    assert audio is not None
    assert (audio.address, audio.port) == ("127.0.0.3", 25000)
    assert [c.name for c in audio.codecs] == ["PCMU", "PCMA", "telephone-event"]


def test_caller_is_answered_with_the_phones_codec_and_its_own_payload_types() -> None:
    call = ringing()
    steps = answer(call)
    (response,) = [s for s in steps if isinstance(s, AnswerIncoming)]
    assert response.status == 200
    audio = sdp.parse(response.sdp).audio
    assert audio is not None
    assert [(c.payload_type, c.name) for c in audio.codecs] == [
        (8, "PCMA"),
        (96, "telephone-event"),
    ]
    (agent,) = media(steps, LegUpdate)
    assert (agent.leg, agent.payload_type, agent.event_payload_type) == (LegName.AGENT, 8, 101)
    (event,) = events(steps, CallAnswered)
    assert event.phone_user_agent == "Yealink SIP-T46S 66.85.0.5"
    assert event.pbx_call_id == "1700000000.1"


def test_ringing_reaches_the_pbx_once() -> None:
    call = ringing()
    assert list(call.on_ringing(183)) == [AnswerIncoming(180)]
    assert call.on_ringing(180) == []
    assert ringing().on_ringing(100) == []


@pytest.mark.parametrize(
    ("phone", "pbx"),
    [
        (486, 486),
        (600, 486),
        (603, 603),
        (404, 480),
        (480, 480),
        (408, 480),
        (503, 480),
        (401, 480),
        (407, 480),
        (403, 603),  # what Asterisk makes of a phone's 603
        (488, 488),
        (500, 500),
        (302, 302),
    ],
)
def test_a_phones_trouble_is_not_ours(phone: int, pbx: int) -> None:
    assert map_phone_status(phone) == pbx


def test_busy_phone_ends_the_call_with_486() -> None:
    call = ringing()
    steps = call.on_phone_gone(486)
    assert AnswerIncoming(486) in steps
    (ended,) = events(steps, CallEnded)
    assert (ended.reason, ended.sip_status) == ("busy", 486)
    assert media(steps, CloseSession)


def test_redirection_goes_to_the_pbx_with_its_contact() -> None:
    steps = ringing().on_phone_gone(302, "sip:1002@192.0.2.5")
    assert AnswerIncoming(302, headers=(("Contact", "<sip:1002@192.0.2.5>"),)) in steps
    assert AnswerIncoming(480) in ringing().on_phone_gone(302, "")


def test_no_answer_cancels_the_phone_and_tells_the_pbx() -> None:
    call = ringing()
    steps = call.on_timer("ring")
    assert HangUp(LegName.AGENT) in steps
    assert HangUp(LegName.CALLER, 480) in steps
    assert events(steps, CallEnded)[0].reason == "no_answer"


def test_caller_who_gives_up_cancels_the_phone() -> None:
    steps = ringing().on_caller_gone(487)
    assert HangUp(LegName.AGENT) in steps
    assert not [s for s in steps if isinstance(s, HangUp) and s.leg is LegName.CALLER]
    assert events(steps, CallEnded)[0].reason == "cancelled"


# ------------------------------------------------------------------------------------- notice


def test_nothing_is_tapped_before_the_notice_was_heard_to_its_end() -> None:
    call, steps = in_notice()
    assert call.state is CallState.NOTICE
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (True, False, False)
    files = [m.files for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER]
    assert files == [["/prompts/abuse_prevention.wav", "/prompts/recording.wav"]]
    assert events(steps, NoticeStarted)

    steps = played(call, steps)
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (True, True, True)
    (finished,) = events(steps, NoticeFinished)
    assert (finished.source, finished.tapped) == ("played", True)
    assert [stamp.prompt_id for stamp in finished.prompts] == ["abuse_prevention", "recording"]


def test_agent_hears_a_soft_tone_under_the_caller_while_the_notice_plays() -> None:
    call, steps = in_notice()
    (tone,) = [m for m in media(steps, PlayPrompts) if m.leg is LegName.AGENT]
    assert tone.loop
    assert tone.mix
    assert [m.leg for m in media(played(call, steps), StopPlay)] == [LegName.AGENT]


def test_notice_waits_for_the_callers_ack() -> None:
    call = ringing()
    assert not media(answer(call), PlayPrompts)


def test_failed_notice_leaves_the_call_untapped_and_raises_an_alarm() -> None:
    call, steps = in_notice()
    steps = played(call, steps, complete=False, error="the file is gone")
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.agent_to_caller, flow.tap) == (True, False)
    assert events(steps, NoticeFinished)[0].source == "failed"
    assert events(steps, NodeDegraded)[0].reason == "the file is gone"
    # and it stays untapped whatever follows
    assert not media(hold(call, True) + hold(call, False), FlowUpdate)[-1].tap


def test_skipped_notice_is_never_tapped() -> None:
    call, steps = in_notice()
    outcome, _, skipped = call.act(Action.SKIP_NOTICE, "agent:dtmf")
    assert outcome == "done"
    flow = media(skipped, FlowUpdate)[-1]
    assert (flow.agent_to_caller, flow.tap) == (True, False)
    assert events(skipped, NoticeFinished)[0].source == "skipped"
    # The stopped prompt's own report comes later and changes nothing; how far it got is on record.
    late = only_stamped(played(call, steps, complete=False))
    assert [(one.complete, one.stopped_by) for one in late] == [(True, ""), (False, "skipped")]
    assert played(call, steps, complete=True) == []
    assert not media(hold(call, True) + hold(call, False), FlowUpdate)[-1].tap


def test_notice_played_by_the_pbx_opens_the_gate_at_once() -> None:
    call, steps = in_notice(notice=(), attested={"abuse_prevention": "2", "recording": ""})
    assert call.state is CallState.CONNECTED
    assert not media(steps, PlayPrompts)
    assert media(steps, FlowUpdate)[-1].tap
    (finished,) = events(steps, NoticeFinished)
    assert (finished.source, finished.attested_by) == ("upstream", "pbx")


def test_half_attested_notice_plays_the_other_half() -> None:
    call, steps = in_notice(notice=(prompt("recording"),), attested={"abuse_prevention": ""})
    (play,) = [m for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER]
    assert play.files == ["/prompts/recording.wav"]
    assert not media(steps, FlowUpdate)[-1].tap
    (finished,) = events(played(call, steps), NoticeFinished)
    assert [s.prompt_id for s in finished.prompts] == ["abuse_prevention", "recording"]


def test_switched_off_detector_means_no_tap() -> None:
    call, steps = in_notice(tap_allowed=False)
    assert not media(played(call, steps), FlowUpdate)[-1].tap


# ---------------------------------------------------------------------------------------- end


def test_end_releases_the_agent_first_then_the_caller_hears_the_closing_then_bye() -> None:
    call = connected()
    outcome, _, steps = call.act(Action.END, "agent:console")
    assert outcome == "done"
    assert steps[0] == HangUp(LegName.AGENT)
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.caller_to_agent, flow.agent_to_caller, flow.tap) == (False, False, False)
    assert [m.files for m in media(steps, PlayPrompts)] == [["/prompts/closing.wav"]]
    assert events(steps, CallEnding)[0].by == "agent:console"
    assert not [s for s in steps if isinstance(s, HangUp) and s.leg is LegName.CALLER]

    after = played(call, steps)
    assert [s.name for s in after if isinstance(s, StartTimer)] == ["tail"]
    final = call.on_timer("tail")
    assert HangUp(LegName.CALLER) in final
    assert HangUp(LegName.AGENT) not in final
    assert events(final, CallEnded)[0].reason == "ended_with_announcement"


@pytest.mark.parametrize("by", ["agent:dtmf", "agent:phone"])
def test_a_code_and_a_phones_key_end_as_the_button_does(by: str) -> None:
    outcome, detail, steps = connected().act(Action.END, by)
    by_button = connected().act(Action.END, "agent:console")
    assert (outcome, detail) == by_button[:2]
    assert events(steps, CallEnding)[0].by == by
    # Nothing but who it was differs.
    assert [step for step in steps if not isinstance(step, Emit)] == [
        step for step in by_button[2] if not isinstance(step, Emit)
    ]
    assert len(steps) == len(by_button[2])


def test_two_presses_make_one_end() -> None:
    call = connected()
    call.act(Action.END, "agent:dtmf")
    outcome, _, steps = call.act(Action.END, "agent:console")
    assert (outcome, steps) == ("already", [])


def test_the_released_phones_bye_does_not_cut_the_closing() -> None:
    call = connected()
    call.act(Action.END, "agent:dtmf")
    assert call.on_phone_gone(200) == []
    assert call.state is CallState.ENDING


def test_caller_who_hangs_up_during_the_closing_ends_it() -> None:
    call = connected()
    call.act(Action.END, "agent:dtmf")
    steps = call.on_caller_gone(200)
    assert not [s for s in steps if isinstance(s, HangUp)]
    assert events(steps, CallEnded)[0].reason == "ended_with_announcement"


def test_missing_closing_prompt_still_ends_the_call_and_raises_an_alarm() -> None:
    call = connected()
    _, _, steps = call.act(Action.END, "agent:dtmf")
    after = played(call, steps, complete=False, error="gone")
    assert events(after, NodeDegraded)
    assert events(call.on_timer("tail"), CallEnded)


def test_silent_media_worker_cannot_keep_a_closing_call() -> None:
    call = connected()
    _, _, steps = call.act(Action.END, "agent:dtmf")
    (guard,) = [s for s in steps if isinstance(s, StartTimer)]
    assert guard.delay_s == pytest.approx(6.0)
    assert HangUp(LegName.CALLER) in call.on_timer(guard.name)


def test_end_works_during_the_notice() -> None:
    call, _ = in_notice()
    outcome, _, steps = call.act(Action.END, "agent:dtmf")
    assert outcome == "done"
    assert not media(steps, FlowUpdate)[-1].tap


def test_nothing_can_be_ended_before_the_answer() -> None:
    assert ringing().act(Action.END, "agent:console")[0] == "not_now"


def test_warnings_are_graded_and_stop_at_the_third() -> None:
    call = connected()
    grades = []
    for _ in range(4):
        outcome, _, steps = call.act(Action.WARN, "agent:console")
        assert outcome == "done"
        (play,) = [m for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER]
        assert call.act(Action.WARN, "agent:console")[0] == "not_now"
        grades.append(play.files[0])
        assert events(played(call, steps), WarningPlayed)[0].complete
    assert grades == [f"/prompts/warning_{n}.wav" for n in (1, 2, 3, 3)]


def test_help_calls_a_supervisor_at_every_connected_state() -> None:
    for call in (connected(), in_notice()[0]):
        outcome, _, steps = call.act(Action.HELP, "agent:dtmf")
        assert outcome == "done"
        assert steps == [CallSupervisor("agent:dtmf")]


def test_agent_hangs_up_and_the_caller_gets_bye() -> None:
    steps = connected().on_phone_gone(200)
    assert HangUp(LegName.CALLER) in steps
    assert events(steps, CallEnded)[0].reason == "agent_hangup"


def test_hold_closes_the_tap_and_resume_opens_it() -> None:
    call = connected()
    held = media(hold(call, True), FlowUpdate)[-1]
    assert (held.tap, held.on_hold) == (False, True)
    assert hold(call, True) == []
    assert media(hold(call, False), FlowUpdate)[-1].tap


def test_a_notice_that_played_to_a_held_caller_does_not_count() -> None:
    call, steps = in_notice()
    first = media(steps, PlayPrompts)[-1]
    held = hold(call, True)
    assert [m.leg for m in media(held, StopPlay)] == [LegName.CALLER]
    # The stopped prompt's report comes late, and even if it claimed to be whole:
    late = only_stamped(played(call, steps, complete=True))
    assert [(one.complete, one.stopped_by) for one in late] == [(True, ""), (False, "hold")]
    assert call.state is CallState.NOTICE
    assert not media(held, FlowUpdate)[-1].tap

    again = hold(call, False)
    (play,) = media(again, PlayPrompts)
    assert play.files == first.files
    assert not media(again, FlowUpdate)[-1].tap
    assert media(played(call, again), FlowUpdate)[-1].tap


def test_a_caller_on_hold_is_not_warned() -> None:
    call = connected()
    hold(call, True)
    assert call.act(Action.WARN, "agent:console")[0] == "not_now"


def test_lost_media_worker_ends_the_call_on_both_sides() -> None:
    steps = connected().on_media_lost()
    assert {s.leg for s in steps if isinstance(s, HangUp)} == {LegName.CALLER, LegName.AGENT}
    assert events(steps, CallEnded)[0].reason == "media_lost"


# ------------------------------------------------------------------- recording and its pause


def test_recording_opens_with_the_notice_gate_and_closes_on_hold() -> None:
    call, steps = in_notice(record_allowed=True)
    assert not media(steps, FlowUpdate)[-1].record
    assert media(played(call, steps), FlowUpdate)[-1].record
    assert not media(hold(call, True), FlowUpdate)[-1].record
    assert media(hold(call, False), FlowUpdate)[-1].record
    assert not media(call.act(Action.END, "agent:console")[2], FlowUpdate)[-1].record


def test_nothing_is_recorded_that_was_not_announced_or_allowed() -> None:
    for broken in ("skipped", "failed", "not allowed"):
        call, steps = in_notice(record_allowed=broken != "not allowed")
        if broken == "skipped":
            steps = call.act(Action.SKIP_NOTICE, "agent:dtmf")[2]
        else:
            steps = played(call, steps, complete=broken != "failed")
        assert not media(steps, FlowUpdate)[-1].record
        assert not media(hold(call, True) + hold(call, False), FlowUpdate)[-1].record
    attested, steps = in_notice(notice=(), attested={"recording": ""}, record_allowed=True)
    assert media(steps, FlowUpdate)[-1].record
    assert attested.state is CallState.CONNECTED


def test_pause_closes_the_tap_and_resume_opens_it() -> None:
    call = connected(record_allowed=True)
    outcome, _, steps = call.act(Action.PAUSE_RECORDING, "agent:console")
    assert outcome == "done"
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.paused, flow.tap, flow.agent_to_caller) == (True, False, True)
    assert call.act(Action.PAUSE_RECORDING, "agent:dtmf")[0::2] == ("already", [])
    assert not media(hold(call, True) + hold(call, False), FlowUpdate)[-1].tap
    outcome, _, steps = call.act(Action.RESUME_RECORDING, "agent:console")
    flow = media(steps, FlowUpdate)[-1]
    assert (outcome, flow.paused, flow.tap, flow.record) == ("done", False, True, True)
    assert call.act(Action.RESUME_RECORDING, "agent:console")[0::2] == ("already", [])


def test_one_code_pauses_and_resumes() -> None:
    call = connected()
    assert call.keyed(Action.PAUSE_RECORDING) is Action.PAUSE_RECORDING
    call.act(call.keyed(Action.PAUSE_RECORDING), "agent:dtmf")
    assert call.keyed(Action.PAUSE_RECORDING) is Action.RESUME_RECORDING
    assert call.keyed(Action.END) is Action.END


def test_nothing_is_paused_before_the_gate_is_open() -> None:
    assert in_notice()[0].act(Action.PAUSE_RECORDING, "agent:dtmf")[0] == "not_now"


def test_resume_after_a_skipped_notice_opens_no_tap() -> None:
    call, _ = in_notice(record_allowed=True)
    call.act(Action.SKIP_NOTICE, "agent:dtmf")
    call.act(Action.PAUSE_RECORDING, "agent:dtmf")
    flow = media(call.act(Action.RESUME_RECORDING, "agent:dtmf")[2], FlowUpdate)[-1]
    assert (flow.tap, flow.record) == (False, False)


# ------------------------------------------------------------------------- the agent's ear


def ear(steps: list[Step]) -> list[tuple[bool, bool]]:
    """Every state of (softening, levelling) told to the worker; the agent hears of the same."""
    told = [(m.soften, m.levelling) for m in media(steps, EarUpdate)]
    assert [(e.softening, e.levelling) for e in events(steps, EarChanged)] == told
    return told


def test_the_worker_is_told_at_the_start() -> None:
    for levelling in (True, False):
        _, steps = in_notice(levelling=levelling)
        assert [(m.soften, m.levelling) for m in media(steps, EarUpdate)] == [(False, levelling)]


def test_shouting_is_softened_by_itself_and_for_a_while_after() -> None:
    call = connected()
    assert ear(call.on_risk(1)) == []
    assert ear(call.on_risk(2)) == [(True, True)]
    assert ear(call.on_risk(3)) == []
    steps = call.on_risk(1)
    assert steps == [StartTimer("soften", 10.0)]
    assert call.on_risk(0) == []  # the wait does not begin anew
    assert ear(call.on_timer("soften")) == [(False, True)]
    assert call.on_timer("soften") == []


def test_a_storm_that_comes_back_within_the_wait_is_softened_throughout() -> None:
    call = connected()
    call.on_risk(2)
    call.on_risk(0)
    assert call.on_risk(3) == [StopTimer("soften")]
    assert call.on_timer("soften") == []  # a late timer changes nothing


def test_the_agents_own_choice_wins() -> None:
    call = connected()
    call.on_risk(2)
    outcome, detail, steps = call.act(Action.SOFTEN, "agent:dtmf")
    assert (outcome, detail, ear(steps)) == ("done", "Softening is off.", [(False, True)])
    assert ear(call.on_risk(0) + call.on_timer("soften") + call.on_risk(3)) == []
    assert ear(call.act(Action.SOFTEN, "agent:console")[2]) == [(True, True)]
    call.on_risk(0)
    assert call.on_timer("soften") == []


def test_softening_by_itself_can_be_switched_off() -> None:
    call = connected(soften_level=4)
    assert call.on_risk(3) == []
    assert ear(call.act(Action.SOFTEN, "agent:dtmf")[2]) == [(True, True)]


def test_levelling_goes_off_and_on_again() -> None:
    call = connected()
    assert ear(call.act(Action.LEVELLING, "agent:dtmf")[2]) == [(False, False)]
    assert ear(call.act(Action.LEVELLING, "agent:console")[2]) == [(False, True)]


@pytest.mark.parametrize("action", [Action.SOFTEN, Action.LEVELLING])
def test_nobody_else_sets_the_agents_ear(action: Action) -> None:
    call = connected()
    assert call.act(action, "supervisor:t1")[0::2] == ("not_now", [])
    assert call.act(action, "agent:dtmf")[0] == "done"


def test_a_call_that_is_over_is_not_softened() -> None:
    call = connected()
    call.act(Action.END, "agent:console")
    assert call.on_risk(3) == []


# ------------------------------------------------------ what the agent hears of announcements


def test_the_agent_may_hear_the_announcement_quietly_instead_of_a_tone() -> None:
    call, steps = in_notice(agent_hears="prompt")
    (quiet,) = [m for m in media(steps, PlayPrompts) if m.leg is LegName.AGENT]
    (loud,) = [m for m in media(steps, PlayPrompts) if m.leg is LegName.CALLER]
    assert quiet.files == loud.files
    assert (quiet.mix, quiet.loop, quiet.gain_db) == (True, False, -18.0)
    assert (loud.mix, loud.gain_db) == (False, 0.0)
    again = hold(call, True) + hold(call, False)
    assert {m.leg for m in media(again, PlayPrompts)} == {LegName.CALLER, LegName.AGENT}
    played(call, again)
    steps = call.act(Action.WARN, "agent:console")[2]
    assert [m.files for m in media(steps, PlayPrompts)] == [["/prompts/warning_1.wav"]] * 2


# -------------------------------------------------------------------- whatever comes, in any order

OPERATIONS = st.lists(
    st.sampled_from(
        [
            "ring",
            "answer",
            "confirm",
            "played",
            "broken",
            "skip",
            "end",
            "warn",
            "help",
            "hold",
            "resume",
            "caller_gone",
            "phone_gone",
            "timeout",
            "tail",
            "closing",
            "lost",
        ]
    ),
    max_size=25,
)


@settings(max_examples=300)
@given(OPERATIONS)
def test_no_order_of_events_taps_before_the_notice_or_ends_twice(operations: list[str]) -> None:
    call = ringing()
    all_steps: list[Step] = []
    heard = False
    for operation in operations:
        steps: list[Step] = []
        plays = [m for m in media(all_steps, PlayPrompts) if m.leg is LegName.CALLER]
        match operation:
            case "ring":
                steps = call.on_ringing(180)
            case "answer":
                steps = answer(call)
            case "confirm":
                steps = call.on_incoming_confirmed("127.0.0.9")
            case "played" | "broken" if plays:
                if operation == "played" and call.state is CallState.NOTICE:
                    heard = True
                steps = played(call, all_steps, complete=operation == "played")
            case "skip" | "end" | "warn" | "help":
                action = {"skip": Action.SKIP_NOTICE}.get(operation) or Action(operation)
                steps = call.act(action, "agent:dtmf")[2]
            case "hold" | "resume":
                steps = hold(call, operation == "hold")
            case "caller_gone":
                steps = call.on_caller_gone(200)
            case "phone_gone":
                steps = call.on_phone_gone(486)
            case "timeout":
                steps = call.on_media_timeout()
            case "lost":
                steps = call.on_media_lost()
            case "tail" | "closing":
                steps = call.on_timer(operation)
        all_steps += steps
        for flow in media(steps, FlowUpdate):
            assert heard or not flow.tap
            assert not (flow.tap and flow.on_hold)
    assert len(events(all_steps, CallEnded)) <= 1
    assert len(events(all_steps, CallEnding)) <= 1
    assert len(events(all_steps, NoticeFinished)) <= 1
    assert (call.state is CallState.ENDED) == bool(events(all_steps, CallEnded))
    assert len(media(all_steps, CloseSession)) == len(events(all_steps, CallEnded))
