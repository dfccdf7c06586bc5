"""What this node tells the others: its stored events, in order, from where the bus has them.

The record of events is the outbox, as for webhooks: nothing is kept twice, and ``kill -9`` at any
moment loses nothing. One message is under way at a time, so that the order on the bus is ours; the
busier the node is, the more events one message holds. Every message carries ``Nats-Msg-Id``, by
which the server recognises one that is sent again after an answer that did not come; what it does
not recognise (two minutes later) the receivers do, by the numbers of the events.

While the bus is away events wait in the database. When it is back and more wait than
``cluster.outbox_limit``, the oldest that are no alerts are left out: counted, logged, and said in
the next message (:class:`callshield.messages_cluster.Gap`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import nats.errors
import structlog
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError
from sqlalchemy import and_, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from callshield.messages_cluster import (
    MAX_BYTES,
    MAX_EVENTS,
    AlertState,
    Batch,
    CallState,
    Gap,
    Numbered,
    decode_batch,
)
from notifier.cluster.link import ANSWER_TIMEOUT_S, BusAway, Link
from notifier.cluster.views import (
    OWN_PARTS,
    alert_state,
    call_state,
    may_travel,
    read_event,
    without_words,
)
from notifier.live import Entry
from notifier.schema import events
from notifier.schema_cluster import cluster_own
from notifier.views import SUPERVISOR_TYPES

if TYPE_CHECKING:
    from notifier.node import Node

log = structlog.get_logger()

#: How far we are is written down this often at most: what a crash forgets is sent again, and
#: recognised.
_NOTED_EVERY_S = 1.0
_KEY = "own"
#: A bus that forgot everything is told the events of this time again, seconds.
_AGAIN_S = 3600.0
#: So much room is left in a message for what stands beside the events.
_ROOM_BYTES = MAX_BYTES // 2
#: :func:`notifier.cluster.views.may_travel`, of stored events.
_TRAVELS = and_(
    events.c.type.in_(sorted(SUPERVISOR_TYPES)),
    ~and_(
        events.c.type == "node.degraded",
        or_(*(events.c.body.like(f'%"component":"{part}%') for part in OWN_PARTS)),
    ),
)
_IS_ALERT = or_(events.c.type.like("alert.%"), events.c.type == "call.ended")


class Outgoing:
    """The outbox of one node.

    Args:
        node: whose events these are.
        boot: of this run.
        clock: monotonic seconds.
    """

    def __init__(self, node: Node, boot: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._boot = boot
        self._clock = clock
        self._limit = node.settings.cluster.outbox_limit
        self.epoch = 0
        self.sent_id = 0
        self.waiting = 0
        """Events that are to be sent."""
        self.dropped = 0
        self.sent = 0
        self.full = False
        self._noted_id = 0
        self._noted_at = float("-inf")
        self._gap: Gap | None = None
        self._news = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while nothing is to be sent."""

    async def start(self) -> None:
        """Go on where the node was; a new one tells nothing of its past."""
        rows = await self._node.store.rows(select(cluster_own))
        if rows:
            self.epoch, self.sent_id = int(rows[0]["epoch"]), int(rows[0]["sent_id"])
        else:
            self.epoch, self.sent_id = _new_epoch(0), self._node.hub.last_id
        self._noted_id = self.sent_id
        await self._count()
        if not rows:
            await self._note(force=True)

    def published(self, entries: Sequence[Entry]) -> None:
        """Events were stored; never waits."""
        mine = sum(not entry.origin and may_travel(entry.event) for entry in entries)
        if mine:
            self.waiting += mine
            full = self.waiting > self._limit
            if full and not self.full:
                log.error("cluster_outbox_full", waiting=self.waiting, limit=self._limit)
            self.full = full
        self.idle.clear()
        self._news.set()

    async def begin(self, link: Link) -> None:
        """Find out how far the bus has what we said: the answer to the last message may not have
        come.

        Raises:
            BusAway: JetStream does not answer.
        """
        try:
            raw = await link.js.get_last_msg(link.stream, link.events_of(self._node.name))
            last = decode_batch(raw.data or b"")
        except NotFoundError:
            last = None
        except msgspec.MsgspecError:
            log.warning("cluster_last_message_unreadable")
            last = None
        except (JetStreamError, nats.errors.Error) as error:
            raise BusAway(f"JetStream does not answer ({error})") from None
        if last is None or last.epoch < self.epoch:
            await self._tell_again()
        elif last.epoch > self.epoch or last.last > self._node.hub.last_id:
            # The store is older than what was told of it: its numbers are given a second time.
            self.epoch, self.sent_id = _new_epoch(last.epoch), self._node.hub.last_id
            log.warning("cluster_new_epoch", epoch=self.epoch, told=last.last)
            await self._note(force=True)
        else:
            # More than was noted here, where an answer was lost; or less, where the bus lost it.
            self.sent_id = last.last
        await self._skip()
        await self._count()
        self._news.set()

    async def run(self, link: Link) -> None:
        """Send what is there, for as long as the link works.

        Raises:
            BusAway: a message was not taken.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            while await self._send_page(link):
                pass
            if not self._news.is_set():
                self.idle.set()
            await self._note()

    async def close(self) -> None:
        """Write down how far we are."""
        await self._note(force=True)

    # ------------------------------------------------------------------------------------ one page

    async def _send_page(self, link: Link) -> bool:
        """Returns: there may be more."""
        newest = self._node.hub.last_id
        if self.sent_id >= newest:
            return False
        query = select(events.c.id, events.c.agent_id, events.c.body).where(
            events.c.id > self.sent_id, events.c.id <= newest, _TRAVELS
        )
        if self._gap is not None and self.sent_id < self._gap.last:
            query = query.where(or_(events.c.id > self._gap.last, _IS_ALERT))
        query = query.order_by(events.c.id).limit(MAX_EVENTS)
        rows = await self._node.store.rows(query)
        last = newest if len(rows) < MAX_EVENTS else int(rows[-1]["id"])
        told, last = self._told(rows, last)
        if told or self._gap is not None:
            await self._publish(link, self._batch(told, last))
            self.sent += len(told)
        self.sent_id = last
        self.waiting = max(0, self.waiting - len(told))
        if self.sent_id >= newest and self.waiting:
            await self._count()
        await self._note()
        return True

    def _told(self, rows: Sequence[Mapping[str, Any]], last: int) -> tuple[list[Numbered], int]:
        """The events of a page as they travel, and up to which event they go: no further than one
        message has room."""
        told: list[Numbered] = []
        size = 0
        for row in rows:
            numbered = self._numbered(row)
            if numbered is None:
                continue
            size += len(numbered.event) + 200
            if told and size > _ROOM_BYTES:
                return told, told[-1].id
            told.append(numbered)
        return told, last

    def _numbered(self, row: Mapping[str, Any]) -> Numbered | None:
        event = read_event(row["body"])
        if event is None or not may_travel(event):
            return None
        body = msgspec.json.decode(row["body"])
        asked = self._node.board.help_was_asked(body.get("call_id", ""))
        if body.get("shadow") and not asked:
            return None
        return Numbered(
            id=int(row["id"]),
            agent_id=row["agent_id"],
            pbx_call_id=str(body.get("pbx_call_id", ""))[:256],
            event=msgspec.Raw(msgspec.json.encode(without_words(event))),
        )

    def _batch(self, told: Sequence[Numbered], last: int) -> Batch:
        node = self._node
        bodies = [msgspec.json.decode(one.event) for one in told]
        calls, ended = self._calls(body.get("call_id", "") for body in bodies)
        alerts = self._alerts(body.get("alert_id", "") for body in bodies)
        gap, self._gap = self._gap, None
        return Batch(
            node=node.name,
            boot=self._boot,
            epoch=self.epoch,
            first=self.sent_id,
            last=last,
            as_of=node.hub.last_id,
            events=list(told),
            calls=calls,
            ended=ended,
            alerts=alerts,
            gap=gap,
        )

    def _calls(self, ids: Iterable[str]) -> tuple[list[CallState], list[str]]:
        """How the calls stand now, and which of them are over."""
        board = self._node.board
        live, ended = [], []
        for call_id in dict.fromkeys(ids):
            call = board.calls.get(call_id)
            if call is not None:
                live.append(call_state(call, help_asked=board.help_was_asked(call_id)))
            elif call_id:
                ended.append(call_id)
        return live, ended

    def _alerts(self, ids: Iterable[str]) -> list[AlertState]:
        board, escalating = self._node.board, self._node.escalating
        found = []
        for alert_id in dict.fromkeys(ids):
            alert = board.alerts.get(alert_id) or board.taken.get(alert_id)
            if alert is not None:
                found.append(alert_state(alert, escalating.state(alert_id)))
        return found

    async def _publish(self, link: Link, batch: Batch) -> None:
        headers = {"Nats-Msg-Id": f"{batch.node}.{batch.epoch}.{batch.first}-{batch.last}"}
        try:
            await link.js.publish(
                link.events_of(batch.node),
                msgspec.json.encode(batch),
                timeout=ANSWER_TIMEOUT_S,
                stream=link.stream,
                headers=headers,
            )
        except (JetStreamError, nats.errors.Error, OSError) as error:
            self._gap = batch.gap
            reason = str(error) or type(error).__name__
            raise BusAway(f"the bus did not take our events ({reason})") from None

    # ------------------------------------------------------------------------------ how far we are

    async def _count(self) -> None:
        query = select(func.count()).select_from(events).where(events.c.id > self.sent_id, _TRAVELS)
        rows = await self._node.store.rows(query)
        self.waiting = int(next(iter(rows[0].values())))
        self.full = self.waiting > self._limit

    async def _tell_again(self) -> None:
        """The bus has nothing (any more) of what we said: it lost its disk, or all of it was too
        old. What somebody may not have read before that is sent again; who has read it knows it."""
        since = self._node.clock() - _AGAIN_S
        recent = select(func.min(events.c.id)).where(events.c.ts >= since, _TRAVELS)
        rows = await self._node.store.rows(recent)
        first = next(iter(rows[0].values()))
        if first is not None and self.sent_id >= int(first):
            log.info("cluster_told_again", first=int(first), last=self.sent_id)
            self.sent_id = int(first) - 1

    async def _skip(self) -> None:
        """Leave out the oldest events of an outbox that is too long."""
        newest_kept = (
            select(events.c.id)
            .where(events.c.id > self.sent_id, _TRAVELS)
            .order_by(events.c.id.desc())
            .offset(self._limit)
            .limit(1)
        )
        rows = await self._node.store.rows(newest_kept)
        if not rows:
            return
        bound = int(rows[0]["id"])
        left_out = select(func.count()).select_from(events)
        left_out = left_out.where(
            events.c.id > self.sent_id, events.c.id <= bound, _TRAVELS, ~_IS_ALERT
        )
        counted = await self._node.store.rows(left_out)
        count = int(next(iter(counted[0].values())))
        if not count:
            return
        self._gap = Gap(first=self.sent_id + 1, last=bound, count=count)
        self.dropped += count
        log.error(
            "cluster_events_left_out", first=self._gap.first, last=self._gap.last, count=count
        )

    async def _note(self, *, force: bool = False) -> None:
        now = self._clock()
        if self.sent_id == self._noted_id and not force:
            return
        if not force and now - self._noted_at < _NOTED_EVERY_S:
            return
        values = {"key": _KEY, "epoch": self.epoch, "sent_id": self.sent_id}
        async with self._node.store.engine.begin() as connection:
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            statement = insert(cluster_own).values(**values)
            newest = {"epoch": self.epoch, "sent_id": self.sent_id}
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["key"], set_=newest)
            )
        self._noted_id, self._noted_at = self.sent_id, now


def _new_epoch(after: int) -> int:
    """Larger than every one before: milliseconds since the epoch, or one more."""
    return max(int(time.time() * 1000), after + 1)
