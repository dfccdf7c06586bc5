"""Live consoles: who is listening, and what each may see.

Publishing never waits. Each subscriber has a bounded queue; one that falls behind is told to go
(:attr:`Subscriber.slow`) and comes back for the rest by its last event id.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from callshield.messages import Event
from notifier.board import Entry
from notifier.tokens import Identity
from notifier.views import for_supervisor

#: Messages that wait for one console.
QUEUE_LIMIT = 1000


class Subscriber:
    """One connected console.

    Args:
        identity: whose token it is.
        limit: messages kept for it.
    """

    def __init__(self, identity: Identity, limit: int = QUEUE_LIMIT) -> None:
        self.identity = identity
        self._limit = limit
        self._queue: deque[str] = deque()
        self._wake = asyncio.Event()
        self.slow = asyncio.Event()

    def push(self, text: str) -> None:
        """Queue one message, or declare this subscriber too slow."""
        if len(self._queue) >= self._limit:
            self.slow.set()
            return
        self._queue.append(text)
        self._wake.set()

    async def take(self) -> list[str]:
        """All that waits; at least one message."""
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        texts = list(self._queue)
        self._queue.clear()
        return texts


def message(event_id: int | None, body: dict[str, Any]) -> str:
    """One event as a console reads it: ``id`` first (absent for what is not numbered)."""
    numbered = body if event_id is None else {"id": event_id, **body}
    return msgspec.json.encode(numbered).decode()


def visible(event_id: int | None, body: dict[str, Any], identity: Identity) -> str | None:
    """The message for one role, or ``None`` when it may not see this event at all.

    Whether an agent may see the event's call is decided before, by its audience.
    """
    seen = for_supervisor(body) if identity.watches_all else body
    return None if seen is None else message(event_id, seen)


class Hub:
    """Fan out committed events.

    Args:
        last_id: number of the newest stored event.
    """

    def __init__(self, last_id: int) -> None:
        self.last_id = last_id
        self.subscribers: set[Subscriber] = set()
        self.slow_dropped = 0

    def join(self, subscriber: Subscriber) -> None:
        """Send everything after :attr:`last_id` to it from now on.

        Call it without waiting after :attr:`last_id` was compared: then nothing is missed and
        nothing comes twice.
        """
        self.subscribers.add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        self.subscribers.discard(subscriber)

    def publish(self, entries: Sequence[Entry]) -> None:
        """Hand committed entries to everybody who may see them."""
        for entry in entries:
            self._send(entry.event_id, entry.body(), entry.audience)
            self.last_id = entry.event_id

    def announce(self, event: Event) -> None:
        """Tell everybody at once, without a number: the store itself is what failed."""
        self._send(None, msgspec.to_builtins(event), None)

    def _send(self, event_id: int | None, body: dict[str, Any], audience: str | None) -> None:
        own = message(event_id, body)
        watched = for_supervisor(body)
        over = None if watched is None else message(event_id, watched)
        for subscriber in self.subscribers:
            identity = subscriber.identity
            if identity.watches_all:
                if over is not None:
                    subscriber.push(over)
            elif audience is None or audience == identity.agent_id:
                subscriber.push(own)
