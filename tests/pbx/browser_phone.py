"""A browser phone: JsSIP (npm, pinned) in Chromium, registered at the PBX over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from playwright.async_api import Page, async_playwright

from tests.console_kit import ARGUMENTS, CHROMIUM
from tests.pbx.asterisk import Asterisk
from tests.pbx.jssip_packages import packages

#: Where the page lies. A page of the loopback is a secure context, without which there is no
#: microphone, and may speak to the loopback without asking (Local Network Access).
PAGE = "127.0.40.8"
SCRIPT = Path(__file__).with_name("browser_phone.js")


def jssip_files(folder: Path) -> dict[str, str]:
    """JsSIP and what it needs: path below ``node_modules`` → text."""
    root = folder / "node_modules"
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for package in packages()
        for path in sorted((root / package).rglob("*"))
        if path.suffix in (".js", ".json") and path.is_file()
    }


class BrowserPhone:
    """One page with a registered phone."""

    def __init__(self, page: Page, user: str) -> None:
        self.page, self.user = page, user
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    async def events(self) -> list[dict[str, Any]]:
        """What the phone noted: ``name`` and ``detail``."""
        found: list[dict[str, Any]] = await self.page.evaluate("phone.events")
        return found

    async def wait(self, name: str, *, count: int = 1, timeout_s: float = 20) -> dict[str, Any]:
        """The ``count``-th event of a name."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = [event for event in await self.events() if event["name"] == name]
                    if len(found) >= count:
                        return found[count - 1]
                    await asyncio.sleep(0.05)  # nothing in the page can call us: it is asked
        except TimeoutError:
            raise AssertionError(
                f"the browser phone never said {name}; it said {await self.events()}, {self.faults}"
            ) from None

    async def do(self, call: str, *arguments: Any) -> Any:
        """Call a method of the page's ``BrowserPhone``."""
        return await self.page.evaluate(f"(given) => phone.{call}(...given)", list(arguments))

    async def heard(self) -> NDArray[np.float32]:
        """What it heard so far, at 8 kHz, full scale ±1."""
        rate = await self.page.evaluate("phone.heardRate")
        raw = base64.b64decode(await self.do("heard"))
        samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
        narrow: NDArray[np.float32] = soxr.resample(samples, rate, 8000)
        return narrow


@contextlib.asynccontextmanager
async def _page_server() -> AsyncIterator[str]:
    """An empty page, whatever is asked for; its address."""
    body = "<!doctype html><title>phone</title>"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, PAGE, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://{PAGE}:{port}/"


@contextlib.asynccontextmanager
async def browser_phone(
    pbx: Asterisk, user: str, password: str, microphone: Path, jssip: Path
) -> AsyncIterator[BrowserPhone]:
    """A phone that is registered at an Asterisk, for as long as the block lasts.

    Args:
        pbx: where it registers.
        user, password: its account.
        microphone: WAV file that it speaks, over and over.
        jssip: folder in which npm put it.
    """
    socket = f"ws://{pbx.address}:{pbx.http_port}/ws"
    host = pbx.address
    async with browser_phone_at(socket, host, user, password, microphone, jssip) as phone:
        yield phone


@contextlib.asynccontextmanager
async def browser_phone_at(
    socket: str,
    host: str,
    user: str,
    password: str,
    microphone: Path,
    jssip: Path,
    *,
    registers: bool = True,
) -> AsyncIterator[BrowserPhone]:
    """A registered phone for as long as the block lasts.

    Args:
        socket: URL of the WebSocket.
        host: of its SIP URI.
        user, password: its account.
        microphone: WAV file that it speaks, over and over.
        jssip: folder in which npm put it.
        registers: wait until it is registered.
    """
    files = jssip_files(jssip)
    if CHROMIUM is None:
        raise RuntimeError("There is no Chromium: `./run test` installs it (Debian: chromium).")
    arguments = [
        *ARGUMENTS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--autoplay-policy=no-user-gesture-required",
        # Without it WebRTC leaves addresses of the loopback out.
        "--allow-loopback-in-peer-connection",
    ]

    async with _page_server() as address, async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=arguments, timeout=60_000
        )
        try:
            page = await browser.new_page()
            await page.goto(address)
            phone = BrowserPhone(page, user)
            await page.add_script_tag(content=SCRIPT.read_text(encoding="utf-8"))
            await page.evaluate(
                "([files, account]) => { globalThis.phone = new BrowserPhone(files, account); }",
                [
                    files,
                    {
                        "uri": f"sip:{user}@{host}",
                        "password": password,
                        "socket": socket,
                    },
                ],
            )
            if registers:
                await phone.wait("registered", timeout_s=60)
            try:
                yield phone
            except Exception as error:
                error.add_note(f"the browser phone said {await phone.events()}")
                raise
            assert not phone.faults, phone.faults
        finally:
            await browser.close()
