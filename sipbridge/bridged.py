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
from callshield.messages import Action, DigitReceived, Event, LegName, LegUpdate
from callshield.settings import Settings
from sipbridge import sdp
from sipbridge.call import Call
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import (
    AnswerCaller,
    CallHelper,
    CallPhone,
    CallSupervisor,
    Emit,
    HangUp,
    ReplaceAgent,
    StartTimer,
    Step,
    StopTimer,
    ToMedia,
)
from sipbridge.legs import Leg
from sipbridge.media_link import MediaLink
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.sip_message import SipHeaders, max_forwards, source_host

log = structlog.get_logger()


class CallHost(Protocol):
    """What a call needs of the bridge that carries it."""

    settings: Settings
    media: MediaLink
    stack: PjsipStack
    phone_account: Any
    codes: Mapping[str, Action]

    def emit(self, event: Event) -> None:
        """An event for the notifier."""

    def call_supervisor(self, call_id: str, by: str) -> str:
        """*help* keyed on the phone; returns the request's id."""

    def may_call_helper(self) -> bool:
        """False while too many helpers' phones are in use."""

    def keep_until_over(self, leg: Leg) -> None:
        """Hold a leg that no call needs any more until its BYE is answered."""

    def headers_for(
        self, bridged: Bridged, extra: tuple[tuple[str, str], ...]
    ) -> list[tuple[str, str]]:
        """What every message of ours about a call carries."""

    def from_header(self, headers: SipHeaders) -> str:
        """From of the phone's leg."""


class Bridged:
    """One call with its two legs; carries out what :class:`Call` decides."""

    def __init__(self, bridge: CallHost, plan: CallPlan, headers: SipHeaders, source: str) -> None:
        self._bridge = bridge
        self.call = Call(plan, time.time)
        self.headers = headers
        self.caller_address = source_host(source)
        self.caller: Leg | None = None
        self.phone: Leg | None = None
        self.helper: Leg | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._session_id = int.from_bytes(os.urandom(4), "big")
        self._held: dict[LegName, bool] = {}
        self._negotiated: dict[LegName, sdp.Negotiated] = {LegName.CALLER: plan.negotiated}

    @property
    def call_id(self) -> str:
        return self.call.plan.call_id

    @property
    def legs(self) -> tuple[Leg | None, ...]:
        return self.caller, self.phone, self.helper

    # --------------------------------------------------------------------- LegOwner (callbacks)

    def leg_progress(self, leg: LegName, status: int) -> None:
        if leg is LegName.HELPER:
            return
        self.run(self.call.on_phone_ringing(status))

    def leg_answered(self, leg: LegName, response: str, source: str) -> None:
        """The phone's 200: its session description must be one that the relay can carry."""
        description: sdp.SessionDescription | None = None
        negotiated: sdp.Negotiated | None = None
        try:
            description = sdp.parse(response.replace("\r\n", "\n").partition("\n\n")[2])
            negotiated = sdp.negotiate(description)
        except SdpError as error:
            log.warning("phone_answer_unusable", call_id=self.call_id, error=str(error))
        if leg is LegName.HELPER:
            self._helper_answered(description, negotiated, source_host(source))
            return
        if description is None or negotiated is None:
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

    def _helper_answered(
        self,
        description: sdp.SessionDescription | None,
        negotiated: sdp.Negotiated | None,
        source: str,
    ) -> None:
        if self.helper is not None:
            self.helper.signalling_address = source
        if negotiated is not None:
            self._negotiated[LegName.HELPER] = negotiated
        self.run(self.call.on_helper_answered(description, negotiated, source))

    def leg_confirmed(self, leg: LegName) -> None:
        if leg is LegName.CALLER:
            self.run(self.call.on_caller_confirmed(self.caller_address))

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        if leg is LegName.CALLER:
            self.run(self.call.on_caller_gone(status))
        elif leg is LegName.HELPER:
            self.run(self.call.on_helper_gone())
        else:
            self.run(self.call.on_phone_gone(status, contact))

    def leg_offer(self, leg: LegName, offer: sdp.SessionDescription) -> str:
        """Answer a re-INVITE ourselves: new address, hold or resume; the other leg is not told."""
        own = self._leg(leg)
        negotiated = sdp.negotiate(offer)
        if negotiated is None or offer.audio is None or own is None:
            log.info("offer_refused", call_id=self.call_id, leg=leg.value, detail=offer.offered())
            return own.local_sdp if own else ""
        address, port = self._our_media(leg)
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
        address, port = self._our_media(leg)
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

    def _leg(self, leg: LegName) -> Leg | None:
        legs = {LegName.CALLER: self.caller, LegName.AGENT: self.phone}
        return legs.get(leg, self.helper)

    def _our_media(self, leg: LegName) -> tuple[str, int]:
        plan = self.call.plan
        if leg is LegName.HELPER:
            return plan.phone_address, self.call.help.port
        if leg is LegName.CALLER:
            return plan.pbx_address, self.call.caller_port
        return plan.phone_address, self.call.agent_port

    def _signalling_address(self, leg: LegName) -> str:
        if leg is LegName.CALLER:
            return self.caller_address
        own = self._leg(leg)
        return own.signalling_address if own else ""

    def _hold(self, leg: LegName, held: bool) -> None:
        self._held[leg] = held
        if leg is LegName.HELPER:
            self.run(self.call.on_helper_hold(held=held))
            return
        self.run(
            self.call.on_hold_changed(
                caller_held=self._held.get(LegName.CALLER, False),
                agent_held=self._held.get(LegName.AGENT, False),
            )
        )

    def leg_digit(self, leg: LegName, digit: str) -> None:
        self._bridge.media.send(DigitReceived(call_id=self.call_id, leg=leg, digit=digit))

    def leg_failed(self, leg: LegName, error: str) -> None:
        if leg is LegName.HELPER:  # the conversation goes on without
            self.run([HangUp(LegName.HELPER), *self.call.on_helper_gone()])
            return
        self.run(self.call.on_error(f"error:{error}"))

    # ------------------------------------------------------------------------------ the rest

    def on_code(self, code: str) -> None:
        """A feature code was keyed on the agent's phone."""
        action = self._bridge.codes.get(code)
        if action is not None:
            action = self.call.keyed(action)
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
                elif isinstance(step, CallHelper):
                    self.run(self.call.on_helper_gone())
                elif isinstance(step, AnswerCaller):
                    self.run(self.call.on_error("caller_unreachable"))
            except Exception as error:  # one odd call must not take others, or its slot, with it
                log.exception("step_failed", call_id=self.call_id, step=type(step).__name__)
                if isinstance(step, CallHelper):
                    self.run(self.call.on_helper_gone())
                    continue
                self.run(self.call.on_error(f"error:{type(error).__name__}"))
        self._bridge.stack.rearm()

    def _do(self, step: Step) -> None:
        match step:
            case ToMedia(message):
                self._bridge.media.send(message)
            case Emit(event):
                self._bridge.emit(event)
            case CallSupervisor(by):
                self.call.help.known_as(self._bridge.call_supervisor(self.call_id, by))
            case CallPhone(offer):
                self._call_phone(offer)
            case CallHelper(uri, offer):
                self._call_helper(uri, offer)
            case ReplaceAgent():
                self._replace_agent()
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
            case HangUp(LegName.HELPER, status):
                if self.helper is not None:
                    self.helper.hang_up(status, self._bridge.headers_for(self, ()))
                    # Its end, when it comes, must not be taken for that of the next one called.
                    self._bridge.keep_until_over(self.helper)
                    self.helper = None
            case StartTimer(name, delay_s):
                self._stop_timer(name)
                self._timers[name] = asyncio.get_running_loop().call_later(
                    delay_s, self._timer, name
                )
            case StopTimer(name):
                self._stop_timer(name)

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
        self.phone = Leg(bridge.phone_account, self, LegName.AGENT, self.call_id)
        try:
            self._invite(self.phone, agent.uri, offer)
        except BaseException:
            self.phone = None  # there is no dialog: nothing to hang up or to wait for
            raise

    def _invite(self, leg: Leg, uri: str, offer: str) -> None:
        bridge = self._bridge
        hops = max_forwards(self.headers)
        headers = [
            ("Max-Forwards", str(hops - 1)),
            *self.headers.carried(),
            *bridge.headers_for(self, ()),
        ]
        leg.invite(uri, offer, headers, bridge.from_header(self.headers))

    def _call_helper(self, uri: str, offer: str) -> None:
        bridge = self._bridge
        if not bridge.may_call_helper():
            log.warning("too_many_helpers", call_id=self.call_id)
            self.run(self.call.on_helper_gone())
            return
        self._held.pop(LegName.HELPER, None)
        self.helper = Leg(bridge.phone_account, self, LegName.HELPER, self.call_id)
        try:
            self._invite(self.helper, uri, offer)
        except BaseException:
            self.helper = None
            raise

    def _replace_agent(self) -> None:
        """The helper's dialog becomes the agent's leg; the old one gets its BYE by itself."""
        old, self.phone, self.helper = self.phone, self.helper, None
        assert self.phone is not None
        self.phone.name = LegName.AGENT
        self._negotiated[LegName.AGENT] = self._negotiated.pop(LegName.HELPER)
        self._held[LegName.AGENT] = self._held.pop(LegName.HELPER, False)
        if old is not None:
            self._bridge.keep_until_over(old)
            old.hang_up(0, self._bridge.headers_for(self, ()))
