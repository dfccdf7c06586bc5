"""Who of a team is asked now, and in which order. Pure: tables, a local time and who is connected
in; people out.

Order: on duty before anybody else; connected (a console of theirs is open) before not connected;
free before busy (asked for another agent, or in a call that they were asked into); who speaks the
caller's language before who does not; then by the team's ``order``: ``fair`` asks first who was
called longest ago, ``fixed`` goes by the list of the shift, or of the team.

A shift counts by the wall clock of this machine. In the hour that a clock change skips or repeats
the shift is what that clock shows. A gap in the table is no gap in protection: when nobody is on
duty the whole team is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from callshield.settings import Settings
from callshield.settings_teams import DAYS, ShiftSettings, Team, hours, implicit_team

_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True)
class Duty:
    """Who can be asked now."""

    connected: tuple[str, ...]
    """On duty with a console open, in the order in which they are asked."""
    others: tuple[str, ...]
    """On duty without one: they are told when everybody is."""
    off: tuple[str, ...]
    """The rest of the team."""

    @property
    def on(self) -> tuple[str, ...]:
        """Everybody on duty."""
        return self.connected + self.others


def covers(shift: ShiftSettings, local: datetime) -> bool:
    """True when a shift runs at this local time; its end is not part of it."""
    begin, end = hours(shift.hours)
    minute = 60 * local.hour + local.minute
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if today in shift.days and begin <= minute < end:
        return True
    return yesterday in shift.days and minute + _DAY_MIN < end


def on_duty(team: Team, local: datetime) -> tuple[str, ...]:
    """Supervisors of the shifts that run now, as listed; the whole team when none runs."""
    shifts = team.settings.shifts if team.settings is not None else []
    found = [one for shift in shifts if covers(shift, local) for one in shift.supervisors]
    return tuple(dict.fromkeys(found)) or team.supervisors


def duty(
    team: Team,
    local: datetime,
    connected: Collection[str],
    called_ts: Mapping[str, float],
    language: str = "",
    busy: Collection[str] = (),
) -> Duty:
    """Who is asked now, in order.

    Args:
        team: the team of the call's agent.
        local: the clock on the wall.
        connected: supervisors with an open console.
        called_ts: when each was last called, for ``fair``; seconds since any epoch.
        language: the caller's, two letters; ``""`` or ``detect``: unknown.
        busy: who is asked by somebody else, or in a call already: after the others.
    """
    on = on_duty(team, local)
    settings = team.settings
    spoken = settings.languages if settings is not None else {}
    fair = settings is not None and settings.order == "fair"

    def rank(one: str) -> tuple[bool, bool, float, int]:
        known = spoken.get(one)
        foreign = len(language) == 2 and known is not None and language not in known
        return (
            one in busy,
            foreign,
            called_ts.get(one, float("-inf")) if fair else 0.0,
            on.index(one),
        )

    ordered = sorted(on, key=rank)
    return Duty(
        tuple(one for one in ordered if one in connected),
        tuple(one for one in ordered if one not in connected),
        tuple(one for one in team.supervisors if one not in on),
    )


class Teams:
    """The configured teams, and whom each supervisor may see.

    Args:
        settings: the node's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._agents = settings.agents
        managers = [one for one, person in settings.supervisors.items() if person.role == "manager"]
        manager = settings.help.manager or (managers[0] if managers else "")
        self._managers = frozenset(managers)
        others = [one for one in settings.supervisors if one != manager]
        self.implicit = implicit_team(others, manager)
        self.configured = {
            name: Team(name, tuple(table.supervisors), table.manager or manager, table)
            for name, table in settings.teams.items()
        }
        self._languages = {
            agent_id: agent.language or settings.caller_language
            for agent_id, agent in settings.agents.items()
        }

    def all(self) -> Sequence[Team]:
        """Every team; the implicit one alone when none is configured, and last when some agent
        has no team."""
        lone = any(not agent.team for agent in self._agents.values())
        rest = [self.implicit] if lone or not self.configured else []
        return [*self.configured.values(), *rest]

    def of(self, agent_id: str) -> Team:
        """The team that is called for this agent; the implicit one for an agent without a team,
        or who is in the configuration no more."""
        agent = self._agents.get(agent_id)
        return self.configured.get(agent.team, self.implicit) if agent else self.implicit

    def named(self, name: str) -> Team:
        """A team by its name; the implicit one for one that is gone from the configuration."""
        return self.configured.get(name, self.implicit)

    def language(self, agent_id: str) -> str:
        """What this agent's callers speak; ``""`` when it is not known."""
        return self._languages.get(agent_id) or ""

    def hidden_from(self, supervisor_id: str) -> frozenset[str]:
        """Agents whose calls and alerts somebody does not see: those of other teams.

        Args:
            supervisor_id: of the token; ``""`` for a token that is tied to nobody, which sees all,
                as a manager's does.
        """
        if not supervisor_id or supervisor_id in self._managers:
            return frozenset()
        own = {name for name, team in self.configured.items() if supervisor_id in team.supervisors}
        return frozenset(
            agent_id
            for agent_id, agent in self._agents.items()
            if agent.team and agent.team not in own
        )
