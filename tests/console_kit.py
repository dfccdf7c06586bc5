"""A real Chromium (Debian's, headless) in front of the real notifier, driven by Playwright."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from callshield.messages import Reason, RiskChanged
from tests.notifier_kit import Bridge, Desk, desk_in_process

#: Debian calls it chromium, other distributions chromium-browser.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: As root and without a graphics card; nothing asks a host outside.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)
WITHIN_MS = 20_000
#: A team of two with rest, counselling and a number for callers in danger; agents by ``IN_TEAM``.
CARE = """
[supervisors.lee]
uri = "sip:2001@192.0.2.30:5060"
[supervisors.kim]
uri = "sip:2000@192.0.2.31:5060"
role = "manager"
[aftercare]
rest_s = 1200
counselling_number = "7000"
[crisis]
number = "109"
[teams.one]
supervisors = ["lee"]
manager = "kim"
next_after_s = 3
limit_s = 10
[teams.one.policy]
length_notice_min = 1
length_end_min = 2
length_extend_min = 5
"""
IN_TEAM = 'team = "one"'
LEVEL = "n => document.getElementById('level').dataset.level === n"
ALERTS = "document.querySelectorAll('#alerts > li').length"


@dataclass
class Screen:
    """One open page, and what went wrong in it."""

    page: Page
    faults: list[str] = field(default_factory=list)
    """Uncaught exceptions, refusals of the content security policy, requests to another host."""

    async def live(self) -> Screen:
        """Wait until the page has its line to the node."""
        await self.page.wait_for_selector('#link[data-state="live"]', timeout=WITHIN_MS)
        return self

    async def text(self, selector: str) -> str:
        return (await self.page.locator(selector).inner_text()).strip()

    async def until(self, script: str, argument: object = None) -> None:
        """Wait until a JavaScript expression (or function of ``argument``) is true.

        Playwright's own ``wait_for_function`` evaluates text inside the page, which our content
        security policy forbids.
        """
        async with asyncio.timeout(WITHIN_MS / 1000):
            # Nothing in the page can call us: it is asked.
            while not await self.page.evaluate(script, argument):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element that can be seen holds this text."""
        await self.until(
            "([s, t]) => [...document.querySelectorAll(s)]"
            ".some((e) => e.checkVisibility() && e.innerText.includes(t))",
            [selector, text],
        )


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with a profile of its own that is thrown away afterwards.

    Raises:
        RuntimeError: there is none on this machine.
    """
    if CHROMIUM is None:
        raise RuntimeError("There is no Chromium: `./run test` installs it (Debian: chromium).")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=list(ARGUMENTS), timeout=60_000
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def screen(
    browser: Browser,
    address: str,
    path: str,
    token: str,
    *,
    width: int = 1000,
    height: int = 900,
    dark: bool = False,
    still: bool = True,
    language: str = "ko-KR",
) -> AsyncIterator[Screen]:
    """A page in a context of its own (no cookie and no storage of another one), signed in.

    Args:
        address: ``host:port`` of the node.
        path: ``/agent``, ``/supervisor`` or ``/wallboard``.
        token: in the fragment, which never reaches the server; empty: not signed in.
        width, height: of the window, in CSS pixels.
        dark: the system's colour scheme.
        still: the system asks for reduced motion.
        language: of the browser.
    """
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce" if still else "no-preference",
        locale=language,
        timezone_id="Asia/Seoul",
    )
    page = await context.new_page()
    shown = Screen(page)
    page.on("pageerror", lambda error: shown.faults.append(str(error)))
    page.on(
        "console",
        lambda said: (
            shown.faults.append(said.text) if "Content Security Policy" in said.text else None
        ),
    )
    page.on(
        "request",
        lambda asked: (
            None if f"://{address}/" in asked.url else shown.faults.append(f"asked {asked.url}")
        ),
    )
    try:
        fragment = f"#token={token}" if token else ""
        await page.goto(f"http://{address}{path}{fragment}")
        yield shown
    finally:
        with contextlib.suppress(asyncio.TimeoutError):
            await context.close()


@contextlib.asynccontextmanager
async def agent_screen(browser: Browser, desk: Desk, **options: object) -> AsyncIterator[Screen]:
    """The page of agent 1001, connected."""
    async with screen(browser, desk.address, "/agent", desk.agent, **options) as shown:  # type: ignore[arg-type]
        yield await shown.live()


@dataclass
class Room:
    """A running node with bridge and detector at its bus, and a browser to open its pages in."""

    desk: Desk
    bridge: Bridge
    detector: Bridge | None
    browser: Browser
    pages: contextlib.AsyncExitStack

    async def page(self, path: str, token: str, **options: object) -> Screen:
        """One more page, in a context of its own; closed with the room."""
        opened = screen(self.browser, self.desk.address, path, token, **options)  # type: ignore[arg-type]
        return await self.pages.enter_async_context(opened)

    async def agent(self, token: str = "", **options: object) -> Screen:
        """The page of agent 1001 (or of the token's), connected."""
        return await (await self.page("/agent", token or self.desk.agent, **options)).live()

    async def supervisor(self, token: str = "", **options: object) -> Screen:
        """The page of the first supervisor (or of the token's), connected."""
        shown = await self.page("/supervisor", token or self.desk.supervisor, **options)
        return await shown.live()

    def call(self, agent_id: str = "1001") -> str:
        """A call that was answered and whose notice was played: it is listened to."""
        call_id = self.bridge.start_call(agent_id)
        self.bridge.notice(call_id)
        return call_id


@contextlib.asynccontextmanager
async def room(
    folder: Path, extra: str = "", agents: str = "", *, detector: bool = True
) -> AsyncIterator[Room]:
    """What nearly every test of a page needs.

    Args:
        folder: of the node's files.
        extra, agents: more of its configuration; of each agent's table.
        detector: whether one is at the bus; without it nothing is analysed.
    """
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_in_process(folder, extra, agents))
        bridge = await stack.enter_async_context(desk.bridge())
        listener = await stack.enter_async_context(desk.bridge("detector")) if detector else None
        browser = await stack.enter_async_context(chromium())
        pages = await stack.enter_async_context(contextlib.AsyncExitStack())
        yield Room(desk, bridge, listener, browser, pages)


def say_risk(bridge: Bridge, call_id: str, level: int, category: str, *words: str) -> None:
    """A level that rests on these (masked) words."""
    bridge.send(
        RiskChanged(
            ts=time.time(),
            call_id=call_id,
            level=level,
            previous=0,
            categories=[category],
            score=0.9,
            reasons=[Reason(kind="words", score=0.9, words=list(words))],
            words_confirmed=True,
        )
    )


class Cable:
    """A TCP relay between browser and node that can be cut and mended.

    Args:
        port: of the node, on the loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self.refused = 0
        """Connections that were tried while it was cut."""
        self.tried = asyncio.Event()

    @property
    def address(self) -> str:
        """``host:port`` for the browser."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return f"127.0.0.1:{port}"

    def cut(self) -> None:
        """Break every connection and take no new one."""
        self._whole.clear()
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        self._whole.set()

    async def tries(self, count: int) -> None:
        """Wait until the browser tried in vain so many times."""
        async with asyncio.timeout(WITHIN_MS / 1000):
            while self.refused < count:
                self.tried.clear()
                await self.tried.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole.is_set():
            self.refused += 1
            self.tried.set()
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
