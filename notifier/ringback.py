"""Who was ended by a person and may ring again. Pure: ends and a clock in, marks out.

A mark says that a number was ended, why in one word, and when. It is made only after a person
pressed *end*, never from a score, and never for a caller who may be in danger. It blocks nothing;
it is shown to the next agent, and told to the PBX in a header. The hash itself stands in one row
that is deleted, not in the event log, which nobody can delete from: the log knows a mark by a
random id.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from callshield.messages_fairness import RecentEnd

_DAY_S = 86_400.0
#: The longest that a mark lasts, whatever is configured.
LONGEST_DAYS = 30
#: The gravest first: one word is told.
CATEGORIES = ("threat", "sexual_harassment", "hate", "insult", "profanity", "shouting")
#: The person who ended the call saw what the machine did not.
UNNAMED = "unnamed"


def category_of(categories: Iterable[str]) -> str:
    """The gravest of a call's categories; :data:`UNNAMED` where there is none."""
    found = set(categories)
    return next((name for name in CATEGORIES if name in found), UNNAMED)


def _new_id() -> str:
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of ``ringback_marks``."""

    mark: str
    """HMAC-SHA256 of the number."""
    key_id: str
    mark_id: str
    category: str
    ended_ts: float
    until_ts: float


class Marks:
    """All marks of this node.

    Args:
        days: how long one lasts, at most :data:`LONGEST_DAYS`.
        new_id: makes ids, 12 hexadecimal digits.
    """

    def __init__(self, days: int, new_id: Callable[[], str] = _new_id) -> None:
        self._lasts_s = min(days, LONGEST_DAYS) * _DAY_S
        self._new_id = new_id
        self._marks: dict[str, Mark] = {}

    def restore(self, marks: Iterable[Mark]) -> None:
        """Take over what a former process stored."""
        self._marks = {mark.mark: mark for mark in marks}

    def __len__(self) -> int:
        return len(self._marks)

    def ended(self, mark: str, key_id: str, categories: Iterable[str], now: float) -> Mark:
        """A person ended a call of this number; an older mark of it is replaced."""
        before = self._marks.get(mark)
        mark_id = before.mark_id if before else self._new_id()
        kept = Mark(mark, key_id, mark_id, category_of(categories), now, now + self._lasts_s)
        self._marks[mark] = kept
        return kept

    def remove(self, mark_id: str, hashes: Sequence[str] = ()) -> list[Mark]:
        """Take marks away on review, by id or by the hashes of the number; those that were."""
        found = [
            mark for mark in self._marks.values() if mark.mark_id == mark_id or mark.mark in hashes
        ]
        for mark in found:
            del self._marks[mark.mark]
        return found

    def expire(self, now: float) -> list[Mark]:
        """Take away the marks whose time is over."""
        # The second: a clock that was set back, or fewer days configured, makes none last longer.
        found = [
            mark
            for mark in self._marks.values()
            if mark.until_ts <= now or mark.until_ts - now > self._lasts_s + 1
        ]
        for mark in found:
            del self._marks[mark.mark]
        return found

    def told(self) -> list[RecentEnd]:
        """What the bridge needs to know, the newest first."""
        newest = sorted(self._marks.values(), key=lambda mark: -mark.ended_ts)
        return [
            RecentEnd(
                mark=mark.mark,
                key_id=mark.key_id,
                mark_id=mark.mark_id,
                category=mark.category,
                ended_ts=mark.ended_ts,
                until_ts=mark.until_ts,
            )
            for mark in newest
        ]
