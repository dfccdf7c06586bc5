"""Erasures of other nodes' calls: what this node stored of them goes too, and does not come back.

Every node keeps its own record, so the record of an erasure (``call.erased``) is looked for in the
owning node's, in the database that all share: neither a bus that is away, nor a stream that was
shorter than an absence, nor a backup that was put back here, hides it.

The stream itself keeps what it was given until ``cluster.stream_hours`` are over. It holds no words
and no numbers of callers, and whoever reads it late asks first which of its calls are erased.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from sqlalchemy import ColumnElement, TableClause, column, func, select, table
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from callshield.messages_cluster import Batch
from notifier.cluster.peers import Peers
from notifier.erasure import BATCH, Asked, find
from notifier.live import Entry
from notifier.node_schema import quoted, schema_of
from notifier.schema import calls, events

if TYPE_CHECKING:
    from notifier.node import Node

log = structlog.get_logger()

#: How often it is looked for erasures of other nodes' calls.
_EVERY_S = 10.0
#: Who erases, as the record of it says.
BY_ROLE = "node"
_ERASED = "call.erased"
_CALL_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Copy:
    """A call of another node that was erased there, and of which something is left here."""

    call_id: str
    ref: str
    """What the request is called there."""


class _Of(msgspec.Struct):
    call_id: str = ""


_of = msgspec.json.Decoder(_Of).decode


def calls_of(batch: Batch) -> set[str]:
    """Ids of the calls that a message tells of."""
    found = {call.call_id for call in batch.calls} | {alert.call_id for alert in batch.alerts}
    for numbered in batch.events:
        try:
            found.add(_of(numbered.event).call_id)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # refused where it is read
    # A database is asked for them: what is no id is refused where it is read.
    return {one for one in found if _CALL_ID.fullmatch(one)}


def without(batch: Batch, gone: Collection[str]) -> Batch:
    """A message without how erased calls stood; that one of their alerts is taken stays in it, and
    its events are looked at one by one."""
    return msgspec.structs.replace(
        batch,
        calls=[call for call in batch.calls if call.call_id not in gone],
        alerts=[
            alert
            for alert in batch.alerts
            if alert.call_id not in gone or alert.acknowledged_ts is not None
        ],
    )


class Erasures:
    """What other nodes erased, as this one must follow it.

    Args:
        node: this node.
        peers: the others.
    """

    def __init__(self, node: Node, peers: Peers) -> None:
        self._node = node
        self._peers = peers
        self.followed = 0
        """Calls of others that were erased here since this node began."""
        self.closing = False
        self._unreadable: set[str] = set()

    async def gone(self, call_ids: Iterable[str]) -> set[str]:
        """Those of these calls that some other node has erased.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        wanted = sorted(set(call_ids))
        found: set[str] = set()
        for first in range(0, len(wanted), BATCH):
            some = wanted[first : first + BATCH]
            for name in self._peers.all:
                found |= {copy.call_id for copy in await self._ask(name, some)}
        return found

    async def run(self) -> None:
        """Follow, for ever."""
        while True:
            try:
                await self.follow()
            except SQLAlchemyError as error:
                log.warning("cluster_erasures_wait", error=type(error).__name__)
            except Exception:  # a fault here must not cost anybody the rest of the cluster
                log.exception("cluster_erasures_failed")
            if self.closing:
                return  # a statement that is cancelled may say so as an error of the database
            await asyncio.sleep(_EVERY_S)

    async def follow(self) -> None:
        """Erase here what others erased; recorded here as every erasure is."""
        for name in self._peers.all:
            for copy in await self._ask(name, None):
                await self._erase(name, copy)

    async def _erase(self, name: str, copy: Copy) -> None:
        node = self._node
        asked = Asked(copy.call_id, copy.ref, BY_ROLE, name, node.clock())
        while found := await node.store.asking(find, asked, node.clock(), 0):
            erasure, event = found
            await node.journal.stored([Entry(event, "", erasure=erasure)])
        self.followed += 1
        log.info("cluster_erasure_followed", node=name, call_id=copy.call_id)

    async def _ask(self, name: str, call_ids: list[str] | None) -> list[Copy]:
        """Calls that a node erased: of these, or of all of which this node has a copy."""
        try:
            found = await self._node.store.asking(_erased_at, name, call_ids)
        except ProgrammingError as error:
            # Its schema is another user's: nothing that comes by itself, and no reason to stop.
            if name not in self._unreadable:
                log.error("cluster_erasures_unreadable", node=name, error=str(error.orig)[:200])
            self._unreadable.add(name)
            return []
        self._unreadable.discard(name)
        return found


def _there(name: str) -> TableClause:
    return table(
        "events", column("type"), column("call_id"), column("body"), schema=schema_of(name)
    )


async def _erased_at(
    connection: AsyncConnection, name: str, call_ids: list[str] | None
) -> list[Copy]:
    # A node that was never started has no tables yet.
    place = f"{quoted(schema_of(name))}.events"
    if await connection.scalar(select(func.to_regclass(place))) is None:
        return []
    there = _there(name)
    wanted: ColumnElement[Any]
    if call_ids is None:
        copies = select(events.c.call_id).where(events.c.type.like("@%"))
        wanted = there.c.call_id.in_(copies)
    else:
        wanted = there.c.call_id.in_(call_ids)
    query = select(there.c.call_id, there.c.body).where(there.c.type == _ERASED, wanted)
    rows = await connection.execute(query)
    found = {row.call_id: str(msgspec.json.decode(row.body).get("ref", "")) for row in rows}
    return [Copy(call_id, ref[:64]) for call_id, ref in sorted(found.items())]


async def owner_of(connection: AsyncConnection, call_id: str, nodes: Collection[str]) -> str:
    """The other node whose call it is.

    Args:
        connection: to this node's tables.
        call_id: of a call of whatever age.
        nodes: names of the other nodes.

    Returns:
        Its name; empty where this node had the call, or nothing is known of it, or the node that
        had it is none of these any more.
    """
    if await connection.scalar(select(calls.c.call_id).where(calls.c.call_id == call_id)):
        return ""
    query = select(events.c.body).where(events.c.call_id == call_id, events.c.type.like("@%"))
    body = await connection.scalar(query.order_by(events.c.id.desc()).limit(1))
    name = "" if body is None else str(msgspec.json.decode(body).get("node", ""))
    return name if name in nodes else ""
