"""Call-backs are a team's: its supervisors see them, its manager owes them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from notifier.tokens import create_token
from tests.notifier_kit import Desk, desk_in_process
from tests.test_aftercare import get, post, unanswered

TEAMS = """
[supervisors.a]
uri = "sip:2001@192.0.2.31:5060"
[supervisors.d]
uri = "sip:2004@192.0.2.34:5060"
[supervisors.kim]
uri = "sip:2000@192.0.2.30:5060"
role = "manager"
[supervisors.moon]
uri = "sip:2009@192.0.2.39:5060"
role = "manager"
[teams.north]
supervisors = ["a"]
manager = "moon"
[teams.south]
supervisors = ["d"]
"""


async def tied(desk: Desk, supervisor_id: str) -> str:
    return await asyncio.to_thread(
        create_token, desk.settings, "supervisor", supervisor_id, supervisor_id=supervisor_id
    )


async def test_the_call_backs_of_a_team_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLSHIELD_AGENTS__1001__TEAM", "north")
    monkeypatch.setenv("CALLSHIELD_AGENTS__1002__TEAM", "south")
    async with (
        desk_in_process(tmp_path, TEAMS) as desk,
        desk.bridge() as bridge,
        desk.console(await tied(desk, "a")) as north,
        desk.console(await tied(desk, "d")) as south,
    ):
        call_id = bridge.start_call()
        await north.until("call.answered")
        await post(desk, f"/calls/{call_id}/actions", action="promise_call_back")
        promised = await north.until("callback.changed")
        assert promised["owner"] == "moon", "the manager of the agent's own team"
        # A manager sees every team, as ever.
        for name, number in (("a", 1), ("moon", 1), ("kim", 1), ("d", 0)):
            found = (await get(desk, "/callbacks", await tied(desk, name)))["callbacks"]
            assert len(found) == number, name
        path = f"/callbacks/{promised['callback_id']}/done"
        await post(desk, path, await tied(desk, "d"), status=404)
        await post(desk, path, await tied(desk, "a"))
        own = bridge.start_call("1002")
        unanswered(bridge, own)
        await south.until("callback.changed", call_id=own)
        assert {m["call_id"] for m in south.seen if "call_id" in m} == {own}


async def test_the_requests_for_evidence_of_a_team_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLSHIELD_AGENTS__1001__TEAM", "north")
    monkeypatch.setenv("CALLSHIELD_AGENTS__1002__TEAM", "south")
    async with (
        desk_in_process(tmp_path, TEAMS) as desk,
        desk.bridge() as bridge,
        desk.console(await tied(desk, "a")) as north,
        desk.console(await tied(desk, "d")) as south,
    ):
        call_id = bridge.start_call()
        await north.until("call.answered")
        asked = await post(desk, f"/calls/{call_id}/after", action="evidence")
        await north.until("evidence.requested")
        for name, number in (("a", 1), ("kim", 1), ("d", 0)):
            found = (await get(desk, "/requests", await tied(desk, name)))["requests"]
            assert len(found) == number, name
        for what in ("approve", "done"):
            path = f"/requests/{asked['request_id']}/{what}"
            await post(desk, path, await tied(desk, "d"), status=404)
            if what == "done":
                bridge.end_call(call_id)
                await north.until("call.ended")
                await desk.hand_out(call_id, await tied(desk, "a"))
            await post(desk, path, await tied(desk, "a"))
        own = bridge.start_call("1002")
        await south.until("call.answered", call_id=own)
        assert {m["call_id"] for m in south.seen if "call_id" in m} == {own}
