"""Ends this process when its event loop stands still: the supervisor's, which nobody else hears.

A thread looks once a second. Time in which the whole process stood still (a stopped container, a
paused machine) is not counted, nor time in which the loop was ready and had no processor: a timer
such as ``faulthandler.dump_traceback_later`` would go off at the moment when the process goes on.
A hang that keeps the thread from running too is left to the service manager's watchdog.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable

from callshield.processor_wait import ProcessorWait

LOOK_S = 1.0


def _end() -> None:
    faulthandler.dump_traceback(all_threads=True)
    os._exit(1)


class LoopGuard:
    """The thread.

    Args:
        patience_s: how long the loop may stand still; 0: for ever.
        end: what is done then: all stacks are printed, and the process exits with status 1.
    """

    def __init__(self, patience_s: float, end: Callable[[], None] = _end) -> None:
        self._patience_s = patience_s
        self._end = end
        self._turned = True
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop-guard", daemon=True)
        if patience_s:
            self._thread.start()

    def turn(self) -> None:
        """The loop turns; to be called from it, at least every few seconds."""
        self._turned = True

    def _run(self) -> None:
        wait, still_s, looked = ProcessorWait(os.getpid()), 0.0, time.monotonic()
        while not self._closed.wait(LOOK_S):
            now = time.monotonic()
            # No more than a look's own length, however late it is: see above.
            still_s += min(now - looked, LOOK_S)
            looked = now
            still_s = max(0.0, still_s - wait.more())
            if self._turned:
                self._turned, still_s = False, 0.0
            elif still_s >= self._patience_s:
                self._end()
                return

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
