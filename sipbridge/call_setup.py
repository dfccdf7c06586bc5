"""The first half of a call: from the INVITE to the phone's 200, and its session descriptions.

The second half, and the picture of the whole, is in :mod:`sipbridge.call`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal, cast

from callshield.messages import CallStarted, LegName, LegUpdate, OpenSession
from sipbridge.call_events import CallEvents
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import AnswerCaller, CallPhone, Emit, StartTimer, Step, StopTimer, ToMedia
from sipbridge.media_gate import MediaGate
from sipbridge.offer_answer import (
    LegMedia,
    offered_to_late_caller,
    offered_to_phone,
    require_same_or_g711,
)
from sipbridge.sdp import USUAL_PTIME_MS, Negotiated, SessionDescription


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


class CallSetup:
    """A call until it is answered: ports, the phone's INVITE, early media, both answers.

    Args:
        plan: what the INVITE fixed.
        now: wall clock, seconds since the epoch; stamps events only.
    """

    def __init__(self, plan: CallPlan, now: Callable[[], float]) -> None:
        self.plan = plan
        self.now = now
        self.state = CallState.OPENING
        self.media = {
            LegName.CALLER: LegMedia(plan.caller_policy, plan.pbx_address),
            LegName.AGENT: LegMedia(plan.phone_policy, plan.phone_address),
        }
        """Offer and answer of each leg."""
        self.events = CallEvents(plan, now)
        self.gate = MediaGate(plan.call_id)
        self.started_ts = 0.0
        self.answered_ts = 0.0
        self.on_hold = False
        self.caller_negotiated: Negotiated | None = None
        """What is agreed with the caller, once the phone had chosen."""
        self.caller_sdp: SessionDescription | None = None
        """The caller's offer, or its answer to ours."""
        self._ringing_sent = False
        self._early: SessionDescription | None = None
        """What the phone says in its provisional responses: its early media is relayed."""

    def begin(self, request_id: int) -> list[Step]:
        """The INVITE was accepted: reserve media."""
        self.started_ts = self.now()
        return [
            Emit(self.started_event()),
            ToMedia(OpenSession(request_id=request_id, call_id=self.plan.call_id)),
        ]

    def started_event(self) -> CallStarted:
        """The call as it is announced, at its start and in every snapshot."""
        return self.events.started(self.started_ts)

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
        return [*steps, AnswerCaller(183, answer), self.flow()]

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
            *([self.flow()] if self._early else []),  # the early audio ends here
            AnswerCaller(200, answer),
            self.events.answered(self.answered_ts, user_agent=user_agent, codec=caller.voice.name),
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

    def flow(self) -> ToMedia:
        """What may pass before the caller's ACK: early media, or nothing."""
        if self.state is CallState.RINGING and self._early:
            return self.gate.ringing()
        return self.gate.flow(
            hears=False, talks=False, on_hold=self.on_hold, paused=False, conference=False
        )
