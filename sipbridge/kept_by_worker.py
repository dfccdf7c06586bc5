"""What a media worker keeps of one call for the next bridge; pure."""

from __future__ import annotations

from collections.abc import Iterable

from callshield.messages import LegName
from callshield.messages_media import (
    DialogIdentity,
    FlowUpdate,
    KeepCall,
    KeepDialog,
    KeptCall,
)


class KeptByWorker:
    """The last that the bridge said of its side of one call."""

    def __init__(self) -> None:
        self._call: KeepCall | None = None
        self._dialogs: dict[LegName, DialogIdentity] = {}

    def keep(self, message: KeepCall | KeepDialog) -> None:
        """In place of what was kept before."""
        if isinstance(message, KeepCall):
            self._call = message
        elif message.dialog is None:
            self._dialogs.pop(message.leg, None)
        else:
            self._dialogs[message.leg] = message.dialog

    def told(self, flow: FlowUpdate | None, silent: Iterable[LegName]) -> KeptCall | None:
        """For the next bridge; None when nothing was kept.

        Args:
            flow: what may pass now; None: nothing yet.
            silent: legs of which no packet has come for a while.
        """
        if self._call is None:
            return None
        return KeptCall(
            kept=self._call, dialogs=dict(self._dialogs), flow=flow, silent=list(silent)
        )
