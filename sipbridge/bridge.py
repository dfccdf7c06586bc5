"""The bridge: INVITEs of the PBX in, protected calls out.

It binds the pure call (:mod:`sipbridge.call`) to pjsua2 (:mod:`sipbridge.legs`), to the media
worker (:mod:`sipbridge.media_link`) and to the notifier (:mod:`sipbridge.notifier_link`). One
thread, one event loop; nothing here waits for anything but a socket.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pjsip_guard
import structlog

from callshield.messages import (
    Action,
    CallEnded,
    CallEnding,
    Event,
    LegName,
    MediaQuality,
    MediaSilent,
    NodeDegraded,
    RecordingChanged,
    TapStarted,
)
from callshield.messages_media import (
    AgentsSpoke,
    CallerPressed,
    CloseSession,
    CodePressed,
    DigitUndelivered,
    HearingDose,
    LegOpened,
    MediaMessage,
    MediaTimeout,
    PlayFinished,
    SessionOpened,
)
from callshield.messages_phones import NotifySent, PhoneSeen
from callshield.settings import Settings
from callshield.settings_sip import SideSettings, uri_transport
from sipbridge.account import BridgeAccount
from sipbridge.admission import CALL_ID_HEADER, Admission
from sipbridge.bridged import Bridged
from sipbridge.call import CallState
from sipbridge.caller_number import CallerNumbers
from sipbridge.dialogs import leg_of_replaces, leg_of_request
from sipbridge.digest_accounts import (
    Credentials,
    DigestAccounts,
    add_to,
    phone_credentials,
    trunk_credentials,
)
from sipbridge.feature_codes import feature_codes
from sipbridge.hearing_desk import HearingDesk
from sipbridge.keeping import Keeping
from sipbridge.kept_calls import KeptCalls
from sipbridge.legs import Leg, Refusal
from sipbridge.media_link import MediaLink
from sipbridge.media_news import note, tell_call
from sipbridge.notifier_link import NotifierLink
from sipbridge.offer_answer import OfferRefused
from sipbridge.own_uris import own_contact, own_from, own_uri, trunk_identity
from sipbridge.phone_news import PhoneNews
from sipbridge.phone_notify import PhoneNotify, RequestSender
from sipbridge.phone_seen import PhonesSeen
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.prompt_catalogue import Prompts
from sipbridge.recordings_desk import RecordingsDesk
from sipbridge.refer import DialogRequest, replaces_of
from sipbridge.ringback import Ringback
from sipbridge.routing import Refused, Running
from sipbridge.sip_message import (
    SipHeaders,
    body_of,
    over_tls,
    request_uri_user,
    uri_host_port,
)
from sipbridge.transfer import Replaces

log = structlog.get_logger()

#: A leg that is not over this long after its BYE or CANCEL is given up: its place is needed.
LAST_LEG_S = 40.0
#: How long a call that is over waits for the media worker's word on what its caller heard.
PLAYS_TOLD_S = 2.0
#: Helpers' phones called or in a call at once (:data:`sipbridge.pjsip_stack.SPARE_LEGS`).
MAX_HELPERS = 64
#: Seconds between two lines of SIP counters in the log.
COUNTERS_EVERY_S = 60.0
#: How long the last BYEs may take when the node stops.
LAST_BYES_S = 2.0


class Bridge:
    """All calls of this node.

    Args:
        settings: the node's configuration.
        prompts: checked announcements.
        refused: why these are not what the configured folder holds now; empty: they are.
    """

    def __init__(self, settings: Settings, prompts: Prompts, refused: str = "") -> None:
        self.settings = settings
        self._refused_prompts = refused
        self._admission = Admission(settings, prompts)
        self.calls: dict[str, Bridged] = {}
        self._refused: set[Refusal] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self.codes: Mapping[str, Action] = feature_codes(settings)
        names = settings.outbound
        self.own_headers: Collection[str] = {
            name.lower()
            for name in (
                *(names.agent_header, names.trunk_header, names.internal_header),
                settings.sip.pbx_channel_header,
            )
        }
        self.stack = PjsipStack(settings, asyncio.get_running_loop(), self._on_request)
        self.media = MediaLink(
            settings.media_path, self._on_media, self._on_media_found, self._on_media_lost
        )
        self.keeping = Keeping(self.media.send)
        self.stack.on_rest = self.keeping.tell
        self._accounts_by_name: dict[str, Any] = {}
        self.kept = KeptCalls(
            self.media.send,
            self.emit,
            self.call_supervisor,
            self._accounts_by_name,
            self.codes,
            lambda: self.stack.rearm(),
        )
        self.stack.on_packet = self.kept.take
        self.ringback = Ringback(settings.ringback, time.time, self._key_trouble("ringback"))
        self.caller_numbers = CallerNumbers(settings, self._key_trouble("caller_keys"))
        self.phones_seen = PhonesSeen(settings.agents, self._about_phones)
        self._phone_credentials: dict[str, Credentials] = {}
        """By the URI of the phone that they are for."""
        self.requests = RequestSender(self.phone_account, lambda: self.stack.rearm())
        self.notify = PhoneNotify(
            {agent_id: agent.uri for agent_id, agent in settings.agents.items()},
            self._phone_credentials,
            lambda uri: own_contact(settings.sip.phone, uri_transport(uri)),
            self.requests.post,
            self._about_phones,
            settings.phones.limit_s,
        )
        self._notifier = NotifierLink(
            settings.bus_path,
            settings.node.name,
            self.calls,
            self.kept,
            self.ringback.take,
            RecordingsDesk(settings.recording.directory, lambda gone: self._notifier.send(gone)),
            self.notify.send,
            self.phones_seen.known,
        )
        self._hearing = HearingDesk(
            settings, self._notifier.agent_of, self._notifier.send, self._spawn
        )
        self.pbx_accounts: dict[str, Any] = {}
        self.phone_accounts: dict[str, Any] = {}
        self.phones = PhoneNews(self.emit)
        self.digest = DigestAccounts(self._account)
        self._trunk_credentials: dict[str, Credentials] = {}
        """By the NAME of the trunk."""

    async def start(self) -> None:
        """Open the SIP ports and connect to the other processes.

        Raises:
            SetupError: a port is taken, or this pjsua2 is too small.
        """
        self._phone_credentials.update(phone_credentials(self.settings))
        self._trunk_credentials = trunk_credentials(self.settings)
        # Before the first packet is read: a BYE that is repeated finds its dialog.
        self.media.start()
        await self.kept.fetch(self.media)
        self.stack.start()
        self.pbx_accounts = self._accounts(self.settings.sip.pbx, self.stack.pbx_transports)
        self.phone_accounts = self._accounts(self.settings.sip.phone, self.stack.phone_transports)
        for uri in self._phone_credentials:
            self.phone_account(uri)  # too many are a fault of the configuration: now, not later
        for name in self._trunk_credentials:
            self.trunk_account(name)
        # Without a media worker the node is not ready, and must not look it: the bus comes last.
        await self.kept.adopt_fetched()
        await self.media.connected.wait()
        # The worker was found before there was a stack to say so.
        self.stack.set_ready(self.media.connected.is_set() and not self.draining)
        self._notifier.start()
        self._tell_of_prompts(self._refused_prompts)
        self.ringback.look_at_keys()
        self.caller_numbers.look_at_keys()
        self._spawn(self._report_counters())
        log.info("bridge_ready", **{k: v for k, v in pjsip_guard.info().items() if k != "srtp"})

    def _accounts(self, side: SideSettings, transports: Mapping[str, int]) -> dict[str, Any]:
        """One pjsua2 account a transport: what a dialog sends goes by its account's transport."""
        accounts: dict[str, Any] = {}
        for kind in transports:
            accounts[kind] = self._account(side, kind)
        return accounts

    def _account(
        self, side: SideSettings, kind: str, credentials: Credentials | None = None
    ) -> BridgeAccount:
        pbx = side is self.settings.sip.pbx
        transports = self.stack.pbx_transports if pbx else self.stack.phone_transports
        config = self.stack.account_config(side, kind, transports[kind])
        if credentials is not None:
            add_to(config, credentials)
        account = BridgeAccount(self)
        account.name = f"{'pbx' if pbx else 'phone'} {kind}"
        if credentials is not None:
            account.name += f" {credentials.username} {credentials.realm}"
        account.create(config, pbx and kind == "udp" and credentials is None)
        self._accounts_by_name[account.name] = account
        return account

    def phone_account(self, uri: str) -> Any:
        """The account for a leg to a configured phone: with credentials where it has some."""
        kind = uri_transport(uri)
        credentials = self._phone_credentials.get(uri)
        if credentials is None:
            return self.phone_accounts[kind]
        return self.digest.account(self.settings.sip.phone, kind, credentials)

    def trunk_account(self, name: str) -> Any:
        """The account for a leg over a line: with credentials where it has some."""
        trunk = self.settings.trunks[name]
        credentials = self._trunk_credentials.get(name)
        if credentials is None:
            return self.pbx_accounts[trunk.transport]
        return self.digest.account(self.settings.sip.pbx, trunk.transport, credentials)

    async def _report_counters(self) -> None:
        """What the guard saw, a line a minute when there is news; numbers only."""
        last: dict[str, int] = {}
        while True:
            await asyncio.sleep(COUNTERS_EVERY_S)
            last = self._log_counters(last)

    def _log_counters(self, last: dict[str, int]) -> dict[str, int]:
        counters = {**pjsip_guard.counters(), "pjsip_errors": self.stack.log_errors}
        if counters != last:
            log.info("sip_counters", **counters)
        return counters

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------- a new INVITE

    def on_invite(self, account: Any, pjsua_id: int, message: str, source: str) -> None:
        """Decide on an INVITE; refusals are answered at once."""
        headers = SipHeaders(message)
        call_id = uuid.uuid4().hex
        peer = self._admission.peer_of(source, tls=over_tls(headers))
        if peer is not None and self._replaces(account, pjsua_id, headers, message, source):
            return
        route = self._admission.route(
            headers,
            peer,
            unavailable=self._unavailable(),
            calls=self.calls,
            running=self._running(),
        )
        if isinstance(route, Refused):
            log.info(
                "invite_refused", reason=route.reason, status=route.status, detail=route.detail
            )
            self._refuse(account, pjsua_id, call_id, route.status)
            return
        if not route.trunk and (rest_s := self.phones.rest_s(route.called_uri)):
            log.info("invite_refused", reason="phone_rests", status=480, detail="")
            self._refuse(account, pjsua_id, call_id, 480, [("Retry-After", str(rest_s))])
            return
        assert peer is not None  # without one nothing is routed
        try:
            plan = self._admission.plan(call_id, headers, message, peer, route)
        except OfferRefused as refused:
            log.info("offer_refused", reason=refused.reason, status=488, detail=str(refused))
            host = self.settings.sip.pbx.signalling_advertised
            self._refuse(account, pjsua_id, call_id, 488, [refused.warning(host)])
            return
        recent_end = self.ringback.recent_end(headers, route.direction)
        plan = dataclasses.replace(plan, recent_end=recent_end)
        bridged = Bridged(self, plan, headers, source, message)
        bridged.take_incoming(account, pjsua_id)
        # The first answer fixes what PJSIP negotiates; the 200 replaces it (RFC 3261 13.3.1.4).
        self.calls[call_id] = bridged
        self._idle.clear()
        request_id = self.media.next_request_id()
        self._spawn(self._open_media(bridged, request_id))
        bridged.run(bridged.call.begin(request_id))
        bridged.caller_number = self.caller_numbers.of(plan, headers)
        if bridged.caller_number is not None:
            self._notifier.send(bridged.caller_number)

    def _running(self) -> Iterator[Running]:
        """The calls, as what a new one is held against."""
        for bridged in self.calls.values():
            plan, state = bridged.call.plan, bridged.call.state
            rings = state in (CallState.OPENING, CallState.RINGING)
            if state is not CallState.ENDED and (rings or plan.dialled):
                numbers, uri = bridged.numbers, plan.called_uri
                yield Running(plan.agent_id, numbers, plan.dialled, uri, rings)

    def may_be_called_instead(self, uri: str) -> Callable[[str], bool]:
        """Hosts that may be called in the place of this phone; with its password, only its own,
        and of a line never another: whom it redirects an agent's call to would be anybody."""
        host = uri_host_port(uri)[0]
        if uri in self._phone_credentials or uri not in self.settings.phone_uris:
            return lambda other: other == host
        return self.may_be_referred_to

    def _unavailable(self) -> str:
        if self.draining:
            return "draining"
        return "" if self.media.connected.is_set() else "no_media_worker"

    def _replaces(
        self, account: Any, pjsua_id: int, headers: SipHeaders, message: str, source: str
    ) -> bool:
        """Answer an INVITE with Replaces; False when it is one to pass on like any other."""

        def refuse(status: int) -> None:
            log.info("invite_refused", reason="replaces", status=status, detail="")
            self._refuse(account, pjsua_id, uuid.uuid4().hex, status)

        replaces = replaces_of(headers)
        if replaces is None:
            return False
        if isinstance(replaces, int):
            refuse(replaces)
            return True
        # Named from the receiver's side: to-tag is our own.
        found = self.find_leg(replaces)
        if found is None:
            if request_uri_user(headers.start_line) in self.settings.agents:
                return False  # a dialog that the agent's phone may know
            refuse(481)
        elif found[1] is not found[0].caller or not found[0].call.transferable:
            refuse(481)
        elif replaces.early_only:
            refuse(486)  # RFC 3891 section 3: that dialog is not early any more
        else:
            found[0].transfers.take_caller_place(account, pjsua_id, message, source, refuse)
        return True

    def find_leg(self, replaces: Replaces) -> tuple[Bridged, Leg] | None:
        """The call and leg that a Replaces sent to us names."""
        return leg_of_replaces(self.calls.values(), replaces)

    def _on_request(self, token: int, pjsua_id: int, message: bytes) -> None:
        """A REFER, NOTIFY or INFO inside a dialog (:mod:`sipbridge.refer`)."""
        text = message.decode("utf-8", "replace")
        request = DialogRequest(token, SipHeaders(text), body_of(text))
        try:
            found = leg_of_request(self.calls.values(), pjsua_id, request)
            if found is None:
                request.answer(481)
            else:
                found[0].transfers.on_request(found[1], request)
        except Exception:  # the process must outlive any one request
            log.exception("request_failed", method=request.method)
            request.answer(500)

    def may_be_referred_to(self, host: str) -> bool:
        return self._admission.may_be_referred_to(host)

    def may_transfer_to(self, agent_id: str, user: str) -> bool:
        return self._admission.may_transfer_to(agent_id, user)

    def is_peer(self, host: str) -> bool:
        return self._admission.is_peer(host)

    async def _open_media(self, bridged: Bridged, request_id: int) -> None:
        opened = await self.media.opened(request_id)
        if bridged.call.state is not CallState.OPENING:
            return
        if opened is None or opened.error:
            log.warning(
                "media_refused",
                call_id=bridged.call_id,
                error=opened.error if opened else "the media worker does not answer",
            )
            bridged.run(bridged.call.on_media_refused())
            return
        session_id = int.from_bytes(os.urandom(4), "big")
        steps = bridged.call.on_media_open(opened.caller_port, opened.agent_port, session_id)
        incoming = bridged.incoming_leg
        assert incoming is not None
        incoming.local_sdp = bridged.call.first_answer()
        bridged.run(steps)

    def _refuse(
        self,
        account: Any,
        pjsua_id: int,
        call_id: str,
        status: int,
        why: Sequence[tuple[str, str]] = (),
    ) -> None:
        owner = Refusal(self._refused)
        leg = owner.leg = Leg(account, owner, LegName.CALLER, call_id, pjsua_id)
        self._refused.add(owner)
        headers = [("Retry-After", str(self.settings.sip.retry_after_s))] if status == 503 else []
        leg.hang_up(status, [*headers, *why])

    def headers_for(
        self, bridged: Bridged, extra: tuple[tuple[str, str], ...]
    ) -> list[tuple[str, str]]:
        """What every message of ours about this call carries."""
        return [(CALL_ID_HEADER, bridged.call_id), *extra]

    def let_go(self, leg: Leg) -> None:
        """Keep a leg that no call needs until it ends; pjsua2 ends one that is collected."""
        if leg.gone:
            return
        owner = Refusal(self._refused)
        owner.leg, leg.owner = leg, owner
        self._refused.add(owner)

    def pbx_side_uri(self, user: str) -> str:
        return own_uri(self.settings.sip.pbx, user)

    def trunk_identity(self, name: str, headers: SipHeaders) -> tuple[str, list[tuple[str, str]]]:
        return trunk_identity(self.settings.sip.pbx, self.settings.trunks[name], headers)

    def from_number(self, number: str, *, pbx_side: bool = False) -> str:
        sip = self.settings.sip
        return f"<{own_uri(sip.pbx if pbx_side else sip.phone, number.replace('#', '%23'))}>"

    def from_header(self, headers: SipHeaders, *, pbx_side: bool = False) -> str:
        sip = self.settings.sip
        return own_from(sip.pbx if pbx_side else sip.phone, headers)

    # ------------------------------------------------------------------- what others tell us

    def emit(self, event: Event) -> None:
        """An event for the notifier; the last one of a call ends our memory of it."""
        self._notifier.send(event)
        if isinstance(event, CallEnding) and (bridged := self.calls.get(event.call_id)):
            call = bridged.call
            ended = self.ringback.ended(event, bridged.headers, call.plan.direction)
            if ended is not None and call.same_caller:
                self._notifier.send(ended)
        if isinstance(event, CallEnded):
            log.info("call_ended", call_id=event.call_id, reason=event.reason)
            self.forget(event.call_id)

    def _about_phones(self, message: PhoneSeen | NotifySent) -> None:
        self._notifier.send(message)

    def _tell_of_prompts(self, refused: str) -> None:
        """Whether what is played is what the configured folder holds."""
        reason = f"{refused}; the announcements stay as the node began with them" if refused else ""
        self._notifier.send(
            NodeDegraded(ts=time.time(), component="prompts", degraded=bool(reason), reason=reason)
        )

    def _key_trouble(self, component: str) -> Callable[[str], None]:
        """A file of keys cannot be used: nobody is marked or found by them, and calls go on."""
        return lambda reason: self._notifier.send(
            NodeDegraded(ts=time.time(), component=component, degraded=bool(reason), reason=reason)
        )

    def forget(self, call_id: str) -> None:
        """Drop a call that is over; one whose agent was transferred out goes on for now."""
        # The pjsua2 objects are in use by the callback that led here: drop them afterwards.
        asyncio.get_running_loop().call_soon(self._forget, call_id)

    def may_call_helper(self) -> bool:
        helpers = [b.helper for b in self.calls.values() if b.helper is not None]
        return sum(not helper.gone for helper in helpers) < MAX_HELPERS

    def call_supervisor(self, call_id: str, by: str) -> str:
        return self._notifier.call_supervisor(call_id, by)

    def _forget(self, call_id: str, waited_s: float = 0.0) -> None:
        bridged = self.calls.get(call_id)
        if bridged is None or bridged.call.state is not CallState.ENDED:
            return
        bridged.transfers.close()
        if bridged.call.plays_untold and waited_s < PLAYS_TOLD_S:
            asyncio.get_running_loop().call_later(0.1, self._forget, call_id, waited_s + 0.1)
            return
        bridged.probe.close()
        if any(not leg.gone for leg in bridged.legs()):
            # BYE or CANCEL is still under way; PJSIP's own timers (64 T1, 32 s) bound the wait.
            if waited_s < LAST_LEG_S:
                asyncio.get_running_loop().call_later(0.1, self._forget, call_id, waited_s + 0.1)
                return
            log.error("leg_never_ended", call_id=call_id)
        del self.calls[call_id]
        if not self.calls:
            self._idle.set()

    async def _on_media(self, message: MediaMessage) -> None:
        if self.kept.on_media(message):
            return
        match message:
            case (
                PlayFinished()
                | CallerPressed()
                | CodePressed()
                | DigitUndelivered()
                | MediaTimeout()
                | LegOpened()
            ):
                if bridged := self.calls.get(message.call_id):
                    tell_call(bridged, message)
                elif isinstance(message, MediaTimeout):
                    self.media.send(CloseSession(call_id=message.call_id))
            case HearingDose():
                self._hearing.on_dose(message)
            case AgentsSpoke():
                self._hearing.on_voices(message)
            case (
                TapStarted() | RecordingChanged() | MediaQuality() | MediaSilent() | NodeDegraded()
            ):
                self._notifier.send(message)
                if isinstance(message, MediaSilent) and (call := self.calls.get(message.call_id)):
                    call.probe.heard(message.leg, silent=message.silent)
            case SessionOpened():
                pass  # of a bridge that died: what can be done for it, sipbridge.kept_calls does
            case _:
                note(message)

    def _on_media_found(self) -> None:
        """The media worker is there (again): calls can be taken, the alarm about it is over."""
        self.stack.set_ready(not self.draining)
        self._notifier.send(NodeDegraded(ts=time.time(), component="media", degraded=False))

    def _on_media_lost(self) -> None:
        """The audio of every running call is gone with its worker: end them, take no new ones."""
        self.stack.set_ready(False)
        self._notifier.send(
            NodeDegraded(
                ts=time.time(), component="media", degraded=True, reason="the media worker stopped"
            )
        )
        self.keeping.forget_all()
        for bridged in list(self.calls.values()):
            bridged.run(bridged.call.on_media_lost())
        self.kept.on_media_lost()

    # --------------------------------------------------------------------------------- stop

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls; let the running ones finish, at most for ``timeout_s``."""
        self.draining = True
        self.stack.set_ready(False)
        self._notifier.send(
            NodeDegraded(
                ts=time.time(), component="draining", degraded=True, reason="takes no new calls"
            )
        )
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(self._idle.wait(), self.kept.idle.wait())
        except TimeoutError:
            log.warning("calls_cut_by_stop", calls=len(self.calls) + len(self.kept.calls))
            for bridged in list(self.calls.values()):
                bridged.run(bridged.call.on_shutdown())
            self.kept.shut_down()
            try:
                async with asyncio.timeout(LAST_BYES_S):
                    await asyncio.gather(self._idle.wait(), self.kept.idle.wait())
            except TimeoutError:
                log.warning("legs_without_answer_to_bye", calls=len(self.calls))

    async def stop(self) -> None:
        """Close everything; call :meth:`drain` first."""
        self.kept.close()
        for bridged in list(self.calls.values()):
            self.media.send(CloseSession(call_id=bridged.call_id))
        self._log_counters({})
        self.notify.close()
        await self._notifier.flush(1.0)
        await self._hearing.save()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.media.close()
        await self._notifier.close()
        self.calls.clear()
        self.pbx_accounts.clear()
        self.phone_accounts.clear()
        self._accounts_by_name.clear()
        self.digest.clear()
        self.stack.stop()
