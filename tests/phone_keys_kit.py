"""A phone's side of the listener: a node's ``[phones]``, the process beside it, a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from callshield.bus import BusClient
from callshield.messages import Hello, NodeMessage
from callshield.messages_phones import PhoneKey, PhoneKeyDone
from callshield.settings import Settings, load_settings
from firmware_profiles.listener import Listener
from firmware_profiles.phone_tokens import load_tokens
from tests.notifier_kit import free_port, write_config

#: Processes start slowly on a machine that others use, too.
WITHIN_S = 60.0


def phones_table(port: int, more: str = "", networks: str = '"127.0.0.1"', url: str = "") -> str:
    """Lines of a configuration: a listener for phones on loopback."""
    return f"""
[sip.phone]
networks = [{networks}]
[phones]
port = {port}
url = "{url or f"http://127.0.0.1:{port}"}"
{more}
"""


def phone_settings(folder: Path, more: str = "", networks: str = '"127.0.0.1"') -> Settings:
    """A node's configuration with a listener on a free port."""
    folder.mkdir(exist_ok=True)
    return load_settings(
        write_config(folder, free_port(), phones_table(free_port(), more, networks))
    )


async def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if true():
                return
            await asyncio.sleep(0.005)


class Answered:
    """What a phone got."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.raw = raw
        self.status = int(lines[0].split(" ")[1]) if raw else 0
        """0: closed without a word."""
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:])

    @property
    def text(self) -> str:
        return self.body.decode()


async def talk(port: int, raw: bytes, source: str = "127.0.0.1", host: str = "") -> Answered:
    """Send bytes from an address and read until the end."""
    async with asyncio.timeout(WITHIN_S):
        try:
            reader, writer = await asyncio.open_connection(
                host or "127.0.0.1", port, local_addr=(source, 0)
            )
            writer.write(raw)
            await writer.drain()
            received = await reader.read()
        except ConnectionError:
            return Answered(b"")
        writer.close()
        return Answered(received)


async def get(port: int, path: str, source: str = "127.0.0.1") -> Answered:
    """GET as a phone sends it."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Yealink SIP-T46S\r\n\r\n"
    return await talk(port, head.encode(), source)


async def reach(port: int, count: int) -> list[socket.socket]:
    """Connections that say nothing."""
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", port))
        found.append(one)
    return found


class PhonesSide:
    """The process ``phones`` as far as the listener needs it: a client of the node's bus.

    Args:
        settings: the node's configuration.
        clock: of the listener, monotonic seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.client: BusClient[NodeMessage] = BusClient(
            settings.bus_path,
            NodeMessage,
            self._on_message,
            lambda: [Hello(role="phones", pid=os.getpid())],
        )
        self.tokens = load_tokens(settings)
        self.sent: list[PhoneKey] = []
        self.done: list[PhoneKeyDone] = []
        self.listener = Listener(settings, self.tokens, self._send, clock=clock)

    def _send(self, key: PhoneKey) -> bool:
        if not self.client.connected.is_set():
            return False
        self.sent.append(key)
        self.client.send(key)
        return True

    async def _on_message(self, message: NodeMessage) -> None:
        if isinstance(message, PhoneKeyDone):
            self.done.append(message)
            self.listener.answered(message)

    async def press(self, agent_id: str, action: str, source: str = "127.0.0.1") -> Answered:
        """The agent presses a key: the phone calls the agent's address."""
        assert action in ("end", "help")
        path = self.tokens.path(agent_id, "end" if action == "end" else "help")
        return await get(self.listener.port, path, source)

    async def __aenter__(self) -> PhonesSide:
        self.client.start()
        async with asyncio.timeout(WITHIN_S):
            await self.client.connected.wait()
        self.listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.close()
        await self.client.close()


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[int]:
    """A listener alone; gives its port."""
    listener.start()
    try:
        yield listener.port
    finally:
        await listener.close()
