"""A call's events on their way from the bus to the people who may see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier import node
from tests.notifier_kit import desk_in_process


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


async def test_a_detector_that_never_came_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "ABSENT_AFTER_S", 1.0)
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
