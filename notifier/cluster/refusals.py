"""Messages from the bus that were refused: each counted, few of them logged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger()

#: Of one reason no more than one line is logged in this time, seconds: who floods the bus must not
#: fill the disk.
LOGGED_EVERY_S = 10.0


class Refusals:
    """How many, and why.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[str, float] = {}
        self.by_reason: Counter[str] = Counter()

    def add(self, reason: str, node: str = "") -> None:
        """One more.

        Args:
            reason: why, in one word.
            node: whose it was, where that is one of ours.
        """
        self.by_reason[reason] += 1
        now = self._clock()
        if now - self._logged.get(reason, float("-inf")) >= LOGGED_EVERY_S:
            self._logged[reason] = now
            log.warning(
                "cluster_message_refused", why=reason, node=node, refused=self.by_reason[reason]
            )

    @property
    def total(self) -> int:
        return self.by_reason.total()
