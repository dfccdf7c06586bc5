"""The media worker where rtpengine carries the audio (``media.plane = "rtpengine"``).

To the bridge and to the detector it is a media worker like :mod:`sipbridge.media_worker`: the same
messages over the same socket, the same tap. What it commands is not our relay but an rtpengine that
runs beside, over its ng protocol; no packet of a call comes through this process but the copy of
the caller's that is tapped.

It listens for the bridge only while rtpengine answers. When rtpengine is gone so is the audio of
every call: the bridge's connection is closed, as if this process had died, and the bridge ends its
calls, raises an alarm and answers 503 until this process listens again. A call that rtpengine alone
has lost (it was restarted between two looks) ends by its media timeout.

Run it with ``python -m sipbridge.rtpengine_plane --config FILE``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

import structlog
import uvloop

from callshield import heartbeat, lifeline
from callshield.bus import BusServer, Peer
from callshield.errors import CallshieldError
from callshield.logs import configure_logs
from callshield.messages import LegName, MediaSilent, NodeDegraded, NoticeFinished
from callshield.messages_media import (
    CloseLeg,
    CloseSession,
    DigitReceived,
    EarUpdate,
    FetchKept,
    FlowUpdate,
    KeepCall,
    KeepDialog,
    KeptEnd,
    LegOpened,
    LegUpdate,
    MediaFailed,
    MediaMessage,
    MediaStats,
    MediaTimeout,
    OpenLeg,
    OpenSession,
    PlayPrompts,
    PromoteHelper,
    SessionOpened,
    StopPlay,
)
from callshield.messages_notice import PromptPlayed, ProtectionChanged
from callshield.settings import Settings, load_settings
from callshield.settings_media import host_port
from sipbridge.descriptors import allow_many_files
from sipbridge.feature_codes import feature_codes
from sipbridge.media_session import is_call_id
from sipbridge.media_worker import REALTIME_PRIORITY
from sipbridge.ng_client import NgClient, NgUnreachable
from sipbridge.relay_core import Core
from sipbridge.rtpengine_call import RtpengineCall
from sipbridge.rtpengine_dtmf import DtmfEvent, DtmfLog
from sipbridge.rtpengine_legs import Plane
from sipbridge.rtpengine_probe import clear_leftovers, node_prefix, probe
from sipbridge.tap_watch import TapWatch

log = structlog.get_logger()

#: How often rtpengine is asked whether it is there, and how long an answer may take.
_PING_S, _PONG_S = 0.5, 0.4
#: rtpengine counts as gone when the kernel says so twice, or after so long without an answer.
_REFUSALS, _UNANSWERED_S = 2, 5.0
#: Each call is looked at so often.
_LOOK_S = 2.0
#: How often a missing rtpengine is looked for, and written about.
_SEEK_S, _SAY_EVERY = 0.5, 20


class RtpenginePlane:
    """The process' work.

    Args:
        settings: of the node.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._media = settings.media.rtpengine
        self.prefix = node_prefix(settings)
        sip = settings.sip
        self._core = Core(str(settings.tap_path), list(feature_codes(settings)), sip.latch_window_s)
        self._tap_address = self._media.tap_address or sip.pbx.bind
        self._ng: NgClient | None = None
        self._plane: Plane | None = None
        self._dtmf: DtmfLog | None = None
        self._calls: dict[str, RtpengineCall] = {}
        self._owners: dict[str, Peer[MediaMessage]] = {}
        self._orphaned_at: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._past_packets = 0
        self._greeted: set[Peer[MediaMessage]] = set()
        self._tap_watch = TapWatch()
        self._bus: BusServer[MediaMessage] | None = None

    # -------------------------------------------------------------------------------- life

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``.

        Raises:
            SetupError: a port is taken, or rtpengine is not set up as the configuration says.
        """
        logged = host_port(self._media.dtmf_log)
        known = frozenset({host_port(self._media.control)[0], logged[0]})
        self._dtmf = await DtmfLog.open(logged, known, self._pressed)
        asyncio.get_running_loop().add_reader(self._core.event_fd, self._on_events)
        self._core.start(REALTIME_PRIORITY)
        try:
            while not stop.is_set():
                serving = asyncio.create_task(self._serve())
                await first_of(serving, stop.wait())
                if serving.done():
                    serving.result()
                    continue
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
        finally:
            await self._finish()

    async def _serve(self) -> None:
        """From the moment when rtpengine is found until it is gone.

        Raises:
            SetupError: it is set up differently.
        """
        ng = await self._find()
        self._ng = ng
        self._plane = self._shared(ng)
        self._bus = BusServer(
            self._settings.media_path, MediaMessage, self._on_message, self._on_bridge_gone
        )
        await self._bus.start()
        log.info("media_ready", plane="rtpengine")
        await first_of(self._until_gone(ng), self._look())
        await self._rtpengine_gone()

    def _shared(self, ng: NgClient) -> Plane:
        sip = self._settings.sip
        return Plane(
            ng=ng,
            core=self._core,
            prefix=self.prefix,
            interfaces=(self._media.pbx_interface, self._media.phone_interface),
            tap_address=self._tap_address,
            networks={
                name: [
                    ipaddress.ip_network(network)
                    for network in side.networks
                    if self._media.learn_addresses
                ]
                for name, side in ((LegName.CALLER, sip.pbx), (LegName.AGENT, sip.phone))
            },
            tos=sip.dscp_media << 2,
            codes=list(feature_codes(self._settings)),
        )

    async def _find(self) -> NgClient:
        """Wait until rtpengine answers as it should.

        Raises:
            SetupError: it answers, and is not set up as the configuration says.
        """
        said = 0
        while True:
            ng = None
            try:
                ng = await NgClient.open(host_port(self._media.control))
                await clear_leftovers(ng, self.prefix)
                await probe(ng, self._settings, self._dtmf)
            except NgUnreachable as error:
                if ng is not None:
                    ng.close()
                if said % _SAY_EVERY == 0:
                    log.error("rtpengine_missing", error=str(error))
                said += 1
                await asyncio.sleep(_SEEK_S)
            except BaseException:
                if ng is not None:
                    ng.close()
                raise
            else:
                return ng

    async def _until_gone(self, ng: NgClient) -> None:
        refusals, answered = 0, time.monotonic()
        while True:
            try:
                if await ng.ping(_PONG_S):
                    refusals, answered = 0, time.monotonic()
            except NgUnreachable:
                refusals += 1
            if refusals >= _REFUSALS or time.monotonic() - answered > _UNANSWERED_S:
                return
            await asyncio.sleep(_PING_S)

    async def _rtpengine_gone(self) -> None:
        """Its calls' audio is gone: the bridge is told by the end of its connection."""
        log.error("rtpengine_gone", calls=len(self._calls))
        self._degraded("rtpengine does not answer: the audio of all calls of this node is gone")
        for call in list(self._calls.values()):
            call.abandon()
        self._calls.clear()
        self._owners.clear()
        self._orphaned_at.clear()
        if self._bus is not None:
            # A turn for what was just written to the bridge.
            await asyncio.sleep(0)
            await self._bus.close()
            self._bus = None
        self._greeted.clear()
        if self._ng is not None:
            self._ng.close()
            self._ng = None

    async def _finish(self) -> None:
        """Take all calls out of rtpengine and stop."""
        for call_id in list(self._calls):
            self._close(call_id)
        if self._closing:
            await asyncio.wait(self._closing, timeout=2.0)
        # A turn for what was just written to the bridge.
        await asyncio.sleep(0)
        if self._bus is not None:
            await self._bus.close()
        if self._ng is not None:
            self._ng.close()
        if self._dtmf is not None:
            self._dtmf.close()
        asyncio.get_running_loop().remove_reader(self._core.event_fd)
        self._core.stop()
        log.info("media_stopped", packets=self._past_packets)

    # --------------------------------------------------------------------- what is looked at

    async def _look(self) -> None:
        """Every call in turn, evenly over the time, and the totals."""
        while True:
            self._greet()
            calls = list(self._calls.values())
            pause_s = _LOOK_S / max(len(calls), 1)
            for call in calls:
                if call.call_id in self._calls:
                    with contextlib.suppress(NgUnreachable):
                        await call.look()
                    self._judge(call)
                await asyncio.sleep(pause_s)
            if not calls:
                await asyncio.sleep(pause_s)
            self._stats()

    def _judge(self, call: RtpengineCall) -> None:
        now = time.monotonic()
        limit_s = self._settings.sip.rtp_timeout_s
        if call.call_id not in self._calls:
            return
        for name, silent in call.silence.changes(now):
            self._say(MediaSilent(ts=time.time(), call_id=call.call_id, leg=name, silent=silent))
        if call.silence.times_out(now, limit_s):
            silent_s = round(call.silence.silent_s(now), 1)
            self._say(MediaTimeout(call_id=call.call_id, silent_s=silent_s))
        orphaned_at = self._orphaned_at.get(call.call_id, now)
        if limit_s <= min(call.silence.idle_s(now), now - orphaned_at):
            log.warning("session_orphaned", call_id=call.call_id)
            self._close(call.call_id)

    def _stats(self) -> None:
        totals = self._core.totals()
        if self._tap_watch.look(totals["tapped"], totals["tap_dropped"]):
            self._say(self._tap_watch.alarm())
        running = sum(
            call.silence.packets(name)
            for call in self._calls.values()
            for name in (LegName.CALLER, LegName.AGENT)
        )
        self._say(
            MediaStats(
                sessions=len(self._calls),
                packets=self._past_packets + running,
                tapped=totals["tapped"],
                tap_dropped=totals["tap_dropped"],
                malformed=0,
                wrong_source=totals["wrong_source"],
            )
        )

    def _lost(self, call: RtpengineCall) -> None:
        """rtpengine has this call no longer, though it answers: it was restarted between two looks,
        or its own timeout is shorter than ours."""
        if self._calls.get(call.call_id) is not call:
            return
        log.error("rtpengine_lost_call", call_id=call.call_id)
        call.abandon()
        self._forget(call)
        self._degraded(
            "rtpengine has lost a call: it was restarted, or its timeout is shorter than ours "
            "(docs/media-planes.md)",
            call.call_id,
        )
        self._say(MediaTimeout(call_id=call.call_id, silent_s=0.0))

    def _on_events(self) -> None:
        for event in self._core.events():
            if event[0] == "tap_started":
                for call in self._calls.values():
                    if call.tap_handle == event[1]:
                        call.tap_started()
                        break

    def _pressed(self, event: DtmfEvent) -> None:
        if event.callid.startswith(self.prefix):
            call = self._calls.get(event.callid.removeprefix(self.prefix))
            if call is not None:
                call.pressed(event.source_tag, event.digit)

    def _degraded(self, reason: str, call_id: str = "") -> None:
        """An alarm, or (without a reason) its end."""
        self._say(
            NodeDegraded(
                ts=time.time(),
                component="rtpengine",
                degraded=bool(reason),
                reason=reason,
                call_id=call_id,
            )
        )

    def _say(self, message: MediaMessage) -> None:
        if self._bus is not None:
            for peer in self._bus.peers:
                peer.send(message)

    # ------------------------------------------------------------------------------- bridge

    def _greet(self) -> None:
        """Tell a bridge that has just (re)connected that rtpengine is there, and which sessions
        live, with request_id 0."""
        if self._bus is None:
            return
        for peer in self._bus.peers - self._greeted:
            self._greeted.add(peer)
            peer.send(NodeDegraded(ts=time.time(), component="rtpengine", degraded=False))
            if self._tap_watch.told:
                peer.send(self._tap_watch.alarm())
            for call in self._calls.values():
                peer.send(_opened(0, call))

    def _on_bridge_gone(self, peer: Peer[MediaMessage]) -> None:
        self._greeted.discard(peer)
        now = time.monotonic()
        for call_id, owner in list(self._owners.items()):
            if owner is peer:
                del self._owners[call_id]
                self._orphaned_at[call_id] = now
        log.info("bridge_gone", sessions=len(self._calls))

    async def _on_message(self, peer: Peer[MediaMessage], message: MediaMessage) -> None:
        self._greet()
        if isinstance(message, OpenSession):
            # Reserving waits for rtpengine; the messages of other calls do not wait for that.
            task = asyncio.create_task(self._open(peer, message))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            return
        try:
            self._obey(peer, message)
        except CallshieldError as error:
            command = str(message.__struct_config__.tag)
            log.warning("media_command_failed", command=command, error=str(error))
            call_id = str(getattr(message, "call_id", ""))
            peer.send(MediaFailed(call_id=call_id, command=command, error=str(error)))

    def _obey(self, peer: Peer[MediaMessage], message: MediaMessage) -> None:
        match message:
            case CloseSession():
                self._session(peer, message.call_id)
                self._close(message.call_id)
            case LegUpdate():
                self._session(peer, message.call_id).negotiate(message)
            case FlowUpdate():
                self._session(peer, message.call_id).allow(message)
            case PlayPrompts():
                self._session(peer, message.call_id).play(message)
            case StopPlay():
                self._session(peer, message.call_id).stop(message.leg)
            case DigitReceived():
                self._session(peer, message.call_id).digit(message.leg, message.digit)
            case NoticeFinished() | PromptPlayed() | ProtectionChanged():
                pass  # for a recording's own papers; there is none
            case EarUpdate():
                if message.soften or message.levelling:
                    raise CallshieldError("rtpengine neither softens nor levels what agents hear")
            case KeepCall() | KeepDialog():
                self._session(peer, message.call_id).keep(message)
            case FetchKept():
                self._hand_over(peer)
            case OpenLeg():
                peer.send(
                    LegOpened(
                        request_id=message.request_id,
                        call_id=message.call_id,
                        leg=message.leg,
                        error="rtpengine does not mix: nobody can join a call",
                    )
                )
            case CloseLeg() | PromoteHelper():
                raise CallshieldError("rtpengine carries two legs: there is no helper's")
            case _:
                raise CallshieldError("this message is not a command to the media worker")

    def _hand_over(self, peer: Peer[MediaMessage]) -> None:
        """The calls that nobody commands become this bridge's."""
        for call_id, call in self._calls.items():
            if call_id not in self._owners and (kept := call.kept()) is not None:
                self._session(peer, call_id)
                peer.send(kept)
        peer.send(KeptEnd())

    def _session(self, peer: Peer[MediaMessage], call_id: str) -> RtpengineCall:
        """The call that a bridge commands, which so becomes its own."""
        try:
            call = self._calls[call_id]
        except KeyError:
            raise CallshieldError("no session with this call id is open") from None
        self._owners[call_id] = peer
        self._orphaned_at.pop(call_id, None)
        return call

    async def _open(self, peer: Peer[MediaMessage], message: OpenSession) -> None:
        call_id, plane = message.call_id, self._plane
        assert plane is not None
        error = ""
        if not is_call_id(call_id):
            error = "a call id has 32 small hexadecimal digits"
        elif call_id in self._calls:
            error = "a session with this call id is open already"
        else:
            call = RtpengineCall(plane, call_id, self._say, self._lost)
            self._calls[call_id] = call
            self._owners[call_id] = peer
            try:
                await call.open()
            except CallshieldError as refusal:
                error = str(refusal)
                if self._calls.get(call_id) is call:
                    call.abandon()
                    self._forget(call)
            else:
                if self._calls.get(call_id) is call:
                    peer.send(_opened(message.request_id, call))
                return
        log.warning("session_refused", call_id=call_id, error=error)
        peer.send(SessionOpened(request_id=message.request_id, call_id=call_id, error=error))

    def _close(self, call_id: str) -> None:
        call = self._calls[call_id]
        self._forget(call)
        task = asyncio.create_task(call.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, call: RtpengineCall) -> None:
        self._calls.pop(call.call_id, None)
        self._owners.pop(call.call_id, None)
        self._orphaned_at.pop(call.call_id, None)
        self._past_packets += sum(
            call.silence.packets(name) for name in (LegName.CALLER, LegName.AGENT)
        )


async def first_of(*works: Awaitable[object]) -> None:
    """Wait for whichever ends first, and end the others; raises what that one raised.

    A task that is given as such goes on.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    own = [task for task, work in zip(tasks, works, strict=True) if task is not work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done & set(own):
            task.result()
    finally:
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)


def _opened(request_id: int, call: RtpengineCall) -> SessionOpened:
    return SessionOpened(
        request_id=request_id,
        call_id=call.call_id,
        caller_port=call.ports[LegName.CALLER],
        agent_port=call.ports[LegName.AGENT],
    )


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        SetupError: a port is taken, or rtpengine is not set up as the configuration says.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    lifeline.watch(loop, stop.set)
    heartbeat.beat(loop)
    await RtpenginePlane(settings).run(stop)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; the exit status."""
    parser = argparse.ArgumentParser(prog="sipbridge.rtpengine_plane", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the node's TOML file")
    parsed = parser.parse_args(arguments)
    try:
        settings = load_settings(parsed.config)
        configure_logs("media", level=settings.node.log_level)
        allow_many_files()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
