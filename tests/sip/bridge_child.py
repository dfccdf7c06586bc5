"""The product's bridge in a process of its own, with a window: what does it hold now?

``python -m tests.sip.bridge_child --config FILE``. Beside what :mod:`sipbridge.process` does, it
listens on ``window.sock`` in the node's runtime folder: one word in, one line of JSON out. PJSIP's
timeouts (64·T1 and timer D of RFC 3261 table 4, which PJSIP holds as one) come 25 times as soon,
after 1.28 s. T1 itself is only 5 times as short: what is not answered within 20 ms would be sent
again, and that is an everyday delay on a machine with other tests beside this one, but sipp's
scenarios know no message that comes twice.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pjsip_guard

from callshield.messages_media import CloseSession, OpenSession
from sipbridge import process
from sipbridge.bridge import Bridge
from sipbridge.bridged import Bridged
from sipbridge.legs import Leg

T1_MS, T2_MS, T4_MS, TD_MS = 100, 400, 200, 1280


class OpenBridge(Bridge):
    """A bridge that can be looked into."""

    async def start(self) -> None:
        await super().start()
        ctypes.CDLL(importlib.import_module("_pjsua2").__file__).pjsip_tsx_set_timers(
            T1_MS, T2_MS, T4_MS, TD_MS
        )
        path = self.settings.node.runtime_dir / "window.sock"
        self._leaked: list[Any] = []
        self._window = await asyncio.start_unix_server(self._look, path=str(path))

    async def _look(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).decode().strip()
        answer = self.held() if word == "held" else self._leak(word)
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    def held(self) -> dict[str, Any]:
        """Everything that a call may leave behind."""
        gc.collect()
        things = gc.get_objects()
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own and not task.done()]
        return {
            "calls": len(self.calls),
            "refusals": len(self._refused),
            "legs": sum(isinstance(thing, Leg) for thing in things),
            "bridged": sum(isinstance(thing, Bridged) for thing in things),
            "tasks": sorted(
                name
                for task in tasks
                if "_look" not in (name := getattr(task.get_coro(), "__qualname__", "?"))
                and "client_connected" not in name
            ),
            "media_requests": len(self.media._waiting),
            "descriptors": len(os.listdir("/proc/self/fd")),
            **pjsip_guard.load(),
            "rss_kib": _rss_kib(),
            "counters": pjsip_guard.counters(),
        }

    def _leak(self, what: str) -> dict[str, Any]:
        """Leave something behind on purpose: does the judge notice?"""
        match what:
            case "leak call":
                self.calls["leaked"] = object()  # type: ignore[assignment]
            case "mend call":
                del self.calls["leaked"]
            case "leak task":
                self._leaked.append(asyncio.create_task(asyncio.sleep(3600), name="leaked"))
            case "leak socket":
                self._leaked.append(socket.socket())
            case "leak port":
                self.media.send(OpenSession(request_id=10**6, call_id="f" * 32))
            case "mend port":
                self.media.send(CloseSession(call_id="f" * 32))
            case "mend":
                for thing in self._leaked:
                    thing.cancel() if isinstance(thing, asyncio.Task) else thing.close()
                self._leaked.clear()
            case _:
                raise ValueError(what)
        return {}


def _rss_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


if __name__ == "__main__":
    vars(process)["Bridge"] = OpenBridge
    process.main()
