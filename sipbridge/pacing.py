"""Absolute deadlines: the n-th tick is due at ``t0 + n * 20 ms``, however late the others were.

A sleeping machine wakes late. Sleeping 20 ms after each packet would add every delay to the
next; here a late tick is followed by an early one. A loaded machine catches up with at most
:data:`MAX_BURST` packets at a time, so that a jitter buffer is not flooded.
"""

from __future__ import annotations

#: Packets that one stream may send at one tick.
MAX_BURST = 3
#: A lag beyond this is a machine that was stopped: time goes on from now.
MAX_LAG_S = 1.0


class TickClock:
    """Count the ticks that are due.

    Args:
        start_s: monotonic time of tick 0.
        period_s: time between ticks.
    """

    __slots__ = ("_count", "_period_s", "_start_s", "late", "skipped")

    def __init__(self, start_s: float, period_s: float) -> None:
        self._start_s = start_s
        self._period_s = period_s
        self._count = 0
        self.late = 0
        """Ticks that came when the next one was already due."""
        self.skipped = 0
        """Ticks given up because the machine stood still."""

    @property
    def deadline_s(self) -> float:
        """Monotonic time at which the next tick is due."""
        return self._start_s + self._count * self._period_s

    def due(self, now_s: float) -> int:
        """How many ticks to do now: none before the deadline, at most :data:`MAX_BURST`."""
        lag_s = now_s - self.deadline_s
        if lag_s < 0:
            return 0
        behind = int(lag_s / self._period_s)
        if lag_s > MAX_LAG_S:
            self.skipped += behind
            self._count += behind
            behind = 0
        self.late += min(behind, MAX_BURST - 1)
        ticks = min(behind + 1, MAX_BURST)
        self._count += ticks
        return ticks
