"""The process that writes on phones' screens, as the bus sees it: it asks, and hears. As a
``bridge`` it is what is asked."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from callshield.bus import BusClient
from callshield.messages import Hello, NodeMessage
from callshield.messages_phones import NotifySent, NotifyVia, PhoneSeen, SendNotify

PATIENCE_S = 20.0
_numbers = itertools.count(1)


class Asker:
    """A client of the notifier's bus.

    Args:
        path: the bus's socket.
        role: as which it says it comes.
    """

    def __init__(self, path: Path, role: str = "phones") -> None:
        self.seen: list[PhoneSeen] = []
        self.answers: list[NotifySent] = []
        self.asked: list[SendNotify] = []
        """What a bridge is to send."""
        self._news = asyncio.Condition()
        self.client: BusClient[NodeMessage] = BusClient(
            path, NodeMessage, self._hear, lambda: [Hello(role=role, pid=os.getpid())]
        )

    async def _hear(self, message: NodeMessage) -> None:
        async with self._news:
            if isinstance(message, PhoneSeen):
                self.seen.append(message)
            elif isinstance(message, NotifySent):
                self.answers.append(message)
            elif isinstance(message, SendNotify):
                self.asked.append(message)
            self._news.notify_all()

    def begin(
        self,
        agent_id: str,
        event: str,
        content_type: str = "",
        body: str = "",
        via: NotifyVia = "bridge",
    ) -> str:
        """Ask; the request's id."""
        request_id = f"n{next(_numbers)}"
        self.client.send(
            SendNotify(
                request_id=request_id,
                agent_id=agent_id,
                via=via,
                event=event,
                content_type=content_type,
                body=body,
            )
        )
        return request_id

    async def answer(self, request_id: str) -> NotifySent:
        """What became of a request."""

        def found() -> NotifySent | None:
            return next((one for one in self.answers if one.request_id == request_id), None)

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: found() is not None)
        answer = found()
        assert answer is not None
        return answer

    async def until_asked(self, request_id: str) -> SendNotify:
        """A request that comes to a bridge."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: request_id in [r.request_id for r in self.asked])
        return next(one for one in self.asked if one.request_id == request_id)

    async def ask(
        self,
        agent_id: str,
        event: str,
        content_type: str = "",
        body: str = "",
        via: NotifyVia = "bridge",
    ) -> NotifySent:
        """Ask, and wait for the answer."""
        return await self.answer(self.begin(agent_id, event, content_type, body, via))

    async def heard_of(self, agent_id: str, user_agent: str) -> PhoneSeen:
        """That this agent's phone calls itself so."""

        def found() -> list[PhoneSeen]:
            wanted = (agent_id, user_agent)
            return [one for one in self.seen if (one.agent_id, one.user_agent) == wanted]

        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(found)
        except TimeoutError:
            raise AssertionError(f"nothing of {agent_id}: {self.seen}") from None
        return found()[0]


@asynccontextmanager
async def asking(path: Path, role: str = "phones") -> AsyncIterator[Asker]:
    """An asker for as long as the block lasts."""
    asker = Asker(path, role)
    asker.client.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asker.client.connected.wait()
        yield asker
    finally:
        await asker.client.close()
