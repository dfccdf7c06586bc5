"""The agent's word counts like the machine's: marks, and what he says of a call up to a day later.

Pure: events and a clock in, what to record out. A call is marked once, by whatever comes first:
the level, an *end*, the agent. Nothing unmarks it: what a supervisor says of an alert
(:func:`notifier.live.judge`) reaches neither this nor the rest.

What the agent says is kept as one of a few fixed kinds and choices, never as text: a sentence about
a call would hold what the caller said, and names; nothing then needs redacting, and every console
shows it in its own language.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from callshield.messages import CallEnding, Event, RiskChanged
from callshield.messages_care import EXCLUSIONS, CallMarked, SaidKind
from callshield.settings_care import AftercareSettings
from notifier.live import Call

#: How long after a call its agent may speak of it.
SAID_WITHIN_S = 24 * 3600.0
#: Marked calls remembered; older ones are in the store.
_REMEMBERED = 5000

NoteChoice = Literal[
    "profanity",
    "insult",
    "threat",
    "sexual_harassment",
    "hate",
    "shouting",
    "repeated_calls",
    "unreasonable_demand",
    "other",
]
NOTES: tuple[str, ...] = get_args(NoteChoice)


@dataclass(slots=True)
class Mark:
    """A marked call; a row of ``marks``. Who marked it is not in it."""

    call_id: str
    agent_id: str
    pbx_call_id: str
    ts: float


@dataclass(slots=True)
class Said:
    """What an agent said of a call; a row of ``said``."""

    request_id: str
    call_id: str
    agent_id: str
    kind: SaidKind
    ts: float
    choice: str = ""
    done_ts: float | None = None
    """Of a request for evidence: when it was settled."""
    done_by: str = ""
    """Token id."""


class Marks:
    """Which calls are left out of everybody's figures.

    Args:
        settings: ``[aftercare]``.
    """

    def __init__(self, settings: AftercareSettings) -> None:
        self._settings = settings
        self._marked: OrderedDict[str, None] = OrderedDict()

    def restore(self, call_ids: Iterable[str]) -> None:
        """Take over what a former process stored, oldest first."""
        for call_id in call_ids:
            self._remember(call_id)

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._marked

    def feed(self, event: Event, call: Call) -> CallMarked | None:
        """An event of a call, as the board took it."""
        match event:
            case RiskChanged() if event.level >= self._settings.exclude_from_level:
                return self.mark(call, "level", event.ts)
            case CallEnding():
                return self.mark(call, "end", event.ts)
        return None

    def mark(
        self, call: Call, by: Literal["level", "end", "agent"], ts: float
    ) -> CallMarked | None:
        """Mark a call; ``None`` when it is marked already."""
        if call.call_id in self._marked:
            return None
        self._remember(call.call_id)
        return CallMarked(
            ts=ts,
            call_id=call.call_id,
            agent_id=call.agent_id,
            exclude=list(EXCLUSIONS),
            by=by,
            pbx_call_id=call.pbx_call_id,
        )

    def _remember(self, call_id: str) -> None:
        self._marked[call_id] = None
        while len(self._marked) > _REMEMBERED:
            self._marked.popitem(last=False)


class Word:
    """What agents said of their calls: each kind once a call, a note may be changed."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._said: OrderedDict[tuple[str, str], Said] = OrderedDict()

    def restore(self, said: Iterable[Said]) -> None:
        """Take over what a former process stored, oldest first."""
        for item in said:
            self._remember(item)

    def get(self, call_id: str, kind: SaidKind) -> Said | None:
        return self._said.get((call_id, kind))

    def say(self, call: Call, kind: SaidKind, ts: float, choice: str = "") -> Said | None:
        """The agent says something of a call.

        Returns:
            What to keep; ``None`` when the same was said before.
        """
        known = self.get(call.call_id, kind)
        if known is not None and known.choice == choice:
            return None
        request_id = known.request_id if known else self._new_id()
        said = Said(request_id, call.call_id, call.agent_id, kind, ts, choice)
        self._remember(said)
        return said

    def _remember(self, said: Said) -> None:
        self._said[said.call_id, said.kind] = said
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)


def may_still_be_said(call: Call, now: float) -> bool:
    """The call is live, or ended less than :data:`SAID_WITHIN_S` ago."""
    return call.ended_ts is None or now - call.ended_ts <= SAID_WITHIN_S
