"""One node among others: the session on the bus, heartbeats, snapshots, and who is dead.

Local operation never waits for any of this. A session begins when a NATS server and JetStream
answer and ends with the first thing that does not; then the node is alone, says so, and tries
again. Every session begins with how far the bus has heard us, and how far we have heard it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg
from sqlalchemy.exc import SQLAlchemyError

from callshield import __version__
from callshield.errors import SetupError
from callshield.messages import AlertRaised, CallEnded, NodeDegraded
from callshield.messages_cluster import (
    MAX_BYTES,
    AlertState,
    Beat,
    CallState,
    decode_beat,
    decode_snapshot,
)
from callshield.messages_escalation import AlertAcknowledged
from notifier.cluster.erasures import Erasures
from notifier.cluster.incoming import ForeignEntry, Incoming
from notifier.cluster.link import BusAway, Link, connect, load_secrets
from notifier.cluster.outgoing import Outgoing
from notifier.cluster.peers import Changed, Finding, Peer, Peers, RaiseAway, Vanished
from notifier.cluster.refusals import Refusals
from notifier.cluster.service import STATE_S, Service
from notifier.live import Alert, Entry
from notifier.problems import Problem

if TYPE_CHECKING:
    from callshield.settings import Settings
    from notifier.node import Node

log = structlog.get_logger()

#: What a screen calls the bus.
COMPONENT = "cluster"
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.2, 5.0
#: A snapshot has at most so many pages.
_PAGES = 100
#: How often it is looked whether somebody has died, or must be asked for a snapshot.
_LOOK_S = 0.25
#: A snapshot that could not be had is asked for again after this.
_SNAPSHOT_AGAIN_S = 2.0
#: A clean stop waits so long for what is stored to be told.
_GOODBYE_S = 2.0
#: A bus that does not answer a ping within this is away.
_ANSWERS_WITHIN_S = 10
#: Clocks that differ by more are said so.
CLOCKS_S = 2.0


class Floor:
    """The cluster as one node takes part in it.

    Args:
        node: this node.

    Raises:
        SetupError: a secret or certificate of ``[cluster]`` cannot be used.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._settings = settings = node.settings.cluster
        self._secrets = load_secrets(settings)
        self.boot = secrets.token_hex(8)
        self.peers = Peers(
            node.name, settings.nodes, settings.dead_after_s, settings.stopped_after_s
        )
        self.refused = Refusals()
        self.outgoing = Outgoing(node, self.boot)
        self.erasures = Erasures(node, self.peers)
        self.incoming = Incoming(node, self.peers, self.refused, self.erasures)
        self.service = Service(node, self.peers, self.boot, self.refused)
        self.link: Link | None = None
        self.sessions = 0
        self._stopping = False
        self._config = config_digest(node.settings)
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._erasing: asyncio.Task[None] | None = None
        self._asked_at: dict[str, float] = {}
        self._strange_clocks: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether the bus is there."""
        return self.link is not None

    async def start(self) -> None:
        """Go on from what is stored, and look for the bus in the background."""
        await self.outgoing.start()
        await self.incoming.start()
        self._task = asyncio.create_task(self._run(), name="cluster")
        self._looking = asyncio.create_task(self._look(), name="cluster look")
        self._erasing = asyncio.create_task(self.erasures.run(), name="cluster erasures")

    async def stop(self) -> None:
        """Say goodbye, so that nobody raises an alert, and write down how far we are."""
        self._stopping = self.erasures.closing = True
        link = self.link
        if link is not None:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    # What is stored by now goes out before we do.
                    await self.outgoing.idle.wait()
                subject = link.beat_of(self._node.name)
                await link.client.publish(subject, msgspec.json.encode(self._beat("stopped")))
                await link.client.flush(1)
        tasks = [task for task in (self._erasing, self._looking, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.service.close()
        with contextlib.suppress(SQLAlchemyError):
            await self.outgoing.close()

    # --------------------------------------------------------------------- what the node asks of it

    def published(self, entries: Sequence[Entry]) -> None:
        """Entries are stored; called before they are shown, never waits."""
        for entry in entries:
            if isinstance(entry, ForeignEntry):
                self.incoming.committed(entry)
        self.outgoing.published(entries)

    def owner(self, of: str) -> Peer | None:
        """The other node that has a call, an alert or a call-back; ``None``: this one, or none."""
        board = self._node.board
        for here in (board.calls, board.ended, board.alerts, board.taken):
            if of in here:
                return None
        return self.peers.owner(of)

    def degraded(self) -> list[NodeDegraded]:
        """Parts of other nodes that are down."""
        return [
            NodeDegraded(
                ts=peer.beat.ts if peer.beat else 0.0,
                component=f"{peer.name}/{part}",
                degraded=True,
                reason=reason,
            )
            for peer in self.peers
            if peer.reachable
            for part, reason in peer.degraded.items()
        ]

    # ---------------------------------------------------------------------------------- the session

    async def _run(self) -> None:
        pause_s, told = _FIRST_PAUSE_S, ""
        while True:
            began = time.monotonic()
            try:
                await self._session()
            except (BusAway, SetupError) as error:
                reason = str(error)
            except SQLAlchemyError:
                reason = "the database does not answer"
            except Exception as error:  # a fault here must not end the node
                log.exception("cluster_session_failed")
                reason = f"a fault of this node ({type(error).__name__})"
            self.peers.deaf()
            self.service.end()
            if self._stopping:
                return  # a statement that is cancelled may say so as an error of the database
            self._node.note(COMPONENT, degraded=True, reason="the event bus is away")
            if reason != told:
                log.warning("cluster_alone", reason=reason, waiting=self.outgoing.waiting)
            told = reason
            if time.monotonic() - began > 2 * _LAST_PAUSE_S:
                pause_s, told = _FIRST_PAUSE_S, ""
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # no secret
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def _session(self) -> None:
        """From a connection to its end.

        Raises:
            BusAway: always; it says why.
        """
        link = await connect(self._settings, self._secrets, self._node.name, self._on_error)
        tasks: list[asyncio.Task[None]] = []
        try:
            stream = await link.ensure_stream()
            await self.outgoing.begin(link)
            await link.client.subscribe(
                link.beat_of("*"), cb=self._on_beat, pending_msgs_limit=10_000
            )
            await self.service.begin(link)
            self.peers.bus_answers(time.monotonic())
            self.link = link
            self.sessions += 1
            self._asked_at.clear()
            self._node.note(COMPONENT, degraded=False)
            log.info("cluster_joined", sessions=self.sessions, waiting=self.outgoing.waiting)
            tasks = [
                asyncio.create_task(self._closed(link)),
                asyncio.create_task(self._beats(link)),
                asyncio.create_task(self.outgoing.run(link)),
                asyncio.create_task(self.incoming.run(link, stream)),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (nats.errors.Error, OSError) as error:
            raise BusAway(f"the bus broke ({error or type(error).__name__})") from None
        finally:
            self.link = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await link.close()

    async def _on_error(self, error: Exception) -> None:
        """Of the library: what goes wrong without ending the connection."""
        if isinstance(error, nats.errors.SlowConsumerError):
            self.refused.add("flood")
            return
        log.warning("cluster_bus_error", error=type(error).__name__, says=str(error)[:200])

    @staticmethod
    async def _closed(link: Link) -> None:
        await link.closed.wait()
        reason = link.client.last_error
        raise BusAway(f"the connection to the bus ended ({reason or 'closed by the server'})")

    # ----------------------------------------------------------------------------------- heartbeats

    async def _beats(self, link: Link) -> None:
        subject = link.beat_of(self._node.name)
        while not self._stopping:
            await link.client.publish(subject, msgspec.json.encode(self._beat()))
            # A round trip: whether the bus answers is what others' silence is judged by.
            await link.client.flush(_ANSWERS_WITHIN_S)
            self.peers.bus_answers(time.monotonic())
            await asyncio.sleep(self._settings.heartbeat_s)
        await asyncio.Event().wait()  # the session ends with the node

    def _beat(self, state: str = "") -> Beat:
        node = self._node
        busy = node.escalating.busy
        return Beat(
            node=node.name,
            boot=self.boot,
            epoch=self.outgoing.epoch,
            ts=node.clock(),
            state=state or ("draining" if "draining" in node.board.degraded else "up"),  # type: ignore[arg-type]
            version=__version__,
            config=self._config,
            last_id=node.hub.last_id,
            sent_id=self.outgoing.sent_id,
            outbox=self.outgoing.waiting,
            dropped=self.outgoing.dropped,
            position=self.incoming.position,
            refused=self.refused.total,
            calls=len(node.board.calls),
            alerts=len(node.board.alerts),
            supervisors=sorted(node.hub.watching())[:2000],
            busy=sorted(busy)[:2000],
        )

    async def _on_beat(self, message: Msg) -> None:
        sender = message.subject.rpartition(".")[2]
        why = ""
        beat = None
        if len(message.data) > MAX_BYTES:
            why = "too_large"
        else:
            try:
                beat = decode_beat(message.data)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                why = "schema"
        if beat is not None and beat.node != sender:
            why = "wrong_node"
        elif sender == self._node.name:
            # Ours are not sent back to us: another node goes by our name.
            why = "our_name"
        elif self.peers.get(sender) is None:
            why = "unknown_node"
        if why or beat is None:
            self.refused.add(why)
            return
        self._take(self.peers.heard(beat, time.monotonic(), self._node.clock()))
        self._compare_clocks(self.peers.all[sender])

    def _compare_clocks(self, peer: Peer) -> None:
        strange = abs(peer.clock_offset_s) > CLOCKS_S
        if strange and peer.name not in self._strange_clocks:
            self._strange_clocks.add(peer.name)
            log.warning(
                "cluster_clocks_differ", node=peer.name, seconds=round(peer.clock_offset_s, 1)
            )
        elif not strange:
            self._strange_clocks.discard(peer.name)

    # ------------------------------------------------------------------------------- life and death

    async def _look(self) -> None:
        """Who has died, and of whom a snapshot is needed; for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            try:
                self._take(self.peers.tick(now))
                for peer in self.peers:
                    again_at = self._asked_at.get(peer.name, float("-inf")) + _SNAPSHOT_AGAIN_S
                    if self.link and self.peers.needs_snapshot(peer) and now >= again_at:
                        self._asked_at[peer.name] = now
                        await self._learn(peer)
            except Exception:  # whatever one node said, the others are looked after
                log.exception("cluster_look_failed")

    async def _learn(self, peer: Peer) -> None:
        pages = []
        try:
            for number in range(_PAGES):
                body = await self.service.ask(peer, "state", page=number, timeout_s=STATE_S)
                pages.append(decode_snapshot(body))
                if pages[-1].node != peer.name:
                    raise msgspec.ValidationError("another node's snapshot")
                if not pages[-1].more:
                    break
        except Problem as problem:
            log.warning("cluster_no_snapshot", node=peer.name, why=problem.kind)
            return
        except msgspec.MsgspecError:
            self.refused.add("schema", peer.name)
            log.warning("cluster_no_snapshot", node=peer.name, why="schema")
            return
        down = set(peer.degraded)
        self.peers.learn(pages, time.monotonic())
        for part in down - set(peer.degraded):
            # It began anew, and what was down before is over without a word of it.
            event = NodeDegraded(
                ts=self._node.clock(), component=f"{peer.name}/{part}", degraded=False
            )
            self._show(peer, ForeignEntry(event, None))
        log.info("cluster_snapshot", node=peer.name, calls=len(peer.calls), alerts=len(peer.alerts))

    def _take(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            match finding:
                case Changed():
                    self._changed(finding)
                case RaiseAway():
                    self._raise_away(finding)
                case Vanished(what=CallState() as call):
                    self._show_end_of_call(finding.peer, call)
                case Vanished(what=AlertState() as alert):
                    self._show_end_of_alert(finding.peer, alert)

    def _changed(self, finding: Changed) -> None:
        peer = finding.peer
        log.info(
            "cluster_node",
            node=peer.name,
            state=peer.state,
            before=finding.before,
            silent_s=round(finding.silent_s, 2),
        )
        component = f"node:{peer.name}"
        if peer.state == "away":
            reason = f"not heard for {finding.silent_s:.1f} s: dead, or cut off from the bus"
            self._node.note(component, degraded=True, reason=reason)
        elif peer.state == "stopped":
            self._node.note(component, degraded=True, reason="stopped")
        else:
            self._node.note(component, degraded=False)

    def _raise_away(self, finding: RaiseAway) -> None:
        """A node's death is an alert that somebody must take: this node's, and told by it alone."""
        node, alert_id = self._node, finding.alert_id
        if alert_id in node.board.alerts or alert_id in node.board.taken:
            return
        task = asyncio.create_task(self._raise_unless_known(finding))
        node.keep(task)

    async def _raise_unless_known(self, finding: RaiseAway) -> None:
        node, peer = self._node, finding.peer
        try:
            # A former run of this node may have raised it.
            known = await node.store.alert(finding.alert_id)
        except SQLAlchemyError:
            known = None
        if known is not None or finding.alert_id in node.board.alerts:
            return
        now = node.clock()
        reason = f"node_away:{peer.name}"
        alert = Alert(finding.alert_id, "", "", "node", 0, [], reason, now)
        node.board.alerts[alert.alert_id] = alert
        raised = AlertRaised(
            ts=now,
            alert_id=alert.alert_id,
            call_id="",
            agent_id="",
            kind="node",
            level=0,
            reason=reason,
        )
        log.error(
            "cluster_node_away",
            node=peer.name,
            silent_s=round(finding.silent_s, 2),
            calls=len(peer.calls),
            alerts=len(peer.alerts),
        )
        node.record([Entry(raised, "", None, alert)])

    def _show_end_of_call(self, peer: Peer, call: CallState) -> None:
        event = CallEnded(
            ts=self._node.clock(), call_id=call.call_id, agent_id=call.agent_id, reason="lost"
        )
        self._show(peer, ForeignEntry(event, call.agent_id, agent_id=call.agent_id))

    def _show_end_of_alert(self, peer: Peer, alert: AlertState) -> None:
        event = AlertAcknowledged(
            ts=self._node.clock(), alert_id=alert.alert_id, call_id=alert.call_id, by=""
        )
        self._show(peer, ForeignEntry(event, alert.agent_id or "", agent_id=alert.agent_id))

    def _show(self, peer: Peer, entry: ForeignEntry) -> None:
        """Tell our screens what no event told."""
        entry.origin = peer.name
        log.info("cluster_end_not_told", node=peer.name, what=type(entry.event).__name__)
        self._node.journal.append([entry])


def config_digest(settings: Settings) -> str:
    """Of what must be the same at every node: who is called for whom, and who may be joined."""
    same = {
        "agents": sorted(settings.agents),
        "supervisors": {
            name: person.model_dump(mode="json") for name, person in settings.supervisors.items()
        },
        "teams": {name: team.model_dump(mode="json") for name, team in settings.teams.items()},
        "shadow": sorted(settings.shadow.groups),
        "nodes": sorted(settings.cluster.nodes),
    }
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()[:12]
