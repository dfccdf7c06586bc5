"""Tables of fairness: ``[quality]``, ``[reports]``, ``[ringback]`` and ``[shadow]``."""

from __future__ import annotations

import re
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, field_validator

from callshield.settings_base import SECTION

_GROUP = r"^[A-Za-z0-9._-]{1,64}$"


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            "a time zone like Asia/Seoul (and the system's tzdata package installed)"
        ) from None
    return value


class QualitySettings(BaseModel):
    """``[quality]``: the monthly draw of calls for quality scoring (docs/fairness.md)."""

    model_config = SECTION

    per_agent: int = Field(0, ge=0, le=50)
    """Calls drawn an agent and month; 0: none, and no recording can be opened by a draw."""
    min_call_s: float = Field(30.0, ge=0, le=3600)
    """Calls shorter than this are not drawn."""
    time_zone: str = "Asia/Seoul"
    """In which months begin and end."""
    criteria: list[str] = ["greeting", "understanding", "solution", "closing"]
    """What a reviewer gives points for: ids, shown by the consoles."""
    points: int = Field(5, ge=1, le=100)
    """The most that one of them can get; the least is 0."""
    contest_within_days: int = Field(14, ge=7, le=90)
    """How long after a score its agent can contest it."""
    review_within_days: int = Field(14, ge=1, le=90)
    """By when somebody else must have scored a contested call; then the score is void."""

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        return _zone(value)

    @field_validator("criteria")
    @classmethod
    def _are_ids(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) != len(value):
            raise ValueError("at least one criterion, each once")
        for item in value:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", item):
                raise ValueError("criteria of small letters, digits and _")
        return value


class ReportSettings(BaseModel):
    """``[reports]``: the weekly report by group."""

    model_config = SECTION

    weekly: bool = True
    """Make it when a week is over."""
    time_zone: str = "Asia/Seoul"
    """In which weeks (Monday to Sunday, ISO 8601) begin and end."""

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        return _zone(value)


class RingbackSettings(BaseModel):
    """``[ringback]``: who was ended by a person and rings again (docs/ringback.md)."""

    model_config = SECTION

    enabled: bool = False
    """Mark callers whose call a person ended with announcement."""
    days: int = Field(14, ge=1, le=30)
    """How long a mark lasts."""
    key_file: Path = Path("/etc/callshield/ringback.keys")
    """Keys of the hash, mode 0600; `callshield ringback new-key` writes it."""
    country_code: str = Field("82", pattern=r"^[1-9][0-9]{0,2}$")
    """Of numbers that come without one (E.164)."""
    national_prefix: str = Field("0", pattern=r"^[0-9]{0,3}$")
    """What stands before a national number; empty where nothing does."""
    international_prefixes: list[str] = ["00"]
    """What stands before a foreign number, besides ``+``; in Korea also the carriers' 001, 002 and
    so on."""
    never: list[str] = []
    """Numbers that are never marked: relay services, switchboards, hospitals. As dialled or with
    ``+``; ``*`` at the end for all that begin so."""

    @field_validator("international_prefixes")
    @classmethod
    def _are_digits(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(r"[0-9]{1,6}", item):
                raise ValueError("prefixes of 1 to 6 digits")
        return value

    @field_validator("never")
    @classmethod
    def _are_numbers(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(r"\+?[0-9][0-9 ().-]{0,30}\*?", item):
                raise ValueError("numbers like +82212345678 or 0212345678, * at the end")
        return value


class ShadowSettings(BaseModel):
    """``[shadow]``: groups that try it out: agents are told, nobody is alerted by detection."""

    model_config = SECTION

    groups: list[str] = []
    """Groups (``agents.ID.group``) in shadow mode."""
    crisis_alerts: bool = False
    """Let alerts about callers in danger through even so."""

    @field_validator("groups")
    @classmethod
    def _are_groups(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(_GROUP, item):
                raise ValueError("names of groups of letters, digits, '.', '_' and '-'")
        return value
