"""Letters to the world outside: what a channel is, and when a letter is tried again. Pure.

A **letter** is one event for one channel (a webhook, the mail). It is stored before it is sent
and deleted after the far end took it, so it arrives at least once; its id stays the same however
often it is sent. One that could not be delivered for too long is put aside as **dead**, to be
looked at, retried or dropped by a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from callshield.errors import CallshieldError

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 900.0
#: What a far end may ask for by Retry-After.
LONGEST_WISH_S = 3600.0
#: Reasons are kept so long at most.
REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Letter:
    """One event for one channel; a row of ``outbox``."""

    letter_id: str
    """32 hexadecimal digits; the same at every attempt."""
    channel: str
    """``webhook:NAME`` or ``mail``."""
    event_id: int
    type: str
    ts: float
    """Of the event, seconds since the epoch."""
    body: str
    """The event as JSON, as the channel may tell it."""
    attempts: int = 0


class Undelivered(CallshieldError):
    """The far end did not take a letter.

    Args:
        reason: for the list of dead letters; no address, no word of the far end.
        permanent: trying again is useless.
        retry_after_s: the far end asked for so much time.
    """

    def __init__(
        self, reason: str, *, permanent: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason[:REASON_CHARACTERS]
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    """A way out of the node. A webhook and the mail are two; a phone's screen may be a third."""

    @property
    def name(self) -> str:
        """Names it in the outbox, in figures and in ``node.degraded``."""

    @property
    def queue_limit(self) -> int:
        """Letters that wait here; further events wait in the record of events."""

    @property
    def parallel(self) -> int:
        """Calls of :meth:`send` at once."""

    @property
    def batch(self) -> int:
        """Letters that go into one call of :meth:`send`."""

    @property
    def spacing_s(self) -> float:
        """From the end of one round of sending to the next at least."""

    @property
    def give_up_after_s(self) -> float:
        """A letter whose event is older than this and that failed again is dead."""

    def wants(self, kind: str) -> bool:
        """Whether events of a type may concern it; quick, for it is asked of every event."""

    def content(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the channel tells of an event, or ``None``: it does not tell this one.

        Args:
            event: as it is stored, ``id`` included; alerts carry ``kind`` and ``level``.
        """

    async def send(self, letters: Sequence[Letter]) -> None:
        """Deliver letters, at most :attr:`batch`, all or none.

        Raises:
            Undelivered: the far end did not take them.
        """

    async def close(self) -> None:
        """Let go of connections."""


def matches(kind: str, patterns: Sequence[str]) -> bool:
    """Whether a type is one of ``patterns`` (``alert.*`` stands for a family)."""
    return any(
        kind == pattern or (pattern.endswith(".*") and kind.startswith(pattern[:-1]))
        for pattern in patterns
    )


def retry_delay_s(attempts: int, chance: float, wish_s: float | None = None) -> float:
    """How long to wait after a failure.

    Exponential, with jitter over the upper half, so that what failed together does not come
    together again ("equal jitter").

    Args:
        attempts: made so far, 1 or more.
        chance: 0..1, random.
        wish_s: the far end's Retry-After.
    """
    whole = min(FIRST_RETRY_S * 2.0 ** min(attempts - 1, 30), LONGEST_RETRY_S)
    delay = whole / 2 + chance * whole / 2
    if wish_s is not None:
        delay = max(delay, min(wish_s, LONGEST_WISH_S))
    return delay


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a letter that failed."""

    dead: bool
    next_ts: float


def fate(
    letter: Letter, failure: Undelivered, now: float, chance: float, give_up_after_s: float
) -> Fate:
    """Try again, or put aside.

    Args:
        letter: with its attempts before this one.
        failure: what happened.
        now: seconds since the epoch.
        chance: 0..1, random.
        give_up_after_s: age of the event from which a failure is the last.
    """
    dead = failure.permanent or now - letter.ts >= give_up_after_s
    return Fate(dead, now + retry_delay_s(letter.attempts + 1, chance, failure.retry_after_s))
