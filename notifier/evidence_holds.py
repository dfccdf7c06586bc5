"""What a request for evidence holds: everything about its call stays until the request is over.

Whoever deletes anything of a call asks here, in the same transaction: retention
(:mod:`notifier.store_deletion`), ``callshield recordings purge``, and whatever erases by call or
by number. Rows stay where they are. Events are deleted in ranges without a gap, because the chain
goes on from one place: those of held calls are put aside in ``held_events``, each with the hash
that it followed on, and the deletion's own event names their hashes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.chain import GENESIS, MOST_FINDINGS, Fault, link
from notifier.database import Place
from notifier.schema import events
from notifier.schema_care import evidence_decisions, held_events, said
from notifier.sealed import COMMITMENT, commits_to

#: Ids of held calls, for ``NOT IN``: requests that are neither handed out nor lapsed.
HELD: Select[tuple[str]] = select(said.c.call_id).where(
    said.c.kind == "evidence", said.c.done_ts.is_(None)
)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something about a call must stay."""

    call_id: str
    since_ts: float
    until_ts: float | None
    """Of a refused request: when the hold ends by itself; None: when the package is handed out."""

    @property
    def sentence(self) -> str:
        """For whoever asked that the call be erased."""
        since = datetime.fromtimestamp(self.since_ts, UTC).strftime("%Y-%m-%d")
        if self.until_ts is None:
            ends = "when the request for evidence is settled"
        else:
            ends = f"on {datetime.fromtimestamp(self.until_ts, UTC):%Y-%m-%d} at the latest"
        return (
            f"call {self.call_id} is held as evidence since {since}, so nothing of it is erased "
            f"now; the hold ends {ends}, and the call is erased then without being asked for again"
        )


def holds_among(connection: Connection, call_ids: Iterable[str] | None = None) -> list[Hold]:
    """Holds on these calls, or all there are; each call once.

    Args:
        connection: within the transaction that is going to delete.
        call_ids: None for all.
    """
    query = (
        select(said.c.call_id, said.c.ts, evidence_decisions.c.held_until_ts)
        .join(
            evidence_decisions,
            evidence_decisions.c.request_id == said.c.request_id,
            isouter=True,
        )
        .where(said.c.kind == "evidence", said.c.done_ts.is_(None))
        .order_by(said.c.ts)
    )
    if call_ids is not None:
        query = query.where(said.c.call_id.in_(list(call_ids)))
    found: dict[str, Hold] = {}
    for row in connection.execute(query):
        found.setdefault(row.call_id, Hold(row.call_id, row.ts, row.held_until_ts))
    return list(found.values())


def held_calls(place: Place) -> frozenset[str]:
    """Calls that are held, as the store says; for commands that delete recordings.

    Raises:
        SetupError: there is no database, or it cannot be read.
    """
    from notifier.audit import read

    return frozenset(read(place, lambda connection: [h.call_id for h in holds_among(connection)]))


async def held_in_range(connection: AsyncConnection, first: int, last: int) -> list[str]:
    """``ID:HASH`` of the events in a range that will be put aside."""
    query = select(events.c.id, events.c.hash).where(
        events.c.id.between(first, last), events.c.call_id.in_(HELD)
    )
    rows = await connection.execute(query.order_by(events.c.id))
    return [f"{row.id}:{row.hash}" for row in rows]


async def put_aside(connection: AsyncConnection, first: int, last: int, before: str) -> None:
    """Copy the held events of a range that is about to be deleted.

    Args:
        connection: of the deleting transaction.
        first: number of the first event of the range.
        last: of its last.
        before: hash that the first one follows on.
    """
    held = set((await connection.execute(HELD)).scalars())
    if not held:
        return
    query = select(events).where(events.c.id.between(first, last)).order_by(events.c.id)
    kept, previous = [], before or GENESIS
    for row in (await connection.execute(query)).mappings():
        if row["call_id"] in held:
            kept.append({**row, "previous": previous})
        previous = row["hash"]
    if kept:
        await connection.execute(insert(held_events), kept)


def held_faults(
    connection: Connection, recorded: Mapping[int, str], still: Collection[int]
) -> list[Fault]:
    """Check the events that were put aside against themselves and against what was recorded of
    them when they were.

    Args:
        connection: to read by.
        recorded: number → hash, of the deletions' own events. Once retention has deleted such an
            event, what it named is checked against itself only, and no longer missed.
        still: numbers that must be there: no event says that they went.
    """
    missing = set(still) - set(connection.scalars(select(held_events.c.id)))
    found = [
        Fault("missing", number, f"event {number}, held, is missing: no deletion of it is recorded")
        for number in sorted(missing)[:MOST_FINDINGS]
    ]
    for found_row in connection.execute(select(held_events).order_by(held_events.c.id)).mappings():
        row = dict(found_row)
        number = row["id"]
        fits = link(row["previous"], row) == row["hash"]
        if not fits or recorded.get(number, row["hash"]) != row["hash"]:
            found.append(Fault("changed", number, f"event {number}, held, was changed"))
        elif row["words"] is not None and not _fit(row):
            found.append(Fault("words", number, f"the words of event {number}, held, were changed"))
    return found


def _fit(row: Mapping[str, Any]) -> bool:
    commitment = msgspec.json.decode(row["body"]).get(COMMITMENT)
    return isinstance(commitment, str) and commits_to(commitment, row["words"])
