"""Requests for evidence: what an agent asked to be kept, and what was decided. Pure.

From the press on everything about the call is held: retention and erasure wait
(:mod:`notifier.evidence_holds`). Somebody approves the request, or refuses it with a reason that
the agent reads; a refused one stays held while a grievance may still change that, and can be
approved after all. It is over when the package was handed out (``done``), or when nobody asked
further in time (``lapsed``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from callshield.messages_evidence import RequestState
from notifier.care import Said

#: Events of a day are told by their time; a request is held for whole days.
DAY_S = 86_400.0
Verdict = Literal["approved", "refused"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of ``evidence_decisions``."""

    request_id: str
    call_id: str
    state: Verdict
    ts: float
    by_role: str
    by: str
    """Token id; never a name."""
    reason: str = ""
    held_until_ts: float | None = None
    """Of a refusal."""


def state_of(said: Said, decision: Decision | None) -> RequestState:
    """Where a request stands."""
    if said.done_ts is not None:
        return "lapsed" if decision is not None and decision.state == "refused" else "done"
    return "requested" if decision is None else decision.state


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that holds its call; ``said`` is its row."""

    said: Said
    pbx_call_id: str
    decision: Decision | None = None

    @property
    def state(self) -> RequestState:
        return state_of(self.said, self.decision)


class EvidenceRequests:
    """The requests of this node that hold something."""

    def __init__(self) -> None:
        self._open: dict[str, Wanted] = {}

    def restore(self, wanted: Iterable[Wanted]) -> None:
        """Take over those of a former process."""
        self._open.update({item.said.request_id: item for item in wanted})

    @property
    def open(self) -> list[Wanted]:
        """Not handed out yet, the oldest in front."""
        return sorted(self._open.values(), key=lambda item: item.said.ts)

    @property
    def call_ids(self) -> list[str]:
        """Calls that are held, each once."""
        return sorted({item.said.call_id for item in self._open.values()})

    def get(self, request_id: str) -> Wanted | None:
        """An open one."""
        return self._open.get(request_id)

    def ask(self, said: Said, pbx_call_id: str) -> None:
        """An agent asked."""
        self._open[said.request_id] = Wanted(said, pbx_call_id)

    def decide(self, decision: Decision) -> Wanted | None:
        """Somebody approved or refused.

        Returns:
            The request with its decision; ``None`` when this cannot be decided so any more: only a
            request that waits can be refused, and only one that waits or was refused approved.
        """
        found = self._open.get(decision.request_id)
        allowed = ("requested",) if decision.state == "refused" else ("requested", "refused")
        if found is None or found.state not in allowed:
            return None
        decided = replace(found, decision=decision)
        self._open[decision.request_id] = decided
        return decided

    def done(self, request_id: str, by: str, now: float) -> Wanted | None:
        """The package was handed out; ``None`` when the request is not approved and open.

        Args:
            request_id: of the request.
            by: token id; never a name.
            now: seconds since the epoch.
        """
        found = self._open.get(request_id)
        if found is None or found.state != "approved":
            return None
        return self._close(found, by, now)

    def lapse(self, now: float) -> list[Wanted]:
        """Refusals after which nobody asked further in time; they hold nothing from now on."""
        over = [
            item
            for item in self._open.values()
            if item.decision is not None and (item.decision.held_until_ts or now + 1) <= now
        ]
        return [self._close(item, "", now) for item in over]

    def _close(self, item: Wanted, by: str, now: float) -> Wanted:
        del self._open[item.said.request_id]
        item.said.done_ts, item.said.done_by = now, by
        return item

    def forget(self, call_ids: Iterable[str]) -> bool:
        """These calls were deleted, and what was asked of them with them; True if any was open."""
        gone = set(call_ids)
        kept = {id_: one for id_, one in self._open.items() if one.said.call_id not in gone}
        changed = len(kept) != len(self._open)
        self._open = kept
        return changed
