"""Planned breaks: what a bad call ate is owed back, and a break that began late moves. Pure.

A *busy time* of an agent is a call with the rest after it. Of each planned break that it overlaps a
row is kept (:class:`Eaten`): how much of the break it ate, where the break moved to, and how much
was given back there. Rows of bad calls are owed: ``eaten_s - paid_s``, never below 0, summed over
all of them. A call that its agent calls abusive a day later becomes bad then, with its row.

What is owed is the agent's own affair: no row, sum or event of this is shown to anybody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from callshield.settings_care import BreakSettings

#: No busy time is looked at further back: a clock that was set is no week-long call.
_LONGEST_S = 2 * 86400.0
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class PlannedBreak:
    """One break as planned, seconds since the epoch."""

    begins_ts: float
    ends_ts: float

    @property
    def length_s(self) -> float:
        return self.ends_ts - self.begins_ts

    def overlap_s(self, from_ts: float, to_ts: float) -> float:
        """Seconds of it within a span."""
        return max(0.0, min(to_ts, self.ends_ts) - max(from_ts, self.begins_ts))


class BreakPlan:
    """Whose breaks are planned when.

    Args:
        settings: ``[breaks]``.
        teams: agent id → team; ``""`` for none.
    """

    def __init__(self, settings: BreakSettings, teams: Mapping[str, str]) -> None:
        self._zone = ZoneInfo(settings.time_zone)
        self._plans = list(settings.plans.values())
        self._teams = teams

    def of(self, agent_id: str, from_ts: float, to_ts: float) -> list[PlannedBreak]:
        """An agent's breaks that overlap a span, or begin at its end; earliest first.

        A break keeps its length on the day on which the clocks change.
        """
        team = self._teams.get(agent_id, "")
        own = [
            plan
            for plan in self._plans
            if agent_id in plan.agents
            or (team and team in plan.teams)
            or not (plan.agents or plan.teams)
        ]
        found: set[PlannedBreak] = set()
        if not own or to_ts < from_ts:
            return []
        from_ts = max(from_ts, to_ts - _LONGEST_S)
        day = datetime.fromtimestamp(from_ts, self._zone).date() - timedelta(days=1)
        last = datetime.fromtimestamp(to_ts, self._zone).date()
        while day <= last:
            for plan in own:
                if _DAYS[day.weekday()] not in plan.days:
                    continue
                for begins, length in plan.spans():
                    local = datetime(
                        day.year, day.month, day.day, *divmod(begins, 60), tzinfo=self._zone
                    )
                    begins_ts = local.timestamp()
                    planned = PlannedBreak(begins_ts, begins_ts + 60.0 * length)
                    if planned.begins_ts <= to_ts and planned.ends_ts > from_ts:
                        found.add(planned)
            day += timedelta(days=1)
        return sorted(found, key=lambda item: item.begins_ts)


@dataclass(slots=True)
class Eaten:
    """What one call ate of one planned break; a row of ``eaten_breaks``."""

    agent_id: str
    call_id: str
    break_ts: float
    """When the break was to begin."""
    length_s: float
    busy_from_ts: float
    eaten_s: float
    moved_to_ts: float | None = None
    paid_s: float = 0.0
    bad: bool = False

    @property
    def owed_s(self) -> float:
        return max(0.0, self.eaten_s - self.paid_s) if self.bad else 0.0


class BreakLedger:
    """What is owed to whom.

    Args:
        settings: ``[breaks]``.
        plan: whose breaks are when.
    """

    def __init__(self, settings: BreakSettings, plan: BreakPlan) -> None:
        self._settings = settings
        self._plan = plan
        self._rows: dict[tuple[str, str, float], Eaten] = {}

    def restore(self, rows: Iterable[Eaten]) -> None:
        """Take over what a former process stored."""
        self._rows.update({(r.agent_id, r.call_id, r.break_ts): r for r in rows})

    def owed_s(self, agent_id: str) -> float:
        """All that is owed to an agent, seconds; never negative."""
        return sum(row.owed_s for row in self.rows(agent_id))

    def rows(self, agent_id: str) -> list[Eaten]:
        """An agent's rows, oldest first."""
        own = [row for row in self._rows.values() if row.agent_id == agent_id]
        return sorted(own, key=lambda row: (row.break_ts, row.call_id))

    def busy(
        self, agent_id: str, call_id: str, from_ts: float, until_ts: float, *, bad: bool
    ) -> list[Eaten]:
        """A call and the rest after it, as long as that is to last.

        Returns:
            The rows that it made or changed. A row says where its break moved to when the busy
            time was over its beginning, and not for longer than breaks may move.
        """
        changed = []
        for planned in self._plan.of(agent_id, from_ts, until_ts):
            eaten_s = planned.overlap_s(from_ts, until_ts)
            if eaten_s <= 0:
                continue
            key = (agent_id, call_id, planned.begins_ts)
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = Eaten(
                    agent_id, call_id, planned.begins_ts, planned.length_s, from_ts, 0.0
                )
            row.bad = row.bad or bad
            row.eaten_s = max(row.eaten_s, eaten_s)
            late_s = until_ts - planned.begins_ts
            if from_ts <= planned.begins_ts and late_s <= self._settings.move_within_s:
                row.moved_to_ts = max(until_ts, row.moved_to_ts or 0.0)
            changed.append(row)
        return changed

    def next_break(self, agent_id: str, now: float) -> PlannedBreak | None:
        """The break that begins soon, before which an agent out of a bad call gets no other."""
        planned = self._plan.of(agent_id, now, now + self._settings.before_s)
        ahead = [item for item in planned if item.begins_ts >= now]
        return ahead[0] if ahead and self._settings.before_s else None

    def mark_bad(self, call_id: str) -> list[Eaten]:
        """The call was abusive, says its agent: what it ate is owed.

        Returns:
            The rows that this changed.
        """
        found = [row for row in self._rows.values() if row.call_id == call_id and not row.bad]
        for row in found:
            row.bad = True
        return found

    def extended(self, agent_id: str, by_s: float, now: float) -> list[Eaten]:
        """The agent made the rest longer whose end a moved break waits for: it moves on.

        Returns:
            The rows that this changed.
        """
        found = []
        for row in self.rows(agent_id):
            if row.moved_to_ts is not None and row.moved_to_ts > now:
                row.moved_to_ts += by_s
                row.eaten_s = min(row.length_s, max(row.eaten_s, row.moved_to_ts - row.break_ts))
                found.append(row)
        return found

    def clock_moved(self, by_s: float, now: float) -> list[Eaten]:
        """The wall clock was set to ``now``: breaks that were moved to what is to come stay as far
        ahead as they were."""
        found = []
        for row in self._rows.values():
            if row.moved_to_ts is not None and row.moved_to_ts > now - by_s:
                row.moved_to_ts += by_s
                found.append(row)
        return found

    def rested(self, agent_id: str, began_ts: float, ended_ts: float) -> list[Eaten]:
        """A rest is over: what of moved breaks was taken in it is given back.

        Of a moved break the last part pays, as long as what was eaten: before it the agent only had
        what was his anyway. An agent who ended the rest before his break had moved to its
        place lost no more of the break than until then.

        Returns:
            The rows that this changed.
        """
        found = []
        for row in self.rows(agent_id):
            if row.moved_to_ts is None or not began_ts <= row.moved_to_ts:
                continue
            if row.moved_to_ts > ended_ts:
                # Earlier than planned: the agent said that he is ready.
                row.moved_to_ts = None
                busy_s = ended_ts - max(row.busy_from_ts, row.break_ts)
                row.eaten_s = min(row.eaten_s, max(0.0, busy_s))
            else:
                taken_s = min(ended_ts - row.moved_to_ts, row.length_s)
                paid_s = taken_s - (row.length_s - row.eaten_s)
                row.paid_s = min(row.eaten_s, max(row.paid_s, paid_s))
            found.append(row)
        return found

    def give_back(self, agent_id: str, seconds: float) -> list[Eaten]:
        """Owed time was taken: the oldest is paid first.

        Returns:
            The rows that this changed.
        """
        found = []
        for row in self.rows(agent_id):
            part_s = min(seconds, row.owed_s)
            if part_s > 0:
                row.paid_s += part_s
                seconds -= part_s
                found.append(row)
        return found
