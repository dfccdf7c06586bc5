"""When each leg of a call was last heard, from counters that are looked at now and then."""

from __future__ import annotations

from callshield.messages import LegName
from sipbridge.media_session import SILENT_S


class SilenceWatch:
    """Silence and idleness of one call; pure.

    Args:
        now: monotonic seconds, as everywhere here.
    """

    def __init__(self, now: float) -> None:
        self._opened_at = now
        self._packets: dict[LegName, int] = {}
        self._heard_at: dict[LegName, float] = {}
        self._expected_since: dict[LegName, float] = {}
        self._waiting_since: float | None = None
        self._on_hold = False
        self._silent: dict[LegName, bool] = {}
        self._timed_out = False

    def expect(self, name: LegName, now: float, *, both: bool) -> None:
        """A leg's session description is known; ``both``: the other's too, so that RTP is due."""
        self._expected_since.setdefault(name, now)
        if both and self._waiting_since is None:
            self._expect_anew(now)

    def hold(self, on_hold: bool, now: float) -> None:
        """Somebody holds, or holds no longer: then nothing is due, or all is due anew."""
        if self._on_hold and not on_hold and self._waiting_since is not None:
            self._expect_anew(now)
        self._on_hold = on_hold

    def _expect_anew(self, now: float) -> None:
        self._waiting_since = now
        self._expected_since = dict.fromkeys(self._expected_since, now)

    def count(self, name: LegName, packets: int, now: float) -> None:
        """The counter of a leg's packets stands so."""
        if packets > self._packets.get(name, 0):
            self._packets[name] = packets
            self._heard_at[name] = now

    def packets(self, name: LegName) -> int:
        """Of the last look."""
        return self._packets.get(name, 0)

    def changes(self, now: float) -> list[tuple[LegName, bool]]:
        """Legs that fell silent, or are heard again, since the last call."""
        found = []
        due = self._waiting_since is not None and not self._on_hold
        for name, since in self._expected_since.items():
            silent = due and now - max(since, self._heard_at.get(name, 0.0)) >= SILENT_S
            if silent != self._silent.get(name, False):
                self._silent[name] = silent
                found.append((name, silent))
        return found

    def silent(self) -> list[LegName]:
        """Legs that are silent, as :meth:`changes` said last."""
        return [name for name, silent in self._silent.items() if silent]

    def expect_timeout(self) -> None:
        """Somebody else is to be told when no RTP comes: :meth:`times_out` may be true anew."""
        self._timed_out = False

    def silent_s(self, now: float) -> float:
        """Seconds without any RTP since both legs were to send it; 0 on hold."""
        if self._waiting_since is None or self._on_hold:
            return 0.0
        return now - max(self._waiting_since, *self._heard_at.values(), 0.0)

    def times_out(self, now: float, limit_s: float) -> bool:
        """True once, when :meth:`silent_s` reaches the limit."""
        if self._timed_out or self.silent_s(now) < limit_s:
            return False
        self._timed_out = True
        return True

    def idle_s(self, now: float) -> float:
        """Seconds since the last packet or the opening, hold or not."""
        return now - max(self._opened_at, *self._heard_at.values(), 0.0)
