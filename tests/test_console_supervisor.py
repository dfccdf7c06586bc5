"""The supervisor's page and the wallboard in a real Chromium: who comes, and nothing is missed."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route

from callshield.messages import Action
from tests.console_kit import (
    ALERTS,
    CARE,
    IN_TEAM,
    LEVEL,
    Cable,
    Screen,
    room,
    say_risk,
    screen,
)
from tests.mentions import mentioned

pytestmark = pytest.mark.browser

WORDS = "죽여버린다"
CUT_S = 20.0


async def test_a_supervisor_accepts_and_the_agent_reads_that_somebody_comes(tmp_path: Path) -> None:
    async with room(tmp_path, CARE, IN_TEAM) as here:
        agent, one, bridge = await here.agent(), await here.supervisor(), here.bridge
        call_id = here.call()
        await agent.until(LEVEL, "0")
        await one.shows("#calls", "상담사 1001")
        await agent.page.keyboard.press("F8")
        await one.shows("#alerts", "관리자 호출")
        await one.page.click('[data-how="join"]')
        await agent.shows("#request-says", "관리자가 오고 있습니다")
        await one.shows("#history", "내가 수락함 · 통화 참여")
        assert [command.action for command in bridge.commands if command.call_id == call_id] == [
            Action.HELP,
            Action.JOIN,
        ]
        assert one.faults == agent.faults == []


async def test_a_request_for_evidence_is_shown_live_and_after_a_reload_and_settled(
    tmp_path: Path,
) -> None:
    rows = "(n) => document.querySelectorAll('#evidence > li').length === n"
    async with room(tmp_path, CARE, IN_TEAM, detector=False) as here:
        agent, one = await here.agent(), await here.supervisor()
        await one.shows("#evidence-none", "남은 요청이 없습니다")
        call_id = here.call()
        await agent.until(LEVEL, "0")
        async with here.desk.http(here.desk.agent) as http:
            said = await http.post(f"/api/v1/calls/{call_id}/after", json={"action": "evidence"})
            await http.post(
                f"/api/v1/calls/{call_id}/after", json={"action": "note", "note": "threat"}
            )
        await one.shows("#evidence", "상담사 1001")
        await one.shows("#evidence .ids", call_id)
        await one.shows("#evidence .ids", said.json()["request_id"])
        assert "협박" not in await one.page.inner_text("main"), "nothing else that the agent said"
        await one.page.reload()
        await one.live()
        await one.until(rows, 1)
        await one.shows("#evidence span.of", "요청됨")
        assert await one.page.is_hidden('#evidence [data-answer="done"]'), "not before approval"
        here.bridge.end_call(call_id)  # in a call the agent's page shows nothing but the call
        await agent.shows("#requests", "요청됨")
        await one.page.click('#evidence [data-answer="approve"]')
        await one.shows("#feedback", "승인했습니다")
        await one.shows("#evidence .why", f"callshield evidence export {call_id}")
        await agent.shows("#requests", "승인")
        await agent.shows("#feedback", "증거자료 요청이 승인되었습니다")
        await one.page.click('#evidence [data-answer="done"]')
        await one.shows("#feedback", "아직 전달한 자료가 없습니다")
        await here.desk.hand_out(call_id)
        await one.page.click('#evidence [data-answer="done"]')
        await one.until(rows, 0)
        await agent.shows("#requests", "증거자료")
        await agent.shows("#requests", "완료")
        assert one.faults == agent.faults == []


class LateAnswer:
    """Holds one answer of the node back until a later one has been shown."""

    def __init__(self, shown: Screen, path: str) -> None:
        self._page, self._path = shown.page, f"**/api/v1{path}"
        self.taken, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, route: Route) -> None:
        if self.taken.is_set():
            await route.continue_()
            return
        self.taken.set()
        answer = await route.fetch()
        await self.release.wait()
        await route.fulfill(response=answer)

    async def hold(self) -> None:
        """The next request's answer."""
        await self._page.route(self._path, self)

    async def let_go(self) -> None:
        """The page has the old answer, and has drawn what it makes of it."""
        async with self._page.expect_event("requestfinished"):
            self.release.set()
        await self._page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )


async def test_an_old_answer_that_comes_last_is_not_shown(tmp_path: Path) -> None:
    """Two events close together ask for a list twice; the first answer can come last."""
    async with room(tmp_path, CARE, IN_TEAM, detector=False) as here:
        agent, one = await here.agent(), await here.supervisor()
        call_id = here.call()
        await agent.until(LEVEL, "0")
        async with here.desk.http(here.desk.agent) as http:
            await http.post(f"/api/v1/calls/{call_id}/after", json={"action": "evidence"})
        here.bridge.end_call(call_id)
        await one.shows("#evidence span.of", "요청됨")
        await agent.shows("#requests", "요청됨")
        late = [LateAnswer(agent, "/me/requests"), LateAnswer(one, "/requests")]
        for answer in late:
            await answer.hold()
        await one.page.click('#evidence [data-answer="approve"]')
        for answer in late:
            await answer.taken.wait()
        await here.desk.hand_out(call_id)
        await one.page.click('#evidence [data-answer="done"]')
        await agent.shows("#requests", "완료")
        await one.until("() => document.querySelectorAll('#evidence > li').length === 0")
        for answer in late:
            await answer.let_go()
        assert "완료" in await agent.text("#requests")
        assert await one.page.locator("#evidence > li").count() == 0


async def test_a_request_is_refused_with_a_reason_that_the_agent_reads_and_approved_after_all(
    tmp_path: Path,
) -> None:
    contact = '[law]\ngrievance_contact = "고충처리위원회 · 1350"\n'
    async with room(tmp_path, CARE + contact, IN_TEAM, detector=False) as here:
        agent, one, two = (
            await here.agent(),
            await here.supervisor(),
            await here.supervisor(here.desk.second),
        )
        call_id = here.call()
        await agent.until(LEVEL, "0")
        async with here.desk.http(here.desk.agent) as http:
            await http.post(f"/api/v1/calls/{call_id}/after", json={"action": "evidence"})
        here.bridge.end_call(call_id)
        refuse = '#evidence [data-answer="refuse"]'
        await one.page.click(refuse)
        await one.page.fill("#evidence textarea", "짧음")
        await one.page.click("#evidence .refusal .plain")
        assert await one.page.is_visible("#evidence .refusal"), "too short a reason is not sent"
        await one.page.keyboard.press("Escape")
        assert await one.page.is_hidden("#evidence .refusal")
        await one.page.click(refuse)
        why = "녹취를 다시 들어 보았으나 폭언이 확인되지 않습니다."
        await one.page.fill("#evidence textarea", why)
        await one.page.click("#evidence .refusal .plain")
        await one.shows("#evidence span.of", "불가")
        await one.shows("#evidence .why", why)
        await agent.shows("#request-refusals", why)
        await agent.shows("#request-refusals", "고충처리위원회 · 1350")
        await agent.shows("#requests", "불가")
        # The other supervisor sees it at once, and turns it.
        await two.shows("#evidence .why", why)
        assert await two.page.is_hidden(refuse)
        await two.page.click('#evidence [data-answer="approve"]')
        await agent.shows("#requests", "승인")
        await agent.until("document.querySelectorAll('#request-refusals > li').length === 0")
        await one.shows("#evidence span.of", "승인")
        assert one.faults == two.faults == agent.faults == []


async def test_two_supervisors_accept_at_once_and_one_wins(tmp_path: Path) -> None:
    async with room(tmp_path, CARE) as here:
        one, two = await here.supervisor(), await here.supervisor(here.desk.second)
        both = (one, two)
        here.bridge.risk(here.call(), 2)
        for shown in both:
            await shown.until(f"{ALERTS} === 1")
        pressed, both_pressed = itertools.count(1), asyncio.Event()

        async def hold(route: Route) -> None:
            """No press reaches the node before both were made: the row goes when one did."""
            if next(pressed) == len(both):
                both_pressed.set()
            await both_pressed.wait()
            await route.continue_()

        for shown in both:
            await shown.page.route("**/api/v1/alerts/*/accept", hold)
        await asyncio.gather(*(shown.page.click('[data-how="seen"]') for shown in both))
        for shown in both:
            await shown.until(f"{ALERTS} === 0")
            await shown.until("document.querySelectorAll('#history > li').length === 1")
        said = sorted([await shown.text("#history > li") for shown in both])
        assert sum("내가 수락함" in text for text in said) == 1
        assert sum("다른 관리자가 수락함" in text for text in said) == 1
        told = {await shown.text("#feedback") for shown in both}
        assert told == {"수락했습니다.", "다른 관리자가 먼저 수락했습니다."}


async def test_a_refusal_needs_a_reason_is_shown_to_the_agent_and_closes_nothing(
    tmp_path: Path,
) -> None:
    async with room(tmp_path, CARE) as here:
        agent, one = await here.agent(), await here.supervisor()
        here.call()
        await agent.until(LEVEL, "0")
        await agent.page.keyboard.press("F8")
        await one.until(f"{ALERTS} === 1")
        await one.page.click(".refuse")
        await one.page.select_option(".refusal select", "other")
        await one.page.click(".refusal .plain")
        assert await one.page.is_visible(".refusal"), "an empty reason is not sent"
        await one.page.fill(".refusal input", "고객 방문 응대 중")
        await one.page.click(".refusal .plain")
        await agent.shows("#request-refused", "고객 방문 응대 중")
        await one.shows("#alerts .stage", "고객 방문 응대 중")
        assert await one.page.evaluate(ALERTS) == 1, "the call for help stays open"
        assert await agent.page.get_attribute("#help", "data-state") == "open"


async def test_no_words_before_the_agent_asked_and_folded_ones_afterwards(tmp_path: Path) -> None:
    async with room(tmp_path, CARE) as here:
        agent, one, bridge = await here.agent(), await here.supervisor(), here.bridge
        received: list[str] = []
        one.page.on(
            "websocket",
            lambda line: line.on("framereceived", lambda frame: received.append(str(frame))),
        )
        await one.page.reload()
        await one.live()
        call_id = here.call()
        say_risk(bridge, call_id, 3, "threat", WORDS)
        await one.shows("#calls", "협박")
        await agent.until(LEVEL, "3")
        assert WORDS not in await one.page.content()
        assert not any(WORDS in frame for frame in received), "not even on the line"
        await agent.page.keyboard.press("F8")
        await one.until("w => document.body.textContent.includes(w)", WORDS)
        assert not await one.page.get_by_text(WORDS).is_visible()
        await one.page.click("#calls .heard summary")
        assert await one.page.get_by_text(WORDS).is_visible()


async def seen(shown: Screen) -> list[tuple[str, str]]:
    """The alerts on the page, by text and level."""
    found: list[list[str]] = await shown.page.evaluate(
        "[...document.querySelectorAll('#alerts > li')]"
        ".map((row) => [row.querySelector('strong').textContent, row.dataset.level])"
    )
    return [(text, level) for text, level in found]


@asynccontextmanager
async def forgetful(browser: Browser, address: str, token: str) -> AsyncIterator[Screen]:
    """A supervisor's page that does not say where it left off when it connects again."""
    async with screen(browser, address, "/supervisor", "") as shown:

        async def changed(route: Route) -> None:
            answer = await route.fetch()
            text = await answer.text()
            broken = text.replace("?last_event_id=${this.#lastId}", "")
            assert broken != text
            await route.fulfill(response=answer, body=broken)

        await shown.page.route("**/console/link.js", changed)
        await shown.page.goto(f"http://{address}/supervisor#token={token}")
        await shown.page.reload()
        yield shown


async def test_after_20_s_without_a_network_nothing_is_missed_and_nothing_comes_twice(
    tmp_path: Path,
) -> None:
    async with (
        room(tmp_path, CARE) as here,
        Cable(here.desk.settings.web.port) as cable,
        screen(here.browser, cable.address, "/supervisor", here.desk.supervisor) as far,
        screen(here.browser, cable.address, "/agent", here.desk.agent) as agent,
        forgetful(here.browser, cable.address, here.desk.supervisor) as deaf,
    ):
        desk, bridge = here.desk, here.bridge
        near = await here.supervisor(desk.second)
        for shown in (far, agent, deaf):
            await shown.live()
        first = here.call()
        await agent.until(LEVEL, "0")
        bridge.risk(first, 2)
        for shown in (far, deaf):
            await shown.until(f"{ALERTS} === 1")
        await agent.until(LEVEL, "2")

        cable.cut()
        over = asyncio.get_running_loop().time() + CUT_S
        await far.until("document.getElementById('link').dataset.state === 'lost'")
        await agent.shows("#stale", "서버와 연결이 끊겼습니다")
        async with desk.http(desk.agent) as http:
            asked = await http.post(f"/api/v1/calls/{first}/actions", json={"action": "help"})
            assert asked.status_code == 200
        second = here.call("1002")
        bridge.risk(second, 3)
        bridge.risk(first, 3, 2)
        bridge.risk(first, 1, 3)
        await near.until(f"{ALERTS} >= 3")
        # What is pressed meanwhile is said to have failed, not kept for later.
        await agent.page.keyboard.press("F2")
        await agent.shows("#feedback", "서버에 닿지 않습니다")
        await asyncio.sleep(over - asyncio.get_running_loop().time())
        assert cable.refused > 0
        assert await far.page.evaluate(ALERTS) == 1, "the cut was a cut"
        assert await agent.page.get_attribute("#level", "data-level") == "2"

        cable.mend()
        for shown in (far, agent, deaf):
            await shown.live()
        await far.until(
            "n => document.querySelectorAll('#alerts > li').length === n", len(await seen(near))
        )
        assert sorted(await seen(far)) == sorted(await seen(near))
        await agent.until(LEVEL, "1")
        await agent.until("!document.getElementById('request').hidden")
        assert await agent.page.get_attribute("#help", "data-state") == "open"
        assert await agent.page.is_hidden("#stale")
        assert bridge.commands == [] or bridge.commands[0].action is Action.HELP
        assert await deaf.page.evaluate(ALERTS) == 1, "without its number a page misses what came"


async def test_notifications_are_asked_for_by_a_button_and_their_absence_is_no_fault(
    tmp_path: Path,
) -> None:
    """Headless Chromium denies them; the browser's class is doubled to see what is asked of it."""
    double = """
      window.raised = [];
      window.Notification = class {
        static permission = "default";
        static requestPermission() {
          this.permission = "granted";
          return Promise.resolve("granted");
        }
        constructor(title, more) { window.raised.push([title, more.body]); }
      };
      Object.defineProperty(Document.prototype, "hidden", { get: () => true });
    """
    async with room(tmp_path) as here:
        desk = here.desk
        able, unable = [await here.page("/supervisor", "") for _ in range(2)]
        await able.page.add_init_script(double)
        await unable.page.add_init_script("delete window.Notification; delete window.AudioContext;")
        for shown in (able, unable):
            await shown.page.goto(f"http://{desk.address}/supervisor#token={desk.supervisor}")
            await shown.page.reload()
            await shown.live()
        assert await unable.page.is_hidden("#notify")
        assert await unable.page.is_hidden("#sound")
        await able.page.click("#notify")
        await able.until("document.getElementById('notify').hidden")
        here.bridge.risk(here.call(), 2)
        await able.until("window.raised.length === 1")
        assert await able.page.evaluate("window.raised") == [["위험 통화 · 고성", "상담사 1001"]]
        await unable.until(f"{ALERTS} === 1")
        assert able.faults == unable.faults == []


async def test_the_sound_is_off_until_switched_on_and_can_be_switched_off(tmp_path: Path) -> None:
    count = """
      window.tones = 0;
      const start = OscillatorNode.prototype.start;
      OscillatorNode.prototype.start = function (...when) {
        window.tones += 1;
        start.apply(this, when);
      };
    """
    async with room(tmp_path) as here:
        one, bridge = await here.page("/supervisor", here.desk.supervisor), here.bridge
        await one.page.add_init_script(count)
        await one.page.reload()
        await one.live()
        call_id = here.call()
        bridge.risk(call_id, 2)
        await one.until(f"{ALERTS} === 1")
        assert await one.page.evaluate("window.tones") == 0
        await one.page.click("#sound")
        await one.shows("#sound", "알림음 켜짐")
        before = await one.page.evaluate("window.tones")
        bridge.risk(call_id, 3, 2)
        await one.until("n => window.tones > n", before)
        await one.page.click("#sound")
        await one.shows("#sound", "알림음 꺼짐")
        before = await one.page.evaluate("window.tones")
        bridge.risk(here.call("1002"), 3)
        await one.shows("#alerts", "상담사 1002")
        assert await one.page.evaluate("window.tones") == before


async def test_the_wallboard_shows_counts_and_calls_for_help_and_says_of_whom_nothing(
    tmp_path: Path,
) -> None:
    async with room(tmp_path, CARE) as here:
        desk, bridge = here.desk, here.bridge
        wall = await here.page("/wallboard", desk.other, width=1920, height=1080)
        await wall.live()
        await wall.shows("#requests-none", "기다리는 요청이 없습니다")
        call_id = here.call()
        say_risk(bridge, call_id, 3, "threat", WORDS)
        here.call("1002")
        async with desk.http(desk.agent) as http:
            await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            answer = (await http.get("/api/v1/wallboard")).json()
        await wall.shows("#help-count", "1")
        await wall.shows("#requests", "관리자 호출")
        assert answer["calls"] == 2
        assert answer["calls_by_level"] == [1, 0, 0, 1]
        assert [(one["kind"], one["level"]) for one in answer["requests"]] == [("help", 3)]
        page = await wall.page.content()
        said = json.dumps(answer, ensure_ascii=False)
        for secret in (call_id, WORDS, "협박", "threat"):
            assert secret not in page, secret
            assert secret not in said, secret
        for agent_id in ("1001", "1002"):  # whose digits a time may hold
            assert not mentioned(agent_id, page)
            assert not mentioned(agent_id, said)
        # Readable from 5 m: notifier/console/wallboard.css says why 48.
        sizes: list[float] = await wall.page.evaluate(
            "[...document.querySelectorAll('#main *')]"
            ".filter((e) => e.checkVisibility() && [...e.childNodes].some("
            "  (n) => n.nodeType === 3 && n.textContent.trim()))"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert len(sizes) > 10
        assert min(sizes) >= 48
        overflow = "document.documentElement.scrollHeight - innerHeight"
        assert await wall.page.evaluate(overflow) <= 0, "nobody scrolls a wall"
        bridge.end_call(call_id)
        assert wall.faults == []
