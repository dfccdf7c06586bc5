"""Addresses of the soft keys of a pushed screen: short-lived, so that a screen that is read on its
way tells nobody an agent's lasting address. Pure: the clock is given.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from firmware_profiles.presses import KeyAction

#: Longer than any screen is shown before it is sent anew, seconds.
LIVES_S = 150.0
#: Screens of one agent whose keys work: the last ones.
_SCREENS = 4
_ID_BYTES = 16


@dataclass(slots=True)
class _Key:
    agent_id: str
    action: KeyAction
    until_s: float


class ScreenKeys:
    """Keys of the screens that were pushed lately.

    Args:
        new_id: unguessable, 128 bits.
    """

    def __init__(self, new_id: Callable[[], str] = lambda: secrets.token_hex(_ID_BYTES)) -> None:
        self._new_id = new_id
        self._keys: dict[str, _Key] = {}
        self._of: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def make(self, agent_id: str, now_s: float) -> tuple[str, str]:
        """Paths of *end* and *help* on one screen of an agent; not for a log.

        Args:
            agent_id: of a configured agent, so that what is kept is bounded.
            now_s: monotonic.
        """
        mine = self._of.setdefault(agent_id, [])
        made = [self._add(agent_id, action, now_s) for action in ("end", "help")]
        mine += made
        while len(mine) > 2 * _SCREENS:
            del self._keys[mine.pop(0)]
        return f"/k/{made[0]}", f"/k/{made[1]}"

    def find(self, id_: str, now_s: float) -> tuple[str, KeyAction] | None:
        """Agent and action of a key that was pressed; ``None`` where it is none (any more)."""
        key = self._keys.get(id_)
        if key is None or now_s >= key.until_s:
            return None
        return key.agent_id, key.action

    def _add(self, agent_id: str, action: KeyAction, now_s: float) -> str:
        id_ = self._new_id()
        self._keys[id_] = _Key(agent_id, action, now_s + LIVES_S)
        return id_
