"""The database: its tables, its migrations, and what it must never hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from callshield.messages import CallStarted, NodeDegraded, Reason, RiskChanged
from notifier.board import Board
from notifier.database import migrate, open_sync
from notifier.schema import metadata
from notifier.store import Store
from notifier.views import call_view

CALL = "a" * 32


def test_the_migrations_make_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "node.sqlite3"
    migrate(path)
    migrate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    engine = open_sync(path)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == "0002"
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_it_is_written_ahead_and_synced_at_every_commit(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite3"
    migrate(path)
    engine = open_sync(path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    engine.dispose()


def test_no_column_can_hold_a_callers_number_or_audio(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite3"
    migrate(path)
    with closing(sqlite3.connect(path)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
        columns = {
            row[1]: row[2]
            for table in ("events", "calls", "alerts", "tokens")
            for row in database.execute(f"PRAGMA table_info({table})")
        }
    assert {"events", "calls", "alerts", "tokens"} <= set(tables)
    assert "call_id" in columns
    for name, kind in columns.items():
        assert kind != "BLOB"
        assert not any(word in name for word in ("caller", "number", "uri", "text", "token_value"))


async def test_calls_alerts_and_parts_that_are_down_come_back_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node.sqlite3"
    migrate(path)
    board, store = Board(2), Store(path)
    reason = Reason(kind="vocal_effort", score=0.9, detail="shouting")
    entries = [
        *board.apply(CallStarted(ts=1.0, call_id=CALL, agent_id="1001", pbx_call_id="p")),
        *board.apply(
            RiskChanged(
                ts=2.0,
                call_id=CALL,
                level=2,
                previous=0,
                categories=["shouting"],
                score=0.9,
                reasons=[reason],
            )
        ),
        *board.apply(NodeDegraded(ts=3.0, component="detector", degraded=True, reason="x")),
        *board.apply(NodeDegraded(ts=4.0, component="media", degraded=True, reason="x")),
        *board.apply(NodeDegraded(ts=5.0, component="media", degraded=False)),
    ]
    for number, entry in enumerate(entries, 1):
        entry.event_id = number
    await store.write(entries)
    await store.close()

    store = Store(path)
    again = Board(2)
    again.restore(await store.live_calls(), await store.open_alerts(), await store.degraded())
    assert await store.last_event_id() == len(entries)
    await store.close()
    assert call_view(again.calls[CALL], to_agent=True) == call_view(
        board.calls[CALL], to_agent=True
    )
    assert again.alerts == board.alerts
    assert list(again.degraded) == ["detector"]
    # The restored board remembers that level 2 was alerted.
    # Said again by the detector after the reconnect, it is no news and no second alert.
    assert again.apply(entries[1].event) == []
