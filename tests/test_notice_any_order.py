"""Whatever happens, in whatever order: what the caller was not told of, or decided against, is
neither tapped nor recorded.

The machine plays a call with everything that may come between: keys, holds, pauses, warnings,
helpers, transfers, another caller. Beside it stands what the promises say, told apart from the
code: who heard which announcement to its end, what was pressed, for how long a key could be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from callshield.messages import Action, Event, LegName, NoticeFinished, PauseChanged
from callshield.messages_media import (
    FlowUpdate,
    LegOpened,
    OpenLeg,
    PlayFinished,
    PlayPrompts,
    StopPlay,
)
from callshield.messages_notice import ProtectionChanged
from sipbridge import notice_talk
from sipbridge.call import Call, CallState
from sipbridge.call_steps import Emit, StartTimer, Step, StopTimer, ToMedia
from sipbridge.caller_choice import CallerChoice, NoticeKeys
from sipbridge.media_gate import MediaGate
from sipbridge.notice_talk import NoticeTalk
from tests.test_call import CALLER_OFFER, PHONE_ANSWER, answer, prompt, ringing
from tests.test_help_request import HELPER_ANSWER, PLAN

WINDOW_S = 5.0
LIVE = (CallState.NOTICE, CallState.CONNECTED)
BUTTONS = [
    Action.WARN,
    Action.HELP,
    Action.SKIP_NOTICE,
    Action.PAUSE_RECORDING,
    Action.RESUME_RECORDING,
    Action.START_RECORDING,
    Action.HAND_OVER,
    Action.PROMISE_CALL_BACK,
    Action.SOFTEN,
]


@dataclass
class Play:
    """What the media worker plays on a leg."""

    order: PlayPrompts
    whole_time: bool = True
    """The caller was there, and not on hold, from its first word until now."""

    @property
    def says(self) -> list[str]:
        return [file.rpartition("/")[2].removesuffix(".wav") for file in self.order.files]


@dataclass
class Promised:
    """What was said, heard and pressed: the promises' own reading of the call."""

    held: bool = False
    agent_held: bool = False
    somebody_else: bool = False
    replaced: bool = False
    missed: bool = False
    """Somebody else was there while the notice was due."""
    notice_heard: bool = False
    objected: bool = False
    agreed: bool = False
    could_press_s: float = 0.0
    """For how long, without a break, since the notice ended."""
    window_was: bool = False
    """That was as long as the notice promises, once."""
    recording_told: bool = False
    paused: bool = False
    pause_wanted: bool = False
    """The agent's last word on it."""
    told: list[str] = field(default_factory=list)

    @property
    def there(self) -> bool:
        return not (self.held or self.somebody_else or self.replaced)


class AnyOrder(RuleBasedStateMachine):
    """One call."""

    call: Call

    @initialize(
        keys=st.sampled_from([("", ""), ("9", ""), ("", "1"), ("9", "1")]),
        attested=st.booleans(),
        on_request=st.booleans(),
        announced=st.booleans(),
        prompts=st.sampled_from(["tone", "prompt"]),
    )
    def begin(
        self, keys: tuple[str, str], attested: bool, on_request: bool, announced: bool, prompts: str
    ) -> None:
        changes: dict[str, Any] = {
            "keys": NoticeKeys(*keys, window_s=WINDOW_S),
            "objection_accepted": prompt("objection_accepted"),
            "record_allowed": True,
            "record_on_request": prompt("begins") if on_request else None,
            "resumed": prompt("resumed") if announced else None,
            "help": PLAN,
            "call_back": prompt("call_back"),
            "agent_hears": prompts,
        }
        if attested:
            changes |= {"notice": (), "attested": {"recording": "1"}}
        self.now = 0.0
        self.timers: dict[str, float] = {}
        self.plays: dict[LegName, Play] = {}
        self.over: list[tuple[Play, bool]] = []
        """Plays whose end the worker has not told yet, and whether they were whole."""
        self.keyed: list[str] = []
        """Keys on their way from the worker."""
        self.flow: FlowUpdate | None = None
        self.said = Promised(notice_heard=attested)
        self.asked_ports: OpenLeg | None = None
        self.broken = False
        """The objection's acceptance could not be played."""
        self.events: list[Event] = []
        self.call = ringing(**changes)
        answer(self.call)
        self.call.media[LegName.AGENT].take_answer(PHONE_ANSWER)
        self.do(self.call.on_incoming_confirmed("127.0.0.9"))

    # ---------------------------------------------------------------- the shell and the worker

    def do(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case StartTimer(name, delay_s):
                    self.timers[name] = self.now + delay_s
                case StopTimer(name):
                    self.timers.pop(name, None)
                case ToMedia(PlayPrompts() as order):
                    self.stop(order.leg)
                    self.plays[order.leg] = Play(order, self.said.there)
                case ToMedia(StopPlay(leg=leg)):
                    self.stop(leg)
                case ToMedia(FlowUpdate() as flow):
                    self.flow = flow
                    self.watched(flow)
                case ToMedia(OpenLeg() as ask):
                    self.asked_ports = ask
                case Emit(event):
                    self.heard_of(event)

    def stop(self, leg: LegName) -> None:
        if play := self.plays.pop(leg, None):
            self.over.append((play, False))

    def heard_of(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, PauseChanged):
            self.said.paused = event.paused

    def watched(self, flow: FlowUpdate) -> None:
        """The promises, at every change of what may pass."""
        said, plan = self.said, self.call.plan
        records = flow.record and not flow.paused
        if not (flow.tap or records):
            return
        assert self.call.state is CallState.CONNECTED
        assert said.notice_heard, "the notice was not heard"
        assert not said.missed, "somebody else heard it"
        assert said.there, "on hold, or somebody else is there"
        assert not said.agent_held, "on hold"
        assert not flow.paused, "paused"
        assert not said.objected, "the caller objected"
        if plan.keys.consent:
            assert said.agreed, "the caller did not agree"
        elif plan.keys.objection:
            assert said.window_was, "the caller had no time to object"
        if records and plan.record_on_request is not None:
            assert said.recording_told, "the caller was not told that recording begins"

    # ---------------------------------------------------------------------------- what happens

    def live(self) -> bool:
        return self.call.state in LIVE

    def present(self, change: Any) -> None:
        """Who is there changes: first in truth, then the call hears of it."""
        change()
        said = self.said
        if not said.there:
            for play in self.plays.values():
                play.whole_time = False
            said.could_press_s = 0.0
        if self.call.state is CallState.NOTICE and said.somebody_else:
            said.missed = True

    @precondition(live)
    @rule(
        digit=st.sampled_from("9911950"),
        late=st.booleans(),
    )
    def press(self, digit: str, late: bool) -> None:
        """The worker reports keys only where it was told to; its word may take a while."""
        if self.flow is None or not self.flow.keys or not self.said.there:
            return
        self.keyed.append(digit)
        if not late:
            self.report_keys()

    @rule()
    def report_keys(self) -> None:
        while self.keyed:
            digit, plan = self.keyed.pop(0), self.call.plan
            asked = self.flow is not None and self.flow.keys and self.live()
            if asked and digit == plan.keys.objection:
                self.said.objected = True
            elif asked and digit == plan.keys.consent:
                self.said.agreed = True
            self.do(self.call.on_caller_key(digit))

    @precondition(lambda self: self.plays)
    @rule(leg=st.sampled_from([LegName.CALLER] * 4 + [LegName.AGENT]), broken=st.booleans())
    def play_ends(self, leg: LegName, broken: bool) -> None:
        play = self.plays.get(leg)
        if play is None or (play.order.loop and not broken):
            return
        del self.plays[leg]
        self.over.append((play, not broken))
        self.broken |= broken and "objection_accepted" in play.says
        self.tell_plays(error="no packet could be sent" if broken else "")

    @precondition(lambda self: self.over)
    @rule()
    def tell_plays(self, error: str = "") -> None:
        """The worker tells what ended, in order."""
        while self.over:
            play, complete = self.over.pop(0)
            if play.order.leg is LegName.CALLER:
                self.heard(play, complete)
            finished = PlayFinished(
                call_id=play.order.call_id,
                play_id=play.order.play_id,
                leg=play.order.leg,
                complete=complete,
                spans=[(100.0, 101.0)] * len(play.order.files),
                error=error,
            )
            self.do(self.call.on_play_finished(finished))

    def heard(self, play: Play, complete: bool) -> None:
        if not (complete and play.whole_time):
            return
        self.said.told += play.says
        if play.says == [p.prompt_id for p in self.call.plan.notice]:
            self.said.notice_heard = True
        if play.says == ["begins"]:
            self.said.recording_told = True

    @rule(seconds=st.sampled_from([0.5, 2.0, WINDOW_S]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = min(self.timers.items(), key=lambda item: item[1], default=("", until + 1))
            step = min(due[1], until) - self.now
            said = self.said
            if self.call.state is CallState.CONNECTED and said.there and not said.paused:
                said.could_press_s += step
                said.window_was |= said.could_press_s >= WINDOW_S
            else:
                said.could_press_s = 0.0
            self.now += step
            if due[1] > until:
                return
            del self.timers[due[0]]
            self.do(self.call.on_timer(due[0]))

    @precondition(live)
    @rule(held=st.booleans(), agent_held=st.booleans())
    def hold(self, held: bool, agent_held: bool) -> None:
        def change() -> None:
            self.said.held, self.said.agent_held = held, agent_held

        self.present(change)
        self.do(self.call.on_hold_changed(caller_held=held, agent_held=agent_held))

    @precondition(live)
    @rule(there=st.booleans())
    def another_is_named(self, there: bool) -> None:
        def change() -> None:
            self.said.somebody_else = there

        self.present(change)
        self.do(self.call.on_caller_named(somebody_else=there))

    @precondition(lambda self: self.call.state is CallState.CONNECTED)
    @rule(really=st.sampled_from([False] * 4 + [True]))
    def caller_replaced(self, really: bool) -> None:
        if not really or self.call.incoming_sdp is None or self.call.incoming_negotiated is None:
            return

        def change() -> None:
            self.said.replaced = True

        self.present(change)
        negotiated = self.call.incoming_negotiated
        self.do(self.call.on_caller_replaced(CALLER_OFFER, negotiated, "127.0.0.7"))

    @precondition(live)
    @rule(action=st.sampled_from(BUTTONS), by=st.sampled_from(["agent:console", "agent:code"]))
    def button(self, action: Action, by: str) -> None:
        resumed = len(self.said.told)
        recorded = self.flow is not None and self.flow.record
        was_paused = self.said.paused
        wanted = self.call.keyed(action)
        outcome, _, steps = self.call.act(wanted, by)
        self.do(steps)
        if action is Action.SKIP_NOTICE and outcome == "done":
            self.said.notice_heard = False
        if outcome == "done" and action in (Action.PAUSE_RECORDING, Action.RESUME_RECORDING):
            self.said.pause_wanted = wanted is Action.PAUSE_RECORDING
            self.said.could_press_s = 0.0
        goes_on = was_paused and not self.said.paused and recorded
        if goes_on and self.call.plan.resumed is not None and self.flow and self.flow.record:
            assert "resumed" in self.said.told[resumed:], "recording went on in silence"

    @precondition(lambda self: self.call.state is CallState.CONNECTED)
    @rule(broken=st.booleans())
    def recording_is_asked_for(self, broken: bool) -> None:
        self.button(Action.START_RECORDING, "agent:console")
        if LegName.CALLER in self.plays:
            self.play_ends(LegName.CALLER, broken)

    @precondition(lambda self: self.call.state is CallState.CONNECTED)
    @rule(presses=st.integers(1, 3), broken=st.booleans())
    def card_data_is_asked_for(self, presses: int, broken: bool) -> None:
        """Paused, gone on with, and paused again while the caller hears that it goes on."""
        buttons = [Action.PAUSE_RECORDING, Action.RESUME_RECORDING, Action.PAUSE_RECORDING]
        for action in buttons[:presses]:
            self.button(action, "agent:console")
        if LegName.CALLER in self.plays:
            self.play_ends(LegName.CALLER, broken)

    @precondition(live)
    @rule()
    def supervisor_presses(self) -> None:
        self.do(self.call.act(Action.JOIN, "supervisor:t1", target="lee")[2])
        outcome, _, steps = self.call.act(Action.START_RECORDING, "supervisor:t1")
        assert (outcome in ("not_now", "not_supported"), steps) == (True, [])

    @precondition(lambda self: self.asked_ports is not None)
    @rule(error=st.sampled_from(["", "", "no ports"]))
    def ports_are_open(self, error: str) -> None:
        ask, self.asked_ports = self.asked_ports, None
        assert ask is not None
        opened = LegOpened(
            request_id=ask.request_id,
            call_id=ask.call_id,
            leg=ask.leg,
            port=0 if error else 26000,
            error=error,
        )
        self.do(self.call.on_leg_opened(opened, 9))

    @precondition(live)
    @rule(answers=st.booleans())
    def helper_answers_or_goes(self, answers: bool) -> None:
        if answers:
            self.do(self.call.on_helper_answered(HELPER_ANSWER, "127.0.0.21"))
        else:
            self.do(self.call.on_helper_gone())

    @precondition(lambda self: self.call.state is CallState.CONNECTED)
    @rule(step=st.sampled_from(["begun", "failed", "done", "failed", "begun"]))
    def transfer(self, step: str) -> None:
        match step:
            case "begun" if self.call.transferable:
                self.do(self.call.on_transfer_begun())
            case "failed":
                self.do(self.call.on_transfer_failed())
            case "done":
                self.do(self.call.on_transferred())

    @precondition(live)
    @rule(what=st.sampled_from(["end", "phone", "caller", *["nothing"] * 40]))
    def somebody_goes(self, what: str) -> None:
        match what:
            case "end":
                self.do(self.call.act(Action.END, "agent:console")[2])
            case "phone":
                self.do(self.call.on_phone_gone(0))
            case "caller":
                self.do(self.call.on_caller_gone(0))

    # --------------------------------------------------------------------------- what stays true

    @invariant()
    def the_worker_does_what_the_call_says(self) -> None:
        if hasattr(self, "call") and self.live():
            now = self.call.flow().message
            assert isinstance(now, FlowUpdate)
            assert self.flow is not None
            assert self.flow.keys or not now.keys, "the worker reports no keys"
            assert self.flow.paused == self.said.paused, "the worker knows of no pause"
            assert self.said.paused or not self.said.pause_wanted, "it went on by itself"
            # A key that the worker still reports and nobody waits for does no harm.
            assert replace(self.flow, keys=False) == replace(now, keys=False), "not told"

    @invariant()
    def the_agent_sees_what_is(self) -> None:
        if not hasattr(self, "call") or self.call.state is not CallState.CONNECTED:
            return
        shown = waits = False
        for event in self.events:
            if isinstance(event, NoticeFinished):
                shown, waits = event.tapped, event.waits
            elif isinstance(event, ProtectionChanged):
                shown, waits = event.protected, False
        open_gate = self.call.gate.tapped and not (self.said.somebody_else or self.said.replaced)
        leaving = not self.call.flow().message.agent_to_caller  # type: ignore[union-attr]
        assert shown == open_gate or leaving, "protection that is not there, or is and is not shown"
        assert waits == self.call.notice_waits

    def teardown(self) -> None:
        """No call stays in its notice, or waits for a key for ever."""
        if not hasattr(self, "call") or not self.live():
            return
        self.asked_ports = None
        for _ in range(12):
            if not self.live():
                return
            if self.said.somebody_else:
                self.another_is_named(False)
            if self.said.held or self.said.agent_held:
                self.hold(False, False)
            self.tell_plays()
            for leg in list(self.plays):
                self.play_ends(leg, self.plays[leg].order.loop)
            if self.said.paused:
                self.button(Action.RESUME_RECORDING, "agent:console")
            self.time_passes(60.0)
        if not self.live():
            return
        assert self.call.state is CallState.CONNECTED
        assert self.said.replaced or not self.call.notice_waits
        if self.said.objected and not self.said.replaced and not self.timers:
            asked = [e for e in self.events if isinstance(e, NoticeFinished)]
            if asked[0].source != "skipped":
                assert "objection_accepted" in self.said.told or self.broken


FAST = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ENOUGH = settings(FAST, max_examples=3000, database=None, phases=[Phase.generate])
"""Until a fault is found, which is not made smaller. Each of the faults below takes some hundred
calls at most on average, so that 3000 without it are no bad luck; those that take more are tried
in test_call_notice."""


def test_nothing_is_tapped_or_recorded_that_the_caller_did_not_know_of() -> None:
    run_state_machine_as_test(AnyOrder, settings=FAST)


def anybody_attends(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(NoticeTalk, "_attends", property(lambda self: True))


def objections_count_for_nothing(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(CallerChoice, "allows", property(lambda self: True))


def no_window(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(CallerChoice, "waits", property(lambda self: False))


def the_gate_forgets(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(MediaGate, "unwatch", lambda self: None)


def pauses_are_forgotten(broken: pytest.MonkeyPatch) -> None:
    flow = MediaGate.flow

    def without(self: MediaGate, **allowed: bool) -> ToMedia:
        return flow(self, **(allowed | {"paused": False}))

    broken.setattr(MediaGate, "flow", without)


def half_a_sentence_counts(broken: pytest.MonkeyPatch) -> None:
    said = NoticeTalk.said

    def any_end(self: NoticeTalk, what: notice_talk.Word, played: PlayFinished) -> list[Step]:
        return said(self, what, replace(played, complete=True))

    broken.setattr(NoticeTalk, "said", any_end)


def recording_goes_on_in_silence(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(NoticeTalk, "resume", lambda self: None)


def whoever_comes_is_tapped(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(MediaGate, "somebody_else", lambda self, *, there: None)


def the_agent_is_not_told(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(NoticeTalk, "caller_changed", lambda self, *, before: [])


def acceptance_is_not_owed(broken: pytest.MonkeyPatch) -> None:
    broken.setattr(NoticeTalk, "tell", lambda self: [])


@pytest.mark.parametrize(
    "fault",
    [
        anybody_attends,
        objections_count_for_nothing,
        no_window,
        the_gate_forgets,
        pauses_are_forgotten,
        half_a_sentence_counts,
        recording_goes_on_in_silence,
        whoever_comes_is_tapped,
        the_agent_is_not_told,
        acceptance_is_not_owed,
    ],
)
def test_a_call_that_breaks_a_promise_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative controls of the test above."""
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(AnyOrder, settings=ENOUGH)
