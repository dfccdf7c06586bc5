"""A manager connection for tests: sends actions, keeps every event.

The product's own client is ``notifier/ami*.py``; this one shares nothing with it, so that a test
of that can ask Asterisk itself what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

Packet = dict[str, str]


class Ami:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self.events: list[Packet] = []
        self._answers: dict[str, Packet] = {}
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, host: str, port: int, user: str, secret: str) -> Ami:
        """Log in; retried until the port is open."""
        async with asyncio.timeout(20):
            while True:
                try:
                    reader, writer = await asyncio.open_connection(host, port)
                    break
                except OSError:
                    await asyncio.sleep(0.1)  # not listening yet
        assert (await reader.readline()).startswith(b"Asterisk Call Manager/")
        ami = cls(reader, writer)
        ami._task = asyncio.create_task(ami._read())
        await ami.action("Login", Username=user, Secret=secret, Events="on")
        return ami

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                packet: Packet = {}
                while (line := (await self._reader.readuntil(b"\r\n")).decode().strip()) != "":
                    name, _, value = line.partition(":")
                    packet.setdefault(name.strip(), value.strip())
                async with self._news:
                    if "Response" in packet:
                        self._answers[packet.get("ActionID", "")] = packet
                    elif "Event" in packet:
                        self.events.append(packet)
                    self._news.notify_all()

    async def ask(self, action: str, **fields: str) -> Packet:
        """Send an action; its answer, whatever it is."""
        number = f"t{next(self._numbers)}"
        lines = [f"Action: {action}", f"ActionID: {number}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: number in self._answers)
        return self._answers[number]

    async def action(self, action: str, **fields: str) -> Packet:
        """Send an action that must succeed."""
        answer = await self.ask(action, **fields)
        assert answer["Response"] == "Success", answer
        return answer

    async def wait(
        self,
        event: str,
        where: Callable[[Packet], bool] = bool,
        *,
        count: int = 1,
        timeout_s: float = 20,
    ) -> Packet:
        """The ``count``-th event of a name that fits."""

        def found() -> list[Packet]:
            return [p for p in self.events if p["Event"] == event and where(p)]

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            raise AssertionError(
                f"no {event} (number {count}); there came {[p['Event'] for p in self.events]}"
            ) from None
        return found()[count - 1]

    async def close(self) -> None:
        self._writer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
