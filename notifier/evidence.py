"""Requests for evidence: what an agent asked to be kept, until somebody handed it out. Pure.

Somebody must see them, and the recordings of their calls must not go meanwhile: the open ones are
what supervisors are shown and what the bridge holds back from deleting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from notifier.care import Said


@dataclass(frozen=True, slots=True)
class Wanted:
    """An open request; ``said`` is its row."""

    said: Said
    pbx_call_id: str


class EvidenceRequests:
    """The open requests for evidence of this node."""

    def __init__(self) -> None:
        self._open: dict[str, Wanted] = {}

    def restore(self, wanted: Iterable[Wanted]) -> None:
        """Take over the open ones of a former process."""
        self._open.update({item.said.request_id: item for item in wanted})

    @property
    def open(self) -> list[Wanted]:
        """Not handed out yet, the oldest in front."""
        return sorted(self._open.values(), key=lambda item: item.said.ts)

    @property
    def call_ids(self) -> list[str]:
        """Calls whose recordings are held, each once."""
        return sorted({item.said.call_id for item in self._open.values()})

    def get(self, request_id: str) -> Wanted | None:
        """An open one."""
        return self._open.get(request_id)

    def ask(self, said: Said, pbx_call_id: str) -> None:
        """An agent asked."""
        self._open[said.request_id] = Wanted(said, pbx_call_id)

    def done(self, request_id: str, by: str, now: float) -> Wanted | None:
        """The evidence was handed out, or cannot be; ``None`` when it is not open.

        Args:
            request_id: of the request.
            by: token id; never a name.
            now: seconds since the epoch.
        """
        found = self._open.pop(request_id, None)
        if found is not None:
            found.said.done_ts, found.said.done_by = now, by
        return found

    def forget(self, call_ids: Iterable[str]) -> bool:
        """These calls were deleted, and what was asked of them with them; True if any was open."""
        gone = set(call_ids)
        kept = {id_: one for id_, one in self._open.items() if one.said.call_id not in gone}
        changed = len(kept) != len(self._open)
        self._open = kept
        return changed
