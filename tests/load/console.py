"""Consoles that come and go: every event once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
import random
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

import websockets

from tests.peers.node import Node


class Console:
    """One console's WebSocket, which breaks now and then and comes back with its last id.

    Args:
        node: whose.
        who: name of its token (:attr:`Node.tokens`).
        stays_s: shortest and longest life of a connection; every second one ends without a word.
        seed: of these.
        on_event: told every event once.
    """

    def __init__(
        self,
        node: Node,
        who: str,
        *,
        stays_s: tuple[float, float] = (10.0, 40.0),
        seed: int = 1,
        on_event: Callable[[dict[str, Any]], Awaitable[None]] | None = None,
    ) -> None:
        self._node, self._who, self._stays_s = node, who, stays_s
        self._random = random.Random(f"{seed}/{who}")
        self._on_event = on_event
        self.ids = array("q")
        """Of the events, as they came."""
        self.connections = 0
        self.replayed = 0
        """Events that had been missed while it was away."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"console {self._who}")

    @property
    def agent(self) -> str | None:
        """Whose; None: a supervisor's."""
        return None if self._who == "supervisor" else self._who

    async def _run(self) -> None:
        while True:
            stays_s = self._random.uniform(*self._stays_s)
            try:
                async with asyncio.timeout(stays_s):
                    await self._listen(rude=bool(self.connections % 2))
            except (TimeoutError, OSError, websockets.WebSocketException):
                await asyncio.sleep(self._random.uniform(0.2, 2.0))

    async def _listen(self, *, rude: bool) -> None:
        last = self.ids[-1] if self.ids else 0
        url = f"ws://127.0.0.1:{self._node.web_port}/api/v1/events?last_event_id={last}"
        async with websockets.connect(url, proxy=None, close_timeout=2) as connection:
            try:
                await connection.send(json.dumps({"token": self._node.tokens[self._who]}))
                hello = json.loads(await connection.recv())
                if hello.get("type") != "session.ready":
                    raise OSError(f"the node said {hello}")
                self.connections += 1
                async for message in connection:
                    await self._take(json.loads(message), hello["last_event_id"])
            finally:
                if rude:
                    connection.transport.abort()

    async def _take(self, event: dict[str, Any], known: int) -> None:
        number = event.get("id")
        if number is None:
            return
        self.ids.append(number)
        self.replayed += number <= known and self.connections > 1
        if self._on_event is not None:
            await self._on_event(event)

    async def caught_up(self, last_id: int, timeout_s: float = 60.0) -> bool:
        """Wait until nothing up to this event can be missing any more: it was the last that this
        console may see, or a later one came; False after the time."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        while loop.time() < ends_s:
            if self.ids and self.ids[-1] >= last_id:
                return True
            # A connection's news is told to whoever listens; nobody tells of an array's growth.
            await asyncio.sleep(0.2)
        return False

    async def close(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
