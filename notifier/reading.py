"""Every reading of what a caller said is itself an event: which words were shown to whom.

A supervisor's screen shows the words of a call whose agent asked for help, again and again: that
is one reading, recorded once for each token and call. An agent who sees the own call's words reads
nothing that was not said to him.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict

from callshield.messages_fairness import ShownReason
from callshield.messages_store import ReadWhat, RecordRead
from notifier.live import Entry
from notifier.rows import Row
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


def shown_to_agent(entry: Entry, why: ShownReason, ref: str) -> Entry:
    """A reading that stands in the agent's own list for as long as the call is kept, not only in
    the events of that moment: stored with it, or neither is.

    Args:
        entry: of :func:`reading`.
        why: through what.
        ref: id of that.
    """
    event = entry.event
    assert isinstance(event, RecordRead)
    row = {
        "opening_id": uuid.uuid4().hex,
        "ts": event.ts,
        "call_id": event.call_id,
        "agent_id": event.agent_id,
        "by_role": event.by_role,
        "by": event.by,
        "why": why,
        "ref": ref,
        "reason": "",
    }
    entry.rows = [*entry.rows, Row("openings", row)]
    return entry
