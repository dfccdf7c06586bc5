"""Finding and deleting what is due, a batch at a time.

What an agent asked to be kept as evidence stays: :mod:`notifier.evidence_holds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import and_, func, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.ext.asyncio import AsyncConnection

from callshield.messages_store import RetentionDeleted
from notifier.chain import GENESIS
from notifier.evidence_holds import HELD, held_in_range, put_aside
from notifier.retention import Deletion, Due
from notifier.schema import alerts, calls, events, metadata, tokens
from notifier.schema_care import held_events
from notifier.schema_fairness import (
    openings,
    quality_draws,
    quality_months,
    quality_pool,
    quality_scores,
    weekly_reports,
)
from notifier.sealed import without_quotes

#: Tables whose rows go with the call or the alert that they speak of.
OF_CALLS = (
    "analyses",
    "call_verdicts",
    "callbacks",
    "eaten_breaks",
    "evidence_decisions",
    "marks",
    "openings",
    "quality_pool",
    "said",
    # Kept back, they stand in no other table.
    "withheld_alerts",
)
OF_ALERTS = ("escalations",)
#: Tables whose rows go with the month of a draw.
OF_MONTHS = ("quality_draws", "quality_scores")
#: Tables that retention leaves alone, and why.
KEPT = {
    "rests": "one row an agent, replaced by the next",
    "cluster_own": "one row",
    "cluster_peers": "one row a node",
    "cluster_position": "one row",
    "outbox_cursors": "one row a channel",
    "erasures": "goes when the call is erased",
    "ringback_marks": "expires by itself, within thirty days",
}
#: Rows of one batch: a few milliseconds of the writer's time.
BATCH = 500


async def find(
    connection: AsyncConnection, due: Due, now: float
) -> tuple[Deletion, RetentionDeleted] | None:
    """The next batch of one kind, oldest first, and the event that records it.

    Returns:
        ``None`` when nothing is due.
    """
    limit = BATCH
    match due.kind:
        case "events":
            return await _old_events(connection, due, now, limit)
        case "words":
            return await _old_words(connection, due, now, limit)
        case _:
            return await _old_rows(connection, due, now, limit)


async def count(connection: AsyncConnection, due: Due) -> int:
    """How much of one kind is older than its limit."""
    match due.kind:
        case "events":
            query = select(func.count()).select_from(events).where(events.c.ts < due.before_ts)
        case "words":
            query = select(func.count()).select_from(events)
            query = query.where(
                events.c.words.is_not(None),
                events.c.ts < due.before_ts,
                events.c.call_id.not_in(HELD),
            )
        case _:
            found = _expired(due.kind, due.before_ts)
            if found is None:
                return 0
            query = select(func.count()).select_from(found[0].table).where(found[1])
    return int(await connection.scalar(query) or 0)


async def _old_events(
    connection: AsyncConnection, due: Due, now: float, limit: int
) -> tuple[Deletion, RetentionDeleted] | None:
    """The oldest events, without a gap: the chain must go on from one place."""
    query = select(events.c.id, events.c.ts, events.c.hash).order_by(events.c.id).limit(limit)
    rows = (await connection.execute(query)).all()
    newest = await connection.scalar(select(func.max(events.c.id)))
    # The newest event stays, whatever its age: numbers go on from it.
    gone = _oldest([row for row in rows if row.id != newest], due.before_ts, now)
    if not gone:
        return None
    before = await _hash_before(connection, gone[0].id)
    deletion = Deletion("events", due.before_ts, (), gone[0].id, gone[-1].id, before)
    event = RetentionDeleted(
        ts=now,
        kind="events",
        count=len(gone),
        rule=due.rule,
        before_ts=due.before_ts,
        from_id=gone[0].id,
        to_id=gone[-1].id,
        from_hash=before,
        to_hash=gone[-1].hash,
        held=await held_in_range(connection, gone[0].id, gone[-1].id),
    )
    return deletion, event


def _oldest(rows: Sequence[Any], before_ts: float, now: float) -> list[Any]:
    """The rows up to the first that is not due. A time to come is a clock that was wrong: the
    events after it say when it was."""
    gone: list[Any] = []
    for row in rows:
        if before_ts <= row.ts <= now:
            break
        gone.append(row)
    while gone and gone[-1].ts > now:
        gone.pop()
    return gone


async def _hash_before(connection: AsyncConnection, event_id: int) -> str:
    """Hash of the event before the oldest one, as the newest deletion recorded it."""
    if event_id == 1:
        return GENESIS
    query = (
        select(events.c.body)
        .where(events.c.type == "retention.deleted")
        .order_by(events.c.id.desc())
    )
    for row in await connection.execute(query):
        event = msgspec.json.decode(row.body)
        if event["kind"] == "events":
            return str(event["to_hash"])
    return ""


async def _old_words(
    connection: AsyncConnection, due: Due, now: float, limit: int
) -> tuple[Deletion, RetentionDeleted] | None:
    query = (
        select(events.c.id, events.c.ts)
        .where(events.c.words.is_not(None), events.c.call_id.not_in(HELD))
        .order_by(events.c.id)
        .limit(limit)
    )
    rows = (await connection.execute(query)).all()
    numbers = [row.id for row in _oldest(rows, due.before_ts, now)]
    quoting = await connection.scalar(select(func.count()).where(_quoting(due.before_ts)))
    if not numbers and not quoting:
        return None
    first, last = (numbers[0], numbers[-1]) if numbers else (0, 0)
    deletion = Deletion("words", due.before_ts, tuple(map(str, numbers)), first, last)
    event = RetentionDeleted(
        ts=now,
        kind="words",
        # Of calls that outlived the words of their events, the calls.
        count=len(numbers) or int(quoting or 0),
        rule=due.rule,
        before_ts=due.before_ts,
        from_id=first,
        to_id=last,
    )
    return deletion, event


def _quoting(before_ts: float) -> Any:
    """A call's row repeats the newest reasons, quotations among them."""
    return and_(
        calls.c.ended_ts < before_ts,
        calls.c.reasons.like('%"words":["%'),
        calls.c.call_id.not_in(HELD),
    )


def _expired(kind: str, before_ts: float) -> tuple[Any, Any] | None:
    """Primary key and condition of a kind that is a table of its own."""
    match kind:
        case "alerts":
            # An alert that nobody took stays open for ever otherwise; its call is long over.
            return alerts.c.alert_id, and_(
                alerts.c.raised_ts < before_ts, alerts.c.call_id.not_in(HELD)
            )
        case "calls":
            return calls.c.call_id, and_(calls.c.ended_ts < before_ts, calls.c.call_id.not_in(HELD))
        case "held_events":
            # Put aside when their time was over: they go with the hold.
            return held_events.c.id, held_events.c.call_id.not_in(HELD)
        case "draws":
            # Whole months: a month of which a part is missing would look like a fraud.
            return quality_months.c.month, quality_months.c.end_ts < before_ts
        case "reports":
            return weekly_reports.c.week, weekly_reports.c.made_ts < before_ts
        case "tokens":
            over = or_(tokens.c.expires_ts < before_ts, tokens.c.revoked_ts < before_ts)
            return tokens.c.token_id, over
        case "dead_letters":
            table = metadata.tables.get("outbox")
            if table is None:
                return None
            return table.c.letter_id, and_(table.c.state == "dead", table.c.ts < before_ts)
    raise ValueError(kind)


async def _old_rows(
    connection: AsyncConnection, due: Due, now: float, limit: int
) -> tuple[Deletion, RetentionDeleted] | None:
    found = _expired(due.kind, due.before_ts)
    if found is None:
        return None
    key, condition = found
    keys = (await connection.execute(select(key).where(condition).limit(limit))).scalars().all()
    if not keys:
        return None
    deletion = Deletion(due.kind, due.before_ts, tuple(str(item) for item in keys))
    event = RetentionDeleted(
        ts=now,
        kind=due.kind,
        count=len(keys),
        rule=due.rule,
        before_ts=due.before_ts,
        held=list(deletion.keys) if due.kind == "held_events" else [],
    )
    return deletion, event


async def delete(connection: AsyncConnection, deletion: Deletion) -> None:
    """Delete one batch; what it says is gone or comes back with the whole transaction."""
    match deletion.kind:
        case "events":
            await put_aside(connection, deletion.from_id, deletion.to_id, deletion.from_hash)
            between = events.c.id.between(deletion.from_id, deletion.to_id)
            await connection.execute(delete_from(events).where(between))
        case "words":
            numbers = [int(key) for key in deletion.keys]
            await connection.execute(
                update(events)
                .where(events.c.id.in_(numbers), events.c.call_id.not_in(HELD))
                .values(words=None)
            )
            await _forget_quotes_of_calls(connection, deletion.before_ts)
        case _:
            found = _expired(deletion.kind, deletion.before_ts)
            assert found is not None
            key, condition = found
            if deletion.kind == "draws":
                await _delete_months(connection, deletion.keys)
            wanted = [key.type.python_type(one) for one in deletion.keys]
            if deletion.kind in ("calls", "alerts"):
                # Asked for in the moment since they were found: they stay.
                query = select(key).where(key.in_(wanted), condition)
                wanted = list((await connection.execute(query)).scalars())
            await connection.execute(delete_from(key.table).where(key.in_(wanted)))
            with_it = {"calls": OF_CALLS, "alerts": OF_ALERTS}.get(deletion.kind, ())
            for name in with_it:
                table = metadata.tables.get(name)
                if table is not None:
                    await connection.execute(
                        delete_from(table).where(table.c[key.name].in_(wanted))
                    )


async def _delete_months(connection: AsyncConnection, months: Sequence[str]) -> None:
    """What was drawn in these months, its scores, what was opened for it, and the pools."""
    drawn = select(quality_draws.c.draw_id).where(quality_draws.c.month.in_(months))
    for statement in (
        delete_from(openings).where(openings.c.why == "draw", openings.c.ref.in_(drawn)),
        delete_from(quality_scores).where(quality_scores.c.draw_id.in_(drawn)),
        delete_from(quality_pool).where(quality_pool.c.month.in_(months)),
        delete_from(quality_draws).where(quality_draws.c.month.in_(months)),
    ):
        await connection.execute(statement)


async def _forget_quotes_of_calls(connection: AsyncConnection, before_ts: float) -> None:
    query = select(calls.c.call_id, calls.c.reasons).where(_quoting(before_ts)).limit(BATCH)
    for row in (await connection.execute(query)).all():
        await connection.execute(
            update(calls)
            .where(calls.c.call_id == row.call_id)
            .values(reasons=without_quotes(row.reasons))
        )
