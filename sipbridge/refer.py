"""Requests inside a call's dialogs that PJSIP leaves to us: REFER, its NOTIFYs, INFO, Replaces.

The shell of :mod:`sipbridge.transfer`: it sends what the pure transfer decides, and puts the leg
of a new far end in the place of an old one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pjsip_guard
import pjsua2 as pj
import structlog

from callshield.errors import SdpError
from callshield.messages import LegName
from callshield.settings_sip import uri_transport
from sipbridge import sdp
from sipbridge.dtmf_info import digit_of_info
from sipbridge.leg_policy import caller_policy
from sipbridge.legs import Leg
from sipbridge.offer_answer import LegMedia, OfferRefused, offered_to_late_caller, read_offer
from sipbridge.sip_message import SipHeaders, body_of, max_forwards, over_tls, source_host
from sipbridge.transfer import (
    CallTarget,
    CancelTarget,
    Notify,
    Over,
    ReferTarget,
    Replaces,
    SendRefer,
    Transfer,
    TransferStep,
    Wait,
    read_refer_to,
    read_replaces,
    refusal_of,
    sipfrag_status,
    write_refer_to,
)

if TYPE_CHECKING:
    from sipbridge.bridged import Bridged, CallHost

log = structlog.get_logger()

#: A leg that was told of its transfer's success, and does not hang up, is ended after this time.
OLD_LEG_BYE_S = 3.0
#: How long a subscription to a transfer lasts, as its NOTIFYs say (RFC 3515 section 2.4.7).
SUBSCRIPTION_S = 120

_REASONS = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    480: "Temporarily Unavailable",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    503: "Service Unavailable",
    603: "Decline",
}
#: What a PBX may take for a number, with the signs that people write between digits.
_NUMBER = re.compile(r"[0-9*#+().-]+")


@dataclass(frozen=True, slots=True)
class DialogRequest:
    """One request inside a dialog; it must be answered exactly once."""

    token: int
    headers: SipHeaders
    body: str

    @property
    def method(self) -> str:
        return self.headers.start_line.split(" ", 1)[0]

    def answer(self, status: int, headers: list[tuple[str, str]] | None = None) -> None:
        """Send the final answer."""
        if not pjsip_guard.answer_request(self.token, status, headers or []):
            log.info("request_unanswered", method=self.method, status=status)


class Transfers:
    """The transfers of one call, one at a time.

    Args:
        host: the bridge.
        bridged: the call.
    """

    def __init__(self, host: CallHost, bridged: Bridged) -> None:
        self._host = host
        self._bridged = bridged
        self.legs: list[Leg] = []
        """Legs of ours besides the caller's and the agent's: targets that ring."""
        self._transfer: Transfer | None = None
        self._target: ReferTarget | None = None
        self._asked_on: Leg | None = None
        self._moves = LegName.AGENT
        """Whose place the target is to take: that of the leg on which it was asked."""
        self._event = ""
        self._silent = False
        self._refers = 0
        self._candidate: Leg | None = None
        self._candidate_media: LegMedia | None = None
        self._other: Bridged | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _call_id(self) -> str:
        return self._bridged.call_id

    # ------------------------------------------------------------------------------- requests

    def on_request(self, leg: Leg, request: DialogRequest) -> None:
        """A REFER, NOTIFY or INFO on one of the call's legs."""
        if request.method == "INFO":
            self._on_info(leg, request)
        elif request.method == "NOTIFY":
            self._on_notify(leg, request)
        elif request.method == "REFER":
            self._on_refer(leg, request)
        else:
            request.answer(501)

    def _on_info(self, leg: Leg, request: DialogRequest) -> None:
        if not request.body:
            request.answer(200)  # RFC 2976 let an empty INFO be a sign of life
            return
        digit = digit_of_info(request.headers.first("Content-Type"), request.body)
        if digit is None:
            request.answer(415, [("Accept", "application/dtmf-relay, application/dtmf")])
            return
        request.answer(200)
        leg.owner.leg_digit(leg.name, digit)

    def _on_notify(self, leg: Leg, request: DialogRequest) -> None:
        event = request.headers.first("Event").split(";", 1)[0].strip().lower()
        transfer = self._transfer
        if event != "refer" or transfer is None or transfer.direct or leg is self._asked_on:
            # RFC 6665 section 4.1.3: nobody subscribed to this. Not 481: to many a far end that
            # is the end of the call.
            request.answer(489, [("Allow-Events", "refer")])
            return
        request.answer(200)
        state = request.headers.first("Subscription-State").split(";", 1)[0].strip().lower()
        self._run(
            transfer.on_pbx_notified(sipfrag_status(request.body), terminated=state == "terminated")
        )

    def _on_refer(self, leg: Leg, request: DialogRequest) -> None:
        target = read_refer_to(request.headers.all("Refer-To"))
        status = target if isinstance(target, int) else refusal_of(target, self._allowed)
        by_pbx = leg is self._bridged.caller
        if not status and not (by_pbx or leg is self._bridged.phone):
            status = 603
        if not status and by_pbx and not self._bridged.caller_is_peer():
            status = 603  # whom an agent called over a carrier's line sends us nowhere
        direct = by_pbx or self._bridged.call.plan.incoming is LegName.AGENT
        if not status and direct and not by_pbx and not self._may_place(target):
            status = 403
        if not status and (self._transfer is not None or not self._bridged.call.transferable):
            status = 491
        if status:
            log.warning(
                "transfer_refused", call_id=self._call_id, leg=leg.name.value, status=status
            )
            request.answer(status)
            return
        assert isinstance(target, ReferTarget)
        self._refers += 1
        cseq = request.headers.first("CSeq").split(" ", 1)[0]
        # RFC 3515 section 2.4.6: the first REFER of a dialog needs no id.
        self._event = "refer" if self._refers == 1 else f"refer;id={cseq}"
        self._silent = request.headers.first("Refer-Sub").strip().lower().startswith("false")
        self._target, self._asked_on = target, leg
        self._moves = LegName.CALLER if by_pbx else LegName.AGENT
        self._transfer = Transfer(direct, self._host.settings.sip.ring_timeout_s)
        log.info(
            "transfer_begun",
            call_id=self._call_id,
            by="pbx" if by_pbx else "phone",
            attended=target.replaces is not None,
        )
        # RFC 4488: who wants no NOTIFYs hears that it gets none.
        request.answer(202, [("Refer-Sub", "false")] if self._silent else [])
        if not by_pbx:
            self._bridged.run(self._bridged.call.on_transfer_begun())
        self._run(self._transfer.begin())

    def _allowed(self, host: str) -> bool:
        return self._host.may_be_referred_to(host) or host == self._bridged.called_host

    def _may_place(self, target: ReferTarget | int) -> bool:
        """Whether the phone may have us call this target ourselves.

        Replaces takes the place of a dialog and dials nobody, at a PBX that heeds it: with a
        number beside it, which another would dial, only a dialog of ours will do.
        """
        if isinstance(target, int):
            return True
        if target.replaces is not None and (
            not _NUMBER.fullmatch(unquote(target.user))
            or self._host.find_leg(target.replaces) is not None
        ):
            return True
        return self._host.may_transfer_to(self._bridged.call.plan.agent_id, target.user)

    # ---------------------------------------------------------------------- what legs tell us

    def on_refer_answered(self, status: int) -> None:
        """The PBX's answer to the REFER that was passed on."""
        if self._transfer is not None:
            self._run(self._transfer.on_pbx_answered(status))

    def on_caller_gone(self) -> None:
        """The caller's leg ended."""
        if self._transfer is not None:
            self._run(self._transfer.on_caller_gone())

    def close(self) -> None:
        """The call is over: nobody waits for a target any more."""
        if self._transfer is not None:
            self._run(self._transfer.on_caller_gone())

    # ------------------------------------------------------------------------------- the steps

    def _run(self, steps: list[TransferStep]) -> None:
        for step in steps:
            match step:
                case Notify(status, final):
                    self._notify(status, final=final)
                case SendRefer():
                    self._send_refer()
                case CallTarget():
                    self._call_target()
                case CancelTarget():
                    if self._candidate is not None:
                        self._candidate.hang_up(0, [])
                case Wait(delay_s):
                    if self._transfer is not None:  # calling the target may have failed at once
                        self._wait(delay_s)
                case Over(succeeded):
                    self._over(succeeded=succeeded)
        self._host.stack.rearm()

    def _wait(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._timed_out)

    def _timed_out(self) -> None:
        if self._transfer is not None:
            self._run(self._transfer.on_timeout())

    def _notify(self, status: int, *, final: bool) -> None:
        if self._silent or self._asked_on is None or self._asked_on.gone:
            return
        state = "terminated;reason=noresource" if final else f"active;expires={SUBSCRIPTION_S}"
        self._asked_on.request(
            "NOTIFY",
            [("Event", self._event), ("Subscription-State", state)],
            "message/sipfrag;version=2.0",
            f"SIP/2.0 {status} {_REASONS.get(status, 'Result')}\r\n",
        )

    def _send_refer(self) -> None:
        caller, target = self._bridged.caller, self._target
        assert target is not None
        uri, replaces = self._as_the_pbx_knows(target)
        agent_id = self._bridged.call.plan.agent_id
        headers = [
            ("Refer-To", write_refer_to(uri, replaces)),
            ("Referred-By", f"<{self._host.pbx_side_uri(agent_id)}>"),
            *self._host.headers_for(self._bridged, ()),
        ]
        if caller is None or not caller.request("REFER", headers):
            assert self._transfer is not None
            self._run(self._transfer.on_pbx_answered(503))

    def _as_the_pbx_knows(self, target: ReferTarget) -> tuple[str, Replaces | None]:
        """The target's URI, and Replaces, in the terms of the PBX's own dialogs.

        A phone that joins two calls of ours names our dialog with it: the PBX knows the other leg
        of that call. A dialog that is not ours the phone has with the PBX itself.
        """
        replaces = target.replaces
        if replaces is not None:
            found = self._host.find_leg(replaces)
            if found is not None:
                other, leg = found
                far = other.caller.dialog() if other.caller is not None else None
                # The caller's leg of a call that an agent began is a line's, not the PBX's.
                inbound = other.call.plan.incoming is LegName.CALLER
                is_consultation = leg is other.phone and other is not self._bridged and inbound
                if far is not None and is_consultation:
                    self._other = other
                    other.run(other.call.on_transfer_begun())
                    contact = far[1].split(";", 1)[0].partition("?")[0]
                    return contact, far[0]
        known = self._bridged.pbx_host_port
        if not target.port and known.startswith(f"{target.host}:"):
            return target.uri(known), replaces  # that PBX, and the port where it listens
        if target.host and self._host.is_peer(target.host):
            return target.uri(), replaces
        return target.uri(known), replaces

    def _call_target(self) -> None:
        """Call the target from our PBX side: the PBX knows us there, and rings whom it wants."""
        target, bridged, host = self._target, self._bridged, self._host
        assert target is not None
        assert self._transfer is not None
        name = self._moves
        by_pbx = name is LegName.CALLER
        if not by_pbx and not self._may_place(target):
            # The PBX has refused to; it would take this call for one that we let out.
            log.warning("transfer_not_placed", call_id=self._call_id, status=403)
            self._run(self._transfer.on_target_refused(403))
            return
        uri, replaces = self._as_the_pbx_knows(target)
        account = host.pbx_accounts.get(uri_transport(uri), host.pbx_accounts["udp"])
        leg = Leg(account, _Candidate(self), name, self._call_id)
        headers = [
            ("Max-Forwards", str(max_forwards(bridged.headers) - 1)),
            *bridged.invites.carried_to_colleagues(),
            ("Referred-By", f"<{host.pbx_side_uri(bridged.call.plan.agent_id)}>"),
        ]
        if replaces is not None:
            headers += [("Replaces", replaces.header()), ("Require", "replaces")]
        other = bridged.call.media[LegName.AGENT if by_pbx else LegName.CALLER].negotiated
        assert other is not None  # a call that can be transferred has been answered
        # It goes to the PBX, whichever side of the call it takes the place of.
        policy = caller_policy(host.settings, over_tls=uri_transport(uri) == "tls")
        media = self._candidate_media = bridged.call.media[name].successor(policy)
        offer = media.offer(
            offered_to_late_caller(other.voice, policy),
            comfort_noise=other.comfort_noise is not None,
        )
        local = host.pbx_side_uri(bridged.call.plan.agent_id)
        from_header = f"<{local}>" if by_pbx else bridged.invites.customer(pbx_side=True)
        try:
            leg.invite(uri, offer, headers, from_header)
        except pj.Error as error:
            log.warning("transfer_not_placed", call_id=self._call_id, status=error.status)
            self._run(self._transfer.on_target_refused(503))
            return
        self._candidate = leg
        self.legs.append(leg)

    def _over(self, *, succeeded: bool) -> None:
        transfer, self._transfer = self._transfer, None
        asked_on, self._asked_on = self._asked_on, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        other, self._other = self._other, None
        self._candidate = self._candidate_media = self._target = None
        assert transfer is not None
        log.info(
            "transfer_over",
            call_id=self._call_id,
            succeeded=succeeded,
            pbx_status=transfer.refused_with,
        )
        bridged = self._bridged
        if other is not None and not succeeded:
            other.run(other.call.on_transfer_failed())
        if self._moves is LegName.CALLER:
            if succeeded:
                self._end_later(asked_on)
        elif not succeeded:
            bridged.run(bridged.call.on_transfer_failed())
        elif asked_on is bridged.phone:
            bridged.run(bridged.call.on_transferred())
        else:  # the target sits where the phone sat
            self._end_later(asked_on)

    def _end_later(self, leg: Leg | None) -> None:
        if leg is not None and not leg.gone:
            asyncio.get_running_loop().call_later(OLD_LEG_BYE_S, leg.hang_up, 0, [])

    # ------------------------------------------------------------------------------ candidates

    def candidate_early(self, status: int) -> None:
        """The target that we call rings."""
        if self._transfer is not None:
            self._run(self._transfer.on_target_ringing(status))

    def candidate_answered(self, description: sdp.SessionDescription | None, source: str) -> None:
        """The target that we call answered."""
        leg, transfer = self._candidate, self._transfer
        if leg is None or transfer is None:
            return
        media = self._candidate_media
        assert media is not None
        try:
            if description is not None:
                media.take_answer(description)
        except OfferRefused as refused:
            log.info("transfer_answer_unusable", call_id=self._call_id, reason=refused.reason)
            description = None
        if description is None:
            leg.hang_up(0, [])
            self._run(transfer.on_target_refused(488))
            return
        self.legs.remove(leg)
        leg.signalling_address = source_host(source)
        leg.accepted = True  # it ends by BYE
        old = self._bridged.put_in_place(leg, description, media)
        if old is not None and not old.gone:
            self._host.let_go(old)
        self._run(transfer.on_target_answered())

    def candidate_gone(self, status: int) -> None:
        """The target refused, or could not be reached."""
        if self._candidate is not None and self._candidate in self.legs:
            self.legs.remove(self._candidate)
        if self._transfer is not None:
            self._run(self._transfer.on_target_refused(status))

    # -------------------------------------------------------------------- INVITE with Replaces

    def take_caller_place(
        self, account: Any, pjsua_id: int, message: str, source: str, refuse: Callable[[int], None]
    ) -> None:
        """An INVITE of the PBX that takes the place of the caller's leg (RFC 3891 section 3)."""
        call = self._bridged.call
        policy = caller_policy(self._host.settings, over_tls=over_tls(SipHeaders(message)))
        media = call.media[LegName.CALLER].successor(policy)
        agent = call.media[LegName.AGENT].negotiated
        try:
            offer = read_offer(message, policy)
            if offer is None or agent is None:
                refuse(488)
                return
            answer, offer, _ = media.answer(
                offer,
                agent.voice,
                comfort_noise=agent.comfort_noise is not None,
                voice_fmtp=agent.voice.fmtp,
            )
        except OfferRefused as refused:
            log.info("replacement_refused", call_id=self._call_id, reason=refused.reason)
            refuse(488)
            return
        owner = _Successor(self, offer, media)
        leg = owner.leg = Leg(account, owner, LegName.CALLER, self._call_id, pjsua_id)
        leg.signalling_address = source_host(source)
        leg.local_sdp = answer
        self.legs.append(leg)
        try:
            leg.respond(200, answer, self._host.headers_for(self._bridged, ()))
        except pj.Error as error:
            log.warning("replacement_failed", call_id=self._call_id, error=error.status)
            self.legs.remove(leg)

    def successor_confirmed(self, leg: Leg, offer: sdp.SessionDescription, media: LegMedia) -> None:
        """The PBX acknowledged our 200: the new leg takes over, the old one gets BYE."""
        if leg in self.legs:
            self.legs.remove(leg)
        log.info("caller_replaced", call_id=self._call_id)
        old = self._bridged.put_in_place(leg, offer, media)
        if old is not None and not old.gone:
            self._host.let_go(old)
            old.hang_up(0, [])

    def successor_gone(self, leg: Leg) -> None:
        """It ended before it took over."""
        if leg in self.legs:
            self.legs.remove(leg)


class _Candidate:
    """Owner of a target's leg until it answers."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._early = ""

    def leg_progress(self, leg: LegName, status: int) -> None:
        self._transfers.candidate_early(status)

    def leg_early(self, leg: LegName, response: str, source: str) -> None:
        self._early = response
        self._transfers.candidate_early(int(response[8:11]))

    def leg_answered(self, leg: LegName, response: str, source: str) -> None:
        body = body_of(response) or body_of(self._early)
        try:
            self._transfers.candidate_answered(sdp.parse(body), source)
        except SdpError:
            self._transfers.candidate_answered(None, source)

    def leg_confirmed(self, leg: LegName) -> None:
        return

    def leg_acknowledged(self, leg: LegName) -> None:
        return

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        self._transfers.candidate_gone(status)

    def leg_offer(self, leg: LegName, offer: sdp.SessionDescription) -> str:
        return ""

    def leg_refuses(self, leg: LegName, offer: sdp.SessionDescription) -> bool:
        return True

    def leg_wants_offer(self, leg: LegName) -> str:
        return ""

    def leg_late_answer(self, leg: LegName, answer: str) -> None:
        return

    def leg_named(self, leg: LegName, headers: SipHeaders) -> None:
        return

    def leg_digit(self, leg: LegName, digit: str) -> None:
        return

    def leg_request_answered(self, leg: LegName, method: str, status: int) -> None:
        return

    def leg_dialog_moved(self, leg: LegName) -> None:
        return

    def leg_failed(self, leg: LegName, error: str) -> None:
        self._transfers.candidate_gone(500)


class _Successor(_Candidate):
    """Owner of an incoming leg that replaces the caller's, until its ACK."""

    def __init__(
        self, transfers: Transfers, offer: sdp.SessionDescription, media: LegMedia
    ) -> None:
        super().__init__(transfers)
        self._offer = offer
        self._media = media
        self.leg: Leg | None = None

    def leg_confirmed(self, leg: LegName) -> None:
        if self.leg is not None:
            self._transfers.successor_confirmed(self.leg, self._offer, self._media)

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        if self.leg is not None:
            self._transfers.successor_gone(self.leg)

    def leg_failed(self, leg: LegName, error: str) -> None:
        if self.leg is not None:
            self.leg.hang_up(0, [])


def replaces_of(headers: SipHeaders) -> Replaces | int | None:
    """The Replaces of an INVITE: None without one, 400 for more than one or an unreadable one."""
    values = headers.all("Replaces")
    if not values:
        return None
    found = read_replaces(values[0]) if len(values) == 1 else None
    return found if found is not None else 400
