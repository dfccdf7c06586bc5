"""Reading and writing the database; one transaction a batch.

Errors of the database reach the caller as :class:`sqlalchemy.exc.SQLAlchemyError`: the journal
retries, a request answers 503.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy import Select, case, delete, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql import text

from callshield.errors import SetupError
from callshield.messages import CallAnalysed, CallLength, NodeDegraded, Reason, RetentionDeleted
from notifier.care_store import care_rows
from notifier.chain import ERASED, GENESIS, Head, link
from notifier.database import BUSY_TIMEOUT_S, Place, as_place, open_async
from notifier.erasure import erase, keep_held
from notifier.escalation import Request
from notifier.live import Alert, Call, Entry
from notifier.reading import READINGS
from notifier.rest import Rest
from notifier.retention import Deletion, Due
from notifier.rows import Row
from notifier.schema import alerts, analyses, calls, escalations, events, metadata, rests, tokens
from notifier.sealed import seal, unseal
from notifier.server_lock import ServerLock
from notifier.store_deletion import count, find
from notifier.store_deletion import delete as delete_due
from notifier.tokens import Identity, digest, identify

_REASONS = msgspec.json.Decoder(list[Reason])
_STRINGS = msgspec.json.Decoder(list[str])
_NODE = msgspec.json.Decoder(NodeDegraded)
_LENGTH = msgspec.json.Decoder(CallLength)
T = TypeVar("T")
P = ParamSpec("P")
#: How many of the past are read to go on with a fair rotation.
_ROTATION = 500


class StoreTaken(SetupError):
    """Somebody else wrote events into this node's store."""


class Store:
    """The node's memory, and the one writer of its events.

    Args:
        where: a database with its tables made (:func:`notifier.database.migrate`).
    """

    def __init__(self, where: Place | Path) -> None:
        self.place = as_place(where)
        self._engine = open_async(where)
        self._server_lock = ServerLock(self.place) if self.place.path is None else None
        self.head: Head | None = None
        """End of the hash chain; ``None`` until it was read."""
        self._sealed: list[dict[str, Any]] = []
        self._unsure = False

    @property
    def engine(self) -> AsyncEngine:
        """For tables that a class of its own reads and writes (:mod:`notifier.outbox_store`)."""
        return self._engine

    async def close(self) -> None:
        await self._engine.dispose()
        if self._server_lock is not None:
            await self._server_lock.close()

    async def take(self) -> None:
        """Be the only notifier of this database, from whichever machine.

        Raises:
            SetupError: another one is.
        """
        if self._server_lock is not None and not await self._server_lock.hold():
            raise SetupError(
                f"another notifier already uses {self.place}: stop it, or give this node a "
                "database of its own"
            )

    async def last_event_id(self) -> int:
        """Number of the newest event; 0 for none."""
        async with self._engine.connect() as connection:
            self.head = await _read_head(connection)
        return self.head.last_id

    async def newest_ts(self) -> float:
        """Time of the newest event; 0 for none."""
        rows = await self._rows(select(events.c.ts).order_by(events.c.id.desc()).limit(1))
        return float(rows[0]["ts"]) if rows else 0.0

    async def write(self, entries: Sequence[Entry], more_calls: Iterable[Call] = ()) -> None:
        """Store a batch: all of it or nothing. The same batch may be given again after a failure:
        whether the failed commit came through after all is found out then.

        Args:
            entries: numbered events with the calls and alerts that they changed.
            more_calls: calls whose state must be kept although their event was dropped.

        Raises:
            StoreTaken: another program wrote events of these numbers.
        """
        if self._server_lock is not None and not await self._server_lock.hold():
            raise OperationalError("lock", {}, Exception("another notifier uses this database"))
        unsure, self._unsure = self._unsure, True
        async with self._engine.begin() as connection:
            if self.head is None:
                self.head = await _read_head(connection)
            await keep_held(connection, entries)
            rows = self._seal(entries)
            if rows and not (unsure and await _is_there(connection, rows)):
                await connection.execute(insert(events), rows)
                await _add_analyses(
                    connection, [e.analysed for e in entries if e.analysed is not None]
                )
                for entry in entries:
                    if entry.deletion is not None:
                        await delete_due(connection, entry.deletion)
                    if entry.erasure is not None:
                        await erase(connection, entry.erasure)
            erased = {e.erasure.call_id for e in entries if e.erasure is not None}
            changed = {call.call_id: call for call in more_calls}
            changed.update({e.call.call_id: e.call for e in entries if e.call is not None})
            changed = {name: call for name, call in changed.items() if name not in erased}
            raised = {e.alert.alert_id: e.alert for e in entries if e.alert is not None}
            await _upsert(connection, calls, [_call_row(call) for call in changed.values()])
            await _upsert(connection, alerts, [_alert_row(alert) for alert in raised.values()])
            steps = {e.escalation.alert_id: e.escalation for e in entries if e.escalation}
            await _upsert(connection, escalations, [step.row() for step in steps.values()])
            resting = {e.rest.agent_id: e.rest for e in entries if e.rest is not None}
            await _upsert(connection, rests, [asdict(rest) for rest in resting.values()])
            await _put(connection, [row for entry in entries for row in entry.rows])
            for table, changed_rows in care_rows(e.kept for e in entries):
                await _upsert(connection, table, changed_rows)
        self._unsure = False
        self._sealed = []
        if rows:
            self.head = Head(rows[-1]["id"], rows[-1]["hash"])

    def _seal(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """The rows of a batch, chained. Tried again, a batch keeps its rows: words are salted."""
        numbers = [entry.event_id for entry in entries]
        if self._sealed and [row["id"] for row in self._sealed] == numbers:
            return self._sealed
        assert self.head is not None
        previous, rows = self.head.hash, []
        for entry in entries:
            row = _event_row(entry)
            previous = row["hash"] = link(previous, row)
            rows.append(row)
        self._sealed = rows
        return rows

    async def find_due(self, item: Due, now: float) -> tuple[Deletion, RetentionDeleted] | None:
        """The next batch that retention deletes; ``None`` when nothing of this kind is due."""
        async with self._engine.connect() as connection:
            return await find(connection, item, now)

    async def count_due(self, item: Due) -> int:
        """About how much of one kind is due."""
        async with self._engine.connect() as connection:
            return await count(connection, item)

    async def asking(
        self,
        ask: Callable[Concatenate[AsyncConnection, P], Awaitable[T]],
        *more: P.args,
        **named: P.kwargs,
    ) -> T:
        """What a question of another module finds."""
        async with self._engine.connect() as connection:
            return await ask(connection, *more, **named)

    async def tidy(self) -> bool:
        """After erasures: nothing of them is left in SQLite's log either. PostgreSQL overwrites
        when its vacuum comes by.

        Returns:
            False where somebody reads at this moment: nothing is waited for, since all that is to
            be stored would wait too.
        """
        async with self._engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                return True
            await connection.execute(text("PRAGMA busy_timeout=0"))
            try:
                done = (await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()
            except SQLAlchemyError:
                return False
            finally:
                await connection.execute(text(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}"))
            return not done[0]

    async def check_writable(self) -> bool:
        """True when a transaction can begin; nothing is changed."""
        async with self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                # A standby, or a server whose disk is full and that was set to read only.
                only = await connection.scalar(text("SHOW transaction_read_only"))
                return bool(only == "off")
            await connection.execute(text("BEGIN IMMEDIATE"))
            await connection.rollback()
        return True

    async def events_after(
        self, last_id: int, up_to: int, identity: Identity, limit: int
    ) -> list[tuple[int, str]]:
        """Stored events ``last_id < id <= up_to`` that may concern ``identity``, oldest first.

        Returns:
            ``(id, body)``; what a supervisor may not see of a body is taken out elsewhere
            (:func:`notifier.views.for_supervisor`).
        """
        query = select(events.c.id, events.c.body, events.c.words).where(events.c.id > last_id)
        query = query.where(events.c.id <= up_to, events.c.type != ERASED)
        query = query.order_by(events.c.id).limit(limit)
        if not identity.watches_all:
            query = query.where(
                or_(events.c.agent_id == identity.agent_id, events.c.agent_id.is_(None))
            )
        elif identity.hidden:
            query = query.where(
                or_(events.c.agent_id.is_(None), events.c.agent_id.not_in(identity.hidden))
            )
        async with self._engine.connect() as connection:
            return [
                (row.id, unseal(row.body, row.words)) for row in await connection.execute(query)
            ]

    async def live_calls(self) -> list[Call]:
        """Calls without an end, oldest first."""
        query = select(calls).where(calls.c.ended_ts.is_(None)).order_by(calls.c.started_ts)
        return [_call(row) for row in await self._rows(query)]

    async def ended_call(self, call_id: str) -> Call | None:
        """A call of the past, or ``None``."""
        rows = await self._rows(select(calls).where(calls.c.call_id == call_id))
        return _call(rows[0]) if rows else None

    async def open_alerts(self) -> list[Alert]:
        """Alerts that nobody took, oldest first."""
        query = select(alerts).where(alerts.c.acknowledged_ts.is_(None))
        return [_alert(row) for row in await self._rows(query.order_by(alerts.c.raised_ts))]

    async def taken_help(self) -> list[Alert]:
        """Calls for help that somebody took, of calls without an end."""
        live = select(calls.c.call_id).where(calls.c.ended_ts.is_(None))
        query = select(alerts).where(alerts.c.kind == "help", alerts.c.acknowledged_ts.is_not(None))
        return [_alert(row) for row in await self._rows(query.where(alerts.c.call_id.in_(live)))]

    async def alert(self, alert_id: str) -> Alert | None:
        """One alert, taken or not."""
        rows = await self._rows(select(alerts).where(alerts.c.alert_id == alert_id))
        return _alert(rows[0]) if rows else None

    async def escalations(self) -> list[Request]:
        """How far the open alerts have got, oldest first."""
        still_open = select(alerts.c.alert_id).where(alerts.c.acknowledged_ts.is_(None))
        query = select(escalations).where(escalations.c.alert_id.in_(still_open))
        rows = await self._rows(query.order_by(escalations.c.raised_ts))
        return [Request.of_row(dict(row)) for row in rows]

    async def recently_asked(self) -> list[str]:
        """Supervisors who were asked in turn, the one longest ago first."""
        newest = escalations.c.since_ts.desc()
        query = select(escalations.c.asked).order_by(newest).limit(_ROTATION)
        return [
            one
            for row in reversed(await self._rows(query))
            for one in _STRINGS.decode(row["asked"])
        ]

    async def lengths(self) -> list[CallLength]:
        """What was said of the length of live calls, oldest first."""
        live = select(calls.c.call_id).where(calls.c.ended_ts.is_(None))
        query = select(events.c.body).where(
            events.c.type == "call.length", events.c.call_id.in_(live)
        )
        return [
            _LENGTH.decode(row["body"]) for row in await self._rows(query.order_by(events.c.id))
        ]

    async def alert_history(
        self, agent_id: str | None, limit: int, hidden: frozenset[str] = frozenset()
    ) -> list[Alert]:
        """The newest alerts, taken or not, newest first.

        Args:
            agent_id: only this agent's; ``None`` for all.
            limit: how many.
            hidden: agents whose alerts are left out.
        """
        query = select(alerts).order_by(alerts.c.raised_ts.desc()).limit(limit)
        if agent_id is not None:
            query = query.where(alerts.c.agent_id == agent_id)
        if hidden:
            query = query.where(alerts.c.agent_id.not_in(hidden))
        return [_alert(row) for row in await self._rows(query)]

    async def readings(self, limit: int) -> list[dict[str, Any]]:
        """The newest events that say who read what (:data:`notifier.reading.READINGS`), newest
        first."""
        query = select(events.c.id, events.c.body).where(events.c.type.in_(READINGS))
        rows = await self._rows(query.order_by(events.c.id.desc()).limit(limit))
        return [{"id": row["id"], **msgspec.json.decode(row["body"])} for row in rows]

    async def totals(
        self, since_ts: float, until_ts: float
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
        """Calls that ended and alerts that were raised, as :func:`notifier.oversight.figures`
        takes them."""
        ended = select(calls.c.agent_id, calls.c.peak_level, calls.c.end_reason)
        raised = select(alerts.c.agent_id, alerts.c.kind)
        return (
            await self._rows(ended.where(calls.c.ended_ts.between(since_ts, until_ts))),
            await self._rows(raised.where(alerts.c.raised_ts.between(since_ts, until_ts))),
        )

    async def rests(self) -> list[Rest]:
        """The newest rest of each agent."""
        return [Rest(**row) for row in await self._rows(select(rests))]

    async def once_paused(self) -> set[str]:
        """Live calls in which the agent ever paused the recording."""
        live = select(calls.c.call_id).where(calls.c.ended_ts.is_(None))
        query = select(events.c.call_id).where(
            events.c.type == "pause.changed", events.c.call_id.in_(live)
        )
        return {row["call_id"] for row in await self._rows(query)}

    async def degraded(self) -> list[NodeDegraded]:
        """Parts that were down when the last event about each was stored."""
        query = select(events.c.body).where(
            events.c.type == "node.degraded", events.c.agent_id.is_(None)
        )
        last: dict[str, NodeDegraded] = {}
        for row in await self._rows(query.order_by(events.c.id.desc()).limit(1000)):
            event = _NODE.decode(row["body"])
            last.setdefault(event.component, event)
        return [event for event in last.values() if event.degraded]

    async def identity(self, token: str, now: float) -> Identity | None:
        """Whom a token stands for; ``None`` when it is unknown, expired or revoked."""
        rows = await self._rows(select(tokens).where(tokens.c.sha256 == digest(token)))
        return identify(rows[0] if rows else None, token, now)

    async def add_token(self, row: Mapping[str, Any]) -> None:
        """Store a token's row (:func:`notifier.tokens.token_row`)."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(tokens).values(**row))

    async def bad_tokens(self, token_ids: Collection[str]) -> set[str]:
        """Those of these tokens that were revoked or deleted; expiry is the asker's to know."""
        query = select(tokens.c.token_id).where(
            tokens.c.token_id.in_(list(token_ids)), tokens.c.revoked_ts.is_(None)
        )
        return set(token_ids) - {row["token_id"] for row in await self._rows(query)}

    async def rows(self, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
        """What a query finds, for the modules that keep tables of their own."""
        return await self._rows(query)

    async def _rows(self, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
        async with self._engine.connect() as connection:
            result = await connection.execute(query)
            return [dict(row) for row in result.mappings()]


async def _read_head(connection: AsyncConnection) -> Head:
    query = select(events.c.id, events.c.hash).order_by(events.c.id.desc()).limit(1)
    row = (await connection.execute(query)).first()
    return Head(0, GENESIS) if row is None else Head(row.id, row.hash)


async def _is_there(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a batch whose commit seemed to fail came through.

    Raises:
        StoreTaken: other events have these numbers.
    """
    query = select(events.c.id, events.c.hash).where(events.c.id >= rows[0]["id"])
    found = {row.id: row.hash for row in await connection.execute(query)}
    if not found:
        return False
    if found != {row["id"]: row["hash"] for row in rows}:
        raise StoreTaken(
            f"event {rows[0]['id']} was written by another program: one notifier for one "
            "database; stop the other one and start this one again"
        )
    return True


def _inserting(connection: AsyncConnection, table: Any) -> Any:
    """An INSERT that can say ON CONFLICT, in the database's own dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


async def _upsert(connection: AsyncConnection, table: Any, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    statement = _inserting(connection, table)
    keys = {column.name for column in table.primary_key}
    newest = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    await connection.execute(
        statement.on_conflict_do_update(index_elements=sorted(keys), set_=newest), rows
    )


async def _put(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    """Rows of events, in their order; of one table after another they go together."""
    for (name, gone), found in groupby(rows, key=lambda row: (row.table, row.delete)):
        table, values = metadata.tables[name], [row.values for row in found]
        if not gone:
            await _upsert(connection, table, values)
            continue
        for value in values:
            wanted = [table.c[column] == wanted for column, wanted in value.items()]
            await connection.execute(delete(table).where(*wanted))


async def _add_analyses(connection: AsyncConnection, parts: Sequence[CallAnalysed]) -> None:
    """Parts of one call come one by one: seconds add up, of scores the highest stays."""
    if not parts:
        return
    statement = _inserting(connection, analyses)
    new = statement.excluded
    changed: dict[str, Any] = {"ts": new.ts, "model": new.model}
    for name in ("analysed_s", "speech_s"):
        changed[name] = analyses.c[name] + new[name]
    highest = ("effort_peak", "effort_sustained", "caution_reached", "serious_reached")
    # Of the thresholds too: above the highest one in force an alert can be counted.
    for name in (*highest, "caution", "serious"):
        changed[name] = case((analyses.c[name] > new[name], analyses.c[name]), else_=new[name])
    names = [column.name for column in analyses.columns]
    rows = [{name: getattr(part, name) for name in names} for part in parts]
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["call_id"], set_=changed), rows
    )


def _event_row(entry: Entry) -> dict[str, Any]:
    fields, words = seal(entry.body())
    return {
        "id": entry.event_id,
        "ts": fields["ts"],
        # No question about this node's own events finds another's.
        "type": ("@" if entry.origin else "") + fields["type"],
        "call_id": fields.get("call_id", ""),
        "agent_id": entry.audience,
        "body": msgspec.json.encode(fields).decode(),
        "words": words,
    }


#: Of a live call alone; the configuration and the bridge say most of it again.
_NOT_STORED = (
    "direction", "shadow", "paused", "held", "softening", "left",
    "recording", "choice", "spared", "waits", "sealed_number",
)  # fmt: skip


def _call_row(call: Call) -> dict[str, Any]:
    row = asdict(call)
    for name in _NOT_STORED:
        del row[name]
    row["categories"] = msgspec.json.encode(call.categories).decode()
    row["reasons"] = msgspec.json.encode(call.reasons).decode()
    row["purposes"] = msgspec.json.encode(call.purposes).decode()
    return row


def _call(row: Mapping[str, Any]) -> Call:
    return Call(
        **{
            **row,
            "categories": _STRINGS.decode(row["categories"]),
            "reasons": _REASONS.decode(row["reasons"]),
            "purposes": _STRINGS.decode(row["purposes"]),
        }
    )


def _alert_row(alert: Alert) -> dict[str, Any]:
    return {**asdict(alert), "categories": msgspec.json.encode(alert.categories).decode()}


def _alert(row: Mapping[str, Any]) -> Alert:
    return Alert(**{**row, "categories": _STRINGS.decode(row["categories"])})
