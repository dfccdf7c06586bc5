"""The bridge: INVITEs of the PBX in, protected calls out.

It binds the pure call (:mod:`sipbridge.call`) to pjsua2 (:mod:`sipbridge.legs`), to the media
worker (:mod:`sipbridge.media_link`) and to the notifier (:mod:`callshield.bus`). One thread, one
event loop; nothing here waits for anything but a socket.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pjsip_guard
import pjsua2 as pj
import structlog

from callshield.bus import BusClient
from callshield.messages import (
    Action,
    CallEnded,
    CallSnapshot,
    CloseSession,
    CodePressed,
    Command,
    CommandResult,
    DigitUndelivered,
    Event,
    HearingDose,
    Hello,
    LegName,
    LegOpened,
    MediaFailed,
    MediaMessage,
    MediaQuality,
    MediaSilent,
    MediaTimeout,
    NodeDegraded,
    NodeMessage,
    PlayFinished,
    RecordingChanged,
    RiskChanged,
    SessionClosed,
    SessionOpened,
    TapStarted,
)
from callshield.settings import SIP_URI, PeerSettings, Settings, SideSettings
from sipbridge.bridged import Bridged
from sipbridge.call import CallState
from sipbridge.call_plan import CallPlan
from sipbridge.dose_meter import DoseMeter
from sipbridge.feature_codes import feature_codes
from sipbridge.help_plan import help_plan
from sipbridge.leg_policy import caller_policy, phone_policy
from sipbridge.legs import Leg, Refusal
from sipbridge.media_link import MediaLink
from sipbridge.offer_answer import OfferRefused, offered_to_phone, read_offer
from sipbridge.pjsip_stack import PjsipStack
from sipbridge.prompt_catalogue import Prompts
from sipbridge.refer import DialogRequest, replaces_of
from sipbridge.sip_message import (
    SipHeaders,
    address_uri,
    body_of,
    display_name,
    max_forwards,
    over_tls,
    request_uri_user,
    source_host,
    uri_host_port,
    uri_user,
)
from sipbridge.transfer import Replaces

log = structlog.get_logger()

#: Our header: names the call on both legs and shows a loop.
CALL_ID_HEADER = "X-Callshield-Call-ID"
#: Ended calls remembered so that a late second press is "already", not "unknown".
REMEMBERED_ENDED = 1024
#: A leg that is not over this long after its BYE or CANCEL is given up: its place is needed.
LAST_LEG_S = 40.0
#: Helpers' phones called or in a call at once (:data:`sipbridge.pjsip_stack.SPARE_LEGS`).
MAX_HELPERS = 64
#: Seconds between two lines of SIP counters in the log.
COUNTERS_EVERY_S = 60.0
#: Sums of hearing doses are kept so often: what a crash may forget of a shift.
DOSES_SAVED_EVERY_S = 60.0
#: How long the last BYEs may take when the node stops.
LAST_BYES_S = 2.0


class Bridge:
    """All calls of this node.

    Args:
        settings: the node's configuration.
        prompts: checked announcements.
    """

    def __init__(self, settings: Settings, prompts: Prompts) -> None:
        self.settings = settings
        self.prompts = prompts
        self.calls: dict[str, Bridged] = {}
        self._ended: OrderedDict[str, str] = OrderedDict()
        """Agent of each call that ended lately."""
        self._refused: set[Refusal] = set()
        self._help_wanted: OrderedDict[str, Command] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        self.codes: Mapping[str, Action] = feature_codes(settings)
        self._doses = DoseMeter(
            settings.node.state_dir / "hearing_dose.json", settings.ear.calibration_db_spl_at_0dbfs
        )
        self._doses_saved_ts = 0.0
        self._help_plan = help_plan(settings, prompts.help)
        self._peers = [
            (ipaddress.ip_network(network), peer)
            for peer in settings.peers
            for network in peer.networks
        ]
        self.stack = PjsipStack(settings, asyncio.get_running_loop(), self._on_request)
        self.media = MediaLink(
            settings.media_path, self._on_media, self._on_media_found, self._on_media_lost
        )
        self._bus: BusClient[NodeMessage] = BusClient(
            settings.bus_path, NodeMessage, self._on_command, self._introduce
        )
        self.pbx_accounts: dict[str, Any] = {}
        self.phone_accounts: dict[str, Any] = {}

    async def start(self) -> None:
        """Open the SIP ports and connect to the other processes.

        Raises:
            SetupError: a port is taken, or this pjsua2 is too small.
        """
        self.stack.start()
        self.pbx_accounts = self._accounts(self.settings.sip.pbx, self.stack.pbx_transports)
        self.phone_accounts = self._accounts(self.settings.sip.phone, self.stack.phone_transports)
        # Without a media worker the node is not ready, and must not look it: the bus comes last.
        self.media.start()
        await self.media.connected.wait()
        self._bus.start()
        self._spawn(self._report_counters())
        log.info("bridge_ready", **{k: v for k, v in pjsip_guard.info().items() if k != "srtp"})

    def _accounts(self, side: SideSettings, transports: Mapping[str, int]) -> dict[str, Any]:
        """One pjsua2 account a transport: what a dialog sends goes by its account's transport."""
        accounts: dict[str, Any] = {}
        for kind, transport in transports.items():
            accounts[kind] = _Account(self)
            default = side is self.settings.sip.pbx and kind == "udp"
            accounts[kind].create(self.stack.account_config(side, kind, transport), default)
        return accounts

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
        peer = self._peer_of(source)
        if peer is not None and self._replaces(account, pjsua_id, headers, message, source):
            return
        refusal = self._refusal(headers, peer)
        if refusal is None and peer is not None:
            try:
                plan = self._plan(call_id, headers, message, peer)
            except OfferRefused as refused:
                log.info("offer_refused", reason=refused.reason, status=488, detail=str(refused))
                host = self.settings.sip.pbx.signalling_advertised
                self._refuse(account, pjsua_id, call_id, 488, [refused.warning(host)])
                return
        else:
            status, reason, detail = refusal or (500, "error", "")
            log.info("invite_refused", reason=reason, status=status, detail=detail)
            self._refuse(account, pjsua_id, call_id, status)
            return
        bridged = Bridged(self, plan, headers, source)
        bridged.caller = Leg(account, bridged, LegName.CALLER, call_id, pjsua_id)
        bridged.caller.offered = plan.offer is not None
        # The first answer fixes what PJSIP negotiates; the 200 replaces it (RFC 3261 13.3.1.4).
        self.calls[call_id] = bridged
        self._idle.clear()
        request_id = self.media.next_request_id()
        self._spawn(self._open_media(bridged, request_id))
        bridged.run(bridged.call.begin(request_id))

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
        """The call and leg that a Replaces sent to us names (RFC 3891 section 3)."""
        wanted = (replaces.call_id, replaces.from_tag, replaces.to_tag)
        for bridged in self.calls.values():
            for leg in bridged.legs():
                named = leg.dialog()
                if named is None:
                    continue
                ours = named[0]  # as the far end would name it: its own tag is to_tag
                if (ours.call_id, ours.to_tag, ours.from_tag) == wanted:
                    return bridged, leg
        return None

    def _on_request(self, token: int, pjsua_id: int, message: bytes) -> None:
        """A REFER, NOTIFY or INFO inside a dialog (:mod:`sipbridge.refer`)."""
        text = message.decode("utf-8", "replace")
        request = DialogRequest(token, SipHeaders(text), body_of(text))
        try:
            for bridged in self.calls.values():
                for leg in bridged.legs():
                    # pjsua gives the number of a call that is over to the next one.
                    if not leg.gone and leg.getId() == pjsua_id:
                        named = leg.dialog()
                        if named and named[0].call_id == request.headers.first("Call-ID"):
                            bridged.transfers.on_request(leg, request)
                            return
            request.answer(481)
        except Exception:  # the process must outlive any one request
            log.exception("request_failed", method=request.method)
            request.answer(500)

    def may_be_referred_to(self, host: str) -> bool:
        """A configured PBX, an address of the phones' side, or our own: nobody else is called."""
        sip = self.settings.sip
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in sip.transfer_hosts
        own = {side.signalling_advertised for side in (sip.pbx, sip.phone)}
        own |= {side.bind for side in (sip.pbx, sip.phone)}
        return (
            str(address) in own
            or self.is_peer(host)
            or host in sip.transfer_hosts
            or any(address in ipaddress.ip_network(n, strict=False) for n in sip.phone.networks)
            or any(uri_host_port(a.uri)[0] == host for a in self.settings.agents.values())
        )

    def is_peer(self, host: str) -> bool:
        """Whether calls may come from this address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network, _ in self._peers)

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
        assert bridged.caller is not None
        session_id = int.from_bytes(os.urandom(4), "big")
        steps = bridged.call.on_media_open(opened.caller_port, opened.agent_port, session_id)
        bridged.caller.local_sdp = bridged.call.first_answer()
        bridged.run(steps)

    def _peer_of(self, source: str) -> PeerSettings | None:
        try:
            address = ipaddress.ip_address(source_host(source))
        except ValueError:
            return None
        for network, peer in self._peers:
            if address in network:
                return peer
        return None

    def _refusal(
        self, headers: SipHeaders, peer: PeerSettings | None
    ) -> tuple[int, str, str] | None:
        """Why an INVITE cannot be taken, before its body is looked at."""
        if peer is None:
            return 403, "unknown_peer", ""
        if self.draining or not self.media.connected.is_set():
            return 503, "draining" if self.draining else "no_media_worker", ""
        if len(self.calls) >= self.settings.sip.admission_limit:
            return 503, "admission_limit", str(self.settings.sip.admission_limit)
        if max_forwards(headers) <= 0:
            return 483, "too_many_hops", ""
        if headers.first(CALL_ID_HEADER) in self.calls:
            return 482, "loop", ""
        agent_id = request_uri_user(headers.start_line)
        if agent_id not in self.settings.agents:
            return 404, "unknown_agent", ""
        return None

    def _plan(
        self, call_id: str, headers: SipHeaders, message: str, peer: PeerSettings
    ) -> CallPlan:
        """What is fixed now.

        Raises:
            OfferRefused: the call cannot be: 488.
        """
        sip = self.settings.sip
        agent_id = request_uri_user(headers.start_line)
        caller = caller_policy(self.settings, over_tls=over_tls(headers))
        phone = phone_policy(self.settings, self.settings.agents[agent_id])
        offer = read_offer(message, caller)
        offered_to_phone(offer, phone, caller)  # refused now rather than after the ports are open
        attested = self._attested(headers, peer)
        return CallPlan(
            call_id=call_id,
            agent_id=agent_id,
            pbx_call_id=(headers.first(sip.pbx_call_id_header) or headers.first("Call-ID"))[:128],
            pbx=peer.name,
            offer=offer,
            pbx_address=sip.pbx.media_advertised,
            phone_address=sip.phone.media_advertised,
            notice=tuple(p for p in self.prompts.notice if p.prompt_id not in attested),
            closing=self.prompts.closing,
            warnings=self.prompts.warnings,
            notice_tone=self.prompts.notice_tone,
            attested=attested,
            tap_allowed=self.settings.detector.enabled,
            ring_timeout_s=sip.ring_timeout_s,
            caller_policy=caller,
            phone_policy=phone,
            record_allowed=self.settings.recording.enabled,
            levelling=self.settings.ear.levelling,
            soften_level=self.settings.ear.soften_from_level,
            agent_hears=self.settings.notice.agent_hears,
            help=self._help_plan,
        )

    def _attested(self, headers: SipHeaders, peer: PeerSettings) -> tuple[str, ...]:
        """Configured prompts that a trusted PBX says it played; a stranger's word is ignored."""
        value = headers.first(self.settings.notice.upstream_header)
        if not value:
            return ()
        if not peer.attests_notice:
            log.warning("notice_attestation_ignored", peer=peer.name)
            return ()
        named = {part.split(";", 1)[0].strip() for part in value.split(",")}
        return tuple(p.prompt_id for p in self.prompts.notice if p.prompt_id in named)

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
        """A user at our own address towards the PBX."""
        side = self.settings.sip.pbx
        host = side.signalling_advertised
        host = f"[{host}]" if ":" in host else host
        return f"sip:{user}@{host}:{side.port}"

    def from_header(self, headers: SipHeaders, *, pbx_side: bool = False) -> str:
        """From of the phone's leg: the caller's number and name at our own address."""
        value = headers.first("From")
        user = uri_user(address_uri(value)) or "anonymous"
        name = "".join(c for c in display_name(value) if c not in '"\\<>' and c >= " ")[:64]
        side = self.settings.sip.pbx if pbx_side else self.settings.sip.phone
        host = side.signalling_advertised
        host = f"[{host}]" if ":" in host else host
        uri = f"sip:{user}@{host}:{side.port}"
        if not SIP_URI.match(uri):
            uri = f"sip:anonymous@{host}:{side.port}"
        return f'"{name}" <{uri}>' if name else f"<{uri}>"

    # ------------------------------------------------------------------- what others tell us

    def emit(self, event: Event) -> None:
        """An event for the notifier; the last one of a call ends our memory of it."""
        self._bus.send(event)
        if isinstance(event, CallEnded):
            log.info("call_ended", call_id=event.call_id, reason=event.reason)
            self._ended[event.call_id] = event.agent_id
            while len(self._ended) > REMEMBERED_ENDED:
                self._ended.popitem(last=False)
            self.forget(event.call_id)

    def forget(self, call_id: str) -> None:
        """Drop a call that is over; one whose agent was transferred out goes on for now."""
        # The pjsua2 objects are in use by the callback that led here: drop them afterwards.
        asyncio.get_running_loop().call_soon(self._forget, call_id)

    def may_call_helper(self) -> bool:
        helpers = [b.helper for b in self.calls.values() if b.helper is not None]
        return sum(not helper.gone for helper in helpers) < MAX_HELPERS

    def call_supervisor(self, call_id: str, by: str) -> str:
        """*help* keyed on the phone: an alert is the notifier's to raise.

        Kept, and said again on every connection, until the notifier answered that it is stored.
        """
        command = Command(command_id=uuid.uuid4().hex, call_id=call_id, action=Action.HELP, by=by)
        self._help_wanted[command.command_id] = command
        while len(self._help_wanted) > REMEMBERED_ENDED:
            self._help_wanted.popitem(last=False)
        self._bus.send(command)
        return command.command_id

    def _forget(self, call_id: str, waited_s: float = 0.0) -> None:
        bridged = self.calls.get(call_id)
        if bridged is None or bridged.call.state is not CallState.ENDED:
            return
        bridged.transfers.close()
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
        match message:
            case PlayFinished():
                if bridged := self.calls.get(message.call_id):
                    bridged.run(bridged.call.on_play_finished(message))
            case CodePressed():
                bridged = self.calls.get(message.call_id)
                if bridged is not None and message.leg is LegName.AGENT:
                    bridged.on_code(message.code)
            case DigitUndelivered():
                if bridged := self.calls.get(message.call_id):
                    bridged.on_digit_undelivered(message)
            case MediaTimeout():
                if bridged := self.calls.get(message.call_id):
                    log.info("media_timeout", call_id=message.call_id, silent_s=message.silent_s)
                    bridged.run(bridged.call.on_media_timeout())
                else:
                    self.media.send(CloseSession(call_id=message.call_id))
            case LegOpened():
                if bridged := self.calls.get(message.call_id):
                    session_id = int.from_bytes(os.urandom(4), "big")
                    bridged.run(bridged.call.on_leg_opened(message, session_id))
            case HearingDose():
                self._on_dose(message)
            case (
                TapStarted() | RecordingChanged() | MediaQuality() | MediaSilent() | NodeDegraded()
            ):
                self._bus.send(message)
            case SessionOpened() if message.call_id not in self.calls:
                # Left by a bridge that died: nobody can hang it up any more but its far ends. The
                # worker keeps the audio until then; taking it away would only cut two people off.
                log.warning("orphaned_media", call_id=message.call_id)
            case MediaFailed():
                log.warning(
                    "media_failed",
                    call_id=message.call_id,
                    command=message.command,
                    error=message.error,
                )
            case SessionClosed():
                log.info(
                    "media_closed",
                    call_id=message.call_id,
                    caller_received=message.caller.received,
                    agent_received=message.agent.received,
                    tapped=message.tapped,
                    tap_dropped=message.tap_dropped,
                    wrong_source=message.caller.wrong_source + message.agent.wrong_source,
                    malformed=message.caller.malformed + message.agent.malformed,
                    caller_leg=msgspec.to_builtins(message.caller),
                    agent_leg=msgspec.to_builtins(message.agent),
                )
            case _:
                pass

    def _on_dose(self, heard: HearingDose) -> None:
        bridged = self.calls.get(heard.call_id)
        agent_id = bridged.call.plan.agent_id if bridged else self._ended.get(heard.call_id)
        if agent_id is None:
            return
        now = time.time()
        self._bus.send(
            self._doses.add(agent_id, heard.call_id, heard.a_weighted_sum_sq, heard.samples, now)
        )
        if now - self._doses_saved_ts > DOSES_SAVED_EVERY_S:
            self._doses_saved_ts = now
            self._spawn(asyncio.to_thread(self._doses.save, now))

    def _on_media_found(self) -> None:
        """The media worker is there (again): calls can be taken, the alarm about it is over."""
        self.stack.set_ready(not self.draining)
        self._bus.send(NodeDegraded(ts=time.time(), component="media", degraded=False))

    def _on_media_lost(self) -> None:
        """The audio of every running call is gone with its worker: end them, take no new ones."""
        self.stack.set_ready(False)
        self._bus.send(
            NodeDegraded(
                ts=time.time(), component="media", degraded=True, reason="the media worker stopped"
            )
        )
        for bridged in list(self.calls.values()):
            bridged.run(bridged.call.on_media_lost())

    async def _on_command(self, message: NodeMessage) -> None:
        if isinstance(message, CommandResult):
            self._help_wanted.pop(message.command_id, None)
        if isinstance(message, RiskChanged):
            if bridged := self.calls.get(message.call_id):
                bridged.run(bridged.call.on_risk(message.level))
            return
        if not isinstance(message, Command):
            return
        bridged = self.calls.get(message.call_id)
        if bridged is not None and bridged.call.state is not CallState.ENDED:
            outcome, detail, steps = bridged.call.act(
                message.action, message.by, target=message.target, request_id=message.command_id
            )
            result = CommandResult(command_id=message.command_id, status=outcome, detail=detail)
            bridged.run(steps)
        elif message.call_id in self._ended or bridged is not None:
            status = "already" if message.action is Action.END else "not_now"
            result = CommandResult(
                command_id=message.command_id,
                status="already" if status == "already" else "not_now",
                detail="The call has ended.",
            )
        else:
            result = CommandResult(
                command_id=message.command_id,
                status="unknown_call",
                detail="There is no such call on this node.",
            )
        self._bus.send(result)

    def _introduce(self) -> list[NodeMessage]:
        over = (CallState.ENDED, CallState.TRANSFERRED)
        live = [b for b in self.calls.values() if b.call.state not in over]
        return [
            Hello(role="bridge", pid=os.getpid(), node=self.settings.node.name),
            CallSnapshot(
                ts=time.time(),
                calls=[b.call.started_event() for b in live],
                answered=[b.call_id for b in live if b.call.answered_ts],
            ),
            *self._help_wanted.values(),
        ]

    # --------------------------------------------------------------------------------- stop

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls; let the running ones finish, at most for ``timeout_s``."""
        self.draining = True
        self.stack.set_ready(False)
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("calls_cut_by_stop", calls=len(self.calls))
            for bridged in list(self.calls.values()):
                bridged.run(bridged.call.on_shutdown())
            try:
                async with asyncio.timeout(LAST_BYES_S):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("legs_without_answer_to_bye", calls=len(self.calls))

    async def stop(self) -> None:
        """Close everything; call :meth:`drain` first."""
        for bridged in list(self.calls.values()):
            self.media.send(CloseSession(call_id=bridged.call_id))
        self._log_counters({})
        await self._bus.flush(1.0)
        await asyncio.to_thread(self._doses.save, time.time())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.media.close()
        await self._bus.close()
        self.calls.clear()
        self.pbx_accounts.clear()
        self.phone_accounts.clear()
        self.stack.stop()


class _Account(pj.Account):
    """Hands incoming calls to the bridge."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def onIncomingCall(self, prm: Any) -> None:
        try:
            self._bridge.on_invite(
                self, prm.callId, str(prm.rdata.wholeMsg), str(prm.rdata.srcAddress)
            )
        except Exception:  # the process must outlive any one INVITE
            log.exception("invite_failed")
