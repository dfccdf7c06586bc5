"""The consoles of ``callshield bench consoles``: many WebSocket clients in one process.

Real connections (RFC 6455, masked, answering pings), read as plainly as can be: what is measured is
the notifier, not a client library. Each line of standard input is a JSON object and gets one in
answer: ``{"port", "path", "token", "count"}`` connects and waits until all are welcome, ``{"do":
"begin"}`` forgets what came so far, ``{"do": "report"}`` tells it. It ends with its input.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop

_TYPE = re.compile(rb'"type": ?"([a-z.]+)"')
_ID = re.compile(rb'^\{"id": ?(\d+)')
_TS = re.compile(rb'"ts": ?([0-9.eE+-]+)')
_TEXT, _PING, _CLOSE = 0x1, 0x9, 0x8
#: The messages that are timed: alerts, and what stands for them at the reference.
TIMED = b"alert.raised"
STEP_MS = 0.1


class Tally:
    """What all consoles of this process saw."""

    def __init__(self) -> None:
        self.delays: Counter[int] = Counter()
        """How many messages were so late, in steps of :data:`STEP_MS`."""
        self.messages = 0
        self.bytes = 0
        self.closed: list[int] = []

    def begin(self, consoles: list[Console]) -> None:
        self.delays = Counter()
        self.messages = self.bytes = 0
        for console in consoles:
            console.timed = console.again = 0


class Console(asyncio.Protocol):
    """One client.

    Args:
        tally: shared by all of this process.
        path: what is asked for.
        first: first message, with the token; empty for none.
        opened: counts down.
    """

    def __init__(self, tally: Tally, path: str, first: bytes, opened: asyncio.Semaphore) -> None:
        self._tally = tally
        self._path = path
        self._first = first
        self._opened = opened
        self._buffer = bytearray()
        self._shaken = False
        self._ready = False
        self._last_id = 0
        self.timed = 0
        self.again = 0
        """Messages whose number had come before."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._tally.bytes += len(data)
        buffer = self._buffer
        buffer += data
        if not self._shaken:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in buffer[:end]:
                raise RuntimeError(bytes(buffer[:200]).decode("latin-1"))
            del buffer[: end + 4]
            self._shaken = True
            if self._first:
                self._transport.write(masked(_TEXT, self._first))
            else:
                self._is_ready()
        at = 0
        while len(buffer) - at >= 2:
            size, head = buffer[at + 1] & 0x7F, 2
            if size == 126:
                if len(buffer) - at < 4:
                    break
                size, head = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
            elif size == 127:
                if len(buffer) - at < 10:
                    break
                size, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
            if len(buffer) - at < head + size:
                break
            opcode = buffer[at] & 0x0F
            self._frame(opcode, bytes(buffer[at + head : at + head + size]), now)
            at += head + size
        if at:
            del buffer[:at]

    def _frame(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode == _PING:
            self._transport.write(masked(0xA, payload))
            return
        if opcode == _CLOSE:
            self._tally.closed.append(int.from_bytes(payload[:2], "big"))
            return
        self._tally.messages += 1
        if not self._ready:
            self._is_ready()
        number = _ID.match(payload)
        if number is not None:
            event_id = int(number[1])
            if event_id <= self._last_id:
                self.again += 1
            self._last_id = max(self._last_id, event_id)
        if TIMED in payload:
            kind, stamp = _TYPE.search(payload), _TS.search(payload)
            if kind is not None and kind[1] == TIMED and stamp is not None:
                self.timed += 1
                self._tally.delays[int((now - float(stamp[1])) * 1e3 / STEP_MS)] += 1

    def _is_ready(self) -> None:
        self._ready = True
        self._opened.release()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ready:
            self._opened.release()


def masked(opcode: int, payload: bytes) -> bytes:
    """A short frame as a client sends it (RFC 6455 section 5.3); the mask is zero."""
    if len(payload) > 125:
        raise ValueError("a short frame")
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


async def _connect(order: dict[str, Any], tally: Tally) -> list[Console]:
    loop, opened = asyncio.get_running_loop(), asyncio.Semaphore(0)
    first = json.dumps({"token": order["token"]}).encode() if order["token"] else b""
    consoles: list[Console] = []
    for _ in range(order["count"]):
        _, console = await loop.create_connection(
            lambda: Console(tally, order["path"], first, opened), "127.0.0.1", order["port"]
        )
        consoles.append(console)
    for _ in consoles:
        await opened.acquire()
    return consoles


async def _main() -> None:
    tally = Tally()
    consoles: list[Console] = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        order = json.loads(line)
        report: dict[str, Any] = {}
        match order.get("do"):
            case "begin":
                tally.begin(consoles)
            case "report":
                report = {
                    "timed": [console.timed for console in consoles],
                    "again": sum(console.again for console in consoles),
                    "messages": tally.messages,
                    "bytes": tally.bytes,
                    "closed": tally.closed,
                    "delays": dict(tally.delays),
                }
            case _:
                consoles += await _connect(order, tally)
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    uvloop.run(_main())
