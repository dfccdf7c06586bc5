"""One call with its two legs: carries out on pjsua2 and the relay what the pure call decides."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

import pjsua2 as pj
import structlog

from callshield.errors import SdpError
from callshield.messages import (
    Action,
    DigitReceived,
    DigitUndelivered,
    Event,
    LegName,
    LegUpdate,
)
from callshield.settings import Settings
from sipbridge import sdp
from sipbridge.call import Call
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import (
    AnswerCaller,
    CallPhone,
    CallSupervisor,
    Emit,
    Forget,
    HangUp,
    StartTimer,
    Step,
    StopTimer,
    ToMedia,
)
from sipbridge.digits import FeatureCodes
from sipbridge.legs import Leg
from sipbridge.media_link import MediaLink
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.refer import Transfers, replaces_of
from sipbridge.sip_message import (
    SipHeaders,
    address_uri,
    body_of,
    max_forwards,
    source_host,
    uri_host_port,
)
from sipbridge.transfer import Replaces

log = structlog.get_logger()


class CallHost(Protocol):
    """What a call needs of the bridge that carries it."""

    settings: Settings
    media: MediaLink
    stack: PjsipStack
    pbx_account: Any
    phone_account: Any
    codes: Mapping[str, Action]

    def emit(self, event: Event) -> None:
        """An event for the notifier."""

    def call_supervisor(self, call_id: str, by: str) -> None:
        """*help* keyed on the phone."""

    def headers_for(
        self, bridged: Bridged, extra: tuple[tuple[str, str], ...]
    ) -> list[tuple[str, str]]:
        """What every message of ours about a call carries."""

    def from_header(self, headers: SipHeaders, *, pbx_side: bool = False) -> str:
        """From of the phone's leg, or of one that we call on the PBX's side."""

    def pbx_side_uri(self, user: str) -> str:
        """A user at our own address towards the PBX."""

    def may_be_referred_to(self, host: str) -> bool:
        """Whether a transfer may name this host."""

    def is_peer(self, host: str) -> bool:
        """Whether this is the address of a configured PBX."""

    def find_leg(self, replaces: Replaces) -> tuple[Bridged, Leg] | None:
        """The call and leg of ours that a Replaces names."""

    def let_go(self, leg: Leg) -> None:
        """Keep a leg that is nobody's any more until it ends."""

    def forget(self, call_id: str) -> None:
        """A call whose end was announced before is over."""


class Bridged:
    """One call with its two legs; carries out what :class:`Call` decides."""

    def __init__(self, bridge: CallHost, plan: CallPlan, headers: SipHeaders, source: str) -> None:
        self._bridge = bridge
        self.call = Call(plan, time.time)
        self.headers = headers
        self.caller_address = source_host(source)
        self.caller: Leg | None = None
        self.phone: Leg | None = None
        self.codes = FeatureCodes(bridge.codes)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._session_id = int.from_bytes(os.urandom(4), "big")
        self._held: dict[LegName, bool] = {}
        self._negotiated: dict[LegName, sdp.Negotiated] = {LegName.CALLER: plan.negotiated}
        self._early_response = ""
        self.transfers = Transfers(bridge, self)
        self.called_host = uri_host_port(headers.start_line.split(" ")[1])[0].lower()
        """The host of the request's URI: our own domain, as the PBX and the phones know it."""
        contact = address_uri(headers.first("Contact"))
        self.pbx_host_port = uri_host_port(contact)[1] or source
        """Where the PBX takes calls from us: its Contact in this dialog."""

    @property
    def call_id(self) -> str:
        return self.call.plan.call_id

    # --------------------------------------------------------------------- LegOwner (callbacks)

    def leg_progress(self, leg: LegName, status: int) -> None:
        self.run(self.call.on_phone_ringing(status))

    def leg_early(self, leg: LegName, response: str, source: str) -> None:
        """A provisional response with a session description: the caller hears the phone's side."""
        try:
            description = sdp.parse(body_of(response))
            negotiated = sdp.negotiate(description)
        except SdpError as error:
            log.info("early_media_unusable", call_id=self.call_id, error=str(error))
            negotiated = None
        status = int(response[8:11])
        if negotiated is not None:
            self._early_response = response
            self._negotiated[LegName.AGENT] = negotiated
            self.run(
                self.call.on_phone_early(
                    description,
                    negotiated,
                    signalling_address=source_host(source),
                    session_id=self._session_id + 1,
                )
            )
        if negotiated is None or status == 180:
            self.run(self.call.on_phone_ringing(status))

    def leg_request_answered(self, leg: LegName, method: str, status: int) -> None:
        if method == "REFER" and leg is LegName.CALLER:
            self.transfers.on_refer_answered(status)

    def leg_answered(self, leg: LegName, response: str, source: str) -> None:
        """The phone's 200: its session description must be one that the relay can carry."""
        try:
            description = sdp.parse(body_of(response) or body_of(self._early_response))
            negotiated = sdp.negotiate(description)
        except SdpError as error:
            log.warning("phone_answer_unusable", call_id=self.call_id, error=str(error))
            negotiated = None
        if negotiated is None:
            self.run(self.call.on_error("phone_answer_unusable", 500))
            return
        headers = SipHeaders(response)
        self._negotiated[LegName.AGENT] = negotiated
        if self.phone is not None:
            self.phone.signalling_address = source_host(source)
        self.run(
            self.call.on_phone_answered(
                description,
                negotiated,
                user_agent=(headers.first("User-Agent") or headers.first("Server"))[:128],
                signalling_address=source_host(source),
                session_id=self._session_id + 1,
            )
        )
        caller = self.call.caller_negotiated
        if caller is not None:
            self._negotiated[LegName.CALLER] = caller

    def leg_confirmed(self, leg: LegName) -> None:
        if leg is LegName.CALLER:
            self.run(self.call.on_caller_confirmed(self.caller_address))

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        if leg is LegName.CALLER:
            self.transfers.on_caller_gone()
            self.run(self.call.on_caller_gone(status))
        else:
            self.run(self.call.on_phone_gone(status, contact))

    def leg_offer(self, leg: LegName, offer: sdp.SessionDescription) -> str:
        """Answer a re-INVITE ourselves: new address, hold or resume; the other leg is not told."""
        own = self.caller if leg is LegName.CALLER else self.phone
        negotiated = sdp.negotiate(offer)
        if negotiated is None or offer.audio is None or own is None:
            log.info("offer_refused", call_id=self.call_id, leg=leg.value, detail=offer.offered())
            return own.local_sdp if own else ""
        address, port = self.our_media(leg)
        own.local_sdp = sdp.write_answer(
            offer,
            address=address,
            port=port,
            negotiated=negotiated,
            session_id=self._session_id,
        )
        self._negotiated[leg] = negotiated
        self._bridge.media.send(
            self.call.leg_update(leg, offer, negotiated, self._signalling_address(leg))
        )
        self._hold(leg, offer.audio.held)
        return own.local_sdp

    def leg_wants_offer(self, leg: LegName) -> str:
        """A fresh offer, sendrecv, of the codecs in force: how a late-offer PBX ends a hold."""
        negotiated = self._negotiated[leg]
        address, port = self.our_media(leg)
        return sdp.write_offer(
            address=address,
            port=port,
            voices=(negotiated.voice,),
            events=negotiated.event is not None,
            session_id=self._session_id,
            event_payload_type=negotiated.event.payload_type if negotiated.event else 101,
        )

    def leg_late_answer(
        self, leg: LegName, address: str, port: int, payload_type: int, *, held: bool
    ) -> None:
        negotiated = self._negotiated[leg]
        if payload_type != negotiated.voice.payload_type:
            log.warning("late_answer_unusable", call_id=self.call_id, leg=leg.value)
            return
        self._bridge.media.send(
            LegUpdate(
                call_id=self.call_id,
                leg=leg,
                address=address,
                port=port,
                payload_type=payload_type,
                event_payload_type=negotiated.event.payload_type if negotiated.event else -1,
                signalling_address=self._signalling_address(leg),
            )
        )
        self._hold(leg, held)

    def our_media(self, leg: LegName) -> tuple[str, int]:
        """Our media address and RTP port on a leg."""
        plan = self.call.plan
        if leg is LegName.CALLER:
            return plan.pbx_address, self.call.caller_port
        return plan.phone_address, self.call.agent_port

    def _signalling_address(self, leg: LegName) -> str:
        if leg is LegName.CALLER:
            return self.caller_address
        return self.phone.signalling_address if self.phone else ""

    def _hold(self, leg: LegName, held: bool) -> None:
        self._held[leg] = held
        self.run(
            self.call.on_hold_changed(
                caller_held=self._held.get(LegName.CALLER, False),
                agent_held=self._held.get(LegName.AGENT, False),
            )
        )

    def leg_digit(self, leg: LegName, digit: str) -> None:
        """A digit by INFO takes the way of a telephone-event through the media worker."""
        if leg is LegName.AGENT:
            self.press(digit)
        self._bridge.media.send(DigitReceived(call_id=self.call_id, leg=leg, digit=digit))

    def leg_failed(self, leg: LegName, error: str) -> None:
        self.run(self.call.on_error(f"error:{error}"))

    # ------------------------------------------------------------------------------ transfers

    def legs(self) -> list[Leg]:
        """Every leg of this call that may still be there."""
        return [leg for leg in (self.caller, self.phone, *self.transfers.legs) if leg is not None]

    def negotiated_of(self, leg: LegName) -> sdp.Negotiated:
        """The codecs in force on a leg; the caller's before the phone has answered."""
        return self._negotiated.get(leg, self._negotiated[LegName.CALLER])

    def put_in_place(
        self, leg: Leg, description: sdp.SessionDescription, negotiated: sdp.Negotiated
    ) -> Leg | None:
        """A new far end takes the place of the caller or of the agent; the leg that it had."""
        leg.owner = self
        self._negotiated[leg.name] = negotiated
        self._held[leg.name] = description.audio is not None and description.audio.held
        if leg.name is LegName.CALLER:
            old, self.caller = self.caller, leg
            self.caller_address = leg.signalling_address
            steps = self.call.on_caller_replaced(description, negotiated, leg.signalling_address)
        else:
            old, self.phone = self.phone, leg
            steps = self.call.on_target_joined(description, negotiated, leg.signalling_address)
        self.run(steps)
        self._hold(leg.name, self._held[leg.name])
        return old

    # ------------------------------------------------------------------------------ the rest

    def on_code(self, code: str) -> None:
        """A feature code was keyed on the agent's phone."""
        action = self._bridge.codes.get(code)
        if action is not None:
            self._act_on_code(action)

    def on_digit_undelivered(self, message: DigitUndelivered) -> None:
        """The other leg takes no telephone-events: the digit goes there by INFO (RFC 6086)."""
        other = self.phone if message.leg is LegName.CALLER else self.caller
        if other is not None:
            other.request(
                "INFO", [], "application/dtmf-relay", f"Signal={message.digit}\r\nDuration=160\r\n"
            )
            self._bridge.stack.rearm()

    def press(self, digit: str) -> None:
        """A digit on the agent's phone, by RFC 4733 or INFO."""
        action = self.codes.press(digit, time.monotonic())
        if action is not None:
            self._act_on_code(action)

    def _act_on_code(self, action: Action) -> None:
        outcome, _, steps = self.call.act(action, "agent:dtmf")
        log.info("agent_code", call_id=self.call_id, action=action.value, outcome=outcome)
        self.run(steps)

    def run(self, steps: list[Step]) -> None:
        """Carry out steps in order; a failing one ends this call and no other."""
        for step in steps:
            try:
                self._do(step)
            except pj.Error as error:
                log.warning(
                    "step_failed",
                    call_id=self.call_id,
                    step=type(step).__name__,
                    status=error.status,
                )
                if isinstance(step, CallPhone):
                    # An unusable URI or no transport: the agent cannot be reached.
                    self.run(self.call.on_phone_gone(480))
                elif isinstance(step, AnswerCaller):
                    self.run(self.call.on_error("caller_unreachable"))
            except Exception as error:  # one odd call must not take others, or its slot, with it
                log.exception("step_failed", call_id=self.call_id, step=type(step).__name__)
                self.run(self.call.on_error(f"error:{type(error).__name__}"))
        self._bridge.stack.rearm()

    def _do(self, step: Step) -> None:
        match step:
            case ToMedia(message):
                self._bridge.media.send(message)
            case Emit(event):
                self._bridge.emit(event)
            case CallSupervisor(by):
                self._bridge.call_supervisor(self.call_id, by)
            case CallPhone(offer):
                self._call_phone(offer)
            case AnswerCaller(status, answer, headers):
                if self.caller is not None and not self.caller.gone:
                    self.caller.respond(status, answer, self._bridge.headers_for(self, headers))
            case HangUp(LegName.CALLER, status):
                if self.caller is not None:
                    extra = self._retry_after() if status == 503 else ()
                    self.caller.hang_up(status, self._bridge.headers_for(self, extra))
            case HangUp(LegName.AGENT, status):
                if self.phone is not None:
                    self.phone.hang_up(status, self._bridge.headers_for(self, ()))
            case StartTimer(name, delay_s):
                self._stop_timer(name)
                self._timers[name] = asyncio.get_running_loop().call_later(
                    delay_s, self._timer, name
                )
            case StopTimer(name):
                self._stop_timer(name)
            case Forget():
                self._bridge.forget(self.call_id)

    def _retry_after(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", str(self._bridge.settings.sip.retry_after_s)),)

    def _stop_timer(self, name: str) -> None:
        handle = self._timers.pop(name, None)
        if handle is not None:
            handle.cancel()

    def _timer(self, name: str) -> None:
        self._timers.pop(name, None)
        self.run(self.call.on_timer(name))

    def _call_phone(self, offer: str) -> None:
        bridge = self._bridge
        agent = bridge.settings.agents[self.call.plan.agent_id]
        phone = Leg(bridge.phone_account, self, LegName.AGENT, self.call_id)
        hops = max_forwards(self.headers)
        headers = [
            ("Max-Forwards", str(hops - 1)),
            *self.headers.carried(),
            *bridge.headers_for(self, ()),
        ]
        replaces = replaces_of(self.headers)
        if isinstance(replaces, Replaces):
            # Not a dialog of ours: one that the phone has with the PBX itself.
            headers += [("Replaces", replaces.header()), ("Require", "replaces")]
        self.phone = phone
        try:
            phone.invite(agent.uri, offer, headers, bridge.from_header(self.headers))
        except BaseException:
            self.phone = None  # there is no dialog: nothing to hang up or to wait for
            raise
