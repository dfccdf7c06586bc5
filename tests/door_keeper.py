"""A notifier's bus that answers one question for the command line: may a recording be opened?

The real one is asked in ``tests/test_fairness_api.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from callshield.bus import BusServer, Peer
from callshield.messages import CommandResult, NodeMessage
from callshield.messages_fairness import OpenRecording


@contextmanager
def door_keeper(
    path: Path, status: Literal["done", "not_now"] = "done", detail: str = ""
) -> Iterator[list[OpenRecording]]:
    """Answer on the socket for as long as the block lasts; gives what was asked."""
    asked: list[OpenRecording] = []
    loop = asyncio.new_event_loop()
    up, stop = threading.Event(), asyncio.Event()

    async def on_message(peer: Peer[NodeMessage], message: NodeMessage) -> None:
        if isinstance(message, OpenRecording):
            asked.append(message)
            peer.send(CommandResult(command_id=message.request_id, status=status, detail=detail))

    async def serve() -> None:
        server: BusServer[NodeMessage] = BusServer(path, NodeMessage, on_message)
        await server.start()
        up.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        path.unlink()
        loop.close()
