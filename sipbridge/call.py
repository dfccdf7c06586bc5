"""One protected call as a pure state machine: events in, things to do out.

::

    INVITE ──► OPENING ──► RINGING ──► ANSWERING ──► NOTICE ──► CONNECTED ──► ENDING ──► ENDED
                 │            │             │           │            │           ▲
                 └────────────┴── refused, cancelled, no answer ─────┴── end ────┘
                                                                     └──► TRANSFERRED ──► ENDED

Where the notice comes before ringing: OPENING, TELLING, RINGING, ANSWERING, CONNECTED.

Everything up to ANSWERING is in :mod:`sipbridge.call_setup`, who takes whose place is in
:mod:`sipbridge.call_moves`, and the rest here; the helper's leg is :mod:`sipbridge.help_request`'s,
what plays is :mod:`sipbridge.announcer`'s, what may pass is :mod:`sipbridge.media_gate`'s, and the
notice and the caller's word on it are :mod:`sipbridge.notice_talk`'s.

The machine knows no socket, no clock and no pjsua2: its methods take what happened and return
steps (:mod:`sipbridge.call_steps`) that the shell (:mod:`sipbridge.bridged`) carries out in order.
The promises of the house live here and are tested here:

* nothing is tapped before the notice was heard to its end or a trusted peer attested it, and
  never after the agent skipped it or it could not be played (principle 3);
* where the notice names a key, nothing is tapped or recorded before the caller's choice is known,
  and never after an objection;
* a call between colleagues is never tapped, recorded or announced, whatever happens in it;
* *end* releases the agent first, then the caller hears the closing prompt, then BYE;
* two presses make one end; every button works in every connected state (principle 5).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from callshield.messages import Action, LegName
from callshield.messages_media import CloseSession, LegOpened, PlayFinished
from callshield.messages_notice import PromptStamp, ProtectionReason
from sipbridge.announcer import Announcement, Announcer
from sipbridge.call_back import CallBackTalk
from sipbridge.call_moves import CallMoves
from sipbridge.call_plan import CallPlan
from sipbridge.call_setup import CallState
from sipbridge.call_steps import (
    CallSupervisor,
    Emit,
    Forget,
    HangUp,
    Outcome,
    StartTimer,
    Step,
    StopTimer,
    ToMedia,
)
from sipbridge.ear_choice import EarChoice
from sipbridge.help_request import HelpRequest, Stage
from sipbridge.notice_talk import NoticeTalk
from sipbridge.phone_status import refusal_for_pbx
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sdp import SessionDescription

__all__ = ["Call", "CallState"]

#: Silence after the closing prompt so that the caller's jitter buffer plays out before BYE.
CLOSING_TAIL_S = 0.2
#: The closing prompt never keeps a call longer than this beyond its own length.
CLOSING_GRACE_S = 5.0
#: What makes no sense where nothing is analysed, recorded or announced.
_NOT_BETWEEN_COLLEAGUES = frozenset(
    {
        Action.WARN,
        Action.SKIP_NOTICE,
        Action.PAUSE_RECORDING,
        Action.RESUME_RECORDING,
        Action.START_RECORDING,
        Action.JOIN,
        Action.HAND_OVER,
        Action.PROMISE_CALL_BACK,
    }
)
_UNANSWERED = (CallState.OPENING, CallState.TELLING, CallState.RINGING, CallState.ANSWERING)
_MET = (CallState.NOTICE, CallState.CONNECTED, CallState.TRANSFERRED)
_BETWEEN_COLLEAGUES = (
    "This is a call between colleagues: it is not analysed or recorded, and nothing is announced."
)


class Call(CallMoves):
    """The state of one call, from its first INVITE to its last BYE.

    Args:
        plan: what the INVITE fixed.
        now: wall clock, seconds since the epoch; stamps events only.
        clock: seconds that no step of the wall clock moves.
    """

    def __init__(
        self, plan: CallPlan, now: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(plan, now, clock)
        self.warnings_played = 0
        self.paused = False
        """Card data: no tap, no recording, and the caller's digits go nowhere."""
        self.help = HelpRequest(self)
        self.ear = EarChoice(
            plan.call_id, now, levelling=plan.levelling, soften_level=plan.soften_level
        )
        self._plays = Announcer(plan)
        self._notice = NoticeTalk(self, self._plays)
        self._call_back = CallBackTalk(self, self._plays)
        self.excluded = False
        """Left out of quality sampling, handling time and surveys: the BYE says so."""
        self._end_reason = ""
        self._caller_gone = False
        self._somebody_else = False
        self._caller_replaced = False
        self._phone_gone = False
        self._caller_held = False
        self._agent_held = False
        self._transferring = False
        """A transfer that the agent asked for is under way: the phone may hang up meanwhile."""
        self._may_trigger = False
        self._in_crisis = False
        self._telling = False
        """The notice began before the phone rang."""
        self._transferred = False
        """It came about: the caller's leg is the PBX's to end."""

    # -------------------------------------------------------------------------------- notice

    def on_incoming_confirmed(self, signalling_address: str) -> list[Step]:
        """The ACK to our 200 came: both sides are there, media may flow, the notice begins.

        It does not begin earlier: what is sent before the PBX has our answer may be lost, and
        a caller who missed the first words has not heard the notice.
        """
        if self.state is CallState.TELLING:
            return self._tell(signalling_address)
        if self.state is not CallState.ANSWERING:
            return []
        if self.plan.tells_first:
            self.state = CallState.CONNECTED
            return [self.ear.update(), self._plays.hush(LegName.CALLER), *self._notice.met()]
        incoming, plan = self.plan.incoming, self.plan
        if self.incoming_negotiated is None or self.incoming_sdp is None:
            return self.on_error("caller_answer_missing", 488)
        steps: list[Step] = [
            ToMedia(
                self.leg_update(
                    incoming, self.incoming_sdp, self.incoming_negotiated, signalling_address
                )
            ),
            self.ear.update(),
        ]
        self._notice.begin()
        if not plan.notice:  # the PBX attested every one of them, or none is owed
            self.state = CallState.CONNECTED
            return [*steps, *self._notice.nothing_owed()]
        self.state = CallState.NOTICE
        caller = self.incoming_sdp if incoming is LegName.CALLER else self.called_sdp
        assert caller is not None
        assert caller.audio is not None
        self._caller_held = self._caller_held or caller.audio.held
        self.on_hold = self._caller_held or self._agent_held
        steps += [self.flow(), *self.murmur(() if self._caller_held else self.plan.notice)]
        if not self._caller_held:
            steps.append(self._plays.to_caller("notice", self.plan.notice))
        return [*steps, self.events.notice_started()]

    def _tell(self, signalling_address: str) -> list[Step]:
        """The caller has our session description, and no phone rings yet: the notice begins."""
        incoming = self.plan.incoming
        if self._telling or self.incoming_sdp is None or self.incoming_negotiated is None:
            return []
        self._telling = True
        audio = self.incoming_sdp.audio
        self._caller_held = self._caller_held or (audio is not None and audio.held)
        self.on_hold = self._caller_held
        self._notice.begin()
        return [
            ToMedia(
                self.leg_update(
                    incoming, self.incoming_sdp, self.incoming_negotiated, signalling_address
                )
            ),
            self.flow(),
            *([] if self._caller_held else [self._plays.to_caller("notice", self.plan.notice)]),
            self.events.notice_started(),
        ]

    def _told(self, played: PlayFinished | None, stamps: list[PromptStamp]) -> list[Step]:
        """The notice before ringing is over: the agent's phone rings, and the caller hears so."""
        assert self.plan.ringing is not None
        self._notice.over_before_ringing(played, stamps)
        steps = self.ring()
        return [*steps, self.flow(), self._plays.to_caller("ringing", [self.plan.ringing])]

    @property
    def notice_waits(self) -> bool:
        """The notice is over, and a key of the caller's may still decide."""
        return self._notice.waits

    @property
    def notice_choice(self) -> ProtectionReason | Literal[""]:
        """What was last told of the caller's choice; ``""``: nothing."""
        return self._notice.told

    def on_caller_key(self, digit: str) -> list[Step]:
        """The caller pressed a digit while a key of the notice's may be."""
        told_first = self.plan.tells_first and self.state is CallState.RINGING
        listening = (CallState.TELLING, CallState.NOTICE, CallState.CONNECTED)
        if not (told_first or self.state in listening):
            return []
        during_notice = self.state is not CallState.CONNECTED
        steps = self._notice.pressed(digit, during_notice=during_notice)
        unheard = self._notice.objected and self._plays.announcing != "notice"
        if self.state is CallState.NOTICE and unheard:
            self.state = CallState.CONNECTED
            return [*steps, *self._notice.objected_on_hold()]
        if self.state is CallState.TELLING and unheard:
            return [*steps, *self._told(None, [])]
        return steps

    def flow(self) -> ToMedia:
        """What may pass now; the tap is open only where the notice opened it."""
        if self.state in _UNANSWERED:
            if not self.plan.tells_first:
                return super().flow()
            keys = self._notice.keys_wanted
            return self.gate.flow(
                hears=False, talks=False, on_hold=True, paused=False, conference=False, keys=keys
            )
        if self.state is CallState.TRANSFERRED:
            return self.gate.transferred(on_hold=self.on_hold)
        talks = self.state is CallState.CONNECTED and not self._phone_gone
        return self.gate.flow(
            hears=talks or (self.state is CallState.NOTICE and not self._phone_gone),
            talks=talks,
            on_hold=self.on_hold,
            paused=self.paused,
            conference=self.help.conference,
            keys=self._notice.keys_wanted,
        )

    def on_play_finished(self, played: PlayFinished) -> list[Step]:
        """A prompt ended, was stopped, or could not be played."""
        if played.leg is LegName.AGENT:
            return self._after_help(self.help.on_played(played))
        # Before it is asked what ended, and also when nothing hangs on that any more: the call's
        # record names everything that the caller heard, or a part of it.
        if self.state is CallState.ENDED:
            self._plays.unheard("hangup")
        stamps = self._plays.stamps(played)
        what = self._plays.ended(played)
        if what == "notice" and self.state is CallState.NOTICE:
            self.state = CallState.CONNECTED
            return self._notice.played(played, stamps)
        if what == "notice" and self.state is CallState.TELLING:
            return self._told(played, stamps)
        return [*self.events.prompts_played(stamps), *self._after_play(what, played)]

    def _after_play(self, what: Announcement | Literal[""], played: PlayFinished) -> list[Step]:
        if what in ("help", "hold_on") and self.state is CallState.CONNECTED:
            return self._after_help(self.help.on_played(played))
        if what == "call_back" and self.state is CallState.CONNECTED:
            spoken = self._call_back.on_played(played)
            if self._phone_gone and self.help.stage is Stage.NONE:
                return [*spoken, *self._finish("agent_hangup")]
            return [*spoken, *self._notice.tell(), *self.help.tell()]
        if what == "warning" and self.state is CallState.CONNECTED:
            return self._after_warning(played)
        if what in ("objection", "recording", "resumed") and self.state is CallState.CONNECTED:
            said = self._notice.said(what, played)
            return [*said, *self._notice.tell(), *self.help.tell(), *self._call_back.tell()]
        if what == "closing" and self.state is CallState.ENDING:
            steps: list[Step] = [StartTimer("tail", CLOSING_TAIL_S)]
            if not played.complete:
                steps.append(
                    self.events.prompts_degraded(played.error or "the closing prompt stopped")
                )
            return steps
        return []

    def _warning_unheard(self) -> list[Step]:
        """The caller was put on hold: the warning was not heard; the agent may press again."""
        if self._plays.announcing != "warning":
            return []
        return [
            self._plays.hush(LegName.CALLER, "hold"),
            self._plays.stop(LegName.AGENT),
            self.events.warning_played(grade=self.warnings_played, complete=False),
        ]

    def _after_warning(self, played: PlayFinished) -> list[Step]:
        steps: list[Step] = [
            self._plays.stop(LegName.AGENT),
            self.events.warning_played(grade=self.warnings_played, complete=played.complete),
        ]
        if not played.complete and played.error:
            steps.append(self.events.prompts_degraded(played.error))
        return [*steps, *self._notice.tell(), *self.help.tell(), *self._call_back.tell()]

    # --------------------------------------------------------------------------- what people do

    def act(
        self, action: Action, by: str, *, target: str = "", request_id: str = ""
    ) -> tuple[Outcome, str, list[Step]]:
        """A button, phone key or DTMF code.

        Args:
            action: what is wanted.
            by: ``agent:…``, ``supervisor:<token id>``, or ``policy``: an automatic step, which
                takes a level that may trigger one, and never happens in a crisis;
                ``policy:length``: the end of a call that lasted too long, never in a crisis.
            target: id of a configured helper, for *join* and *hand over*.
            request_id: of a request for help that the notifier may repeat.

        Returns:
            outcome, a sentence for the person who pressed, and the steps.
        """
        if self.state in (CallState.ENDING, CallState.ENDED):
            if action is Action.END:
                return "already", "The call is already being ended.", []
            return "not_now", "The call is being ended.", []
        if by.startswith("policy"):
            if self.plan.spared:
                return "not_now", "With this caller nothing is done automatically.", []
            if self._in_crisis:
                return "not_now", "The caller may be in danger: a person decides.", []
            # The length of a call is no judgement of the caller, whatever a detector says.
            if not self._may_trigger and (action, by) != (Action.END, "policy:length"):
                return "not_now", "Nothing automatic follows from sound alone.", []
        if self.state is CallState.TRANSFERRED or self._transferred:
            return "not_now", "The call was transferred.", []
        if action is Action.HELP and by == "agent:console":
            # The notifier, where it was pressed, has raised the alert: here it is remembered.
            self.help.ask(request_id)
            return "done", "A supervisor is called.", []
        if self.state is CallState.TELLING and action is Action.SKIP_NOTICE and self._telling:
            hush = self._plays.hush(LegName.CALLER, "skipped")
            return (
                "done",
                "Your phone rings; this call is not analysed.",
                [
                    hush,
                    *self._told(None, []),
                ],
            )
        if self.state in _UNANSWERED:
            return "not_now", "The call has not been answered yet.", []
        if self.plan.internal and action is Action.END:
            return "done", "The call is ended.", self._finish("agent_hangup")
        if self.plan.internal and action in _NOT_BETWEEN_COLLEAGUES:
            return "not_now", _BETWEEN_COLLEAGUES, []
        if action is Action.END:
            return "done", "The caller hears the closing announcement.", self._end(by)
        if self._phone_gone:
            return "not_now", "The agent has left.", []
        if action is Action.HELP:
            if not by.startswith("agent:"):
                return "not_now", "Only the call's own agent asks for help.", []
            self.help.ask()
            return "done", "A supervisor is called.", [CallSupervisor(by)]
        if action is Action.SKIP_NOTICE:
            if self.state is not CallState.NOTICE:
                return "already", "The notice is over.", []
            return "done", "Connected; this call is not analysed.", self._skip_notice()
        if action in (Action.SOFTEN, Action.LEVELLING):
            if not self.plan.ear_can_be_set:
                return "not_supported", "Here the sound reaches you as it comes.", []
            return self.ear.toggle(action, by)
        if self.state is CallState.NOTICE:
            return "not_now", "The notice is still playing.", []
        if action is Action.WARN:
            if busy := self._notice.must_wait():
                return "not_now", busy, []
            return "done", "The caller hears the warning.", self._warn()
        if action in (Action.PAUSE_RECORDING, Action.RESUME_RECORDING):
            return self._pause(pause=action is Action.PAUSE_RECORDING)
        if action is Action.START_RECORDING:
            return self._notice.start_recording(by)
        if action in (Action.JOIN, Action.HAND_OVER):
            if self._transferring:
                return "not_now", "The call is being transferred.", []
            press = self.help.join if action is Action.JOIN else self.help.hand_over
            outcome, detail, steps = press(by, target)
            return outcome, detail, self._after_help(steps)
        if action is Action.PROMISE_CALL_BACK:
            return self._call_back.promise(by)
        return "not_supported", f"{action.value} is not available in this version.", []

    def keyed(self, action: Action) -> Action:
        """What a code on the phone means now: one code pauses and resumes."""
        if action is Action.PAUSE_RECORDING and self.paused and not self._notice.resuming:
            return Action.RESUME_RECORDING
        return action

    def _pause(self, *, pause: bool) -> tuple[Outcome, str, list[Step]]:
        if pause and self._notice.resuming:
            steps = [*self._notice.stay_paused(), *self.help.tell(), *self._call_back.tell()]
            return "done", "It stays paused.", steps
        if pause == self.paused:
            return "already", "It is paused already." if pause else "It is not paused.", []
        if not pause and (announced_first := self._notice.resume()) is not None:
            return announced_first
        self.paused = pause
        if pause:
            detail = "Recording and analysis are paused; the caller's digits go nowhere."
        else:
            detail = "Recording and analysis go on."
        waiting = self._notice.attention_changed()
        return "done", detail, [self.flow(), self.events.paused(pause), *waiting]

    def _warn(self) -> list[Step]:
        prompt = self.plan.warnings[min(self.warnings_played, len(self.plan.warnings) - 1)]
        self.warnings_played += 1
        return [*self.murmur([prompt]), self._plays.to_caller("warning", [prompt])]

    def _skip_notice(self) -> list[Step]:
        self.state = CallState.CONNECTED
        return [
            self._plays.hush(LegName.CALLER, "skipped"),
            self._plays.stop(LegName.AGENT),
            *self._notice.skipped(),
        ]

    def _end(self, by: str) -> list[Step]:
        self.state = CallState.ENDING
        self.excluded = True
        self._end_reason = "ended_with_announcement"
        self._phone_gone = True
        return [
            HangUp(LegName.AGENT),  # first: the agent is free at once
            *self.help.drop(),
            self.flow(),
            self._plays.stop(LegName.AGENT),
            self._plays.to_caller("closing", [self.plan.closing]),
            self.events.ending(by),
            StartTimer("closing", self.plan.closing.duration_s + CLOSING_GRACE_S),
        ]

    def on_risk(self, level: int, *, may_trigger: bool = False) -> list[Step]:
        """The caller's risk level, 0-3: from a configured one on, shouting is softened.

        Args:
            level: of the call now.
            may_trigger: it rests on words that are confirmed, or on the agent's word: an
                automatic step may follow from it.
        """
        self._may_trigger = may_trigger
        talking = self.state in (CallState.NOTICE, CallState.CONNECTED)
        return self.ear.on_level(level) if talking else []

    def on_crisis(self) -> None:
        """The caller may be in danger: from now on nothing automatic warns or ends this call."""
        self._in_crisis = True

    def on_marked(self) -> None:
        """The notifier says that this call counts for nobody's figures."""
        self.excluded = True

    # --------------------------------------------------- the helper's leg (help_request.HelpedCall)

    def on_leg_opened(self, opened: LegOpened, session_id: int) -> list[Step]:
        """The media worker reserved ports for the helper's leg, or says why not."""
        if self.state is not CallState.CONNECTED or opened.leg is not LegName.HELPER:
            return []
        return self._after_help(
            self.help.on_leg_opened(opened.request_id, opened.port, opened.error, session_id)
        )

    def on_helper_answered(
        self,
        sdp: SessionDescription | None,
        signalling_address: str,
    ) -> list[Step]:
        """200 from the helper's phone; ``None`` when its session description cannot be read."""
        if self.state is not CallState.CONNECTED:
            return []
        return self._after_help(self.help.on_answered(sdp, signalling_address))

    def on_helper_gone(self) -> list[Step]:
        """The helper's phone refused, could not be reached, or hung up."""
        if self.state is not CallState.CONNECTED:
            return []
        return self._after_help(self.help.on_gone())

    def on_helper_hold(self, *, held: bool) -> list[Step]:
        """The helper's phone holds or resumes."""
        return self.help.on_hold(held=held) if self.state is CallState.CONNECTED else []

    def _after_help(self, steps: list[Step]) -> list[Step]:
        """The manager does not come and the agent has left: nobody is there for the caller, who
        hears that somebody will call back, where that is so."""
        alone = self._phone_gone and not (self.help.handing_over or self._transferring)
        if self.state is CallState.CONNECTED and alone and not self._transferred:
            telling = self._call_back.tell()
            if not telling and not self._call_back.saying:
                return [*steps, *self._finish("agent_hangup")]
            return [*steps, *telling]
        if self.state is CallState.CONNECTED:
            return [*steps, *self._notice.tell(), *self._call_back.tell()]
        return steps

    def owe_call_back(self) -> None:
        self._call_back.owe()

    @property
    def caller_listens(self) -> bool:
        return not self._caller_held

    @property
    def caller_free(self) -> bool:
        return self._plays.announcing in ("", "hold_on")

    @property
    def agent_listens(self) -> bool:
        return not self._agent_held and not self._phone_gone

    @property
    def plays_untold(self) -> bool:
        """The media worker has yet to say how much the caller heard of an announcement."""
        return self._plays.untold

    @property
    def agent_left(self) -> bool:
        return self._phone_gone

    def say(self, leg: LegName, prompts: Sequence[Prompt], *, loop: bool = False) -> ToMedia:
        if leg is LegName.CALLER:
            return self._plays.to_caller("hold_on" if loop else "help", prompts)
        return self._plays.to_agent(prompts, gain_db=None)

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """The agent's soft tone while the caller hears ``prompts``, or the prompts, quietly."""
        return [] if self._phone_gone else self._plays.murmur(prompts)

    def playing(self, leg: LegName) -> int:
        return self._plays.play_on(leg)

    def hush(self, leg: LegName) -> ToMedia:
        return self._plays.hush(leg, "superseded" if self.caller_listens else "hold")

    def alarm(self, reason: str) -> Emit:
        return self.events.prompts_degraded(reason)

    def helper_took_over(self) -> list[Step]:
        """The helper's leg is the agent's from now on; its ear begins as the configuration says."""
        self.media[LegName.AGENT] = self.media.pop(LegName.HELPER)
        self._phone_gone = False
        self._agent_held = self.help.held
        self.on_hold = self._caller_held or self._agent_held
        return [self.flow(), *self.ear.on_new_agent()]

    # ------------------------------------------------------------------------ changes and ends

    def on_hold_changed(self, *, caller_held: bool, agent_held: bool) -> list[Step]:
        """Either side holds or resumes: on hold nothing is analysed and silence is no fault.

        A notice that plays while the caller is held plays to nobody (the PBX lets the caller
        hear music): it begins again, from its first word, when the caller is back.
        """
        steps: list[Step] = []
        before, self._caller_held = self._caller_held, caller_held
        self._agent_held = agent_held
        if caller_held and not before:
            self._plays.unheard("hold")
        held = caller_held or agent_held
        if held != self.on_hold:
            self.on_hold = held
            if self.state in _MET or self._telling:
                steps += [self.flow(), self.events.held(held)]
        elif caller_held != before and self.state in (CallState.NOTICE, CallState.CONNECTED):
            steps.append(self.flow())  # whether what the caller presses is heard
        # Whoever objected need not hear the rest: its end, which was ordered, is waited for.
        notice = self.state is CallState.NOTICE
        telling = notice or (self.state is CallState.TELLING and self._telling)
        telling = telling and not self._notice.objected
        if telling and caller_held != before:
            if caller_held:
                steps.append(self._plays.hush(LegName.CALLER, "hold"))
            else:
                if notice and self.plan.agent_hears == "prompt":
                    steps += self.murmur(self.plan.notice)
                steps.append(self._plays.to_caller("notice", self.plan.notice))
        if self.state is CallState.CONNECTED:
            if caller_held and not before:
                steps += [*self._notice.unheard(), *self._warning_unheard()]
            steps += self._notice.attention_changed()
            steps += self._notice.tell()
            steps += self.help.on_hold_changed()
            steps += self._call_back.on_hold_changed()
            if self._phone_gone and self._call_back.owed:
                steps += self._after_help([])  # held, and nobody is there who waits
        return steps

    def on_caller_gone(self, status: int, contact: str = "") -> list[Step]:
        """BYE or CANCEL from the caller's side, or a called party's final refusal."""
        self._caller_gone = True
        if self.state is CallState.ENDED:
            return []
        if self.state is CallState.ENDING:
            return self._finish(self._end_reason)
        if self.state is CallState.RINGING and self.plan.outgoing is LegName.CALLER:
            return self._refused(status, contact)
        if self._transferring or self._transferred:
            reason = "transferred"
        else:
            reason = "caller_hangup" if self.answered_ts else "cancelled"
        return self._finish(reason, sip_status=status)

    def on_phone_gone(self, status: int, contact: str = "", rest_s: int = 0) -> list[Step]:
        """BYE or CANCEL from the agent's side, or its final refusal with ``status``."""
        self._phone_gone = True
        if self.state in (CallState.ENDING, CallState.ENDED):
            return []
        if self.state is CallState.CONNECTED and self.help.handing_over:
            # The agent need not wait for the manager: the caller is asked to, and is not alone.
            return [self.flow(), *self.help.tell()]
        if self.state is CallState.CONNECTED and self._call_back.saying:
            return self._call_back.alone()
        if self._transferring and not self._transferred:
            return self._agent_left()
        if self.state is CallState.RINGING and self.plan.outgoing is LegName.AGENT:
            return self._refused(status, contact, rest_s)
        if self._transferred:
            reason = "transferred"
        else:
            reason = "agent_hangup" if self.answered_ts else "cancelled"
        return self._finish(reason, sip_status=status)

    def _refused(self, status: int, contact: str, rest_s: int = 0) -> list[Step]:
        """The side that we called does not take the call: the PBX is told as it is."""
        answer, reason = refusal_for_pbx(status, contact, rest_s, over_trunk=bool(self.plan.trunk))
        if self.plan.place == "before_ringing":  # the caller's INVITE was answered long ago
            self._phone_gone = True
            return self._finish(reason, status=answer.status, sip_status=status)
        if self.plan.incoming is LegName.CALLER:
            self._caller_gone = True
        else:
            self._phone_gone = True
        return [answer, *self._finish(reason, sip_status=status)]

    # ------------------------------------------------------------------------------------ ends

    def on_media_refused(self) -> list[Step]:
        """No ports: the PBX may try elsewhere."""
        return self._finish("no_media_ports", status=503)

    def on_media_timeout(self) -> list[Step]:
        """No RTP either way for the configured time."""
        if self.state is CallState.ENDED:
            return []
        return self._finish("media_timeout")

    def on_media_lost(self) -> list[Step]:
        """The media worker died: its ports, and so the audio of this call, are gone."""
        self._plays.never_told()
        if self.state is CallState.ENDED:
            return []
        return self._finish("media_lost", status=503)

    def on_shutdown(self) -> list[Step]:
        """The node stops and its patience is over."""
        if self.state is CallState.ENDED:
            return []
        return self._finish("shutdown", status=503)

    def on_error(self, reason: str, status: int = 500) -> list[Step]:
        """A step could not be carried out."""
        if self.state is CallState.ENDED:
            return []
        return self._finish(reason, status=status)

    def on_timer(self, name: str) -> list[Step]:
        """A timer of :class:`StartTimer` ran out."""
        if name == "ring" and self.state is CallState.RINGING:
            return self._finish("no_answer", status=480)
        if name == "transfer" and self._transferred and self.state is CallState.CONNECTED:
            return self._finish("transferred")
        if name in ("closing", "tail") and self.state is CallState.ENDING:
            return self._finish(self._end_reason)
        if name == "helper" and self.state is CallState.CONNECTED:
            return self._after_help(self.help.on_timer())
        if name == "call_back" and self.state is CallState.CONNECTED and self._phone_gone:
            return self._finish("agent_hangup")
        if name == "keys" and self.state is CallState.CONNECTED:
            return self._notice.window_over()
        if name == "soften" and self.state in (CallState.NOTICE, CallState.CONNECTED):
            return self.ear.on_waited()
        return []

    def _finish(self, reason: str, *, status: int = 0, sip_status: int = 0) -> list[Step]:
        """The end: ``status`` answers an INVITE that was not answered yet."""
        announced = self.state is CallState.TRANSFERRED  # this agent's call ended before
        self.state = CallState.ENDED
        steps: list[Step] = []
        for leg, gone in (
            (LegName.AGENT, self._phone_gone),
            (LegName.CALLER, self._caller_gone),
        ):
            if not gone:
                steps.append(HangUp(leg, status if leg is self.plan.incoming else 0))
        steps += [*self.help.drop(), StopTimer("soften")]
        steps += [StopTimer("ring"), StopTimer("closing"), StopTimer("tail"), StopTimer("transfer")]
        steps += [StopTimer("call_back"), StopTimer("keys")]
        steps.append(ToMedia(CloseSession(call_id=self.plan.call_id)))
        steps += self._notice.never_met()
        steps.append(Forget() if announced else self._ended(reason, sip_status))
        return steps

    def _ended(self, reason: str, sip_status: int) -> Emit:
        spoken_s = self.clock() - self.answered_s if self.answered_ts else 0.0
        return self.events.ended(reason, duration_s=spoken_s, sip_status=sip_status)
