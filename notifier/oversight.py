"""What the workers' representative and an auditor see: rules and totals, nobody's calls. Pure.

Groups of fewer than :data:`MIN_AGENTS` people are folded into *other*; where that has too few, the
smallest group is folded in with them, because a total minus what is shown would show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from callshield.settings import Settings

MIN_AGENTS = 5
OTHER = "other"


@dataclass(slots=True)
class Figures:
    """Totals of one group."""

    group: str
    agents: set[str] = field(default_factory=set)
    calls: int = 0
    by_level: Counter[int] = field(default_factory=Counter)
    """Calls by their highest level."""
    ended_with_announcement: int = 0
    alerts: Counter[str] = field(default_factory=Counter)
    """Alerts by kind."""

    def add(self, more: Figures) -> None:
        self.agents |= more.agents
        self.calls += more.calls
        self.by_level += more.by_level
        self.ended_with_announcement += more.ended_with_announcement
        self.alerts += more.alerts

    def as_json(self) -> dict[str, Any]:
        """Totals; how many people, never who."""
        return {
            "group": self.group,
            "agents": len(self.agents),
            "calls": self.calls,
            "by_level": {str(level): self.by_level[level] for level in range(4)},
            "ended_with_announcement": self.ended_with_announcement,
            "alerts": dict(sorted(self.alerts.items())),
        }


def figures(
    calls: Iterable[Mapping[str, Any]],
    alerts: Iterable[Mapping[str, Any]],
    group_of: Mapping[str, str],
) -> list[Figures]:
    """Totals by group, none of fewer than five people.

    Args:
        calls: rows with ``agent_id, peak_level, end_reason``.
        alerts: rows with ``agent_id, kind``.
        group_of: agent id → group; who has none counts as *other*.

    Returns:
        The groups by name; empty when all of them together are too few.
    """
    found: dict[str, Figures] = {}

    def at(agent_id: str) -> Figures:
        name = group_of.get(agent_id) or OTHER
        return found.setdefault(name, Figures(name))

    for call in calls:
        group = at(call["agent_id"])
        group.agents.add(call["agent_id"])
        group.calls += 1
        group.by_level[call["peak_level"]] += 1
        group.ended_with_announcement += call["end_reason"] == "ended_with_announcement"
    for alert in alerts:
        group = at(alert["agent_id"])
        group.agents.add(alert["agent_id"])
        group.alerts[alert["kind"]] += 1
    return _folded(found)


def _folded(found: dict[str, Figures]) -> list[Figures]:
    other = found.pop(OTHER, Figures(OTHER))
    shown = sorted(found.values(), key=lambda group: (len(group.agents), group.group))
    while shown and (len(shown[0].agents) < MIN_AGENTS or 0 < len(other.agents) < MIN_AGENTS):
        other.add(shown.pop(0))
    if len(other.agents) >= MIN_AGENTS:
        shown.append(other)
    return sorted(shown, key=lambda group: group.group)


def policies(settings: Settings) -> dict[str, Any]:
    """The rules that are in force on this node; no address, no id of a person, no secret."""
    retention = settings.retention
    kinds = ("words", "events", "alerts", "calls", "dead_letters")
    law = settings.law.chosen
    return {
        "law": {"preset": law.id if law else "", "version": law.version if law else ""},
        "alerts": {"from_level": settings.alerts.level},
        "notice": {
            "before_anything_is_analysed": list(settings.notice.prompts),
            "warnings": list(settings.notice.warnings),
            "closing": settings.notice.closing,
        },
        "analysis": {
            "enabled": settings.detector.enabled,
            "hears": "caller",
            "words": settings.transcriber.workers > 0,
            "voice": settings.detector.enabled and settings.detector.acoustic,
        },
        "recording": {
            "enabled": settings.recording.enabled,
            "deleted_after_days": settings.recording.retention_days,
        },
        "rest": {
            "length_s": settings.aftercare.rest_s,
            "from_level": settings.aftercare.from_level,
            "after_end": settings.aftercare.after_end,
        },
        "retention": {
            "preset": retention.preset,
            "enabled": retention.enabled,
            "days": {
                **{kind: retention.days(kind) for kind in kinds},
                "tokens": retention.tokens_days,
            },
        },
        "smallest_group_shown": MIN_AGENTS,
    }
