"""``[teams.NAME]``: who is called for an agent's calls, when, and by which policy.

Without any ``[teams.NAME]`` there is one team of all ``[supervisors.ID]``, everybody of it is
told at once, as ever. docs/escalation.md has the whole of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Told = Literal["nobody", "in_turn", "all", "manager"]
"""Who is told of an alert first; ``manager``: the manager and everybody at once."""
Category = Literal["profanity", "insult", "threat", "sexual_harassment", "hate", "shouting"]
Count = Annotated[int, Field(ge=0, le=9)]
SpokenLanguage = Annotated[str, Field(pattern=r"^[a-z]{2}$")]

_HOURS = re.compile(
    r"(?P<from>[01]\d|2[0-3]):(?P<fm>[0-5]\d)-(?P<to>[01]\d|2[0-4]):(?P<tm>[0-5]\d)"
)
_DAY_MIN = 24 * 60


def hours(text: str) -> tuple[int, int]:
    """``"22:00-06:00"`` as minutes of the day, from and to; over midnight *to* is beyond 1440.

    Raises:
        ValueError: it is no such span.
    """
    match = _HOURS.fullmatch(text)
    if match is None:
        raise ValueError('hours like "09:00-18:00", or "22:00-06:00" over midnight')
    begin = 60 * int(match["from"]) + int(match["fm"])
    end = 60 * int(match["to"]) + int(match["tm"])
    if end > _DAY_MIN:
        raise ValueError('hours that end at "24:00" at the latest')
    if begin == end:
        raise ValueError('hours of some length; "00:00-24:00" is the whole day')
    return begin, end if end > begin else end + _DAY_MIN


class ShiftSettings(BaseModel):
    """``[[teams.NAME.shifts]]``: who is on duty when, by the clock of this machine."""

    model_config = SECTION

    supervisors: list[str] = Field(min_length=1)
    """IDs of ``[supervisors.ID]`` of this team, in the order in which they are asked."""
    days: Annotated[list[Day], Field(min_length=1)] = list(DAYS)
    """Days on which the shift begins; one over midnight belongs to the day of its beginning."""
    hours: str = "00:00-24:00"
    """From and to, e.g. ``"09:00-18:00"`` or, over midnight, ``"22:00-06:00"``."""

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, value: str) -> str:
        hours(value)
        return value

    @field_validator("days", "supervisors")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("each entry once")
        return value


class PolicySettings(BaseModel):
    """``[teams.NAME.policy]``: what the team changes of its preset; a key that is absent is the
    preset's. No key hides, delays or refuses *end*."""

    model_config = SECTION

    level_1: Told | None = None
    """Who is told first when a call reaches level 1."""
    level_2: Told | None = None
    """The same at level 2."""
    level_3: Told | None = None
    """The same at level 3."""
    help: Literal["in_turn", "all", "manager"] | None = None
    """Who is told first when the agent asks for help."""
    crisis: Literal["in_turn", "all", "manager"] | None = None
    """Who is told first when the caller may be in danger."""
    automatic_warnings: bool | None = None
    """The next graded warning plays by itself when a level of 2 or more rests on confirmed words;
    never on sound alone, never in a crisis."""
    end_after_warnings: dict[Category, Count] | None = None
    """After how many warnings *end* is highlighted, by category; 0: at once. Categories that are
    absent keep the preset's number."""
    length_notice_min: int | None = Field(None, ge=0, le=600)
    """After so many minutes of talk the agent is told how long the call has lasted; 0: never."""
    length_end_min: int | None = Field(None, ge=0, le=600)
    """After so many minutes of talk *end* is offered; 0: never."""
    length_extend_min: int | None = Field(None, ge=1, le=120)
    """What one press of *extend* adds."""
    length_end_automatically: bool | None = None
    """The call ends with announcement a minute after *end* was offered, unless the agent extends;
    never in a crisis."""


class TeamSettings(BaseModel):
    """``[teams.NAME]``: supervisors of some agents (``agents.ID.team``), and their policy."""

    model_config = SECTION

    supervisors: list[str] = Field(min_length=1)
    """IDs of ``[supervisors.ID]``, in the order in which they are asked."""
    manager: str = ""
    """ID of a ``[supervisors.ID]`` with role manager, told when nobody of the team came; empty:
    the manager of ``[help]``."""
    order: Literal["fixed", "fair"] = "fair"
    """``fair``: who was called longest ago is asked first; ``fixed``: always as listed."""
    languages: dict[str, list[SpokenLanguage]] = {}
    """Supervisor ID → languages (``ko``, ``en``, …): who speaks the caller's language is asked
    first. Without an entry: all."""
    shifts: list[ShiftSettings] = []
    """Who is on duty when; without shifts everybody always is."""
    next_after_s: float = Field(15.0, ge=3, le=300)
    """Who was asked in turn and did not answer in this time: the next one is asked too."""
    manager_after_s: float = Field(20.0, ge=3, le=600)
    """Everybody was told and nobody answered in this time: the manager is told too."""
    limit_s: float = Field(90.0, ge=10, le=1800)
    """Nobody came in this time: the agent is offered *end* and a call-back, and by then everybody
    and the manager know."""
    preset: Literal["kr", "public"] = "kr"
    """Policy to begin with: ``kr``, or ``public`` (the same with call-length prompts)."""
    policy: PolicySettings = Field(default_factory=PolicySettings)  # type: ignore[arg-type]
    """What the team changes of its preset."""

    @field_validator("supervisors")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("each supervisor once")
        return value

    @model_validator(mode="after")
    def _times_fit(self) -> TeamSettings:
        if self.next_after_s >= self.limit_s:
            raise ValueError("a next_after_s that is shorter than limit_s")
        return self

    @model_validator(mode="after")
    def _knows_its_people(self) -> TeamSettings:
        named = {one for shift in self.shifts for one in shift.supervisors} | set(self.languages)
        for one in sorted(named - set(self.supervisors)):
            raise ValueError(
                f"{one} among the team's supervisors, since a shift or language names it"
            )
        return self


class _Person(Protocol):
    @property
    def role(self) -> str: ...


class _Agent(Protocol):
    @property
    def team(self) -> str: ...


def check_teams(
    teams: Mapping[str, TeamSettings],
    supervisors: Mapping[str, _Person],
    agents: Mapping[str, _Agent],
) -> None:
    """Do the tables fit together?

    Raises:
        ValueError: what was expected.
    """
    for name, team in teams.items():
        for one in team.supervisors:
            if one not in supervisors:
                raise ValueError(f"a [supervisors.{one}], whom [teams.{name}] names")
        if team.manager and getattr(supervisors.get(team.manager), "role", "") != "manager":
            raise ValueError(
                f'teams.{name}.manager: the ID of a [supervisors.ID] with role = "manager"'
            )
    for agent_id, agent in agents.items():
        if agent.team and agent.team not in teams:
            raise ValueError(f"a [teams.{agent.team}], the team of agent {agent_id}")


@dataclass(frozen=True, slots=True)
class Team:
    """One team as the notifier uses it, the implicit one included."""

    name: str
    """``""``: the implicit team of agents without one."""
    supervisors: tuple[str, ...]
    manager: str
    settings: TeamSettings | None
    """``None``: the implicit team; everybody is told at once."""


def implicit_team(supervisors: Iterable[str], manager: str) -> Team:
    """The team of agents that have none: everybody."""
    return Team("", tuple(supervisors), manager, None)
