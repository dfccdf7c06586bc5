"""Backup and restore: from either database into either, checked before anything is touched."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from typer.testing import CliRunner

from callshield.cli import app
from callshield.errors import CallshieldError
from callshield.settings import Settings, load_settings
from notifier.audit import verify
from notifier.backup import BackupError, check_backup, read_backup, write_backup
from notifier.database import Place, locked, migrate, place_of, sqlite_place, transact
from notifier.schema import metadata
from notifier.tokens import create_token
from tests.notifier_kit import desk_in_process, write_config
from tests.postgres import Cluster
from tests.store_kit import QUOTE, T0, config_of, fill, rows, story, tamper


def everything(place: Place) -> dict[str, list[tuple[object, ...]]]:
    def read(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
        return {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in metadata.sorted_tables
        }

    return transact(place, read)


@pytest.fixture
async def filled(place: Place, tmp_path: Path, store_toml: str) -> Settings:
    """Two calls with words, and a token."""
    await fill(place, [*story(T0), *story(T0 + 100, "b" * 32)])
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    create_token(settings, "agent", "desk", "1001")
    return settings


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Another, empty database."""
    folder = tmp_path / "other"
    folder.mkdir()
    extra = ""
    if request.param == "postgres":
        cluster: Cluster = request.getfixturevalue("postgres_cluster")
        extra = cluster.database().toml(folder)
    return place_of(load_settings(write_config(folder, 8081, extra)))


async def test_a_backup_moves_from_either_database_to_either(
    place: Place, filled: Settings, other: Place, tmp_path: Path
) -> None:
    file = tmp_path / "callshield.backup"
    done = write_backup(place, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert check_backup(file) == done
    assert done.rows["events"] == 12
    migrate(other)
    read_backup(other, file)
    assert everything(other) == everything(place)
    verdict = verify(other)
    assert (verdict.events, verdict.faults) == (12, [])


async def test_the_commands_refuse_a_full_store_and_note_the_restore(
    place: Place, filled: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "callshield.backup"
    config = ["--config", str(config_of(tmp_path))]

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, *config])
        return done.exit_code, done.stdout + str(done.exception or "")

    assert run("backup", str(file))[0] == 0
    assert "is there already" in run("backup", str(file))[1]
    await fill(place, story(T0 + 200, "c" * 32))
    before = rows(place)
    assert len(before) == 18
    code, said = run("restore", str(file))
    assert code == 1
    assert "is not empty" in said
    assert rows(place) == before
    with locked(place):
        assert "another notifier already uses" in run("restore", str(file), "--force")[1]
    code, said = run("restore", str(file), "--force")
    assert code == 0, said
    assert "head before 18:" in said
    *old, restored = rows(place)
    assert old == before[:12]
    event = json.loads(restored["body"])
    assert (event["type"], event["last_id"], event["replaced_id"]) == ("store.restored", 12, 18)
    assert verify(place).faults == []
    # Put back by other means, the store is missed for what it lost.
    tamper(place, "DELETE FROM events WHERE id = 13")
    assert [fault.kind for fault in verify(place).faults] == ["missing"]


@pytest.mark.parametrize("harm", ["flip", "cut", "text", "row", "tail"])
async def test_a_damaged_file_is_refused_before_anything_is_touched(
    filled: Settings, tmp_path: Path, harm: str
) -> None:
    place, file = place_of(filled), tmp_path / "callshield.backup"
    write_backup(place, file)
    packed = file.read_bytes()
    lines = gzip.decompress(packed).splitlines(keepends=True)
    match harm:
        case "flip":
            middle = len(packed) // 2
            file.write_bytes(packed[:middle] + bytes([packed[middle] ^ 1]) + packed[middle + 1 :])
        case "cut":
            file.write_bytes(packed[: len(packed) // 2])
        case "text":
            file.write_text("callshield")
        case "row":
            changed = [line.replace(b"caller_hangup", b"agent_hangup") for line in lines]
            assert changed != lines
            file.write_bytes(gzip.compress(b"".join(changed)))
        case "tail":
            file.write_bytes(gzip.compress(b"".join(lines[:-1])))
    before = everything(place)
    with pytest.raises(BackupError, match=str(file)):
        read_backup(place, file, force=True)
    assert everything(place) == before


async def test_a_restore_that_fails_in_the_middle_changes_nothing(
    filled: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, file = place_of(filled), tmp_path / "callshield.backup"
    write_backup(place, file)
    before = everything(place)

    def fail(connection: Connection, path: Path) -> None:
        raise CallshieldError("the disk is full")

    monkeypatch.setattr("notifier.backup._load", fail)
    with pytest.raises(CallshieldError, match="full"):
        read_backup(place, file, force=True)
    assert everything(place) == before


async def test_a_backup_of_a_later_version_is_refused(filled: Settings, tmp_path: Path) -> None:
    place, file = place_of(filled), tmp_path / "callshield.backup"
    write_backup(place, file)
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    header = {**json.loads(lines[0]), "callshield_backup": 2}
    file.write_bytes(gzip.compress(b"".join([json.dumps(header).encode() + b"\n", *lines[1:]])))
    with pytest.raises(BackupError, match="format 2, and this version reads 1"):
        check_backup(file)


async def test_a_running_node_is_backed_up_and_misses_nothing(
    tmp_path: Path, store_toml: str
) -> None:
    file = tmp_path / "callshield.backup"
    async with (
        desk_in_process(tmp_path, store_toml) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        for _ in range(3):
            call_id = bridge.start_call()
            bridge.words(call_id, 2, QUOTE)
        await console.until("alert.raised", call_id=call_id)
        saving = asyncio.create_task(asyncio.to_thread(write_backup, place_of(desk.settings), file))
        later = bridge.start_call()
        await console.until("call.started", call_id=later)
        assert (await saving).rows["events"] >= 12
    target = sqlite_place(tmp_path / "copy" / "node.sqlite3")
    migrate(target)
    read_backup(target, file)
    assert verify(target).faults == []


def test_every_table_of_the_database_is_in_a_backup_of_the_command_line(tmp_path: Path) -> None:
    """In a process of its own: this one has loaded tables that a command may not have."""
    config, file = write_config(tmp_path, 8080), tmp_path / "backup.gz"
    path = load_settings(config).database_path
    migrate(path)
    command = "from callshield.cli import app; app()"
    subprocess.run(
        [sys.executable, "-c", command, "backup", str(file), "--config", str(config)], check=True
    )
    with gzip.open(file) as lines:
        kept = {one["table"] for one in map(json.loads, lines) if "table" in one}
    with closing(sqlite3.connect(path)) as database:
        made = {
            row[0]
            for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    assert kept == made - {"alembic_version"}
