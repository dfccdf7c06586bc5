"""A call's events on their way from the bus to the people who may see them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from callshield.messages import Action, Reason, RiskChanged
from notifier import node_bus
from tests.notifier_kit import WITHIN_S, desk_in_process


async def test_an_angry_call_raises_one_alert_that_one_supervisor_takes(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as supervisor,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        bridge.notice(call_id)
        bridge.risk(call_id, 1)
        bridge.risk(call_id, 2, 1)
        raised = await supervisor.until("alert.raised")
        assert raised["call_id"] == call_id
        assert raised["kind"] == "risk"
        assert raised["level"] == 2
        assert (await agent.until("risk.changed", level=2))["reasons"]
        async with desk.http(desk.supervisor) as http:
            answer = await http.post(f"/api/v1/alerts/{raised['alert_id']}/acknowledge")
            assert answer.status_code == 200, answer.text
        taken = await agent.until("alert.acknowledged")
        assert taken["alert_id"] == raised["alert_id"]
        assert taken["by"] == supervisor.ready["token_id"]


async def test_the_last_words_of_a_call_reach_its_record_and_its_agent_but_raise_nothing(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.bridge("detector") as detector,
        desk.console(desk.agent) as agent,
    ):
        over, live = bridge.start_call(), bridge.start_call()
        bridge.end_call(over)
        await agent.until("call.ended", call_id=over)
        detector.words(over, 3, "…")
        late = await agent.until("risk.changed", call_id=over)
        assert (late["level"], late["late"], late["reasons"][0]["words"]) == (3, True, ["…"])
        # The control: the same words in a live call.
        detector.words(live, 3, "…")
        assert not (await agent.until("risk.changed", call_id=live))["late"]
        await agent.until("alert.raised", call_id=live)
        raised = {e["call_id"] for e in agent.seen if e["type"] == "alert.raised"}
        assert raised == {live}
    with closing(sqlite3.connect(desk.settings.database_path)) as stored:
        found = stored.execute("SELECT call_id, peak_level FROM calls").fetchall()
        assert dict(found) == {over: 3, live: 3}
        assert [row[0] for row in stored.execute("SELECT call_id FROM alerts")] == [live]


async def test_a_level_of_a_detector_that_died_does_not_last_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.detector_levels.LEVELS_WITHIN_S", 1.0)
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        known, lost = bridge.start_call("1001"), bridge.start_call("1002")
        async with desk.bridge("detector") as first:
            first.words(known, 2, "…")
            first.words(lost, 3, "…")
            await console.until("risk.changed", call_id=lost, level=3)
        second = desk.bridge("detector")
        # Queued before it connects: it is said with the first words, however slow the machine is.
        second.words(known, 2, "…")
        async with second:
            fallen = await console.until("risk.changed", level=0)
            assert (fallen["call_id"], fallen["previous"]) == (lost, 3)
            async with desk.http(desk.supervisor) as http:
                calls = (await http.get("/api/v1/calls")).json()["calls"]
        assert {call["call_id"]: call["level"] for call in calls} == {known: 2, lost: 0}
        async with asyncio.timeout(WITHIN_S):
            while not any(level.level == 0 for level in bridge.levels):
                bridge.asked.clear()
                await bridge.asked.wait()
        told = [r for r in bridge.levels if r.call_id == lost]
        assert [(r.level, r.may_trigger) for r in told] == [(3, True), (0, False)]


async def test_the_agents_word_outlives_the_detector_that_took_it(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        pressed, other = bridge.start_call("1001"), bridge.start_call("1002")
        async with desk.bridge("detector") as first:
            first.words(other, 3, "…")
            first.send(
                RiskChanged(
                    ts=time.time(),
                    call_id=pressed,
                    level=3,
                    previous=0,
                    categories=[],
                    score=0.0,
                    reasons=[Reason(kind="agent", score=1.0, rule="agent_press")],
                )
            )
            await console.until("risk.changed", call_id=pressed)
        async with desk.bridge("detector") as second:
            async with asyncio.timeout(WITHIN_S):
                while not second.commands:
                    second.asked.clear()
                    await second.asked.wait()
            said = [(command.action, command.call_id) for command in second.commands]
        assert said == [(Action.ABUSIVE, pressed)], "not the other call's"


async def test_a_detector_that_never_came_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_bus, "ABSENT_AFTER_S", 1.0)
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge(),
        desk.console(desk.agent) as agent,
    ):
        missing = await agent.until("node.degraded")
        assert (missing["component"], missing["degraded"]) == ("detector", True)
        async with desk.bridge("detector"):
            back = await agent.until("node.degraded")
            assert (back["component"], back["degraded"]) == ("detector", False)
            async with desk.http(desk.agent) as http:
                assert (await http.get("/api/v1/node")).json()["degraded"] == []
        assert (await agent.until("node.degraded"))["reason"] == "disconnected"
