"""A store with a past: events with and without words, written by the real writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from callshield.messages import CallEnded, CallStarted, Event, Reason, RiskChanged, TapStarted
from notifier.anchor import write_head
from notifier.board import Board
from notifier.database import Place, transact
from notifier.live import Entry
from notifier.schema import events
from notifier.store import Store

CALL = "a" * 32
QUOTE = "씨* 새*"
T0 = 1_700_000_000.0


def story(ts: float, call_id: str = CALL) -> list[Event]:
    """One call with abusive words; six events with the alert."""
    reason = Reason(kind="words", score=0.9, rule="abusive_words", words=[QUOTE])
    return [
        CallStarted(ts=ts, call_id=call_id, agent_id="1001", pbx_call_id="1.2"),
        TapStarted(ts=ts + 1, call_id=call_id),
        RiskChanged(
            ts=ts + 2,
            call_id=call_id,
            level=2,
            previous=0,
            categories=["profanity"],
            score=0.1,
            reasons=[reason],
            words_confirmed=True,
        ),
        TapStarted(ts=ts + 3, call_id=call_id),
        CallEnded(
            ts=ts + 4, call_id=call_id, agent_id="1001", reason="caller_hangup", duration_s=4.0
        ),
    ]


async def fill(place: Place, told: Sequence[Event], *, batch: int = 4) -> None:
    """Write what a board makes of ``told``, as the journal does, and note the head."""
    store, board = Store(place), Board(2)
    await store.take()
    last_id = await store.last_event_id()
    entries: list[Entry] = [entry for event in told for entry in board.apply(event)]
    for number, entry in enumerate(entries, last_id + 1):
        entry.event_id = number
    for first in range(0, len(entries), batch):
        await store.write(entries[first : first + batch])
    await store.close()
    assert store.head is not None
    write_head(place.head_path, store.head)


def rows(place: Place) -> list[dict[str, Any]]:
    def read(connection: Connection) -> list[dict[str, Any]]:
        query = select(events).order_by(events.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]

    return transact(place, read)


def tamper(place: Place, *statements: str) -> None:
    """What somebody with access to the database does to it."""

    def work(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    transact(place, work)


def config_of(folder: Path) -> Path:
    return folder / "callshield.toml"
