"""The outbox's tables: letters that wait, letters put aside, and how far each channel has read.

Plain SQL that SQLite and PostgreSQL take alike. Errors of the database reach the caller as
:class:`sqlalchemy.exc.SQLAlchemyError`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from notifier.outbox import Letter
from notifier.schema import events, outbox, outbox_cursors

WAITING, DEAD = "waiting", "dead"
#: Dead letters kept of each channel, the newest.
DEAD_KEPT = 1000
DEAD_KEPT_S = 30 * 86400.0
_LETTER = (
    outbox.c.letter_id,
    outbox.c.channel,
    outbox.c.event_id,
    outbox.c.type,
    outbox.c.ts,
    outbox.c.body,
    outbox.c.attempts,
)


class OutboxStore:
    """Reads and writes the outbox.

    Args:
        engine: of the node's database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def cursors(self, channels: Collection[str], last_event_id: int) -> dict[str, int]:
        """Where each channel goes on; a new one begins at ``last_event_id``.

        The letters of channels that are no longer configured are put aside, and where they were
        is forgotten: one that comes back months later must not tell the whole past.
        """
        async with self._engine.begin() as connection:
            gone = outbox_cursors.c.channel.not_in(list(channels))
            await connection.execute(delete(outbox_cursors).where(gone))
            await connection.execute(
                update(outbox)
                .where(outbox.c.channel.not_in(list(channels)), outbox.c.state == WAITING)
                .values(state=DEAD, failure="this channel is no longer configured")
            )
            rows = (await connection.execute(select(outbox_cursors))).all()
            known: dict[str, int] = {row.channel: row.event_id for row in rows}
            for channel in channels:
                if channel not in known:
                    known[channel] = last_event_id
                    await connection.execute(
                        insert(outbox_cursors).values(channel=channel, event_id=last_event_id)
                    )
        # Another database than the one of yesterday: its numbers begin anew.
        return {name: min(event_id, last_event_id) for name, event_id in known.items()}

    async def events_after(
        self, event_id: int, up_to: int, limit: int
    ) -> list[tuple[int, str, str]]:
        """Stored events ``event_id < id <= up_to``: ``(id, type, body)``, oldest first."""
        query = select(events.c.id, events.c.type, events.c.body)
        query = query.where(events.c.id > event_id, events.c.id <= up_to)
        async with self._engine.connect() as connection:
            rows = await connection.execute(query.order_by(events.c.id).limit(limit))
            return [(row.id, row.type, row.body) for row in rows]

    async def put(self, channel: str, letters: Sequence[Letter], event_id: int) -> None:
        """Store a channel's letters and that it has read up to ``event_id``: both or neither."""
        async with self._engine.begin() as connection:
            await connection.execute(
                update(outbox_cursors)
                .where(outbox_cursors.c.channel == channel)
                .values(event_id=event_id)
            )
            if letters:
                await connection.execute(insert(outbox), [_row(letter) for letter in letters])

    async def waiting(self, channel: str) -> int:
        """Letters of a channel that wait."""
        query = select(func.count()).where(outbox.c.channel == channel, outbox.c.state == WAITING)
        async with self._engine.connect() as connection:
            return int((await connection.scalar(query)) or 0)

    async def due(self, channel: str, now: float, limit: int) -> list[Letter]:
        """Letters whose time has come, the longest due first."""
        query = select(*_LETTER).where(
            outbox.c.channel == channel, outbox.c.state == WAITING, outbox.c.next_ts <= now
        )
        query = query.order_by(outbox.c.next_ts, outbox.c.event_id).limit(limit)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).mappings()
            return [Letter(**row) for row in rows]

    async def next_ts(self, channel: str) -> float | None:
        """When the next letter is due; ``None``: none waits."""
        query = select(func.min(outbox.c.next_ts)).where(
            outbox.c.channel == channel, outbox.c.state == WAITING
        )
        async with self._engine.connect() as connection:
            found = await connection.scalar(query)
            return None if found is None else float(found)

    async def delivered(self, letters: Sequence[Letter]) -> None:
        """The far end has them."""
        ids = [letter.letter_id for letter in letters]
        async with self._engine.begin() as connection:
            await connection.execute(delete(outbox).where(outbox.c.letter_id.in_(ids)))

    async def failed(self, letter: Letter, *, dead: bool, next_ts: float, reason: str) -> None:
        """Try again at ``next_ts``, or put aside."""
        async with self._engine.begin() as connection:
            await connection.execute(
                update(outbox)
                .where(outbox.c.letter_id == letter.letter_id)
                .values(
                    state=DEAD if dead else WAITING,
                    attempts=letter.attempts + 1,
                    next_ts=next_ts,
                    failure=reason,
                )
            )

    async def forget_dead(self, channel: str, now: float) -> int:
        """Keep the newest :data:`DEAD_KEPT` dead letters, none older than :data:`DEAD_KEPT_S`.

        Returns:
            How many were deleted.
        """
        mine = (outbox.c.channel == channel) & (outbox.c.state == DEAD)
        newest = select(outbox.c.event_id).where(mine).order_by(outbox.c.event_id.desc())
        async with self._engine.begin() as connection:
            # Written first: a transaction that begins by reading could not write any more where
            # the journal has committed meanwhile (SQLite).
            old = await connection.execute(
                delete(outbox).where(mine, outbox.c.ts < now - DEAD_KEPT_S)
            )
            bound = await connection.scalar(newest.offset(DEAD_KEPT).limit(1))
            if bound is None:
                return old.rowcount
            more = await connection.execute(delete(outbox).where(mine, outbox.c.event_id <= bound))
            return old.rowcount + more.rowcount

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many letters there are, by channel and state."""
        query = select(outbox.c.channel, outbox.c.state, func.count()).group_by(
            outbox.c.channel, outbox.c.state
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
            return {(channel, state): int(count) for channel, state, count in rows}

    async def letters(self, state: str, limit: int) -> list[dict[str, Any]]:
        """Letters for an administrator's eyes, without their bodies, newest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(listing(state, limit))
            return [dict(row) for row in rows.mappings()]

    async def retry(self, letter_id: str) -> bool:
        """Send a dead letter again; False when there is none."""
        async with self._engine.begin() as connection:
            return bool((await connection.execute(retrying(letter_id))).rowcount)

    async def drop(self, letter_id: str) -> bool:
        """Delete a dead letter; False when there is none."""
        async with self._engine.begin() as connection:
            return bool((await connection.execute(dropping(letter_id))).rowcount)


def listing(state: str, limit: int) -> Any:
    """Select letters of one state (empty: of all), newest first, without their bodies."""
    columns = [column for column in outbox.c if column.name != "body"]
    query = select(*columns).order_by(outbox.c.event_id.desc(), outbox.c.channel).limit(limit)
    return query.where(outbox.c.state == state) if state else query


def retrying(letter_id: str = "", channel: str = "") -> Any:
    """Send dead letters again: one, those of a channel, or all."""
    return _chosen(update(outbox), letter_id, channel).values(
        state=WAITING, attempts=0, next_ts=0.0
    )


def dropping(letter_id: str = "", channel: str = "") -> Any:
    """Delete dead letters: one, those of a channel, or all."""
    return _chosen(delete(outbox), letter_id, channel)


def _chosen(statement: Any, letter_id: str, channel: str) -> Any:
    statement = statement.where(outbox.c.state == DEAD)
    if letter_id:
        statement = statement.where(outbox.c.letter_id == letter_id)
    if channel:
        statement = statement.where(outbox.c.channel == channel)
    return statement


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "letter_id": letter.letter_id,
        "channel": letter.channel,
        "event_id": letter.event_id,
        "type": letter.type,
        "ts": letter.ts,
        "body": letter.body,
        "state": WAITING,
        "attempts": letter.attempts,
        "next_ts": letter.ts,
        "failure": "",
    }
