"""Whether the detector takes in what the relay gives it.

What a slow detector leaves waiting is bounded in the relay (one second), and the oldest goes. The
detector itself cannot tell such a hole from one of the network: the relay's counters can.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from callshield.messages import NodeDegraded

log = structlog.get_logger()

#: Looks in a row with losses. The detector's own restart is shorter, and told otherwise.
_TOLD_AFTER = 3
#: Looks without any after which all is well again.
_RECOVERY = 30
_REASON = (
    "more audio than can be analysed, a part of it is dropped: "
    "lower sip.admission_limit or give the node more cores"
)


@dataclass(slots=True)
class TapWatch:
    """Looked at once a second, beside rtpengine every other second."""

    _tapped: int = 0
    _dropped: int = 0
    _losing: int = 0
    _well: int = 0
    told: bool = False
    """The alarm stands."""

    def look(self, tapped: int, dropped: int) -> bool:
        """True when the alarm begins or ends.

        Args:
            tapped: frames that the detector took, since the start.
            dropped: frames that were lost on the way to it, since the start.
        """
        took, lost = tapped - self._tapped, dropped - self._dropped
        self._tapped, self._dropped = tapped, dropped
        # Losing all is no slowness: there is no detector, which the notifier sees by itself.
        self._losing = self._losing + 1 if lost and took else 0
        self._well = 0 if lost else self._well + 1
        turned = self._well >= _RECOVERY if self.told else self._losing >= _TOLD_AFTER
        if turned:
            self.told = not self.told
            if self.told:
                log.error("tap_losing_frames")
        return turned

    def alarm(self) -> NodeDegraded:
        """How it stands."""
        reason = _REASON if self.told else ""
        return NodeDegraded(ts=time.time(), component="tap", degraded=self.told, reason=reason)
