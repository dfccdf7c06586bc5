"""The notifier as a whole: bus in, board, journal, hub, commands out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from callshield.bus import BusServer, Peer
from callshield.messages import (
    Action,
    AlertRaised,
    CallSnapshot,
    Command,
    CommandResult,
    Hello,
    NodeDegraded,
    NodeMessage,
    RiskChanged,
)
from callshield.settings import Settings
from notifier.board import Alert, Board, Call, Entry
from notifier.commands import Commands
from notifier.hub import Hub
from notifier.journal import Journal
from notifier.metrics import Metrics
from notifier.pbx import Pbx
from notifier.store import Store

log = structlog.get_logger()

#: Processes whose silence on the bus means that a part of the node is down.
WATCHED_ROLES = ("bridge", "detector")
#: A process that has not come this long after our start is said to be missing: a screen must not
#: promise protection that nobody gives.
ABSENT_AFTER_S = 15.0
_STOP_WRITING_S = 5.0


class Node:
    """One running notifier.

    Args:
        settings: the node's configuration.
        clock: seconds since the epoch.
        ami_secret: of the PBX's manager user, where ``[ami]`` is configured.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        ami_secret: str = "",
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = Metrics()
        self.board = Board(settings.alerts.level)
        self.store = Store(settings.database_path)
        self.commands = Commands(self._to_bridge)
        self.hub = Hub(0)
        self.journal = Journal(self._write, self._publish, self._store_trouble, 0)
        self._bus: BusServer[NodeMessage] = BusServer(
            settings.bus_path, NodeMessage, self._on_message, self._on_close
        )
        self.pbx = Pbx(
            settings,
            ami_secret,
            self.board,
            clock,
            lambda entries: self.journal.stored(entries),
            lambda part, bad, why: self._note(part, degraded=bad, reason=why),
            self._pbx_records,
        )
        self._lost_check: asyncio.TimerHandle | None = None
        self._absent_check: asyncio.TimerHandle | None = None
        self._stopping = False
        self._answers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take over what is stored, then listen on the bus.

        Raises:
            BusError: the bus socket cannot be made.
        """
        last_id = await self.store.last_event_id()
        self.board.restore(
            await self.store.live_calls(),
            await self.store.open_alerts(),
            await self.store.degraded(),
            await self.store.taken_help(),
        )
        for alert in self.board.open_help():
            # A request that this process stored and then died over: a bridge knows it or not.
            self.commands.tell_help(alert.call_id, alert.alert_id, send=False)
        # The store answered: what an earlier process noted about it is over.
        self.board.degraded.pop("store", None)
        if not self.pbx.enabled:
            self.board.degraded.pop("pbx", None)
            self.board.degraded.pop("pbx_actions", None)
        rests, once_paused = await self.store.rests(), await self.store.once_paused()
        self.hub.last_id = last_id
        self.journal = Journal(self._write, self._publish, self._store_trouble, last_id)
        self.journal.start()
        self.pbx.start(rests, once_paused)
        await self._bus.start()
        self.metrics.watch(self)
        self._absent_check = asyncio.get_running_loop().call_later(
            ABSENT_AFTER_S, self._note_absent
        )
        log.info(
            "board_restored",
            calls=len(self.board.calls),
            open_alerts=len(self.board.alerts),
            last_event_id=last_id,
        )

    async def stop(self) -> None:
        """Close the bus, write what is queued, close the store."""
        self._stopping = True
        for check in (self._lost_check, self._absent_check):
            if check is not None:
                check.cancel()
        await self._bus.close()
        await self.pbx.close()
        await self.journal.close(_STOP_WRITING_S)
        await self.store.close()

    @property
    def writing(self) -> asyncio.Task[None]:
        """The journal's writer; its end before :meth:`stop` is a fault."""
        return self.journal.task

    # ------------------------------------------------------------------------------- the bus

    def connected(self, role: str) -> bool:
        """True when a process of this role is on the bus."""
        return any(peer.role == role for peer in self._bus.peers)

    async def _on_message(self, peer: Peer[NodeMessage], message: NodeMessage) -> None:
        match message:
            case Hello():
                peer.role = message.role
                log.info("bus_peer_connected", role=message.role, pid=message.pid)
                if message.role in WATCHED_ROLES:
                    self._note(message.role, degraded=False)
                if message.role == "bridge":
                    self.commands.bridge_came()
                    self._repeat_levels(peer)
            case CommandResult():
                self.commands.answered(message)
            case Command():
                # Not awaited: a disk that is slow now must not keep the rest of the bus waiting.
                task = asyncio.create_task(self._on_command(peer, message))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
            case _:
                if isinstance(message, RiskChanged) and peer.role != "bridge":
                    self._to_bridge(message)  # which softens shouting in the agent's ear
                self.metrics.received(message)
                self._record(self.board.apply(message))
                if isinstance(message, CallSnapshot):
                    self.pbx.snapshot(message)
                    self._check_lost()

    def _record(self, entries: Sequence[Entry]) -> None:
        self.journal.append(entries)
        self.pbx.feed(entries)

    async def _on_command(self, peer: Peer[NodeMessage], command: Command) -> None:
        """The bridge passes on what the agent keyed on the phone: help is ours to do.

        Answered when the alert is stored: until then the bridge asks again after a reconnect.
        """
        if command.action is not Action.HELP:
            peer.send(CommandResult(command_id=command.command_id, status="not_supported"))
            return
        asked = await self.ask_for_help(command.call_id, request_id=command.command_id)
        if asked is None:
            peer.send(CommandResult(command_id=command.command_id, status="unknown_call"))
            return
        peer.send(
            CommandResult(command_id=command.command_id, status="done" if asked[1] else "already")
        )

    def _on_close(self, peer: Peer[NodeMessage]) -> None:
        if self._stopping:
            return
        log.info("bus_peer_gone", role=peer.role)
        if peer.role == "bridge" and not self.connected("bridge"):
            self.commands.bridge_left()
        if peer.role in WATCHED_ROLES and not self.connected(peer.role):
            self._note(peer.role, degraded=True, reason="disconnected")

    def _note_absent(self) -> None:
        for role in WATCHED_ROLES:
            expected = role != "detector" or self.settings.detector.enabled
            if expected and not self.connected(role):
                self._note(role, degraded=True, reason="not connected")

    def _note(self, component: str, *, degraded: bool, reason: str = "") -> None:
        event = NodeDegraded(ts=self.clock(), component=component, degraded=degraded, reason=reason)
        self.journal.append(self.board.apply(event))

    def _pbx_records(self, call_id: str, trouble: str) -> None:
        """The agent paused, and the PBX records on: agent and supervisors must know."""
        call = self.board.calls.get(call_id)
        if call is None:
            return
        now = self.clock()
        self.journal.append(
            self.board.apply(
                NodeDegraded(
                    ts=now,
                    component="pbx_recording",
                    degraded=bool(trouble),
                    reason=trouble,
                    call_id=call_id,
                )
            )
        )
        if trouble:
            log.error("pbx_records_on", call_id=call_id, reason=trouble)
            self.journal.append(
                self.board.apply(
                    AlertRaised(
                        ts=now,
                        alert_id="",
                        call_id=call_id,
                        agent_id=call.agent_id,
                        kind="node",
                        level=call.level,
                        reason="pbx_recording_goes_on",
                    )
                )
            )

    def _check_lost(self) -> None:
        self._record(self.board.end_lost(self.clock()))
        if self.board.has_missing and self._lost_check is None:
            self._lost_check = asyncio.get_running_loop().call_later(0.5, self._lost_check_again)

    def _lost_check_again(self) -> None:
        self._lost_check = None
        self._check_lost()

    def _repeat_levels(self, bridge: Peer[NodeMessage]) -> None:
        """What a bridge may have missed while its connection was away."""
        for call in self.board.calls.values():
            if call.peak_level:
                level = RiskChanged(
                    ts=self.clock(),
                    call_id=call.call_id,
                    level=call.level,
                    previous=call.level,
                    categories=list(call.categories),
                    score=0.0,
                )
                bridge.send(level)

    def _to_bridge(self, message: Command | RiskChanged) -> bool:
        for peer in self._bus.peers:
            if peer.role == "bridge":
                peer.send(message)
                return True
        return False

    # ----------------------------------------------------------------------------- the store

    async def _write(self, entries: Sequence[Entry], more_calls: Sequence[Call]) -> None:
        with self.metrics.commit_seconds.time():
            await self.store.write(entries, more_calls)

    def _publish(self, entries: Sequence[Entry]) -> None:
        self.hub.publish(entries)
        self.metrics.stored(entries)

    def _store_trouble(self, reason: str | None) -> None:
        if reason is not None:
            # Said at once and without a number: it cannot be stored now. It is queued too, so
            # that the record has it.
            self.hub.announce(
                NodeDegraded(ts=self.clock(), component="store", degraded=True, reason=reason)
            )
        self._note("store", degraded=reason is not None, reason=reason or "")

    async def store_is_writable(self) -> bool:
        """For readiness: a transaction can begin and nothing waits for one."""
        if self.journal.in_trouble:
            return False
        try:
            return await self.store.check_writable()
        except SQLAlchemyError:
            return False

    # -------------------------------------------------------------------- what a person does

    async def ask_for_help(
        self, call_id: str, *, request_id: str = ""
    ) -> tuple[Alert, bool] | None:
        """Raise a help alert and wait until it is stored.

        Args:
            call_id: the call.
            request_id: of the bridge, when the agent keyed it on the phone; without one it was
                the console, and the bridge is told.

        Returns:
            The alert and whether it is new; ``None`` when the call is not live.
        """
        asked = self.board.ask_for_help(call_id, self.clock(), request_id)
        if asked is None:
            return None
        alert, entries = asked
        if not request_id:
            # Every press is a request of its own: after somebody came and left, it asks anew.
            self.commands.tell_help(call_id, alert.alert_id if entries else uuid.uuid4().hex)
        await self.journal.stored(entries)
        return alert, bool(entries)

    async def take_help(self, call_id: str, by: str) -> None:
        """A supervisor joins: the call for help is taken, and stored so, by that person."""
        for alert in self.board.open_help(call_id):
            await self.acknowledge(alert.alert_id, by)

    async def acknowledge(self, alert_id: str, by: str) -> tuple[Alert, bool] | None:
        """Take an alert and wait until that is stored.

        Returns:
            The alert and whether this call won it; ``None`` when there is no such alert.
        """
        taken = self.board.acknowledge(alert_id, by, self.clock())
        if taken is None:
            past = await self.store.alert(alert_id)
            return None if past is None else (past, False)
        alert, entries = taken
        await self.journal.stored(entries)
        return alert, bool(entries)
