"""The database: its tables, its migrations, and what it must never hold."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select
from sqlalchemy import text as sql

from callshield.messages import CallEnded, CallStarted, NodeDegraded, Reason, RiskChanged
from callshield.settings import load_settings
from notifier.board import Board
from notifier.chain import GENESIS, link
from notifier.commands import Commands
from notifier.database import Place, alembic_config, migrate, open_sync, transact
from notifier.escalating import Escalating
from notifier.schema import events, metadata
from notifier.sealed import unseal
from notifier.store import Store
from notifier.tokens import create_token
from notifier.views import call_view
from tests.notifier_kit import write_config

CALL = "a" * 32
MIGRATIONS = Path(__file__).parent.parent / "notifier" / "migrations"


QUOTE = "씨*"
RISK_BODY = json.dumps(
    {"type": "risk.changed", "reasons": [{"kind": "words", "score": 0.9, "words": [QUOTE]}]}
)


def _is_the_schema(connection: Connection) -> None:
    context = MigrationContext.configure(connection)
    script = ScriptDirectory.from_config(alembic_config(connection))
    assert context.get_current_revision() == script.get_current_head()
    assert compare_metadata(context, metadata) == []


def test_the_migrations_make_exactly_the_tables_of_the_schema(place: Place) -> None:
    migrate(place)
    if place.path is not None:
        assert place.path.stat().st_mode & 0o777 == 0o600
    transact(place, _is_the_schema)


def test_a_store_of_version_4_is_brought_up_to_date_with_what_it_holds(place: Place) -> None:
    old = [(1, RISK_BODY), (2, '{"ts":2.0,"type":"tap.started"}'), (5, '{"type":"x"}')]

    def go_back(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "0004")
        assert "hash" not in {
            column["name"] for column in inspect(connection).get_columns("events")
        }
        for event_id, body in old:
            connection.execute(
                sql("INSERT INTO events VALUES (:id, 1.5, 'risk.changed', :call, '1001', :body)"),
                {"id": event_id, "call": CALL, "body": body},
            )

    transact(place, go_back)
    migrate(place)
    transact(place, _is_the_schema)
    rows = transact(place, lambda c: c.execute(select(events).order_by(events.c.id)).all())
    previous = GENESIS
    for row, (event_id, body) in zip(rows, old, strict=True):
        assert json.loads(unseal(row.body, row.words)) == json.loads(body)
        assert row.id == event_id
        assert link(previous, row._mapping) == row.hash
        previous = row.hash
    assert QUOTE not in rows[0].body
    transact(place, lambda c: command.downgrade(alembic_config(c), "0004"))
    bodies = transact(place, lambda c: c.execute(sql("SELECT body FROM events ORDER BY id")).all())
    assert json.loads(bodies[0].body) == json.loads(RISK_BODY)


def test_a_database_from_before_there_were_teams_goes_on(tmp_path: Path) -> None:
    """Tokens stay good and see every team; an old open alert stays open and calls nobody."""
    settings = load_settings(write_config(tmp_path, 8080))
    token = create_token(settings, "supervisor", "x")
    board = Board(2)
    [_, raised] = [
        *board.apply(CallStarted(ts=1.0, call_id=CALL, agent_id="1001", pbx_call_id="x")),
        *board.apply(
            RiskChanged(ts=2.0, call_id=CALL, level=3, previous=0, categories=[], score=1)
        )[1:],
    ]
    board.apply(CallEnded(ts=3.0, call_id=CALL, agent_id="1001", reason="caller_hangup"))
    alert = raised.alert
    assert alert is not None
    raised.event_id = 1

    async def old_rows() -> None:
        store = Store(settings.database_path)
        await store.write([raised])
        await store.close()

    asyncio.run(old_rows())
    engine = open_sync(settings.database_path)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
    engine.dispose()
    migrate(settings.database_path)

    async def upgraded() -> None:
        store = Store(settings.database_path)
        identity = await store.identity(token, time.time())
        assert identity is not None
        assert identity.supervisor_id == ""
        assert identity.sees("1001")
        restored = Board(2)
        restored.restore([], await store.open_alerts(), [])
        escalating = Escalating(
            settings, restored, time.time, time.monotonic, frozenset, Commands(lambda c: True).ask
        )
        requests, asked = await store.escalations(), await store.recently_asked()
        assert escalating.restore(requests, asked, await store.lengths()) == []
        assert escalating.tick() == []
        state = escalating.state(alert.alert_id)
        assert state is not None
        assert state["next_in_s"] is None
        # Control: the same alert of a moment ago is told at once.
        restored.alerts[alert.alert_id].raised_ts = time.time()
        again = Escalating(
            settings, restored, time.time, time.monotonic, frozenset, Commands(lambda c: True).ask
        )
        assert len(again.restore([], [], [])) == 1
        await store.close()

    asyncio.run(upgraded())


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
            for table in ("events", "calls", "alerts", "tokens", "escalations")
            for row in database.execute(f"PRAGMA table_info({table})")
        }
    assert {"events", "calls", "alerts", "tokens"} <= set(tables)
    assert "call_id" in columns
    # A keyed hash, and which key made it (docs/privacy.md).
    pseudonym = {"caller_pseudonym", "caller_key_id"}
    assert pseudonym <= columns.keys()
    for name, kind in columns.items():
        assert kind != "BLOB"
        words = ("caller", "number", "uri", "text", "token_value")
        assert name in pseudonym or not any(word in name for word in words), name


async def test_calls_alerts_and_parts_that_are_down_come_back_after_a_restart(
    place: Place,
) -> None:
    board, store = Board(2), Store(place)
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

    store = Store(place)
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
