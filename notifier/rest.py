"""Rest after a bad call: who rests, until when, and why. Pure: events and a clock in, rests out.

A rest begins when the agent is free: the call ended, the agent ended it with announcement, or
somebody took it over; or when he asks for one. It ends by itself or when the agent says *ready*:
nobody else shortens it, and no clock that is set does (:meth:`Rests.clock_moved`). The agent may
make it longer, within bounds (``aftercare.extend_s``, ``longest_s``). A planned break that a call
delayed, or that is about to begin, is a rest too (:mod:`notifier.break_ledger`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from callshield.settings_care import AftercareSettings
from notifier.live import Call

#: Calls remembered so that one call makes one rest.
_REMEMBERED = 2000

RestReason = Literal["level", "ended", "asked", "break"]


@dataclass(slots=True)
class Rest:
    """The newest rest of one agent; a row of ``rests``."""

    agent_id: str
    call_id: str
    began_ts: float
    until_ts: float
    reason: RestReason
    ended_ts: float | None = None
    ended_by: str = ""
    """``timer``, ``agent`` or ``pbx``."""

    @property
    def resting(self) -> bool:
        return self.ended_ts is None


class Rests:
    """The rests of all agents.

    Args:
        settings: ``[aftercare]``.
    """

    def __init__(self, settings: AftercareSettings) -> None:
        self._settings = settings
        self._rests: dict[str, Rest] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    def restore(self, rests: Iterable[Rest]) -> None:
        """Take over what a former process stored."""
        for rest in rests:
            self._rests[rest.agent_id] = rest
            self._seen[rest.call_id] = None

    def get(self, agent_id: str) -> Rest | None:
        """The newest rest of an agent, over or not."""
        return self._rests.get(agent_id)

    def resting(self, agent_id: str) -> Rest | None:
        """The rest that an agent is in."""
        rest = self._rests.get(agent_id)
        return rest if rest is not None and rest.resting else None

    def agent_free(self, call: Call, ts: float, now: float) -> Rest | None:
        """The agent is out of a call.

        Args:
            call: as it is known now.
            ts: when that was, seconds since the epoch; an event may come late.
            now: the clock.

        Returns:
            The agent's rest when it began or became longer by this.
        """
        if call.call_id in self._seen or not self._settings.rest_s or call.answered_ts is None:
            return None
        reason: RestReason
        if call.peak_level >= self._settings.from_level:
            reason = "level"
        elif self._settings.after_end and call.ending_ts is not None:
            reason = "ended"
        else:
            return None
        self._seen[call.call_id] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        # A clock that was set back must not make a rest longer than it is.
        began_ts = min(ts, now)
        return self._hold(call, began_ts, began_ts + self._settings.rest_s, reason, now)

    def ask(self, call: Call, now: float, *, once: bool) -> Rest | None:
        """The agent asks for the rest that a severe call brings, after a call of any level.

        Args:
            call: of the agent, over.
            now: the clock.
            once: not when a rest followed this call before.

        Returns:
            The agent's rest when it began or became longer by this; ``None`` where none is
            configured (``rest_s``), or he rests as long already.
        """
        if not self._settings.rest_s or (once and call.call_id in self._seen):
            return None
        self._seen[call.call_id] = None
        return self._hold(call, now, now + self._settings.rest_s, "asked", now)

    def hold(self, call: Call, began_ts: float, until_ts: float, now: float) -> Rest | None:
        """A planned break is kept free of calls.

        Returns:
            The agent's rest when it began or became longer by this.
        """
        return self._hold(call, began_ts, until_ts, "break", now)

    def _hold(
        self, call: Call, began_ts: float, until_ts: float, reason: RestReason, now: float
    ) -> Rest | None:
        before = self.resting(call.agent_id)
        if until_ts <= now or (before is not None and before.until_ts >= until_ts):
            return None
        began_ts = before.began_ts if before else began_ts
        rest = Rest(call.agent_id, call.call_id, began_ts, until_ts, reason)
        self._rests[call.agent_id] = rest
        return rest

    def take(self, agent_id: str, seconds: float, now: float) -> Rest | None:
        """Time that is owed begins now; ``None`` where the agent rests already."""
        if self.resting(agent_id) is not None or seconds <= 0:
            return None
        rest = self._rests[agent_id] = Rest(agent_id, "", now, now + seconds, "break")
        return rest

    def extend(self, agent_id: str) -> tuple[Rest, float] | None:
        """The agent makes his rest longer.

        Returns:
            The rest, and by how many seconds it grew: 0 where it is as long as it may be already.
            ``None`` when he does not rest.
        """
        rest = self.resting(agent_id)
        if rest is None:
            return None
        longest_ts = rest.began_ts + self._settings.longest_s
        until_ts = max(rest.until_ts, min(rest.until_ts + self._settings.extend_s, longest_ts))
        grown_s = until_ts - rest.until_ts
        rest.until_ts = until_ts
        return rest, grown_s

    def end(self, agent_id: str, by: str, now: float) -> Rest | None:
        """End an agent's rest; ``None`` when there is none."""
        rest = self.resting(agent_id)
        if rest is None:
            return None
        rest.ended_ts = now
        rest.ended_by = by
        return rest

    def due(self, now: float) -> list[str]:
        """Agents whose time is over."""
        return [r.agent_id for r in self._rests.values() if r.resting and r.until_ts <= now]

    def clock_moved(self, by_s: float) -> list[Rest]:
        """The wall clock was set while somebody rests: what is left of the rest stays.

        Args:
            by_s: how far it was set; negative: back.

        Returns:
            The rests whose times moved with it.
        """
        moved = [rest for rest in self._rests.values() if rest.resting]
        for rest in moved:
            rest.began_ts += by_s
            rest.until_ts += by_s
        return moved

    def mend(self, now: float) -> list[Rest]:
        """Rests that begin in the future: the clock was set back while nobody was here to see it.
        They begin now, and are no longer than they were.

        Returns:
            The rests that were changed.
        """
        ahead = [r for r in self._rests.values() if r.resting and r.began_ts > now + 1]
        for rest in ahead:
            rest.until_ts -= rest.began_ts - now
            rest.began_ts = now
        return ahead

    def next_due(self) -> float | None:
        """When the next rest ends by itself, seconds since the epoch."""
        return min((r.until_ts for r in self._rests.values() if r.resting), default=None)
