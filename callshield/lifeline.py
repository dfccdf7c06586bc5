"""The lifeline: media, detector and notifier outlive the supervisor until the last call is over.

The supervisor and the bridge hold the write end of a pipe whose read end the others watch. When
the supervisor dies the kernel tells the bridge to stop (SIGINT; so does the broken pipe of its
heartbeats): it takes no new calls and lets the running ones finish, with audio, analysis and
consoles still there. When the bridge has gone too, the pipe ends and the others stop by
themselves, so that no port stays taken.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from callshield import heartbeat

#: Names the descriptor of the pipe's read end in a child's environment.
VARIABLE = "CALLSHIELD_LIFELINE_FD"
#: With what the supervisor ends a part.
STOP = signal.SIGINT


def stop_on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call ``stop`` at SIGINT, and at SIGTERM unless a supervisor is above.

    A service manager sends SIGTERM to every process of a unit, also after the supervisor's death:
    media, detector and notifier must then last as long as the calls do.
    """
    loop.add_signal_handler(STOP, stop)
    supervised = heartbeat.is_supervised()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if supervised else stop)


def watch(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call ``stop`` once supervisor and bridge are both gone; nothing without a supervisor."""
    value = os.environ.get(VARIABLE, "")
    if not value.isdigit():
        return
    descriptor = int(value)

    def ended() -> None:
        # Nobody ever writes: readable means that the last write end was closed.
        loop.remove_reader(descriptor)
        stop()

    try:
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, ended)
    except OSError:
        return  # started by hand with a stale variable
