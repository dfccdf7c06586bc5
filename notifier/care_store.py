"""What follows a bad call, in and out of the database (:mod:`notifier.schema_care`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, and_, or_, select

from notifier.break_ledger import Eaten
from notifier.callbacks import Callback
from notifier.care import SAID_WITHIN_S, Mark, Said
from notifier.evidence import Wanted
from notifier.evidence_store import decisions
from notifier.schema import calls
from notifier.schema_care import callbacks, eaten_breaks, marks, said

if TYPE_CHECKING:
    from notifier.store import Store

#: What calls of this age ate may still become owed: their agents may speak for a day, and a call
#: may be long.
_RECENT_S = 2 * SAID_WITHIN_S
_TABLES: Mapping[type, Table] = {
    Mark: marks,
    Said: said,
    Eaten: eaten_breaks,
    Callback: callbacks,
}


def care_rows(
    kept: Iterable[tuple[Mark | Said | Eaten | Callback, ...]],
) -> list[tuple[Table, list[dict[str, Any]]]]:
    """Rows to write, by table, in the order in which they came."""
    by_table: dict[str, tuple[Table, list[dict[str, Any]]]] = {}
    for rows in kept:
        for row in rows:
            table = _TABLES[type(row)]
            by_table.setdefault(table.name, (table, []))[1].append(asdict(row))
    return list(by_table.values())


@dataclass(frozen=True, slots=True)
class CareState:
    """What a former process stored and this one goes on from."""

    marked: list[str]
    said: list[Said]
    eaten: list[Eaten]
    callbacks: list[Callback]
    wanted: list[Wanted]


async def load_care(store: Store, now: float) -> CareState:
    """Everything that may still matter.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    since = now - _RECENT_S
    owed = and_(eaten_breaks.c.bad, eaten_breaks.c.eaten_s > eaten_breaks.c.paid_s)
    marked = await store.rows(select(marks).where(marks.c.ts > since).order_by(marks.c.ts))
    told = await store.rows(select(said).where(said.c.ts > since).order_by(said.c.ts))
    eaten = await store.rows(select(eaten_breaks).where(or_(owed, eaten_breaks.c.break_ts > since)))
    opened = await store.rows(select(callbacks).where(callbacks.c.done_ts.is_(None)))
    asked = await store.rows(
        select(said, calls.c.pbx_call_id)
        .join(calls, calls.c.call_id == said.c.call_id, isouter=True)
        .where(said.c.kind == "evidence", said.c.done_ts.is_(None))
    )
    decided = await decisions(store, [row["request_id"] for row in asked])
    words = {row["request_id"]: Said(**row) for row in told}
    wanted = []
    for found in asked:
        row = dict(found)
        pbx_call_id = row.pop("pbx_call_id") or ""
        # The same object as the agent's word: what settles one settles both.
        kept = words.get(row["request_id"]) or Said(**row)
        wanted.append(Wanted(kept, pbx_call_id, decided.get(kept.request_id)))
    return CareState(
        [row["call_id"] for row in marked],
        list(words.values()),
        [Eaten(**row) for row in eaten],
        [Callback(**row) for row in opened],
        wanted,
    )


async def said_by(store: Store, agent_id: str, limit: int) -> list[Said]:
    """What one agent said of own calls, newest first; for that agent's eyes."""
    query = select(said).where(said.c.agent_id == agent_id)
    rows = await store.rows(query.order_by(said.c.ts.desc()).limit(limit))
    return [Said(**row) for row in rows]


async def is_marked(store: Store, call_id: str) -> bool:
    """A call of any age is left out of everybody's figures."""
    return bool(await store.rows(select(marks.c.call_id).where(marks.c.call_id == call_id)))


async def known_callback(store: Store, callback_id: str) -> Callback | None:
    """A call-back, open or done."""
    rows = await store.rows(select(callbacks).where(callbacks.c.callback_id == callback_id))
    return Callback(**rows[0]) if rows else None
