"""Call-backs: promised when nobody came, owed by a person, due at a time. Pure.

No number is kept, for the PBX knows it under its own id of the call; or, where that does not do
(``callbacks.keep_number``), encrypted and until somebody called back. One call has at most one open
call-back. A deadline is a time of day that somebody was promised, so a clock that is set does not
move it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from callshield.messages_care import CallbackState
from callshield.settings_care import CallbackSettings
from notifier.live import Call


@dataclass(slots=True)
class Callback:
    """One call-back; a row of ``callbacks``."""

    callback_id: str
    call_id: str
    agent_id: str
    pbx_call_id: str
    owner: str
    """Id of the configured person who owes it; empty where nobody is configured."""
    promised_ts: float
    due_ts: float
    spoken_ts: float | None = None
    """When the caller had heard of it to the end."""
    overdue_ts: float | None = None
    """When it was last said to be overdue."""
    done_ts: float | None = None
    done_by: str = ""
    """Token id, or ``handed_over``: somebody took the call after all. Never a name."""
    sealed_number: str = ""
    """Whom to call (:meth:`callshield.caller_pseudonym.CallerKeys.seal`); empty: none is kept."""

    @property
    def state(self) -> CallbackState:
        if self.done_ts is not None:
            return "done"
        if self.overdue_ts is not None:
            return "overdue"
        return "promised" if self.spoken_ts is None else "spoken"


class Callbacks:
    """The open call-backs of this node.

    Args:
        settings: ``[callbacks]``.
        new_id: makes ids.
    """

    def __init__(self, settings: CallbackSettings, new_id: Callable[[], str]) -> None:
        self._settings = settings
        self._new_id = new_id
        self._open: dict[str, Callback] = {}

    def restore(self, callbacks: Iterable[Callback]) -> None:
        """Take over the open ones of a former process."""
        self._open.update({item.callback_id: item for item in callbacks})

    @property
    def open(self) -> list[Callback]:
        """Not done, the one that is due first in front."""
        return sorted(self._open.values(), key=lambda item: item.due_ts)

    def get(self, callback_id: str) -> Callback | None:
        """An open one."""
        return self._open.get(callback_id)

    def of_call(self, call_id: str) -> Callback | None:
        """The open one of a call."""
        return next((item for item in self._open.values() if item.call_id == call_id), None)

    def promise(self, call: Call, owner: str, now: float) -> Callback | None:
        """Somebody will call back; ``None`` where none are promised, or one is open already."""
        if not self._settings.within_s or self.of_call(call.call_id) is not None:
            return None
        made = Callback(
            self._new_id(),
            call.call_id,
            call.agent_id,
            call.pbx_call_id,
            owner,
            now,
            now + self._settings.within_s,
            sealed_number=call.sealed_number if self._settings.keep_number else "",
        )
        self._open[made.callback_id] = made
        return made

    def spoken(self, call_id: str, ts: float) -> Callback | None:
        """The caller heard it; ``None`` when that changes nothing."""
        found = self.of_call(call_id)
        if found is None or found.spoken_ts is not None:
            return None
        found.spoken_ts = ts
        return found

    def done(self, callback_id: str, by: str, now: float) -> Callback | None:
        """Somebody called back; ``None`` when it is not open."""
        found = self._open.pop(callback_id, None)
        if found is not None:
            found.done_ts, found.done_by = now, by
            found.sealed_number = ""  # nobody is to be called any more
        return found

    def forget(self, call_ids: Iterable[str]) -> None:
        """These calls were deleted."""
        gone = set(call_ids)
        self._open = {id_: one for id_, one in self._open.items() if one.call_id not in gone}

    def overdue(
        self, now: float, alerted: Callable[[str], bool], manager: Callable[[str], str]
    ) -> list[Callback]:
        """Those that must be escalated now: for the first time, or again.

        Args:
            now: seconds since the epoch.
            alerted: whether an alert about this call's call-back is still open: then nobody is
                told again.
            manager: of an agent: who owes it from now on; empty: it stays with whoever owes it.
        """
        found = []
        for item in self.open:
            if item.due_ts > now:
                break
            last = item.overdue_ts
            waiting = last is not None and 0 <= now - last < self._settings.again_s
            if waiting or (last is not None and alerted(item.call_id)):
                continue
            item.overdue_ts = now
            item.owner = manager(item.agent_id) or item.owner
            found.append(item)
        return found
