"""What the caller is told about analysis and recording, and what may begin when he was told.

Pure, part of :class:`sipbridge.call.Call`, which hands on what concerns the notice. The promises:

* nothing is tapped or recorded before the notice was heard to its end, and never after it was
  skipped, could not be played, or the caller objected;
* where the notice names a key, neither begins before the caller's choice is known: the time for it
  counts while the caller is there and can press, and begins anew after a hold, a pause, or somebody
  else on the line;
* recording that begins or goes on in the middle of a call is announced first, to whoever heard the
  notice, and does not begin when that announcement was not heard to its end;
* nobody hears that recording goes on where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from callshield.messages import LegName, NoticeSource
from callshield.messages_media import PlayFinished
from callshield.messages_notice import PromptStamp, ProtectionReason, StoppedBy
from sipbridge.announcer import Announcer
from sipbridge.call_events import CallEvents
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import Emit, Outcome, StartTimer, Step, StopTimer, ToMedia
from sipbridge.caller_choice import CallerChoice
from sipbridge.help_request import HelpRequest
from sipbridge.media_gate import MediaGate
from sipbridge.prompt_catalogue import Prompt

#: Announcements of ours after the notice.
Word = Literal["objection", "recording", "resumed"]


class ToldCall(Protocol):
    """What is needed of the call."""

    plan: CallPlan
    events: CallEvents
    gate: MediaGate
    help: HelpRequest
    started_ts: float
    paused: bool

    @property
    def caller_listens(self) -> bool:
        """The caller is not on hold."""

    @property
    def same_caller(self) -> bool:
        """Whoever heard the notice is at the caller's end."""

    def flow(self) -> ToMedia:
        """What may pass now."""

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """Let the agent know that the caller hears these, as configured."""


class NoticeTalk:
    """The notice of one call, the caller's choice, and later announcements about recording.

    Args:
        call: that it belongs to.
        plays: what plays in it.
    """

    def __init__(self, call: ToldCall, plays: Announcer) -> None:
        self._call = call
        self._plays = plays
        self._choice = CallerChoice(call.plan.keys)
        self._records = call.plan.record_on_request is None
        """Recording need not be asked for, or was."""
        self._asking = False
        """The notice is over, and the caller's choice is waited for."""
        self._counting = False
        """The time for it runs."""
        self.told: ProtectionReason | Literal[""] = ""
        """What was last said of the caller's choice."""
        self._owes_acceptance = False
        """The caller objected, and has not heard yet that it counts."""
        self._before: tuple[PlayFinished | None, list[PromptStamp]] | None = None
        """What became of a notice before the phone rang; no report: the agent skipped it."""

    @property
    def keys_wanted(self) -> bool:
        """What the caller presses may decide something."""
        return self._choice.listening and self._attends

    @property
    def waits(self) -> bool:
        """The notice is over, and a key may still decide whether the call is analysed."""
        return self._asking

    @property
    def objected(self) -> bool:
        """The caller pressed the key of objection in time."""
        return self._choice.objected

    @property
    def resuming(self) -> bool:
        """The caller hears that recording goes on; it does not yet."""
        return self._plays.announcing == "resumed"

    @property
    def _attends(self) -> bool:
        """Whoever is asked is there, and a key would be heard."""
        call = self._call
        return call.caller_listens and call.same_caller and not call.paused

    def begin(self) -> None:
        """Media flows: from now on a key counts."""
        if not self._call.plan.internal:
            self._choice.listen()

    # ------------------------------------------------------------------------- after the notice

    def nothing_owed(self) -> list[Step]:
        """The PBX attested every prompt, or it is a call between colleagues."""
        source: NoticeSource = "internal" if self._call.plan.internal else "upstream"
        return self._opened(source, [], heard=True)

    def played(self, played: PlayFinished, stamps: list[PromptStamp]) -> list[Step]:
        """The notice ended, was stopped by an objection, or could not be played.

        Args:
            played: what the media worker says.
            stamps: of what the caller heard of it.
        """
        return [self._plays.stop(LegName.AGENT), *self._over(played, stamps)]

    def _over(self, played: PlayFinished, stamps: list[PromptStamp]) -> list[Step]:
        if self._choice.objected:
            return [*self._opened("objected", stamps, heard=False), *self._accept_objection()]
        if played.complete:
            return self._opened("played", stamps, heard=True)
        # Principle 3: the call goes on, untapped, and an alarm is raised.
        return [
            *self._opened("failed", stamps, heard=False),
            self._call.events.prompts_degraded(played.error or "the notice stopped before its end"),
        ]

    def over_before_ringing(self, played: PlayFinished | None, stamps: list[PromptStamp]) -> None:
        """The notice is over, and the agent's phone is only now called.

        Args:
            played: what the media worker says; ``None``: the agent skipped it, or the caller
                objected while nothing played.
            stamps: of what the caller heard of it.
        """
        self._before = (played, stamps)

    def met(self) -> list[Step]:
        """The agent answered, and the caller had heard the notice before: both hear each other."""
        assert self._before is not None
        (played, stamps), self._before = self._before, None
        if played is not None:
            return self._over(played, stamps)
        return self.objected_on_hold() if self._choice.objected else self.skipped()

    def never_met(self) -> list[Step]:
        """The call ends, and no agent answered: what the caller heard is on record all the same."""
        if self._before is None:
            return []
        (_, stamps), self._before = self._before, None
        return self._call.events.prompts_played(stamps)

    def skipped(self) -> list[Step]:
        """The agent's emergency key."""
        return self._opened("skipped", [], heard=False)

    def objected_on_hold(self) -> list[Step]:
        """The objection was told when a hold had stopped the notice: no end will be told."""
        return [*self._opened("objected", [], heard=False), *self._accept_objection()]

    def _opened(
        self, source: NoticeSource, stamps: list[PromptStamp], *, heard: bool
    ) -> list[Step]:
        """Both hear each other; whether anything is analysed may still be the caller's to say."""
        call, choice = self._call, self._choice
        call.gate.open(tap=False, record=False)
        waiting: list[Step] = []
        if not heard or not call.gate.may_watch:
            choice.close()
            call.gate.unwatch()
        elif choice.waits:
            self._asking = True
            waiting = self.attention_changed()
        else:
            choice.close()
            self._watch()
        finished = call.events.notice_finished(
            source,
            stamps,
            started_ts=call.started_ts,
            tapped=call.gate.tapped,
            key=choice.key,
            waits=choice.waits,
        )
        # The proof first: a recording begins with it.
        return [finished, call.flow(), *waiting]

    def _watch(self) -> None:
        """Analyse and record, as far as the configuration and the caller let us."""
        allowed, plan = self._choice.allows, self._call.plan
        self._call.gate.watch(
            tap=allowed and plan.tap_allowed,
            record=allowed and plan.record_allowed and self._records,
        )

    # ----------------------------------------------------------------------- the caller's choice

    def pressed(self, digit: str, *, during_notice: bool) -> list[Step]:
        """The caller pressed a key that the notice names, or any other."""
        if not self._attends and digit != self._call.plan.keys.objection:
            return []  # pressed by somebody else, or told late: nobody agreed
        pressed = self._choice.press(digit)
        if not pressed:
            return []
        if during_notice:
            # Whoever objects need not hear the rest: what was played is told when it has stopped.
            objected = pressed == "objection" and self._plays.announcing == "notice"
            return [self._plays.stop(LegName.CALLER, "objection")] if objected else []
        return [StopTimer("keys"), *self._chosen()]

    def window_over(self) -> list[Step]:
        """The time for a key is over."""
        return self._chosen() if self._counting else []

    def replaced(self) -> list[Step]:
        """Somebody else has the caller's place for good: nobody is asked any more."""
        if not self._asking:
            return []
        self._asking = self._counting = False
        self._choice.close()
        return [StopTimer("keys"), self._protection("caller_changed", protected=False)]

    def _protection(self, reason: ProtectionReason, *, protected: bool) -> Emit:
        self.told = reason
        key = self._choice.key
        return self._call.events.protection(protected=protected, reason=reason, key=key)

    def attention_changed(self) -> list[Step]:
        """A hold, a pause or somebody else on the line began or ended: the time for a key stands
        still, or begins anew. Harmless when nothing changed."""
        counts = self._asking and self._attends
        if counts == self._counting:
            return []
        self._counting = counts
        return [StartTimer("keys", self._call.plan.keys.window_s) if counts else StopTimer("keys")]

    def _chosen(self) -> list[Step]:
        call, choice = self._call, self._choice
        choice.close()
        self._asking = self._counting = False
        reason: ProtectionReason
        if choice.allows:
            self._watch()
            reason = "consent" if choice.key else "no_objection"
        else:
            call.gate.unwatch()
            reason = "objection" if choice.objected else "no_consent"
        told = self._protection(reason, protected=call.gate.tapped)
        return [told, call.flow(), *self._accept_objection()]

    def _accept_objection(self) -> list[Step]:
        self._owes_acceptance = self._choice.objected
        return self.tell()

    def tell(self) -> list[Step]:
        """Say that the objection counts, if that is due and can be heard; call it whenever that may
        have changed."""
        prompt = self._call.plan.objection_accepted
        if not self._owes_acceptance or prompt is None or self._cannot_tell():
            return []
        self._owes_acceptance = False
        return self._say("objection", prompt)

    # ------------------------------------------------------------------- later announcements

    def must_wait(self) -> str:
        """Why nothing can be announced to the caller now; empty: it can."""
        if self._plays.announcing or self._call.help.announcing:
            return "An announcement is still playing."
        if not self._call.caller_listens:
            return "The caller is on hold and would not hear it."
        return ""

    def _cannot_tell(self) -> str:
        """Why whoever heard the notice can be told nothing now."""
        other = "" if self._call.same_caller else "Somebody else is on the caller's line."
        return other or self.must_wait()

    def start_recording(self, by: str) -> tuple[Outcome, str, list[Step]]:
        """The agent wants the call recorded from now on."""
        plan = self._call.plan
        if not by.startswith("agent:"):
            return "not_now", "Only the call's own agent has it recorded.", []
        if plan.record_on_request is None or not plan.record_allowed:
            return "not_supported", "Recording does not begin on request here.", []
        if self._records:
            return "already", "The call is being recorded.", []
        if not self._choice.allows or self._choice.waits:
            return "not_now", "The caller has not agreed to it.", []
        if not self._call.gate.may_watch:
            return "not_now", "This call is not recorded: the caller heard no notice.", []
        if self._call.paused:
            return "not_now", "Recording is paused: let it go on first.", []
        if busy := self._cannot_tell():
            return "not_now", busy, []
        detail = "The caller hears that the call is recorded from now on."
        return "done", detail, self._say("recording", plan.record_on_request)

    def resume(self) -> tuple[Outcome, str, list[Step]] | None:
        """The pause is to end; ``None`` where nothing is announced first."""
        prompt = self._call.plan.resumed
        if prompt is None or not self._call.gate.recorded:
            return None  # nothing was recorded that could go on
        if busy := self._cannot_tell():
            return "not_now", busy, []
        detail = "Recording and analysis go on after the announcement."
        return "done", detail, self._say("resumed", prompt)

    def stay_paused(self) -> list[Step]:
        """The pause is to last after all, while the caller hears that it ends."""
        return [self._plays.hush(LegName.CALLER), self._plays.stop(LegName.AGENT)]

    def _say(self, what: Word, prompt: Prompt) -> list[Step]:
        return [*self._call.murmur([prompt]), self._plays.to_caller(what, [prompt])]

    def caller_changed(self, *, before: bool) -> list[Step]:
        """Somebody else is at the caller's end, or the caller is back.

        Args:
            before: whether the call was analysed until now, but for a hold or a pause.
        """
        call = self._call
        now = call.gate.tapped and call.same_caller
        if now == before:
            return []
        reason: ProtectionReason = "caller_back" if now else "caller_changed"
        return [self._protection(reason, protected=now)]

    def unheard(self) -> list[Step]:
        """The caller is held, or somebody else is there: what plays now counts for nothing."""
        if self._plays.announcing not in ("objection", "recording", "resumed"):
            return []
        self._owes_acceptance = self._plays.announcing == "objection"
        why: StoppedBy = "caller_changed" if self._call.caller_listens else "hold"
        return [self._plays.hush(LegName.CALLER, why), self._plays.stop(LegName.AGENT)]

    def said(self, what: Word, played: PlayFinished) -> list[Step]:
        """One of these ended; what it announces begins only when it was heard to its end."""
        call = self._call
        steps: list[Step] = [self._plays.stop(LegName.AGENT)]
        if played.complete:
            return [*steps, *self._announced(what)]
        alarm: list[Emit] = [call.events.prompts_degraded(played.error)] if played.error else []
        return [*steps, *alarm]

    def _announced(self, what: Word) -> list[Step]:
        call = self._call
        if what == "resumed" and call.paused:
            call.paused = False
            return [call.flow(), call.events.paused(False), *self.attention_changed()]
        if what == "recording":
            self._records = True
            self._watch()
            return [call.flow()]
        return []
