"""What the caller may decide by a key: to object to analysis and recording, or to agree to them.

Pure. A key counts from the notice's first word until a while after its end; digits keyed later are
the agent's business (an account number), and mean nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class NoticeKeys:
    """The keys that the notice names; fixed at the INVITE."""

    objection: str = ""
    consent: str = ""
    window_s: float = 5.0
    """How long after the notice they still count."""


#: Nothing may be pressed.
NO_KEYS = NoticeKeys()


class CallerChoice:
    """The caller's word in one call.

    Args:
        keys: what may be pressed.
    """

    def __init__(self, keys: NoticeKeys) -> None:
        self._keys = keys
        self.listening = False
        """A key counts now."""
        self.objected = False
        self.agreed = False
        self.key = ""
        """What was pressed and counted."""

    def listen(self) -> None:
        """The notice begins, or its end is waited out."""
        self.listening = bool(self._keys.objection or self._keys.consent)

    def close(self) -> None:
        """What is pressed from now on means nothing."""
        self.listening = False

    def press(self, digit: str) -> Literal["", "objection", "consent"]:
        """A key that the caller pressed; what it decides."""
        if not self.listening or not digit:
            return ""
        if digit == self._keys.objection:
            self.objected, self.key = True, digit
            self.close()
            return "objection"
        if digit == self._keys.consent and not self.agreed:
            self.agreed, self.key = True, digit
            return "consent"
        return ""

    @property
    def waits(self) -> bool:
        """The notice is over, and a key may still decide otherwise."""
        return self.listening and not self.agreed

    @property
    def allows(self) -> bool:
        """Analysis and recording may go on, as far as the caller has a say."""
        return not self.objected and (self.agreed or not self._keys.consent)
