"""A team's policy: who is told at which level, what is advised, how long a call may be.

Pure: tables and events in, decisions out. The presets are data (``policies/*.toml``). Nothing in
here is asked when an agent presses *end*: a policy can highlight that button, never hide, delay or
refuse it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from callshield.settings import Settings
from callshield.settings_base import SECTION
from callshield.settings_teams import Category, Count, Team, Told
from notifier.live import Alert, Call
from notifier.rota import Teams

PRESETS = Path(__file__).parent / "policies"
#: A level from here on takes warnings, and may highlight *end*.
_SERIOUS = 2
#: Between two automatic warnings: one warning is heard out, and answered, before the next.
AUTOMATIC_AGAIN_S = 20.0
#: An automatic end by length leaves this time to extend.
LAST_CHANCE_S = 60.0


#: Who is told, from nobody to everybody.
_MORE: tuple[Told, ...] = ("nobody", "in_turn", "all", "manager")


class Policy(BaseModel):
    """What is in force for one team."""

    model_config = SECTION

    level_1: Told
    level_2: Told
    level_3: Told
    help: Told
    crisis: Told
    automatic_warnings: bool
    end_after_warnings: dict[Category, Count]
    length_notice_min: int
    length_end_min: int
    length_extend_min: int
    length_end_automatically: bool

    def told(self, alert: Alert) -> Told:
        """Who is told of an alert first. A person's request and a part of the node that fails are
        told to somebody whatever a policy says."""
        match alert.kind:
            case "help":
                return self.help
            case "crisis":
                return self.crisis
            case "risk":
                return self.at_level(alert.level)
            case _:
                return "all"

    def at_level(self, level: int) -> Told:
        """Who is told when a call reaches a level: never fewer than at a lower level."""
        said = (self.level_1, self.level_2, self.level_3)[:level]
        return max(said, key=_MORE.index, default="nobody")


def preset(name: str) -> dict[str, Any]:
    """The data of a preset."""
    return tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


class Policies:
    """The policy of each team.

    A team's policy is its preset with its own keys over it. The implicit team, as ever, tells
    everybody at once of every level from ``alerts.level`` on.

    Args:
        settings: the node's configuration.
        teams: whose agents are whose.
    """

    def __init__(self, settings: Settings, teams: Teams) -> None:
        self._teams = teams
        self._implicit_preset = settings.alerts.preset
        self.grades = len(settings.notice.warnings)
        lowest = settings.alerts.level
        as_ever = {f"level_{n}": "all" if n >= lowest else "nobody" for n in (1, 2, 3)}
        self._implicit = Policy(
            **{**preset(self._implicit_preset), **as_ever, "help": "all", "crisis": "all"}
        )
        self._own = {
            name: _merged(preset(table.preset), table.policy.model_dump(exclude_none=True))
            for name, table in settings.teams.items()
        }

    def of(self, agent_id: str) -> Policy:
        """The policy for this agent's calls."""
        return self._own.get(self._teams.of(agent_id).name, self._implicit)

    def preset_of(self, team: Team) -> str:
        """Name of the preset that a team's policy begins with."""
        return self._implicit_preset if team.settings is None else team.settings.preset

    def named(self, name: str) -> Policy:
        """The policy of a team; ``""`` for the implicit one."""
        return self._own.get(name, self._implicit)

    def alert_level(self, agent_id: str) -> int:
        """Level from which an alert is raised for this agent's calls; 4: at none."""
        policy = self.of(agent_id)
        return next((n for n in (1, 2, 3) if policy.at_level(n) != "nobody"), 4)

    def advice(self, call: Call) -> Advice:
        """What is advised for a call as it is now."""
        if call.level < _SERIOUS or call.crisis_ts is not None or call.ended_ts is not None:
            return NONE
        after = self.of(call.agent_id).end_after_warnings
        # More warnings than there are cannot be asked for: then the last one is enough.
        reached = [
            category
            for category in call.categories
            if call.warnings >= min(after.get(category, 3), self.grades)  # type: ignore[call-overload]
        ]
        return Advice(
            warn_grade=min(call.warnings + 1, self.grades),
            end_highlighted=bool(reached),
            category=(reached or call.categories or [""])[0],
        )


def _merged(base: dict[str, Any], own: Mapping[str, Any]) -> Policy:
    counts = {**base["end_after_warnings"], **own.get("end_after_warnings", {})}
    return Policy(**{**base, **own, "end_after_warnings": counts})


@dataclass(frozen=True, slots=True)
class Advice:
    """What the agent's screen highlights."""

    warn_grade: int
    """Grade of the warning that comes next; 0: no warning is advised."""
    end_highlighted: bool
    category: str
    """The category that it rests on; ``""`` for none."""


NONE = Advice(0, False, "")


class Advisor:
    """What was last said of each call, so that only news is said; and automatic warnings.

    Args:
        policies: of the teams.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._said: dict[str, Advice] = {}
        self._warned_at: dict[str, float] = {}
        self._warned_level: dict[str, int] = {}

    def changed(self, call: Call) -> Advice | None:
        """The advice for a call when it is not what was said last."""
        advice = self._policies.advice(call)
        if advice == self._said.get(call.call_id, NONE):
            return None
        self._said[call.call_id] = advice
        return advice

    def warning_played(self, call_id: str, now: float) -> None:
        """Whoever asked for it: the next automatic one waits."""
        self._warned_at[call_id] = now

    def warns_now(self, call: Call, now: float) -> bool:
        """Does the next warning play by itself now? Say it is played by playing it.

        Only where the policy wants it, and the detector says that something automatic may follow
        (words confirmed, or the agent said so; no crisis): never from sound alone. Once each time
        the level rises to 2 or more, the graded warnings in turn, the last one not repeated.

        Args:
            call: as it is after the newest ``risk.changed``.
            now: seconds of any clock that does not jump.
        """
        before = self._warned_level.get(call.call_id, 0)
        self._warned_level[call.call_id] = call.level
        if call.level < _SERIOUS or call.level <= before:
            return False
        if not self._policies.of(call.agent_id).automatic_warnings or not may_act(call):
            return False
        if call.warnings >= self._policies.grades:
            return False
        at = self._warned_at.get(call.call_id)
        if at is not None and now - at < AUTOMATIC_AGAIN_S:
            return False
        self._warned_at[call.call_id] = now
        return True

    def forget(self, call_id: str) -> None:
        """The call is over."""
        for memory in (self._said, self._warned_at, self._warned_level):
            memory.pop(call_id, None)


def may_act(call: Call) -> bool:
    """May anything happen by itself in this call?"""
    return (
        call.may_trigger
        and not call.spared
        and not call.shadow
        and not call.acoustic_only
        and call.crisis_ts is None
        and call.ending_ts is None
        and call.ended_ts is None
    )


def may_act_by_length(call: Call) -> bool:
    """May a call that has lasted too long end by itself? Never while the caller is in danger, or
    is one with whom nothing is done automatically (``[callers]``)."""
    return (
        not call.spared
        and call.crisis_ts is None
        and call.ending_ts is None
        and call.ended_ts is None
    )
