"""What an agent asked for as evidence outlives retention, whole and provable, and goes after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Connection, insert, select, update
from typer.testing import CliRunner

from callshield.cli import app
from callshield.settings import Settings, load_settings
from notifier import store_deletion
from notifier.audit import verify
from notifier.chain import link
from notifier.database import Place, migrate, transact
from notifier.evidence_holds import held_calls, holds_among
from notifier.retention import DAY_S
from notifier.retention_run import count_due, delete_due
from notifier.schema import alerts, calls, events
from notifier.schema_care import evidence_decisions, held_events, said
from tests.notifier_kit import write_config
from tests.recording_kit import settings_in
from tests.store_kit import QUOTE, T0, fill, rows, story, tamper
from tests.test_retention import NOW, call_id, count, past


def ask(place: Place, call: str, *, until_ts: float | None = None) -> None:
    """The agent of a call asks; with ``until_ts`` he was refused."""

    def work(connection: Connection) -> None:
        connection.execute(
            insert(said).values(
                request_id=call, call_id=call, agent_id="1001", kind="evidence", ts=T0, choice=""
            )
        )
        if until_ts is not None:
            values = {"state": "refused", "ts": T0, "by_role": "admin", "by": "t", "reason": "no"}
            connection.execute(
                insert(evidence_decisions).values(
                    request_id=call, call_id=call, held_until_ts=until_ts, **values
                )
            )

    transact(place, work)


def settle(place: Place, call: str) -> None:
    statement = update(said).where(said.c.call_id == call).values(done_ts=NOW)
    transact(place, lambda connection: connection.execute(statement))


def aside(place: Place) -> list[dict[str, Any]]:
    def read(connection: Connection) -> list[dict[str, Any]]:
        found = connection.execute(select(held_events).order_by(held_events.c.id))
        return [dict(row) for row in found.mappings()]

    return transact(place, read)


@pytest.fixture
def settings(place: Place, tmp_path: Path, store_toml: str) -> Settings:
    return load_settings(write_config(tmp_path, 8080, store_toml))


async def test_nothing_of_a_held_call_is_deleted_and_all_of_it_afterwards(
    place: Place, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_deletion, "BATCH", 4)
    await past(place, tmp_path, [390, 380, 370, 1])
    before = rows(place)
    held = call_id(1)
    ask(place, held)
    due = count_due(settings, NOW)
    # Of three old calls two: the events' range has no gap, so they are counted, and put aside.
    assert (due["words"], due["calls"], due["alerts"], due["events"]) == (2, 2, 2, 18)
    delete_due(settings, NOW)
    assert count(place, calls, calls.c.call_id == held) == 1
    assert count(place, alerts, alerts.c.call_id == held) == 1
    assert count(place, calls, calls.c.reasons.like(f"%{QUOTE}%")) == 2, "held, and yesterday's"
    kept = aside(place)
    mine = [row for row in before if row["call_id"] == held]
    assert [{**row, "previous": None} for row in mine] == [{**k, "previous": None} for k in kept]
    assert any(row["words"] and QUOTE in row["words"] for row in kept), "with what was said"
    hashes = {row["id"]: row["hash"] for row in before}
    for row in kept:
        assert row["previous"] == hashes[row["id"] - 1]
        assert link(row["previous"], row) == row["hash"]
    verdict = verify(place)
    assert verdict.faults == []
    assert delete_due(settings, NOW) == dict.fromkeys(due, 0)

    settle(place, held)
    counts = delete_due(settings, NOW)
    assert (counts["calls"], counts["alerts"], counts["held_events"]) == (1, 1, len(mine))
    assert aside(place) == []
    assert count(place, said) == count(place, evidence_decisions) == 0
    assert verify(place).faults == []


async def test_without_a_request_nothing_is_put_aside(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    """The control."""
    await past(place, tmp_path, [390, 1])
    delete_due(settings, NOW)
    assert aside(place) == []
    assert count(place, calls) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE held_events SET body = replace(body, '1001', '1002') WHERE id = 2", "changed"),
        ("UPDATE held_events SET words = replace(words, '씨', '시')", "words"),
        ("UPDATE held_events SET previous = hash WHERE id = 2", "changed"),
    ],
)
async def test_what_was_put_aside_is_part_of_the_audit(
    place: Place, settings: Settings, tmp_path: Path, change: str, kind: str
) -> None:
    await past(place, tmp_path, [390, 1])
    ask(place, call_id(0))
    delete_due(settings, NOW)
    assert verify(place).faults == []
    tamper(place, change)
    (fault,) = verify(place).faults
    assert fault.kind == kind
    assert "held" in fault.sentence


@pytest.mark.parametrize("rows_gone", ["id = 2", "id > 3", "1 = 1"])
async def test_what_is_taken_from_what_was_put_aside_is_missed(
    place: Place, settings: Settings, tmp_path: Path, rows_gone: str
) -> None:
    """Until its deletion is recorded, which names it: what another call's deletion names does not
    excuse it."""
    await past(place, tmp_path, [390, 380, 1])
    for number in (0, 1):
        ask(place, call_id(number))
    delete_due(settings, NOW)
    settle(place, call_id(1))
    assert delete_due(settings, NOW)["held_events"] > 0
    assert verify(place).faults == []
    before = {row["id"] for row in aside(place)}
    tamper(place, f"DELETE FROM held_events WHERE {rows_gone}")
    gone = before - {row["id"] for row in aside(place)}
    assert gone
    faults = verify(place).faults
    assert {(fault.kind, fault.event_id) for fault in faults} == {("missing", one) for one in gone}
    assert faults[0].sentence.endswith("held, is missing: no deletion of it is recorded")


async def test_an_older_version_did_not_say_what_went(
    place: Place, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stores are whole."""
    await past(place, tmp_path, [390, 1])
    ask(place, call_id(0))
    delete_due(settings, NOW)
    settle(place, call_id(0))
    find = store_deletion._old_rows

    async def unnamed(*args: Any) -> Any:
        found = await find(*args)
        return found and (found[0], structs.replace(found[1], held=[]))

    with monkeypatch.context() as older:
        older.setattr(store_deletion, "_old_rows", unnamed)
        assert delete_due(settings, NOW)["held_events"] > 0
    assert verify(place).faults == []


async def test_a_forged_event_with_a_right_hash_is_not_the_one_that_was_recorded(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    await past(place, tmp_path, [390, 1])
    ask(place, call_id(0))
    delete_due(settings, NOW)
    row = aside(place)[1]
    forged = {**row, "body": row["body"].replace("1001", "1002")}
    hash_ = link(row["previous"], forged)

    def forge(connection: Connection) -> None:
        where = held_events.c.id == row["id"]
        values = {"body": forged["body"], "hash": hash_}
        connection.execute(update(held_events).where(where).values(**values))

    transact(place, forge)
    assert [fault.event_id for fault in verify(place).faults] == [row["id"]]


async def test_who_asks_for_erasure_is_told_why_not_and_until_when(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    await past(place, tmp_path, [5, 4, 3])
    ask(place, call_id(0))
    ask(place, call_id(1), until_ts=NOW + 30 * DAY_S)
    wanted = [call_id(0), call_id(1), call_id(2)]
    holds = {h.call_id: h for h in transact(place, lambda c: holds_among(c, wanted))}
    assert set(holds) == {call_id(0), call_id(1)}, "the third may be erased"
    assert "held as evidence since 2023-11-14" in holds[call_id(0)].sentence
    assert "when the request for evidence is settled" in holds[call_id(0)].sentence
    assert "2025-01-17 at the latest" in holds[call_id(1)].sentence
    settle(place, call_id(0))
    assert held_calls(place) == {call_id(1)}


def test_purge_asks_the_store_too_for_a_bridge_that_was_away(tmp_path: Path) -> None:
    """No file ``held`` beside the recordings: the store alone knows of the request."""
    recording = settings_in(tmp_path)
    day = recording.directory / "2024-01-02"
    day.mkdir(parents=True)
    for number in range(2):
        (day / f"{call_id(number)}-1.csrec").write_bytes(b"")
    extra = (
        f'[recording]\nenabled = true\ndirectory = "{recording.directory}"\n'
        f'key_file = "{recording.key_file}"\n'
    )
    config = write_config(tmp_path, 8080, extra)
    place = load_settings(config).database_path
    migrate(place)
    from notifier.database import as_place

    ask(as_place(place), call_id(0))
    run = CliRunner().invoke(app, ["recordings", "purge", "--config", str(config)])
    assert run.exit_code == 0, run.output
    assert "1 recordings older than" in run.output
    assert "1 calls are held" in run.output
    assert [path.name for path in day.iterdir()] == [f"{call_id(0)}-1.csrec"]
    settle(as_place(place), call_id(0))
    CliRunner().invoke(app, ["recordings", "purge", "--config", str(config)])
    assert not day.exists()


async def test_events_of_a_held_call_may_lie_in_both_tables(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    """A call at the border of retention: what went is aside, what came later is in the chain."""
    first = story(NOW - 366 * DAY_S, call_id(0))[:3]
    late = story(NOW - 364 * DAY_S, call_id(0))[3:]
    await fill(place, [*first, *late])
    ask(place, call_id(0))
    delete_due(settings, NOW)
    assert len(aside(place)) == 4
    chained = [row for row in rows(place) if row["type"] != "retention.deleted"]
    assert [row["id"] for row in chained] == [5, 6]
    noted = [json.loads(row["body"]) for row in rows(place) if row["type"] == "retention.deleted"]
    (deleted,) = [item for item in noted if item["kind"] == "events"]
    assert deleted["held"] == [f"{row['id']}:{row['hash']}" for row in aside(place)]
    assert count(place, events) == len(rows(place))
