"""Feature codes among the digits of an agent's leg, where no relay of ours sees the packets.

The same rules as the relay's own (``relay_core/digits.c``): a digit that begins a code is held
back until the code is whole, is none after all, or nothing comes for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: What may come of a code is waited for so long.
HOLD_S = 1.5


@dataclass(slots=True)
class DigitCodes:
    """The digits of one leg; pure.

    Args:
        codes: none of them begins or ends another.
    """

    codes: Sequence[str]
    _held: str = ""
    deadline: float = field(default=0.0)
    """When :meth:`expire` has something to release, in the caller's clock; 0: never."""

    def press(self, digit: str, now: float) -> tuple[str, str]:
        """A digit was pressed.

        Args:
            digit: one of ``0123456789*#ABCD``.
            now: seconds.

        Returns:
            the code that is whole with it, or ``""``, and the digits that belong to none.
        """
        self._held += digit
        released = ""
        while self._held:
            if self._held in self.codes:
                code, self._held, self.deadline = self._held, "", 0.0
                return code, released
            if any(code.startswith(self._held) for code in self.codes):
                self.deadline = now + HOLD_S
                return "", released
            # No code begins so: the first digit goes, the others may still begin one.
            released, self._held = released + self._held[0], self._held[1:]
        self.deadline = 0.0
        return "", released

    def expire(self, now: float) -> str:
        """The digits that are held no longer."""
        if not self._held or now < self.deadline:
            return ""
        released, self._held, self.deadline = self._held, "", 0.0
        return released
