"""Calls through the edge: to a registered phone, heard both ways, and where they may not go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge.floor import AGENT_HZ, CALLER_HZ, floor
from tests.pbx.floor import until_hears

pytestmark = [pytest.mark.edge, pytest.mark.timeout(120)]


async def test_call_reaches_a_registered_phone_and_is_protected(tmp_path: Path) -> None:
    async with floor(tmp_path) as all_:
        phone = await all_.phone()
        contact = await all_.edge.registered("1001")
        caller = await all_.caller()
        await caller.command("dial", all_.uri())
        console = all_.consoles[0]
        await console.wait("notice.finished")
        await console.wait("tap.started")
        await until_hears(caller, AGENT_HZ)
        await until_hears(phone, CALLER_HZ)
        await phone.command("hangup")
        ended = await console.wait("call.ended")
        await caller.wait("CALL_CLOSED")
    assert contact["Address"].startswith("sip:1001")
    assert ended["reason"] == "agent_hangup"
