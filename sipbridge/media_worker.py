"""The media worker: the process that every call's audio goes through.

Nothing heavy lives here, and nothing here waits: one thread, one event loop (uvloop) with an
epoll of its own for all RTP sockets, one 20 ms tick for all prompts and the tap. The bridge
commands it over :attr:`callshield.settings.Settings.media_path` (``media control`` in
:mod:`callshield.messages`); it may die and come back while the calls go on. A bridge that
connects is told what lives, by a :class:`SessionOpened` with request_id 0 for each session; a
session whose bridge is gone, and which no other one commands, ends when its media ends.

Run it with ``python -m sipbridge.media_worker --config FILE``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import ipaddress
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop

from callshield import lifeline
from callshield.bus import BusServer, Peer
from callshield.errors import CallshieldError
from callshield.logs import configure_logs
from callshield.messages import (
    CloseSession,
    FlowUpdate,
    LegName,
    LegUpdate,
    MediaFailed,
    MediaMessage,
    MediaStats,
    MediaTimeout,
    OpenSession,
    PlayPrompts,
    SessionOpened,
    StopPlay,
    TapStarted,
)
from callshield.settings import Settings, SideSettings, load_settings
from sipbridge.media_session import MediaSession, is_call_id
from sipbridge.pacing import TickClock
from sipbridge.ports import PortPair, PortRange
from sipbridge.prompt_player import PromptPlayer
from sipbridge.relay import AgentLeg, CallerLeg, Outlet
from sipbridge.rtp import FRAME_S
from sipbridge.tap_sender import CallTap, TapSender

log = structlog.get_logger()

_TICKS_A_SECOND = 50
_TICKS_BETWEEN_DIGIT_CHECKS = 5
#: Low among real-time priorities (1-99): above all ordinary processes, below the kernel's own.
REALTIME_PRIORITY = 10
#: Sockets served before the event loop gets its turn.
_READY_AT_ONCE = 128
_FAILURES_LOGGED = 10
#: Larger than any packet that we forward, so that a longer one shows its length.
_BUFFER_BYTES = 2048


@dataclass(slots=True)
class _Totals:
    """Counters of sessions that are closed already."""

    packets: int = 0
    malformed: int = 0
    wrong_source: int = 0

    def add(self, session: MediaSession) -> None:
        for inlet in (session.caller.inlet, session.agent.inlet):
            self.packets += inlet.received
            self.malformed += inlet.malformed
            self.wrong_source += inlet.wrong_source


class MediaWorker:
    """All sessions of one node.

    Args:
        settings: of the node.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sessions: dict[str, MediaSession] = {}
        self._owners: dict[str, Peer[MediaMessage]] = {}
        self._orphaned_at: dict[str, float] = {}
        self._outbox: list[MediaMessage] = []
        self._player = PromptPlayer(self._outbox, self._flush)
        self._closed = _Totals()
        self._greeted: set[Peer[MediaMessage]] = set()
        self._tick_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tap = TapSender(settings.tap_path, self._tap_started)
        # One for all RTP sockets, watched by the event loop as a whole: asyncio would queue a
        # callback for each packet, which costs more than relaying it.
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._failures = 0
        # One buffer for all: a packet is received, rewritten and sent before the next one.
        self._buffer = bytearray(_BUFFER_BYTES)
        sip = settings.sip
        self._pbx_ports = _port_range(sip.pbx, sip.dscp_media, "sip.pbx.rtp_ports")
        self._phone_ports = _port_range(sip.phone, sip.dscp_media, "sip.phone.rtp_ports")
        self._pbx_networks = [ipaddress.ip_network(item) for item in sip.pbx.networks]
        self._phone_networks = [ipaddress.ip_network(item) for item in sip.phone.networks]
        self._bus: BusServer[MediaMessage] = BusServer(
            settings.media_path, MediaMessage, self._on_message, self._on_bridge_gone
        )

    # ---------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Listen for the bridge.

        Raises:
            BusError: the socket cannot be made.
        """
        await self._bus.start()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._serve_ready)
        now = time.monotonic()
        self._clock = TickClock(now, FRAME_S)
        self._tick()
        log.info("media_ready")

    async def close(self) -> None:
        """Close all sessions and stop."""
        for call_id in list(self._sessions):
            self._close(call_id)
        self._flush()
        self._tap.close()
        if self._timer is not None:
            self._timer.cancel()
        self._player.close()
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        # A turn for what was just written to the bridge.
        await asyncio.sleep(0)
        await self._bus.close()
        log.info("media_stopped", late_ticks=self._clock.late, skipped_ticks=self._clock.skipped)

    # --------------------------------------------------------------------------- packets

    def _serve_ready(self) -> None:
        readers = self._readers
        for descriptor, _ in self._epoll.poll(0, _READY_AT_ONCE):
            try:
                readers[descriptor]()
            except Exception:
                # A fault of ours, but not one that may end every call or fill the disk.
                self._failures += 1
                if self._failures <= _FAILURES_LOGGED:
                    log.exception("packet_not_served")

    def _watch(
        self, ports: PortPair, leg: CallerLeg | AgentLeg, onward: Outlet, onward_ports: PortPair
    ) -> None:
        buffer = self._buffer
        view = memoryview(buffer)
        take = ports.rtp.recvfrom_into
        send = onward_ports.rtp.sendto
        receive = leg.receive
        latch = onward.latch
        clock = time.monotonic
        long_address = ":" in ports.rtp.getsockname()[0]

        def serve() -> None:
            try:
                size, source = take(buffer)
            except OSError:
                return
            if long_address:
                source = source[:2]
            size = receive(buffer, size, source, clock(), onward)
            if size:
                try:
                    # relay() lets nothing pass without a destination.
                    send(view[:size], latch.destination)  # type: ignore[arg-type]
                except OSError:
                    onward.unsent += 1

        descriptor = ports.rtp.fileno()
        self._readers[descriptor] = serve
        self._epoll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, ports: PortPair) -> None:
        descriptor = ports.rtp.fileno()
        self._epoll.unregister(descriptor)
        del self._readers[descriptor]

    # ------------------------------------------------------------------------------ ticks

    def _tick(self) -> None:
        now = time.monotonic()
        ticks = self._clock.due(now)
        # Armed first: a fault in one tick must not be the last tick. uvloop's timers count whole
        # milliseconds, rounded to the nearest; one that fires early finds nothing due.
        delay_s = max(self._clock.deadline_s - now, 0.0) + 0.0005
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)
        if not ticks:
            return
        self._player.tick(ticks, now)
        self._tap.flush()
        before = self._tick_count
        self._tick_count += ticks
        if _passes(before, ticks, _TICKS_BETWEEN_DIGIT_CHECKS):
            for session in self._sessions.values():
                session.caller.inlet.expire(now)
                session.agent.inlet.expire(now)
        if _passes(before, ticks, _TICKS_A_SECOND):
            self._second(now)
        self._flush()

    def _second(self, now: float) -> None:
        self._greet()
        limit_s = self._settings.sip.rtp_timeout_s
        for call_id, session in list(self._sessions.items()):
            if session.times_out(now, limit_s):
                self._outbox.append(
                    MediaTimeout(call_id=call_id, silent_s=round(session.silent_s(now), 1))
                )
            orphaned_at = self._orphaned_at.get(call_id, now)
            if limit_s <= min(session.idle_s(now), now - orphaned_at):
                log.warning("session_orphaned", call_id=call_id)
                self._close(call_id)
        total = _Totals(self._closed.packets, self._closed.malformed, self._closed.wrong_source)
        for session in self._sessions.values():
            total.add(session)
        self._outbox.append(
            MediaStats(
                sessions=len(self._sessions),
                packets=total.packets,
                tapped=self._tap.tapped,
                tap_dropped=self._tap.dropped,
                malformed=total.malformed,
                wrong_source=total.wrong_source,
            )
        )

    def _tap_started(self, call_id: str) -> None:
        self._outbox.append(TapStarted(ts=time.time(), call_id=call_id))

    def _flush(self) -> None:
        if not self._outbox:
            return
        messages, self._outbox[:] = list(self._outbox), []
        for peer in self._bus.peers:
            for message in messages:
                peer.send(message)

    # ----------------------------------------------------------------------------- bridge

    def _greet(self) -> None:
        """Tell a bridge that has just (re)connected which sessions live, with request_id 0."""
        for peer in self._bus.peers - self._greeted:
            self._greeted.add(peer)
            for session in self._sessions.values():
                peer.send(_opened(0, session))

    def _on_bridge_gone(self, peer: Peer[MediaMessage]) -> None:
        self._greeted.discard(peer)
        now = time.monotonic()
        for call_id, owner in list(self._owners.items()):
            if owner is peer:
                del self._owners[call_id]
                self._orphaned_at[call_id] = now
        if self._sessions:
            log.warning("bridge_gone", sessions=len(self._sessions))
        else:
            log.info("bridge_gone", sessions=0)

    async def _on_message(self, peer: Peer[MediaMessage], message: MediaMessage) -> None:
        self._greet()
        try:
            match message:
                case OpenSession():
                    peer.send(self._open(message))
                    self._own(peer, message.call_id)
                case CloseSession():
                    self._session(peer, message.call_id)
                    self._close(message.call_id)
                case LegUpdate():
                    self._session(peer, message.call_id).negotiate(message, time.monotonic())
                case FlowUpdate():
                    self._session(peer, message.call_id).allow(message, time.monotonic())
                case PlayPrompts():
                    self._player.play(self._session(peer, message.call_id), message)
                case StopPlay():
                    self._player.stop(self._session(peer, message.call_id), message.leg)
                case _:
                    raise CallshieldError("this message is not a command to the media worker")
        except CallshieldError as error:
            command = str(message.__struct_config__.tag)
            log.warning("media_command_failed", command=command, error=str(error))
            peer.send(MediaFailed(call_id=_call_id_of(message), command=command, error=str(error)))
        self._flush()

    def _session(self, peer: Peer[MediaMessage], call_id: str) -> MediaSession:
        """The session that a bridge commands, which so becomes its own."""
        try:
            session = self._sessions[call_id]
        except KeyError:
            raise CallshieldError("no session with this call id is open") from None
        self._own(peer, call_id)
        return session

    def _own(self, peer: Peer[MediaMessage], call_id: str) -> None:
        if call_id in self._sessions:
            self._owners[call_id] = peer
            self._orphaned_at.pop(call_id, None)

    def _open(self, message: OpenSession) -> SessionOpened:
        call_id = message.call_id
        try:
            if not is_call_id(call_id):
                raise CallshieldError("a call id has 32 small hexadecimal digits")
            if call_id in self._sessions:
                raise CallshieldError("a session with this call id is open already")
            caller_ports = self._pbx_ports.take()
            try:
                agent_ports = self._phone_ports.take()
            except CallshieldError:
                self._pbx_ports.give_back(caller_ports)
                raise
        except CallshieldError as error:
            log.warning("session_refused", call_id=call_id, error=str(error))
            return SessionOpened(request_id=message.request_id, call_id=call_id, error=str(error))
        session = MediaSession(
            call_id,
            caller_ports=caller_ports,
            agent_ports=agent_ports,
            caller_networks=self._pbx_networks,
            agent_networks=self._phone_networks,
            latch_window_s=self._settings.sip.latch_window_s,
            tap=CallTap(self._tap, call_id),
            outbox=self._outbox,
            now=time.monotonic(),
        )
        self._sessions[call_id] = session
        self._watch(caller_ports, session.caller, session.agent.outlet, agent_ports)
        self._watch(agent_ports, session.agent, session.caller.outlet, caller_ports)
        return _opened(message.request_id, session)

    def _close(self, call_id: str) -> None:
        session = self._sessions.pop(call_id)
        self._owners.pop(call_id, None)
        self._orphaned_at.pop(call_id, None)
        for name in LegName:
            self._player.stop(session, name)
        session.close_tap(time.monotonic())
        self._tap.flush()
        for ports, owner in (
            (session.caller_ports, self._pbx_ports),
            (session.agent_ports, self._phone_ports),
        ):
            self._unwatch(ports)
            owner.give_back(ports)
        self._closed.add(session)
        self._outbox.append(session.closed())


def _call_id_of(message: MediaMessage) -> str:
    """The call that a message is about; empty when it is about none."""
    return str(getattr(message, "call_id", ""))


def _opened(request_id: int, session: MediaSession) -> SessionOpened:
    return SessionOpened(
        request_id=request_id,
        call_id=session.call_id,
        caller_port=session.caller_ports.port,
        agent_port=session.agent_ports.port,
    )


def _passes(before: int, ticks: int, period: int) -> bool:
    """Whether a multiple of the period lies in the ticks just done."""
    return (before + ticks) // period > before // period


def _port_range(side: SideSettings, dscp: int, key: str) -> PortRange:
    return PortRange(side.media_bind, *side.rtp_ports, dscp, key)


def _allow_many_sockets() -> None:
    """Four sockets a call do not fit the usual limit of 1024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _run_before_others() -> None:
    """Audio first: ask the kernel to serve this process before everything else on the machine.

    Round-robin real time where it is allowed (root, CAP_SYS_NICE or RLIMIT_RTPRIO), a better
    nice value where that is. Threads of ours that read prompts do not inherit it. The kernel
    keeps 5 % of each core for others even from real time (sched_rt_runtime_us).
    """
    try:
        os.sched_setscheduler(
            0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(REALTIME_PRIORITY)
        )
        policy = "realtime"
    except OSError:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -10)
            policy = "nice"
        except OSError:
            policy = "ordinary"
    log.info("media_scheduling", policy=policy)


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        BusError: the control socket cannot be made.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline.watch(loop, stop.set)
    worker = MediaWorker(settings)
    await worker.start()
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await stop.wait()
    await worker.close()


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; the exit status."""
    parser = argparse.ArgumentParser(prog="sipbridge.media_worker", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the node's TOML file")
    parsed = parser.parse_args(arguments)
    try:
        settings = load_settings(parsed.config)
        configure_logs("media", level=settings.node.log_level)
        _allow_many_sockets()
        _run_before_others()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
