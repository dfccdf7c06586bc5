"""What the agents' screens are told of the own ear and voice, as it comes.

The dose of a running call and the talking time have no number and are in no journal: they are told
to that agent's screens, and the newest of each is kept in memory for a page that is opened later.
What is stored is the dose at the end of each call, and each warning once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from callshield.messages import EarDose, VoiceTalk
from callshield.messages_hearing import SHIFT_GAP_S

Tell = Callable[[str, dict[str, Any]], None]


class Hearing:
    """The newest of each agent.

    Args:
        tell: puts something on the screens of one agent.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._doses: dict[str, EarDose] = {}
        self._voices: dict[str, VoiceTalk] = {}

    def dose(self, said: EarDose) -> None:
        """Where a shift stands. The last one of a call is also an event, and told as such."""
        self._doses[said.agent_id] = said
        if not said.last_of_call:
            self._tell(said.agent_id, msgspec.to_builtins(said))

    def talk(self, said: VoiceTalk) -> None:
        """How long an agent has spoken."""
        if said.talked_s:
            self._voices[said.agent_id] = said
        else:
            self._voices.pop(said.agent_id, None)
        self._tell(said.agent_id, msgspec.to_builtins(said))

    def bridge_came(self, now: float) -> None:
        """A bridge that begins anew has timed nobody yet: no screen goes on saying otherwise."""
        for said in list(self._voices.values()):
            self.talk(msgspec.structs.replace(said, ts=now, talked_s=0.0, rest=False))

    def dose_of(self, agent_id: str, now: float) -> EarDose | None:
        """The running shift's; ``None`` where there is none, or it is not known here."""
        said = self._doses.get(agent_id)
        return said if said is not None and now - said.ts <= SHIFT_GAP_S else None

    def voice_of(self, agent_id: str) -> VoiceTalk | None:
        """``None``: has not spoken since the last pause, or for less than a minute."""
        return self._voices.get(agent_id)
