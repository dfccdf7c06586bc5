"""The demo's and the tests' outside world: a telephone as a process, a console's WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import websockets

from callshield.errors import SetupError


class Softphone:
    """A :mod:`callshield.softphone` process and what it says.

    Args:
        name: shown in errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, *arguments: str) -> None:
        """Start it and wait until it listens.

        Raises:
            SetupError: it could not start.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "callshield.softphone",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the demo's to handle
        )
        self._reader = asyncio.create_task(self._read())
        await self.wait("ready", 15)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                async with self._news:
                    self.events.append(event)
                    self._news.notify_all()
        async with self._news:
            self.events.append({"event": "exited", "ts": time.time()})
            self._news.notify_all()

    async def wait(self, event: str, timeout_s: float, *, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of that name.

        Raises:
            SetupError: it did not come in time.
        """

        def seen() -> dict[str, Any] | None:
            matching = [e for e in self.events if e["event"] == event]
            return matching[count - 1] if len(matching) >= count else None

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(
                    lambda: seen() or any(e["event"] == "exited" for e in self.events)
                )
        except TimeoutError:
            raise SetupError(
                f"the {self.name} never said {event!r} within {timeout_s:.0f} s; it said "
                f"{[e['event'] for e in self.events]}"
            ) from None
        found = seen()
        if found is None:
            raise SetupError(f"the {self.name} stopped before it said {event!r}")
        return found

    def do(self, command: str, **fields: Any) -> None:
        """Send one command."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **fields}).encode() + b"\n")

    async def close(self) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ConnectionError):
                self.do("quit")
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)


class Watcher:
    """A console's WebSocket: keeps every event, lets others wait for one.

    Args:
        url: of the events endpoint.
        token: a supervisor's.
        on_event: called with each.
    """

    def __init__(self, url: str, token: str, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._url, self._token, self._on_event = url, token, on_event
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for connection in websockets.connect(self._url, proxy=None):
            try:
                await connection.send(json.dumps({"token": self._token}))
                async for message in connection:
                    event = json.loads(message)
                    if "type" not in event or "id" not in event:
                        continue
                    self._on_event(event)
                    async with self._news:
                        self.events.append(event)
                        self._news.notify_all()
            except websockets.ConnectionClosed:
                continue

    async def wait(
        self, kind: str, timeout_s: float, *, where: Callable[[dict[str, Any]], bool] = bool
    ) -> dict[str, Any] | None:
        """The first event of a type that fits; None after ``timeout_s``."""

        def seen() -> dict[str, Any] | None:
            for event in self.events:
                if event["type"] == kind and where(event):
                    return event
            return None

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: seen() is not None)
        except TimeoutError:
            return None
        return seen()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
