"""The weekly report by group. Pure: what happened in, figures out; never of fewer than five.

No figure here is of fewer than :data:`FEWEST` agents who took calls in that week, and none can be
had by subtracting: groups that are too small are put together with each other, and where even they
are too few, with the smallest groups that are large enough (complementary suppression). So every
row has five agents, the total is the sum of the rows, and nothing else is left over. Weeks are
whole ISO weeks, made once and kept: the same week counted again after somebody changed groups, or
a window moved by a day, would tell of one agent by its difference.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

#: Agents of a row: figures of fewer would be figures about a person.
FEWEST = 5
#: The name of the row of all groups that are too small.
REST = "*"
#: The part of a kept report that is about hearing, for those who answer for safety at work; the
#: rest is for everybody.
HEARING = "hearing"
#: ISO 8601 week: ``2026-W47``.
WEEK = re.compile(r"(?P<year>2[0-9]{3})-W(?P<week>0[1-9]|[1-4][0-9]|5[0-3])")
#: A week is counted when an agent's word about its last call has had its 24 hours.
GRACE_S = 26 * 3600.0


def parts(body: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A kept report for everybody, and its part about hearing (:mod:`notifier.hearing_trend`) with
    the week; ``None`` where the node did not make one yet."""
    report: dict[str, Any] = msgspec.json.decode(body)
    hearing = report.pop(HEARING, None)
    return report, None if hearing is None else {"week": report["week"], **hearing}


def week_of(ts: float, time_zone: str) -> str:
    """The week that a moment lies in there."""
    year, week, _ = datetime.fromtimestamp(ts, ZoneInfo(time_zone)).isocalendar()
    return f"{year}-W{week:02}"


def bounds(week: str, time_zone: str) -> tuple[float, float]:
    """Begin (Monday, midnight) and end of a week there, seconds since the epoch.

    Raises:
        ValueError: there is no such week.
    """
    zone = ZoneInfo(time_zone)
    monday = datetime.fromisocalendar(int(week[:4]), int(week[6:]), 1)
    begin, end = monday, monday + timedelta(days=7)
    return begin.replace(tzinfo=zone).timestamp(), end.replace(tzinfo=zone).timestamp()


@dataclass(frozen=True, slots=True)
class CallFact:
    """One call of the week."""

    agent_id: str
    duration_s: float
    peak_level: int
    ended_by_person: bool
    turned_bad: bool
    """After a hand over that nobody took, the level rose or the agent ended the call."""
    help_after_s: Sequence[float | None] = ()
    """Each request for help: seconds until somebody came; ``None``: nobody did."""
    withheld: Sequence[Withheld] = ()
    """Alerts that shadow mode kept back."""
    verdict: str = ""
    """``confirmed``, ``refuted``, ``missed`` or nothing."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """An alert that shadow mode kept back."""

    level: int
    categories: Sequence[str]
    rules: Sequence[str]


@dataclass(frozen=True, slots=True)
class Event:
    """What the log says of a call after which something may have turned bad."""

    ts: float
    kind: str
    """``unreachable`` (a manager did not come), ``risk`` (the level rose to 2 or more) or
    ``ending`` (a person ended it)."""


def turned_bad(events: Iterable[Event]) -> bool:
    """True when a call became bad after a hand over that nobody took."""
    failed = math.inf
    for event in sorted(events, key=lambda e: e.ts):
        if event.kind == "unreachable":
            failed = min(failed, event.ts)
        elif event.ts > failed:
            return True
    return False


def rest_taken(changes: Iterable[tuple[str, float, str]]) -> dict[str, float]:
    """Seconds of rest of each agent, of rests that ended in the week.

    Args:
        changes: ``(agent_id, ts, state)`` of every ``rest.changed``, ``resting`` or ``over``.
    """
    began: dict[str, float] = {}
    taken: dict[str, float] = {}
    for agent_id, ts, state in sorted(changes, key=lambda change: change[1]):
        if state == "resting":
            began.setdefault(agent_id, ts)
        elif agent_id in began:
            taken[agent_id] = taken.get(agent_id, 0.0) + max(0.0, ts - began.pop(agent_id))
    return taken


def rows_of(agents: Mapping[str, str]) -> dict[str, str]:
    """Which row each agent counts in.

    Args:
        agents: agent id → group (``""``: none), of those who took calls in the week.

    Returns:
        agent id → name of the row; empty when all together are too few.
    """
    sizes = Counter(agents.values())
    rest = {group for group, size in sizes.items() if size < FEWEST or group == ""}
    shown = sorted((size, group) for group, size in sizes.items() if group not in rest)
    while rest and sum(sizes[group] for group in rest) < FEWEST and shown:
        rest.add(shown.pop(0)[1])
    if rest and sum(sizes[group] for group in rest) < FEWEST:
        return {}
    return {agent: REST if group in rest else group for agent, group in agents.items()}


@dataclass(slots=True)
class _Row:
    agents: set[str] = field(default_factory=set)
    calls: list[CallFact] = field(default_factory=list)
    rest_s: float = 0.0


def report(
    week: str,
    calls: Sequence[CallFact],
    rest_s: Mapping[str, float],
    groups: Mapping[str, str],
    shadow: Iterable[str] = (),
) -> dict[str, Any]:
    """A week's figures.

    Args:
        week: ``2026-W47``.
        calls: answered calls that began in it.
        rest_s: seconds of rest of each agent.
        groups: agent id → group.
        shadow: groups in shadow mode.

    Returns:
        JSON: ``week``, ``rows`` (by group, :data:`REST` last) and ``total``, or no rows and no
        total where all agents together are too few.
    """
    active = {call.agent_id: groups.get(call.agent_id, "") for call in calls}
    row_of = rows_of(active)
    rows: dict[str, _Row] = {}
    for call in calls:
        if call.agent_id in row_of:
            row = rows.setdefault(row_of[call.agent_id], _Row())
            row.agents.add(call.agent_id)
            row.calls.append(call)
    for agent_id, seconds in rest_s.items():
        if agent_id in row_of:
            rows[row_of[agent_id]].rest_s += seconds
    names = sorted(rows, key=lambda name: (name == REST, name))
    shadowed = set(shadow)
    body: dict[str, Any] = {
        "week": week,
        "rows": [
            {"group": name, **_figures(rows[name]), **_shadow(rows[name], name in shadowed)}
            for name in names
        ],
        "total": None,
    }
    if names:
        whole = _Row(
            set().union(*(row.agents for row in rows.values())),
            [call for row in rows.values() for call in row.calls],
            sum(row.rest_s for row in rows.values()),
        )
        body["total"] = _figures(whole)
    return body


def _figures(row: _Row) -> dict[str, Any]:
    calls = row.calls
    waits = [after for call in calls for after in call.help_after_s]
    came = sorted(after for after in waits if after is not None)
    levels = Counter(call.peak_level for call in calls)
    return {
        "agents": len(row.agents),
        "calls": len(calls),
        "hours": round(sum(call.duration_s for call in calls) / 3600, 2),
        "calls_by_level": [levels.get(level, 0) for level in range(4)],
        "ended_by_person": sum(call.ended_by_person for call in calls),
        "rest_hours": round(row.rest_s / 3600, 2),
        "help_asked": len(waits),
        "help_unanswered": waits.count(None),
        "help_median_s": _quantile(came, 0.5),
        "help_p90_s": _quantile(came, 0.9),
        "bad_after_failed_hand_over": sum(call.turned_bad for call in calls),
    }


def _shadow(row: _Row, on: bool) -> dict[str, Any]:
    """What shadow mode kept back, for a group that is in it and is shown by itself."""
    if not on:
        return {}
    kept = [alert for call in row.calls for alert in call.withheld]
    return {
        "shadow": {
            "alerts": len(kept),
            "alerts_per_day": round(len(kept) / 7, 2),
            "by_level": dict(sorted(Counter(str(alert.level) for alert in kept).items())),
            "by_category": dict(sorted(Counter(c for a in kept for c in a.categories).items())),
            "by_rule": dict(sorted(Counter(r for a in kept for r in a.rules).items())),
            "verdicts": dict(
                sorted(Counter(call.verdict for call in row.calls if call.verdict).items())
            ),
        }
    }


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank; ``None`` of nothing."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)
