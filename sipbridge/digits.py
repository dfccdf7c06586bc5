"""Feature codes: digit sequences on the agent's phone that do what a button does."""

from __future__ import annotations

from collections.abc import Mapping

from callshield.messages import Action

#: A code whose digits come further apart than this is not a code.
MAX_GAP_S = 4.0


class FeatureCodes:
    """Find configured codes in a stream of digits; pure, the clock is an argument.

    Args:
        codes: digits → action; no code may be the end of another.
    """

    def __init__(self, codes: Mapping[str, Action]) -> None:
        self._codes = dict(codes)
        self._longest = max(len(code) for code in codes)
        self._digits = ""
        self._last_s = 0.0

    def press(self, digit: str, at_s: float) -> Action | None:
        """One digit ended at ``at_s`` (monotonic seconds); the action it completes, if any."""
        if at_s - self._last_s > MAX_GAP_S:
            self._digits = ""
        self._last_s = at_s
        self._digits = (self._digits + digit)[-self._longest :]
        for code, action in self._codes.items():
            if self._digits.endswith(code):
                self._digits = ""
                return action
        return None
