"""``[aftercare]``, ``[breaks]`` and ``[callbacks]``: what follows a bad call."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_EVERY_DAY: list[Weekday] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
AgentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class AftercareSettings(BaseModel):
    """``[aftercare]``: rest after a bad call; the PBX's queues leave the agent alone meanwhile."""

    model_config = SECTION

    rest_s: float = Field(0.0, ge=0, le=7200)
    """Length of the rest; 0: none. The agent ends it earlier with *ready*, nobody else does."""
    from_level: int = Field(2, ge=1, le=3)
    """Rest after a call that reached this risk level."""
    after_end: bool = True
    """Rest after a call that was ended with announcement, at whatever level."""
    extend_s: float = Field(300.0, ge=0, le=3600)
    """How much longer one press of the agent makes a rest; 0: it cannot be extended."""
    longest_s: float = Field(3600.0, ge=0, le=14400)
    """No press makes a rest longer than this, counted from its beginning; at least ``rest_s``."""
    ready_at_pbx: bool = False
    """Unpausing at the PBX counts as the agent's *ready*: only where nobody but the agents
    themselves can unpause there. Otherwise the pause is set again and the rest goes on."""
    pause_reason: str = Field("", pattern=r"^[^\x00-\x1f\x7f]{0,64}$")
    """Reason that the PBX's lists show for the pause; empty: by ``node.language`` (ko 보호휴식,
    en protective rest, zh 保护性休息, ja 保護休憩)."""
    exclude_from_level: int = Field(3, ge=1, le=3)
    """A call that reached this level is marked as left out of quality sampling, handling time and
    surveys; so is every call that was ended with announcement, or that its agent calls abusive."""
    counselling: str = Field("", pattern=r'^[^"\\<>\x00-\x1f]{0,128}$')
    """Who offers counselling to the agent; shown during a rest."""
    counselling_number: str = Field("", pattern=r"^[0-9+*# ()-]{0,32}$")
    """Where to reach them."""

    @model_validator(mode="after")
    def _a_rest_may_last(self) -> AftercareSettings:
        if self.longest_s < self.rest_s:
            raise ValueError("a longest_s that is not below rest_s")
        return self


class BreakPlanSettings(BaseModel):
    """``[breaks.plans.NAME]``: when whose planned breaks are."""

    model_config = SECTION

    times: Annotated[list[str], Field(min_length=1, max_length=24)]
    """``HH:MM-HH:MM`` by the clock of ``breaks.time_zone``; may pass midnight."""
    days: Annotated[list[Weekday], Field(min_length=1)] = _EVERY_DAY
    """On which days they begin."""
    agents: list[AgentId] = []
    """IDs of ``[agents.ID]``."""
    teams: list[AgentId] = []
    """Teams; without agents and teams the plan is everybody's."""

    @field_validator("times")
    @classmethod
    def _are_times(cls, value: list[str]) -> list[str]:
        for text in value:
            match = _CLOCK.fullmatch(text)
            if match is None or text[:5] == text[6:]:
                raise ValueError(f'times like "12:00-13:00", not {text!r}')
        return value

    def spans(self) -> list[tuple[int, int]]:
        """Beginning and length of each break, in minutes from midnight and minutes."""
        found = []
        for text in self.times:
            hours, minutes, to_hours, to_minutes = (int(part) for part in re.split("[:-]", text))
            begins, ends = 60 * hours + minutes, 60 * to_hours + to_minutes
            found.append((begins, (ends - begins) % 1440))
        return found


class BreakSettings(BaseModel):
    """``[breaks]``: planned breaks. What a bad call ate of one is owed back, shown to the agent
    alone, and a break that a call delayed moves by itself. Plans stand in tables
    ``[breaks.plans.NAME]`` with ``times`` (``["12:00-13:00"]``), ``days`` (``["mon", …]``),
    ``agents`` and ``teams``."""

    model_config = SECTION

    time_zone: str = "Asia/Seoul"
    """Name of the zone by whose clock breaks are planned (IANA)."""
    before_s: float = Field(600.0, ge=0, le=3600)
    """An agent who comes out of a call of level 2 or higher this shortly before a planned break
    gets no further call before it; 0: never."""
    move_within_s: float = Field(3600.0, ge=0, le=14400)
    """A break that a call delayed longer than this does not move; what a bad call ate of it stays
    owed."""
    plans: dict[str, BreakPlanSettings] = {}
    """By name."""

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError):
            raise ValueError("a time zone like Asia/Seoul (is tzdata installed?)") from None
        return value


class CallbackSettings(BaseModel):
    """``[callbacks]``: a hand over that nobody answered becomes a promise to call back."""

    model_config = SECTION

    within_s: float = Field(14400.0, ge=0, le=604800)
    """When a call-back is due, from the promise on; 0: none are promised."""
    owner: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """Who owes them: an ID of ``[supervisors.ID]``; empty: the manager who did not answer, or the
    responsible one."""
    keep_number: bool = False
    """Keep the caller's number, encrypted, until somebody called back, for those who call back;
    off: the PBX tells it by its own id of the call."""
    again_s: float = Field(3600.0, ge=60, le=86400)
    """An overdue call-back whose alert somebody took, and that is still not done, raises the next
    one after this time."""
