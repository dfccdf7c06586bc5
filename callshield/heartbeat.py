"""Heartbeats: a part of the node tells the supervisor, once a second, that its event loop turns.

Each process gets the write end of a pipe of its own. A process that hangs is silent though it is
alive, which is what no exit status tells; the supervisor then ends and restarts it
(:mod:`callshield.vigil`). A beat is one line, empty or the number of running calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

#: Names the descriptor of the pipe's write end in a child's environment.
VARIABLE = "CALLSHIELD_HEARTBEAT_FD"
BEAT_S = 1.0


def is_supervised() -> bool:
    """Whether a supervisor started this process and listens for its beats."""
    return os.environ.get(VARIABLE, "").isdigit()


def beat(
    loop: asyncio.AbstractEventLoop,
    calls: Callable[[], int] | None = None,
    on_gone: Callable[[], None] = lambda: None,
) -> None:
    """Beat from now on, from within ``loop``; nothing without a supervisor.

    Args:
        loop: the process's event loop; a loop that stands still does not beat.
        calls: the number of running calls, where this process knows it.
        on_gone: called once nobody listens any more: the supervisor is dead.
    """
    if not is_supervised():
        return
    descriptor = int(os.environ[VARIABLE])

    def once() -> None:
        try:
            os.write(descriptor, b"\n" if calls is None else b"%d\n" % calls())
        except BlockingIOError:
            pass  # the supervisor does not read just now: what waits there says enough
        except OSError:
            on_gone()
            return
        loop.call_later(BEAT_S, once)

    try:
        os.set_blocking(descriptor, False)
    except OSError:
        return  # started by hand with a stale variable
    once()
