"""One protected call as a pure state machine: events in, things to do out.

::

    INVITE ──► OPENING ──► RINGING ──► ANSWERING ──► NOTICE ──► CONNECTED ──► ENDING ──► ENDED
                 │            │             │           │            │           ▲
                 └────────────┴── refused, cancelled, no answer ─────┴── end ────┘
                                                                     └──► TRANSFERRED ──► ENDED

The machine knows no socket, no clock and no pjsua2: its methods take what happened and return
steps (:mod:`sipbridge.call_steps`) that the shell (:mod:`sipbridge.bridged`) carries out in order.
The promises of the house live here and are tested here:

* nothing is tapped before the notice was heard to its end or a trusted peer attested it, and
  never after the agent skipped it or it could not be played (principle 3);
* *end* releases the agent first, then the caller hears the closing prompt, then BYE;
* two presses make one end; every button works in every connected state (principle 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, cast

from callshield.messages import (
    Action,
    CallAnswered,
    CallEnded,
    CallEnding,
    CallStarted,
    CloseSession,
    FlowUpdate,
    LegName,
    LegOpened,
    LegUpdate,
    NodeDegraded,
    NoticeFinished,
    NoticeStarted,
    OpenSession,
    PlayFinished,
    PlayPrompts,
    PromptStamp,
    StopPlay,
    WarningPlayed,
)
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import (
    AnswerCaller,
    CallPhone,
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
from sipbridge.notice_stamps import attested_stamps, played_stamps
from sipbridge.offer_answer import (
    LegMedia,
    offered_to_late_caller,
    offered_to_phone,
    require_same_or_g711,
)
from sipbridge.phone_status import map_phone_status
from sipbridge.prompt_catalogue import Prompt
from sipbridge.sdp import USUAL_PTIME_MS, Negotiated, SessionDescription

#: Silence after the closing prompt so that the caller's jitter buffer plays out before BYE.
CLOSING_TAIL_S = 0.2
#: The closing prompt never keeps a call longer than this beyond its own length.
CLOSING_GRACE_S = 5.0
#: How loud the agent hears what is played to the caller (``notice.agent_hears = "prompt"``).
AGENT_PROMPT_DB = -18.0
#: Who asked for a transfer that came about should hang up within this time (RFC 5589).
TRANSFER_BYE_S = 5.0


class CallState(StrEnum):
    """Where a call stands."""

    OPENING = "opening"
    RINGING = "ringing"
    ANSWERING = "answering"
    NOTICE = "notice"
    CONNECTED = "connected"
    TRANSFERRED = "transferred"
    """The agent is out; the caller speaks with somebody else through us, unanalysed."""
    ENDING = "ending"
    ENDED = "ended"


@dataclass(slots=True)
class Call:
    """The state of one call.

    Args:
        plan: what the INVITE fixed.
        now: wall clock, seconds since the epoch; stamps events only.
    """

    plan: CallPlan
    now: Callable[[], float]
    state: CallState = CallState.OPENING
    media: dict[LegName, LegMedia] = field(default_factory=dict)
    """Offer and answer of each leg."""
    started_ts: float = 0.0
    answered_ts: float = 0.0
    warnings_played: int = 0
    on_hold: bool = False
    caller_negotiated: Negotiated | None = None
    """What is agreed with the caller, once the phone had chosen."""
    caller_sdp: SessionDescription | None = None
    """The caller's offer, or its answer to ours."""
    help: HelpRequest = field(init=False)
    ear: EarChoice = field(init=False)
    paused: bool = False
    """Card data: no tap, no recording, and the caller's digits go nowhere."""
    _play_id: int = 0
    _caller_play: int = 0
    _agent_play: int = 0
    _playing: Literal["", "notice", "closing", "warning", "help", "hold_on"] = ""
    _notice_begun: bool = False
    _tap_open: bool = False
    _record_open: bool = False
    _relay_open: bool = False
    _end_reason: str = ""
    _caller_gone: bool = False
    _phone_gone: bool = False
    _caller_held: bool = False
    _agent_held: bool = False
    _ringing_sent: bool = False
    _early: SessionDescription | None = None
    """What the phone says in its provisional responses: its early media is relayed."""
    _transferring: bool = False
    """A transfer that the agent asked for is under way: the phone may hang up meanwhile."""
    _transferred: bool = False
    """It came about: the caller's leg is the PBX's to end."""

    def __post_init__(self) -> None:
        plan = self.plan
        self.media = {
            LegName.CALLER: LegMedia(plan.caller_policy, plan.pbx_address),
            LegName.AGENT: LegMedia(plan.phone_policy, plan.phone_address),
        }
        self.help = HelpRequest(self)
        self.ear = EarChoice(
            self.plan.call_id,
            self.now,
            levelling=self.plan.levelling,
            soften_level=self.plan.soften_level,
        )

    # -------------------------------------------------------------------------------- set-up

    def begin(self, request_id: int) -> list[Step]:
        """The INVITE was accepted: reserve media."""
        self.started_ts = self.now()
        return [
            Emit(self.started_event()),
            ToMedia(OpenSession(request_id=request_id, call_id=self.plan.call_id)),
        ]

    def started_event(self) -> CallStarted:
        """The call as it is announced, at its start and in every snapshot."""
        plan = self.plan
        return CallStarted(
            ts=self.started_ts,
            call_id=plan.call_id,
            agent_id=plan.agent_id,
            pbx_call_id=plan.pbx_call_id,
            pbx=plan.pbx,
        )

    def on_media_open(self, caller_port: int, agent_port: int, session_id: int) -> list[Step]:
        """Ports are reserved: call the phone with the caller's voice codecs."""
        if self.state is not CallState.OPENING:
            return []
        self.state = CallState.RINGING
        for leg, port in ((LegName.CALLER, caller_port), (LegName.AGENT, agent_port)):
            self.media[leg].port, self.media[leg].session_id = port, session_id
        audio = self.plan.offer.audio if self.plan.offer else None
        # Events always: the agent's feature codes need them, whatever the caller has.
        offer = self.media[LegName.AGENT].offer(
            offered_to_phone(self.plan.offer, self.plan.phone_policy, self.plan.caller_policy),
            comfort_noise=audio is not None and audio.comfort_noise is not None,
            ptime_ms=audio.ptime_ms if audio else USUAL_PTIME_MS,
        )
        return [CallPhone(offer), StartTimer("ring", self.plan.ring_timeout_s)]

    def first_answer(self) -> str:
        """What PJSIP has to be given before the phone chose: the answer to the offer by itself,
        replaced in the 200; ``""`` for a late offer. Call it after :meth:`on_media_open`."""
        if self.plan.offer is None:
            return ""
        return self.media[LegName.CALLER].answer(self.plan.offer, None)[0]

    def on_media_refused(self) -> list[Step]:
        """No ports: the PBX may try elsewhere."""
        return self._finish("no_media_ports", caller_status=503)

    def on_phone_ringing(self, status: int) -> list[Step]:
        """180, or 183 without a session description, from the phone.

        Both reach the PBX once, as 180: a 183 without a session description would leave the
        caller in silence (RFC 3960).
        """
        if self.state is not CallState.RINGING or self._ringing_sent or status < 180:
            return []
        self._ringing_sent = True
        return [AnswerCaller(180)]

    def on_phone_early(
        self,
        sdp: SessionDescription,
        negotiated: Negotiated,
        *,
        signalling_address: str,
        session_id: int,
    ) -> list[Step]:
        """A provisional response with a session description: early media (RFC 3960).

        The caller hears the phone's side (ring-back, an announcement of the network) and nothing
        more: nothing of the caller goes to the phone, nothing is tapped, no notice plays. Our
        answer goes out once, in a 183; it stays what it is when the phone changes its own, and in
        the 200 (RFC 6337 section 2.3).
        """
        if self.plan.offer is None:
            # Our offer goes in the 200 only: until the caller has answered it hears nothing.
            return self.on_phone_ringing(183)
        if self.state is not CallState.RINGING or sdp == self._early:
            return []
        first, self._early = self._early is None, sdp
        steps: list[Step] = [
            ToMedia(self.leg_update(LegName.AGENT, sdp, negotiated, signalling_address))
        ]
        if not first:
            return steps
        answer = self._describe_to_caller(sdp, negotiated, session_id)
        assert self.caller_negotiated is not None
        assert self.caller_sdp is not None
        steps.append(
            ToMedia(self.leg_update(LegName.CALLER, self.caller_sdp, self.caller_negotiated, ""))
        )
        return [*steps, AnswerCaller(183, answer), self._flow()]

    def _describe_to_caller(
        self, sdp: SessionDescription, phone: Negotiated, session_id: int
    ) -> str:
        """Our session description for the caller, with the codec that the phone took: the answer
        to its offer, or, where it made none, our offer.

        Raises:
            OfferRefused: the caller has not what the phone took.
        """
        caller = self.media[LegName.CALLER]
        caller.session_id = session_id
        noise = phone.comfort_noise is not None
        if self.plan.offer is None:
            return caller.offer(
                offered_to_late_caller(phone.voice, self.plan.caller_policy),
                comfort_noise=noise,
                ptime_ms=sdp.audio.ptime_ms if sdp.audio else USUAL_PTIME_MS,
            )
        answer, self.caller_sdp, self.caller_negotiated = caller.answer(
            self.plan.offer, phone.voice, comfort_noise=noise, voice_fmtp=phone.voice.fmtp
        )
        return answer

    def on_phone_answered(
        self,
        sdp: SessionDescription,
        negotiated: Negotiated,
        *,
        user_agent: str,
        signalling_address: str,
        session_id: int,
    ) -> list[Step]:
        """200 from the phone: answer the caller with the codec that the phone took.

        A caller that made no offer gets ours, of that codec; its answer comes with the ACK.

        Raises:
            OfferRefused: the caller has not what the phone took.
        """
        if self.state is not CallState.RINGING:
            return []
        if self._early:
            assert self.caller_negotiated is not None
            answer = ""  # it went out in the 183, and stays
            require_same_or_g711(negotiated.voice, self.caller_negotiated.voice)
        else:
            answer = self._describe_to_caller(sdp, negotiated, session_id)
        caller = self.caller_negotiated or negotiated
        self.state = CallState.ANSWERING
        self.answered_ts = self.now()
        return [
            StopTimer("ring"),
            ToMedia(self.leg_update(LegName.AGENT, sdp, negotiated, signalling_address)),
            *([self._flow()] if self._early else []),  # the early audio ends here
            AnswerCaller(200, answer),
            Emit(
                CallAnswered(
                    ts=self.answered_ts,
                    call_id=self.plan.call_id,
                    agent_id=self.plan.agent_id,
                    pbx_call_id=self.plan.pbx_call_id,
                    phone_user_agent=user_agent,
                    codec=caller.voice.name,
                )
            ),
        ]

    def on_caller_answer(self, sdp: SessionDescription) -> None:
        """The caller's answer to our offer came with its ACK.

        Raises:
            OfferRefused: it took nothing of our offer.
        """
        self.caller_negotiated = self.media[LegName.CALLER].take_answer(sdp)
        self.caller_sdp = sdp

    def leg_update(
        self,
        leg: LegName,
        sdp: SessionDescription,
        negotiated: Negotiated,
        signalling_address: str,
    ) -> LegUpdate:
        """What the media worker must know of a leg."""
        audio, voice = sdp.audio, negotiated.voice
        assert audio is not None
        noise = negotiated.comfort_noise
        return LegUpdate(
            call_id=self.plan.call_id,
            leg=leg,
            address=audio.address,
            port=audio.port,
            payload_type=voice.payload_type,
            event_payload_type=negotiated.event.payload_type if negotiated.event else -1,
            signalling_address=signalling_address,
            ptime_ms=audio.ptime_ms,
            codec=cast(Literal["PCMU", "PCMA", "G722", "OPUS"], voice.name),
            comfort_noise_type=noise.payload_type if noise else -1,
            rtcp_port=audio.rtcp_port,
            srtp=negotiated.srtp,
        )

    # -------------------------------------------------------------------------------- notice

    def on_caller_confirmed(self, signalling_address: str) -> list[Step]:
        """The caller's ACK came: media may flow, the notice begins.

        It does not begin earlier: what is sent before the PBX has our answer may be lost, and
        a caller who missed the first words has not heard the notice.
        """
        if self.state is not CallState.ANSWERING:
            return []
        if self.caller_negotiated is None or self.caller_sdp is None:
            return self.on_error("caller_answer_missing", 488)
        steps: list[Step] = [
            ToMedia(
                self.leg_update(
                    LegName.CALLER, self.caller_sdp, self.caller_negotiated, signalling_address
                )
            ),
            self.ear.update(),
        ]
        if not self.plan.notice:  # the PBX attested every one of them
            self.state = CallState.CONNECTED
            self._relay_open = True
            self._tap_open = self.plan.tap_allowed
            self._record_open = self.plan.record_allowed
            return [*steps, self._flow(), self._notice_finished("upstream", [])]
        self.state = CallState.NOTICE
        assert self.caller_sdp.audio is not None
        self._caller_held = self.on_hold = self.caller_sdp.audio.held
        steps += [self._flow(), *self.murmur(() if self._caller_held else self.plan.notice)]
        if not self._caller_held:
            steps.append(self._play_to_caller("notice", self.plan.notice))
        steps += [
            Emit(
                NoticeStarted(
                    ts=self.now(),
                    call_id=self.plan.call_id,
                    agent_id=self.plan.agent_id,
                    pbx_call_id=self.plan.pbx_call_id,
                )
            ),
        ]
        return steps

    def _notice_finished(
        self,
        source: Literal["played", "upstream", "skipped", "failed"],
        stamps: list[PromptStamp],
    ) -> Emit:
        return Emit(
            NoticeFinished(
                ts=self.now(),
                call_id=self.plan.call_id,
                agent_id=self.plan.agent_id,
                source=source,
                prompts=attested_stamps(self.plan.attested, self.started_ts) + stamps,
                tapped=self._tap_open,
                attested_by=self.plan.pbx if self.plan.attested else "",
                pbx_call_id=self.plan.pbx_call_id,
            )
        )

    def _flow(self) -> ToMedia:
        """What may pass now; the tap is open only where the notice gate opened it."""
        if self.state is CallState.RINGING and self._early:
            # Nobody misses the caller's audio yet, and the ring timeout watches: no media timeout.
            return ToMedia(
                FlowUpdate(
                    call_id=self.plan.call_id,
                    caller_to_agent=False,
                    agent_to_caller=True,
                    tap=False,
                    on_hold=True,
                )
            )
        if self.state is CallState.TRANSFERRED:
            return ToMedia(
                FlowUpdate(
                    call_id=self.plan.call_id,
                    caller_to_agent=True,
                    agent_to_caller=True,
                    tap=False,
                    on_hold=self.on_hold,
                )
            )
        hears = self.state in (CallState.NOTICE, CallState.CONNECTED) and not self._phone_gone
        talks = self.state is CallState.CONNECTED and not self._phone_gone
        return ToMedia(
            FlowUpdate(
                call_id=self.plan.call_id,
                caller_to_agent=hears,
                agent_to_caller=self._relay_open and talks,
                tap=self._tap_open and talks and not self.on_hold and not self.paused,
                on_hold=self.on_hold,
                record=self._record_open and talks and not self.on_hold,
                paused=self.paused,
                conference=self.help.conference and talks,
            )
        )

    def _play_to_caller(
        self,
        what: Literal["notice", "closing", "warning", "help", "hold_on"],
        prompts: Sequence[Prompt],
    ) -> ToMedia:
        self._play_id += 1
        self._caller_play = self._play_id
        self._playing = what
        return ToMedia(
            PlayPrompts(
                call_id=self.plan.call_id,
                play_id=self._play_id,
                leg=LegName.CALLER,
                files=[str(prompt.path) for prompt in prompts],
                loop=what == "hold_on",
            )
        )

    def _play_to_agent(self, prompts: Sequence[Prompt], *, gain_db: float | None) -> ToMedia:
        """Instead of the caller, or under the caller's voice with ``gain_db``."""
        self._play_id += 1
        self._agent_play = self._play_id
        return ToMedia(
            PlayPrompts(
                call_id=self.plan.call_id,
                play_id=self._play_id,
                leg=LegName.AGENT,
                files=[str(prompt.path) for prompt in prompts],
                loop=tuple(prompts) == (self.plan.notice_tone,),
                mix=gain_db is not None,
                gain_db=gain_db or 0.0,
            )
        )

    def _stop_play(self, leg: LegName) -> ToMedia:
        return ToMedia(StopPlay(call_id=self.plan.call_id, leg=leg))

    def on_play_finished(self, played: PlayFinished) -> list[Step]:
        """A prompt ended, was stopped, or could not be played."""
        if played.leg is LegName.AGENT:
            return self._after_help(self.help.on_played(played))
        if played.leg is not LegName.CALLER or played.play_id != self._caller_play:
            return []
        what, self._playing = self._playing, ""
        if what in ("help", "hold_on") and self.state is CallState.CONNECTED:
            return self._after_help(self.help.on_played(played))
        if what == "notice" and self.state is CallState.NOTICE:
            return self._after_notice(played)
        if what == "warning" and self.state is CallState.CONNECTED:
            return self._after_warning(played)
        if what == "closing" and self.state is CallState.ENDING:
            steps: list[Step] = [StartTimer("tail", CLOSING_TAIL_S)]
            if not played.complete:
                steps.append(self._prompts_degraded(played.error or "the closing prompt stopped"))
            return steps
        return []

    def _after_notice(self, played: PlayFinished) -> list[Step]:
        self.state = CallState.CONNECTED
        self._relay_open = True
        self._tap_open = played.complete and self.plan.tap_allowed
        self._record_open = played.complete and self.plan.record_allowed
        stamps = played_stamps(self.plan.notice, played)
        steps: list[Step] = [self._stop_play(LegName.AGENT), self._flow()]
        if played.complete:
            return [*steps, self._notice_finished("played", stamps)]
        # Principle 3: the call goes on, untapped, and an alarm is raised.
        return [
            *steps,
            self._notice_finished("failed", stamps),
            self._prompts_degraded(played.error or "the notice stopped before its end"),
        ]

    def _after_warning(self, played: PlayFinished) -> list[Step]:
        steps: list[Step] = [
            self._stop_play(LegName.AGENT),
            Emit(
                WarningPlayed(
                    ts=self.now(),
                    call_id=self.plan.call_id,
                    agent_id=self.plan.agent_id,
                    grade=self.warnings_played,
                    complete=played.complete,
                    pbx_call_id=self.plan.pbx_call_id,
                )
            ),
        ]
        if not played.complete and played.error:
            steps.append(self._prompts_degraded(played.error))
        return [*steps, *self.help.tell()]

    def _prompts_degraded(self, reason: str) -> Emit:
        return Emit(
            NodeDegraded(
                ts=self.now(),
                component="prompts",
                degraded=True,
                reason=reason,
                call_id=self.plan.call_id,
            )
        )

    # --------------------------------------------------------------------------- what people do

    def act(
        self, action: Action, by: str, *, target: str = "", request_id: str = ""
    ) -> tuple[Outcome, str, list[Step]]:
        """A button, phone key or DTMF code.

        Args:
            action: what is wanted.
            by: ``agent:…`` or ``supervisor:<token id>``.
            target: id of a configured helper, for *join* and *hand over*.
            request_id: of a request for help that the notifier may repeat.

        Returns:
            outcome, a sentence for the person who pressed, and the steps.
        """
        if self.state in (CallState.ENDING, CallState.ENDED):
            if action is Action.END:
                return "already", "The call is already being ended.", []
            return "not_now", "The call is being ended.", []
        if self.state is CallState.TRANSFERRED or self._transferred:
            return "not_now", "The call was transferred.", []
        if action is Action.HELP and by == "agent:console":
            # The notifier, where it was pressed, has raised the alert: here it is remembered.
            self.help.ask(request_id)
            return "done", "A supervisor is called.", []
        if self.state in (CallState.OPENING, CallState.RINGING, CallState.ANSWERING):
            return "not_now", "The call has not been answered yet.", []
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
            return self.ear.toggle(action, by)
        if self.state is CallState.NOTICE:
            return "not_now", "The notice is still playing.", []
        if action is Action.WARN:
            if self._playing or self.help.announcing:
                return "not_now", "An announcement is still playing.", []
            if self._caller_held:
                return "not_now", "The caller is on hold and would not hear it.", []
            return "done", "The caller hears the warning.", self._warn()
        if action in (Action.PAUSE_RECORDING, Action.RESUME_RECORDING):
            return self._pause(pause=action is Action.PAUSE_RECORDING)
        if action in (Action.JOIN, Action.HAND_OVER):
            if self._transferring:
                return "not_now", "The call is being transferred.", []
            press = self.help.join if action is Action.JOIN else self.help.hand_over
            outcome, detail, steps = press(by, target)
            return outcome, detail, self._after_help(steps)
        return "not_supported", f"{action.value} is not available in this version.", []

    def keyed(self, action: Action) -> Action:
        """What a code on the phone means now: one code pauses and resumes."""
        if action is Action.PAUSE_RECORDING and self.paused:
            return Action.RESUME_RECORDING
        return action

    def _pause(self, *, pause: bool) -> tuple[Outcome, str, list[Step]]:
        if pause == self.paused:
            return "already", "It is paused already." if pause else "It is not paused.", []
        self.paused = pause
        if pause:
            detail = "Recording and analysis are paused; the caller's digits go nowhere."
        else:
            detail = "Recording and analysis go on."
        return "done", detail, [self._flow()]

    def _warn(self) -> list[Step]:
        prompt = self.plan.warnings[min(self.warnings_played, len(self.plan.warnings) - 1)]
        self.warnings_played += 1
        return [*self.murmur([prompt]), self._play_to_caller("warning", [prompt])]

    def _skip_notice(self) -> list[Step]:
        self.state = CallState.CONNECTED
        self._relay_open = True
        self._tap_open = False
        self._playing = ""
        self._caller_play = 0
        return [
            self._stop_play(LegName.CALLER),
            self._stop_play(LegName.AGENT),
            self._flow(),
            self._notice_finished("skipped", []),
        ]

    def _end(self, by: str) -> list[Step]:
        self.state = CallState.ENDING
        self._end_reason = "ended_with_announcement"
        self._phone_gone = True
        return [
            HangUp(LegName.AGENT),  # first: the agent is free at once
            *self.help.drop(),
            self._flow(),
            self._stop_play(LegName.AGENT),
            self._play_to_caller("closing", [self.plan.closing]),
            Emit(
                CallEnding(
                    ts=self.now(),
                    call_id=self.plan.call_id,
                    agent_id=self.plan.agent_id,
                    by=by,
                    pbx_call_id=self.plan.pbx_call_id,
                )
            ),
            StartTimer("closing", self.plan.closing.duration_s + CLOSING_GRACE_S),
        ]

    def on_risk(self, level: int) -> list[Step]:
        """The caller's risk level, 0-3: from a configured one on, shouting is softened."""
        talking = self.state in (CallState.NOTICE, CallState.CONNECTED)
        return self.ear.on_level(level) if talking else []

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
        """The manager does not come and the agent has left: nobody is there for the caller."""
        alone = self._phone_gone and not (self.help.handing_over or self._transferring)
        if self.state is CallState.CONNECTED and alone and not self._transferred:
            return [*steps, *self._finish("agent_hangup")]
        return steps

    @property
    def caller_listens(self) -> bool:
        return not self._caller_held

    @property
    def caller_free(self) -> bool:
        return self._playing in ("", "hold_on")

    @property
    def agent_listens(self) -> bool:
        return not self._agent_held and not self._phone_gone

    @property
    def agent_left(self) -> bool:
        return self._phone_gone

    def flow(self) -> ToMedia:
        return self._flow()

    def say(self, leg: LegName, prompts: Sequence[Prompt], *, loop: bool = False) -> ToMedia:
        if leg is LegName.CALLER:
            return self._play_to_caller("hold_on" if loop else "help", prompts)
        return self._play_to_agent(prompts, gain_db=None)

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """The agent's soft tone while the caller hears ``prompts``, or the prompts, quietly."""
        if self._phone_gone:
            return []
        if self.plan.agent_hears == "tone":
            return [self._play_to_agent([self.plan.notice_tone], gain_db=0.0)]
        return [self._play_to_agent(prompts, gain_db=AGENT_PROMPT_DB)] if prompts else []

    def playing(self, leg: LegName) -> int:
        return self._caller_play if leg is LegName.CALLER else self._agent_play

    def hush(self, leg: LegName) -> ToMedia:
        if leg is LegName.CALLER:
            self._playing, self._caller_play = "", 0
        else:
            self._agent_play = 0
        return self._stop_play(leg)

    def alarm(self, reason: str) -> Emit:
        return self._prompts_degraded(reason)

    def helper_took_over(self) -> list[Step]:
        """The helper's leg is the agent's from now on; its ear begins as the configuration says."""
        self.media[LegName.AGENT] = self.media.pop(LegName.HELPER)
        self._phone_gone = False
        self._agent_held = self.help.held
        self.on_hold = self._caller_held or self._agent_held
        return [self._flow(), *self.ear.on_new_agent()]

    # ------------------------------------------------------------------------ changes and ends

    def on_hold_changed(self, *, caller_held: bool, agent_held: bool) -> list[Step]:
        """Either side holds or resumes: on hold nothing is analysed and silence is no fault.

        A notice that plays while the caller is held plays to nobody (the PBX lets the caller
        hear music): it begins again, from its first word, when the caller is back.
        """
        steps: list[Step] = []
        before, self._caller_held = self._caller_held, caller_held
        self._agent_held = agent_held
        held = caller_held or agent_held
        if held != self.on_hold:
            self.on_hold = held
            if self.state in (CallState.NOTICE, CallState.CONNECTED, CallState.TRANSFERRED):
                steps.append(self._flow())
        if self.state is CallState.NOTICE and caller_held != before:
            if caller_held:
                self._playing, self._caller_play = "", 0
                steps.append(self._stop_play(LegName.CALLER))
            else:
                if self.plan.agent_hears == "prompt":
                    steps += self.murmur(self.plan.notice)
                steps.append(self._play_to_caller("notice", self.plan.notice))
        if self.state is CallState.CONNECTED:
            steps += self.help.on_hold_changed()
        return steps

    def on_caller_gone(self, status: int) -> list[Step]:
        """BYE or CANCEL from the caller's side (or its INVITE failed)."""
        self._caller_gone = True
        if self.state is CallState.ENDED:
            return []
        if self.state is CallState.ENDING:
            return self._finish(self._end_reason)
        if self._transferring or self._transferred:
            reason = "transferred"
        else:
            reason = "caller_hangup" if self.answered_ts else "cancelled"
        return self._finish(reason, sip_status=status)

    def on_phone_gone(self, status: int, contact: str = "") -> list[Step]:
        """BYE from the agent's phone, or its final refusal with ``status``."""
        self._phone_gone = True
        if self.state in (CallState.ENDING, CallState.ENDED):
            return []
        if self.state is CallState.CONNECTED and self.help.handing_over:
            # The agent need not wait for the manager: the caller is asked to, and is not alone.
            return [self._flow(), *self.help.tell()]
        if self._transferring and not self._transferred:
            return self._agent_left()
        if self.state is not CallState.RINGING:
            reason = "transferred" if self._transferred else "agent_hangup"
            return self._finish(reason, sip_status=status)
        mapped = map_phone_status(status)
        if mapped == 302 and not contact:
            mapped = 480
        headers = (("Contact", f"<{contact}>"),) if mapped == 302 else ()
        reason = {302: "redirected", 486: "busy", 480: "no_answer"}.get(mapped, "refused")
        self._caller_gone = True
        return [
            AnswerCaller(mapped, headers=headers),
            *self._finish(reason, sip_status=status),
        ]

    # ------------------------------------------------------------------------------- transfers

    @property
    def transferable(self) -> bool:
        """Both sides speak with each other, and no other transfer is under way."""
        talking = self.state is CallState.CONNECTED and self.help.stage is Stage.NONE
        return talking and not (self._transferring or self._transferred)

    def on_transfer_begun(self) -> list[Step]:
        """The agent's phone asked to move the caller, and may hang up from now on."""
        self._transferring = True
        return []

    def _agent_left(self) -> list[Step]:
        """The phone hung up before the transfer came about, as many do: the caller must wait."""
        self._tap_open = self._record_open = self._relay_open = False
        return [self._stop_play(LegName.CALLER), self._flow()]

    def on_transfer_failed(self) -> list[Step]:
        """The target could not be had: agent and caller go on, if the agent is still there."""
        if self.state in (CallState.ENDING, CallState.ENDED):
            return []
        self._transferring = False
        return self._finish("transfer_failed") if self._phone_gone else []

    def on_transferred(self) -> list[Step]:
        """The PBX has moved the caller; it should hang up now, as should the phone."""
        if self.state in (CallState.ENDING, CallState.ENDED):
            return []
        self._transferred = True
        if self._phone_gone:
            return self._finish("transferred")
        return [StartTimer("transfer", TRANSFER_BYE_S)]

    def on_target_joined(
        self, sdp: SessionDescription, negotiated: Negotiated, signalling_address: str
    ) -> list[Step]:
        """The target, called by ourselves, takes the agent's place: this agent's call is over.

        The caller and the target go on through us, and nothing is analysed any more: the notice
        was about this conversation, not about that one.
        """
        if self.state is not CallState.CONNECTED:
            return []
        self.state = CallState.TRANSFERRED
        self._transferring = self._transferred = False
        self._phone_gone = False  # the target's leg stands where the phone's was
        self._tap_open = self._record_open = False
        return [
            self._stop_play(LegName.CALLER),
            self._stop_play(LegName.AGENT),
            ToMedia(self.leg_update(LegName.AGENT, sdp, negotiated, signalling_address)),
            self._flow(),
            self._ended("transferred", 0),
        ]

    def on_caller_replaced(
        self, sdp: SessionDescription, negotiated: Negotiated, signalling_address: str
    ) -> list[Step]:
        """Somebody else takes the caller's place: tap and recording close for good.

        The new far end has not heard the notice, and none is repeated within a call (principle 3).
        """
        self.caller_negotiated = negotiated
        if self.state is not CallState.CONNECTED:
            return []
        self._tap_open = self._record_open = False
        self._playing, self._caller_play = "", 0
        return [
            self._stop_play(LegName.CALLER),
            self._stop_play(LegName.AGENT),
            self._flow(),  # first: not one frame of the new far end is tapped
            ToMedia(self.leg_update(LegName.CALLER, sdp, negotiated, signalling_address)),
        ]

    # ------------------------------------------------------------------------------------ ends

    def on_media_timeout(self) -> list[Step]:
        """No RTP either way for the configured time."""
        if self.state is CallState.ENDED:
            return []
        return self._finish("media_timeout")

    def on_media_lost(self) -> list[Step]:
        """The media worker died: its ports, and so the audio of this call, are gone."""
        if self.state is CallState.ENDED:
            return []
        return self._finish("media_lost", caller_status=503)

    def on_shutdown(self) -> list[Step]:
        """The node stops and its patience is over."""
        if self.state is CallState.ENDED:
            return []
        return self._finish("shutdown", caller_status=503)

    def on_error(self, reason: str, status: int = 500) -> list[Step]:
        """A step could not be carried out."""
        if self.state is CallState.ENDED:
            return []
        return self._finish(reason, caller_status=status)

    def on_timer(self, name: str) -> list[Step]:
        """A timer of :class:`StartTimer` ran out."""
        if name == "ring" and self.state is CallState.RINGING:
            return self._finish("no_answer", caller_status=480)
        if name == "transfer" and self._transferred and self.state is CallState.CONNECTED:
            return self._finish("transferred")
        if name in ("closing", "tail") and self.state is CallState.ENDING:
            return self._finish(self._end_reason)
        if name == "helper" and self.state is CallState.CONNECTED:
            return self._after_help(self.help.on_timer())
        if name == "soften" and self.state in (CallState.NOTICE, CallState.CONNECTED):
            return self.ear.on_waited()
        return []

    def _finish(self, reason: str, *, caller_status: int = 0, sip_status: int = 0) -> list[Step]:
        announced = self.state is CallState.TRANSFERRED  # this agent's call ended before
        self.state = CallState.ENDED
        steps: list[Step] = []
        if not self._phone_gone:
            steps.append(HangUp(LegName.AGENT))
        if not self._caller_gone:
            steps.append(HangUp(LegName.CALLER, caller_status))
        steps += [*self.help.drop(), StopTimer("soften")]
        steps += [StopTimer("ring"), StopTimer("closing"), StopTimer("tail"), StopTimer("transfer")]
        steps.append(ToMedia(CloseSession(call_id=self.plan.call_id)))
        steps.append(Forget() if announced else self._ended(reason, sip_status))
        return steps

    def _ended(self, reason: str, sip_status: int) -> Emit:
        now = self.now()
        return Emit(
            CallEnded(
                ts=now,
                call_id=self.plan.call_id,
                agent_id=self.plan.agent_id,
                reason=reason,
                duration_s=round(now - self.answered_ts, 3) if self.answered_ts else 0.0,
                sip_status=sip_status,
                pbx_call_id=self.plan.pbx_call_id,
            )
        )
