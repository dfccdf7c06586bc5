"""rtpengine as the reference to measure against: started by hand, told by its ng protocol.

The ng protocol is a cookie, a space and a bencoded dictionary in one UDP datagram each way
(rtpengine's README, "The ng control protocol"). Only what a benchmark needs: offer and answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
from typing import Any

from callshield.errors import SetupError
from sipbridge.media_worker import REALTIME_PRIORITY

#: rtpengine's media address and its control port's.
ADDRESS = "127.0.0.10"
_ANSWER_S = 5.0


def bencode(value: Any) -> bytes:
    """A bencoded string, number, list or dictionary."""
    match value:
        case bool():
            raise TypeError("bencode has no booleans")
        case int():
            return b"i%de" % value
        case str():
            data = value.encode()
            return b"%d:%s" % (len(data), data)
        case list():
            return b"l" + b"".join(bencode(item) for item in value) + b"e"
        case dict():
            items = sorted(value.items())
            return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"
        case _:
            raise TypeError(f"bencode has no {type(value).__name__}")


def bdecode(data: bytes) -> Any:
    """The value of a bencoded text; strings as str.

    Raises:
        ValueError: it is not bencoded.
    """
    try:
        value, end = _bdecode(data, 0)
    except (ValueError, TypeError) as error:
        raise ValueError(f"not bencoded: {error}") from None
    if end != len(data):
        raise ValueError("not bencoded: bytes after the value")
    return value


def _bdecode(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _bdecode(data, at)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return dict(zip(items[::2], items[1::2], strict=True)), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if end > len(data):
        raise ValueError("a bencoded string ends too early")
    return data[colon + 1 : end].decode(), end


def session_description(address: str, port: int) -> str:
    """An SDP of one G.711 µ-law stream."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
    )


def media_of(sdp: str) -> tuple[str, int]:
    """Address and port of an SDP's first stream."""
    lines = [line.strip() for line in sdp.splitlines()]
    address = next(line.split()[-1] for line in lines if line.startswith("c="))
    port = next(int(line.split()[1]) for line in lines if line.startswith("m="))
    return address, port


class Rtpengine:
    """A running rtpengine in userspace mode; use as ``async with``."""

    def __init__(self, binary: str, *, calls: int) -> None:
        self._binary = binary
        self._calls = calls
        self._process: asyncio.subprocess.Process | None = None
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._control.setblocking(False)

    @staticmethod
    def installed() -> str | None:
        """The binary's path (Debian: rtpengine-daemon); None when it is not installed."""
        return shutil.which("rtpengine", path="/usr/bin:/usr/sbin:/usr/local/bin")

    @staticmethod
    def _scheduling() -> list[str]:
        """The scheduling that the media worker gets where it may: a fair comparison."""
        before = os.sched_getscheduler(0)
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
        except OSError:
            return []
        os.sched_setscheduler(0, before, os.sched_param(0))
        return ["--scheduling=rr", f"--priority={REALTIME_PRIORITY}"]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Rtpengine:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ADDRESS, 0))
            port = probe.getsockname()[1]
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            "--config-file=none",
            "--foreground",
            "--log-stderr",
            "--log-level=3",
            "--table=-1",
            f"--interface=lo/{ADDRESS}",
            f"--listen-ng={ADDRESS}:{port}",
            "--port-min=22000",
            f"--port-max={22000 + self._calls * 4 + 200}",
            "--num-threads=2",
            *self._scheduling(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._control.connect((ADDRESS, port))
        for _ in range(100):
            if self._process.returncode is not None:
                break
            with contextlib.suppress(OSError, TimeoutError):
                if (await self._ask({"command": "ping"}, 0.2)).get("result") == "pong":
                    return self
            await asyncio.sleep(0.05)
        await self.__aexit__()
        raise SetupError("rtpengine does not answer: start it by hand to see why")

    async def __aexit__(self, *_: object) -> None:
        self._control.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _ANSWER_S)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    async def _ask(self, body: dict[str, Any], timeout_s: float = _ANSWER_S) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        cookie = secrets.token_hex(4).encode()
        await loop.sock_sendall(self._control, cookie + b" " + bencode(body))
        async with asyncio.timeout(timeout_s):
            while True:
                data = await loop.sock_recv(self._control, 65536)
                got, _, rest = data.partition(b" ")
                if got == cookie:
                    answer: dict[str, Any] = bdecode(rest)
                    return answer

    async def relay(
        self, caller: tuple[str, int], agent: tuple[str, int]
    ) -> tuple[tuple[str, int], tuple[str, int]]:
        """Set up one call.

        Returns:
            Where the caller and where the agent has to send to.

        Raises:
            SetupError: rtpengine refused.
        """
        call = {
            "call-id": secrets.token_hex(8),
            "from-tag": secrets.token_hex(4),
            "ICE": "remove",
            "replace": ["origin", "session-connection"],
            "flags": ["trust-address"],
        }
        offer = await self._ask({**call, "command": "offer", "sdp": session_description(*caller)})
        answer = await self._ask(
            {
                **call,
                "command": "answer",
                "to-tag": secrets.token_hex(4),
                "sdp": session_description(*agent),
            }
        )
        for reply in (offer, answer):
            if reply.get("result") != "ok":
                raise SetupError(f"rtpengine refused a call: {reply.get('error-reason')}")
        return media_of(answer["sdp"]), media_of(offer["sdp"])
