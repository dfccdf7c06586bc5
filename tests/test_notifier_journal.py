"""Stored before sent, also when the disk says no."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from callshield.messages import AlertRaised, CallStarted, TapStarted
from notifier.board import Alert, Call, Entry
from notifier.journal import Journal
from tests.notifier_kit import desk_in_process

CALL = "a" * 32


class Disk:
    """Stands for the store: refuses while ``broken``, else keeps."""

    def __init__(self) -> None:
        self.broken = False
        self.order: list[str] = []
        self.kept: list[int] = []
        self.calls: list[str] = []
        self.tried = asyncio.Event()
        self.trouble: list[str | None] = []
        self.sent: list[int] = []
        self.all_sent = asyncio.Event()
        self.expected = 0

    async def write(self, entries: Sequence[Entry], more_calls: Sequence[Call]) -> None:
        self.tried.set()
        if self.broken:
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("disk is full"))
        self.order.append("stored")
        self.kept += [entry.event_id for entry in entries]
        self.calls += [call.call_id for call in more_calls]

    def publish(self, entries: Sequence[Entry]) -> None:
        self.order.append("sent")
        self.sent += [entry.event_id for entry in entries]
        if len(self.sent) >= self.expected:
            self.all_sent.set()

    def journal(self, last_id: int = 0, limit: int = 100) -> Journal:
        journal = Journal(self.write, self.publish, self.trouble.append, last_id, limit)
        journal.start()
        return journal


def alert() -> Entry:
    raised = AlertRaised(
        ts=1.0, alert_id="1" * 32, call_id=CALL, agent_id="1001", kind="help", level=0
    )
    return Entry(raised, "1001", None, Alert("1" * 32, CALL, "1001", "help", 0, [], "", 1.0))


def tap(call: Call | None = None) -> Entry:
    return Entry(TapStarted(ts=1.0, call_id=CALL), "1001", call)


async def test_an_alert_is_stored_and_then_sent() -> None:
    disk = Disk()
    journal = disk.journal(last_id=41)
    await journal.stored([tap(), alert()])
    await journal.close(5)
    assert disk.order == ["stored", "sent"]
    assert disk.kept == disk.sent == [42, 43]


async def test_while_the_store_fails_nothing_is_sent_and_then_all_of_it_once() -> None:
    disk = Disk()
    disk.broken, disk.expected = True, 2
    journal = disk.journal()
    waiting = asyncio.create_task(journal.stored([alert()]))
    await disk.tried.wait()
    journal.append([tap()])
    assert disk.sent == []
    assert not waiting.done()
    assert disk.trouble == ["disk is full"]
    disk.broken = False
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(disk.all_sent.wait(), 10)
    await journal.close(5)
    assert disk.kept == disk.sent == [1, 2]
    assert disk.trouble == ["disk is full", None]


async def test_beyond_its_bound_the_oldest_is_dropped_but_no_alert_and_no_state() -> None:
    disk = Disk()
    disk.broken = True
    journal = disk.journal(limit=10)
    journal.append([tap()])
    await disk.tried.wait()
    call = Call(CALL, "1001", "", "", 1.0)
    journal.append([alert(), tap(call), *[tap() for _ in range(12)]])
    assert len(journal) == 10
    assert journal.dropped == 4
    disk.broken, disk.expected = False, 11
    await asyncio.wait_for(disk.all_sent.wait(), 10)
    await journal.close(5)
    assert disk.calls == [CALL]
    assert len(disk.kept) == 11


async def test_many_events_share_a_commit() -> None:
    disk = Disk()
    journal = disk.journal(limit=2000)
    await journal.stored([tap() for _ in range(1000)])
    await journal.close(5)
    assert disk.order.count("stored") == 2
    assert disk.sent == list(range(1, 1001))


async def test_a_locked_database_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        call_id = bridge.start_call()
        await console.until("call.answered")
        with closing(sqlite3.connect(desk.settings.database_path)) as other:
            other.execute("BEGIN IMMEDIATE")
            bridge.risk(call_id, 3)
            told = await console.next()
            assert (told["type"], told["component"]) == ("node.degraded", "store")
            assert told["degraded"]
            assert "id" not in told, "it could not be stored, so it has no number"
            async with desk.http(desk.agent) as http:
                assert (await http.get("/readyz")).status_code == 503
                asked = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
                assert asked.status_code == 503
                assert asked.json()["type"].endswith(":not_stored")
            assert [m["type"] for m in console.seen if m["type"] == "alert.raised"] == []
            other.rollback()
        kinds = {(await console.until("alert.raised"))["kind"] for _ in range(2)}
        assert kinds == {"risk", "help"}
        await console.until("node.degraded", component="store", degraded=False)


async def test_control_the_order_test_notices_a_journal_that_sends_first() -> None:
    """The negative control: publishing before writing turns the order round."""

    class SendsFirst(Journal):
        async def _commit(self, batch: Sequence[Entry]) -> None:
            self._publish(batch)
            await super()._commit(batch)

    disk = Disk()
    journal = SendsFirst(disk.write, disk.publish, disk.trouble.append, 0)
    journal.start()
    await journal.stored([alert()])
    await journal.close(5)
    with pytest.raises(AssertionError):
        assert disk.order[0] == "stored"


async def test_events_of_one_call_keep_their_order() -> None:
    disk = Disk()
    journal = disk.journal()
    started = CallStarted(ts=1.0, call_id=CALL, agent_id="1001", pbx_call_id="")
    first, second = Entry(started, "1001"), tap()
    await journal.stored([first, second])
    await journal.close(5)
    assert (first.event_id, second.event_id) == (1, 2)
