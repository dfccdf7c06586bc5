"""Reads what :mod:`notifier.calibration` needs out of the store; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select
from sqlalchemy.exc import SQLAlchemyError

from callshield.errors import SetupError
from callshield.purposes import CALIBRATION
from notifier.board import AGENT_PRESS
from notifier.calibration import JudgedCall, Key, Label
from notifier.database import Place, as_place, reason_of, transact
from notifier.schema import alerts, analyses, calls
from notifier.schema_fairness import call_verdicts, withheld_alerts

#: ``alerts.level`` → the threshold by which sound reaches it; level 3 takes words.
KEYS: Mapping[int, Key] = {1: "caution", 2: "serious"}


@dataclass(frozen=True, slots=True)
class Judged:
    """What the store has."""

    calls: list[JudgedCall]
    """Oldest first."""
    without_figures: int
    """Calls with an alert of which no figures are left: the detector died in them, or they are
    older than this version."""
    unnamed: int = 0
    """Calls whose caller was not told of this use, and which are left out."""


def label_of(verdicts: Iterable[tuple[str, str]]) -> Label:
    """What people said of a call's alerts, each ``(agent's, supervisor's)``.

    The agent was there: where both said something, the agent's word counts. One alert that was
    right makes the call right.
    """
    said = {agent or supervisor for agent, supervisor in verdicts}
    if "confirmed" in said:
        return "confirmed"
    return "refuted" if "refuted" in said else "unjudged"


def read_judged(
    where: Place | Path, level: int, groups: Mapping[str, str], since_ts: float = 0.0
) -> Judged:
    """Every analysed call with what was said of its alert; of those alone whose caller was told
    that calls serve to find thresholds.

    Args:
        where: the notifier's database; it may be in use.
        level: ``alerts.level``, 1 or 2.
        groups: agent id → group.
        since_ts: calls before this are left out; seconds since the epoch.

    Raises:
        SetupError: there is no database, or it has no such tables yet.
    """
    place = as_place(where)
    if place.path is not None and not place.path.is_file():
        raise SetupError(
            f"there is no database {place.path}: start the node once, or give its --config"
        )
    found = select(analyses, calls.c.agent_id, calls.c.purposes).join(
        calls, calls.c.call_id == analyses.c.call_id
    )
    raised = select(alerts).where(
        alerts.c.kind == "risk", alerts.c.reason != AGENT_PRESS, alerts.c.raised_ts >= since_ts
    )
    # Callers in danger are kept back too, at whatever level; that is no threshold's doing.
    withheld_risk = withheld_alerts.c.kind == "risk", withheld_alerts.c.level >= level
    try:
        analysed = transact(
            place, _rows(found.where(analyses.c.ts >= since_ts).order_by(analyses.c.ts))
        )
        told = transact(place, _rows(raised))
        verdicts = transact(place, _rows(select(call_verdicts)))
        kept_back = transact(place, _rows(select(withheld_alerts).where(*withheld_risk)))
    except SQLAlchemyError as error:
        raise SetupError(
            f"{place} cannot be read ({reason_of(error)}): start the node once with this "
            "version, which brings its tables up to date"
        ) from None
    said = {
        row["call_id"]: (str(row["agent_verdict"]), str(row["supervisor_verdict"]))
        for row in verdicts
    }
    withheld = {row["call_id"] for row in kept_back}
    of_call: dict[str, list[Mapping[str, Any]]] = {}
    for row in told:
        of_call.setdefault(row["call_id"], []).append(row)
    unnamed = {
        row["call_id"]
        for row in analysed
        if CALIBRATION not in msgspec.json.decode(row["purposes"], type=list[str])
    }
    judged = [
        _judged(
            row,
            of_call.get(row["call_id"], []),
            level,
            groups,
            said.get(row["call_id"], ("", "")),
            withheld=row["call_id"] in withheld,
        )
        for row in analysed
        if row["analysed_s"] > 0 and row["call_id"] not in unnamed
    ]
    known = {row["call_id"] for row in analysed}
    return Judged(judged, len(of_call.keys() - known), len(unnamed))


def _rows(query: Select[Any]) -> Callable[[Connection], list[dict[str, Any]]]:
    return lambda connection: [dict(row) for row in connection.execute(query).mappings()]


def _judged(
    row: Mapping[str, Any],
    raised: list[Mapping[str, Any]],
    level: int,
    groups: Mapping[str, str],
    said: tuple[str, str],
    *,
    withheld: bool,
) -> JudgedCall:
    """One call.

    Args:
        row: what is left of it, and its agent.
        raised: its alerts.
        level: ``alerts.level``.
        groups: agent id → group.
        said: of the whole call, by the agent and by a supervisor.
        withheld: shadow mode kept an alert of it back.
    """
    key = KEYS[level]
    counted = [alert for alert in raised if alert["level"] >= level]
    reached, in_force = float(row[f"{key}_reached"]), float(row[key])
    alerted = bool(counted) or withheld or reached >= in_force
    return JudgedCall(
        group=groups.get(row["agent_id"], ""),
        agent_id=row["agent_id"],
        hours=row["analysed_s"] / 3600.0,
        in_force=in_force,
        reached=reached,
        # Without an alert of its own where alerts.level stood higher then: nobody judged it.
        alerted=alerted,
        by_words=any(alert["word_score"] > 0 for alert in counted)
        or (withheld and reached < in_force),
        label=label_of([*((a["agent_verdict"], a["supervisor_verdict"]) for a in counted), said]),
        model=row["model"],
        missed=not alerted and (said[0] or said[1]) == "missed",
    )
