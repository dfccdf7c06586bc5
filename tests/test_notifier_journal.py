"""Stored before sent, also when the disk says no."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from callshield.messages import AlertRaised, CallStarted, TapStarted
from callshield.settings import Settings
from notifier import database
from notifier.database import connector, place_of
from notifier.journal import Journal
from notifier.live import Alert, Call, Entry
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


async def test_what_somebody_waits_for_is_not_dropped() -> None:
    disk = Disk()
    disk.broken = True
    journal = disk.journal(limit=5)
    journal.append([tap()])
    await disk.tried.wait()
    waiting = asyncio.create_task(journal.stored([tap()]))
    await asyncio.sleep(0)
    journal.append([tap() for _ in range(20)])
    assert journal.dropped == 16
    disk.broken = False
    await asyncio.wait_for(waiting, 10)
    await journal.close(5)


async def test_many_events_share_a_commit() -> None:
    disk = Disk()
    journal = disk.journal(limit=2000)
    await journal.stored([tap() for _ in range(1000)])
    await journal.close(5)
    assert disk.order.count("stored") == 2
    assert disk.sent == list(range(1, 1001))


@contextlib.asynccontextmanager
async def locked(settings: Settings) -> AsyncIterator[None]:
    """Somebody else holds the database for himself."""
    place = place_of(settings)
    if place.path is not None:
        with closing(sqlite3.connect(place.path)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.rollback()
        return
    connection = await connector(place)()
    async with connection.transaction():
        await connection.execute("LOCK TABLE events IN EXCLUSIVE MODE")
        yield
    await connection.close()


async def test_a_locked_database_is_told_and_loses_nothing(
    tmp_path: Path, store_toml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_TIMEOUT_S", 1.0)
    async with (
        desk_in_process(tmp_path, store_toml) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        call_id = bridge.start_call()
        await console.until("call.answered")
        async with locked(desk.settings):
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
        kinds = {(await console.until("alert.raised"))["kind"] for _ in range(2)}
        assert kinds == {"risk", "help"}
        await console.until("node.degraded", component="store", degraded=False)


async def test_an_agents_word_that_waits_for_a_locked_database_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_TIMEOUT_S", 1.0)
    async with (
        desk_in_process(tmp_path, "[aftercare]\nrest_s = 600\n") as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.http(desk.agent) as http,
    ):
        call_id = bridge.start_call()
        await agent.until("call.answered")
        bridge.end_call(call_id)
        await agent.until("call.ended")
        async with locked(desk.settings):
            said = await http.post(f"/api/v1/calls/{call_id}/after", json={"action": "abusive"})
            assert said.status_code == 503
        await agent.until("agent.said")
        await agent.until("rest.changed")
        (kept,) = (await http.get("/api/v1/me/requests")).json()["requests"]
        assert (kept["call_id"], kept["action"]) == (call_id, "abusive")


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
