"""Two nodes as one floor: calls, alerts, actions and words of the other node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifier.cluster.service import ANSWER_S
from notifier.database import place_of
from tests.cluster_kit import (
    all_heard,
    own_events,
    two_desks,
    until,
    until_heard,
    until_listed,
)
from tests.nats_server import NatsServer
from tests.notifier_kit import WITHIN_S, Desk
from tests.postgres import Database
from tests.store_kit import rows as rows_of

# A busy machine takes its time to start two nodes.
pytestmark = [pytest.mark.postgres, pytest.mark.nats, pytest.mark.timeout(300)]


@pytest.fixture
def bus() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def desks(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> AsyncIterator[tuple[Desk, Desk]]:
    async with two_desks(tmp_path, cluster_database, bus) as both:
        yield both


async def test_a_supervisor_sees_and_takes_what_the_other_node_has(
    desks: tuple[Desk, Desk],
) -> None:
    a, b = desks
    async with (
        b.bridge() as bridge,
        a.console(a.supervisor) as console,
        a.http(a.supervisor) as http,
    ):
        call_id = bridge.start_call("1001")
        bridge.notice(call_id)
        bridge.words(call_id, 3, "씨*")
        started = await console.until("call.started", call_id=call_id)
        assert started["node"] == "node-b"
        level = await console.until("risk.changed", call_id=call_id)
        assert level["level"] == 3
        assert "reasons" not in level
        alert = await console.until("alert.raised", call_id=call_id)
        calls = await until_listed(a, "calls", "calls", 1)
        assert (calls[0]["node"], calls[0]["level"], calls[0]["reasons"]) == ("node-b", 3, None)
        alerts = await until_listed(a, "alerts", "alerts", 1)
        assert alerts[0]["node"] == "node-b"
        assert alerts[0]["escalation"]["step"] >= 1
        # Before the agent asks, an action is refused there as it is here.
        refused = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "warn"})
        assert (refused.status_code, refused.json()["type"]) == (
            403,
            "urn:callshield:problem:not_asked",
        )
        taken = await http.post(f"/api/v1/alerts/{alert['alert_id']}/acknowledge")
        assert taken.status_code == 200, taken.text
        assert taken.json()["acknowledged_by"]
        told = await console.until("alert.acknowledged", alert_id=alert["alert_id"])
        assert told["by"] == taken.json()["acknowledged_by"]
        assert await until_listed(b, "alerts", "alerts", 0) == []
        late = await http.post(f"/api/v1/alerts/{alert['alert_id']}/acknowledge")
        assert late.status_code == 409
        assert late.json()["acknowledged_by"] == taken.json()["acknowledged_by"]
        bridge.end_call(call_id)
        await console.until("call.ended", call_id=call_id)
        await until_listed(a, "calls", "calls", 0)


async def test_words_are_asked_for_where_they_are_and_never_on_the_stream(
    desks: tuple[Desk, Desk], bus: NatsServer
) -> None:
    a, b = desks
    quote = "씨발놈아"
    async with (
        b.bridge() as bridge,
        a.console(a.supervisor) as console,
        a.http(a.supervisor) as http,
        b.http(b.agent) as agent,
    ):
        call_id = bridge.start_call("1001")
        bridge.notice(call_id)
        bridge.words(call_id, 2, quote)
        await console.until("alert.raised", call_id=call_id)
        listed = await until_listed(a, "calls", "calls", 1)
        assert listed[0]["reasons"] is None
        assert readings(b) == []
        helped = await agent.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
        assert helped.status_code == 200
        while (await console.until("alert.raised"))["kind"] != "help":
            pass
        bridge.words(call_id, 3, quote)
        level = await console.until("risk.changed", level=3)
        assert "reasons" not in level, "words do not come by themselves"

        async def told_why() -> bool:
            return (await http.get("/api/v1/calls")).json()["calls"][0]["reasons"] is not None

        await until(told_why)
        calls = (await http.get("/api/v1/calls")).json()["calls"]
        assert calls[0]["reasons"][0]["words"] == [quote]
        # Who was shown them stands in the record of the node that has the call.
        assert [(one["by_role"], one["call_id"]) for one in readings(b)] == [
            ("supervisor", call_id)
        ]
        joined = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "join"})
        assert (joined.status_code, joined.json()["status"]) == (200, "done")
        command = bridge.commands[-1]
        assert (command.action, command.call_id) == ("join", call_id)
        assert command.by.startswith("supervisor:")
        await console.until("alert.acknowledged", how="join")
    written = b""
    for path in bus.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the server still works
            written += path.read_bytes()
    assert call_id.encode() in written, "control: this is where the stream is kept"
    assert quote.encode() not in written
    stored = str(rows_of(place_of(a.settings)))
    assert call_id in stored
    assert quote not in stored
    assert quote in str(rows_of(place_of(b.settings))), "control: the owning node has them"


def readings(desk: Desk) -> list[dict[str, Any]]:
    rows = rows_of(place_of(desk.settings))
    return [json.loads(row["body"]) for row in rows if row["type"] == "record.read"]


async def test_an_agent_handles_the_own_call_from_either_node(desks: tuple[Desk, Desk]) -> None:
    a, b = desks
    async with (
        b.bridge() as bridge,
        a.http(a.agent) as own,
        a.http(a.other) as other,
        a.console(a.agent) as console,
        a.console(a.other) as strange,
    ):
        call_id = bridge.start_call("1001")
        bridge.notice(call_id)
        bridge.words(call_id, 2, "씨*")
        await console.until("risk.changed", call_id=call_id)
        calls = await until_listed(a, "calls", "calls", 1, a.agent)
        assert calls[0]["reasons"] is None, "words are at the node that has the call"
        assert (await other.get("/api/v1/calls")).json()["calls"] == []
        path = f"/api/v1/calls/{call_id}/actions"
        assert (await other.post(path, json={"action": "end"})).status_code == 404
        assert (await own.post(path, json={"action": "join"})).status_code == 403
        assert (await own.post(path, json={"action": "nonsense"})).status_code == 422
        assert bridge.commands == []
        ended = await own.post(path, json={"action": "end"})
        assert (ended.status_code, ended.json()["status"]) == (200, "done"), ended.text
        assert [(one.action, one.by) for one in bridge.commands] == [("end", "agent:console")]
        bridge.end_call(call_id, "ended_with_announcement")
        await console.until("call.ended", call_id=call_id)
        said = await own.post(f"/api/v1/calls/{call_id}/after", json={"action": "evidence"})
        assert said.status_code == 200, said.text
        assert not [one for one in strange.seen if one.get("call_id") == call_id]
        async with a.http(a.supervisor) as http:
            wanted = (await http.get("/api/v1/requests")).json()["requests"]
            assert [one["call_id"] for one in wanted] == [call_id]
            assert (wanted[0]["state"], wanted[0]["may_decide"]) == ("requested", True)
            request = f"/api/v1/requests/{wanted[0]['request_id']}"
            why = {"reason": "Diese Aufnahme wird nicht gebraucht."}
            assert (await http.post(f"{request}/refuse", json={})).status_code == 422
            refused = await http.post(f"{request}/refuse", json=why)
            assert refused.json()["status"] == "done"
            await console.until("evidence.changed", call_id=call_id, state="refused")
            wanted = (await http.get("/api/v1/requests")).json()["requests"]
            assert (wanted[0]["state"], wanted[0]["reason"]) == ("refused", why["reason"])
            heard = [row["body"] for row in rows_of(place_of(a.settings))]
            assert not [body for body in heard if "Aufnahme" in body], "what a person wrote stays"
            approved = await http.post(f"{request}/approve")
            assert approved.json()["status"] == "done"
            # Nothing was handed out: refused there as it is here.
            done = await http.post(f"{request}/done")
            assert (done.status_code, done.json()["type"]) == (
                409,
                "urn:callshield:problem:not_handed_out",
            )


async def test_the_bus_is_killed_and_both_go_on_then_catch_up(
    desks: tuple[Desk, Desk], bus: NatsServer
) -> None:
    a, b = desks
    async with (
        a.bridge() as bridge_a,
        b.bridge() as bridge_b,
        a.console(a.supervisor) as console_a,
        b.console(b.supervisor) as console_b,
        b.http(b.supervisor) as http_b,
        a.http(a.supervisor) as http_a,
    ):
        before = bridge_b.start_call("1001")
        await console_a.until("call.started", call_id=before)
        await asyncio.to_thread(bus.stop)
        await console_a.until("node.degraded", component="cluster", degraded=True)
        await console_b.until("node.degraded", component="cluster", degraded=True)
        calls = []
        for _ in range(20):
            for bridge in (bridge_a, bridge_b):
                call_id = bridge.start_call("1002")
                bridge.notice(call_id)
                bridge.risk(call_id, 3)
                calls.append(call_id)
        # Each works on its own calls as ever, and says that the other's are out of reach.
        alert = await console_b.until("alert.raised")
        taken = await http_b.post(f"/api/v1/alerts/{alert['alert_id']}/acknowledge")
        assert taken.status_code == 200
        away = await http_a.post(f"/api/v1/calls/{before}/actions", json={"action": "warn"})
        assert away.status_code == 503
        assert away.json()["type"].endswith(":bus_away")
        bridge_b.end_call(before)
        await console_b.until("call.ended", call_id=before)
        assert not [one for one in console_a.seen if one.get("call_id") in calls[1::2]]
        await asyncio.to_thread(bus.start)
        started = time.monotonic()
        await console_a.until("node.degraded", component="cluster", degraded=False)
        await until_heard(a, b, calls=21, alerts=20)
        await until_heard(b, a, calls=20, alerts=20)
        print(f"caught up {time.monotonic() - started:.1f} s after the bus was back")
        assert all_heard(a, b), "none lost, none double, in order"
        assert all_heard(b, a)
        assert len(own_events(b)) > 100
        # The screens too: each event once, numbered by their own node.
        await console_a.until("call.ended", call_id=before)
        own = own_events(b)
        async with asyncio.timeout(WITHIN_S):
            while not any(
                (m["type"], m.get("call_id"), m["ts"]) == own[-1] for m in console_a.seen
            ):
                await console_a.next()
        shown = [
            (m["type"], m["call_id"], m["ts"]) for m in console_a.seen if m.get("node") == "node-b"
        ]
        assert shown == own
        numbers = [m["id"] for m in console_a.seen if "id" in m]
        assert numbers == sorted(set(numbers))
        calls_now = await until_listed(a, "calls", "calls", 40)
        assert sorted(one["call_id"] for one in calls_now) == sorted(calls)
        alerts_now = await until_listed(a, "alerts", "alerts", 39)
        assert alert["alert_id"] not in {one["alert_id"] for one in alerts_now}


async def test_a_bus_that_stands_still_keeps_nobody_waiting(
    desks: tuple[Desk, Desk], bus: NatsServer
) -> None:
    a, b = desks
    async with (
        b.bridge() as bridge,
        a.http(a.supervisor) as http,
        b.http(b.agent) as agent,
        b.console(b.supervisor) as console,
    ):
        call_id = bridge.start_call("1001")
        await until_listed(a, "calls", "calls", 1)
        bus.freeze()
        try:
            began = time.monotonic()
            helped = await agent.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            assert helped.status_code == 200
            raised = await console.until("alert.raised", call_id=call_id)
            own_s = time.monotonic() - began
            late = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "join"})
            assert late.status_code in (503, 504)
            # The requests at hand wait for nothing of the bus.
            assert (await http.get("/api/v1/alerts")).status_code == 200
            assert own_s < ANSWER_S, "control: the bus does take its time"
        finally:
            bus.thaw()
        async with a.console(a.supervisor, 0) as there:
            await there.until("alert.raised", alert_id=raised["alert_id"])
        await until_heard(a, b, alerts=1)
        assert all_heard(a, b)


async def test_a_call_back_is_done_from_either_node_and_its_number_stays_where_it_is(
    desks: tuple[Desk, Desk],
) -> None:
    a, b = desks
    async with (
        b.bridge() as bridge,
        a.console(a.supervisor) as console,
        b.http(b.agent) as agent,
        a.http(a.supervisor) as http,
    ):
        call_id = bridge.start_call("1001")
        await console.until("call.started", call_id=call_id)
        promise = {"action": "promise_call_back"}
        promised = await agent.post(f"/api/v1/calls/{call_id}/actions", json=promise)
        assert promised.status_code == 200, promised.text
        (item,) = await until_listed(a, "callbacks", "callbacks", 1)
        path = f"/api/v1/callbacks/{item['callback_id']}"
        number = await http.post(f"{path}/number")
        assert (number.status_code, number.json()["type"]) == (
            409,
            "urn:callshield:problem:other_node",
        )
        assert "node-b" in number.json()["detail"]
        assert (await http.post(f"{path}/done")).status_code == 200
        await until_listed(a, "callbacks", "callbacks", 0)
