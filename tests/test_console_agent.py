"""The agent's page in a real Chromium: warned, ends the call, rests; and nothing moves in peace."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from playwright.async_api import Route

from callshield.messages import Action, CrisisHint, WarningPlayed
from notifier.tokens import create_token
from tests.console_kit import CARE, IN_TEAM, LEVEL, room, say_risk

pytestmark = pytest.mark.browser

MOVING = "document.getAnimations().length"
#: Counts what changes in the page; an attribute that is written again as it was is no change.
COUNT_CHANGES = """() => {
  window.changes = 0;
  const real = (one) => one.type !== "attributes"
    || one.target.getAttribute(one.attributeName) !== one.oldValue;
  new MutationObserver((all) => { window.changes += all.filter(real).length; }).observe(document, {
    subtree: true, childList: true, attributes: true, attributeOldValue: true, characterData: true,
  });
}"""


async def test_the_agent_is_warned_ends_the_call_and_sees_the_rest(tmp_path: Path) -> None:
    async with room(tmp_path, CARE, IN_TEAM) as here:
        one, bridge = await here.agent(), here.bridge
        other = await here.agent(here.desk.other)
        call_id = here.call()
        await one.until(LEVEL, "0")
        assert await one.text("#word") == "정상"
        say_risk(bridge, call_id, 3, "threat", "[전화번호] 찾아간다")
        await one.until(LEVEL, "3")
        assert await one.text("#word") == "심각"
        assert await one.text("#categories") == "협박"
        assert await one.page.get_attribute("#bar", "aria-valuenow") == "3"

        await one.page.keyboard.press("F9")
        await one.shows("#feedback", "통화를 종료했습니다")
        assert [command.action for command in bridge.commands] == [Action.END]
        bridge.ending(call_id)
        await one.shows("#word", "통화에서 분리됨")
        bridge.end_call(call_id, "ended_with_announcement")
        await one.shows("#rest", "20분 남음")
        await one.shows("#rest", "7000")

        await one.page.click("#rest-longer")
        await one.shows("#rest", "25분 남음")
        for wish in ("#after-evidence", "#after-abusive", '[data-note="threat"]'):
            await one.page.click(wish)
            await one.until("s => document.querySelector(s).ariaPressed === 'true'", wish)
        await one.page.reload()
        await one.shows("#rest", "25분 남음")
        await one.until("s => document.querySelector(s).ariaPressed === 'true'", "#after-evidence")
        await one.page.click("#rest-ready")
        await one.until("document.getElementById('rest').hidden")

        assert await other.text("#word") == "대기 중", "another agent's page knows nothing of it"
        assert await other.page.is_hidden("#past")
        assert one.faults == other.faults == []


async def test_at_level_0_nothing_moves_and_at_level_2_something_does(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one, calm = await here.agent(still=False), await here.agent(still=True)
        call_id = here.call()
        await one.until(LEVEL, "0")
        await one.page.evaluate(COUNT_CHANGES)
        assert await one.page.evaluate(MOVING) == 0
        # Two ticks of the page's own clock later nothing was written anew.
        await one.page.evaluate("new Promise((done) => setTimeout(done, 2500))")
        assert await one.page.evaluate("window.changes") == 0
        assert await one.page.evaluate(MOVING) == 0

        here.bridge.risk(call_id, 2)
        await one.until(f"{MOVING} > 0")
        assert await one.page.evaluate("window.changes") > 0, "the counting counts"
        await calm.until(LEVEL, "2")
        assert await calm.page.evaluate(MOVING) == 0, "who asked for no movement gets none"


async def test_a_masked_quote_stays_folded_until_opened_and_folds_with_the_next_call(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as here:
        one, bridge = await here.agent(), here.bridge
        call_id = here.call()
        say_risk(bridge, call_id, 2, "insult", "[이름] 멍청이")
        await one.until(LEVEL, "2")
        quote = one.page.locator("#quotes")
        assert not await quote.is_visible()
        await one.page.focus("#heard summary")
        await one.page.keyboard.press("Enter")
        assert await quote.is_visible()
        assert await quote.inner_text() == "“[이름] 멍청이”"
        bridge.end_call(call_id)
        second = here.call()
        say_risk(bridge, second, 2, "insult", "[이름] 바보")
        await one.until("document.getElementById('quotes').textContent.includes('바보')")
        assert not await quote.is_visible()


async def test_every_key_does_what_its_button_says(tmp_path: Path) -> None:
    async with room(tmp_path, CARE, IN_TEAM) as here:
        one, bridge, detector = await here.agent(), here.bridge, here.detector
        assert detector is not None
        call_id = bridge.start_call("1001")
        await one.until("!document.getElementById('skip_notice').hidden")
        pressed = {"F10": Action.SKIP_NOTICE}
        await one.page.keyboard.press("F10")
        await one.shows("#feedback", "안내를 건너뛰고")
        bridge.notice(call_id)
        await one.until(LEVEL, "0")
        for key, action in {
            "F2": Action.WARN,
            "F4": Action.HAND_OVER,
            "F5": Action.SOFTEN,
            "F7": Action.PAUSE_RECORDING,
            "F9": Action.END,
        }.items():
            pressed[key] = action
            before = await one.text("#feedback")
            await one.page.keyboard.press(key)
            await one.until("t => document.getElementById('feedback').innerText !== t", before)
            await one.until("document.querySelector('.act[aria-busy=true]') === null")
        assert [command.action for command in bridge.commands] == list(pressed.values())
        # The agent's own word goes to the detector, who makes level 3 of it.
        await one.page.keyboard.press("F6")
        await one.shows("#feedback", "심각으로 표시했습니다")
        assert [command.action for command in detector.commands] == [Action.ABUSIVE]
        # With a modifier it is the browser's key, and typing letters presses nothing.
        for key in ("Control+F9", "w", "h", "e", "Enter"):
            await one.page.keyboard.press(key)
        assert len(bridge.commands) == len(pressed)


async def test_warnings_given_are_marked_and_the_policy_highlights_end(tmp_path: Path) -> None:
    async with room(tmp_path, CARE, IN_TEAM) as here:
        one, bridge = await here.agent(), here.bridge
        call_id = here.call()
        await one.until(LEVEL, "0")
        assert (await one.text("#grades")).split() == ["1차", "2차", "최종"]
        assert not await one.page.is_visible("#advised")
        say_risk(bridge, call_id, 2, "sexual_harassment")
        await one.until(LEVEL, "2")
        bridge.send(
            WarningPlayed(ts=time.time(), call_id=call_id, agent_id="1001", grade=1, complete=True)
        )
        await one.shows("#grades", "✓ 1차")
        # kr preset: one warning is enough for sexual harassment.
        await one.shows("#advised", "지금 종료하셔도 됩니다")
        assert await one.page.is_enabled("#end")


async def test_a_caller_in_danger_shows_the_number_and_no_level_of_abuse(tmp_path: Path) -> None:
    async with room(tmp_path, CARE) as here:
        one, bridge = await here.agent(), here.bridge
        call_id = here.call()
        bridge.send(CrisisHint(ts=time.time(), call_id=call_id, words=["살기 싫어요"]))
        await one.shows("#crisis", "위기 고객")
        await one.shows("#crisis", "109")
        assert not await one.page.is_visible("#crisis-words")
        assert await one.text("#word") == "정상"
        bridge.end_call(call_id)
        await one.until("document.getElementById('crisis').hidden")


async def test_when_nobody_comes_the_agent_is_offered_end_and_a_call_back(tmp_path: Path) -> None:
    async with room(tmp_path, CARE, IN_TEAM) as here:
        one = await here.agent()
        here.call()
        await one.until(LEVEL, "0")
        assert await one.page.is_hidden("#offers")
        await one.page.keyboard.press("F3")
        await one.page.keyboard.press("F8")
        await one.shows("#request-says", "알렸습니다")
        await one.shows("#request-says", "아직 오는 관리자가 없습니다")
        assert await one.page.is_visible("#offer-end")
        await one.page.keyboard.press("F3")
        await one.shows("#feedback", "회신을 약속했습니다")
        assert await one.page.is_enabled("#end"), "end is never taken away"


async def test_a_public_body_speaks_of_its_citizens_and_a_company_of_customers(
    tmp_path: Path,
) -> None:
    public = CARE.replace('manager = "kim"', 'manager = "kim"\npreset = "public"')
    async with room(tmp_path, public, IN_TEAM) as here:
        one, bridge = await here.agent(), here.bridge
        call_id = here.call()
        say_risk(bridge, call_id, 2, "threat")
        await one.shows("#why", "민원인이 위협하는 말을 하고 있습니다.")
        assert "고객" not in await one.page.inner_text("body")


async def test_a_call_of_the_past_day_can_still_be_spoken_of(tmp_path: Path) -> None:
    async with room(tmp_path, CARE) as here:
        desk = here.desk
        first, second = here.call(), here.call()
        one = await here.agent()
        await one.until("!document.getElementById('others').hidden")
        await one.page.close()
        for call_id in (first, second):
            here.bridge.end_call(call_id)
        one = await here.agent()
        await one.until("document.getElementById('past-calls').length === 3")
        await one.page.select_option("#past-calls", first)
        await one.page.click("#after-evidence")
        await one.shows("#feedback", "증거자료를 요청했습니다.")
        async with desk.http(desk.agent) as http:
            said = (await http.get("/api/v1/me/requests")).json()["requests"]
        assert [(asked["call_id"], asked["action"]) for asked in said] == [(first, "evidence")]
        async with desk.http(desk.other) as http:
            assert (await http.get("/api/v1/me/calls")).json() == {"calls": []}
        async with desk.http(desk.supervisor) as http:
            assert (await http.get("/api/v1/me/calls")).status_code == 403


async def test_that_a_caller_rings_back_is_said_before_answering(tmp_path: Path) -> None:
    """The bridge's mark is fed in on the page's own line, as the server sends it."""
    async with room(tmp_path, detector=False) as here:
        one = await here.page("/agent", "")

        def tap(line: object) -> None:
            far = line.connect_to_server()  # type: ignore[attr-defined]

            def passed(text: str) -> None:
                line.send(text)  # type: ignore[attr-defined]
                if '"call.started"' in text:
                    call_id = text.split('"call_id":"')[1][:32]
                    line.send(  # type: ignore[attr-defined]
                        f'{{"type":"ringback.seen","ts":1,"call_id":"{call_id}",'
                        '"category":"threat","ended_days_ago":3}'
                    )

            far.on_message(passed)

        await one.page.route_web_socket("**/api/v1/events*", tap)
        await one.page.fill("#token", here.desk.agent)
        await one.page.keyboard.press("Enter")
        await one.live()
        here.bridge.start_call("1001", answer=False)
        await one.shows("#ringback", "협박 · 3일 전")
        assert await one.text("#word") == "전화 연결 중"
        await one.shows("#ringback", "평소처럼 연결됩니다")


DRAW = {
    "draw_id": "d" * 32,
    "month": "2026-10",
    "call_id": "c" * 32,
    "reviews": [{"review": 1, "ts": 1.0, "points": {"greeting": 3}}],
    "counts": 61,
    "contest_until_ts": 4e9,
    "contested_ts": None,
    "due_ts": None,
    "void_ts": None,
    "void_reason": "",
}
OPENING = {
    "ts": 1.76e9,
    "by_role": "supervisor",
    "by": "t1",
    "why": "complaint",
    "ref": "c-1",
    "call_id": "c" * 32,
    "by_name": "shift-a",
    "reason": "청구서 문의",
}


async def test_the_agent_reads_who_opened_a_recording_and_contests_a_score(tmp_path: Path) -> None:
    """The two answers are put in as docs/fairness.md has them."""
    asked: list[str] = []

    async def openings(route: Route) -> None:
        await route.fulfill(json={"openings": [OPENING]})

    async def quality(route: Route) -> None:
        contested = {"contested_ts": 1.8e9} if asked else {}
        await route.fulfill(json={"draws": [{**DRAW, **contested}]})

    async def contest(route: Route) -> None:
        asked.append(f"{route.request.method} {route.request.url.split('/api/v1')[1]}")
        await route.fulfill(json={"draw_id": DRAW["draw_id"], "due_ts": 1.9e9})

    async with room(tmp_path, detector=False) as here:
        one, desk = await here.page("/agent", ""), here.desk
        await one.page.route("**/api/v1/me/opened", openings)
        await one.page.route("**/api/v1/me/quality", quality)
        await one.page.route("**/api/v1/quality/scores/*/contest", contest)
        await one.page.goto(f"http://{desk.address}/agent#token={desk.agent}")
        await one.page.reload()
        await one.live()
        await one.page.click("#opened-box summary")
        await one.shows("#opened", "관리자 · shift-a · 민원: 청구서 문의")
        await one.page.click("#quality-box summary")
        await one.shows("#quality", "2026-10 · 61점")
        await one.page.click("#quality button")
        await one.shows("#quality", "이의 제기함")
        assert asked == [f"POST /quality/scores/{DRAW['draw_id']}/contest"]
        assert await one.page.locator("#quality button").count() == 0


async def test_the_agent_sees_at_once_that_a_caller_was_given_a_call(tmp_path: Path) -> None:
    """Nothing put in: a real administrator gives a real call, and the page hears of it."""
    async with room(tmp_path, "[callbacks]\nkeep_number = true\n", detector=False) as here:
        desk, bridge = here.desk, here.bridge
        one, other = await here.agent(), await here.agent(desk.other)
        call_id = here.call()
        bridge.end_call(call_id)
        await one.shows("#after-what", "")
        admin = await asyncio.to_thread(create_token, desk.settings, "admin", "box-a")
        for page in (one, other):
            await page.page.click("#opened-box summary")
            await page.shows("#opened-none", "열어 본 사람이 없습니다.")
        async with desk.http(admin) as http:
            body = {"call_id": call_id, "ref": "R-7"}
            answer = await http.post("/api/v1/privacy/access", json=body)
            assert answer.status_code == 200, answer.text
        await one.shows("#opened", "시스템 관리자 · box-a · 고객의 개인정보 열람 요구")
        assert not await other.page.locator("#opened li").count(), "nobody else's"
        for language, text in (
            ("en", "the caller's own request for access"),
            ("zh", "客户的查阅请求"),
            ("ja", "お客様からの開示請求"),
        ):
            kept = "code => localStorage.setItem('callshield.language', code)"
            await one.page.evaluate(kept, language)
            await one.page.reload()
            await one.live()
            await one.page.click("#opened-box summary")
            await one.shows("#opened", text)
