"""Live consoles: who is listening, and what each may see.

Publishing never waits. A message is encoded and framed once, however many consoles get it, and
goes straight to every console whose line has room. Each subscriber has a bounded queue for the
time in which it has none; one that falls behind is told to go (:attr:`Subscriber.slow`) and comes
back for the rest by its last event id.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from callshield.messages import Event
from notifier.cut import text_frame
from notifier.live import Entry
from notifier.sealed import holds_words
from notifier.tokens import Identity
from notifier.views import for_supervisor

#: Messages that wait for one console.
QUEUE_LIMIT = 1000


class Line(Protocol):
    """What carries frames to one console (:class:`notifier.cut.ConsoleProtocol`)."""

    on_room: Callable[[], None] | None

    @property
    def has_room(self) -> bool: ...

    def write(self, frames: bytes) -> None: ...


_Key = TypeVar("_Key")


class Subscriber:
    """One connected console.

    Args:
        identity: whose token it is.
        line: what carries its messages.
        limit: messages kept for it while the line has no room.
    """

    def __init__(self, identity: Identity, line: Line, limit: int = QUEUE_LIMIT) -> None:
        self.identity = identity
        self._line = line
        self._limit = limit
        self._queue: deque[tuple[bytes, int]] = deque()
        self._waiting = 0
        self.turn = 0
        """When its heartbeat is due, of :mod:`notifier.pulse`."""
        self.slow = asyncio.Event()
        self.refused = asyncio.Event()
        """Its token is not good any more."""

    def push(self, frames: bytes, messages: int = 1) -> None:
        """Send whole frames, or queue them, or declare this subscriber too slow.

        Args:
            frames: encoded by :func:`notifier.cut.text_frame`.
            messages: how many they are.
        """
        if not self._queue and self._line.has_room:
            self._line.write(frames)
        elif self._waiting + messages > self._limit:
            self.slow.set()
        else:
            self._queue.append((frames, messages))
            self._waiting += messages

    def attach(self) -> None:
        """Go on sending what waits whenever the line has room again."""
        self._line.on_room = self._flush

    def detach(self) -> None:
        """Send nothing more."""
        self._line.on_room = None
        self._queue.clear()

    def _flush(self) -> None:
        while self._queue and self._line.has_room:
            frames, messages = self._queue.popleft()
            self._waiting -= messages
            self._line.write(frames)


def message(event_id: int | None, body: dict[str, Any]) -> bytes:
    """One event as a console reads it: ``id`` first (absent for what is not numbered)."""
    return msgspec.json.encode(body if event_id is None else {"id": event_id, **body})


def visible(
    event_id: int | None, body: dict[str, Any], identity: Identity, *, help_asked: bool = False
) -> bytes | None:
    """The message for one role, or ``None`` when it may not see this event at all.

    Whether an agent may see the event's call is decided before, by its audience.
    """
    seen = for_supervisor(body, help_asked=help_asked) if identity.watches_all else body
    return None if seen is None else message(event_id, seen)


class Hub:
    """Fan out committed events.

    Args:
        last_id: number of the newest stored event.
        on_words: told whose screen is shown words of which call, agents' own calls included.
    """

    def __init__(
        self, last_id: int, on_words: Callable[[Identity, str], None] = lambda _who, _call: None
    ) -> None:
        self.last_id = last_id
        self._on_words = on_words
        self.subscribers: set[Subscriber] = set()
        self._watching: dict[frozenset[str], set[Subscriber]] = {}
        """Supervisors' consoles, by the agents whose calls they do not see."""
        self._agents: dict[str, set[Subscriber]] = {}
        self._turns = itertools.count()
        self.slow_dropped = 0
        self.places: Counter[str] = Counter()
        """Open consoles by token id."""

    def watching(self) -> frozenset[str]:
        """Supervisors with an open console, by id; ``token:ID`` for tokens tied to nobody."""
        return frozenset(
            one.identity.supervisor_id or f"token:{one.identity.token_id}"
            for one in self.subscribers
            if one.identity.role in ("supervisor", "admin")
        )

    def join(self, subscriber: Subscriber) -> None:
        """Send everything after :attr:`last_id` to it from now on.

        Call it without waiting after :attr:`last_id` was compared: then nothing is missed and
        nothing comes twice.
        """
        subscriber.turn = next(self._turns)
        subscriber.attach()
        self.subscribers.add(subscriber)
        identity = subscriber.identity
        if identity.watches_all:
            self._watching.setdefault(identity.hidden, set()).add(subscriber)
        else:
            self._agents.setdefault(identity.agent_id, set()).add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        subscriber.detach()
        self.subscribers.discard(subscriber)
        identity = subscriber.identity
        _take_out(self._watching, identity.hidden, subscriber)
        _take_out(self._agents, identity.agent_id, subscriber)

    def publish(self, entries: Sequence[Entry]) -> None:
        """Hand committed entries to everybody who may see them."""
        batch = _Batch(self._watching, self._agents, self._on_words)
        for entry in entries:
            batch.add(
                entry.event_id,
                entry.body(),
                entry.audience,
                help_asked=entry.words_for_supervisors,
            )
            self.last_id = entry.event_id
        batch.send()

    def tell(self, agent_id: str, body: dict[str, Any]) -> None:
        """Put something that no store keeps, and that has no number, on one agent's screens."""
        for subscriber in self._agents.get(agent_id, ()):
            subscriber.push(text_frame(message(None, body)))

    def announce(self, event: Event) -> None:
        """Tell everybody at once, without a number: the store itself is what failed."""
        batch = _Batch(self._watching, self._agents, self._on_words)
        batch.add(None, msgspec.to_builtins(event), None)
        batch.send()


class _Batch:
    """What one commit tells whom: one write a console, one encoding an event."""

    def __init__(
        self,
        watching: dict[frozenset[str], set[Subscriber]],
        agents: dict[str, set[Subscriber]],
        on_words: Callable[[Identity, str], None],
    ) -> None:
        self._watching = watching
        self._agents = agents
        self._on_words = on_words
        self._over: dict[frozenset[str], list[bytes]] = {}
        self._own: dict[str, list[bytes]] = {}

    def add(
        self,
        event_id: int | None,
        body: dict[str, Any],
        audience: str | None,
        *,
        help_asked: bool = False,
    ) -> None:
        watching = [hidden for hidden in self._watching if audience not in hidden]
        if watching and (watched := for_supervisor(body, help_asked=help_asked)) is not None:
            frame = text_frame(message(event_id, watched))
            quoted = help_asked and holds_words(body)
            for hidden in watching:
                self._over.setdefault(hidden, []).append(frame)
                if quoted:
                    for subscriber in self._watching[hidden]:
                        self._on_words(subscriber.identity, body["call_id"])
        if audience is None:
            listening = list(self._agents)
        else:
            listening = [audience] if audience in self._agents else []
        if listening:
            frame = text_frame(message(event_id, body))
            for agent_id in listening:
                self._own.setdefault(agent_id, []).append(frame)

    def send(self) -> None:
        for hidden, frames in self._over.items():
            _push(self._watching[hidden], frames)
        for agent_id, frames in self._own.items():
            _push(self._agents[agent_id], frames)


def _push(subscribers: set[Subscriber], frames: list[bytes]) -> None:
    if frames:
        joined = b"".join(frames)
        for subscriber in subscribers:
            subscriber.push(joined, len(frames))


def _take_out(groups: dict[_Key, set[Subscriber]], key: _Key, subscriber: Subscriber) -> None:
    group = groups.get(key)
    if group is not None:
        group.discard(subscriber)
        if not group:
            del groups[key]
