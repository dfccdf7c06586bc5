"""One call with its two legs: carries out on pjsua2 and the relay what the pure call decides."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pjsua2 as pj
import structlog

from callshield.errors import SdpError
from callshield.messages import Action, Event, LegName
from callshield.messages_care import EXCLUSIONS
from callshield.messages_media import DigitReceived, DigitUndelivered, Told
from callshield.messages_privacy import CallerNumber
from callshield.settings import Settings
from sipbridge import sdp
from sipbridge.call import Call, CallState
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import (
    AnswerIncoming,
    CallHelper,
    CallOut,
    CallSupervisor,
    Emit,
    Forget,
    HangUp,
    ReplaceAgent,
    StartTimer,
    Step,
    StopTimer,
    ToMedia,
)
from sipbridge.far_end import is_somebody_else, named_numbers
from sipbridge.legs import Leg
from sipbridge.media_link import MediaLink
from sipbridge.offer_answer import LegMedia, OfferRefused
from sipbridge.our_invites import OurInvite, OurInvites
from sipbridge.phone_news import PhoneNews
from sipbridge.phone_seen import PhonesSeen
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.redirect import Redirections
from sipbridge.refer import Transfers
from sipbridge.routing import calling_numbers
from sipbridge.silence_probe import SilenceProbe
from sipbridge.sip_message import (
    SipHeaders,
    address_uri,
    body_of,
    source_host,
    uri_host_port,
)
from sipbridge.transfer import Replaces

if TYPE_CHECKING:
    from sipbridge.keeping import Keeping

log = structlog.get_logger()

#: In the BYE of a call that counts for nobody's figures.
EXCLUDE_HEADER = "X-Callshield-Exclude"

#: Our session description is on its way to the caller: an acknowledgement says that it arrived.
_DESCRIBED = (CallState.TELLING, CallState.ANSWERING)
_OTHER = {
    LegName.CALLER: LegName.AGENT,
    LegName.AGENT: LegName.CALLER,
    LegName.HELPER: LegName.CALLER,
}


class CallHost(Protocol):
    """What a call needs of the bridge that carries it."""

    settings: Settings
    media: MediaLink
    stack: PjsipStack
    pbx_accounts: dict[str, Any]
    """pjsua2 accounts of the PBX side by transport: udp, tcp, and tls where it is configured."""
    phone_accounts: dict[str, Any]
    keeping: Keeping
    codes: Mapping[str, Action]

    own_headers: Collection[str]
    """Names (small letters) of headers that are said to us alone."""
    phones: PhoneNews
    """What phones said of themselves by refusing."""
    phones_seen: PhonesSeen
    """What phones that answered call themselves."""

    def phone_account(self, uri: str) -> Any:
        """The pjsua2 account for a leg to a configured phone."""

    def trunk_account(self, name: str) -> Any:
        """The pjsua2 account for a leg over a line."""

    def trunk_identity(self, name: str, headers: SipHeaders) -> tuple[str, list[tuple[str, str]]]:
        """From, and other headers that say who calls over a line."""

    def may_be_called_instead(self, uri: str) -> Callable[[str], bool]:
        """Whether a host may be called that a phone redirects us to."""

    def emit(self, event: Event) -> None:
        """An event for the notifier."""

    def call_supervisor(self, call_id: str, by: str) -> str:
        """*help* keyed on the phone; returns the request's id."""

    def may_call_helper(self) -> bool:
        """False while too many helpers' phones are in use."""

    def headers_for(
        self, bridged: Bridged, extra: tuple[tuple[str, str], ...]
    ) -> list[tuple[str, str]]:
        """What every message of ours about a call carries."""

    def from_header(self, headers: SipHeaders, *, pbx_side: bool = False) -> str:
        """From of the phone's leg, or of one that we call on the PBX's side."""

    def from_number(self, number: str, *, pbx_side: bool = False) -> str:
        """From with a number at our own address on one side."""

    def pbx_side_uri(self, user: str) -> str:
        """A user at our own address towards the PBX."""

    def may_be_referred_to(self, host: str) -> bool:
        """Whether a transfer may name this host."""

    def may_transfer_to(self, agent_id: str, user: str) -> bool:
        """Whether an agent's phone may have us call this user at the PBX."""

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

    def __init__(
        self, bridge: CallHost, plan: CallPlan, headers: SipHeaders, source: str, message: str
    ) -> None:
        self._bridge = bridge
        self.call = Call(plan, time.time)
        self.headers = headers
        self.invite_message, self.invite_source = message, source
        self.source = source_host(source)
        """Where the call's INVITE came from."""
        self.numbers = calling_numbers(headers)
        self.callers_numbers = self.numbers
        """By which whoever is not the agent was named, until the answer."""
        if plan.incoming is LegName.AGENT:
            self.callers_numbers = frozenset({plan.dialled, plan.dialled.replace("#", "%23")})
        self.caller_number: CallerNumber | None = None
        """What the notifier was told of the caller's number; told again when it comes back."""
        self.caller: Leg | None = None
        self.phone: Leg | None = None
        self.helper: Leg | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._session_id = int.from_bytes(os.urandom(4), "big")
        self._held: dict[LegName, bool] = {}
        self._early_response = ""
        self.transfers = Transfers(bridge, self)
        asks = bridge.settings.sip.ask_silent_legs
        self.probe = SilenceProbe(self.call_id, self.leg, bridge.stack.rearm, enabled=asks)
        self.invites = OurInvites(bridge, plan, headers)
        self.called_host = uri_host_port(headers.start_line.split(" ")[1])[0].lower()
        """The host of the request's URI: our own domain, as the PBX and the phones know it."""
        host, host_port = uri_host_port(address_uri(headers.first("Contact")))
        self.pbx_host_port = host_port if bridge.may_be_referred_to(host) else source
        """Where the PBX takes calls from us: its Contact in this dialog, inside the networks."""

    @property
    def call_id(self) -> str:
        return self.call.plan.call_id

    @property
    def _called(self) -> str:
        """Whom we call: the phone's URI, or the line's name."""
        plan = self.call.plan
        return f"trunk {plan.trunk}" if plan.trunk else plan.called_uri

    # --------------------------------------------------------------------- LegOwner (callbacks)

    def leg_progress(self, leg: LegName, status: int) -> None:
        if leg is LegName.HELPER:
            return
        self.run(self.call.on_ringing(status))

    def leg_early(self, leg: LegName, response: str, source: str) -> None:
        """A provisional response with a session description: who calls hears the called side."""
        if leg is not self.call.plan.outgoing or self.call.state is not CallState.RINGING:
            return  # a helper's ring-back is nobody's business
        try:
            description = sdp.parse(body_of(response))
            negotiated = self.call.media[leg].take_answer(description)
        except SdpError as error:
            log.info("early_media_unusable", call_id=self.call_id, error=str(error))
            negotiated = None
        status = int(response[8:11])
        if negotiated is not None:
            self._early_response = response
            try:
                steps = self.call.on_early_media(
                    description,
                    negotiated,
                    signalling_address=source_host(source),
                    session_id=self._session_id + 1,
                )
            except OfferRefused as refused:
                log.info("early_media_unusable", call_id=self.call_id, error=str(refused))
                steps = self.call.on_ringing(180)
            self.run(steps)
        if negotiated is None or status == 180:
            self.run(self.call.on_ringing(status))

    def leg_request_answered(self, leg: LegName, method: str, status: int) -> None:
        if method == "REFER" and leg is LegName.CALLER:
            self.transfers.on_refer_answered(status)
        elif method == "OPTIONS":
            self.probe.answered(leg, status)

    def leg_answered(self, leg: LegName, response: str, source: str) -> None:
        """The called side's 200: its session description must be one that the relay can carry."""
        if leg is LegName.HELPER:
            self._helper_answered(body_of(response), source_host(source))
            return
        self.leg_named(leg, SipHeaders(response))
        if leg is LegName.AGENT:
            plan = self.call.plan
            self._bridge.phones_seen.answered(plan.agent_id, plan.called_uri, SipHeaders(response))
        try:
            description = sdp.parse(body_of(response) or body_of(self._early_response))
            negotiated = self.call.media[leg].take_answer(description)
            agents = SipHeaders(response) if leg is LegName.AGENT else self.headers
            steps = self.call.on_answered(
                description,
                negotiated,
                user_agent=(agents.first("User-Agent") or agents.first("Server"))[:128],
                signalling_address=source_host(source),
                session_id=self._session_id + 1,
            )
        except SdpError as error:
            log.warning(
                "phone_answer_unusable", call_id=self.call_id, leg=leg.value, error=str(error)
            )
            self.run(self.call.on_error("phone_answer_unusable", 488))
            return
        if (called := self.leg(leg)) is not None:
            called.signalling_address = source_host(source)
        self._bridge.phones.believed(self._called)
        self.run(steps)

    def _helper_answered(self, body: str, source: str) -> None:
        if self.helper is not None:
            self.helper.signalling_address = source
        try:
            description = sdp.parse(body)
        except SdpError as error:
            log.warning("helper_answer_unusable", call_id=self.call_id, error=str(error))
            description = None
        self.run(self.call.on_helper_answered(description, source))

    def leg_confirmed(self, leg: LegName) -> None:
        if leg is self.call.plan.incoming and self.call.state in _DESCRIBED:
            self.run(self.call.on_incoming_confirmed(self.source))
            self._held.setdefault(LegName.CALLER, not self.call.caller_listens)

    def leg_acknowledged(self, leg: LegName) -> None:
        early = self.call.plan.place == "early_media" and self.call.state is CallState.TELLING
        if leg is self.call.plan.incoming and early:
            self.leg_confirmed(leg)

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        if leg is LegName.HELPER:
            self.run(self.call.on_helper_gone())
            return
        plan, own, rest_s = self.call.plan, self.leg(leg), 0
        if leg is plan.outgoing and own is not None and not own.answered:
            # A line's Retry-After is about one number, or its own trouble: the next call tries.
            rest_s = own.rest_s if status == 503 and not plan.trunk else 0
            whose = self._called if plan.trunk else plan.agent_id
            self._bridge.phones.refused(self._called, whose, status, rest_s)
        if leg is LegName.CALLER:
            self.transfers.on_caller_gone()
            self.run(self.call.on_caller_gone(status, contact))
        else:
            self.run(self.call.on_phone_gone(status, contact, rest_s))

    def leg_offer(self, leg: LegName, offer: sdp.SessionDescription) -> str:
        """Answer a re-INVITE ourselves: new address, hold or resume; the other leg is not told."""
        own = self.leg(leg)
        other = self.call.media[_OTHER[leg]].negotiated
        try:
            answer, offer, negotiated = self.call.media[leg].answer(
                offer,
                other.voice if other else None,
                comfort_noise=other is not None and other.comfort_noise is not None,
                voice_fmtp=other.voice.fmtp if other else "",
            )
        except OfferRefused as refused:
            log.info("offer_refused", call_id=self.call_id, leg=leg.value, detail=str(refused))
            return own.local_sdp if own else ""
        if own is not None:
            own.local_sdp = answer
        self._bridge.media.send(
            self.call.leg_update(leg, offer, negotiated, self._signalling_address(leg))
        )
        assert offer.audio is not None
        self._hold(leg, offer.audio.held)
        return answer

    def leg_refuses(self, leg: LegName, offer: sdp.SessionDescription) -> bool:
        """A re-INVITE to answer with 488: the leg goes on as it was (RFC 3261 section 14.2)."""
        other = self.call.media[_OTHER[leg]].negotiated
        try:
            self.call.media[leg].accept(offer, other.voice if other else None)
        except OfferRefused as refused:
            log.info(
                "offer_refused",
                call_id=self.call_id,
                leg=leg.value,
                reason=refused.reason,
                detail=str(refused),
            )
            return True
        return False

    def leg_wants_offer(self, leg: LegName) -> str:
        """A fresh offer, sendrecv, of the codecs in force: how a late-offer PBX ends a hold."""
        return self.call.media[leg].offer_in_force()

    def leg_late_answer(self, leg: LegName, answer: str) -> None:
        """The answer to an offer of ours in a 200 came with the ACK."""
        try:
            description = sdp.parse(answer)
            if leg is self.call.plan.incoming and self.call.state is CallState.ANSWERING:
                self.call.on_incoming_answer(description)  # the ACK of the call's own INVITE
                return
            negotiated = self.call.media[leg].take_answer(description)
        except SdpError as error:
            log.warning(
                "late_answer_unusable", call_id=self.call_id, leg=leg.value, error=str(error)
            )
            return
        self._bridge.media.send(
            self.call.leg_update(leg, description, negotiated, self._signalling_address(leg))
        )
        assert description.audio is not None  # take_answer() took it
        self._hold(leg, description.audio.held)

    def leg(self, leg: LegName) -> Leg | None:
        legs = {LegName.CALLER: self.caller, LegName.AGENT: self.phone}
        return legs.get(leg, self.helper)

    def _signalling_address(self, leg: LegName) -> str:
        own = self.leg(leg)
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

    def leg_named(self, leg: LegName, headers: SipHeaders) -> None:
        """The far end says who is at the caller's end now (:mod:`sipbridge.far_end`)."""
        if leg is not LegName.CALLER:
            return
        if leg is self.call.plan.outgoing and not self.call.answered_ts:
            self.callers_numbers |= named_numbers(headers)  # whoever answers hears the notice
            return
        other = is_somebody_else(self.callers_numbers, headers)
        if other is not None:
            self.run(self.call.on_caller_named(somebody_else=other))

    def leg_digit(self, leg: LegName, digit: str) -> None:
        """A digit by INFO takes the way of a telephone-event through the media worker."""
        self._bridge.media.send(DigitReceived(call_id=self.call_id, leg=leg, digit=digit))

    def leg_dialog_moved(self, leg: LegName) -> None:
        self._bridge.keeping.moved(self)

    def leg_failed(self, leg: LegName, error: str) -> None:
        if leg is LegName.HELPER:  # the conversation goes on without
            self.run([HangUp(LegName.HELPER), *self.call.on_helper_gone()])
            return
        self.run(self.call.on_error(f"error:{error}"))

    # ------------------------------------------------------------------------------ transfers

    def legs(self) -> list[Leg]:
        """Every leg of this call that may still be there."""
        legs = (self.caller, self.phone, self.helper, *self.transfers.legs)
        return [leg for leg in legs if leg is not None]

    def put_in_place(
        self, leg: Leg, description: sdp.SessionDescription, media: LegMedia
    ) -> Leg | None:
        """A new far end takes the place of the caller or of the agent; the leg that it had."""
        leg.owner = self
        negotiated = media.negotiated
        assert negotiated is not None
        self.call.media[leg.name] = media
        self._held[leg.name] = description.audio is not None and description.audio.held
        if leg.name is LegName.CALLER:
            old, self.caller = self.caller, leg
            steps = self.call.on_caller_replaced(description, negotiated, leg.signalling_address)
        else:
            old, self.phone = self.phone, leg
            steps = self.call.on_target_joined(description, negotiated, leg.signalling_address)
        self.run(steps)
        self._hold(leg.name, self._held[leg.name])
        return old

    # ------------------------------------------------------------------------------ the rest

    def on_code(self, code: str) -> None:
        """The media worker saw a feature code on the agent's leg."""
        action = self._bridge.codes.get(code)
        if action is not None:
            action = self.call.keyed(action)
            outcome, _, steps = self.call.act(action, "agent:dtmf")
            log.info("agent_code", call_id=self.call_id, action=action.value, outcome=outcome)
            self.run(steps)

    def on_digit_undelivered(self, message: DigitUndelivered) -> None:
        """The other leg takes no telephone-events: the digit goes there by INFO (RFC 6086)."""
        other = self.phone if message.leg is LegName.CALLER else self.caller
        if other is not None:
            other.request(
                "INFO", [], "application/dtmf-relay", f"Signal={message.digit}\r\nDuration=160\r\n"
            )
            self._bridge.stack.rearm()

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
                if isinstance(step, CallOut):
                    # An unusable URI or no transport: the other side cannot be reached.
                    self.leg_gone(self.call.plan.outgoing, 480, "")
                elif isinstance(step, CallHelper):
                    self.run(self.call.on_helper_gone())
                elif isinstance(step, AnswerIncoming):
                    self.run(self.call.on_error("caller_unreachable"))
            except Exception as error:  # one odd call must not take others, or its slot, with it
                log.exception("step_failed", call_id=self.call_id, step=type(step).__name__)
                if isinstance(step, CallHelper):
                    self.run(self.call.on_helper_gone())
                    continue
                self.run(self.call.on_error(f"error:{type(error).__name__}"))
        self._bridge.keeping.moved(self)
        self._bridge.stack.rearm()

    def _do(self, step: Step) -> None:
        match step:
            case ToMedia(message):
                self._bridge.media.send(message)
            case Emit(event):
                if isinstance(event, Told) and self.call.plan.record_allowed:
                    nobody = msgspec.structs.replace(event, agent_id="", pbx_call_id="")
                    self._bridge.media.send(nobody)
                self._bridge.emit(event)
            case CallSupervisor(by):
                self.call.help.known_as(self._bridge.call_supervisor(self.call_id, by))
            case CallOut(offer):
                self._call_out(offer)
            case CallHelper(uri, offer):
                self._call_helper(uri, offer)
            case ReplaceAgent():
                self._replace_agent()
            case AnswerIncoming(status, answer, headers):
                incoming = self.incoming_leg
                if incoming is not None and not incoming.gone:
                    incoming.respond(status, answer, self._bridge.headers_for(self, headers))
            case HangUp((LegName.CALLER | LegName.AGENT) as leg, status):
                if (own := self.leg(leg)) is not None:
                    extra = self._retry_after() if status == 503 else self._excluded(leg)
                    if status and self.call.plan.tells_first and own.accepted:
                        # RFC 3326: so the PBX learns why nobody came, and may try elsewhere.
                        extra = (*extra, ("Reason", f"SIP;cause={status}"))
                    own.hang_up(status, self._bridge.headers_for(self, extra))
            case HangUp(LegName.HELPER, status):
                if self.helper is not None:
                    self.helper.hang_up(status, self._bridge.headers_for(self, ()))
                    # Its end, when it comes, must not be taken for that of the next one called.
                    if not self.helper.gone:
                        self._bridge.let_go(self.helper)
                    self.helper = None
            case StartTimer(name, delay_s):
                self._stop_timer(name)
                self._timers[name] = asyncio.get_running_loop().call_later(
                    delay_s, self._timer, name
                )
            case StopTimer(name):
                self._stop_timer(name)
            case Forget():
                self._bridge.forget(self.call_id)

    def _excluded(self, leg: LegName) -> tuple[tuple[str, str], ...]:
        """What a marked call is left out of, said with its BYE to a PBX of ours and nobody else."""
        plan, own = self.call.plan, self.leg(leg)
        if not self.call.excluded or own is None:
            return ()
        to_trunk = leg is plan.outgoing and plan.trunk
        host = self.source if leg is plan.incoming else uri_host_port(plan.called_uri)[0]
        if to_trunk or not self._bridge.is_peer(host):
            return ()
        return ((EXCLUDE_HEADER, ", ".join(EXCLUSIONS)),)

    def bye_headers(self, leg: LegName) -> list[tuple[str, str]]:
        """What our BYE on a leg says besides."""
        return self._bridge.headers_for(self, self._excluded(leg))

    def _retry_after(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", str(self._bridge.settings.sip.retry_after_s)),)

    def _stop_timer(self, name: str) -> None:
        handle = self._timers.pop(name, None)
        if handle is not None:
            handle.cancel()

    def _timer(self, name: str) -> None:
        self._timers.pop(name, None)
        self.run(self.call.on_timer(name))

    def take_incoming(self, account: Any, pjsua_id: int) -> None:
        """The dialog of the INVITE that began this call becomes its leg."""
        plan = self.call.plan
        leg = Leg(account, self, plan.incoming, self.call_id, pjsua_id)
        leg.offered = plan.offer is not None
        leg.signalling_address = self.source
        self._set_leg(plan.incoming, leg)

    @property
    def incoming_leg(self) -> Leg | None:
        """The leg that the call's INVITE came on."""
        return self.leg(self.call.plan.incoming)

    def _set_leg(self, name: LegName, leg: Leg | None) -> None:
        if name is LegName.CALLER:
            self.caller = leg
        else:
            self.phone = leg

    def caller_is_peer(self) -> bool:
        """The caller's leg is one with a PBX of ours, which may move it."""
        plan = self.call.plan
        if plan.incoming is LegName.CALLER:
            return True
        return self._bridge.is_peer(uri_host_port(plan.called_uri)[0])

    def _call_out(self, offer: str) -> None:
        """Our INVITE: to a phone of ours, or over a line to whom the agent dialled."""
        invite, name = self.invites.first(), self.call.plan.outgoing
        leg = Leg(invite.account, self, name, self.call_id)
        self._set_leg(name, leg)
        try:
            self._invite(leg, invite, offer)
        except BaseException:
            self._set_leg(name, None)  # there is no dialog: nothing to hang up or to wait for
            raise

    def _invite(self, leg: Leg, invite: OurInvite, offer: str) -> None:
        leg.redirections = Redirections(invite.uri, self._bridge.may_be_called_instead(invite.uri))
        headers = [*invite.headers, *self._bridge.headers_for(self, ())]
        leg.invite(invite.uri, offer, headers, invite.local)

    def _call_helper(self, uri: str, offer: str) -> None:
        bridge = self._bridge
        if not bridge.may_call_helper():
            log.warning("too_many_helpers", call_id=self.call_id)
            self.run(self.call.on_helper_gone())
            return
        self._held.pop(LegName.HELPER, None)
        invite = self.invites.helper(uri)
        self.helper = Leg(invite.account, self, LegName.HELPER, self.call_id)
        try:
            self._invite(self.helper, invite, offer)
        except BaseException:
            self.helper = None
            raise

    def _replace_agent(self) -> None:
        """The helper's dialog becomes the agent's leg; the old one gets its BYE by itself."""
        old, self.phone, self.helper = self.phone, self.helper, None
        assert self.phone is not None
        self.phone.name = LegName.AGENT
        self._held[LegName.AGENT] = self._held.pop(LegName.HELPER, False)
        if old is not None and not old.gone:
            self._bridge.let_go(old)
            old.hang_up(0, self._bridge.headers_for(self, ()))
