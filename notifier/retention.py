"""What is due to be deleted. Pure: days and a clock in, kinds and limits out.

A clock that jumped must not empty the store: see :class:`ClockGuard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from callshield.messages_store import RetentionKind
from callshield.settings_store import RetentionSettings

DAY_S = 86_400.0
#: Words go first, then what hangs on nothing; events last, for they say what else happened.
KINDS: tuple[RetentionKind, ...] = (
    "words",
    "dead_letters",
    "tokens",
    "alerts",
    "calls",
    "draws",
    "reports",
    "events",
    "held_events",
)
#: Kinds that go by another kind's rule: what was drawn of calls is kept no longer than the calls.
_RULES: Mapping[RetentionKind, RetentionKind] = {
    "draws": "calls",
    "reports": "calls",
    "held_events": "events",
}
#: Days for which a kind stays whatever the rule: a month is drawn a day after its end, and a week
#: whose report is gone would be reported anew while the node still looks back at it.
_AT_LEAST: Mapping[RetentionKind, int] = {"draws": 7, "reports": 42}
#: A wall clock may be put right by so much while the node runs, without more ado.
SMALL_STEP_S = 300.0
#: For so long nothing is deleted after the start, and after the clock was put forward or back.
SETTLE_S = 600.0
AFTER_JUMP_S = DAY_S
#: A clock that stands so far from the newest event at the start may be wrong (an empty clock
#: battery), or the node was off for long: time synchronisation is given a day to tell.
DOUBTFUL_S = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class Due:
    """What of one kind is due."""

    kind: RetentionKind
    before_ts: float
    """What is older; seconds since the epoch."""
    rule: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """A batch that the writer deletes in the transaction that records it."""

    kind: RetentionKind
    before_ts: float
    keys: tuple[str, ...] = ()
    """Primary keys; none for *events* and *words*, which are ranges of numbers."""
    from_id: int = 0
    to_id: int = 0
    from_hash: str = ""
    """Of *events*: what the first one follows on."""


def due(settings: RetentionSettings, now: float) -> list[Due]:
    """Every kind with the age at which it goes.

    Args:
        settings: ``[retention]``.
        now: seconds since the epoch.
    """
    found = []
    for kind in KINDS:
        rule = _RULES.get(kind, kind)
        days = settings.days(rule) if kind != "tokens" else settings.tokens_days
        days = max(days, _AT_LEAST.get(kind, 0))
        found.append(Due(kind, now - days * DAY_S, f"{rule}_days={days}"))
    return found


class ClockGuard:
    """Whether the wall clock may be believed for deleting.

    Args:
        wall: seconds since the epoch, at the start.
        monotonic: seconds of a clock that cannot be set, at the start.
        newest_ts: of the newest stored event; 0 for none.
    """

    def __init__(self, wall: float, monotonic: float, newest_ts: float) -> None:
        self._offset = wall - monotonic
        doubtful = newest_ts > 0 and not -SMALL_STEP_S <= wall - newest_ts <= DOUBTFUL_S
        self._not_before = monotonic + (AFTER_JUMP_S if doubtful else SETTLE_S)

    def may_delete(self, wall: float, monotonic: float) -> bool:
        """False for a day after the wall clock jumped, and for a while after the start."""
        if abs(wall - monotonic - self._offset) > SMALL_STEP_S:
            self._not_before = monotonic + AFTER_JUMP_S
        self._offset = wall - monotonic
        return monotonic >= self._not_before
