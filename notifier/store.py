"""Reading and writing the database; one transaction a batch.

Errors of the database reach the caller as :class:`sqlalchemy.exc.SQLAlchemyError`: the journal
retries, a request answers 503.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Select, func, or_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import text

from callshield.messages import NodeDegraded, Reason
from notifier.board import Alert, Call, Entry
from notifier.database import open_async
from notifier.rest import Rest
from notifier.schema import alerts, calls, events, rests, tokens
from notifier.tokens import Identity, digest, identify

_REASONS = msgspec.json.Decoder(list[Reason])
_STRINGS = msgspec.json.Decoder(list[str])
_NODE = msgspec.json.Decoder(NodeDegraded)


class Store:
    """The node's memory.

    Args:
        path: SQLite file with its tables made (:func:`notifier.database.migrate`).
    """

    def __init__(self, path: Path) -> None:
        self._engine = open_async(path)

    async def close(self) -> None:
        await self._engine.dispose()

    async def last_event_id(self) -> int:
        """Number of the newest event; 0 for none."""
        async with self._engine.connect() as connection:
            return int((await connection.scalar(select(func.max(events.c.id)))) or 0)

    async def write(self, entries: Sequence[Entry], more_calls: Iterable[Call] = ()) -> None:
        """Store a batch: all of it or nothing.

        Args:
            entries: numbered events with the calls and alerts that they changed.
            more_calls: calls whose state must be kept although their event was dropped.
        """
        async with self._engine.begin() as connection:
            if entries:
                await connection.execute(insert(events), [_event_row(entry) for entry in entries])
            changed = {call.call_id: call for call in more_calls}
            changed.update({e.call.call_id: e.call for e in entries if e.call is not None})
            raised = {e.alert.alert_id: e.alert for e in entries if e.alert is not None}
            await _upsert(connection, calls, [_call_row(call) for call in changed.values()])
            await _upsert(connection, alerts, [_alert_row(alert) for alert in raised.values()])
            resting = {e.rest.agent_id: e.rest for e in entries if e.rest is not None}
            await _upsert(connection, rests, [asdict(rest) for rest in resting.values()])

    async def check_writable(self) -> bool:
        """True when a transaction can begin; nothing is changed."""
        async with self._engine.connect() as connection:
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
        query = select(events.c.id, events.c.body).where(events.c.id > last_id)
        query = query.where(events.c.id <= up_to).order_by(events.c.id).limit(limit)
        if not identity.watches_all:
            query = query.where(
                or_(events.c.agent_id == identity.agent_id, events.c.agent_id.is_(None))
            )
        async with self._engine.connect() as connection:
            return [(row.id, row.body) for row in await connection.execute(query)]

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

    async def alert_history(self, agent_id: str | None, limit: int) -> list[Alert]:
        """The newest alerts, taken or not, newest first.

        Args:
            agent_id: only this agent's; ``None`` for all.
        """
        query = select(alerts).order_by(alerts.c.raised_ts.desc()).limit(limit)
        if agent_id is not None:
            query = query.where(alerts.c.agent_id == agent_id)
        return [_alert(row) for row in await self._rows(query)]

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

    async def still_good(self, identity: Identity, now: float) -> bool:
        """False when the token of an open connection expired or was revoked meanwhile."""
        query = select(tokens.c.revoked_ts).where(tokens.c.token_id == identity.token_id)
        rows = await self._rows(query)
        return bool(rows) and rows[0]["revoked_ts"] is None and identity.expires_ts > now

    async def _rows(self, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
        async with self._engine.connect() as connection:
            result = await connection.execute(query)
            return [dict(row) for row in result.mappings()]


async def _upsert(connection: AsyncConnection, table: Any, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    statement = insert(table)
    keys = {column.name for column in table.primary_key}
    newest = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    await connection.execute(
        statement.on_conflict_do_update(index_elements=sorted(keys), set_=newest), rows
    )


def _event_row(entry: Entry) -> dict[str, Any]:
    fields = entry.body()
    return {
        "id": entry.event_id,
        "ts": fields["ts"],
        "type": fields["type"],
        "call_id": fields.get("call_id", ""),
        "agent_id": entry.audience,
        "body": msgspec.json.encode(fields).decode(),
    }


def _call_row(call: Call) -> dict[str, Any]:
    row = asdict(call)
    del row["direction"]
    row["categories"] = msgspec.json.encode(call.categories).decode()
    row["reasons"] = msgspec.json.encode(call.reasons).decode()
    return row


def _call(row: Mapping[str, Any]) -> Call:
    return Call(
        **{
            **row,
            "categories": _STRINGS.decode(row["categories"]),
            "reasons": _REASONS.decode(row["reasons"]),
        }
    )


def _alert_row(alert: Alert) -> dict[str, Any]:
    return {**asdict(alert), "categories": msgspec.json.encode(alert.categories).decode()}


def _alert(row: Mapping[str, Any]) -> Alert:
    return Alert(**{**row, "categories": _STRINGS.decode(row["categories"])})
