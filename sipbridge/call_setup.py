"""The first half of a call: from the INVITE to the called side's 200, and session descriptions.

Signalling knows an *incoming* leg, on which the INVITE came, and an *outgoing* one that we call;
which of them is the caller's and which the agent's is the plan's (:mod:`sipbridge.call_plan`).

The second half, and the picture of the whole, is in :mod:`sipbridge.call`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Literal, cast

from callshield.messages import CallStarted, LegName
from callshield.messages_media import LegUpdate, OpenSession
from sipbridge.call_events import CallEvents
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import AnswerIncoming, CallOut, Emit, StartTimer, Step, StopTimer, ToMedia
from sipbridge.media_gate import MediaGate
from sipbridge.offer_answer import (
    LegMedia,
    offered_onward,
    offered_to_late_caller,
    require_same_or_g711,
)
from sipbridge.sdp import USUAL_PTIME_MS, Negotiated, SessionDescription


class CallState(StrEnum):
    """Where a call stands."""

    OPENING = "opening"
    TELLING = "telling"
    """The caller hears the notice; the agent's phone does not ring yet."""
    RINGING = "ringing"
    ANSWERING = "answering"
    NOTICE = "notice"
    CONNECTED = "connected"
    TRANSFERRED = "transferred"
    """The agent is out; the caller speaks with somebody else through us, unanalysed."""
    ENDING = "ending"
    ENDED = "ended"


class CallSetup:
    """A call until it is answered: ports, our INVITE, early media, both answers.

    Args:
        plan: what the INVITE fixed.
        now: wall clock, seconds since the epoch; stamps events only.
        clock: seconds that no step of the wall clock moves; how long was spoken.
    """

    def __init__(
        self, plan: CallPlan, now: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.plan = plan
        self.now, self.clock = now, clock
        self.state = CallState.OPENING
        self.media = {
            LegName.CALLER: LegMedia(plan.caller_policy, plan.pbx_address),
            LegName.AGENT: LegMedia(plan.phone_policy, plan.phone_address),
        }
        """Offer and answer of each leg."""
        self.events = CallEvents(plan, now)
        self.gate = MediaGate(plan.call_id, internal=plan.internal)
        self.started_ts = 0.0
        self.answered_ts = 0.0
        self.answered_s = 0.0
        """The same moment by :attr:`clock`."""
        self.on_hold = False
        self.incoming_negotiated: Negotiated | None = None
        """What is agreed on the incoming leg, once the called side had chosen."""
        self.incoming_sdp: SessionDescription | None = None
        """The incoming leg's offer, or its answer to ours."""
        self.called_sdp: SessionDescription | None = None
        """What the called side answered."""
        self._ringing_sent = False
        self._first_answer = ""
        """Our answer to a caller who hears the notice before the phone rings."""
        self._early: SessionDescription | None = None
        """What the called side says in its provisional responses: its early media is relayed."""

    def begin(self, request_id: int) -> list[Step]:
        """The INVITE was accepted: reserve media."""
        self.started_ts = self.now()
        return [
            Emit(self.started_event()),
            *self.events.ringback(),
            ToMedia(OpenSession(request_id=request_id, call_id=self.plan.call_id)),
        ]

    def started_event(self) -> CallStarted:
        """The call as it is announced, at its start and in every snapshot."""
        return self.events.started(self.started_ts)

    def on_media_open(self, caller_port: int, agent_port: int, session_id: int) -> list[Step]:
        """Ports are reserved: call the other side with the incoming leg's voice codecs."""
        if self.state is not CallState.OPENING:
            return []
        for leg, port in ((LegName.CALLER, caller_port), (LegName.AGENT, agent_port)):
            self.media[leg].port, self.media[leg].session_id = port, session_id
        if self.plan.tells_first:
            return self._describe_first()
        return self.ring()

    def _describe_first(self) -> list[Step]:
        """The caller is answered, or promised early media, with the codec that the phone will be
        offered first; the notice begins when the caller is known to have that."""
        plan = self.plan
        assert plan.offer is not None
        self.state = CallState.TELLING
        onward = offered_onward(plan.offer, plan.policy(plan.outgoing), plan.policy(plan.incoming))
        answered = self.media[plan.incoming].answer(plan.offer, onward[0])
        self._first_answer, self.incoming_sdp, self.incoming_negotiated = answered
        return [AnswerIncoming(183 if plan.place == "early_media" else 200, self._first_answer)]

    def ring(self) -> list[Step]:
        """Call the other side."""
        self.state = CallState.RINGING
        plan = self.plan
        audio = plan.offer.audio if plan.offer else None
        told = self.incoming_negotiated
        voices = (
            offered_to_late_caller(told.voice, plan.policy(plan.outgoing))
            if told is not None
            else offered_onward(plan.offer, plan.policy(plan.outgoing), plan.policy(plan.incoming))
        )
        # Events always: the agent's feature codes need them, whatever the caller has.
        offer = self.media[plan.outgoing].offer(
            voices,
            comfort_noise=told is None and audio is not None and audio.comfort_noise is not None,
            ptime_ms=audio.ptime_ms if audio else USUAL_PTIME_MS,
        )
        return [CallOut(offer), StartTimer("ring", self.plan.ring_timeout_s)]

    def first_answer(self) -> str:
        """What PJSIP has to be given before anybody chose: the answer to the offer by itself,
        replaced in the 200; ``""`` for a late offer. Call it after :meth:`on_media_open`."""
        if self.plan.offer is None or self._first_answer:
            return self._first_answer
        return self.media[self.plan.incoming].answer(self.plan.offer, None)[0]

    def on_ringing(self, status: int) -> list[Step]:
        """180, or 183 without a session description, from the called side.

        Both reach the PBX once, as 180: a 183 without a session description would leave whoever
        calls in silence (RFC 3960).
        """
        if self.state is not CallState.RINGING or self._ringing_sent or status < 180:
            return []
        if self.plan.tells_first:
            return []  # the caller hears our own tone
        self._ringing_sent = True
        return [AnswerIncoming(180)]

    def on_early_media(
        self,
        sdp: SessionDescription,
        negotiated: Negotiated,
        *,
        signalling_address: str,
        session_id: int,
    ) -> list[Step]:
        """A provisional response with a session description: early media (RFC 3960).

        Who calls hears the called side (ring-back, an announcement of the network) and nothing
        more: nothing goes the other way, nothing is tapped, no notice plays. Our answer goes out
        once, in a 183; it stays what it is when the called side changes its own, and in the 200
        (RFC 6337 section 2.3).
        """
        if self.plan.offer is None:
            # Our offer goes in the 200 only: until it is answered nothing can be heard.
            return self.on_ringing(183)
        if self.state is not CallState.RINGING or sdp == self._early or self.plan.tells_first:
            return []
        first, self._early = self._early is None, sdp
        steps: list[Step] = [
            ToMedia(self.leg_update(self.plan.outgoing, sdp, negotiated, signalling_address))
        ]
        if not first:
            return steps
        answer = self._describe_back(sdp, negotiated, session_id)
        assert self.incoming_negotiated is not None
        assert self.incoming_sdp is not None
        incoming = self.plan.incoming
        steps.append(
            ToMedia(self.leg_update(incoming, self.incoming_sdp, self.incoming_negotiated, ""))
        )
        return [*steps, AnswerIncoming(183, answer), self.flow()]

    def _describe_back(self, sdp: SessionDescription, called: Negotiated, session_id: int) -> str:
        """Our session description for the incoming leg, with the codec that the called side took:
        the answer to its offer, or, where it made none, our offer.

        Raises:
            OfferRefused: the incoming leg has not what the called side took.
        """
        incoming = self.media[self.plan.incoming]
        incoming.session_id = session_id
        noise = called.comfort_noise is not None
        if self.plan.offer is None:
            return incoming.offer(
                offered_to_late_caller(called.voice, self.plan.policy(self.plan.incoming)),
                comfort_noise=noise,
                ptime_ms=sdp.audio.ptime_ms if sdp.audio else USUAL_PTIME_MS,
            )
        answer, self.incoming_sdp, self.incoming_negotiated = incoming.answer(
            self.plan.offer, called.voice, comfort_noise=noise, voice_fmtp=called.voice.fmtp
        )
        return answer

    def on_answered(
        self,
        sdp: SessionDescription,
        negotiated: Negotiated,
        *,
        user_agent: str,
        signalling_address: str,
        session_id: int,
    ) -> list[Step]:
        """200 from the called side: answer the incoming leg with the codec that it took.

        An INVITE without an offer gets ours, of that codec; its answer comes with the ACK.

        Args:
            user_agent: what the agent's side calls itself, whichever leg it is.

        Raises:
            OfferRefused: the incoming leg has not what the called side took.
        """
        if self.state is not CallState.RINGING:
            return []
        if self._early or self.plan.tells_first:
            assert self.incoming_negotiated is not None
            answer = ""  # it went out in the 183 (or an earlier 200), and stays
            require_same_or_g711(negotiated.voice, self.incoming_negotiated.voice)
        else:
            answer = self._describe_back(sdp, negotiated, session_id)
        incoming = self.incoming_negotiated or negotiated
        self.called_sdp = sdp
        self.state = CallState.ANSWERING
        self.answered_ts, self.answered_s = self.now(), self.clock()
        said_before = self.plan.place == "before_ringing"
        return [
            StopTimer("ring"),
            ToMedia(self.leg_update(self.plan.outgoing, sdp, negotiated, signalling_address)),
            *([self.flow()] if self._early else []),  # the early audio ends here
            *([] if said_before else [AnswerIncoming(200, answer)]),
            self.events.answered(
                self.answered_ts, user_agent=user_agent, codec=incoming.voice.name
            ),
            # The caller's ACK to our 200 came long ago.
            *(self.on_incoming_confirmed("") if said_before else []),
        ]

    def on_incoming_confirmed(self, signalling_address: str) -> list[Step]:
        """The incoming leg has our session description; see :mod:`sipbridge.call`."""
        raise NotImplementedError

    def on_incoming_answer(self, sdp: SessionDescription) -> None:
        """The answer to our offer came with the ACK of the incoming leg.

        Raises:
            OfferRefused: it took nothing of our offer.
        """
        self.incoming_negotiated = self.media[self.plan.incoming].take_answer(sdp)
        self.incoming_sdp = sdp

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
        """What may pass before the incoming leg's ACK: early media, or nothing."""
        if self.state is CallState.RINGING and self._early:
            return self.gate.ringing(self.plan.outgoing)
        return self.gate.flow(
            hears=False, talks=False, on_hold=self.on_hold, paused=False, conference=False
        )
