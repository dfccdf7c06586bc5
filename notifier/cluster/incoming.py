"""What this node hears from the others: stored like its own events, each once, then shown.

How far the stream was read stands in the transaction that stores what was read, so that neither a
crash nor a database that was away makes an event come twice or not at all. Nothing is fetched while
the last batch is not stored: what waits, waits on the bus.

Every message may be hostile. It is refused, counted and passed over when it is too large, does not
fit :mod:`callshield.messages_cluster`, or names another node than the subject on which it came; an
event in it that is none, or that must not travel, is left out alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.errors import Error as JetStreamError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from callshield.messages import CallEnded, Event, NodeDegraded
from callshield.messages_cluster import MAX_BYTES, Batch, Numbered, decode_batch
from callshield.messages_escalation import AlertAcknowledged
from notifier.cluster.erasures import Erasures, calls_of, without
from notifier.cluster.link import BusAway, Link
from notifier.cluster.peers import Peer, Peers
from notifier.cluster.refusals import Refusals
from notifier.cluster.views import may_travel, read_event, without_words
from notifier.live import Entry
from notifier.rows import Row
from notifier.schema_cluster import cluster_peers, cluster_position

if TYPE_CHECKING:
    from notifier.node import Node

log = structlog.get_logger()

#: Messages that the server sends before the first of them is stored and acknowledged.
_AHEAD = 64
#: Messages stored in one transaction at most.
_TOGETHER = 64
_IDLE_S = 5.0
_FORGOTTEN_AFTER_S = 60.0
_ACK_WAIT_S = 60.0
_STORE_RETRY_S = 0.5
#: What the column takes: one event that the database refused would be tried again for ever.
_CALL_ID = re.compile(r"(?:[0-9a-f]{32})?")


@dataclass(slots=True)
class ForeignEntry(Entry):
    """Another node's event on its way into this node's record, and to its consoles."""

    pbx_call_id: str = ""
    batch: Batch | None = None
    """Of the last event of a message: how calls and alerts stand after it."""
    agent_id: str = ""

    @property
    def is_alert(self) -> bool:
        """Whoever reads the bus waits for every one of them to be stored."""
        return True

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.to_builtins(self.event)
        if body.get("call_id") and self.agent_id:
            body["agent_id"] = self.agent_id
            body["pbx_call_id"] = self.pbx_call_id
        body["node"] = self.origin
        return body


@dataclass(frozen=True, slots=True)
class _Newest:
    """How far one node was heard."""

    epoch: int
    id: int
    boot: str

    def row(self, node: str) -> dict[str, Any]:
        return {"node": node, "epoch": self.epoch, "event_id": self.id, "boot": self.boot}


class Incoming:
    """The reader of the stream.

    Args:
        node: this node.
        peers: the others.
        refused: counts messages by why they were refused.
        erasures: knows which calls are erased.
    """

    def __init__(self, node: Node, peers: Peers, refused: Refusals, erasures: Erasures) -> None:
        self._node = node
        self._peers = peers
        self._refused = refused
        self._erasures = erasures
        self.position = 0
        """Sequence in the stream up to which everything is stored."""
        self.received = 0
        """Events of others that were stored."""
        self.repeated = 0
        """Events that came a second time, and were not."""
        self.missed = 0
        """Messages that the stream had no more."""
        self._created = ""
        self._stream = ""
        self._handed_over = 0
        """Like :attr:`position`, with what the journal has and has not stored yet: it will."""
        self._newest: dict[str, _Newest] = {}
        """The newest event of each node that the journal has."""

    async def start(self) -> None:
        """Take over how far a former process had come."""
        for row in await self._node.store.rows(select(cluster_peers)):
            peer = self._peers.get(row["node"])
            if peer is not None:
                peer.epoch, peer.last_id = int(row["epoch"]), int(row["event_id"])
                peer.boot = row["boot"]
        for row in await self._node.store.rows(select(cluster_position)):
            self._stream = row["stream"]
            self._created, self.position = row["created"], int(row["seq"])
        self._handed_over = self.position

    async def run(self, link: Link, stream: StreamInfo) -> None:
        """Read on from the last position, for as long as the link works.

        Raises:
            BusAway: the stream cannot be read.
        """
        self._find_place(link, stream)
        queue: asyncio.Queue[Msg] = asyncio.Queue()

        async def take(message: Msg) -> None:
            # Bounded by the server, which sends no more than _AHEAD unacknowledged ones.
            queue.put_nowait(message)

        inbox = link.client.new_inbox()
        await link.client.subscribe(inbox, cb=take)
        config = ConsumerConfig(
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._handed_over + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=_AHEAD,
            idle_heartbeat=_IDLE_S,
            inactive_threshold=_FORGOTTEN_AFTER_S,
            filter_subject=link.events_of("*"),
        )
        try:
            await link.js.add_consumer(link.stream, config)
        except (JetStreamError, nats.errors.Error) as error:
            raise BusAway(f"the stream {link.stream} cannot be read ({error})") from None
        while True:
            try:
                async with asyncio.timeout(3 * _IDLE_S):
                    messages = [await queue.get()]
            except TimeoutError:
                raise BusAway("the bus has forgotten that we read") from None
            while len(messages) < _TOGETHER and not queue.empty():
                messages.append(queue.get_nowait())
            await self._store(link, messages)

    def _find_place(self, link: Link, stream: StreamInfo) -> None:
        created, at = str(stream.created), self._handed_over
        if (self._stream, self._created) != (link.stream, created):
            if at:
                log.warning("cluster_stream_is_another", was=at)
                self._forget_states()
            self._stream, self._created = link.stream, created
            self.position = self._handed_over = 0
            return
        first = stream.state.first_seq or 1
        if at and first > at + 1:
            self.missed += first - at - 1
            log.error("cluster_messages_missed", missed=first - at - 1)
            self._forget_states()
        elif at > stream.state.last_seq:
            # The same stream went back: a restored disk.
            log.warning("cluster_stream_went_back", was=at)
            self.position = self._handed_over = 0
            self._forget_states()

    def _forget_states(self) -> None:
        for peer in self._peers:
            self._peers.forget_state(peer.name)

    async def _store(self, link: Link, messages: Sequence[Msg]) -> None:
        while self._node.journal.in_trouble:  # noqa: ASYNC110 # it tells nobody
            # Nothing piles up here while the database is away: it waits on the bus.
            await asyncio.sleep(_STORE_RETRY_S)
        batches: list[Batch] = []
        seen: dict[str, _Newest] = {}
        position, last = self._handed_over, None
        for message in messages:
            if not message.subject.startswith(link.events_of("")):
                continue  # an idle heartbeat, or somebody who has found our inbox
            sequence = _sequence(message)
            if sequence is None:
                continue
            last = message
            if sequence <= position:
                continue
            position = sequence
            batch = self._read(link, message)
            if batch is not None:
                batches.append(batch)
        entries = await self._entries_of(batches, seen)
        # From here on they are the journal's, which stores them even if this session ends first.
        self._handed_over = position
        self._newest |= seen
        if entries:
            position_row = {"stream": self._stream, "created": self._created, "seq": position}
            rows = [Row(cluster_position.name, position_row)]
            rows += [Row(cluster_peers.name, newest.row(name)) for name, newest in seen.items()]
            entries[-1].rows = rows
            await self._node.journal.stored(entries)
            self.received += len(entries)
        self.position = position
        if last is not None:
            try:
                await last.ack()
            except (nats.errors.Error, OSError) as error:
                raise BusAway(f"the bus does not take our acknowledgement ({error})") from None

    def _read(self, link: Link, message: Msg) -> Batch | None:
        """A message that may be believed."""
        sender = message.subject.removeprefix(link.events_of(""))
        if sender == self._node.name:
            return None
        if len(message.data) > MAX_BYTES:
            self._refused.add("too_large")
            return None
        peer = self._peers.get(sender)
        if peer is None:
            self._refused.add("unknown_node")
            return None
        try:
            batch = decode_batch(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._refused.add("schema", sender)
            return None
        if batch.node != sender:
            self._refused.add("wrong_node", sender)
            return None
        if batch.epoch < peer.epoch:
            self._refused.add("old_epoch", sender)
            return None
        return batch

    async def _entries_of(
        self, batches: Sequence[Batch], seen: dict[str, _Newest]
    ) -> list[ForeignEntry]:
        """What is new in these, and not of a call that was erased since it was told.

        Raises:
            BusAway: the database does not say which are erased; they are read again.
        """
        try:
            gone = await self._erasures.gone(one for batch in batches for one in calls_of(batch))
        except SQLAlchemyError:
            raise BusAway("the database does not answer") from None
        entries: list[ForeignEntry] = []
        for batch in batches:
            entries += self._entries(without(batch, gone), gone, seen)
        return entries

    def _entries(
        self, batch: Batch, gone: Collection[str], seen: dict[str, _Newest]
    ) -> list[ForeignEntry]:
        name = batch.node
        peer = self._peers.all[name]
        known = seen.get(name) or self._newest.get(name)
        epoch, newest = (peer.epoch, peer.last_id) if known is None else (known.epoch, known.id)
        if batch.epoch > epoch:
            epoch, newest = batch.epoch, 0
        if batch.gap is not None:
            log.error("cluster_gap", node=name, first=batch.gap.first, count=batch.gap.count)
            self._peers.forget_state(name)
        found: list[ForeignEntry] = []
        for numbered in batch.events:
            if numbered.id <= newest:
                self.repeated += 1
                continue
            newest = numbered.id
            entry = self._entry(name, numbered)
            if entry is not None and (
                getattr(entry.event, "call_id", "") not in gone or _takes_away(entry.event, peer)
            ):
                found.append(entry)
        seen[name] = _Newest(epoch, max(newest, batch.last), batch.boot)
        if found:
            found[-1].batch = batch
        else:
            self._peers.took(name, epoch, max(newest, batch.last))
            self._peers.apply(batch)
        return found

    def _entry(self, name: str, numbered: Numbered) -> ForeignEntry | None:
        event = read_event(numbered.event)
        if (
            event is None
            or not may_travel(event)
            or not _CALL_ID.fullmatch(getattr(event, "call_id", ""))
        ):
            self._refused.add("event", name)
            return None
        event = without_words(event)
        match event:
            case NodeDegraded():
                component = f"{name}/{event.component}"[:64]
                event = msgspec.structs.replace(event, component=component)
            case CallEnded():
                self._peers.told(name, event.call_id)
            case AlertAcknowledged():
                self._peers.told(name, event.alert_id)
        entry = ForeignEntry(event, numbered.agent_id, pbx_call_id=numbered.pbx_call_id)
        entry.origin = name
        entry.agent_id = numbered.agent_id or ""
        for key in ("callback_id", "request_id"):
            owned = getattr(event, key, "")
            if owned:
                self._peers.remember(name, [owned])
        return entry

    def committed(self, entry: ForeignEntry) -> None:
        """An entry is stored: from now on the screens may show what it says."""
        batch = entry.batch
        if batch is not None:
            self._peers.took(batch.node, batch.epoch, batch.last)
            self._peers.apply(batch)
        event = entry.event
        if isinstance(event, NodeDegraded) and not event.call_id:
            peer = self._peers.all[entry.origin]
            part = event.component.partition("/")[2]
            if event.degraded:
                peer.degraded[part] = event.reason
            else:
                peer.degraded.pop(part, None)


def _takes_away(event: Event, peer: Peer) -> bool:
    """Whether it ends what our screens still show of a call, though that was erased since."""
    match event:
        case CallEnded():
            return event.call_id in peer.calls
        case AlertAcknowledged():
            return event.alert_id in peer.alerts
        case _:
            return False


def _sequence(message: Msg) -> int | None:
    """Place in the stream of a message that JetStream delivered; ``None`` for its own notes."""
    if message.headers and message.headers.get("Status"):
        return None
    try:
        return int(message.metadata.sequence.stream)
    except (nats.errors.Error, ValueError, IndexError):
        return None
