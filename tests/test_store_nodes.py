"""Several nodes in one PostgreSQL: each has its numbers, chain and version; all share tokens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from sqlalchemy import text

from callshield.errors import ConfigurationError, SetupError
from callshield.settings import Settings, load_settings
from notifier.audit import verify
from notifier.backup import read_backup, write_backup
from notifier.database import Place, migrate, place_of, transact
from notifier.node_schema import SHARED
from notifier.store import Store
from notifier.tokens import create_token, list_tokens, revoke_token
from tests.cluster_kit import NODES, cluster_toml, write_node
from tests.notifier_kit import write_config
from tests.postgres import Database
from tests.store_kit import fill, rows, story, tamper

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
SERVERS = ["nats://127.0.0.1:4222"]


@pytest.fixture
def nodes(cluster_database: Database, tmp_path: Path) -> list[Settings]:
    toml = cluster_toml(SERVERS)
    found = [
        load_settings(write_node(tmp_path / name, name, cluster_database, toml)) for name in NODES
    ]
    for settings in found:
        migrate(place_of(settings))
    return found


def names(settings: Settings) -> set[str]:
    return {row["name"] for row in list_tokens(settings)}


async def test_each_node_has_numbers_and_a_chain_of_its_own(nodes: list[Settings]) -> None:
    one, other = (place_of(settings) for settings in nodes)
    await fill(one, story(1000.0, "a" * 32))
    await fill(other, story(2000.0, "b" * 32))
    await fill(one, story(3000.0, "c" * 32))
    for place, count in ((one, 12), (other, 6)):
        assert [row["id"] for row in rows(place)] == list(range(1, count + 1))
        assert verify(place).faults == []
    tamper(other, "UPDATE events SET body = replace(body, '1001', '1002') WHERE id = 3")
    assert verify(one).faults == []
    assert [fault.event_id for fault in verify(other).faults] == [3]


def test_a_token_is_good_at_every_node_and_revoked_at_every_node(nodes: list[Settings]) -> None:
    create_token(nodes[0], "supervisor", "made at a")
    create_token(nodes[1], "agent", "made at b", "1001")
    for settings in nodes:
        assert names(settings) == {"made at a", "made at b"}
    token_id = next(x["token_id"] for x in list_tokens(nodes[0]) if x["name"] == "made at a")
    assert revoke_token(nodes[1], token_id)
    assert not revoke_token(nodes[0], token_id)


async def test_two_notifiers_of_one_name_are_refused_two_nodes_are_not(
    nodes: list[Settings],
) -> None:
    one, same, other = (
        Store(place_of(nodes[0])),
        Store(place_of(nodes[0])),
        Store(place_of(nodes[1])),
    )
    await one.take()
    await other.take()
    with pytest.raises(SetupError, match="another notifier already uses"):
        await same.take()
    for store in (one, same, other):
        await store.close()


def test_nodes_that_start_at_once_make_the_tables_once(
    postgres_cluster: Any, tmp_path: Path
) -> None:
    empty = postgres_cluster.database()
    names = ("n-1", "n-2", "n-3")
    toml = cluster_toml(SERVERS, nodes=names)
    places = [
        place_of(load_settings(write_node(tmp_path / name, name, empty, toml))) for name in names
    ]
    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(migrate, place) for place in places + places]:
            done.result()
    for place in places:
        assert rows(place) == []


def test_an_upgraded_node_stops_none_that_is_not(nodes: list[Settings]) -> None:
    """The other one has brought what they share up to date, with a version that we do not know."""
    one = place_of(nodes[0])
    create_token(nodes[0], "supervisor", "before")
    tamper(
        one,
        f"UPDATE {SHARED}.alembic_version SET version_num = '9999'",
        f"ALTER TABLE {SHARED}.tokens ADD COLUMN of_the_next_version INTEGER DEFAULT 7",
    )
    migrate(one)
    create_token(nodes[0], "supervisor", "after")
    assert names(nodes[1]) == {"before", "after"}
    # Control: a table of our own from a later version is not touched.
    tamper(one, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match="written by another version"):
        migrate(one)


def test_an_older_node_is_brought_up_to_date_and_keeps_its_tokens_shared(
    nodes: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a node of the next version does when it starts among the others."""
    one = place_of(nodes[0])
    create_token(nodes[0], "supervisor", "kept")
    tamper(
        one,
        "DROP TABLE cluster_own, cluster_peers, cluster_position",
        "UPDATE alembic_version SET version_num = '0012'",
    )
    migrate(one)
    with_tables = transact(
        one, lambda c: c.execute(text("SELECT to_regclass('cluster_own')")).scalar()
    )
    assert with_tables == "cluster_own"
    assert names(nodes[0]) == names(nodes[1]) == {"kept"}
    # Nothing to do: nothing is touched, so that statements of a running node stay good.
    monkeypatch.setattr(alembic.command, "upgrade", _must_not_be_called)
    migrate(one)


def _must_not_be_called(*_: object) -> None:
    raise AssertionError("migrated again")


async def test_a_single_node_becomes_one_of_several_by_backup_and_restore(
    postgres_cluster: Any, nodes: list[Settings], tmp_path: Path
) -> None:
    alone = load_settings(write_config(tmp_path, 8080, ""))
    migrate(place_of(alone))
    create_token(alone, "supervisor", "of old")
    create_token(nodes[1], "supervisor", "of another node")
    await fill(place_of(alone), story(1000.0))
    file = tmp_path / "alone.backup"
    write_backup(place_of(alone), file)
    there: Place = place_of(nodes[0])
    read_backup(there, file)
    assert len(rows(there)) == 6
    assert verify(there).faults == []
    # The tokens of both are good; a restore takes nobody's away.
    assert names(nodes[1]) == {"of old", "of another node"}
    second = tmp_path / "second.backup"
    write_backup(there, second)
    read_backup(there, second, force=True)
    assert names(nodes[0]) == {"of old", "of another node"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('nodes = ["node-a", "node-b"]', 'nodes = ["node-b"]'), "this one"),
        (('nodes = ["node-a", "node-b"]', 'nodes = ["node-a", "node.b"]'), "letters"),
        (('nodes = ["node-a", "node-b"]', 'nodes = ["node-a", "node-a"]'), "once"),
        (("nats://127.0.0.1:4222", "nats://192.0.2.1:4222"), "tls://"),
        (("nats://127.0.0.1:4222", "nats://u:geheim@127.0.0.1:4222"), "without user"),
        (("nats://127.0.0.1:4222", "http://127.0.0.1:4222"), "nats://"),
        (("heartbeat_s = 0.3", "heartbeat_s = 2"), "three times"),
        (("[store]", "[ignored]"), ""),
    ],
)
def test_a_table_that_cannot_work_is_refused_with_the_reason(
    cluster_database: Database, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    path = write_node(tmp_path, "node-a", cluster_database, cluster_toml(SERVERS))
    load_settings(path)  # control
    text_before = path.read_text()
    path.write_text(text_before.replace(*change))
    assert path.read_text() != text_before
    with pytest.raises(ConfigurationError) as refused:
        load_settings(path)
    assert says in str(refused.value)
    assert "geheim" not in str(refused.value)
