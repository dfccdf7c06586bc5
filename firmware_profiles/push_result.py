"""What came of one request to a phone."""

from __future__ import annotations

from dataclasses import dataclass

from firmware_profiles.screens import Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one request.

    Attributes:
        reason: a short sentence without address, name or secret; empty where it was taken.
    """

    outcome: Outcome
    reason: str = ""
