"""The noise trend for whoever answers for safety at work: by group and week, of nobody. Pure.

Rows are those of the weekly report (:func:`notifier.weekly.rows_of`): five agents at least, small
groups put together, and with the smallest large one where that is not enough. Within a row a number
of agents is shown only if neither those whom it counts nor the others are one to four; where it is
hidden in one row it is hidden in the total too, for the total less the other rows would tell it.
There is no maximum and no minimum: each is one person's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callshield.messages_hearing import SHIFT_GAP_S
from notifier.weekly import FEWEST, REST, rows_of

#: Directive 2003/10/EC article 3, dB(A) over eight hours: lower and upper exposure action value.
LOWER_DBA, UPPER_DBA = 80.0, 85.0


@dataclass(frozen=True, slots=True)
class Dose:
    """What an agent's meter said at the end of a call: sums since the shift began."""

    agent_id: str
    ts: float
    heard_s: float
    lex_8h_dba: float
    dose_pct: float
    estimate: bool


def shifts(doses: Iterable[Dose], begin_ts: float, end_ts: float) -> list[Dose]:
    """The last dose of each shift whose last call ended in the span.

    Args:
        doses: in any order; from eight hours after the span, too, or its last shifts look shorter
            than they are.
        begin_ts, end_ts: the span.
    """
    by_agent: dict[str, list[Dose]] = {}
    for dose in doses:
        by_agent.setdefault(dose.agent_id, []).append(dose)
    found = []
    for said in by_agent.values():
        said.sort(key=lambda dose: dose.ts)
        for dose, after in zip(said, [*said[1:], None], strict=True):
            # A meter that lost its sums begins anew as well.
            over = after is None or after.ts - dose.ts > SHIFT_GAP_S or after.heard_s < dose.heard_s
            if over and dose.heard_s and begin_ts <= dose.ts < end_ts:
                found.append(dose)
    return found


def report(
    found: Sequence[Dose], groups: Mapping[str, str], threshold_pct: float
) -> dict[str, Any]:
    """A week's figures.

    Args:
        found: of :func:`shifts`.
        groups: agent id → group.
        threshold_pct: share of the daily dose at which agents are warned.

    Returns:
        JSON: ``threshold_pct``, ``rows`` by group (:data:`notifier.weekly.REST` last) and
        ``total``; no rows and no total where all agents together are too few. A count that is not
        shown is ``null``.
    """
    row_of = rows_of({dose.agent_id: groups.get(dose.agent_id, "") for dose in found})
    rows: dict[str, list[Dose]] = {}
    for dose in found:
        if dose.agent_id in row_of:
            rows.setdefault(row_of[dose.agent_id], []).append(dose)
    names = sorted(rows, key=lambda name: (name == REST, name))
    shown = [{"group": name, **_figures(rows[name], threshold_pct)} for name in names]
    total = None
    if shown:
        total = _figures([dose for name in names for dose in rows[name]], threshold_pct)
        for column in _COUNTS:
            if any(row[column] is None for row in shown):
                total[column] = None
    return {"threshold_pct": threshold_pct, "rows": shown, "total": total}


#: Agents of a row who at least once in the week …
_COUNTS = ("agents_warned", "agents_over_lower", "agents_over_upper", "agents_measured")


def _figures(found: Sequence[Dose], threshold_pct: float) -> dict[str, Any]:
    agents = {dose.agent_id for dose in found}

    def who(reached: Iterable[Dose]) -> int | None:
        count = len({dose.agent_id for dose in reached})
        few = any(0 < part < FEWEST for part in (count, len(agents) - count))
        return None if few else count

    energy = [10 ** (dose.lex_8h_dba / 10) for dose in found]
    return {
        "agents": len(agents),
        "shifts": len(found),
        "heard_hours": round(sum(dose.heard_s for dose in found) / 3600, 1),
        "mean_lex_8h_dba": round(10 * math.log10(sum(energy) / len(energy)), 1),
        "median_dose_pct": _median([dose.dose_pct for dose in found]),
        "agents_warned": who(d for d in found if d.dose_pct >= threshold_pct),
        "agents_over_lower": who(d for d in found if d.lex_8h_dba >= LOWER_DBA),
        "agents_over_upper": who(d for d in found if d.lex_8h_dba >= UPPER_DBA),
        "agents_measured": who(d for d in found if not d.estimate),
    }


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return round(ordered[middle], 1)
    return round((ordered[middle - 1] + ordered[middle]) / 2, 1)
