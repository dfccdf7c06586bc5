"""What a check found, and what to do about it: one line each, on the screen and in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; calls work without doing anything."""
    PROBLEM = "problem"
    """Something that an operator has to mend."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    verdict: Verdict
    name: str
    """Of the check, in a few words."""
    detail: str
    """What was seen."""
    advice: str = ""
    """What to do; ``""`` when there is nothing to do."""
    subject: str = ""
    """What was looked at when there are several, such as the name of a peer."""

    @property
    def ok(self) -> bool:
        """Nothing to mend."""
        return self.verdict is not Verdict.PROBLEM

    def as_json(self) -> dict[str, str]:
        """The fields as they stand in JSON."""
        return {key: str(value) for key, value in asdict(self).items()}


def ok(name: str, detail: str) -> Finding:
    """A check that found everything in order."""
    return Finding(Verdict.OK, name, detail)


def note(name: str, detail: str, advice: str = "") -> Finding:
    """A check that found something worth knowing."""
    return Finding(Verdict.NOTE, name, detail, advice)


def problem(name: str, detail: str, advice: str) -> Finding:
    """A check that found something to mend."""
    return Finding(Verdict.PROBLEM, name, detail, advice)
