"""A headset on the agent's page, in a real Chromium with a double of ``navigator.hid``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Route

from callshield.messages import Action
from tests.console_kit import LEVEL, Room, Screen, room
from tests.hid_kit import (
    FAMILIES,
    JABRA,
    LAMPS,
    NO_TELEPHONY,
    POLY,
    SILENT,
    USAGES,
    Headset,
    script,
)
from tests.mentions import mentioned
from tests.test_console_access import CHOOSE, LANGUAGES, OVERFLOW, violations, walk

pytestmark = pytest.mark.browser

BURNS = "([id, lamp]) => window.hidBox.device(id).lit[lamp] === 1"
DARK = "([id, lamp]) => !window.hidBox.device(id).lit[lamp]"
RANG = "id => window.hidBox.device(id).written.some(([report, first]) => first & 4)"
STATE = "s => document.getElementById('headset').dataset.state === s"
OFF_HOOK, MUTE_LAMP, RING, MESSAGE = (LAMPS[x] for x in ("off_hook", "mute", "ring", "message"))


async def desk_with(here: Room, **headsets: Headset | str) -> Screen:
    """The page of agent 1001 at a desk with these headsets, by id."""
    one = await here.page("/agent", "")
    await one.page.context.add_init_script(script(**headsets))
    await one.page.goto(f"http://{here.desk.address}/agent#token={here.desk.agent}")
    await one.page.reload()
    return await one.live()


async def connect(one: Screen, name: str, state: str = "ready") -> None:
    """Press the button and choose this headset in the browser's list."""
    await one.page.evaluate("id => { window.hidBox.choice = [id]; }", name)
    await one.page.evaluate("document.getElementById('headset').open = true")
    await one.page.click("#headset-connect")
    await one.until(STATE, state)


async def pressed(one: Screen, name: str, key: str) -> None:
    """A key of the headset, down and up."""
    await one.page.evaluate(
        "([id, usage]) => { for (const value of [1, 0])"
        " window.hidBox.device(id).set({ [usage]: value }); }",
        [name, USAGES[key]],
    )


async def seen(one: Screen, name: str, what: str) -> Any:
    """``written``, ``heard``, ``muted``… of one headset."""
    return await one.page.evaluate("([id, what]) => window.hidBox.device(id)[what]", [name, what])


async def test_lamps_follow_the_call_of_every_family_and_none_ever_rings(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        pages = {name: await desk_with(here, **{name: one}) for name, one in FAMILIES.items()}
        for name, one in pages.items():
            await connect(one, name)
            await one.shows("#headset-state", f"{FAMILIES[name].name} 연결됨")
            assert await one.page.input_value("#headset-sign") == (
                "lamp" if name == "silent" else "off"
            ), "what may be heard is not switched on by itself"
        await pages["poly"].page.select_option("#headset-sign", "ring")

        call_id = here.bridge.start_call("1001", answer=False)
        for one in pages.values():
            await one.shows("#word", "전화 연결 중")
        for name, one in pages.items():
            assert await one.page.evaluate(DARK, [name, OFF_HOOK])
        here.bridge.answer_call(call_id)
        here.bridge.notice(call_id)
        for name, one in pages.items():
            await one.until(LEVEL, "0")
            await one.until(BURNS, [name, OFF_HOOK])
            assert not (await one.page.evaluate(RANG, name))
        here.bridge.risk(call_id, 2)
        await pages["poly"].until(BURNS, ["poly", RING])
        await pages["silent"].until(BURNS, ["silent", MESSAGE])
        # Three flashes, no more, while the call goes on.
        for name in ("poly", "silent"):
            lamp = RING if name == "poly" else MESSAGE
            report = 24 if name == "poly" else 3
            flashes = (
                "([id, report]) => window.hidBox.device(id).written"
                ".filter(([r, bits]) => r === report && (report === 24 ? bits : bits & 4)).length"
            )
            await pages[name].until(f"(a) => ({flashes})(a) === 3", [name, report])
            await pages[name].until(DARK, [name, lamp])
            assert await pages[name].page.evaluate(BURNS, [name, OFF_HOOK])
        here.bridge.end_call(call_id)
        for name, one in pages.items():
            await one.until(DARK, [name, OFF_HOOK])
            assert await seen(one, name, "heard") == [], "no refused report, and no sound"
            assert one.faults == []
        for name in ("jabra", "yealink", "dell"):
            assert not await pages[name].page.evaluate(RANG, name)


async def test_the_double_would_notice_a_ring_a_wrong_id_and_a_wrong_length(tmp_path: Path) -> None:
    """Negative control of the test above."""
    async with room(tmp_path, detector=False) as here:
        one = await desk_with(here, jabra=JABRA)
        await connect(one, "jabra")
        told = await one.page.evaluate(
            """async () => {
              const device = window.hidBox.device("jabra");
              const told = [];
              for (const [id, bytes] of [[2, [4, 0]], [3, [1, 0]], [2, [1]]]) {
                await device.sendReport(id, Uint8Array.from(bytes)).then(
                  () => told.push(""), (error) => told.push(error.name));
              }
              return [told, device.heard];
            }"""
        )
        refused = ["", "NotAllowedError", "NotAllowedError"]
        assert told == [refused, ["rings", "wrong report id", "wrong length"]]


async def test_a_chosen_key_calls_for_help_and_no_key_ever_ends_a_call(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one, bridge = await desk_with(here, jabra=JABRA), here.bridge
        await connect(one, "jabra")

        async def every_key() -> None:
            """Each alone, then all of them up and down together, twice."""
            for key in USAGES:
                if key != "redial":
                    await pressed(one, "jabra", key)
            for bits in ([0xFF, 0xFF], [0, 0], [0xFF, 0xFF], [0, 0]):
                await one.page.evaluate(
                    "bits => window.hidBox.device('jabra').report(2, bits)", bits
                )

        await every_key()
        call_id = bridge.start_call("1001", answer=False)
        await one.shows("#word", "전화 연결 중")
        await every_key()
        bridge.answer_call(call_id)
        bridge.notice(call_id)
        await one.until(LEVEL, "0")
        await every_key()
        assert await one.page.input_value("#headset-key") == ""
        await one.page.select_option("#headset-key", "flash")
        await pressed(one, "jabra", "flash")
        assert bridge.commands == [], "nothing is switched on, and once is an accident"
        await one.page.evaluate(
            "usage => window.hidBox.device('jabra').set({ [usage]: 1 })", USAGES["flash"]
        )
        await one.shows("#feedback", "관리자를 호출했습니다")
        assert [command.action for command in bridge.commands] == [Action.HELP]
        await every_key()
        bridge.ending(call_id)
        await every_key()
        bridge.end_call(call_id)
        await one.shows("#after", "방금 통화")
        await every_key()
        assert [command.action for command in bridge.commands] == [Action.HELP]
        # The choice is kept: pressed twice in the next call, after a reload.
        await one.page.reload()
        await one.live()
        await one.until(STATE, "ready")
        here.call()
        await one.until(LEVEL, "0")
        await one.until(BURNS, ["jabra", OFF_HOOK])
        await pressed(one, "jabra", "flash")
        await one.page.evaluate("new Promise((done) => setTimeout(done, 300))")
        await pressed(one, "jabra", "flash")
        await one.shows("#feedback", "관리자를 호출했습니다")
        assert [command.action for command in bridge.commands] == [Action.HELP] * 2


async def test_mute_is_shown_as_far_as_the_headset_tells_and_never_made_up(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        jabra = await desk_with(here, jabra=JABRA)
        poly = await desk_with(here, poly=POLY)
        silent = await desk_with(here, silent=SILENT)
        for name, one in (("jabra", jabra), ("poly", poly), ("silent", silent)):
            await connect(one, name)
            await one.shows("#headset-mute", "상태 알 수 없음")
        here.call()
        for one in (jabra, poly, silent):
            await one.until(LEVEL, "0")
        for name, one in (("jabra", jabra), ("poly", poly)):
            await one.page.evaluate("id => window.hidBox.device(id).pressMute()", name)
            await one.shows("#feedback", "Callshield는 마이크를 끄지 않습니다")
            assert await one.text("#headset-mute") == "상태 알 수 없음"
            assert await one.page.evaluate(DARK, [name, MUTE_LAMP])
        assert await seen(poly, "poly", "muted") is True, "what the headset did stays done"
        for value, text in ((1, "음소거 켜짐"), (0, "음소거 꺼짐")):
            await silent.page.evaluate(
                "([usage, value]) => window.hidBox.device('silent').set({ [usage]: value })",
                [USAGES["mute"], value],
            )
            await silent.shows("#headset-mute", text)
            await silent.until(BURNS if value else DARK, ["silent", MUTE_LAMP])
        assert here.bridge.commands == []


async def test_a_headset_comes_back_after_a_reload_and_after_it_was_unplugged(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as here:
        one = await desk_with(here, poly=POLY)
        await connect(one, "poly")
        call_id = here.call()
        await one.until(BURNS, ["poly", OFF_HOOK])
        await one.page.evaluate("window.hidBox.unplug('poly')")
        await one.until(STATE, "lost")
        await one.shows("#headset-state", "다시 꽂으면")
        here.bridge.risk(call_id, 2)
        await one.until(LEVEL, "2")
        await one.page.keyboard.press("F8")
        await one.shows("#feedback", "관리자를 호출했습니다")
        await one.page.evaluate(f"window.hidBox.plug('poly', {POLY.spec()})")
        await one.until(STATE, "ready")
        await one.until(BURNS, ["poly", OFF_HOOK])
        await one.page.reload()
        await one.live()
        await one.until(STATE, "ready")
        await one.until(BURNS, ["poly", OFF_HOOK])
        assert await one.page.evaluate("window.hidBox.asked") == [], "nobody was asked again"
        # Given back: out, forgotten by the browser, and not found again.
        await one.page.evaluate("document.getElementById('headset').open = true")
        await one.page.click("#headset-forget")
        await one.until(STATE, "none")
        await one.until(DARK, ["poly", OFF_HOOK])
        await one.until("id => !window.hidBox.device(id).opened", "poly")
        assert await one.page.evaluate("localStorage.getItem('callshield.headset')") is None
        await one.page.reload()
        await one.live()
        assert await one.page.evaluate("navigator.hid.getDevices()") == []
        assert await one.page.get_attribute("#headset", "data-state") == "none"
        assert one.faults == []


async def test_what_cannot_be_connected_is_said_and_nothing_else_is_lost(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one = await desk_with(
            here,
            mouse=NO_TELEPHONY,
            busy=JABRA.spec(busy=True),
            broken=POLY.spec(refuses=True),
        )
        await connect(one, "nothing", "unchosen")
        filters = (await one.page.evaluate("window.hidBox.asked"))[0]
        assert {one["vendorId"] for one in filters if "vendorId" in one} == {
            *(0x1395, 0x0B0E, 0x047F, 0x6993),
        }
        assert {"usagePage": 0x0B} in filters
        await connect(one, "mouse", "no_control")
        await connect(one, "busy", "closed")
        await one.page.evaluate("window.hidBox.policy = 'refused'")
        await connect(one, "busy", "refused")
        await one.page.evaluate("window.hidBox.policy = ''")
        # Its lamps fail: said, given up after three, and its keys are read all the same.
        await connect(one, "broken")
        await one.page.select_option("#headset-key", "flash")
        await one.page.select_option("#headset-sign", "ring")
        call_id = here.call()
        here.bridge.risk(call_id, 2)
        await one.shows("#headset-dark", "램프를 켤 수 없습니다")
        await pressed(one, "broken", "flash")
        await one.page.evaluate("new Promise((done) => setTimeout(done, 300))")
        await pressed(one, "broken", "flash")
        await one.shows("#feedback", "관리자를 호출했습니다")
        assert await seen(one, "broken", "written") == []
        assert one.faults == []


async def test_of_two_headsets_the_chosen_one_is_driven_and_the_other_takes_its_place(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as here:
        one = await desk_with(here, jabra=JABRA, poly=POLY)
        await connect(one, "jabra")
        await connect(one, "poly")
        await one.shows("#headset-state", POLY.name)
        await one.until("!window.hidBox.device('jabra').opened")
        here.call()
        await one.until(BURNS, ["poly", OFF_HOOK])
        assert await one.page.evaluate(DARK, ["jabra", OFF_HOOK])
        await one.page.reload()
        await one.live()
        await one.page.evaluate("document.getElementById('headset').open = true")
        await one.shows("#headset-state", POLY.name)
        await one.page.evaluate("window.hidBox.unplug('poly')")
        await one.shows("#headset-state", JABRA.name)
        await one.until(BURNS, ["jabra", OFF_HOOK])


async def test_one_tab_drives_it_and_the_next_takes_over_when_that_is_closed(
    tmp_path: Path,
) -> None:
    async with room(tmp_path) as here:
        one = await desk_with(here, poly=POLY)
        await connect(one, "poly")
        page = await one.page.context.new_page()
        other = Screen(page)
        await page.goto(f"http://{here.desk.address}/agent#token={here.desk.agent}")
        await other.live()
        await other.until(STATE, "elsewhere")
        await page.evaluate("document.getElementById('headset').open = true")
        await other.shows("#headset-state", "다른 탭에서")
        assert await page.is_hidden("#headset-connect")
        here.call()
        await one.until(BURNS, ["poly", OFF_HOOK])
        await other.until(LEVEL, "0")
        assert await seen(other, "poly", "written") == []
        await one.page.close()
        await other.until(STATE, "ready")
        await other.until(BURNS, ["poly", OFF_HOOK])


async def test_without_webhid_the_page_says_so_and_every_button_works(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        absent, insecure = [await here.page("/agent", "") for _ in range(2)]
        await absent.page.add_init_script("delete Navigator.prototype.hid")
        await insecure.page.add_init_script(
            "Object.defineProperty(globalThis, 'isSecureContext', { value: false })"
        )
        said = {"absent": "이 브라우저에서는", "insecure": "https 주소로"}
        for name, one in (("absent", absent), ("insecure", insecure)):
            await one.page.goto(f"http://{here.desk.address}/agent#token={here.desk.agent}")
            await one.page.reload()
            await one.live()
            assert await one.page.get_attribute("#headset", "data-state") == name
            await one.page.click("#headset summary")
            await one.shows("#headset-state", said[name])
            assert await one.page.is_hidden("#headset-connect")
        here.call()
        await absent.until(LEVEL, "0")
        await absent.page.keyboard.press("F9")
        await absent.shows("#feedback", "통화를 종료했습니다")
        assert absent.faults == insecure.faults == []


async def test_the_real_browser_lets_this_page_use_it_and_no_other_would_without_the_header(
    tmp_path: Path,
) -> None:
    asks = "navigator.hid.getDevices().then((found) => found.length, (error) => error.name)"
    async with room(tmp_path, detector=False) as here:
        one = await here.agent()
        assert await one.page.evaluate(asks) == 0

        async def forbidding(route: Route) -> None:
            asked = {k: v for k, v in route.request.headers.items() if not k.startswith("if-")}
            answer = await route.fetch(headers=asked)
            policy = answer.headers["permissions-policy"]
            assert "hid=(self)" in policy
            headers = {**answer.headers, "permissions-policy": policy.replace("(self)", "()")}
            await route.fulfill(response=answer, headers=headers)

        await one.page.route("**/agent", forbidding)
        # Chromium lets no page that was put in open a line to the loopback.
        await one.page.reload(wait_until="load")
        assert await one.page.evaluate(asks) == "SecurityError"
        assert one.faults == []


async def test_nothing_of_the_headset_leaves_the_browser(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        one, sent = await desk_with(here, poly=POLY), list[str]()
        one.page.on("request", lambda asked: sent.append(f"{asked.url} {asked.post_data}"))
        one.page.on(
            "websocket", lambda line: line.on("framesent", lambda frame: sent.append(str(frame)))
        )
        await one.page.reload()
        await one.live()
        await connect(one, "poly")
        await one.page.select_option("#headset-key", "flash")
        here.call()
        await one.until(BURNS, ["poly", OFF_HOOK])
        await pressed(one, "poly", "mute")
        await one.page.evaluate("new Promise((done) => setTimeout(done, 300))")
        for _ in range(2):
            await pressed(one, "poly", "flash")
            await one.page.evaluate("new Promise((done) => setTimeout(done, 300))")
        await one.shows("#feedback", "관리자를 호출했습니다")
        assert any('"action":"help"' in text for text in sent), "what is sent is seen here"
        for secret in (POLY.name, "Blackwire", "mute", "flash"):
            assert not [text for text in sent if secret in text], secret
        for number in (str(0x047F), str(0xC056), "047f"):  # whose digits a call's id may hold
            assert not [text for text in sent if mentioned(number, text)], number


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_panel_is_for_everybody(tmp_path: Path, dark: bool) -> None:
    async with room(tmp_path) as here:
        one = await desk_with(here, jabra=JABRA)
        await one.page.emulate_media(color_scheme="dark" if dark else "light")
        here.call()
        await one.until(LEVEL, "0")
        # By keyboard alone: to the panel, open it, connect.
        await one.page.evaluate("window.hidBox.choice = ['jabra']")
        await one.page.focus("#headset summary")
        await one.page.keyboard.press("Enter")
        await one.page.keyboard.press("Tab")
        await one.page.keyboard.press("Enter")
        await one.until(STATE, "ready")
        reached = await walk(one)
        assert reached == [f"headset-{part}" for part in ("forget", "lamp", "sign", "key")]
        assert await violations(one) == []
        await one.page.evaluate("document.querySelector('label[for=headset-sign]').remove()")
        assert any("select-name" in line for line in await violations(one)), "axe sees the panel"
        await one.page.reload()
        await one.live()
        await one.until(STATE, "ready")
        await one.page.set_viewport_size({"width": 360, "height": 740})
        await one.page.evaluate("document.getElementById('headset').open = true")
        for code in LANGUAGES:
            await one.page.evaluate(CHOOSE, code)
            assert await one.page.evaluate(OVERFLOW) == 0, code
        assert one.faults == []
