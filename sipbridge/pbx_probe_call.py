"""A test call to an echo extension: pjsua2's callbacks turned into observations."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any

import pjsip_guard
import pjsua2 as pj

from callshield.errors import SdpError
from callshield.settings_sip import SideSettings, uri_transport
from callshield.tap import TapCodec
from sipbridge import sdp
from sipbridge.leg_policy import LegPolicy
from sipbridge.offer_answer import LegMedia
from sipbridge.pbx_probe_media import TestMedia
from sipbridge.pbx_probe_seen import CallSeen, Provisional, status_of
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.ports import PortRange
from sipbridge.sip_message import SipHeaders, address_uri, body_of, source_host, uri_host_port

#: An echo extension that has not answered by then is cancelled.
ANSWER_WITHIN_S = 20.0
#: For BYE or CANCEL to be answered.
HANG_UP_WITHIN_S = 4.0
#: For a request inside the call.
REQUEST_WITHIN_S = 4.0
#: The whole of one call, whatever happens.
CALL_WITHIN_S = 90.0

Say = Callable[[str], None]


class _TestCall(pj.Call):
    """One dialog; nothing ever leaves a callback, where SWIG would abort the process."""

    def __init__(self, account: Any, seen: CallSeen, media: LegMedia) -> None:
        super().__init__(account)
        self.seen = seen
        self.media = media
        self.local_sdp = ""
        self.began = time.monotonic()
        self.answered = asyncio.Event()
        """A final answer, or the end."""
        self.confirmed = False
        self.gone = asyncio.Event()
        self.hanging_up = False
        self.described: sdp.SessionDescription | None = None
        self.unusable = ""
        """Why the answer cannot be used."""
        self.request_answered = asyncio.Event()
        self.moved: Callable[[str, int], None] = lambda address, port: None

    def onCallState(self, prm: Any) -> None:
        with contextlib.suppress(Exception):
            info = self.getInfo()
            if info.state == pj.PJSIP_INV_STATE_CONFIRMED:
                self.confirmed = True
            elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
                self._ended(prm.e, int(info.lastStatusCode))
                self.seen.ended_by_pbx = self.confirmed and not self.hanging_up
                self.answered.set()
                self.gone.set()

    def _ended(self, event: Any, status: int) -> None:
        if self.seen.final_status or self.hanging_up:
            return
        # A refusal comes here first, and only then as the state of its transaction.
        message, source = _received(event)
        if message:
            self._response(message, source)
        else:
            # PJSIP's own word for a timeout or a broken connection.
            self.seen.final_status, self.seen.final_response = status, ""

    def onCallTsxState(self, prm: Any) -> None:
        with contextlib.suppress(Exception):
            state = prm.e.body.tsxState
            transaction = state.tsx
            if transaction.role != pj.PJSIP_ROLE_UAC:
                return
            if transaction.method in ("INFO", "OPTIONS") and _received(prm.e)[0]:
                if transaction.method == "INFO":
                    self.seen.info_status = int(transaction.statusCode)
                else:
                    self.seen.contact_answers = True
                self.request_answered.set()
            if transaction.method != "INVITE" or self.seen.answered:
                return
            if transaction.state == pj.PJSIP_TSX_STATE_CALLING:
                self.began = time.monotonic()  # the INVITE leaves
            message, source = _received(prm.e)
            if message:
                self._response(message, source)

    def _response(self, message: str, source: str) -> None:
        seen, status = self.seen, status_of(message)
        if seen.final_status:
            return
        after_ms = 1000 * (time.monotonic() - self.began)
        if 100 < status < 200:
            seen.provisional.append(Provisional(status, after_ms, bool(body_of(message))))
        elif status == 422:
            # PJSIP asks again with what Min-SE wants (RFC 4028 section 7.2).
            value = SipHeaders(message).first("Min-SE").split(";")[0].strip()
            seen.min_se_s = int(value) if value.isdigit() else 0
            seen.invites += 1
            seen.final_response = message
        elif status >= 200:
            seen.final_status, seen.final_response = status, message
            seen.response_source = source
            if status < 300:
                seen.answered_after_ms = after_ms
                # At once: a re-INVITE may be in the next packet.
                try:
                    self.described = sdp.parse(seen.answer)
                    self.media.take_answer(self.described)
                except SdpError as error:
                    self.unusable = str(error)
            self.answered.set()

    def onCallSdpCreated(self, prm: Any) -> None:
        try:
            remote = str(prm.remSdp.wholeSdp)
            if self.confirmed and remote:
                prm.sdp.wholeSdp = self._reoffer(remote)
            else:
                prm.sdp.wholeSdp = self.local_sdp
        except Exception:  # never out of a callback; PJSIP then refuses by itself
            return

    def _reoffer(self, remote: str) -> str:
        """The answer to a re-INVITE or UPDATE: what we have, if it is still there."""
        self.seen.reoffers += 1
        offer = sdp.parse(remote)
        audio, in_force = offer.audio, self.media.negotiated
        if audio is None or in_force is None:
            raise SdpError("no audio line")
        voice = next((c for c in audio.voice if c.name == in_force.voice.name), None)
        if voice is None:
            raise SdpError("no common codec")
        if audio.address:
            self.moved(audio.address, audio.port)
        return sdp.write_answer(
            offer,
            address=self.media.address,
            port=self.media.port,
            negotiated=sdp.Negotiated(voice, audio.event_at(voice.clock_rate)),
            session_id=self.media.session_id,
        )

    def onCallRedirected(self, prm: Any) -> int:
        return int(pj.PJSIP_REDIRECT_STOP)

    def onCallTransferRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE

    def onCallReplaceRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_NOT_ACCEPTABLE_HERE

    def hang_up(self) -> None:
        """BYE or CANCEL; harmless when it is over."""
        if not self.gone.is_set():
            self.hanging_up = True
            with contextlib.suppress(pj.Error):
                self.hangup(pj.CallOpParam())

    async def ask(self, method: str, content_type: str = "", body: str = "") -> None:
        """Send a request inside the dialog and wait for its answer, or not for ever."""
        option = pj.CallSendRequestParam()
        option.method = method
        option.txOption.contentType = content_type
        option.txOption.msgBody = body
        self.request_answered.clear()
        with contextlib.suppress(pj.Error, TimeoutError):
            self.sendRequest(option)
            await asyncio.wait_for(self.request_answered.wait(), REQUEST_WITHIN_S)


class TestCaller:
    """Places test calls, one after the other, from the PBX side.

    Args:
        stack: a started stack on ports of its own.
        side: ``sip.pbx`` with those ports.
        dscp: of media (RFC 2474).
    """

    def __init__(self, stack: PjsipStack, side: SideSettings, dscp: int) -> None:
        self._stack = stack
        self._side = side
        self._ports = PortRange(side.media_bind, *side.rtp_ports, dscp, "sip.pbx.rtp_ports")
        self._accounts: dict[str, Any] = {}
        for kind, transport in stack.pbx_transports.items():
            account = pj.Account()
            account.create(stack.account_config(side, kind, transport), not self._accounts)
            self._accounts[kind] = account
        self._call: _TestCall | None = None

    def close(self) -> None:
        """No pjsua2 object may outlive the stack."""
        self._call = None
        self._accounts.clear()

    def on_request(self, token: int, call: int, message: bytes) -> None:
        """A REFER, NOTIFY or INFO of the PBX inside the call."""
        digit = message.startswith(b"INFO ") and b"dtmf" in message.lower()
        if digit and self._call is not None:
            self._call.seen.digit_infos_back += 1
        pjsip_guard.answer_request(token, 200 if message.startswith(b"INFO ") else 603, [])

    async def place(self, uri: str, policy: LegPolicy, say: Say, *, listen: bool) -> CallSeen:
        """One call, at most :data:`CALL_WITHIN_S`.

        Args:
            uri: the echo extension.
            policy: what is offered.
            say: is told how it goes.
            listen: send the signal and wait for its echo; otherwise hang up when it is answered.

        Raises:
            SetupError: no media port is free.
        """
        transport = uri_transport(uri)
        seen = CallSeen(transport, uri_host_port(uri)[1])
        pair = self._ports.take()
        media = LegMedia(policy, self._side.media_advertised, pair.port, secrets.randbits(31) | 1)
        voices = tuple(
            sdp.Codec(TapCodec[name], name, *sdp.VOICE_CODECS[name]) for name in policy.codecs
        )
        seen.offered = tuple(policy.codecs)
        seen.local_address, seen.local_port = media.address, media.port
        call = self._call = _TestCall(self._accounts[transport], seen, media)
        seen.offer = call.local_sdp = media.offer(voices)
        seen.keys_offered = "a=crypto:" in seen.offer
        seen.listened = listen
        shell = TestMedia(pair, seen)
        call.moved = lambda address, port: _moved(shell, seen, address, port)
        try:
            async with asyncio.timeout(CALL_WITHIN_S):
                await self._converse(call, shell, uri, say, listen)
        except TimeoutError:
            say("the time for one call is over")
        finally:
            call.hang_up()
            self._stack.pump()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call.gone.wait(), HANG_UP_WITHIN_S)
            shell.close()
            self._ports.give_back(pair)
        return seen

    async def _converse(
        self, call: _TestCall, shell: TestMedia, uri: str, say: Say, listen: bool
    ) -> None:
        seen = call.seen
        try:
            call.makeCall(uri, pj.CallOpParam(True))
        except pj.Error as error:
            seen.final_response = ""
            say(f"the INVITE could not be sent ({error.reason})")
            return
        self._stack.pump()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call.answered.wait(), ANSWER_WITHIN_S)
        if not seen.answered:
            return
        answer, negotiated = call.described, call.media.negotiated
        if call.unusable:
            say(f"the answer cannot be used ({call.unusable})")
        if not listen or negotiated is None or answer is None or answer.audio is None:
            return
        audio = answer.audio
        say("answered: sending the test signal, listening for its echo")
        if not seen.reoffers:
            shell.send_to(audio.address or source_host(seen.response_source), audio.port)
        await shell.run(
            negotiated.voice, negotiated.event, audio.voice, audio.ptime_ms, call.gone, say
        )
        if negotiated.event is None and not call.gone.is_set():
            seen.info_sent = True
            # The form that Cisco and Asterisk read.
            await call.ask("INFO", "application/dtmf-relay", "Signal=5\r\nDuration=160\r\n")
        contact = uri_host_port(address_uri(call.seen.headers.first("Contact")))[0]
        if contact != source_host(seen.response_source) and not call.gone.is_set():
            seen.contact_asked = True
            await call.ask("OPTIONS")


def _received(event: Any) -> tuple[str, str]:
    """The message behind a pjsua2 event and where it came from; empty when none came."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
        return "", ""
    rdata = event.body.tsxState.src.rdata
    return str(rdata.wholeMsg), str(rdata.srcAddress)


def _moved(shell: TestMedia, seen: CallSeen, address: str, port: int) -> None:
    answer = sdp.parse(seen.answer).audio
    if answer is not None and address != answer.address:
        seen.moved_to = address
    shell.send_to(address, port)
