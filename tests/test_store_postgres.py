"""PostgreSQL as the store: away and back, two notifiers at it, a commit of which nobody heard."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from callshield.doctor_store import examine_store
from callshield.errors import CallshieldError, ConfigurationError, SetupError
from callshield.fairness_commands import quality_verify, ringback_list
from callshield.messages import CallStarted, TapStarted
from callshield.settings import load_settings
from callshield.webhooks_command import webhooks_drop, webhooks_list
from notifier.chain import link
from notifier.database import PASSWORD_VARIABLE, Place, migrate, place_of, transact
from notifier.live import Entry
from notifier.schema import outbox
from notifier.schema_fairness import ringback_marks
from notifier.store import Store, StoreTaken
from tests.notifier_kit import desk_in_process, write_config
from tests.postgres import Cluster, Database, run_beside

pytestmark = pytest.mark.postgres
CALL = "a" * 32


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server for one test, which may stop it."""
    server = Cluster()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def database(postgres_cluster: Cluster) -> Database:
    return postgres_cluster.database()


@pytest.fixture
def pg(database: Database, tmp_path: Path) -> Place:
    found = place_of(load_settings(write_config(tmp_path, 8080, database.toml(tmp_path))))
    migrate(found)
    return found


def tap(event_id: int, quote: str = "") -> Entry:
    entry = Entry(TapStarted(ts=float(event_id), call_id=CALL), "1001")
    entry.event_id = event_id
    return entry


def rows_of(place: Place) -> Sequence[Any]:
    return transact(
        place, lambda c: c.exec_driver_sql("SELECT * FROM events ORDER BY id").mappings().all()
    )


async def test_the_server_goes_away_and_comes_back_and_nothing_is_lost(
    cluster: Cluster, tmp_path: Path
) -> None:
    extra = cluster.database().toml(tmp_path)
    async with (
        desk_in_process(tmp_path, extra) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
        desk.http(desk.supervisor) as http,
    ):
        first = bridge.start_call()
        await console.until("call.answered", call_id=first)
        await asyncio.to_thread(cluster.stop)
        second = bridge.start_call()
        bridge.risk(second, 3)
        told = await console.until("node.degraded", component="store")
        assert told["degraded"]
        assert (await http.get("/readyz")).status_code == 503
        refused = await http.get("/api/v1/calls")
        assert refused.status_code == 503, "no token can be looked up"
        assert refused.json()["type"].endswith(":store_failing")
        assert "127.0.0.1" not in refused.text
        await asyncio.to_thread(cluster.start)
        await console.until("call.started", call_id=second)
        await console.until("alert.raised", call_id=second)
        await console.until("node.degraded", component="store", degraded=False)
        assert (await http.get("/readyz")).json()["store"]
        settings = desk.settings
    numbered = [message["id"] for message in console.seen if "id" in message]
    assert numbered == sorted(set(numbered))
    rows = rows_of(place_of(settings))
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    for before, row in itertools.pairwise(rows):
        assert link(before["hash"], row) == row["hash"]


async def test_a_second_notifier_is_refused(pg: Place) -> None:
    first, second = Store(pg), Store(pg)
    await first.take()
    with pytest.raises(SetupError, match="another notifier already uses"):
        await second.take()
    with pytest.raises(OperationalError):
        await second.write([tap(1)])
    await first.close()
    await second.take()
    await second.write([tap(1)])
    await second.close()
    assert len(rows_of(pg)) == 1


async def test_a_commit_that_nobody_heard_of_is_found_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(place)
    engine = store._engine
    batch = [tap(1), tap(2)]

    class Deaf:
        """Commits, and then says that the connection broke."""

        def begin(self) -> Any:
            return self

        async def __aenter__(self) -> Any:
            self._real = engine.begin()
            return await self._real.__aenter__()

        async def __aexit__(self, *what: object) -> None:
            await self._real.__aexit__(*what)  # type: ignore[arg-type]
            raise OperationalError("COMMIT", {}, Exception("the connection broke"))

    monkeypatch.setattr(store, "_engine", Deaf())
    with pytest.raises(SQLAlchemyError):
        await store.write(batch)
    monkeypatch.setattr(store, "_engine", engine)
    await store.write(batch)
    await store.write([tap(3)])
    rows = rows_of(place)
    assert [row["id"] for row in rows] == [1, 2, 3]
    for before, row in itertools.pairwise(rows):
        assert link(before["hash"], row) == row["hash"]
    await store.close()


async def test_events_of_somebody_else_under_our_numbers_end_the_notifier(place: Place) -> None:
    ours, theirs = Store(place), Store(place)
    await theirs.write([tap(1)])
    if theirs._server_lock is not None:
        await theirs._server_lock.close()
    started = Entry(CallStarted(ts=1.0, call_id=CALL, agent_id="1001", pbx_call_id=""), "1001")
    started.event_id = 1
    with pytest.raises(SQLAlchemyError):
        await ours.write([started])
    with pytest.raises(StoreTaken, match="event 1 was written by another program"):
        await ours.write([started])
    for store in (ours, theirs):
        await store.close()


def test_a_password_in_the_url_is_refused_and_not_said_again(tmp_path: Path) -> None:
    extra = '[store]\nurl = "postgresql://callshield:geheim@db.example/callshield"\n'
    with pytest.raises(ConfigurationError) as refused:
        load_settings(write_config(tmp_path, 8080, extra))
    assert "password_file" in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_a_wrong_password_is_a_sentence_without_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, "not-the-password")
    place = place_of(load_settings(write_config(tmp_path, 8080, database.toml(tmp_path))))
    assert "not-the-password" not in repr(place)
    with pytest.raises(SetupError, match="password authentication failed") as refused:
        migrate(place)
    assert "not-the-password" not in str(refused.value)


def test_a_server_elsewhere_is_reached_by_tls_alone(tmp_path: Path) -> None:
    extra = '[store]\nurl = "postgresql://callshield@192.0.2.9/callshield"\n'
    place = place_of(load_settings(write_config(tmp_path, 8080, extra)))
    assert place.server["ssl"].check_hostname
    extra += 'tls = "off"\n'
    assert place_of(load_settings(write_config(tmp_path, 8080, extra))).server["ssl"] is False


def test_doctor_says_whether_the_server_can_be_used(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(write_config(tmp_path, 8080, database.toml(tmp_path)))
    assert f"the database {database.name} of PostgreSQL on 127.0.0.1" in examine_store(settings)
    run_beside(_set_synchronous_commit_off(database))
    with pytest.raises(SetupError, match="synchronous_commit"):
        examine_store(settings)
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    with pytest.raises(SetupError, match="password authentication failed"):
        examine_store(settings)


async def _set_synchronous_commit_off(database: Database) -> None:
    connection = await database.connect()
    await connection.execute(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    await connection.close()


def test_the_command_line_reads_and_changes_the_server(
    pg: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "callshield.toml"
    letter: dict[str, Any] = {
        "letter_id": "e" * 32,
        "channel": "mail",
        "event_id": 1,
        "type": "alert.raised",
    }
    letter |= {"ts": 1.0, "body": "{}", "state": "dead", "attempts": 9, "next_ts": 1.0}
    mark: dict[str, Any] = {
        "mark": "f" * 64,
        "key_id": "k",
        "mark_id": "a1b2c3d4e5f6",
        "category": "threat",
    }
    mark |= {"ended_ts": 1.0, "until_ts": 2.0}

    def put(connection: Connection) -> None:
        connection.execute(insert(outbox).values(**letter, failure="410"))
        connection.execute(insert(ringback_marks).values(**mark))

    transact(pg, put)
    webhooks_list(config, False, 10, True)
    assert json.loads(capsys.readouterr().out)["letter_id"] == "e" * 32
    webhooks_drop("e" * 32, False, "", config)
    webhooks_list(config, False, 10, True)
    assert capsys.readouterr().out == "1 deleted\n"
    ringback_list(config, True)
    assert json.loads(capsys.readouterr().out)["marks"][0]["mark_id"] == "a1b2c3d4e5f6"
    with pytest.raises(CallshieldError, match="nothing was drawn in 2026-11"):
        quality_verify("2026-11", config, True)
    # Control: no file was made beside the server.
    assert not list((tmp_path / "state").glob("*.db"))
