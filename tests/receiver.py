"""A far end of webhooks: a small HTTP server that notes what it gets and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from tests.notifier_kit import WITHIN_S


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data

    @property
    def letter_id(self) -> str:
        return self.headers["webhook-id"]


#: Status and headers to answer with; ``None``: never answer.
Answer = tuple[int, dict[str, str]] | None


class Receiver:
    """Listens on a free port of 127.0.0.1 once started."""

    def __init__(self) -> None:
        self.got: list[Received] = []
        self.answer: Callable[[Received], Answer] = lambda request: (200, {})
        self._came = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def until(self, count: int) -> list[Received]:
        """Wait for so many requests."""
        async with asyncio.timeout(WITHIN_S), self._came:
            await self._came.wait_for(lambda: len(self.got) >= count)
        return self.got

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Received(first.split()[1], headers, body)
                answer = self.answer(request)
                async with self._came:
                    self.got.append(request)
                    self._came.notify_all()
                if answer is None:
                    continue
                status, more = answer
                extra = "".join(f"{name}: {value}\r\n" for name, value in more.items())
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{extra}\r\n".encode())
                await writer.drain()
        self._open.discard(writer)
        writer.close()


@contextlib.asynccontextmanager
async def receiver(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    far_end = Receiver()
    await far_end.start(context)
    try:
        yield far_end
    finally:
        await far_end.stop()
