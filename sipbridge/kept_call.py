"""A call whose bridge died: what is left to do for it, as a pure state machine.

Its audio goes on in the media worker, its far ends know of nothing. The bridge that follows has
the state of each leg's dialog (:class:`callshield.messages_media.DialogIdentity`) and nothing of
PJSIP's call. So:

* who hangs up is heard, and the other side gets its BYE (RFC 3261 section 15);
* who hung up while nobody listened sends no audio any more: a leg that fell silent is asked by
  OPTIONS inside its dialog, and one whose far end knows of no dialog (481) is over (RFC 3261
  section 12.2.1.2, RFC 5057 section 5.1);
* a session that the far end refreshes goes on; one that we promised to refresh is refreshed by
  UPDATE without a session description (RFC 4028 section 7.4, RFC 3311), and where that is not
  understood the call ends before the far end would end it;
* hold and resume are agreed to, every other change is refused (:mod:`sipbridge.kept_sdp`);
* the agent may end it with announcement, ask for help and pause; nothing else can be done;
* a notice that played when the bridge died was not heard to its end: caller and agent are put
  through, and nothing is analysed or recorded (principle 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from callshield.errors import SdpError
from callshield.messages import (
    Action,
    CallEnded,
    CallEnding,
    Direction,
    HoldChanged,
    LegName,
    NoticeFinished,
    PauseChanged,
)
from callshield.messages_media import (
    CloseSession,
    DialogIdentity,
    DigitReceived,
    FlowUpdate,
    KeepCall,
    KeptCall,
    PlayFinished,
    StopPlay,
)
from callshield.messages_notice import PromptPlayed, ProtectionChanged, StoppedBy
from sipbridge import sdp
from sipbridge.call_steps import CallSupervisor, Emit, Outcome, ToMedia
from sipbridge.dtmf_info import digit_of_info
from sipbridge.far_end import is_somebody_else
from sipbridge.kept_invite import ack, cancel, refusal
from sipbridge.kept_sdp import answer_refresh
from sipbridge.kept_steps import Answer, Drop, KeptStep, Over, Request, Say
from sipbridge.notice_stamps import kept_stamp
from sipbridge.session_timer import agreed, ends_s
from sipbridge.sip_message import DIALOG_GONE, SipHeaders

#: A leg that stays silent is asked again so often.
ASK_AGAIN_S = 10.0
#: A refresh that met one of the far end's (491) is sent again after this time (RFC 3261 14.1).
GLARE_S = 3.0
#: We end a call so long before the far end would, that its BYE and ours do not cross.
BEFORE_FAR_END_S = 5.0
#: The closing announcement never keeps a call longer than this.
CLOSING_LIMIT_S = 30.0
#: After it, so that the caller's jitter buffer plays out before BYE.
CLOSING_TAIL_S = 0.2
#: How much of it was heard is told this soon after the call's end, or never.
PLAYS_TOLD_S = 2.0
#: What the former bridge sent in its last moment may have used a CSeq that was not kept.
CSEQ_SKIP = 100
#: When a message without a transaction is said, and the ACK to the answer that a CANCEL brings.
REPEATED_S, ACKED_S = (0.0, 0.5, 1.5), (0.3, 1.0, 2.0)
#: The PBX may try again so soon: this bridge takes calls.
RETRY_AFTER_S = 1
_ONLY_END = "The telephone part of this node was restarted in this call: it can only be ended."


@dataclass(slots=True)
class _Leg:
    dialog: DialogIdentity
    silent: bool = False
    held: bool = False
    asked: bool = False
    """An OPTIONS is under way."""
    ask_at: float = float("inf")
    refresh_at: float = float("inf")
    ends_at: float = float("inf")
    bye_sent: bool = False
    bye_again: bool = False


@dataclass
class KeptMachine:
    """One kept call.

    Args:
        found: what the media worker kept.
        wall: seconds since the epoch; stamps events only.
        clock: seconds of CLOCK_MONOTONIC.
    """

    found: KeptCall
    wall: Callable[[], float]
    clock: Callable[[], float]
    legs: dict[LegName, _Leg] = field(init=False)

    def __post_init__(self) -> None:
        self.kept: KeepCall = self.found.kept
        self.call_id = self.kept.call_id
        self.over = False
        """The call's end was told, or never has to be; legs may still be ending."""
        self._flow = self.found.flow
        self._closing_ends_at = float("inf")
        self._untold = self.kept.stage == "ending"
        """The caller hears the closing announcement; how much of it was heard is to be told."""
        self._told_by = float("inf")
        self.legs = {}
        for name, dialog in self.found.dialogs.items():
            leg = self.legs[name] = _Leg(dialog, silent=name in self.found.silent)
            self._timed(leg)
            leg.held = bool(self._flow and self._flow.on_hold) and _holds(dialog.remote_sdp)

    # ------------------------------------------------------------------------------ the beginning

    def begin(self) -> list[KeptStep]:
        """The dialogs were restored: what has to be done at once."""
        stage, both = self.kept.stage, {LegName.CALLER, LegName.AGENT} <= self.legs.keys()
        if stage == "ending" and LegName.CALLER in self.legs:
            # The closing announcement plays on; its end may have been told to nobody.
            self._closing_ends_at = self.clock() + CLOSING_LIMIT_S
            return [*self._bye(LegName.AGENT), *self._bye(LegName.HELPER)]
        if stage == "setup":
            return [*self._call_off(), *self._end("bridge_lost")]
        if not both:
            return self._end(self.kept.end_reason or "bridge_lost")
        steps: list[KeptStep] = [
            # A warning, or the soft tone of one, that nobody would stop.
            ToMedia(StopPlay(call_id=self.call_id, leg=LegName.AGENT)),
            ToMedia(StopPlay(call_id=self.call_id, leg=LegName.CALLER)),
        ]
        if stage == "notice":
            steps += self._put_through()
        # Nobody misses the audio of whoever holds: whether they are there has to be asked.
        on_hold = self._flow is not None and self._flow.on_hold
        for name, leg in self.legs.items():
            if leg.silent or on_hold:
                steps += self._ask(name)
        return steps

    def _call_off(self) -> list[KeptStep]:
        """Nobody need wait for a call that cannot come about: 503 to the PBX, CANCEL to the phone.
        Both may be lost: each is said more than once, and taken in once."""
        steps: list[KeptStep] = []
        came, sent = self.kept.invited, self.kept.inviting
        if came is not None:
            text = came.message.decode("utf-8", "surrogateescape")
            retry = [("Retry-After", str(RETRY_AFTER_S))]
            message = refusal(text, 503, "Service Unavailable", came.tag, retry)
            steps += [Say(came, message, delay_s) for delay_s in REPEATED_S if message]
        if sent is not None:
            text = sent.message.decode("utf-8", "surrogateescape")
            steps += [Say(sent, cancel(text), delay_s) for delay_s in REPEATED_S if cancel(text)]
            said = ack(text, sent.tag)
            steps += [Say(sent, said, delay_s) for delay_s in ACKED_S if said]
        return steps

    def _put_through(self) -> list[KeptStep]:
        self.kept = msgspec.structs.replace(
            self.kept, stage="connected", may_tap=False, may_record=False
        )
        started = self.kept.started
        return [
            self._passes(),
            Emit(
                NoticeFinished(
                    ts=self.wall(),
                    call_id=self.call_id,
                    agent_id=started.agent_id,
                    source="failed",
                    prompts=[],
                    tapped=False,
                    pbx_call_id=started.pbx_call_id,
                )
            ),
        ]

    def _passes(self) -> ToMedia:
        """What may pass between caller and agent now."""
        kept, before = self.kept, self._flow
        on_hold = any(leg.held for leg in self.legs.values())
        ending = kept.stage == "ending"
        # What was opened once both had been told; nothing here opens it.
        together = before is not None and before.conference and LegName.HELPER in self.legs
        self._flow = FlowUpdate(
            call_id=self.call_id,
            caller_to_agent=not ending,
            agent_to_caller=not ending,
            tap=kept.may_tap and not (ending or on_hold or kept.paused),
            on_hold=on_hold,
            record=kept.may_record and not (ending or on_hold),
            paused=kept.paused,
            conference=together and not ending,
        )
        return ToMedia(self._flow)

    @property
    def on_hold(self) -> bool:
        return self._flow is not None and self._flow.on_hold

    # -------------------------------------------------------------------------- what legs say

    def on_request(
        self, name: LegName, token: int, method: str, headers: SipHeaders, body: str
    ) -> list[KeptStep]:
        """A request inside a leg's dialog; PJSIP has checked its CSeq."""
        leg = self.legs.get(name)
        if leg is None:
            return [Answer(token, 481)]
        if method == "BYE":
            self.legs.pop(name)
            return [Answer(token, 200), Drop(name), *self._left(name)]
        if leg.bye_sent:
            return [Answer(token, 481)]
        if method in ("INVITE", "UPDATE"):
            return self._refreshed(name, leg, token, method, headers, body)
        if method == "OPTIONS":
            return [Answer(token, 200)]
        if method == "INFO":
            return self._info(name, token, headers, body)
        if method == "NOTIFY":
            # RFC 6665 section 4.1.3. Not 481: to many a far end that is the end of the call.
            return [Answer(token, 489, (("Allow-Events", "refer"),))]
        # REFER: nothing is left that could move a call (RFC 3515 section 2.4.2).
        return [Answer(token, 603 if method == "REFER" else 405)]

    def _info(self, name: LegName, token: int, headers: SipHeaders, body: str) -> list[KeptStep]:
        if not body:
            return [Answer(token, 200)]
        digit = digit_of_info(headers.first("Content-Type"), body)
        if digit is None:
            return [Answer(token, 415, (("Accept", "application/dtmf-relay, application/dtmf"),))]
        heard = DigitReceived(call_id=self.call_id, leg=name, digit=digit)
        return [Answer(token, 200), ToMedia(heard)]

    def _refreshed(
        self,
        name: LegName,
        leg: _Leg,
        token: int,
        method: str,
        headers: SipHeaders,
        body: str,
    ) -> list[KeptStep]:
        """re-INVITE or UPDATE: a refresh, a hold, or more than can be agreed to."""
        steps: list[KeptStep] = []
        if name is LegName.CALLER and self.kept.may_tap | self.kept.may_record:
            numbers = frozenset(self.kept.callers_numbers)
            if is_somebody_else(numbers, headers):
                # Who has not heard the notice is neither analysed nor recorded, for good.
                steps += self._caller_changed()
        dialog, answer = leg.dialog, ""
        if body:
            refreshed = answer_refresh(dialog.local_sdp, dialog.remote_sdp, body)
            if refreshed is None:
                return [*steps, Answer(token, 488)]
            answer = refreshed.local
            dialog = msgspec.structs.replace(
                dialog, local_sdp=refreshed.local, remote_sdp=refreshed.remote
            )
            if refreshed.held != leg.held:
                leg.held = refreshed.held
                steps += self._held_changed()
        elif method == "INVITE":
            answer = dialog.local_sdp  # our offer; what it answers is what it had
        session = agreed(headers, ours=False)
        leg.dialog = msgspec.structs.replace(
            dialog,
            expires_s=session.expires_s,
            we_refresh=session.we_refresh,
            refreshed_s=self.clock(),
        )
        self._timed(leg)
        return [*steps, Answer(token, 200, tuple(session.headers()), answer)]

    def _caller_changed(self) -> list[KeptStep]:
        tapped, started = self.kept.may_tap, self.kept.started
        self.kept = msgspec.structs.replace(self.kept, may_tap=False, may_record=False)
        steps: list[KeptStep] = [self._passes()]  # first: not one frame of somebody else is tapped
        if tapped:
            self.kept = msgspec.structs.replace(self.kept, choice="caller_changed")
            changed = ProtectionChanged(
                ts=self.wall(),
                call_id=self.call_id,
                agent_id=started.agent_id,
                protected=False,
                reason="caller_changed",
                pbx_call_id=started.pbx_call_id,
            )
            steps.append(Emit(changed))
        return steps

    def _held_changed(self) -> list[KeptStep]:
        before = self.on_hold
        steps: list[KeptStep] = [self._passes()]
        if self.on_hold != before:
            started = self.kept.started
            held = HoldChanged(
                ts=self.wall(),
                call_id=self.call_id,
                agent_id=started.agent_id,
                held=self.on_hold,
                pbx_call_id=started.pbx_call_id,
            )
            steps.append(Emit(held))
        return steps

    def on_answer(
        self, name: LegName, method: str, status: int, headers: SipHeaders
    ) -> list[KeptStep]:
        """The final answer to a request of ours; 408 where none came."""
        leg = self.legs.get(name)
        if leg is None:
            return []
        if method == "BYE":
            if status == 500 and not leg.bye_again:
                leg.bye_again = True
                return [self._bye_request(name, leg, CSEQ_SKIP)]
            del self.legs[name]
            return [Drop(name), *self._all_gone()]
        if leg.bye_sent:
            return []
        if status in DIALOG_GONE:
            return self._lost(name)
        if method == "OPTIONS":
            leg.asked = False
            leg.ask_at = self.clock() + ASK_AGAIN_S if leg.silent else float("inf")
        elif method == "UPDATE" and 200 <= status < 300:
            session = agreed(headers, ours=True)
            leg.dialog = msgspec.structs.replace(
                leg.dialog,
                expires_s=session.expires_s,
                we_refresh=session.we_refresh,
                refreshed_s=self.clock(),
            )
            self._timed(leg)
        elif method == "UPDATE" and status == 491:
            leg.refresh_at = self.clock() + GLARE_S
        return []

    def _lost(self, name: LegName) -> list[KeptStep]:
        """The far end hung up while nobody listened."""
        if name is LegName.HELPER:
            return self._bye(name)
        return self._end("caller_hangup" if name is LegName.CALLER else "agent_hangup")

    def _left(self, name: LegName) -> list[KeptStep]:
        """A leg's far end hung up."""
        if self.over:
            return self._all_gone()
        if name is LegName.HELPER and LegName.AGENT in self.legs:
            return []
        if self.kept.stage == "ending" and name is not LegName.CALLER:
            return []
        if self.kept.stage == "ending":
            return self._end(self.kept.end_reason)
        return self._end("caller_hangup" if name is LegName.CALLER else "agent_hangup")

    # ------------------------------------------------------------------ what the media worker says

    def on_silent(self, name: LegName, *, silent: bool) -> list[KeptStep]:
        """No audio of a leg for a while, or again."""
        leg = self.legs.get(name)
        if leg is None or leg.bye_sent:
            return []
        leg.silent = silent
        if not silent:
            leg.ask_at = float("inf")
            return []
        return self._ask(name)

    def _ask(self, name: LegName) -> list[KeptStep]:
        leg = self.legs[name]
        if leg.asked or leg.bye_sent:
            return []
        leg.asked, leg.ask_at = True, float("inf")
        return [Request(name, "OPTIONS")]

    def on_media_timeout(self) -> list[KeptStep]:
        """No audio either way for the configured time."""
        return [] if self.over else self._end("media_timeout")

    def on_played(self, played: PlayFinished) -> list[KeptStep]:
        """A prompt ended."""
        if played.leg is not LegName.CALLER or not self._untold:
            return []
        self._untold, self._told_by = False, float("inf")
        steps = self._played(played)
        if not self.over:
            self._closing_ends_at = self.clock() + CLOSING_TAIL_S
        return [*steps, *self._all_gone()]

    def _played(self, played: PlayFinished) -> list[KeptStep]:
        """How much of the closing announcement the caller heard, for the call's record."""
        kept, started = self.kept, self.kept.started
        if kept.closing is None or kept.closing_stamp is None:
            return []
        why: StoppedBy = "hangup" if self.over else "fault"
        stamp = kept_stamp(kept.closing_stamp, kept.closing, played, why)
        if stamp is None:
            return []
        told = PromptPlayed(
            ts=self.wall(),
            call_id=self.call_id,
            agent_id=started.agent_id,
            stamp=stamp,
            pbx_call_id=started.pbx_call_id,
        )
        return [Emit(told)]

    # ------------------------------------------------------------------------------ what people do

    def act(self, action: Action, by: str) -> tuple[Outcome, str, list[KeptStep]]:
        """A button, phone key or DTMF code; outcome, a sentence, and the steps."""
        if self.over or self.kept.stage == "ending":
            if action is Action.END:
                return "already", "The call is already being ended.", []
            return "not_now", "The call is being ended.", []
        if self.kept.stage == "transferred":
            return "not_now", "The call was transferred.", []
        if by.startswith("policy"):
            return "not_now", _ONLY_END, []
        internal = self.kept.started.direction is Direction.INTERNAL
        if action is Action.END and internal:
            return "done", "The call is ended.", self._end("agent_hangup")
        if action is Action.END:
            return "done", "The caller hears the closing announcement.", self._close(by)
        if action is Action.HELP and by == "agent:console":
            return "done", "A supervisor is called.", []
        if action is Action.HELP and by.startswith("agent:"):
            return "done", "A supervisor is called.", [CallSupervisor(by)]
        if action is Action.PAUSE_RECORDING and not internal:
            if self.kept.paused:
                return "already", "It is paused already.", []
            return "done", "Recording and analysis are paused until the call's end.", self._pause()
        return "not_now", _ONLY_END, []

    def _pause(self) -> list[KeptStep]:
        self.kept = msgspec.structs.replace(self.kept, paused=True)
        started = self.kept.started
        paused = PauseChanged(
            ts=self.wall(),
            call_id=self.call_id,
            agent_id=started.agent_id,
            paused=True,
            pbx_call_id=started.pbx_call_id,
        )
        return [self._passes(), Emit(paused)]

    def _close(self, by: str) -> list[KeptStep]:
        closing, started = self.kept.closing, self.kept.started
        if closing is None:
            return self._end("agent_hangup")
        self.kept = msgspec.structs.replace(
            self.kept, stage="ending", end_reason="ended_with_announcement"
        )
        self._closing_ends_at, self._untold = self.clock() + CLOSING_LIMIT_S, True
        ending = CallEnding(
            ts=self.wall(),
            call_id=self.call_id,
            agent_id=started.agent_id,
            by=by,
            pbx_call_id=started.pbx_call_id,
        )
        return [
            *self._bye(LegName.AGENT),  # first: the agent is free at once
            *self._bye(LegName.HELPER),
            self._passes(),
            ToMedia(StopPlay(call_id=self.call_id, leg=LegName.AGENT)),
            ToMedia(closing),
            Emit(ending),
        ]

    # --------------------------------------------------------------------------------------- time

    def due(self) -> float:
        """When :meth:`on_time` has something to do; infinity: never."""
        times = [self._closing_ends_at, self._told_by]
        for leg in self.legs.values():
            if not leg.bye_sent:
                times += [leg.ask_at, leg.refresh_at, leg.ends_at]
        return min(times)

    def on_time(self) -> list[KeptStep]:
        """Time went by."""
        now = self.clock()
        if self._closing_ends_at <= now:
            self._closing_ends_at = float("inf")
            return self._end(self.kept.end_reason)
        if self._told_by <= now:
            return self.never_told()
        steps: list[KeptStep] = []
        for name, leg in list(self.legs.items()):
            if leg.bye_sent:
                continue
            if leg.ends_at <= now:
                return [*steps, *self._end("bridge_lost")]
            if leg.refresh_at <= now:
                leg.refresh_at = float("inf")
                expires = f"{leg.dialog.expires_s};refresher=uac"
                headers = (("Session-Expires", expires), ("Supported", "timer"))
                steps.append(Request(name, "UPDATE", headers))
            if leg.ask_at <= now:
                steps += self._ask(name)
        return steps

    def _timed(self, leg: _Leg) -> None:
        """When the session has to be refreshed by us, and when the far end would give it up."""
        dialog = leg.dialog
        leg.refresh_at = leg.ends_at = float("inf")
        if not dialog.expires_s:
            return
        leg.ends_at = ends_s(dialog.refreshed_s, dialog.expires_s) - BEFORE_FAR_END_S
        if dialog.we_refresh:
            leg.refresh_at = dialog.refreshed_s + dialog.expires_s / 2

    # ---------------------------------------------------------------------------------------- end

    def shut_down(self, reason: str = "shutdown") -> list[KeptStep]:
        """The node stops and its patience is over, or the audio is gone."""
        return [] if self.over else self._end(reason)

    def unrestored(self, name: LegName) -> list[KeptStep]:
        """A leg's dialog cannot be used (again): nothing can be said to its far end."""
        self.legs.pop(name, None)
        return [] if self.over else self._end("bridge_lost")

    def _bye_request(self, name: LegName, leg: _Leg, skip: int = 0) -> Request:
        leg.bye_sent = True
        headers = tuple(leg.dialog.bye_headers)
        if self.kept.stage == "setup":
            # RFC 3326: the PBX, which had our 200 for the notice, may try elsewhere.
            headers = (*headers, ("Reason", "SIP;cause=503"))
        return Request(name, "BYE", headers, skip)

    def _bye(self, name: LegName) -> list[KeptStep]:
        leg = self.legs.get(name)
        return [] if leg is None or leg.bye_sent else [self._bye_request(name, leg)]

    def _end(self, reason: str) -> list[KeptStep]:
        told = self.kept.stage == "transferred"
        self.over = True
        self._closing_ends_at = float("inf")
        if self._untold:
            self._told_by = self.clock() + PLAYS_TOLD_S
        steps: list[KeptStep] = []
        for name in list(self.legs):
            steps += self._bye(name)
        steps.append(ToMedia(CloseSession(call_id=self.call_id)))
        if not told:
            steps.append(Emit(self._ended(reason)))
        return [*steps, *self._all_gone()]

    def _ended(self, reason: str) -> CallEnded:
        kept, started = self.kept, self.kept.started
        spoken_s = self.clock() - kept.answered_s if kept.answered_ts else 0.0
        return CallEnded(
            ts=self.wall(),
            call_id=self.call_id,
            agent_id=started.agent_id,
            reason=reason,
            duration_s=round(spoken_s, 3),
            pbx_call_id=started.pbx_call_id,
        )

    def never_told(self) -> list[KeptStep]:
        """Nobody will say any more how much of the closing announcement was heard."""
        self._untold, self._told_by = False, float("inf")
        return self._all_gone()

    def _all_gone(self) -> list[KeptStep]:
        return [Over()] if self.over and not (self.legs or self._untold) else []

    def dialogs(self) -> Mapping[LegName, DialogIdentity]:
        """The dialogs as they are now, for whoever follows this bridge."""
        return {name: leg.dialog for name, leg in self.legs.items()}


def _holds(remote_sdp: str) -> bool:
    try:
        audio = sdp.parse(remote_sdp).audio
    except SdpError:
        return False
    return audio is not None and audio.held
