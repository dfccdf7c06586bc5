"""Retention: old data goes in small batches, each is recorded, and the chain stays whole."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, Table, func, insert, select
from typer.testing import CliRunner

from callshield.cli import app
from callshield.messages import AlertRaised
from callshield.settings import load_settings
from callshield.settings_store import RetentionSettings
from notifier import database, retaining, store_deletion
from notifier.audit import verify
from notifier.database import Place, migrate, transact
from notifier.fairness import _WEEKS_BACK
from notifier.journal import Journal
from notifier.live import Alert, Entry
from notifier.node import Node
from notifier.quality import GRACE_S
from notifier.retaining import Retaining
from notifier.retention import AFTER_JUMP_S, DAY_S, SETTLE_S, ClockGuard, due
from notifier.retention_run import count_due, delete_due
from notifier.schema import alerts, calls, events, metadata, tokens
from notifier.schema_fairness import (
    openings,
    quality_draws,
    quality_months,
    quality_pool,
    quality_scores,
    weekly_reports,
    withheld_alerts,
)
from notifier.store import Store
from notifier.tokens import Identity, create_token
from tests.notifier_kit import free_port, write_config
from tests.store_kit import QUOTE, T0, config_of, fill, rows, story, tamper
from tests.test_aftercare import PEOPLE

NOW = T0 + 400 * DAY_S


def call_id(number: int) -> str:
    return f"{number:032x}"


async def past(place: Place, folder: Path, days: list[int]) -> None:
    """One call at each of these days before NOW."""
    told = [
        event
        for number, ago in enumerate(days)
        for event in story(NOW - ago * DAY_S, call_id(number))
    ]
    await fill(place, told)


def count(place: Place, table: object, where: object = None) -> int:
    query = select(func.count()).select_from(table)  # type: ignore[arg-type]

    def read(connection: Connection) -> int:
        return int(connection.scalar(query if where is None else query.where(where)) or 0)  # type: ignore[arg-type]

    return transact(place, read)


async def test_old_data_goes_each_kind_by_its_own_age(
    place: Place, tmp_path: Path, store_toml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_deletion, "BATCH", 3)
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    await past(place, tmp_path, [390, 370, 40, 1])
    before = rows(place)
    assert count_due(settings, NOW) == {
        "words": 3,
        "dead_letters": 0,
        "tokens": 0,
        "alerts": 2,
        "calls": 2,
        "draws": 0,
        "reports": 0,
        "events": 12,
        "held_events": 0,
    }
    assert rows(place) == before, "counting changes nothing"
    counts = delete_due(settings, NOW)
    assert counts == {
        "words": 3,
        "dead_letters": 0,
        "tokens": 0,
        "alerts": 2,
        "calls": 2,
        "draws": 0,
        "reports": 0,
        "events": 12,
        "held_events": 0,
    }
    after = rows(place)
    assert after[0]["id"] == 13, "events of the last year stay"
    assert after[:12] == [{**row, "words": None} for row in before[12:18]] + before[18:]
    assert count(place, calls) == 2
    assert count(place, alerts) == 2
    quoted = count(place, calls, calls.c.reasons.like(f"%{QUOTE}%"))
    assert quoted == 1, "the row of an old call quotes nobody either"
    verdict = verify(place)
    assert verdict.faults == []
    assert verdict.redacted == 1
    recorded = [json.loads(row["body"]) for row in after if row["type"] == "retention.deleted"]
    ranges = [(item["from_id"], item["to_id"]) for item in recorded if item["kind"] == "events"]
    assert len(ranges) > 1
    assert (ranges[0][0], ranges[-1][1]) == (1, 12)
    assert {item["rule"] for item in recorded} == {
        "words_days=30", "alerts_days=365", "calls_days=365", "events_days=365"
    }  # fmt: skip
    assert delete_due(settings, NOW) == dict.fromkeys(counts, 0)
    # Negative control: the same deletion without its record.
    tamper(place, "DELETE FROM events WHERE id = 13")
    assert verify(place).faults[0].kind == "cut_off"


async def test_deleted_twice_a_year_apart_the_chain_still_begins_where_it_says(
    place: Place, tmp_path: Path, store_toml: str
) -> None:
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    await past(place, tmp_path, [380, 1])
    delete_due(settings, NOW)
    later = NOW + 400 * DAY_S
    await fill(place, story(later, "c" * 32))
    counts = delete_due(settings, later)
    # The records of the first deletion are old now: the newer record speaks for them, too.
    assert counts["events"] > 6
    assert verify(place).faults == []


async def test_expired_tokens_go(place: Place, tmp_path: Path, store_toml: str) -> None:
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    for name in ("old", "new"):
        create_token(settings, "supervisor", name)
    tamper(place, f"UPDATE tokens SET expires_ts = {NOW - 31 * DAY_S} WHERE name = 'old'")
    tamper(place, f"UPDATE tokens SET expires_ts = {NOW - 29 * DAY_S} WHERE name = 'new'")
    delete_due(settings, NOW)
    assert count(place, tokens, tokens.c.name == "new") == count(place, tokens) == 1


async def test_a_clock_that_was_wrong_for_a_while_keeps_nothing_and_takes_nothing(
    place: Place, tmp_path: Path, store_toml: str
) -> None:
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    # The clock ran in 2099 for one call, and in 1970 for another.
    await fill(
        place,
        [
            *story(NOW - 390 * DAY_S, call_id(1)),
            *story(NOW + 27_000 * DAY_S, call_id(2)),
            *story(NOW - 380 * DAY_S, call_id(3)),
            *story(NOW - 10 * DAY_S, call_id(4)),
            *story(60.0, call_id(5)),
            *story(NOW - 1, call_id(6)),
        ],
    )
    delete_due(settings, NOW)
    left = [row for row in rows(place) if row["type"] != "retention.deleted"]
    assert {row["call_id"] for row in left} == {call_id(4), call_id(5), call_id(6)}
    assert verify(place).faults == []


def test_after_a_jump_of_the_clock_nothing_is_deleted_for_a_day() -> None:
    guard = ClockGuard(NOW, 0.0, NOW - 60)
    assert not guard.may_delete(NOW + 1, 1.0), "just started"
    assert guard.may_delete(NOW + SETTLE_S, SETTLE_S)
    assert guard.may_delete(NOW + 2 * SETTLE_S + 2, 2 * SETTLE_S), "set right by two seconds"
    at = 3 * SETTLE_S
    assert not guard.may_delete(NOW + at + 10 * 365 * DAY_S, at)
    assert not guard.may_delete(NOW + at + 10 * 365 * DAY_S + 3600, at + 3600)
    # Set right again: a jump as well.
    assert not guard.may_delete(NOW + at + 7200, at + 7200)
    assert not guard.may_delete(NOW + at + 7200 + AFTER_JUMP_S - 1, at + 7200 + AFTER_JUMP_S - 1)
    assert guard.may_delete(NOW + at + 7200 + AFTER_JUMP_S, at + 7200 + AFTER_JUMP_S)


@pytest.mark.parametrize("newest", [NOW - 30 * DAY_S, NOW + DAY_S])
def test_a_clock_far_from_the_newest_event_is_not_believed_for_a_day(newest: float) -> None:
    guard = ClockGuard(NOW, 0.0, newest)
    assert not guard.may_delete(NOW + 2 * SETTLE_S, 2 * SETTLE_S)
    assert guard.may_delete(NOW + AFTER_JUMP_S, AFTER_JUMP_S)


def test_presets_and_own_days() -> None:
    public = RetentionSettings(preset="public", words_days=5)
    assert (public.days("words"), public.days("events")) == (5, 1095)
    ages = {item.kind: item.before_ts for item in due(public, NOW)}
    assert ages["words"] == NOW - 5 * DAY_S
    assert ages["tokens"] == NOW - 30 * DAY_S


async def test_in_the_background_it_waits_for_the_writer_and_alerts_go_first(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_deletion, "BATCH", 2)
    monkeypatch.setattr(retaining, "PAUSE_S", 0.0)
    await past(place, tmp_path, [390, 389])
    store = Store(place)
    await store.take()
    batches: list[list[str]] = []

    async def write(entries: list[Entry], more: list[object]) -> None:
        batches.append([type(entry.event).__name__ for entry in entries])
        assert sum(entry.deletion is not None for entry in entries) <= 1
        await store.write(entries)

    journal = Journal(
        write,
        lambda entries: None,
        lambda reason: None,
        await store.last_event_id(),  # type: ignore[arg-type]
    )
    journal.start()
    task = Retaining(
        RetentionSettings(),
        store.find_due,
        lambda entry: journal.stored([entry]),
        lambda: len(journal),
        lambda: NOW,
        ClockGuard(NOW, 0.0, NOW),
    )
    deleting = asyncio.create_task(task.once())
    raised = AlertRaised(
        ts=NOW, alert_id="1" * 32, call_id="f" * 32, agent_id="1001", kind="help", level=0
    )
    for number in range(5):
        alert = Alert(f"{number:032x}", "f" * 32, "1001", "help", 0, [], "", NOW)
        async with asyncio.timeout(30):
            await journal.stored([Entry(raised, "1001", alert=alert)])
    assert not deleting.done(), "the alerts did not wait for the deletion to end"
    assert await deleting > 10
    await journal.close(5)
    await store.close()
    assert verify(place).faults == []
    left = [row for row in rows(place) if row["type"] != "retention.deleted"]
    assert [row["type"] for row in left] == ["alert.raised"] * 5


async def test_the_command_counts_deletes_and_leaves_a_running_node_alone(
    place: Place, tmp_path: Path
) -> None:
    await past(place, tmp_path, [800, 1])
    arguments = ["retention", "run", "--config", str(config_of(tmp_path)), "--json"]

    def run(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*arguments, *more])
        return done.exit_code, done.stdout or str(done.exception)

    code, said = await asyncio.to_thread(run, "--dry-run")
    assert code == 0, said
    assert json.loads(said)["events"] >= 6
    with database.locked(place):
        code, said = await asyncio.to_thread(run)
        assert code == 1
        assert "another notifier already uses" in said
    assert count(place, events) == 12
    code, said = await asyncio.to_thread(run)
    assert code == 0, said
    assert json.loads(said)["events"] >= 6
    assert verify(place).faults == []


def test_every_table_is_deleted_from_or_says_why_not() -> None:
    kinds = {"events", "calls", "alerts", "tokens", "outbox"}
    kinds |= {"quality_months", "weekly_reports", "held_events"}
    by_key = {*store_deletion.OF_CALLS, *store_deletion.OF_ALERTS, *store_deletion.OF_MONTHS}
    known = kinds | by_key | set(store_deletion.KEPT)
    for table in (*metadata.sorted_tables, new := Table("new", MetaData())):
        assert (table.name in known) == (table is not new), table.name
    for name in (*store_deletion.OF_CALLS, *store_deletion.OF_ALERTS):
        table = metadata.tables.get(name, new)
        key = "call_id" if name in store_deletion.OF_CALLS else "alert_id"
        assert table is new or key in table.c, name


async def test_what_shadow_mode_kept_back_goes_with_its_call(
    place: Place, tmp_path: Path, store_toml: str
) -> None:
    """It is no row of ``alerts``: its own id stands nowhere else."""
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    await past(place, tmp_path, [390, 1])
    kept = {"kind": "risk", "level": 3, "categories": "[]", "rules": "[]", "ts": NOW}

    def put(connection: Connection) -> None:
        for number in range(2):
            row = {**kept, "alert_id": f"{number + 10:032x}", "call_id": call_id(number)}
            connection.execute(insert(withheld_alerts).values(row))

    transact(place, put)
    delete_due(settings, NOW)
    assert count(place, withheld_alerts) == 1
    assert count(place, withheld_alerts, withheld_alerts.c.call_id == call_id(1)) == 1


async def test_draws_and_their_scores_go_a_whole_month_at_a_time(
    place: Place, tmp_path: Path, store_toml: str
) -> None:
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    await past(place, tmp_path, [1])

    def put(connection: Connection) -> None:
        # The first month ended 366 days ago; the second one's end is younger, its begin is not.
        for number, end_ago in enumerate((366, 364)):
            month, end_ts = f"2026-0{number + 1}", NOW - end_ago * DAY_S
            draw, call = f"{number:032x}", f"{number + 50:032x}"
            connection.execute(
                insert(quality_months).values(
                    month=month, secret="", time_zone="UTC", begin_ts=end_ts - 30 * DAY_S,
                    end_ts=end_ts, per_agent=1, min_call_s=0, recorded_only=False,
                    drawn_ts=end_ts + DAY_S,
                )
            )  # fmt: skip
            connection.execute(
                insert(quality_pool).values(call_id=call, month=month, agent_id="1001")
            )
            connection.execute(
                insert(quality_draws).values(
                    draw_id=draw, month=month, call_id=call, agent_id="1001", told=True,
                    void_reason="",
                )
            )  # fmt: skip
            connection.execute(
                insert(quality_scores).values(
                    draw_id=draw, review=1, reviewer="t", points="{}", ts=end_ts
                )
            )
            connection.execute(
                insert(openings).values(
                    opening_id=draw, ts=end_ts, call_id=call, agent_id="1001", by_role="supervisor",
                    by="t", why="draw", ref=draw, reason="",
                )
            )  # fmt: skip
            connection.execute(
                insert(weekly_reports).values(week=f"2026-W0{number + 1}", made_ts=end_ts, body="")
            )

    transact(place, put)
    counts = delete_due(settings, NOW)
    assert (counts["draws"], counts["reports"]) == (1, 1)
    tables = (quality_months, quality_pool, quality_draws, quality_scores, openings, weekly_reports)
    assert [count(place, table) for table in tables] == [1] * 6
    assert count(place, quality_draws, quality_draws.c.month == "2026-02") == 1
    assert verify(place).faults == []


def test_no_report_goes_while_its_week_may_be_reported_anew() -> None:
    short = RetentionSettings(calls_days=1)
    days = {item.kind: (NOW - item.before_ts) / DAY_S for item in due(short, NOW)}
    assert days["reports"] > 7 * (_WEEKS_BACK + 1)
    assert days["draws"] * DAY_S > GRACE_S
    assert days["calls"] == 1


async def test_an_alert_that_was_deleted_is_open_for_nobody_any_more(tmp_path: Path) -> None:
    """The node's memory of alerts and of who is asked for them goes with the rows; what is asked
    for as evidence stays until it was handed out."""
    settings = load_settings(write_config(tmp_path, free_port(), PEOPLE))
    migrate(settings.database_path)
    node = Node(settings)
    await node.start()
    try:
        for number, ago_s in ((1, 400 * DAY_S), (2, 60.0)):
            ts = time.time() - ago_s
            for event in story(ts, call_id(number)):
                node.record(node.board.apply(event))
        await node.journal.stored([])
        old, young = node.board.alerts.values()
        requests = node.escalating.escalation.requests
        assert set(requests) == {old.alert_id, young.alert_id}
        call = node.board.ended[call_id(1)]
        _, request_id = await node.aftercare.say(call, "evidence")
        assert [item.said.call_id for item in node.aftercare.evidence.open] == [call_id(1)]
        assert node.retaining is not None
        await node.retaining.once()
        assert list(node.board.alerts.values()) == [old, young]
        admin = Identity("token", "admin", "", time.time() + 60)
        desk = node.aftercare.evidence_desk
        assert await desk.done(request_id, "token") is None, "not before it was approved"
        assert await desk.decide(request_id, "approved", admin) is not None
        assert await desk.done(request_id, "token") is not None
        await node.retaining.once()
        assert list(node.board.alerts.values()) == [young]
        assert set(requests) == {young.alert_id}
        assert node.aftercare.evidence.open == []
        node._tick()  # nobody is asked for what is gone
        assert await node.store.open_alerts() == [young]
    finally:
        await node.stop()
