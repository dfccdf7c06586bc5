"""Shows how far a long set-up is: one line a phase, with the seconds that it took."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO


class Progress:
    """Phase lines on a stream; on a terminal the running phase counts its seconds.

    Args:
        phases: how many phases there will be.
        stream: where to write; standard error by default, so that results own standard output.
        quiet: write nothing.
    """

    def __init__(self, phases: int, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._phases = phases
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._number = 0

    def note(self, text: str) -> None:
        """Write one line of its own."""
        if not self._quiet:
            self._stream.write(f"  {text}\n")
            self._stream.flush()

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Show a phase while the block runs; the seconds it took stand at the line's end."""
        self._number += 1
        if self._quiet:
            yield
            return
        label = f"  pjsua2 {self._number}/{self._phases}  {title} ..."
        started = time.monotonic()
        over = threading.Event()
        self._stream.write(label)
        self._stream.flush()
        ticker = None
        if self._stream.isatty():
            ticker = threading.Thread(target=self._tick, args=(label, started, over), daemon=True)
            ticker.start()
        outcome = "stopped after"
        try:
            yield
            outcome = ""
        finally:
            over.set()
            if ticker is not None:
                ticker.join()
                self._stream.write(f"\r{label}")
            took = f"{time.monotonic() - started:.0f} s"
            self._stream.write(f" {outcome} {took}\n" if outcome else f" {took}\n")
            self._stream.flush()

    def _tick(self, label: str, started: float, over: threading.Event) -> None:
        while not over.wait(1.0):
            self._stream.write(f"\r{label} {time.monotonic() - started:.0f} s")
            self._stream.flush()
