"""What a caller may ask for, over a running notifier's API, bus and command line."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner

from callshield.caller_mark import load_mark_keys, write_new_key
from callshield.caller_pseudonym import CallerKeys, load_caller_keys
from callshield.cli import app
from callshield.errors import CallshieldError
from callshield.messages_fairness import CallerEnded
from callshield.messages_privacy import CallerNumber, PrivacyRequest, RecordingsErased
from callshield.privacy_commands import _ask
from callshield.settings import Settings
from notifier import erasing, erasure, fairness, routes_evidence, routes_privacy
from notifier.audit import verify
from notifier.database import place_of
from notifier.erased_list import noted, path_of
from notifier.live import Entry
from notifier.store import Store
from notifier.tokens import create_token
from tests.mentions import mentioned
from tests.notifier_kit import WITHIN_S, Bridge, Console, Desk, Process, desk_in_process
from tests.privacy_kit import (
    AGENT_HZ,
    CALLER_HZ,
    loudest_hz,
    record_call,
    recording_toml,
    wave_of,
)
from tests.receiver import receiver
from tests.test_erasure import table
from tests.test_fairness_api import QUALITY, a_month, rows, say, until
from tests.test_fairness_api import verify as checked
from tests.test_webhooks import _secret_file

NUMBER = "010-9876-5432"
E164 = "+821098765432"
QUOTE = "야 이 새*야"
NAME = "김민수"
WANTED = {"number": NUMBER, "ref": "R-2"}
KEEP = "[callbacks]\nkeep_number = true\n"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ended is settled at once, and what waits is looked at often."""
    monkeypatch.setattr(erasing, "SETTLED_S", 0.0)
    monkeypatch.setattr(erasing, "TICK_S", 0.1)


def keys_of(settings: Settings) -> CallerKeys:
    """Made by the bridge, in a real node."""
    return load_caller_keys(settings.caller_keys_path)


async def one_call(
    desk: Desk, bridge: Bridge, console: Console, *, number: str = E164, end: bool = True
) -> str:
    """A whole call with words and an alert, of this number."""
    call_id = bridge.start_call()
    keys = keys_of(desk.settings)
    pseudonym, key_id = keys.pseudonym(number)
    sealed = keys.seal(number, call_id)
    bridge.send(CallerNumber(call_id=call_id, pseudonym=pseudonym, key_id=key_id, sealed=sealed))
    bridge.notice(call_id, purposes=["recording", "quality"])
    bridge.words(call_id, 2, QUOTE)
    await console.until("alert.raised", call_id=call_id)
    if end:
        bridge.end_call(call_id)
        await console.until("call.ended", call_id=call_id)
    return call_id


@asynccontextmanager
async def site(folder: Path, extra: str = "") -> AsyncIterator[tuple[Desk, Bridge, Console, str]]:
    """A node with a bridge, a supervisor's console, and an administrator's token."""
    async with (
        desk_in_process(folder, extra) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", NAME)
        yield desk, bridge, console, admin


def everything(settings: Settings) -> str:
    """All that is in the database, as text."""
    with closing(sqlite3.connect(settings.database_path)) as stored:
        return "\n".join(stored.iterdump())


async def erase(
    desk: Desk, token: str, **wanted: str
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    code, answer = await say(desk, token, "POST", "/privacy/erase", {"ref": "R-1", **wanted})
    assert code == 200, answer
    return [(one["call_id"], one["outcome"]) for one in answer["outcomes"]], answer


# ---------------------------------------------------------------------------------- the number


async def test_a_pseudonym_is_kept_with_the_call_and_nobody_is_told(tmp_path: Path) -> None:
    async with site(tmp_path) as (desk, bridge, console, _):
        async with desk.console(desk.agent, 0) as agent:
            call_id = await one_call(desk, bridge, console)
            pseudonym, key_id = keys_of(desk.settings).pseudonym(E164)
            found = rows(
                desk.settings, "SELECT call_id, caller_pseudonym, caller_key_id FROM calls"
            )
            assert found == [(call_id, pseudonym, key_id)]
            await agent.until("call.ended", call_id=call_id)
            seen = json.dumps([*agent.seen, *console.seen])
        (body,) = rows(desk.settings, "SELECT group_concat(body) FROM events")
        for text in (seen, body[0]):
            assert pseudonym not in text
            assert key_id not in text
        kept = everything(desk.settings)
        assert "98765432" not in kept
        assert pseudonym in kept


async def test_the_number_of_a_call_back_is_kept_encrypted_until_somebody_called(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, KEEP) as (desk, bridge, console, _):
        call_id = await one_call(desk, bridge, console, end=False)
        async with desk.http(desk.agent) as http:
            await http.post(
                f"/api/v1/calls/{call_id}/actions", json={"action": "promise_call_back"}
            )
        _, listed = await say(desk, desk.supervisor, "GET", "/callbacks")
        (item,) = listed["callbacks"]
        callback_id = item["callback_id"]
        kept = rows(desk.settings, "SELECT sealed_number FROM callbacks")
        assert kept[0][0]
        assert "98765432" not in json.dumps(listed) + everything(desk.settings)
        code, told = await say(desk, desk.supervisor, "POST", f"/callbacks/{callback_id}/number")
        assert (code, told["number"]) == (200, E164)
        reads = rows(desk.settings, "SELECT body FROM events WHERE type = 'record.read'")
        assert json.loads(reads[-1][0])["what"] == "number"
        assert (await say(desk, desk.agent, "POST", f"/callbacks/{callback_id}/number"))[0] == 403
        await say(desk, desk.supervisor, "POST", f"/callbacks/{callback_id}/done")
        assert rows(desk.settings, "SELECT sealed_number FROM callbacks") == [("",)]
        code, _ = await say(desk, desk.supervisor, "POST", f"/callbacks/{callback_id}/number")
        assert code == 404, "nobody is to be called any more"


async def test_without_the_setting_no_number_is_kept_of_a_call_back(tmp_path: Path) -> None:
    """Negative control of the one before."""
    async with site(tmp_path) as (desk, bridge, console, _):
        call_id = await one_call(desk, bridge, console, end=False)
        async with desk.http(desk.agent) as http:
            await http.post(
                f"/api/v1/calls/{call_id}/actions", json={"action": "promise_call_back"}
            )
        assert rows(desk.settings, "SELECT sealed_number FROM callbacks") == [("",)]
        _, listed = await say(desk, desk.supervisor, "GET", "/callbacks")
        callback_id = listed["callbacks"][0]["callback_id"]
        code, problem = await say(desk, desk.supervisor, "POST", f"/callbacks/{callback_id}/number")
        assert (code, problem["type"].rsplit(":")[-1]) == (409, "no_number")


# ------------------------------------------------------------------------------------- erasure


async def test_a_caller_is_erased_by_his_number_and_another_is_not(tmp_path: Path) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        mine = [await one_call(desk, bridge, console) for _ in range(2)]
        other = await one_call(desk, bridge, console, number="+82212345678")
        found, _ = await erase(desk, admin, number=NUMBER)
        assert found == [(call_id, "erased") for call_id in mine]
        assert set(bridge.erasing) == set(mine)
        left = rows(desk.settings, "SELECT call_id FROM calls")
        assert left == [(other,)]
        pseudonym, _ = keys_of(desk.settings).pseudonym(E164)
        kept = everything(desk.settings)
        assert pseudonym not in kept
        for call_id in mine:
            named = rows(desk.settings, f"SELECT type FROM events WHERE call_id = '{call_id}'")
            assert {kind for (kind,) in named} == {"erasure.asked", "call.erased"}
        assert QUOTE in kept, "of the other caller"
        verdict = await asyncio.to_thread(verify, place_of(desk.settings))
        assert verdict.faults == []
        assert verdict.erased > 10
        # Once more: there is nothing left to find it by; by its id it is known as erased.
        found, answer = await erase(desk, admin, number=NUMBER)
        assert found == []
        found, answer = await erase(desk, admin, call_id=mine[0])
        bridge.erased = lambda call_id: RecordingsErased(call_id=call_id, files=0)
        found, answer = await erase(desk, admin, call_id=mine[0])
        assert found == [(mine[0], "already")]
        found, answer = await erase(desk, admin, call_id="0" * 32)
        assert found == [("0" * 32, "unknown")]
        assert "nothing is held" in answer["outcomes"][0]["sentence"]
        answered = rows(
            desk.settings, "SELECT body FROM events WHERE type = 'privacy.answered' ORDER BY id"
        )
        first = json.loads(answered[0][0])
        assert (first["kind"], first["scope"], first["calls"]) == ("erasure", "number", 2)
        assert first["ref"] == "R-1"


async def test_the_same_on_each_database(tmp_path: Path, store_toml: str) -> None:
    async with site(tmp_path, store_toml) as (desk, bridge, console, admin):
        place = place_of(desk.settings)
        mine = await one_call(desk, bridge, console)
        other = await one_call(desk, bridge, console, number="+82212345678")
        code, answer = await say(desk, admin, "POST", "/privacy/access", WANTED)
        assert code == 200
        assert [one["call_id"] for one in answer["held"]["calls"]] == [mine]
        assert (await erase(desk, admin, number=NUMBER))[0] == [(mine, "erased")]
        assert [row["call_id"] for row in table(place, "calls")] == [other]
        assert table(place, "erasures") == []
        verdict = await asyncio.to_thread(verify, place)
        assert (verdict.faults, verdict.erased > 5) == ([], True)


async def test_a_console_that_comes_back_is_sent_nothing_of_an_erased_call(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        gone = await one_call(desk, bridge, console)
        await erase(desk, admin, call_id=gone)
        stays = await one_call(desk, bridge, console)
        for token in (desk.agent, desk.supervisor, admin):
            async with desk.console(token, 0) as again:
                await again.until("call.ended", call_id=stays)
                assert not any(event.get("call_id") == gone for event in again.seen)
                assert not any(event["type"] == "erased" for event in again.seen)
        # His own list, and an action after it: as if it had never been.
        _, listed = await say(desk, desk.agent, "GET", "/me/calls")
        assert gone not in json.dumps(listed)
        code, _ = await say(
            desk, desk.agent, "POST", f"/calls/{gone}/after", {"action": "evidence"}
        )
        assert code == 404


async def test_an_open_alert_of_it_leaves_the_screens(tmp_path: Path) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        _, listed = await say(desk, desk.supervisor, "GET", "/alerts")
        (alert,) = listed["alerts"]
        await erase(desk, admin, call_id=call_id)
        taken = await console.until("alert.acknowledged", alert_id=alert["alert_id"])
        assert taken["by"] == "erasure"
        assert (await say(desk, desk.supervisor, "GET", "/alerts"))[1]["alerts"] == []
        assert rows(desk.settings, "SELECT 1 FROM alerts") == []
        kinds = rows(desk.settings, f"SELECT type FROM events WHERE call_id = '{call_id}'")
        assert {kind for (kind,) in kinds} == {"erasure.asked", "call.erased"}
        assert (await asyncio.to_thread(verify, place_of(desk.settings))).faults == []


async def test_what_is_held_as_evidence_waits_and_goes_when_that_is_settled(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        _, asked = await say(
            desk, desk.agent, "POST", f"/calls/{call_id}/after", {"action": "evidence"}
        )
        found, answer = await erase(desk, admin, call_id=call_id)
        assert found == [(call_id, "waits")]
        assert "settled, and the call is erased then" in answer["outcomes"][0]["sentence"]
        assert bridge.erasing == [], "no file was touched"
        request = f"/requests/{asked['request_id']}"
        why = {"reason": "the recording says something else"}
        await say(desk, desk.supervisor, "POST", f"{request}/refuse", why)
        _, answer = await erase(desk, admin, call_id=call_id)
        sentence = answer["outcomes"][0]["sentence"]
        assert "at the latest, and the call is erased then" in sentence
        assert why["reason"] not in sentence
        _, listed = await say(desk, admin, "GET", "/privacy/erasures")
        (item,) = listed["erasures"]
        assert (item["call_id"], item["waits"], item["ref"]) == (call_id, "evidence", "R-1")
        assert item["sentence"] == sentence
        await asyncio.sleep(0.3)
        assert rows(desk.settings, "SELECT call_id FROM calls") == [(call_id,)]
        assert (await say(desk, desk.supervisor, "POST", f"{request}/approve"))[0] == 200
        await desk.hand_out(call_id)
        assert (await say(desk, desk.supervisor, "POST", f"{request}/done"))[0] == 200

        async def gone() -> bool:
            return not (await say(desk, admin, "GET", "/privacy/erasures"))[1]["erasures"]

        await until(gone)
        assert bridge.erasing == [call_id]
        assert rows(desk.settings, "SELECT call_id FROM calls") == []
        said = rows(desk.settings, "SELECT kind FROM said")
        assert said == [("evidence",)], "the agent's own word stays"
        decided = rows(desk.settings, "SELECT state, reason FROM evidence_decisions")
        assert decided == [("approved", "")], "and what was decided, without what was written"
        assert why["reason"] not in everything(desk.settings)
        assert (await asyncio.to_thread(verify, place_of(desk.settings))).faults == []
        assert call_id in noted(path_of(desk.settings.node.state_dir))


@pytest.mark.parametrize("who", ["the store is asked", "the store is not asked"])
async def test_no_sound_goes_before_it_is_stored_that_the_evidence_was_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """What holds a call is over when that is committed, not before; *not asked* is the control."""
    asked, goes_on, looked = asyncio.Event(), asyncio.Event(), 0
    write, held = Store.write, erasure.held

    async def late(store: Store, entries: Sequence[Entry], *more: Any) -> None:
        if any(getattr(entry.event, "state", "") == "done" for entry in entries):
            asked.set()
            await goes_on.wait()
        await write(store, entries, *more)

    async def counted(connection: AsyncConnection, call_ids: Collection[str]) -> set[str]:
        nonlocal looked
        looked += 1
        return await held(connection, call_ids) if who == "the store is asked" else set()

    monkeypatch.setattr(Store, "write", late)
    monkeypatch.setattr(erasing, "held", counted)
    monkeypatch.setattr(routes_evidence, "STORED_WITHIN_S", WITHIN_S)
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        after = f"/calls/{call_id}/after"
        _, wanted = await say(desk, desk.agent, "POST", after, {"action": "evidence"})
        assert (await erase(desk, admin, call_id=call_id))[0] == [(call_id, "waits")]
        request = f"/requests/{wanted['request_id']}"
        await say(desk, desk.supervisor, "POST", f"{request}/approve")
        await desk.hand_out(call_id)
        settling = asyncio.create_task(say(desk, desk.supervisor, "POST", f"{request}/done"))
        try:
            async with asyncio.timeout(WITHIN_S):
                await asked.wait()
            before = looked

            async def tried() -> bool:
                return looked > before + 1 or bool(bridge.erasing)

            await until(tried)
            early = list(bridge.erasing)
        finally:
            goes_on.set()
        assert (await settling)[0] == 200
        assert early == ([] if who == "the store is asked" else [call_id])

        async def gone() -> bool:
            return not rows(desk.settings, "SELECT call_id FROM calls")

        await until(gone)
        assert bridge.erasing == [call_id], "asked for once"


async def test_evidence_asked_for_while_the_sound_goes_keeps_the_rest(tmp_path: Path) -> None:
    """Asked for in the very moment: what is not gone yet stays."""
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        bridge.erased = lambda _: None  # it takes its time
        working = asyncio.create_task(erase(desk, admin, call_id=call_id))
        async with asyncio.timeout(WITHIN_S):
            while call_id not in bridge.erasing:
                bridge.asked.clear()
                await bridge.asked.wait()
        await say(desk, desk.agent, "POST", f"/calls/{call_id}/after", {"action": "evidence"})
        bridge.send(RecordingsErased(call_id=call_id, files=0))
        found, answer = await working
        assert found == [(call_id, "waits")]
        assert "held as evidence" in answer["outcomes"][0]["sentence"]
        assert rows(desk.settings, "SELECT call_id FROM calls") == [(call_id,)]


async def test_while_its_rows_go_the_agent_is_told_that_it_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never *done* for what is not kept; the rest is the agent's own, and is given."""
    reached, goes_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> None:
        reached.set()
        assert goes_on.wait(WITHIN_S)

    async with site(tmp_path, "[aftercare]\nrest_s = 600\n") as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        other = await one_call(desk, bridge, console)
        monkeypatch.setattr(erasing, "note", slow)
        working = asyncio.create_task(erase(desk, admin, call_id=call_id))
        assert await asyncio.to_thread(reached.wait, WITHIN_S)
        after = f"/calls/{call_id}/after"
        for body in ({"action": "evidence"}, {"action": "abusive"}):
            code, problem = await say(desk, desk.agent, "POST", after, body)
            assert (code, problem["type"].rsplit(":")[-1]) == (409, "being_erased"), problem
        assert (await say(desk, desk.agent, "POST", after, {"action": "rest"}))[0] == 200
        # Control: another call's is taken.
        after = f"/calls/{other}/after"
        assert (await say(desk, desk.agent, "POST", after, {"action": "evidence"}))[0] == 200
        goes_on.set()
        assert (await working)[0] == [(call_id, "erased")]
        kept = rows(desk.settings, "SELECT call_id, kind FROM said ORDER BY kind")
        assert kept == [(other, "evidence"), (call_id, "rest")]
        assert rows(desk.settings, "SELECT call_id FROM calls") == [(other,)]
        assert rows(desk.settings, f"SELECT 1 FROM marks WHERE call_id = '{call_id}'") == []


async def test_a_call_that_runs_waits_for_its_end(tmp_path: Path) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console, end=False)
        found, _ = await erase(desk, admin, number=NUMBER)
        assert found == [(call_id, "waits")]
        bridge.end_call(call_id)

        async def gone() -> bool:
            return not rows(desk.settings, "SELECT call_id FROM calls")

        await until(gone)
        assert bridge.erasing == [call_id]


async def test_a_call_that_has_just_ended_waits_for_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "SETTLED_S", 60.0)
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        found, _ = await erase(desk, admin, call_id=call_id)
        assert found == [(call_id, "waits")]


async def test_without_a_bridge_or_with_a_disk_that_refuses_the_rows_wait_too(
    tmp_path: Path,
) -> None:
    async with desk_in_process(tmp_path) as desk:
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", "a")
        async with desk.bridge() as bridge, desk.console(desk.supervisor) as console:
            call_id = await one_call(desk, bridge, console)
            bridge.erased = lambda one: RecordingsErased(
                call_id=one, files=0, problem="the disk is mounted read-only"
            )
            found, answer = await erase(desk, admin, call_id=call_id)
            assert found == [(call_id, "waits")]
            assert "mounted read-only" in answer["outcomes"][0]["sentence"]
        found, answer = await erase(desk, admin, call_id=call_id)
        assert found == [(call_id, "waits")]
        assert "the bridge is not connected" in answer["outcomes"][0]["sentence"]
        assert rows(desk.settings, "SELECT waits FROM erasures") == [("recordings",)]
        assert rows(desk.settings, "SELECT call_id FROM calls") == [(call_id,)]
        async with desk.bridge():

            async def gone() -> bool:
                return not rows(desk.settings, "SELECT call_id FROM calls")

            await until(gone)


async def test_what_never_was_waits_for_nobody_for_ever(tmp_path: Path) -> None:
    """Asked for while the bridge was away, which might have had a recording of it."""
    async with desk_in_process(tmp_path) as desk:
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", "a")
        found, _ = await erase(desk, admin, call_id="0" * 32)
        assert found == [("0" * 32, "waits")]
        async with desk.bridge() as bridge:
            bridge.erased = lambda call_id: RecordingsErased(call_id=call_id, files=0)

            async def gone() -> bool:
                return not (await say(desk, admin, "GET", "/privacy/erasures"))[1]["erasures"]

            await until(gone)
        assert rows(desk.settings, "SELECT 1 FROM erasures") == []
        kinds = [kind for (kind,) in rows(desk.settings, "SELECT type FROM events")]
        assert "call.erased" not in kinds


async def test_a_node_that_is_killed_goes_on_with_what_was_asked(tmp_path: Path) -> None:
    notifier = Process(tmp_path)
    await notifier.start()
    desk = notifier.desk
    admin = await asyncio.to_thread(create_token, desk.settings, "admin", "a")
    async with desk.bridge() as bridge, desk.console(desk.supervisor) as console:
        call_id = await one_call(desk, bridge, console)
    found, _ = await erase(desk, admin, call_id=call_id)  # it has just ended
    assert found == [(call_id, "waits")]
    await notifier.end(signal.SIGKILL)
    with closing(sqlite3.connect(desk.settings.database_path)) as stored, stored:
        stored.execute("UPDATE calls SET ended_ts = ended_ts - 120")
    await notifier.start()
    _, listed = await say(desk, admin, "GET", "/privacy/erasures")
    assert [item["call_id"] for item in listed["erasures"]] == [call_id]
    async with desk.bridge():

        async def gone() -> bool:
            return not rows(desk.settings, "SELECT call_id FROM calls")

        await until(gone)
    assert await notifier.end(signal.SIGTERM) == 0
    assert verify(place_of(desk.settings)).faults == []


async def test_an_erasure_of_many_calls_is_stored_first_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked is answered in time, with what is done and what is not yet."""
    within_s = 3.0
    monkeypatch.setattr(routes_privacy, "ERASED_WITHIN_S", within_s)
    monkeypatch.setattr(erasing, "BATCH", 2)
    tidied = 0

    async def tidy(_: Store) -> bool:
        nonlocal tidied
        tidied += 1
        return True

    async with site(tmp_path) as (desk, bridge, console, admin):
        mine = [await one_call(desk, bridge, console) for _ in range(5)]
        monkeypatch.setattr(erasing, "TICK_S", 60.0)
        await asyncio.sleep(0.3)
        monkeypatch.setattr(Store, "tidy", tidy)
        loop = asyncio.get_running_loop()

        def slow(call_id: str) -> None:
            """The first at once, however busy the machine is; the second not in time."""
            answer = RecordingsErased(call_id=call_id, files=1)
            loop.call_later(0.0 if call_id == mine[0] else within_s + 0.5, bridge.send, answer)

        at_once, bridge.erased = bridge.erased, slow
        found, answer = await erase(desk, admin, number=NUMBER)
        bridge.erased = at_once
        outcomes = [outcome for _, outcome in found]
        assert [call_id for call_id, _ in found] == mine
        assert set(outcomes[:1]) == {"erased"}
        assert outcomes[-1] == "waits", "cut off, and not by an error"
        assert answer["outcomes"][-1]["sentence"] == "it is being erased"
        assert tidied == 1, "once, not for each call"
        kinds = rows(
            desk.settings,
            "SELECT type FROM events WHERE type IN ('erasure.asked', 'call.erased') ORDER BY id",
        )
        assert [kind for (kind,) in kinds][:6] == [*["erasure.asked"] * 5, "call.erased"]
        _, listed = await say(desk, admin, "GET", "/privacy/erasures")
        assert [one["call_id"] for one in listed["erasures"]] == mine[outcomes.index("waits") :]
        # Asked again meanwhile: the same, not twice in the log.
        await erase(desk, admin, call_id=mine[-1])
        asked = rows(desk.settings, "SELECT count(*) FROM events WHERE type = 'erasure.asked'")
        assert asked == [(5,)]
        assert (await asyncio.to_thread(verify, place_of(desk.settings))).faults == []


async def test_a_node_that_is_killed_among_many_goes_on_with_the_rest(tmp_path: Path) -> None:
    notifier = Process(tmp_path)
    await notifier.start()
    desk = notifier.desk
    admin = await asyncio.to_thread(create_token, desk.settings, "admin", "a")
    async with desk.bridge() as bridge, desk.console(desk.supervisor) as console:
        mine = [await one_call(desk, bridge, console) for _ in range(3)]
    await notifier.end(signal.SIGKILL)
    with closing(sqlite3.connect(desk.settings.database_path)) as stored, stored:
        stored.execute("UPDATE calls SET ended_ts = ended_ts - 120")
    await notifier.start()
    async with desk.bridge() as bridge:
        # The first one's sound is gone; of the second the bridge says nothing.
        bridge.erased = lambda one: (
            RecordingsErased(call_id=one, files=1) if one == mine[0] else None
        )
        asking = asyncio.create_task(say(desk, admin, "POST", "/privacy/erase", WANTED))
        async with asyncio.timeout(WITHIN_S):
            while mine[1] not in bridge.erasing:
                bridge.asked.clear()
                await bridge.asked.wait()
        await notifier.end(signal.SIGKILL)
        await asyncio.gather(asking, return_exceptions=True)
    left = rows(desk.settings, "SELECT call_id FROM calls")
    assert {one for (one,) in left} == set(mine[1:]), "it was cut in the middle"
    assert {one for (one,) in rows(desk.settings, "SELECT call_id FROM erasures")} == set(mine[1:])
    await notifier.start()
    async with desk.bridge():

        async def gone() -> bool:
            return not rows(desk.settings, "SELECT call_id FROM calls")

        await until(gone)
    assert await notifier.end(signal.SIGTERM) == 0
    assert verify(place_of(desk.settings)).faults == []


async def test_a_mark_of_the_number_goes_with_it(tmp_path: Path) -> None:
    ring = tmp_path / "ringback.keys"
    extra = f'[ringback]\nenabled = true\nkey_file = "{ring}"\n'
    write_new_key(ring, keep_old=False)
    async with site(tmp_path, extra) as (desk, bridge, console, admin):
        by_call: list[str] = []
        by_number: list[str] = []
        for kept in (by_call, by_number):
            call_id = await one_call(desk, bridge, console, end=False)
            bridge.ending(call_id)
            await console.until("call.ending", call_id=call_id)
            mark, key_id = load_mark_keys(ring).mark(E164)
            bridge.send(CallerEnded(ts=time.time(), call_id=call_id, mark=mark, key_id=key_id))

            async def marked() -> bool:
                return bool(rows(desk.settings, "SELECT mark FROM ringback_marks"))

            await until(marked)
            bridge.end_call(call_id)
            await console.until("call.ended", call_id=call_id)
            kept.append(call_id)
            if kept is by_call:
                await erase(desk, admin, call_id=call_id)
            else:
                _, answer = await erase(desk, admin, number=NUMBER)
                # Its own call took it away already.
                assert answer["marks"] in (0, 1)
            assert rows(desk.settings, "SELECT mark FROM ringback_marks") == []

            async def told() -> bool:
                return not bridge.recent_ends

            await until(told)


async def test_who_has_copies_is_told_which_call_was_erased(tmp_path: Path) -> None:
    async with receiver() as far_end:
        extra = (
            f'[webhooks.crm]\nurl = "http://127.0.0.1:{far_end.port}/crm"\n'
            f'secret_file = "{_secret_file(tmp_path)}"\nevents = ["call.erased"]\n'
        )
        async with site(tmp_path, extra) as (desk, bridge, console, admin):
            call_id = await one_call(desk, bridge, console)
            await erase(desk, admin, call_id=call_id)
            (letter,) = await far_end.until(1)
            assert letter.event["call_id"] == call_id
            assert letter.event.keys() <= {"id", "type", "ts", "call_id"}


async def test_a_drawn_call_that_is_erased_leaves_the_draw_checkable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can hide a draw behind an erasure, and none looks like a fraud for it."""
    monkeypatch.setattr(fairness, "STEADY_S", 0.0)
    monkeypatch.setattr(fairness, "TICK_S", 0.1)
    settings, month = a_month(tmp_path, {"1001": 5, "1002": 4})
    async with desk_in_process(tmp_path, QUALITY) as desk, desk.bridge():
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", "a")
        async with desk.console(desk.agent, 0) as console:
            drawn = await console.until("quality.drawn")
        assert (await erase(desk, admin, call_id=drawn["call_id"]))[0][0][1] == "erased"
        left = rows(settings, "SELECT call_id FROM calls")
        assert (drawn["call_id"],) not in left
        assert len(left) == 8
        _, own = await say(desk, desk.agent, "GET", "/me/quality")
        assert drawn["draw_id"] in json.dumps(own), "the draw is the agent's"
    code, said = await asyncio.to_thread(checked, settings, tmp_path, month, capsys)
    assert (code, "8 of those calls are still known" in said) == (0, True), said


# -------------------------------------------------------------------------------------- access


async def test_a_caller_is_given_what_is_held_and_no_agent_is_named(tmp_path: Path) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        async with desk.console(desk.agent, 0) as agent:
            call_id = await one_call(desk, bridge, console)
            other = await one_call(desk, bridge, console, number="+82212345678")
            await say(desk, desk.agent, "POST", f"/calls/{call_id}/after", {"action": "abusive"})
            code, answer = await say(desk, admin, "POST", "/privacy/access", WANTED)
            assert code == 200, answer
            told = await agent.until("record.read", call_id=call_id)
            assert (told["what"], told["why"]) == ("access", "R-2")
        assert [one["outcome"] for one in answer["outcomes"]] == ["given"]
        text = json.dumps(answer, ensure_ascii=False)
        assert QUOTE in text
        assert other not in text
        for hidden in (NAME, "98765432", "agent.said", "request_id", "alert_id"):
            assert hidden not in text, hidden
        assert not mentioned("1001", text), "a call's id may hold these digits"
        (call,) = answer["held"]["calls"]
        (row,) = call["rows"]["calls"]
        assert row["agent_id"] == "상담사"
        assert row["caller_pseudonym"] is True, "that it is kept, not what it is"
        assert row["purposes"] == ["quality", "recording"]
        kinds = [event["type"] for event in call["events"]]
        assert {"call.started", "notice.finished", "risk.changed", "call.ended"} <= set(kinds)
        assert call["events_about_others"] > 0
        readings = rows(desk.settings, "SELECT body FROM events WHERE type = 'record.read'")
        assert [json.loads(body)["what"] for (body,) in readings] == ["access"]
        answered = rows(desk.settings, "SELECT body FROM events WHERE type = 'privacy.answered'")
        assert json.loads(answered[0][0])["kind"] == "access"


async def test_the_agent_finds_in_the_own_list_who_was_given_what_for_whom(tmp_path: Path) -> None:
    """Every way: by the API, by the command, and the number of a promised call-back."""
    async with site(tmp_path, KEEP) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console, end=False)
        async with desk.http(desk.agent) as http:
            await http.post(
                f"/api/v1/calls/{call_id}/actions", json={"action": "promise_call_back"}
            )
        bridge.end_call(call_id)
        await console.until("call.ended", call_id=call_id)
        # Control: nothing was read, so nothing is listed.
        assert (await say(desk, desk.agent, "GET", "/me/opened"))[1]["openings"] == []
        assert (await say(desk, admin, "POST", "/privacy/access", WANTED))[0] == 200
        _, listed = await say(desk, desk.agent, "GET", "/me/opened")
        (first,) = listed["openings"]
        assert (first["call_id"], first["why"], first["ref"]) == (call_id, "access", "R-2")
        assert (first["by_role"], first["by_name"]) == ("admin", NAME)
        _, callbacks = await say(desk, desk.supervisor, "GET", "/callbacks")
        callback_id = callbacks["callbacks"][0]["callback_id"]
        code, _ = await say(desk, desk.supervisor, "POST", f"/callbacks/{callback_id}/number")
        assert code == 200
        _, listed = await say(desk, desk.agent, "GET", "/me/opened")
        assert [(one["why"], one["ref"]) for one in listed["openings"]] == [
            ("number", callback_id),
            ("access", "R-2"),
        ]
        # Everybody's list has it too, without the call; another agent's has not.
        _, all_of_them = await say(desk, admin, "GET", "/quality/opened")
        assert [one["why"] for one in all_of_them["openings"]] == ["number", "access"]
        assert call_id not in json.dumps(all_of_them)
        assert (await say(desk, desk.other, "GET", "/me/opened"))[1] == {"openings": []}
        # Of a call whose row is gone its agent is told as well: its events say whose it was.
        with closing(sqlite3.connect(desk.settings.database_path)) as stored, stored:
            stored.execute("DELETE FROM calls")
            stored.execute("DELETE FROM openings")
        body = {"call_id": call_id, "ref": "R-4"}
        assert (await say(desk, admin, "POST", "/privacy/access", body))[0] == 200
        _, listed = await say(desk, desk.agent, "GET", "/me/opened")
        assert [one["ref"] for one in listed["openings"]] == ["R-4"]


async def test_the_command_wants_the_requests_name_and_writes_it_to_the_agents_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        run = command(tmp_path, admin, monkeypatch)
        out = tmp_path / "answer.zip"
        asked = ("access", "--call", call_id, "-o", str(out))
        for ref in ((), ("--ref", ""), ("--ref", " .")):
            code, said = await asyncio.to_thread(run, *asked, *ref)
            assert (code, "give --ref" in said, out.exists()) == (1, True, False)
        # Nor does the notifier take it of another program at its bus.
        wish = PrivacyRequest(
            request_id="1" * 32, kind="access", token=admin, ref="", call_id=call_id
        )
        with pytest.raises(CallshieldError, match="name the caller's request"):
            await asyncio.to_thread(_ask, desk.settings, wish)
        assert rows(desk.settings, "SELECT 1 FROM openings") == []
        assert rows(desk.settings, "SELECT 1 FROM events WHERE type = 'record.read'") == []
        code, said = await asyncio.to_thread(run, *asked, "--ref", "R-3")
        assert code == 0, said
        assert rows(desk.settings, "SELECT call_id, agent_id, why, ref FROM openings") == [
            (call_id, "1001", "access", "R-3")
        ]


async def test_one_answer_gives_so_many_calls_and_says_which_others_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_privacy, "MOST_GIVEN", 2)
    async with site(tmp_path) as (desk, bridge, console, admin):
        mine = [await one_call(desk, bridge, console) for _ in range(3)]
        code, answer = await say(desk, admin, "POST", "/privacy/access", WANTED)
        assert code == 200
        outcomes = [(one["call_id"], one["outcome"]) for one in answer["outcomes"]]
        assert outcomes == [(mine[0], "given"), (mine[1], "given"), (mine[2], "waits")]
        assert "by its id" in answer["outcomes"][2]["sentence"]
        assert [one["call_id"] for one in answer["held"]["calls"]] == mine[:2]
        read = rows(desk.settings, "SELECT call_id FROM openings ORDER BY call_id")
        assert read == sorted((one,) for one in mine[:2]), "no reading of what was not given"
        body = {"call_id": mine[2], "ref": "R-2"}
        _, answer = await say(desk, admin, "POST", "/privacy/access", body)
        assert [one["call_id"] for one in answer["held"]["calls"]] == mine[2:]


@pytest.mark.parametrize("where", ["beside", "on the loop"])
async def test_the_node_goes_on_while_much_is_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Gathering waits here until the loop lets it go on; *on the loop* is the control."""
    gather = routes_privacy.collect  # type: ignore[attr-defined]
    reached, goes_on, went_on = threading.Event(), threading.Event(), []

    def slow(*arguments: Any) -> dict[str, Any]:
        reached.set()
        went_on.append(goes_on.wait(WITHIN_S if where == "beside" else 1.0))
        return gather(*arguments)

    async def here(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return work(*arguments, **named)

    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        monkeypatch.setattr(routes_privacy, "collect", slow)
        if where == "on the loop":
            monkeypatch.setattr(asyncio, "to_thread", here)
        body = {"call_id": call_id, "ref": "R-2"}
        asking = asyncio.create_task(say(desk, admin, "POST", "/privacy/access", body))
        while not asking.done():
            await asyncio.sleep(0.01)
            if reached.is_set():
                goes_on.set()
        monkeypatch.undo()
        assert (await asking)[0] == 200
        assert went_on == [where == "beside"]


async def test_nothing_of_a_running_call_is_given(tmp_path: Path) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console, end=False)
        code, answer = await say(
            desk, admin, "POST", "/privacy/access", {"call_id": call_id, "ref": "R-2"}
        )
        assert code == 200
        assert [one["outcome"] for one in answer["outcomes"]] == ["waits"]
        assert answer["held"]["calls"] == []
        assert QUOTE not in json.dumps(answer, ensure_ascii=False)
        assert rows(desk.settings, "SELECT id FROM events WHERE type = 'record.read'") == []


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 409, "which"),
        ({"call_id": "a" * 32, "number": NUMBER}, 409, "which"),
        ({"number": "1588"}, 409, "not_findable"),
        ({"number": "+82212345678"}, 409, "not_findable"),
        ({"number": "107"}, 409, "not_findable"),
        ({"call_id": "a" * 31}, 422, "invalid"),
        ({"number": NUMBER, "ref": "a\nb"}, 409, "refused"),
        ({"number": NUMBER, "ref": ""}, 409, "refused"),
        ({"call_id": "a" * 32, "ref": " -"}, 409, "refused"),
    ],
)
@pytest.mark.parametrize("route", ["access", "erase"])
async def test_what_is_no_request_is_a_sentence(
    tmp_path: Path, body: dict[str, str], status: int, kind: str, route: str
) -> None:
    extra = '[ringback]\nnever = ["0212345678"]\n[callers]\nrelay_services = ["107"]\n'
    async with desk_in_process(tmp_path, extra) as desk:
        keys_of(desk.settings)
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", "a")
        code, problem = await say(desk, admin, "POST", f"/privacy/{route}", body)
        if route == "erase" and "ref" in body and not body["ref"].strip(" -"):
            assert code == 200, "an erasure needs no name"
            return
        assert (code, problem["type"].rsplit(":")[-1]) == (status, kind), problem
        assert NUMBER not in json.dumps(problem)


async def test_only_administrators_answer_callers(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk:
        auditor = await asyncio.to_thread(create_token, desk.settings, "auditor", "a")
        for token in (desk.agent, desk.supervisor, auditor):
            for route in ("access", "erase"):
                code, _ = await say(desk, token, "POST", f"/privacy/{route}", {"call_id": "a" * 32})
                assert code == 403
        code, answer = await say(desk, auditor, "GET", "/privacy/retention")
        assert code == 200
        kinds = {item["kind"]: item for item in answer["kinds"]}
        assert kinds["calls"]["days"] == 365
        assert kinds["calls"]["rule"] == 'retention.preset = "standard"'


# ---------------------------------------------------------------------------- the command line


def command(
    folder: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """``callshield privacy …`` as the administrator: exit status, and all that it said."""
    monkeypatch.setenv("CALLSHIELD_TOKEN", token)

    def run(*arguments: str, typed: str | None = None) -> tuple[int, str]:
        done = CliRunner().invoke(
            app,
            ["privacy", *arguments, "--config", str(folder / "callshield.toml")],
            input=typed,
        )
        return done.exit_code, done.output + str(done.exception or "")

    return run


async def test_the_command_writes_a_zip_for_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path, recording_toml(tmp_path)) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        record_call(desk.settings, call_id)
        run = command(tmp_path, admin, monkeypatch)
        out = tmp_path / "answer.zip"
        words = tmp_path / "agent.txt"
        words.write_text(f"안녕하세요, {NAME} 상담사(1001)입니다.", encoding="utf-8")
        code, said = await asyncio.to_thread(
            run, "access", "--call", call_id, "-o", str(out), "--ref", "R-3",
            "--agent-text", str(words), "--language", "en",
        )  # fmt: skip
        assert code == 0, said
        assert out.stat().st_mode & 0o777 == 0o600
        with zipfile.ZipFile(out) as packed:
            names = set(packed.namelist())
            assert names == {
                "README.txt",
                "data.json",
                f"calls/{call_id}/call.txt",
                f"calls/{call_id}/caller.wav",
            }
            texts = {n: packed.read(n).decode() for n in names if not n.endswith(".wav")}
            sound = wave_of(packed.read(f"calls/{call_id}/caller.wav"))
        for name, text in texts.items():
            for hidden in (NAME, "98765432", "alert_id", "sealed"):
                assert hidden not in text, (name, hidden)
            assert not mentioned("1001", text), name
        assert QUOTE in texts["data.json"]
        page = texts[f"calls/{call_id}/call.txt"]
        assert QUOTE in page
        assert "안녕하세요, staff 상담사(agent)입니다." in page
        assert "365 days" in texts["README.txt"]
        assert json.loads(texts["data.json"])["reference"] == "R-3"
        # Mono, and his side alone.
        assert loudest_hz(sound) == pytest.approx(CALLER_HZ, abs=2)
        heard = np.abs(np.fft.rfft(sound))
        hz = np.fft.rfftfreq(len(sound), 1 / 8000)
        agents = heard[np.abs(hz - AGENT_HZ) < 5].max()
        assert agents < 0.01 * heard.max(), "nothing of the agent's"
        answered = rows(desk.settings, "SELECT body FROM events WHERE type = 'privacy.answered'")
        event = json.loads(answered[0][0])
        assert event["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
        code, said = await asyncio.to_thread(
            run, "access", "--call", call_id, "-o", str(out), "--ref", "R-3"
        )
        assert (code, "is there already" in said) == (1, True)
        # A recording that cannot be opened: nothing half-written stays.
        (tmp_path / "recording.keys").unlink()
        other = tmp_path / "other.zip"
        code, said = await asyncio.to_thread(
            run, "access", "--call", call_id, "-o", str(other), "--ref", "R-3"
        )
        assert code == 1
        assert "key" in said
        assert not other.exists()
        left = os.listdir(tmp_path)
        assert not [name for name in left if name.startswith(("other", ".callshield-"))]
        code, said = await asyncio.to_thread(
            run,
            "access",
            "--call",
            call_id,
            "-o",
            str(other),
            "--ref",
            "R-3",
            "--without-recordings",
        )
        assert code == 0, said
        with zipfile.ZipFile(other) as packed:
            assert not any(name.endswith(".wav") for name in packed.namelist())


async def test_the_agents_voice_is_given_only_where_the_configuration_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = recording_toml(tmp_path) + '[privacy]\nagent_channel = "include"\n'
    async with site(tmp_path, extra) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
        record_call(desk.settings, call_id)
        out = tmp_path / "answer.zip"
        run = command(tmp_path, admin, monkeypatch)
        code, said = await asyncio.to_thread(
            run, "access", "--call", call_id, "-o", str(out), "--ref", "R-3"
        )
        assert code == 0, said
        with zipfile.ZipFile(out) as packed:
            given = {
                side: wave_of(packed.read(f"calls/{call_id}/{side}.wav"))
                for side in ("caller", "agent")
            }
        assert loudest_hz(given["caller"]) == pytest.approx(CALLER_HZ, abs=2)
        assert loudest_hz(given["agent"]) == pytest.approx(AGENT_HZ, abs=2)


async def test_the_command_erases_asks_first_and_says_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        held = await one_call(desk, bridge, console)
        await say(desk, desk.agent, "POST", f"/calls/{held}/after", {"action": "evidence"})
        free = await one_call(desk, bridge, console)
        run = command(tmp_path, admin, monkeypatch)
        code, said = await asyncio.to_thread(run, "erase", "--number", NUMBER, typed="n\n")
        assert (code, "nothing was erased" in said) == (1, True)
        assert len(rows(desk.settings, "SELECT 1 FROM calls")) == 2
        code, said = await asyncio.to_thread(
            run, "erase", "--number", "-", "--yes", "--json", typed=f"{NUMBER}\n"
        )
        assert code == 1, "something waits"
        answer = json.loads(said[said.index("{") : said.rindex("}") + 1])
        outcomes = {one["call_id"]: one["outcome"] for one in answer["calls"]}
        assert outcomes == {held: "waits", free: "erased"}
        code, said = await asyncio.to_thread(run, "waiting")
        assert (code, held in said, free in said) == (0, True, False)
        code, said = await asyncio.to_thread(run, "erase", "--call", "0" * 31, "--yes")
        assert (code, "32 small hexadecimal digits" in said) == (1, True)
        monkeypatch.setenv("CALLSHIELD_TOKEN", desk.supervisor)
        code, said = await asyncio.to_thread(run, "erase", "--call", held, "--yes")
        assert (code, "administrator" in said) == (1, True)


async def test_the_command_needs_a_running_node_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        call_id = await one_call(desk, bridge, console)
    run = command(tmp_path, admin, monkeypatch)
    out = tmp_path / "answer.zip"
    for arguments in (["access", "-o", str(out), "--ref", "R-3"], ["erase", "--yes"]):
        code, said = await asyncio.to_thread(run, *arguments, "--call", call_id)
        assert (code, "start the node" in said) == (1, True), said
    assert not out.exists()
    code, said = await asyncio.to_thread(run, "access", "-o", str(out), "--ref", "R-3")
    assert (code, "--call ID or --number N" in said) == (1, True)
    assert rows(desk.settings, "SELECT call_id FROM calls") == [(call_id,)]


async def test_keys_rotate_and_go_when_no_call_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as (desk, bridge, console, admin):
        run = command(tmp_path, admin, monkeypatch)
        old = await one_call(desk, bridge, console)
        first = keys_of(desk.settings).ids()[0]
        code, said = await asyncio.to_thread(run, "rotate-key")
        assert code == 0, said
        young = await one_call(desk, bridge, console)
        second = keys_of(desk.settings).ids()[0]
        assert first != second
        pseudonyms = rows(desk.settings, "SELECT DISTINCT caller_pseudonym FROM calls")
        assert len(pseudonyms) == 2, "of two keys they cannot be told to be one caller's"
        code, said = await asyncio.to_thread(run, "keys")
        assert said.splitlines()[:2] == [f"{second}  1 calls", f"{first}  1 calls"]
        # Needed: it stays, and both calls are found by the number.
        await asyncio.to_thread(run, "rotate-key", "--forget-unused")
        assert first in keys_of(desk.settings).ids()
        found, _ = await erase(desk, admin, number=NUMBER)
        assert {one for one, _ in found} == {old, young}
        code, said = await asyncio.to_thread(run, "rotate-key", "--forget-unused")
        assert f"{first} forgotten" in said
        assert first not in keys_of(desk.settings).ids()


async def test_who_finds_nothing_by_number_is_told_that_older_calls_may_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path, "[retention]\ncalls_days = 30\n") as (desk, bridge, console, admin):
        await one_call(desk, bridge, console)
        with closing(sqlite3.connect(desk.settings.database_path)) as stored, stored:
            stored.execute("DELETE FROM calls")  # its time was over; that of its events is not
        run = command(tmp_path, admin, monkeypatch)
        out = str(tmp_path / "answer.zip")
        for asked in (["access", "-o", out, "--ref", "R-1"], ["erase", "--yes"]):
            _, said = await asyncio.to_thread(run, *asked, "--number", NUMBER)
            assert "no call of this number is held; calls older than" in said
            assert "events_days = 365" in said
