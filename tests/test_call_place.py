"""The notice before the agent's phone rings, told by the pure call: what may follow what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.messages import Action, CallAnswered, LegName, NodeDegraded, NoticeFinished
from callshield.messages_media import FlowUpdate, PlayFinished, PlayPrompts
from callshield.messages_notice import PromptPlayed, ProtectionChanged
from sipbridge import sdp
from sipbridge.call import Call, CallState
from sipbridge.call_plan import PLACES
from sipbridge.call_steps import AnswerIncoming, CallOut, Emit, HangUp, Step, ToMedia
from sipbridge.caller_choice import NoticeKeys
from sipbridge.notice_talk import NoticeTalk
from tests.test_call import answer, events, hold, make_plan, media, only_stamped, played, prompt

EARLY = [place for place in PLACES if place != "answer"]
BEFORE = {"place": "before_ringing", "ringing": prompt("ringing"), "record_allowed": True}


def opened(**changes: Any) -> tuple[Call, list[Step]]:
    call = Call(make_plan(**{**BEFORE, **changes}), lambda: 100.0)
    call.begin(1)
    return call, call.on_media_open(20000, 25000, 7)


def telling(**changes: Any) -> tuple[Call, list[Step]]:
    """The caller hears the notice."""
    call, _ = opened(**changes)
    return call, call.on_incoming_confirmed("127.0.0.9")


def met(call: Call) -> list[Step]:
    """The agent answers, and where the caller was only promised early media, the ACK comes."""
    steps = answer(call)
    if call.state is CallState.ANSWERING:
        steps += call.on_incoming_confirmed("127.0.0.9")
    return steps


def called(steps: list[Step]) -> list[CallOut]:
    return [step for step in steps if isinstance(step, CallOut)]


def heard(steps: list[Step]) -> list[list[str]]:
    return [play.files for play in media(steps, PlayPrompts) if play.leg is LegName.CALLER]


@pytest.mark.parametrize("place", EARLY)
def test_the_caller_is_described_first_told_next_and_then_the_phone_rings(place: str) -> None:
    call, first = opened(place=place)
    (described,) = first
    assert isinstance(described, AnswerIncoming)
    assert described.status == (200 if place == "before_ringing" else 183)
    assert call.first_answer() == described.sdp, "PJSIP is given the same"
    told = call.on_incoming_confirmed("127.0.0.9")
    assert heard(told) == [["/prompts/abuse_prevention.wav", "/prompts/recording.wav"]]
    assert call.on_incoming_confirmed("127.0.0.9") == [], "once"
    rings = played(call, told)
    (out,) = called(rings)
    assert "PCMU" in out.sdp
    assert heard(rings) == [["/prompts/ringing.wav"]]
    assert media(rings, PlayPrompts)[-1].loop
    assert events(told + rings, NoticeFinished) == [], "nobody is there yet"
    steps = met(call)
    (finished,) = events(steps, NoticeFinished)
    assert (finished.source, finished.tapped, len(finished.prompts)) == ("played", True, 2)
    flow = media(steps, FlowUpdate)[-1]
    assert (flow.agent_to_caller, flow.tap, flow.record) == (True, True, True)
    assert call.state is CallState.CONNECTED
    statuses = [step.status for step in steps if isinstance(step, AnswerIncoming)]
    assert statuses == ([] if place == "before_ringing" else [200])


def test_the_phone_is_offered_what_the_caller_was_answered_with() -> None:
    """Two codecs that cannot be turned into each other would leave the call deaf."""
    offer = sdp.parse(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n"
        "m=audio 4000 RTP/AVP 9 8\r\n"
    )
    call, (described,) = opened(offer=offer)
    assert isinstance(described, AnswerIncoming)
    (out,) = called(played(call, call.on_incoming_confirmed("")))
    assert "G722" not in described.sdp, "the phone's policy comes first"
    assert "G722" not in out.sdp
    assert "PCMA" in described.sdp


@pytest.mark.parametrize("place", EARLY)
def test_a_notice_that_cannot_be_played_rings_and_is_never_tapped(place: str) -> None:
    call, told = telling(place=place)
    assert called(played(call, told, complete=False, error="the file is gone"))
    steps = met(call)
    assert events(steps, NoticeFinished)[0].source == "failed"
    assert events(steps, NodeDegraded)
    assert not media(steps, FlowUpdate)[-1].tap


def test_the_agent_may_skip_it_and_press_nothing_else() -> None:
    call, told = telling()
    for action in (Action.WARN, Action.END, Action.PAUSE_RECORDING, Action.HAND_OVER):
        assert call.act(action, "agent:console")[0] == "not_now"
    outcome, _, steps = call.act(Action.SKIP_NOTICE, "agent:console")
    assert outcome == "done"
    assert called(steps)
    late = only_stamped(played(call, told, complete=False))
    assert late[-1].stopped_by == "skipped"
    steps = met(call)
    assert events(steps, NoticeFinished)[0].source == "skipped"
    assert not media(steps, FlowUpdate)[-1].tap


def test_before_the_caller_is_known_to_hear_there_is_nothing_to_skip() -> None:
    call, _ = opened()
    assert call.act(Action.SKIP_NOTICE, "agent:console")[0] == "not_now"


@pytest.mark.parametrize("when", ["during", "on hold", "ringing"])
def test_an_objection_counts_whenever_it_comes(when: str) -> None:
    call, told = telling(
        keys=NoticeKeys(objection="9"), objection_accepted=prompt("objection_accepted")
    )
    steps: list[Step] = []
    if when == "during":
        call.on_caller_key("9")
        steps = played(call, told, complete=False)
    elif when == "on hold":
        hold(call, True)
        steps = call.on_caller_key("9")
        hold(call, False)
    else:
        steps = played(call, told)
        assert call.on_caller_key("9") == [], "the tone goes on"
    assert len(called(steps)) == 1
    connected = met(call)
    assert events(connected, NoticeFinished)[0].source == "objected"
    assert heard(connected) == [["/prompts/objection_accepted.wav"]]
    assert not media(connected, FlowUpdate)[-1].tap


def test_the_time_for_a_key_counts_from_the_answer_on() -> None:
    call, told = telling(keys=NoticeKeys(objection="9"))
    played(call, told)
    (finished,) = events(met(call), NoticeFinished)
    assert finished.waits
    (change,) = events(call.on_timer("keys"), ProtectionChanged)
    assert change.reason == "no_objection"
    assert media([call.flow()], FlowUpdate)[-1].tap


@pytest.mark.parametrize("place", EARLY)
def test_nobody_answers_and_the_pbx_is_told_so_in_its_own_terms(place: str) -> None:
    call, told = telling(place=place)
    played(call, told)
    steps = call.on_phone_gone(486)
    stamps = [event.stamp.prompt_id for event in events(steps, PromptPlayed)]
    assert stamps == ["abuse_prevention", "recording"]
    ended = [step for step in steps if isinstance(step, HangUp) and step.leg is LegName.CALLER]
    if place == "before_ringing":
        assert [step.status for step in ended] == [486]
    else:
        assert ended == []
        assert [s.status for s in steps if isinstance(s, AnswerIncoming)] == [486]


def test_a_caller_who_gives_up_while_it_rings_heard_the_notice_all_the_same() -> None:
    call, told = telling()
    played(call, told)
    steps = call.on_caller_gone(200)
    assert [event.stamp.complete for event in events(steps, PromptPlayed)] == [True, True]


@pytest.mark.parametrize(
    "changes",
    [{"notice": ()}, {"offer": None}, {"ringing": None}, {"incoming": LegName.AGENT}],
)
def test_a_plan_that_could_not_be_kept_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only a caller who made an offer"):
        make_plan(**{**BEFORE, **changes})


# ---------------------------------------------------------------------------------- any order

EVENTS = [
    "confirmed", "whole", "broken", "hold", "back", "9", "1", "skip", "answer", "somebody",
    "caller", "keys", "busy",
]  # fmt: skip


UNDECIDED = (CallState.TELLING, CallState.RINGING)


class Judge:
    """What the promises say, told apart from the code, and what the steps do."""

    def __init__(self, keys: NoticeKeys) -> None:
        changes = {"keys": keys, "objection_accepted": prompt("objection_accepted")}
        self.call, steps = opened(**changes)
        self.keys = keys
        self.playing: PlayPrompts | None = None
        self.heard_whole = self.there = self.over = False
        self.begun = False
        self.calls_out = 0
        self.held = self.other = self.missed = False
        self.pressed: set[str] = set()
        self.window_over = False
        self.look(steps)

    def look(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case CallOut():
                    self.calls_out += 1
                    assert self.over, "the phone rang before the notice was over"
                case ToMedia(PlayPrompts() as play) if play.leg is LegName.CALLER:
                    self.playing = play
                case ToMedia(FlowUpdate() as flow):
                    self.check(flow)
                case Emit(CallAnswered()):
                    self.there = True
                case _:
                    pass
        assert self.calls_out <= 1

    def check(self, flow: FlowUpdate) -> None:
        if not self.there:
            assert not flow.caller_to_agent, "nobody is there yet"
            assert not flow.agent_to_caller
        if flow.tap or flow.record:
            assert self.heard_whole, "watched before the notice was heard"
            assert not self.missed
            assert "9" not in self.pressed or not self.keys.objection
            if self.keys.consent:
                assert "1" in self.pressed
            elif self.keys.objection:
                assert self.window_over

    def finish(self, *, complete: bool) -> None:
        play = self.playing
        if play is None or play.loop or "accepted" in play.files[0]:
            return
        self.playing = None
        if self.call.state is CallState.TELLING:
            self.over = True
            self.heard_whole = complete and not (self.held or self.other)
        spans = [(100.0, 101.0) for _ in play.files]
        self.look(
            self.call.on_play_finished(
                PlayFinished(
                    call_id=play.call_id,
                    play_id=play.play_id,
                    leg=play.leg,
                    complete=complete,
                    spans=spans,
                )
            )
        )

    def happen(self, event: str) -> None:
        call = self.call
        match event:
            case "confirmed":
                self.begun = True
                self.look(call.on_incoming_confirmed(""))
            case "whole" | "broken":
                self.finish(complete=event == "whole")
            case "hold" | "back":
                self.held = event == "hold"
                self.look(hold(call, self.held))
            case "9" | "1":
                # Pressed by somebody else, or on hold, an agreement is nobody's.
                flow = call.flow().message
                assert isinstance(flow, FlowUpdate)
                if flow.keys or (event == "9" and self.begun and call.state in UNDECIDED):
                    self.pressed.add(event)
                objects = self.begun and self.keys.objection == event
                if objects and call.state is CallState.TELLING:
                    self.over = True
                self.look(call.on_caller_key(event))
            case "skip":
                outcome, _, steps = call.act(Action.SKIP_NOTICE, "agent:console")
                self.over = self.over or outcome == "done"
                self.look(steps)
            case "answer":
                if call.state is CallState.RINGING:
                    self.there = True
                    self.look(met(call))
            case "somebody" | "caller":
                self.other = event == "somebody"
                if self.other and call.state is not CallState.CONNECTED:
                    self.missed = True
                self.look(call.on_caller_named(somebody_else=self.other))
            case "keys":
                if call.notice_waits:
                    self.window_over = True
                self.look(call.on_timer("keys"))
            case "busy":
                if call.state is CallState.RINGING:
                    self.look(call.on_phone_gone(486))


ORDERS = st.lists(st.sampled_from(EVENTS), max_size=25)
KEYS = st.sampled_from([NoticeKeys(), NoticeKeys(objection="9"), NoticeKeys(consent="1")])


@given(KEYS, ORDERS)
def test_in_any_order_nothing_is_watched_unheard_and_no_phone_rings_early(
    keys: NoticeKeys, order: list[str]
) -> None:
    judge = Judge(keys)
    for event in order:
        judge.happen(event)


def test_that_judge_sees_a_notice_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a notice that could not be played counts as heard."""
    monkeypatch.setattr(
        NoticeTalk,
        "_over",
        lambda self, played, stamps: self._opened("played", stamps, heard=True),
    )
    judge = Judge(NoticeKeys())
    judge.happen("confirmed")
    judge.happen("broken")
    with pytest.raises(AssertionError, match="watched before the notice was heard"):
        judge.happen("answer")
