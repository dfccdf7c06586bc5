"""The agent's page in a real Chromium: own ear, own voice, and who came into the own calls."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from callshield.messages import HelperChanged
from tests.console_kit import LEVEL, room
from tests.test_hearing_told import dose, talk, warning

pytestmark = pytest.mark.browser

HIDDEN = "id => document.getElementById(id).hidden"
SHOWN = "id => document.getElementById(id).checkVisibility()"


async def test_the_agent_alone_is_warned_in_the_call_and_reads_it_once(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one, other = await here.agent(), await here.agent(here.desk.other)
        watching = await here.supervisor()
        call_id = here.call()
        await one.until(LEVEL, "0")
        assert await one.page.evaluate(HIDDEN, "own")
        here.bridge.send(dose(call_id, 81.0))
        here.bridge.send(warning(call_id))
        await one.until(SHOWN, "own-ear")
        assert "80%" in await one.text("#own-ear-says")
        assert "추정값" in await one.text("#own-ear-note")
        await one.page.reload()
        await one.live()
        await one.until(SHOWN, "own-ear")
        await one.page.click("#own-ear-seen")
        await one.until(HIDDEN, "own")
        await one.page.reload()
        await one.live()
        here.bridge.send(dose(call_id, 83.0))
        here.bridge.risk(call_id, 2)
        await one.until(LEVEL, "2")
        assert await one.page.evaluate(HIDDEN, "own"), "read is read"
        for screen in (other, watching):
            assert "80%" not in await screen.page.content()
        assert one.faults == other.faults == watching.faults == []


async def test_the_hint_to_rest_the_voice_comes_and_goes(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one = await here.agent()
        here.call()
        await one.until(LEVEL, "0")
        here.bridge.send(talk(600.0))
        here.bridge.send(talk(903.0, rest=True))
        await one.until(SHOWN, "own-voice")
        assert "15분" in await one.text("#own-voice-says")
        assert "저장하지 않습니다" in await one.text("#own-voice-note")
        await one.page.reload()
        await one.live()
        await one.until(SHOWN, "own-voice")
        here.bridge.send(talk(0.0))
        await one.until(HIDDEN, "own")


async def test_who_came_into_a_call_stands_in_the_agents_own_record(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one = await here.agent()
        call_id = here.call()
        async with here.desk.http(here.desk.supervisor) as http:
            token_id = (await http.get("/api/v1/node")).json()["token_id"]
        for state in ("joined", "left"):
            here.bridge.send(
                HelperChanged(
                    ts=time.time(),
                    call_id=call_id,
                    agent_id="1001",
                    state=state,
                    role="supervisor",
                    helper_id="lee",
                    by=f"supervisor:{token_id}",
                    asked_ts=time.time() - 60,
                )
            )
        here.bridge.end_call(call_id)
        await one.shows("#joined-count", "1건")
        await one.page.click("#joined-box summary")
        line = await one.text("#joined")
        assert "통화 참여" in line
        assert "관리자 first" in line, "the agent may know who it was"
        assert "본인 호출" in line
        assert one.faults == []
        other = await here.agent(here.desk.other)
        assert await other.page.locator("#joined li").count() == 0
