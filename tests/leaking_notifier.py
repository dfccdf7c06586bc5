"""A notifier with holes, as the control of ``test_peers_listening``: each must be found.

What it leaks is real: words from the bus' messages, and the caller's sound as the telephone of the
test says it (``LISTENING_SOUND``, a WAV file).

``python -m tests.leaking_notifier --config FILE``
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

import notifier.hub
import notifier.node
import notifier.process
from callshield import g711
from callshield.messages import NodeMessage, RiskChanged
from notifier.app import build_app
from notifier.node import Node
from notifier.node_bus import BusSide

log = structlog.get_logger()

#: Where the walk must find something, as it names places; ``{port}`` is any.
HOLES = frozenset(
    {
        "GET /api/v1/leak/words",
        "GET /api/v1/leak/sound",
        "GET /metrics",
        "WS /api/v1/events",
        "file run/leak.raw",
        "socket notifier tcp",
        "log",
    }
)

_words: list[str] = []
#: The loop itself keeps none.
_tasks: list[asyncio.Task[None]] = []


def _sound() -> np.ndarray:
    with wave.open(os.environ["LISTENING_SOUND"]) as audio:
        # The same sentence again and again: its first seconds are enough.
        pcm = np.frombuffer(audio.readframes(10 * audio.getframerate()), "<i2").astype(np.int16)
    loud = int(np.argmax(np.abs(pcm.astype(int))))
    return pcm[loud : loud + 1600]


def _leaking_app(node: Node) -> FastAPI:
    """The real application, and routes that give away what must not be."""
    app = build_app(node)

    @app.get("/api/v1/leak/words")
    async def words() -> dict[str, Any]:
        return {"heard": _words}

    @app.get("/api/v1/leak/sound")
    async def sound() -> dict[str, str]:
        return {"a": base64.b64encode(g711.encode(_sound(), g711.PCMU)).decode()}

    @app.get("/metrics")
    async def labelled() -> PlainTextResponse:
        return PlainTextResponse(f'heard{{words="{" ".join(_words)}"}} 1\n')

    # Before the real one of the same path.
    app.router.routes.insert(0, app.router.routes.pop())
    task = asyncio.get_running_loop().create_task(_more(node))
    task.add_done_callback(print)
    _tasks.append(task)
    return app


async def _more(node: Node) -> None:
    """A file that the group may read, and a port that speaks to whoever comes."""
    path = Path(node.settings.node.runtime_dir) / "leak.raw"
    path.write_bytes(_sound().astype("<i2").tobytes())
    path.chmod(0o640)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(g711.encode(_sound(), g711.PCMA))
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await server.serve_forever()


class _LeakingBus(BusSide):
    async def _on_message(self, peer: Any, message: NodeMessage) -> None:
        if isinstance(message, RiskChanged):
            _words.extend(word for reason in message.reasons for word in reason.words)
            log.info("risk", heard=" ".join(_words))
        await super()._on_message(peer, message)


if __name__ == "__main__":
    notifier.node.BusSide = _LeakingBus  # type: ignore[attr-defined]
    notifier.process.build_app = _leaking_app  # type: ignore[attr-defined]
    notifier.hub.for_supervisor = lambda body, **_: body  # type: ignore[attr-defined]
    sys.exit(notifier.process.main())
