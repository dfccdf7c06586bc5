"""Who can use the consoles: by keyboard alone, at 360 pixels, in every language, read aloud.

axe-core (Deque, MPL-2.0) judges the pages as they are drawn, colours included; what it cannot judge
is here too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route

from tests.console_kit import (
    ALERTS,
    CARE,
    LEVEL,
    Screen,
    agent_screen,
    chromium,
    say_risk,
    screen,
)
from tests.notifier_kit import Bridge, Desk, desk_in_process

pytestmark = pytest.mark.browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CHOOSE = """code => {
  const list = document.getElementById("language");
  list.value = code;
  list.dispatchEvent(new Event("change"));
}"""
LANGUAGES = ("ko", "en", "zh", "ja")


async def violations(shown: Screen) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA."""
    # Run in the page by the debugger: our content security policy lets no script in otherwise.
    await shown.page.evaluate(AXE)
    found: dict[str, Any] = await shown.page.evaluate(
        "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })"
    )
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@asynccontextmanager
async def room(folder: Path) -> AsyncIterator[tuple[Desk, Bridge, Browser]]:
    """A node, a browser, and a bad call of agent 1001 in which help was asked for."""
    async with (
        desk_in_process(folder, CARE) as desk,
        desk.bridge() as bridge,
        desk.bridge("detector"),
        chromium() as browser,
        agent_screen(browser, desk) as one,
    ):
        call_id = bridge.start_call("1001")
        bridge.notice(call_id)
        say_risk(bridge, call_id, 2, "sexual_harassment", "[이름]이라고 했지")
        await one.until(LEVEL, "2")
        await one.page.keyboard.press("F8")
        await one.shows("#request-says", "관리자")
        yield desk, bridge, browser


def pages(desk: Desk) -> list[tuple[str, str]]:
    return [
        ("/agent", desk.agent),
        ("/supervisor", desk.supervisor),
        ("/wallboard", desk.other),
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_nothing_on_any_page(tmp_path: Path, dark: bool) -> None:
    async with room(tmp_path) as (desk, bridge, browser):
        for path, token in pages(desk):
            async with screen(browser, desk.address, path, token, dark=dark) as shown:
                await shown.live()
                assert await violations(shown) == [], path
        async with screen(browser, desk.address, "/agent", "", dark=dark) as login:
            await login.shows("#login", "접속 토큰")
            assert await violations(login) == []
        async with agent_screen(browser, desk, dark=dark) as after:
            bridge.ending(next(iter(bridge.calls)))
            bridge.end_call(next(iter(bridge.calls)), "ended_with_announcement")
            await after.shows("#rest", "남음")
            assert await violations(after) == []


async def test_axe_would_find_a_button_without_a_name_and_pale_text(tmp_path: Path) -> None:
    async with room(tmp_path) as (desk, _, browser), agent_screen(browser, desk) as shown:
        await shown.until(LEVEL, "2")
        await shown.page.evaluate("document.getElementById('end').replaceChildren()")
        await shown.page.evaluate("document.getElementById('why').style.color = '#d06030'")
        found = {line.split(":")[0] for line in await violations(shown)}
        assert found == {"button-name", "color-contrast"}


async def test_nothing_scrolls_sideways_at_360_pixels_in_any_language(tmp_path: Path) -> None:
    async with room(tmp_path) as (desk, bridge, browser):
        for path, token in pages(desk):
            async with screen(browser, desk.address, path, token, width=360, height=740) as shown:
                await shown.live()
                for code in LANGUAGES:
                    await shown.page.evaluate(CHOOSE, code)
                    assert await shown.page.evaluate(OVERFLOW) == 0, f"{path} {code}"
                if path == "/supervisor":
                    await shown.page.click(".refuse >> nth=0")
                    assert await shown.page.evaluate(OVERFLOW) == 0
        async with agent_screen(browser, desk, width=360, height=740) as after:
            bridge.end_call(next(iter(bridge.calls)))
            await after.shows("#rest", "남음")
            for code in LANGUAGES:
                await after.page.evaluate(CHOOSE, code)
                assert await after.page.evaluate(OVERFLOW) == 0, code
            await after.page.evaluate("document.getElementById('who').style.minWidth = '500px'")
            assert await after.page.evaluate(OVERFLOW) > 0, "what is too wide is noticed"


FOCUSED = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const style = getComputedStyle(at);
  const box = at.getBoundingClientRect();
  return {
    name: at.id || at.dataset.how || at.className || at.tagName,
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    shown: box.width > 0 && box.height > 0,
  };
}"""


async def walk(shown: Screen) -> list[str]:
    """Press Tab from the top of the page to its end; where it stopped, in order."""
    names: list[str] = []
    for _ in range(60):
        await shown.page.keyboard.press("Tab")
        at = await shown.page.evaluate(FOCUSED)
        if at is None:
            return names
        assert at["shown"], f"{at['name']} has the focus and cannot be seen"
        assert at["ring"], f"nothing shows that {at['name']} has the focus"
        names.append(at["name"])
    raise AssertionError(f"Tab never leaves the page: {names}")


async def test_everything_can_be_reached_and_done_by_keyboard_alone(tmp_path: Path) -> None:
    async with (
        room(tmp_path) as (desk, bridge, browser),
        agent_screen(browser, desk) as agent,
        screen(browser, desk.address, "/supervisor", desk.supervisor) as one,
    ):
        await one.live()
        await agent.until(LEVEL, "2")
        reached = await walk(agent)
        for name in ("skip", "warn", "help", "end", "hand_over", "soften", "abusive", "pause"):
            assert name in reached, reached
        await one.shows("#alerts", "관리자 호출")
        reached = await walk(one)
        assert {"join", "take_over", "seen", "sound", "language"} <= set(reached)
        # Refuse the machine's alert and accept the call for help without a mouse.
        await one.page.focus('[data-kind="risk"] .refuse')
        await one.page.keyboard.press("Enter")
        assert await one.page.evaluate("document.activeElement.tagName") == "SELECT"
        await one.page.keyboard.press("Escape")
        assert await one.page.is_hidden(".refusal >> nth=0")
        await one.page.focus('[data-how="join"]')
        await one.page.keyboard.press("Enter")
        await agent.shows("#request-says", "관리자가 오고 있습니다")
        # The row is gone, and the focus is not: it is on the next one or on the queue's heading.
        await one.until(f"{ALERTS} < 2")
        assert await one.page.evaluate("document.activeElement.closest('.queue') !== null")
        bridge.end_call(next(iter(bridge.calls)))
        await agent.shows("#after", "방금 통화")
        # How much longer a rest may be is asked for once it has begun.
        await agent.until("document.querySelector('#rest-longer').checkVisibility()")
        reached = await walk(agent)
        for name in ("rest-longer", "rest-ready", "after-evidence", "after-abusive", "past-calls"):
            assert name in reached, reached


async def test_a_level_is_said_aloud_at_once_and_results_politely(tmp_path: Path) -> None:
    async with room(tmp_path) as (desk, _, browser), agent_screen(browser, desk) as shown:
        await shown.until(LEVEL, "2")
        live = "s => document.querySelector(s).closest('[aria-live]').ariaLive"
        assert await shown.page.evaluate(live, "#word") == "assertive"
        assert await shown.page.evaluate(live, "#request-says") == "assertive"
        assert await shown.page.evaluate(live, "#feedback") == "polite"
        # A screen reader is told the level, never the quote that is folded away.
        inside = "document.querySelector('#level [aria-live] #quotes') !== null"
        assert await shown.page.evaluate(inside) is False


async def test_the_pages_obey_a_policy_that_lets_nothing_else_in(tmp_path: Path) -> None:
    async with room(tmp_path) as (desk, _, browser), agent_screen(browser, desk) as shown:
        assert shown.faults == []
        await shown.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'),"
            " { textContent: 'window.let_in = 1' }))"
        )
        await shown.until("window.let_in === undefined")
        assert any("Content Security Policy" in fault for fault in shown.faults)


async def test_the_organisations_sign_in_is_offered_where_it_is_configured(tmp_path: Path) -> None:
    """The provider's part is put in as docs/api.md has it; by itself the page has no way of it."""
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/agent", "") as without,
        screen(browser, desk.address, "/agent", "") as one,
    ):
        await without.shows("#login", "접속 토큰")
        assert await without.page.is_hidden("#oidc")
        redeemed: list[str] = []

        async def ways(route: Route) -> None:
            await route.fulfill(json={"oidc": True})

        async def token(route: Route) -> None:
            redeemed.append(route.request.method)
            await route.fulfill(json={"token": desk.agent, "role": "agent"})

        await one.page.route("**/api/v1/sign-in", ways)
        await one.page.route("**/api/v1/oidc/token", token)
        await one.page.reload()
        await one.shows("#oidc", "회사 계정으로 로그인")
        assert await one.page.get_attribute("#oidc", "href") == "/api/v1/oidc/login?page=agent"
        await one.page.goto(f"http://{desk.address}/agent#signed-in")
        await one.page.reload()
        await one.live()
        assert redeemed == ["POST"], "changed once"
        assert "#" not in one.page.url
        assert without.faults == one.faults == []


async def test_a_token_of_another_role_is_told_so(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        chromium() as browser,
        screen(browser, desk.address, "/supervisor", desk.agent) as one,
    ):
        await one.shows("#login-error", "이 토큰으로는 이 화면을 볼 수 없습니다.")
