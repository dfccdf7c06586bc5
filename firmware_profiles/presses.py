"""When two presses of a key are one. Pure: the clock is given.

A phone repeats a request whose answer is late, and a finger presses twice. A second press within a
second of the first, or while nothing has come of it, is the same press: it acts once and both get
the same answer. There is no other limit: an agent's first *end* is never one too many.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

KeyAction = Literal["end", "help"]

#: Presses this close are one, seconds.
SAME_S = 1.0
#: A press of which nothing came by then is over, seconds.
FORGOTTEN_S = 10.0


@dataclass(slots=True)
class _Press:
    key_id: str
    at_s: float
    open: bool = True


class Presses:
    """The last press of each key.

    Args:
        new_id: names a press.
    """

    def __init__(self, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._new_id = new_id
        self._last: dict[tuple[str, KeyAction], _Press] = {}

    def press(self, agent_id: str, action: KeyAction, now_s: float) -> tuple[str, bool]:
        """A key was pressed.

        Args:
            agent_id: of a known agent, so that what is kept is bounded.
            action: which key.
            now_s: monotonic.

        Returns:
            Id of the press, and whether it is a new one.
        """
        last = self._last.get((agent_id, action))
        if last is not None:
            age_s = now_s - last.at_s
            if age_s < SAME_S or (last.open and age_s < FORGOTTEN_S):
                return last.key_id, False
        press = _Press(self._new_id(), now_s)
        self._last[agent_id, action] = press
        return press.key_id, True

    def finished(self, agent_id: str, action: KeyAction, key_id: str) -> None:
        """Something came of a press, or nothing will."""
        last = self._last.get((agent_id, action))
        if last is not None and last.key_id == key_id:
            last.open = False
