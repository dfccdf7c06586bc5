"""``callshield calibrate``: thresholds from a site's own judged alerts, for a person to apply."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callshield.errors import SetupError
from callshield.purposes import CALIBRATION
from callshield.settings import Settings

if TYPE_CHECKING:
    from notifier.calibration import Proposal, Row

_DAY_S = 86_400.0


def proposals(
    settings: Settings, queue: str, target_per_hour: float, days: float
) -> tuple[list[Proposal], list[str]]:
    """One proposal for the whole node and one for each group.

    Args:
        settings: the node's configuration.
        queue: only this group; all when empty.
        target_per_hour: false alarms an hour of analysed call that are put up with.
        days: how far back.

    Returns:
        The proposals, and sentences about what was left out.

    Raises:
        SetupError: no database, no such group, an ``alerts.level`` that no sound reaches, or a
            notice that does not tell callers of this use.
    """
    from callshield.purpose_check import unnamed
    from notifier.calibration import by_newest_model, propose
    from notifier.database import place_of
    from notifier.judged import KEYS, read_judged

    level = settings.alerts.level
    if reason := unnamed(settings, CALIBRATION):
        raise SetupError(reason)
    if level not in KEYS:
        raise SetupError(
            "alerts.level = 3 takes words or the agent's press, and sound alone never reaches it: "
            "there is no threshold of sound to propose"
        )
    groups = {agent_id: agent.group for agent_id, agent in settings.agents.items() if agent.group}
    names = sorted(set(groups.values()))
    if queue and queue not in names:
        known = f"known are {', '.join(names)}" if names else "no agent has one"
        raise SetupError(f"no agent has group = {queue!r} in the configuration: {known}")
    judged = read_judged(place_of(settings), level, groups, time.time() - days * _DAY_S)
    calls, other_model = by_newest_model(judged.calls)
    notes = []
    if other_model:
        notes.append(f"{other_model} calls were judged by another model and are left out")
    if judged.unnamed:
        notes.append(
            f"{judged.unnamed} calls whose caller was not told of this use (the purpose "
            f'"{CALIBRATION}") are left out'
        )
    if judged.without_figures:
        notes.append(
            f"{judged.without_figures} calls with an alert left no figures (the detector died in "
            "them, or an older version ran) and are left out"
        )
    wanted = [queue] if queue else ["", *names]
    return [
        propose(
            [call for call in calls if not name or call.group == name],
            name,
            KEYS[level],
            target_per_hour,
        )
        for name in wanted
    ], notes


def toml_lines(settings: Settings, proposal: Proposal) -> list[str]:
    """What a person puts into the configuration; keys that are there already are kept in order."""
    group, detector = proposal.group, settings.detector
    table = f"[detector.groups.{group}]" if group else "[detector.thresholds]"
    own = detector.groups.get(group) if group else detector.thresholds
    assert proposal.threshold is not None
    values: dict[str, float] = {proposal.key: proposal.threshold}
    if proposal.key == "caution" and own and own.serious:
        values["serious"] = max(own.serious, proposal.threshold)
    if proposal.key == "serious" and own and own.caution:
        values["caution"] = min(own.caution, proposal.threshold)
    lines = [f"{key} = {value:g}" for key, value in sorted(values.items())]
    return [table, *lines, f'model = "{proposal.model}"']


def _figure(value: float, digits: int = 2) -> str:
    return "unknown" if math.isnan(value) or math.isinf(value) else f"{value:.{digits}f}"


def _row(row: Row) -> str:
    low, high = row.interval
    kept = "unknown"
    if row.confirmed_before:
        _, kept_low, kept_high = row.kept
        share = f"{100 * kept_low:.0f} to {100 * kept_high:.0f} %"
        kept = f"{row.confirmed} of {row.confirmed_before} ({share})"
    false = row.refuted + row.words_refuted
    unjudged = row.unjudged + row.words_unjudged
    return (
        f"| {row.threshold:g} | {row.hours:.1f} | {false} | {unjudged} "
        f"| {_figure(row.per_hour)} ({_figure(low)} to {_figure(high)}) | {kept} |"
    )


def _shown(proposal: Proposal) -> list[Row]:
    """The threshold in force, every fifth one, and the proposed one."""
    return [
        row
        for i, row in enumerate(proposal.rows)
        if i == 0 or row.threshold == proposal.threshold or round(100 * row.threshold) % 5 == 0
    ]


def _missed(proposal: Proposal) -> str:
    """What people said was missed, and whether sound could have found it."""
    heard = proposal.missed_reached
    text = f"Of {proposal.missed} calls without an alert somebody said that one was missed"
    if not heard:
        return text + ": no threshold of sound would have raised one."
    return (
        f"{text}: {len(heard)} would have raised one by sound at {heard[0]:g} or lower, all of "
        f"these at {heard[-1]:g}. What false alarms that would bring nobody has judged."
    )


def page(
    settings: Settings, found: list[Proposal], notes: list[str], target_per_hour: float
) -> Iterator[str]:
    """The report in Markdown."""
    yield "# Thresholds by this site's own judged alerts"
    yield ""
    yield (
        f"Wanted: at most {target_per_hour:g} false alarms an hour of analysed call (an agent's "
        "hour on the telephone). Intervals are 95 %; an alert that nobody judged counts as false "
        "at their upper end. Alerts are counted by call. Abuse that raised no alert is seen only "
        "where somebody said that it was missed. Nothing was changed."
    )
    for note in notes:
        yield ""
        yield f"{note[:1].upper()}{note[1:]}."
    for proposal in found:
        yield ""
        yield f"## {proposal.group or 'The whole node'}"
        yield ""
        yield f"{proposal.calls} analysed calls; model {proposal.model or 'unknown'}."
        if proposal.threshold is None:
            yield ""
            yield f"No proposal: {proposal.why}."
        else:
            yield ""
            yield f"Proposed: `{proposal.key}` {proposal.in_force:g} → {proposal.threshold:g}."
            yield f"{proposal.why[:1].upper()}{proposal.why[1:]}."
            yield ""
            yield "```toml"
            yield from toml_lines(settings, proposal)
            yield "```"
        if proposal.missed:
            yield ""
            yield _missed(proposal)
        if proposal.rows:
            yield ""
            yield (
                f"| {proposal.key} | hours | false alarms | unjudged | false alarms an hour "
                "| confirmed alerts still raised |"
            )
            yield "|---|---|---|---|---|---|"
            for row in _shown(proposal):
                yield _row(row)


def _plain(proposal: Proposal) -> dict[str, Any]:
    fields = asdict(proposal)
    del fields["agents"]
    for row, made in zip(fields["rows"], proposal.rows, strict=True):
        low, high = made.interval
        row["per_hour"] = None if math.isnan(made.per_hour) else made.per_hour
        row["interval"] = [low, None if math.isinf(high) else high]
    return fields


def calibrate(
    settings: Settings, queue: str, target_per_hour: float, days: float, report: Path | None
) -> str:
    """Make the report, write it into ``report`` (a folder) where one is given.

    Returns:
        The report in Markdown.
    """
    found, notes = proposals(settings, queue, target_per_hour, days)
    text = "\n".join(page(settings, found, notes, target_per_hour)) + "\n"
    if report is not None:
        content = {
            "target_per_hour": target_per_hour,
            "notes": notes,
            "proposals": [_plain(proposal) for proposal in found],
        }
        try:
            report.mkdir(parents=True, exist_ok=True)
            (report / "calibration.md").write_text(text, encoding="utf-8")
            (report / "calibration.json").write_text(
                json.dumps(content, indent=1) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise SetupError(
                f"the report cannot be written to {report} ({error.strerror}): give a folder that "
                "this user can write to"
            ) from None
    return text
