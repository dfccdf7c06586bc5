"""Every reading of what a caller said is itself an event: which words were shown to whom.

A supervisor's screen shows the words of a call whose agent asked for help, again and again: that
is one reading, recorded once for each token and call. An agent who sees the own call's words reads
nothing that was not said to him.
"""

from __future__ import annotations

from collections import OrderedDict

from callshield.messages_store import ReadWhat, RecordRead
from notifier.board import Entry
from notifier.tokens import Identity

#: Types of the events that say that somebody read words or opened a recording.
READINGS = ("record.read", "recording.opened")
#: Readings remembered, so that none is recorded twice.
_REMEMBERED = 10_000
#: Why a supervisor is shown words.
HELP_ASKED = "help_asked"


class Readings:
    """Which readings are recorded already."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def shown(self, identity: Identity, call_id: str, agent_id: str, now: float) -> list[Entry]:
        """A person was shown words of a call.

        Returns:
            What to store: nothing for the call's own agent, and nothing the second time.
        """
        if identity.role == "agent":
            return []
        key = (identity.token_id, call_id)
        if key in self._known:
            return []
        self._known[key] = None
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return [
            reading(now, call_id, agent_id, "words", identity.role, identity.token_id, HELP_ASKED)
        ]


def reading(
    now: float, call_id: str, agent_id: str, what: ReadWhat, by_role: str, by: str, why: str
) -> Entry:
    """The entry of one reading; the call's agent may see it."""
    event = RecordRead(
        ts=now,
        call_id=call_id,
        what=what,
        by_role=by_role,
        by=by,
        why=why,
        agent_id=agent_id,
    )
    return Entry(event, agent_id)
