"""Rest after a bad call: who rests, until when, and why. Pure: events and a clock in, rests out.

A rest begins when the agent is free: the call ended, the agent ended it with announcement, or
somebody took it over. It ends by itself or when the agent says *ready*. No supervisor can shorten
it here; somebody who makes the agent available at the PBX does (:mod:`notifier.pbx`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from callshield.settings import AftercareSettings
from notifier.board import Call

#: Calls remembered so that one call makes one rest.
_REMEMBERED = 2000


@dataclass(slots=True)
class Rest:
    """The newest rest of one agent; a row of ``rests``."""

    agent_id: str
    call_id: str
    began_ts: float
    until_ts: float
    reason: Literal["level", "ended"]
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
        reason: Literal["level", "ended"]
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
        until_ts = min(ts, now) + self._settings.rest_s
        if until_ts <= now:
            return None
        before = self.resting(call.agent_id)
        began_ts = before.began_ts if before else min(ts, now)
        rest = Rest(call.agent_id, call.call_id, began_ts, until_ts, reason)
        self._rests[call.agent_id] = rest
        return rest

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
        longest_s = self._settings.rest_s
        return [
            rest.agent_id
            for rest in self._rests.values()
            # The second: the clock was set back, and nobody rests for hours because of that.
            if rest.resting and (rest.until_ts <= now or rest.until_ts - now > longest_s + 1)
        ]

    def next_due(self) -> float | None:
        """When the next rest ends by itself, seconds since the epoch."""
        return min((r.until_ts for r in self._rests.values() if r.resting), default=None)
