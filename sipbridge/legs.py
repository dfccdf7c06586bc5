"""The two legs of a call as pjsua2 calls: callbacks in, plain Python out.

An exception must never leave a pjsua2 callback (SWIG would abort the process), so each is wrapped:
it is logged and the call is ended, never the node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import pjsip_guard
import pjsua2 as pj
import structlog

from callshield.errors import SdpError
from callshield.messages import LegName
from sipbridge import sdp
from sipbridge.ended_legs import ended
from sipbridge.phone_news import retry_after_s
from sipbridge.redirect import Redirections, contacts_of
from sipbridge.session_timer import SessionTimer, agreed
from sipbridge.sip_message import SipHeaders, body_of
from sipbridge.transfer import Replaces

log = structlog.get_logger()

#: Requests that :meth:`Leg.request` sends.
_OURS = ("REFER", "NOTIFY", "INFO", "OPTIONS")


class LegOwner(Protocol):
    """What a leg tells the bridge; implemented by :class:`sipbridge.bridge.Bridged`."""

    def leg_progress(self, leg: LegName, status: int) -> None:
        """A provisional response to our INVITE came."""

    def leg_early(self, leg: LegName, response: str, source: str) -> None:
        """A provisional response with a session description came: early media (RFC 3960)."""

    def leg_answered(self, leg: LegName, response: str, source: str) -> None:
        """The called side's 200 arrived; ``response`` is the whole message, ``source`` its address.

        After a reliable 183 with a session description the 200 has none (RFC 6337 section 2.2).
        """

    def leg_confirmed(self, leg: LegName) -> None:
        """The ACK passed: media may flow."""

    def leg_acknowledged(self, leg: LegName) -> None:
        """The PRACK to a provisional response of ours passed (RFC 3262)."""

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        """The leg is over; ``contact`` is where a 3xx points."""

    def leg_offer(self, leg: LegName, offer: sdp.SessionDescription) -> str:
        """A re-INVITE or UPDATE changed the far end's description; our answer."""

    def leg_refuses(self, leg: LegName, offer: sdp.SessionDescription) -> bool:
        """A re-INVITE or UPDATE whose offer must be answered with 488."""

    def leg_wants_offer(self, leg: LegName) -> str:
        """The far end re-INVITEs without an offer: ours."""

    def leg_late_answer(self, leg: LegName, answer: str) -> None:
        """The session description that answers an offer in a 200 of ours."""

    def leg_named(self, leg: LegName, headers: SipHeaders) -> None:
        """A re-INVITE or UPDATE came, which may name who is there now."""

    def leg_digit(self, leg: LegName, digit: str) -> None:
        """A digit came by INFO."""

    def leg_request_answered(self, leg: LegName, method: str, status: int) -> None:
        """The final answer to a request that :meth:`Leg.request` sent."""

    def leg_dialog_moved(self, leg: LegName) -> None:
        """The state of the leg's dialog changed: a tag, a target, a CSeq, a session timer."""

    def leg_failed(self, leg: LegName, error: str) -> None:
        """A callback failed; end the call."""


def _never_raises(callback: Callable[[Leg, Any], None]) -> Callable[[Leg, Any], None]:
    def wrapped(self: Leg, prm: Any) -> None:
        try:
            callback(self, prm)
        except Exception as error:  # the process must outlive any one call
            log.exception("leg_callback_failed", call_id=self.call_id, leg=self.name.value)
            self.owner.leg_failed(self.name, type(error).__name__)

    return wrapped


class Leg(pj.Call):
    """One dialog.

    Args:
        account: pjsua2 account of its side.
        owner: who is told.
        name: which leg it is.
        call_id: our id of the call, for logs.
        pjsua_id: pjsua's number of an incoming call.
    """

    def __init__(
        self,
        account: Any,
        owner: LegOwner,
        name: LegName,
        call_id: str,
        pjsua_id: int = pj.PJSUA_INVALID_ID,
    ) -> None:
        super().__init__(account, pjsua_id)
        self.owner = owner
        self.name = name
        self.call_id = call_id
        self.account_name: str = getattr(account, "name", "")
        self.local_sdp = ""
        """What we say next: our offer, or our answer to the INVITE."""
        self.signalling_address = ""
        self.answered = False
        """The called side's first 200 was seen; those of our own re-INVITEs don't count."""
        self.offered = True
        """An incoming INVITE carried an offer."""
        self.accepted = False
        """We said 200 to this INVITE: from now on it ends by BYE, not by a response."""
        self.confirmed = False
        self.early_described = False
        """Our session description went out in a provisional response; it stays in force."""
        self.incoming = pjsua_id != pj.PJSUA_INVALID_ID
        """The far end's INVITE began this dialog, not ours."""
        self._late_offer = False
        self.gone = False
        self.redirected_to = ""
        """Where the called side's 3xx points: to somebody else."""
        self.redirections: Redirections | None = None
        """Decides on the 3xx answers; without it none is followed."""
        self.rest_s = 0
        """Retry-After of the refusal."""
        self._refused_with = 0
        """The answer after which a redirection was not followed."""
        self.timer = SessionTimer(0)
        """Agreed by the last INVITE or UPDATE, either way."""
        self.refreshed_s = 0.0
        """When that was, seconds of CLOCK_MONOTONIC."""

    # -------------------------------------------------------------------------- pjsua2 callbacks

    @_never_raises
    def onCallState(self, prm: Any) -> None:
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            if not self.confirmed:
                self.confirmed = True
                self.owner.leg_confirmed(self.name)
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.gone:
            self.gone = True
            message = _received(prm.e)
            status = int(info.lastStatusCode)
            if 300 <= status < 400:  # without a SIP URI PJSIP asks nobody
                self._redirected(message)
            # PJSIP calls an INVITE whose redirection was not followed terminated (487).
            status = 302 if self.redirected_to else self._refused_with or status
            self.rest_s = retry_after_s(SipHeaders(message).first("Retry-After"))
            ended(self)
            self.owner.leg_gone(self.name, status, self.redirected_to)

    @_never_raises
    def onCallTsxState(self, prm: Any) -> None:
        # PJSIP calls this after the state has already become CONFIRMED.
        transaction = prm.e.body.tsxState.tsx
        self._timer_moved(prm.e, transaction)
        self.owner.leg_dialog_moved(self.name)
        if transaction.role != pj.PJSIP_ROLE_UAC:
            if transaction.method in ("INVITE", "UPDATE") and (message := _received(prm.e)):
                self.owner.leg_named(self.name, SipHeaders(message))
            if transaction.method == "PRACK":
                self.owner.leg_acknowledged(self.name)
            return
        if transaction.method in _OURS:
            self._own_request_moved(prm.e, transaction)
            return
        # On a leg that we did not begin we send INVITE only to refresh its session.
        if transaction.method != "INVITE" or self.incoming or self.answered:
            return
        message = _received(prm.e)
        if not message or not message.startswith("SIP/2.0 "):
            return
        status = int(message[8:11])
        if 100 < status < 200:
            if status >= 180 and body_of(message):
                self.owner.leg_early(self.name, message, prm.e.body.tsxState.src.rdata.srcAddress)
            else:
                self.owner.leg_progress(self.name, status)
        elif 200 <= status < 300:
            self.answered = True
            source = prm.e.body.tsxState.src.rdata.srcAddress
            self.owner.leg_answered(self.name, message, source)

    def _timer_moved(self, event: Any, transaction: Any) -> None:
        """A 2xx to INVITE or UPDATE, ours or theirs, fixes the session timer (RFC 4028)."""
        if transaction.method not in ("INVITE", "UPDATE"):
            return
        ours = transaction.role == pj.PJSIP_ROLE_UAC
        message = _received(event) if ours else _sent(event)
        if message.startswith("SIP/2.0 2"):
            self.timer = agreed(SipHeaders(message), ours=ours)
            self.refreshed_s = time.monotonic()

    def _own_request_moved(self, event: Any, transaction: Any) -> None:
        """A request of ours: its final answer, or the timeout that stands for one."""
        status = int(transaction.statusCode)
        if event.body.tsxState.prevState == pj.PJSIP_TSX_STATE_COMPLETED or status < 200:
            return
        if transaction.state in (pj.PJSIP_TSX_STATE_COMPLETED, pj.PJSIP_TSX_STATE_TERMINATED):
            self.owner.leg_request_answered(self.name, str(transaction.method), status)

    @_never_raises
    def onCallSdpCreated(self, prm: Any) -> None:
        remote = str(prm.remSdp.wholeSdp)
        if (self.confirmed or self.early_described) and remote:
            prm.sdp.wholeSdp = self.owner.leg_offer(self.name, _parsed(remote))
        elif self.confirmed:
            # A re-INVITE without an offer: ours goes out in the 200, the answer comes in the ACK.
            self.local_sdp = prm.sdp.wholeSdp = self.owner.leg_wants_offer(self.name)
            self._late_offer = True
        elif self.local_sdp:
            prm.sdp.wholeSdp = self.local_sdp
            # An INVITE without an offer: the 200 carries ours.
            self._late_offer = self.incoming and not remote

    @_never_raises
    def onCallRxReinvite(self, prm: Any) -> None:
        offered = str(prm.offer.wholeSdp)
        if offered and self.owner.leg_refuses(self.name, _parsed(offered)):
            prm.statusCode = pj.PJSIP_SC_NOT_ACCEPTABLE_HERE

    @_never_raises
    def onCallMediaState(self, prm: Any) -> None:
        if not self._late_offer:
            return
        self._late_offer = False
        self.owner.leg_late_answer(self.name, pjsip_guard.remote_sdp(self.getId()) or "")

    @_never_raises
    def onCallRxOffer(self, prm: Any) -> None:
        # An UPDATE (RFC 3311) comes only here.
        offered = str(prm.offer.wholeSdp)
        if offered and self.owner.leg_refuses(self.name, _parsed(offered)):
            prm.statusCode = pj.PJSIP_SC_NOT_ACCEPTABLE_HERE

    @_never_raises
    def onCallTransferRequest(self, prm: Any) -> None:
        # pjsip_guard keeps REFER from pjsua. Left alone, pjsua would dial the Refer-To itself and
        # rebind this object.
        prm.statusCode = pj.PJSIP_SC_DECLINE

    @_never_raises
    def onCallReplaceRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_NOT_ACCEPTABLE_HERE

    def onCallRedirected(self, prm: Any) -> int:
        try:
            return self._redirected(_received(prm.e))
        except Exception:  # never out of a pjsua2 callback
            log.exception("leg_callback_failed", call_id=self.call_id, leg=self.name.value)
            return int(pj.PJSIP_REDIRECT_STOP)

    def _redirected(self, message: str) -> int:
        # The event's message, not prm.targetUri: that has lost its port.
        status = int(message[8:11]) if message.startswith("SIP/2.0 ") else 0
        if status and not 300 <= status < 400:
            # The first place that a redirection named refused: that is the answer.
            self._refused_with = status
            return int(pj.PJSIP_REDIRECT_STOP)
        contacts = contacts_of(SipHeaders(message))
        refusal = self.redirections.refusal(contacts) if self.redirections else "elsewhere"
        if not refusal:
            return int(pj.PJSIP_REDIRECT_ACCEPT)
        log.info("redirection_refused", call_id=self.call_id, reason=refusal)
        if refusal == "elsewhere":
            self.redirected_to = next((uri for uri in contacts), "")
        self._refused_with = 480
        return int(pj.PJSIP_REDIRECT_STOP)

    # ------------------------------------------------------------------------ for the bridge

    def invite(self, uri: str, offer: str, headers: list[tuple[str, str]], local_uri: str) -> None:
        """Send the INVITE.

        Raises:
            pj.Error: the URI or the transport cannot be used.
        """
        self.local_sdp = offer
        option = pj.CallOpParam(True)
        _set_headers(option, headers)
        if local_uri:
            option.txOption.localUri = local_uri
        self.makeCall(uri, option)

    def respond(self, status: int, answer: str, headers: list[tuple[str, str]]) -> None:
        """Answer the incoming INVITE.

        Raises:
            pj.Error: the INVITE is already over.
        """
        if answer:
            self.local_sdp = answer
        # PJSIP makes its offer to an INVITE without one at the first answer that carries call
        # settings: that must be the 200, when the phone has chosen (onCallSdpCreated gives ours).
        option = pj.CallOpParam(self.offered or status >= 200)
        option.statusCode = status
        if answer and self.offered and not self.early_described:
            option.sdp.wholeSdp = answer
        _set_headers(option, headers)
        self.early_described = self.early_described or bool(answer and status < 200)
        self.answer(option)
        self.accepted = self.accepted or 200 <= status < 300

    def request(
        self, method: str, headers: list[tuple[str, str]], content_type: str = "", body: str = ""
    ) -> bool:
        """Send a request inside the dialog: REFER, NOTIFY or INFO.

        Returns:
            False when the dialog cannot carry it (any more).
        """
        if self.gone:
            return False
        option = pj.CallSendRequestParam()
        option.method = method
        _set_headers(option, headers)
        option.txOption.contentType = content_type
        option.txOption.msgBody = body
        try:
            self.sendRequest(option)
        except pj.Error as error:
            log.warning(
                "request_failed",
                call_id=self.call_id,
                leg=self.name.value,
                method=method,
                error=error.status,
            )
            return False
        return True

    def dialog(self) -> tuple[Replaces, str] | None:
        """This dialog as the far end would name it in Replaces, and the far end's Contact URI."""
        if self.gone:
            return None
        found = pjsip_guard.dialog(self.getId())
        if found is None:
            return None
        call_id, local_tag, remote_tag, contact = found
        return Replaces(call_id, to_tag=remote_tag, from_tag=local_tag), contact

    def hang_up(self, status: int, headers: list[tuple[str, str]]) -> None:
        """BYE, CANCEL or a final response, whichever this leg needs; harmless when it is over."""
        if self.gone:
            return
        if status and self.incoming and not self.accepted:
            # pjsua's hangup() of an unanswered call would leave our headers out.
            try:
                self.respond(status, "", headers)
                return
            except pj.Error as error:
                log.warning("refusal_failed", call_id=self.call_id, error=error.status)
        option = pj.CallOpParam()
        _set_headers(option, headers)
        try:
            self.hangup(option)
        except pj.Error as error:
            log.warning(
                "hangup_failed", call_id=self.call_id, leg=self.name.value, error=error.status
            )


class Refusal:
    """Owner of a leg that is being refused, or that somebody else's leg took the place of.

    The leg must live until its final response is acknowledged: pjsua sends the response late, and
    a collected pjsua2 call would decline by itself first.

    Args:
        kept: where refusals under way are held.
    """

    def __init__(self, kept: set[Refusal]) -> None:
        self._kept = kept
        self.leg: Leg | None = None

    def leg_gone(self, leg: LegName, status: int, contact: str) -> None:
        # Not inside the callback of the very object that would be freed.
        asyncio.get_running_loop().call_soon(self._kept.discard, self)

    def leg_failed(self, leg: LegName, error: str) -> None:
        asyncio.get_running_loop().call_soon(self._kept.discard, self)

    def leg_progress(self, leg: LegName, status: int) -> None:
        return

    def leg_early(self, leg: LegName, response: str, source: str) -> None:
        return

    def leg_answered(self, leg: LegName, response: str, source: str) -> None:
        return

    def leg_request_answered(self, leg: LegName, method: str, status: int) -> None:
        return

    def leg_confirmed(self, leg: LegName) -> None:
        return

    def leg_acknowledged(self, leg: LegName) -> None:
        return

    def leg_offer(self, leg: LegName, offer: sdp.SessionDescription) -> str:
        return self.leg.local_sdp if self.leg else ""

    def leg_refuses(self, leg: LegName, offer: sdp.SessionDescription) -> bool:
        return True

    def leg_wants_offer(self, leg: LegName) -> str:
        return self.leg.local_sdp if self.leg else ""

    def leg_late_answer(self, leg: LegName, answer: str) -> None:
        return

    def leg_named(self, leg: LegName, headers: SipHeaders) -> None:
        return

    def leg_digit(self, leg: LegName, digit: str) -> None:
        return

    def leg_dialog_moved(self, leg: LegName) -> None:
        return


def _received(event: Any) -> str:
    """The SIP message behind a pjsua2 event, or ``""`` when it was not a received one."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
        return ""
    return str(event.body.tsxState.src.rdata.wholeMsg)


def _sent(event: Any) -> str:
    """The SIP message behind a pjsua2 event, or ``""`` when it was not one that we sent."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_TX_MSG:
        return ""
    return str(event.body.tsxState.src.tdata.wholeMsg)


def _parsed(text: str) -> sdp.SessionDescription:
    try:
        return sdp.parse(text)
    except SdpError:
        return sdp.SessionDescription(None, ())


def _set_headers(option: Any, headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        option.txOption.headers.push_back(header)
