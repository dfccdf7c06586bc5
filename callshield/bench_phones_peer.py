"""Phones for `callshield bench phones`: they note when the last byte of a document has come.

They judge nothing of it; the simulators of the tests do.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import cast

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d{1,6})")
_CALLS = ("via", "from", "to", "call-id", "cseq")


class Arrivals:
    """Documents as they come."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    def note(self, body: bytes) -> None:
        """A whole document has come now."""
        self._came.put_nowait((time.perf_counter(), body))

    async def next(self, within_s: float) -> tuple[float, bytes]:
        """When the next one came, and what it was.

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(within_s):
            return await self._came.get()


class HttpPhone:
    """Takes what is posted; with ``digest`` it wants to be told who sends.

    Args:
        digest: challenge requests that show no credentials (RFC 7616); none are checked.
    """

    def __init__(self, *, digest: bool) -> None:
        self._digest = digest
        self.arrivals = Arrivals()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> None:
        """Listen at a free port."""
        self._server = await asyncio.start_server(self._serve, address, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if self._digest and b"\r\nauthorization: digest" not in head.lower():
                nonce = secrets.token_hex(16)
                writer.write(
                    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest "
                    b'realm="bench", qop="auth", nonce="' + nonce.encode() + b'"\r\n'
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
            else:
                self.arrivals.note(body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class SipPhone(asyncio.DatagramProtocol):
    """Takes NOTIFYs over UDP and answers 200 (RFC 3261 section 8.2.6)."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, address: str, port: int) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))

    def close(self) -> None:
        """Stop listening."""
        assert self._transport is not None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector's own class is none by inheritance.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"NOTIFY "):
            return
        self.arrivals.note(body)
        lines = head.decode("utf-8", "replace").split("\r\n")[1:]
        kept = [line for line in lines if line.partition(":")[0].strip().lower() in _CALLS]
        told = [
            f"{line};tag={secrets.token_hex(4)}" if line.lower().startswith("to:") else line
            for line in kept
        ]
        answer = "\r\n".join(["SIP/2.0 200 OK", *told, "Content-Length: 0", "", ""])
        assert self._transport is not None
        self._transport.sendto(answer.encode(), addr)
