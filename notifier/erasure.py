"""Erasing a call from the database: what goes, what stays and why, and the record of it.

The rows of its events stay, empty, with number, time and hash: the chain goes on through them
(:mod:`notifier.chain`). What stays as it was says nothing of the caller: it is the agent's own, or
says who read what. A type of event that is not named here is erased.

What is held as evidence stays: each batch asks for that in its own transaction (:func:`keep_held`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from callshield.messages_privacy import CallErased, ErasedRange, ErasureAsked, Waits
from notifier.chain import ERASED, ERASED_BODY, GENESIS
from notifier.evidence_holds import HELD
from notifier.schema import alerts, events, metadata, outbox
from notifier.schema_care import evidence_decisions, held_events, said
from notifier.schema_fairness import openings
from notifier.schema_privacy import erasures

if TYPE_CHECKING:
    from notifier.live import Entry

#: Types of events that stay, and why.
KEPT_EVENTS: Mapping[str, str] = {
    "agent.said": "the agent's own word; kinds and choices, no text",
    "break.changed": "what is owed to the agent",
    "call.erased": "the record of this",
    "ear.dose": "what the agent's headset gave: his hearing, and groups' noise trend",
    "ear.warning": "the agent's hearing",
    "erasure.asked": "the record of this",
    "evidence.exported": "what was handed out, and through whom: the caller's own protection",
    "quality.drawn": "the agent's draw, which anybody can do again",
    "record.read": "who read what: the caller's own protection",
    "rest.changed": "the agent's working time",
    "score.contested": "the agent's score",
    "score.given": "the agent's score",
    "score.void": "the agent's score",
}
#: Tables whose rows of the call go.
ERASED_TABLES = (
    "analyses",
    "call_verdicts",
    "callbacks",
    "calls",
    "held_events",
    "marks",
    "withheld_alerts",
)
#: Tables whose rows of the call's alerts go.
OF_ALERTS = ("alerts", "escalations")
#: Tables that speak of a call, or may, and whose rows stay or go otherwise; and why.
KEPT_TABLES: Mapping[str, str] = {
    "eaten_breaks": "what is owed to the agent",
    "evidence_decisions": "what was decided of the agent's request; what was written is taken out",
    "erasures": "goes when the call is erased",
    "events": "emptied",
    "openings": "who opened a recording, which the agent may know; what was written of a complaint "
    "is taken out",
    "quality_draws": "the agent's draw, which anybody can do again",
    "quality_pool": "the draw, which anybody can do again",
    "rests": "the agent's working time",
    "said": "the agent's own word; kinds and choices, no text",
}
#: Events of one batch: a few milliseconds of the writer's time.
BATCH = 500
#: Of a body that names the PBX's own id of the call, by which the PBX knows the number.
_PBX_CALL_ID = "pbx_call_id"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What the writer erases in the transaction that records it."""

    call_id: str
    event_ids: tuple[int, ...]
    mark_ids: tuple[str, ...] = ()
    """Marks of ``[ringback]`` that this call made: they go before."""
    held_ids: tuple[int, ...] = ()
    """Its events that had been put aside."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked for an erasure; a row of ``erasures`` less what it waits for."""

    call_id: str
    ref: str
    by_role: str
    by: str
    asked_ts: float


async def known(connection: AsyncConnection, call_id: str) -> bool:
    """True when anything of the call is left that an erasure would take away."""
    if await _events(connection, call_id, 1):
        return True
    for name in (*ERASED_TABLES, "alerts"):
        column = metadata.tables[name].c.call_id
        if await connection.scalar(select(column).where(column == call_id).limit(1)) is not None:
            return True
    return False


async def known_among(connection: AsyncConnection, call_ids: Sequence[str]) -> set[str]:
    """:func:`known` of many calls: nearly all of them have a row, and are found by that."""
    calls, found = metadata.tables["calls"], set()
    for first in range(0, len(call_ids), BATCH):
        query = select(calls.c.call_id).where(calls.c.call_id.in_(call_ids[first : first + BATCH]))
        found |= {str(row.call_id) for row in await connection.execute(query)}
    return found | {one for one in call_ids if one not in found and await known(connection, one)}


async def erased_before(connection: AsyncConnection, call_id: str) -> bool:
    """True when the chain says that this call was erased."""
    query = select(events.c.id).where(events.c.type == "call.erased", events.c.call_id == call_id)
    return await connection.scalar(query.limit(1)) is not None


async def find(
    connection: AsyncConnection, asked: Asked, now: float, files: int
) -> tuple[Erasure, CallErased] | None:
    """The next batch of a call, and the event that records it.

    Args:
        connection: to the database.
        asked: for what, and through whom.
        now: seconds since the epoch.
        files: of its recording, that were deleted before.

    Returns:
        ``None`` when nothing is left of the call.
    """
    if not await known(connection, asked.call_id):
        return None
    rows = await _events(connection, asked.call_id, BATCH)
    # Events that were put aside while it was held go with the first batch.
    query = select(held_events.c.id, held_events.c.type, held_events.c.body)
    query = query.where(held_events.c.call_id == asked.call_id).order_by(held_events.c.id)
    aside = (await connection.execute(query)).all()
    marks = [
        msgspec.json.decode(row.body)["mark_id"]
        for row in [*rows, *aside]
        if row.type == "ringback.marked"
    ]
    held_ids = [row.id for row in aside]
    erasure = Erasure(asked.call_id, tuple(row.id for row in rows), tuple(marks), tuple(held_ids))
    event = CallErased(
        ts=now,
        call_id=asked.call_id,
        ref=asked.ref,
        by_role=asked.by_role,
        by=asked.by,
        events=await _ranges(connection, rows),
        files=files,
        held=held_ids,
    )
    return erasure, event


async def _events(connection: AsyncConnection, call_id: str, limit: int) -> Sequence[Any]:
    """Events of a call that are erased, the oldest first."""
    of_call = events.c.call_id == call_id
    names_pbx = events.c.body.like(f'%"{_PBX_CALL_ID}":"%') & events.c.body.not_like(
        f'%"{_PBX_CALL_ID}":""%'
    )
    goes = events.c.type.not_in(list(KEPT_EVENTS)) | (
        names_pbx & events.c.type.not_in(["call.erased", "erasure.asked"])
    )
    query = select(events.c.id, events.c.type, events.c.body, events.c.hash)
    query = query.where(of_call, goes).order_by(events.c.id).limit(limit)
    return (await connection.execute(query)).all()


async def _ranges(connection: AsyncConnection, rows: Sequence[Any]) -> list[ErasedRange]:
    """Events that follow each other, with the hashes at both ends of each run."""
    runs: list[list[Any]] = []
    for row in rows:
        if runs and runs[-1][-1].id == row.id - 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    wanted = [run[0].id - 1 for run in runs]
    query = select(events.c.id, events.c.hash).where(events.c.id.in_(wanted))
    before = {row.id: row.hash for row in await connection.execute(query)}
    return [
        ErasedRange(
            from_id=run[0].id,
            to_id=run[-1].id,
            from_hash=before.get(run[0].id - 1) or await _deleted_before(connection, run[0].id),
            to_hash=run[-1].hash,
        )
        for run in runs
    ]


async def _deleted_before(connection: AsyncConnection, event_id: int) -> str:
    """Hash of an event that retention deleted, as it recorded it."""
    if event_id == 1:
        return GENESIS
    query = select(events.c.body).where(events.c.type == "retention.deleted")
    for row in await connection.execute(query.order_by(events.c.id.desc())):
        event = msgspec.json.decode(row.body)
        if event["kind"] == "events" and event["to_id"] == event_id - 1:
            return str(event["to_hash"])
    return ""


async def held(connection: AsyncConnection, call_ids: Collection[str]) -> set[str]:
    """Those of these calls that are held as evidence, as the store says."""
    query = HELD.where(said.c.call_id.in_(list(call_ids)))
    return {str(row.call_id) for row in await connection.execute(query)}


async def keep_held(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Take the erasures of calls that are held out of a batch that is about to be stored, also
    where the request came in the moment since they were looked for, and stands in this batch.

    What the log would have said was erased, it says is asked for and waits; nothing of the call is
    touched.
    """
    wanted = {entry.erasure.call_id for entry in entries if entry.erasure is not None}
    if not wanted:
        return
    kept = await held(connection, wanted)
    for entry in entries:
        for one in entry.kept:
            if getattr(one, "kind", "") == "evidence" and getattr(one, "done_ts", 0) is None:
                kept.add(one.call_id)
    for entry in entries:
        event = entry.event
        if entry.erasure is None or entry.erasure.call_id not in kept:
            continue
        assert isinstance(event, CallErased)
        entry.erasure = None
        entry.event = ErasureAsked(
            ts=event.ts,
            call_id=event.call_id,
            ref=event.ref,
            by_role=event.by_role,
            by=event.by,
            waits="evidence",
        )


async def erase(connection: AsyncConnection, erasure: Erasure) -> None:
    """Erase one batch; the request itself goes with the last one. All of it comes back with the
    whole transaction."""
    ids, call_id = list(erasure.event_ids), erasure.call_id
    if ids:
        await connection.execute(
            update(events)
            .where(events.c.id.in_(ids))
            .values(type=ERASED, call_id="", agent_id="", body=ERASED_BODY, words=None)
        )
        # Copies that wait to leave the node.
        await connection.execute(delete(outbox).where(outbox.c.event_id.in_(ids)))
    of_call = select(alerts.c.alert_id).where(alerts.c.call_id == call_id)
    for name in reversed(OF_ALERTS):
        table = metadata.tables[name]
        await connection.execute(delete(table).where(table.c.alert_id.in_(of_call)))
    for name in ERASED_TABLES:
        table = metadata.tables[name]
        gone = table.c.call_id == call_id
        if table is held_events:
            # No other than the record names: one that was put aside since goes with the next batch.
            gone &= table.c.id.in_(erasure.held_ids)
        await connection.execute(delete(table).where(gone))
    written = (openings.c.call_id == call_id, openings.c.why == "complaint")
    await connection.execute(update(openings).where(*written).values(ref="", reason=""))
    decided = evidence_decisions.c.call_id == call_id
    await connection.execute(update(evidence_decisions).where(decided).values(reason=""))
    if not await known(connection, call_id):
        await drop_request(connection, call_id)


async def drop_request(connection: AsyncConnection, call_id: str) -> None:
    """It waits no more."""
    await connection.execute(delete(erasures).where(erasures.c.call_id == call_id))


async def note_waits(connection: AsyncConnection, call_id: str, waits: Waits) -> None:
    """It waits for something else now."""
    await connection.execute(
        update(erasures).where(erasures.c.call_id == call_id).values(waits=waits)
    )


async def waiting(connection: AsyncConnection) -> list[tuple[Asked, Waits]]:
    """Erasures that were asked for and are not carried out, the oldest first, and what each waits
    for."""
    query = select(erasures).order_by(erasures.c.asked_ts)
    return [
        (Asked(row.call_id, row.ref, row.by_role, row.by, row.asked_ts), row.waits)
        for row in await connection.execute(query)
    ]


async def calls_of(connection: AsyncConnection, pseudonyms: Sequence[str]) -> list[str]:
    """Calls of a number, by its pseudonyms, the oldest first."""
    calls = metadata.tables["calls"]
    query = select(calls.c.call_id).where(calls.c.caller_pseudonym.in_(list(pseudonyms)))
    rows = await connection.execute(query.order_by(calls.c.started_ts))
    return [str(row.call_id) for row in rows]


async def agent_of(connection: AsyncConnection, call_id: str) -> str:
    """Whose call it was: as its row says, or else its events; empty where nothing does."""
    calls = metadata.tables["calls"]
    for table in (calls, events, held_events):
        query = select(table.c.agent_id).where(table.c.call_id == call_id, table.c.agent_id != "")
        found = await connection.scalar(query.order_by(*table.primary_key).limit(1))
        if found:
            return str(found)
    return ""
