"""Pictures of the consoles for ``docs/img``: ``python -m tests.console_shots [FOLDER]``.

Chromium against a running notifier whose bus is fed by a script. Needs chromium and fonts-noto-cjk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from playwright.async_api import Browser

from callshield.messages import (
    CallAnswered,
    CrisisHint,
    EarDose,
    EarWarning,
    HelperChanged,
    Reason,
    RiskChanged,
    VoiceTalk,
    WarningPlayed,
)
from tests.console_kit import Screen, chromium, screen
from tests.hid_kit import JABRA, script
from tests.notifier_kit import Bridge, Desk, desk_in_process

FOLDER = Path(__file__).parent.parent / "docs" / "img"
EXTRA = """
[agents.1003]
uri = "sip:1003@192.0.2.22:5060"
[agents.1004]
uri = "sip:1004@192.0.2.23:5060"
[agents.1005]
uri = "sip:1005@192.0.2.24:5060"
[supervisors.lee]
uri = "sip:2001@192.0.2.30:5060"
[supervisors.choi]
uri = "sip:2002@192.0.2.31:5060"
[supervisors.kim]
uri = "sip:2000@192.0.2.32:5060"
role = "manager"
[teams.billing]
supervisors = ["lee", "choi"]
manager = "kim"
next_after_s = 3
limit_s = LIMIT
[aftercare]
rest_s = 1200
counselling = "직원 상담실"
counselling_number = "7000"
[callbacks]
within_s = 3600
owner = "kim"
[crisis]
number = "109"
name = "자살예방 상담전화"
"""


def answered(bridge: Bridge, agent_id: str, ago_s: float) -> str:
    """A call that was answered some time ago."""
    call_id = bridge.start_call(agent_id, answer=False)
    bridge.answered.add(call_id)
    bridge.send(CallAnswered(ts=time.time() - ago_s, call_id=call_id, agent_id=agent_id))
    bridge.notice(call_id)
    return call_id


def risk(bridge: Bridge, call_id: str, level: int, *categories: str, words: str = "") -> None:
    """A level with its categories and one masked quote."""
    reason = Reason(kind="words", score=0.9, rule="abusive_words", words=[words] if words else [])
    bridge.send(
        RiskChanged(
            ts=time.time(),
            call_id=call_id,
            level=level,
            previous=0,
            categories=list(categories),
            score=0.9,
            reasons=[reason],
            words_confirmed=bool(words),
        )
    )


async def shot(shown: Screen, folder: Path, name: str) -> None:
    """Write one picture, as long as the page is."""
    if shown.faults:
        raise RuntimeError(f"{name}: {shown.faults}")
    await shown.page.screenshot(path=folder / f"{name}.png", full_page=True)
    print(folder / f"{name}.png")


async def room(desk: Desk, bridge: Bridge) -> str:
    """Five calls; the one of agent 1001 is bad. Gives its id."""
    answered(bridge, "1002", 35)
    risk(bridge, answered(bridge, "1003", 262), 1, "shouting")
    answered(bridge, "1004", 431)
    call_id = bridge.start_call("1005")
    bridge.notice(call_id, "skipped")
    mine = answered(bridge, "1001", 123)
    risk(bridge, mine, 2, "profanity", "shouting", words="이 ○○야, 담당자 [이름] 바꿔")
    bridge.send(
        WarningPlayed(ts=time.time(), call_id=mine, agent_id="1001", grade=1, complete=True)
    )
    return mine


@contextlib.asynccontextmanager
async def node(limit_s: int) -> AsyncIterator[tuple[Desk, Bridge]]:
    """A node of one team in which nobody comes after so long."""
    extra = EXTRA.replace("LIMIT", str(limit_s))
    with tempfile.TemporaryDirectory() as state:
        async with (
            desk_in_process(Path(state), extra, 'team = "billing"') as desk,
            desk.bridge() as bridge,
            desk.bridge("detector"),
        ):
            yield desk, bridge


async def one_bad_call(browser: Browser, folder: Path) -> None:
    """Calm, bad, help asked for, somebody comes, a crisis, and afterwards."""
    async with node(60) as (desk, bridge):
        agent = partial(screen, browser, desk.address, "/agent", desk.agent, height=720)
        async with (
            agent(width=900) as one,
            screen(
                browser, desk.address, "/supervisor", desk.supervisor, width=1280, height=720
            ) as two,
        ):
            await one.live()
            await two.live()
            first = answered(bridge, "1001", 65)
            await one.until("document.getElementById('level').dataset.level === '0'")
            await shot(one, folder, "console-agent-calm")
            bridge.end_call(first)
            mine = await room(desk, bridge)
            await one.until("document.getElementById('level').dataset.level === '2'")
            await one.page.keyboard.press("F8")
            await one.shows("#request-says", "관리자")
            await two.shows("#alerts", "관리자 호출")
            await shot(two, folder, "console-supervisor")
            async with screen(
                browser, desk.address, "/wallboard", desk.agent, width=1920, height=1080
            ) as wall:
                await wall.live()
                await wall.shows("#help-count", "1")
                await shot(wall, folder, "console-wallboard")
            await two.page.click('[data-how="join"]')
            await one.shows("#request-says", "오고 있습니다")
            await shot(one, folder, "console-agent")
            async with agent(width=900, dark=True) as dark:
                await dark.live()
                await shot(dark, folder, "console-agent-dark")
            async with agent(width=360) as narrow:
                await narrow.live()
                await shot(narrow, folder, "console-agent-360")
            bridge.send(CrisisHint(ts=time.time(), call_id=mine, words=["살기 싫어요"]))
            await one.until("!document.getElementById('crisis').hidden")
            await shot(one, folder, "console-agent-crisis")
            bridge.ending(mine)
            bridge.end_call(mine, "ended_with_announcement")
            await one.shows("#rest", "남음")
            await shot(one, folder, "console-agent-after")


async def nobody_comes(browser: Browser, folder: Path) -> None:
    """One supervisor refuses, the others do not answer."""
    async with (
        node(10) as (desk, bridge),
        screen(browser, desk.address, "/agent", desk.agent, width=900, height=720) as one,
        desk.http(desk.supervisor) as http,
    ):
        await one.live()
        await room(desk, bridge)
        await one.until("document.getElementById('level').dataset.level === '2'")
        await one.page.keyboard.press("F8")
        await one.shows("#request-says", "관리자")
        for alert in (await http.get("/api/v1/alerts")).json()["alerts"]:
            if alert["kind"] == "help":
                path = f"/api/v1/alerts/{alert['alert_id']}/refuse"
                await http.post(path, json={"reason": "in_call"})
        await one.shows("#request-says", "아직 오는 관리자가 없습니다")
        await shot(one, folder, "console-agent-nobody")


async def headset(browser: Browser, folder: Path) -> None:
    """The panel with a headset that has all it can show."""
    async with (
        node(60) as (desk, _),
        screen(browser, desk.address, "/agent", "", width=900, height=560) as one,
    ):
        await one.page.add_init_script(script(jabra=JABRA))
        await one.page.goto(f"http://{desk.address}/agent#token={desk.agent}")
        await one.page.reload()
        await one.live()
        await one.page.evaluate("window.hidBox.choice = ['jabra']")
        await one.page.click("#headset summary")
        await one.page.click("#headset-connect")
        await one.shows("#headset-state", JABRA.name)
        await one.page.select_option("#headset-key", "flash")
        await shot(one, folder, "console-agent-headset")


def ear_and_voice(bridge: Bridge, call_id: str) -> None:
    """A dose over four fifths of a day's, and a quarter of an hour of talking."""
    shift = {"ts": time.time(), "call_id": call_id, "agent_id": "1001", "lex_8h_dba": 84.2}
    bridge.send(
        EarDose(
            **shift,
            heard_s=18_000.0,
            level_dba=86.2,
            dose_pct=83.2,
            action_value="lower",
            estimate=True,
        )
    )
    bridge.send(EarWarning(**shift, dose_pct=83.2, threshold_pct=80.0, estimate=True))
    bridge.send(VoiceTalk(ts=time.time(), agent_id="1001", talked_s=960.0, rest=True, pause_s=60.0))


async def hearing(browser: Browser, folder: Path) -> None:
    """Own ear and voice in a call; and after it, who came into the own calls."""
    async with (
        node(60) as (desk, bridge),
        screen(browser, desk.address, "/agent", desk.agent, width=900, height=720) as one,
        desk.http(desk.supervisor) as http,
    ):
        await one.live()
        call_id = answered(bridge, "1001", 425)
        await one.until("document.getElementById('level').dataset.level === '0'")
        ear_and_voice(bridge, call_id)
        await one.shows("#own-voice-says", "16분")
        await shot(one, folder, "console-agent-hearing")
        token_id = (await http.get("/api/v1/node")).json()["token_id"]
        for state, ago_s in (("joined", 240), ("left", 100)):
            bridge.send(
                HelperChanged(
                    ts=time.time() - ago_s,
                    call_id=call_id,
                    agent_id="1001",
                    state=state,
                    role="supervisor",
                    helper_id="lee",
                    by=f"supervisor:{token_id}",
                    asked_ts=time.time() - 300,
                )
            )
        bridge.end_call(call_id)
        await one.shows("#joined-count", "1건")
        await one.page.click("#own-ear-seen")
        await one.page.click("#joined-box summary")
        await shot(one, folder, "console-agent-joined")


async def main() -> None:
    """Take the pictures into the folder that the command line names."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    async with chromium() as browser:
        await one_bad_call(browser, folder)
        await nobody_comes(browser, folder)
        await headset(browser, folder)
        await hearing(browser, folder)


if __name__ == "__main__":
    asyncio.run(main())
