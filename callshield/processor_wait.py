"""How long a process was ready to run and was not let, as Linux counts it.

On a machine with more work than processors a healthy process is late. That time is the machine's,
not the process's: whoever judges a silence takes it away (:mod:`callshield.vigil`).
"""

from __future__ import annotations

import time
from pathlib import Path


class ProcessorWait:
    """Of one process, its main thread: there the event loops turn.

    ``/proc/PID/schedstat`` (Documentation/scheduler/sched-stats.rst): nanoseconds on a processor,
    nanoseconds of waiting for one. The second is only brought up to date when the wait ends, so
    that one that still lasts is told by the state: running, and yet not a nanosecond further.

    Args:
        pid: of the process; where it cannot be read, no wait is ever found.
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))
        self._looked = time.monotonic()
        self._ran, self._waited = self._read()
        #: Of a wait that still lasts, what was told before it ended.
        self._ahead = 0.0

    def _read(self) -> tuple[float, float]:
        try:
            ran, waited, *_ = (self._folder / "schedstat").read_text().split()
        except (OSError, ValueError):
            return 0.0, 0.0
        return int(ran) / 1e9, int(waited) / 1e9

    def _is_ready(self) -> bool:
        try:
            return (self._folder / "stat").read_text().rpartition(")")[2].split()[0] == "R"
        except (OSError, IndexError):
            return False

    def more(self) -> float:
        """Seconds of waiting since the last look, or since the beginning."""
        now = time.monotonic()
        elapsed, self._looked = now - self._looked, now
        (ran, waited), (ran_before, waited_before) = self._read(), (self._ran, self._waited)
        self._ran, self._waited = ran, waited
        if waited > waited_before:
            found = max(0.0, waited - waited_before - self._ahead)
            self._ahead = 0.0
            return found
        if ran > 0 and ran == ran_before and self._is_ready():
            self._ahead += elapsed
            return elapsed
        return 0.0
