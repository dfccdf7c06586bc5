"""The media worker: the process that every call's audio goes through.

The audio itself is relayed by a thread in C (:mod:`sipbridge.relay_core`) that needs nothing of
Python. This is the other half: it binds ports, does what the bridge commands (``media control`` in
:mod:`callshield.messages_media`, over :attr:`callshield.settings.Settings.media_path`), loads
prompts, hands frames to the recorder and reports. It may stand still for seconds without a packet
lost.

The bridge may die and come back while the calls go on. Of each call it keeps here what the next
bridge must know (:class:`KeepCall`, :class:`KeepDialog`), and that one fetches it
(:class:`FetchKept`). A bridge that connects is also told what lives, by a :class:`SessionOpened`
with request_id 0 for each session; a session whose bridge is gone, and which no other one commands,
ends when its media ends.

Run it with ``python -m sipbridge.media_worker --config FILE``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import ipaddress
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import structlog
import uvloop

from callshield import heartbeat, lifeline
from callshield.bus import BusServer, Peer
from callshield.errors import CallshieldError
from callshield.logs import configure_logs
from callshield.messages import (
    LegName,
    MediaSilent,
    NodeDegraded,
    NoticeFinished,
    RecordingChanged,
    TapStarted,
)
from callshield.messages_media import (
    AgentsSpoke,
    CallerPressed,
    CloseLeg,
    CloseSession,
    CodePressed,
    DigitReceived,
    DigitUndelivered,
    EarUpdate,
    FetchKept,
    FlowUpdate,
    HearingDose,
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
from callshield.settings_sip import SideSettings
from sipbridge.descriptors import allow_many_files
from sipbridge.feature_codes import feature_codes
from sipbridge.media_session import LEG_NUMBER, LEGS, MediaSession, is_call_id
from sipbridge.ports import PortPair, PortRange
from sipbridge.prompt_player import PromptPlayer
from sipbridge.recording_flow import RecordingFlow
from sipbridge.relay_core import Core
from sipbridge.tap_watch import TapWatch

log = structlog.get_logger()

#: Low among real-time priorities (1-99): above all ordinary processes, below the kernel's own.
REALTIME_PRIORITY = 10
#: How often silence is looked for and a new bridge is greeted.
_LOOK_S = 0.5
_LOOKS_A_SECOND = 2
_LOOKS_BETWEEN_DOSES = 60
_LOOKS_BETWEEN_VOICES = 10


class MediaWorker:
    """The worker's Python side.

    Args:
        settings: of the node.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sessions: dict[str, MediaSession] = {}
        self._by_handle: dict[int, MediaSession] = {}
        self._owners: dict[str, Peer[MediaMessage]] = {}
        self._orphaned_at: dict[str, float] = {}
        self._outbox: list[MediaMessage] = []
        self._greeted: set[Peer[MediaMessage]] = set()
        sip = settings.sip
        self.codes = list(feature_codes(settings))
        self._core = Core(
            str(settings.tap_path), self.codes, sip.latch_window_s, ear=settings.ear_profile
        )
        self._recording: RecordingFlow | None = None
        self._player = PromptPlayer(self._core, self._outbox, self._flush)
        self._looks = 0
        self._tap_watch = TapWatch()
        self._timer: asyncio.TimerHandle | None = None
        self._pbx_ports = _port_range(sip.pbx, sip.dscp_media, "sip.pbx.rtp_ports")
        self._phone_ports = _port_range(sip.phone, sip.dscp_media, "sip.phone.rtp_ports")
        self._pbx_networks = _prefixes(sip.pbx.networks)
        self._phone_networks = _prefixes(sip.phone.networks)
        self._bus: BusServer[MediaMessage] = BusServer(
            settings.media_path, MediaMessage, self._on_message, self._on_bridge_gone
        )

    # ---------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Start the relay and listen for the bridge.

        Raises:
            BusError: the socket cannot be made.
        """
        await self._bus.start()
        asyncio.get_running_loop().add_reader(self._core.event_fd, self._on_events)
        if self._settings.recording.enabled:
            # The recorder's thread must not keep the event loop waiting for long.
            sys.setswitchinterval(0.001)
            self._recording = RecordingFlow(
                self._settings, self._core, self._recording_changed, self._recording_lost
            )
        scheduling = self._core.start(REALTIME_PRIORITY)
        self._look()
        log.info("media_ready", scheduling=scheduling)

    async def close(self) -> None:
        """Close all sessions and stop."""
        for call_id in list(self._sessions):
            self._close(call_id)
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._player.close()
        asyncio.get_running_loop().remove_reader(self._core.event_fd)
        self._core.stop()
        if self._recording is not None:
            await asyncio.to_thread(self._recording.close)
            await asyncio.sleep(0)
            self._flush()
        # A turn for what was just written to the bridge.
        await asyncio.sleep(0)
        await self._bus.close()
        totals = self._core.totals()
        log.info(
            "media_stopped",
            packets=totals["packets"],
            late_ticks=totals["late_ticks"],
            events_dropped=totals["events_dropped"],
        )

    # --------------------------------------------------------------------- what the relay says

    def _on_events(self) -> None:
        for event in self._core.events():
            self._on_event(event)
        self._flush()

    def _on_event(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind == "played":
            self._player.on_played(event)
            return
        session = self._by_handle.get(event[1])
        if session is None:
            return
        name = LEGS[event[2]]
        if kind == "code":
            self._outbox.append(
                CodePressed(call_id=session.call_id, leg=name, code=self.codes[event[3]])
            )
        elif kind == "key":
            self._outbox.append(CallerPressed(call_id=session.call_id, digit=event[3]))
        elif kind == "undelivered":
            self._outbox.append(DigitUndelivered(call_id=session.call_id, leg=name, digit=event[3]))
        else:
            self._outbox.append(TapStarted(ts=time.time(), call_id=session.call_id))

    def _recording_changed(
        self, call_id: str, state: Literal["recording", "paused", "stopped", "failed"], reason: str
    ) -> None:
        self._outbox.append(
            RecordingChanged(ts=time.time(), call_id=call_id, state=state, reason=reason)
        )
        if state == "failed":
            log.error("recording_failed", call_id=call_id, error=reason)
            self._degraded("recording", reason, call_id)
        self._flush()

    def _recording_lost(self, reason: str) -> None:
        if reason:
            log.error("recording_lost_frames")
        self._degraded("recording", reason)
        self._flush()

    def _degraded(self, component: str, reason: str, call_id: str = "") -> None:
        """An alarm, or (without a reason) its end."""
        self._outbox.append(
            NodeDegraded(
                ts=time.time(),
                component=component,
                degraded=bool(reason),
                reason=reason,
                call_id=call_id,
            )
        )

    def _report_dose(self, session: MediaSession, *, last: bool = False) -> None:
        heard = session.take_dose(last=last)
        if heard is not None:
            self._outbox.append(
                HearingDose(
                    call_id=session.call_id,
                    a_weighted_sum_sq=heard[0],
                    samples=heard[1],
                    last=last,
                )
            )

    def _report_voices(self, sessions: Iterable[MediaSession]) -> None:
        """How long the agents of these calls spoke; nothing where nobody is to be told."""
        if not self._settings.hearing.times_speech:
            return
        spoken = {session.call_id: session.take_voice() for session in sessions}
        self._outbox.append(AgentsSpoke(spoken_s={one: s for one, s in spoken.items() if s}))

    def _look(self) -> None:
        """Twice a second: silence, timeouts, orphans; once a second the totals."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        self._greet()
        now = time.monotonic()
        activity = self._core.activity()
        limit_s = self._settings.sip.rtp_timeout_s
        for call_id, session in list(self._sessions.items()):
            last = activity.get(session.handle, (0.0, 0.0, 0.0))
            for name, silent in session.silence_changes(last, now):
                self._outbox.append(
                    MediaSilent(ts=time.time(), call_id=call_id, leg=name, silent=silent)
                )
            if session.times_out(last, now, limit_s):
                silent_s = round(session.silent_s(last, now), 1)
                self._outbox.append(MediaTimeout(call_id=call_id, silent_s=silent_s))
            orphaned_at = self._orphaned_at.get(call_id, now)
            if limit_s <= min(session.idle_s(last, now), now - orphaned_at):
                log.warning("session_orphaned", call_id=call_id)
                self._close(call_id)
        self._looks += 1
        if self._looks % _LOOKS_BETWEEN_DOSES == 0:
            for session in self._sessions.values():
                self._report_dose(session)
        if self._looks % _LOOKS_BETWEEN_VOICES == 0:
            self._report_voices(self._sessions.values())
        if self._looks % _LOOKS_A_SECOND == 0:
            totals = self._core.totals()
            if self._tap_watch.look(totals["tapped"], totals["tap_dropped"]):
                self._outbox.append(self._tap_watch.alarm())
            self._outbox.append(
                MediaStats(
                    sessions=len(self._sessions),
                    packets=totals["packets"],
                    tapped=totals["tapped"],
                    tap_dropped=totals["tap_dropped"],
                    malformed=totals["malformed"],
                    wrong_source=totals["wrong_source"],
                )
            )
        self._flush()

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
            if self._tap_watch.told:
                peer.send(self._tap_watch.alarm())

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
            self._obey(peer, message)
        except CallshieldError as error:
            command = str(message.__struct_config__.tag)
            log.warning("media_command_failed", command=command, error=str(error))
            peer.send(MediaFailed(call_id=_call_id_of(message), command=command, error=str(error)))
        self._flush()

    def _obey(self, peer: Peer[MediaMessage], message: MediaMessage) -> None:
        match message:
            case OpenSession():
                peer.send(self._open(message))
                self._own(peer, message.call_id)
            case OpenLeg():
                peer.send(self._open_leg(peer, message))
            case CloseLeg():
                self._close_helper(self._session(peer, message.call_id), message.leg)
            case PromoteHelper():
                self._promote(self._session(peer, message.call_id))
            case CloseSession():
                self._session(peer, message.call_id)
                self._close(message.call_id)
            case LegUpdate():
                self._session(peer, message.call_id).negotiate(message, time.monotonic())
            case FlowUpdate():
                session = self._session(peer, message.call_id)
                if self._recording is not None:
                    self._recording.before(message)
                session.allow(message, time.monotonic())
                if self._recording is not None:
                    self._recording.after(message)
            case NoticeFinished() | PromptPlayed() | ProtectionChanged():
                if self._recording is not None and message.call_id in self._sessions:
                    self._recording.told(message)
            case EarUpdate():
                self._session(peer, message.call_id).protect(message)
            case PlayPrompts():
                self._player.play(self._session(peer, message.call_id), message)
            case StopPlay():
                self._player.stop(self._session(peer, message.call_id), message.leg)
            case DigitReceived():
                session = self._session(peer, message.call_id)
                with contextlib.suppress(KeyError):
                    self._core.digit(session.handle, LEG_NUMBER[message.leg], message.digit)
            case KeepCall() | KeepDialog():
                self._session(peer, message.call_id).keep(message)
            case FetchKept():
                self._hand_over(peer)
            case _:
                raise CallshieldError("this message is not a command to the media worker")
        # A play that was stopped or replaced is reported before what follows it.
        for event in self._core.events():
            self._on_event(event)

    def _session(self, peer: Peer[MediaMessage], call_id: str) -> MediaSession:
        """The session that a bridge commands, which so becomes its own."""
        try:
            session = self._sessions[call_id]
        except KeyError:
            raise CallshieldError("no session with this call id is open") from None
        self._own(peer, call_id)
        return session

    def _hand_over(self, peer: Peer[MediaMessage]) -> None:
        """The calls that nobody commands become this bridge's."""
        for call_id, session in self._sessions.items():
            if call_id not in self._owners and (kept := session.kept()) is not None:
                self._own(peer, call_id)
                peer.send(kept)
        peer.send(KeptEnd())

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
            session = self._reserve(call_id)
        except CallshieldError as error:
            log.warning("session_refused", call_id=call_id, error=str(error))
            return SessionOpened(request_id=message.request_id, call_id=call_id, error=str(error))
        self._sessions[call_id] = session
        self._by_handle[session.handle] = session
        return _opened(message.request_id, session)

    def _reserve(self, call_id: str) -> MediaSession:
        caller_ports = self._pbx_ports.take()
        try:
            agent_ports = self._phone_ports.take()
        except CallshieldError:
            self._pbx_ports.give_back(caller_ports)
            raise
        handle = 0
        try:
            handle = self._core.open(
                bytes.fromhex(call_id), self._pbx_networks, self._phone_networks
            )
            for number, ports in enumerate((caller_ports, agent_ports)):
                self._core.add_leg(handle, number, ports.rtp.fileno(), ports.rtcp.fileno())
        except (OSError, MemoryError) as error:
            if handle:
                self._core.close_call(handle)
            self._pbx_ports.give_back(caller_ports)
            self._phone_ports.give_back(agent_ports)
            raise CallshieldError(f"the relay takes no more calls: {error}") from None
        return MediaSession(
            self._core,
            handle,
            call_id,
            caller_ports=caller_ports,
            agent_ports=agent_ports,
            now=time.monotonic(),
        )

    def _open_leg(self, peer: Peer[MediaMessage], message: OpenLeg) -> LegOpened:
        error, port = "", 0
        ports: PortPair | None = None
        try:
            session = self._session(peer, message.call_id)
            if message.leg is not LegName.HELPER or LegName.HELPER in session.ports:
                raise CallshieldError("only one helper's leg can be opened in a call")
            ports = self._phone_ports.take()
            session.add_helper(ports, time.monotonic())
            port = ports.port
        except (CallshieldError, OSError) as failure:
            if ports is not None:
                self._phone_ports.give_back(ports)
            error = str(failure)
            log.warning("leg_refused", call_id=message.call_id, error=error)
        return LegOpened(
            request_id=message.request_id,
            call_id=message.call_id,
            leg=message.leg,
            port=port,
            error=error,
        )

    def _close_helper(self, session: MediaSession, leg: LegName) -> None:
        if leg is not LegName.HELPER or leg not in session.ports:
            raise CallshieldError("only an open helper's leg can be closed by itself")
        self._player.stop(session, leg)
        self._phone_ports.give_back(session.remove_leg(leg))

    def _promote(self, session: MediaSession) -> None:
        if LegName.HELPER not in session.ports:
            raise CallshieldError("there is no helper who could take the agent's place")
        self._player.stop(session, LegName.AGENT)
        self._report_dose(session, last=True)
        self._report_voices([session])
        self._phone_ports.give_back(session.promote_helper())

    def _close(self, call_id: str) -> None:
        session = self._sessions.pop(call_id)
        self._owners.pop(call_id, None)
        self._orphaned_at.pop(call_id, None)
        for name in list(session.ports):
            self._player.stop(session, name)
        for event in self._core.events():
            self._on_event(event)
        closed, quality = session.closed()
        self._report_dose(session, last=True)
        self._report_voices([session])
        self._core.close_call(session.handle)
        if self._recording is not None:
            self._recording.stop(call_id)
        del self._by_handle[session.handle]
        for name, ports in session.ports.items():
            owner = self._pbx_ports if name is LegName.CALLER else self._phone_ports
            owner.give_back(ports)
        self._outbox += quality
        self._outbox.append(closed)


def _prefixes(networks: list[str]) -> list[tuple[str, int]]:
    parsed = [ipaddress.ip_network(item) for item in networks]
    return [(str(network.network_address), network.prefixlen) for network in parsed]


def _call_id_of(message: MediaMessage) -> str:
    """The call that a message is about; empty when it is about none."""
    return str(getattr(message, "call_id", ""))


def _opened(request_id: int, session: MediaSession) -> SessionOpened:
    return SessionOpened(
        request_id=request_id,
        call_id=session.call_id,
        caller_port=session.ports[LegName.CALLER].port,
        agent_port=session.ports[LegName.AGENT].port,
    )


def _port_range(side: SideSettings, dscp: int, key: str) -> PortRange:
    return PortRange(side.media_bind, *side.rtp_ports, dscp, key)


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        BusError: the control socket cannot be made.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    lifeline.watch(loop, stop.set)
    heartbeat.beat(loop)
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
        allow_many_files()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
