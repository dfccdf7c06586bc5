"""``[evidence]``: packages that an agent can take to court or to a grievance body."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, field_validator

from callshield.settings_base import SECTION


class EvidenceSettings(BaseModel):
    """``[evidence]``: requests for evidence, who decides on them, and what packages are signed by
    (docs/evidence.md)."""

    model_config = SECTION

    approvers: list[str] = []
    """IDs of ``[supervisors.ID]`` who decide on requests; empty: every supervisor of the agent's
    team. Administrators always may; nobody decides on an own request."""
    hold_after_refusal_days: int = Field(90, ge=1, le=3650)
    """After a refusal everything about the call stays for so long, whatever retention says, so that
    a grievance can still be decided for the agent."""
    key_file: Path = Path("/etc/callshield/evidence.key")
    """Ed25519 key that signs packages, mode 0600; `callshield evidence key` makes it. Keep a copy
    elsewhere."""
    font: Path | None = None
    """Font of the printed report, with Korean, Chinese and Japanese; absent: the system's Noto Sans
    CJK (Debian and Ubuntu: fonts-noto-cjk)."""

    @field_validator("approvers")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("each ID once")
        return value
