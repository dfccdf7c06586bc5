"""The console's end of a WebSocket: written to directly, and closed also if nobody reads there.

An ASGI ``websocket.send`` costs a task switch and a frame for every console, and an ASGI
``websocket.close`` waits behind everything that the peer has not read, perhaps for ever. This small
addition to uvicorn's sans-I/O protocol gives the application the protocol itself
(:data:`LINE` in ``scope["extensions"]``): frames that were made once for all consoles go straight
to the transport while it takes them, and :meth:`ConsoleProtocol.cut` queues the close frame at once
and aborts the connection shortly after. The kernel's send buffer is kept small, so that a stalled
console costs little memory and is noticed early, and a peer that does not read gets no answers
(pongs) piled up either.
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport
from collections.abc import Callable

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: Key in ``scope["extensions"]``; its value is ``{"line": ConsoleProtocol}``.
LINE = "callshield.line"
#: Time in which a peer that wakes up may still read the close code.
LAST_CHANCE_S = 2.0
SEND_BUFFER_BYTES = 64 * 1024


def text_frame(message: bytes) -> bytes:
    """A whole text message as the server sends it: one frame, not masked (RFC 6455 section 5.2)."""
    size = len(message)
    if size < 126:
        return bytes((0x81, size)) + message
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + message
    return b"\x81\x7f" + size.to_bytes(8, "big") + message


class ConsoleProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with a way in and a way out."""

    on_room: Callable[[], None] | None = None
    """Called when the transport takes more after it had been full."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    async def run_asgi(self) -> None:
        extensions = self.scope.setdefault("extensions", {})
        assert extensions is not None
        extensions[LINE] = {"line": self}
        await super().run_asgi()

    @property
    def has_room(self) -> bool:
        """Whether :meth:`write` may be called now."""
        return (
            self.writable.is_set()
            and not self.disconnected
            and not self.close_sent
            and not self.transport.is_closing()
        )

    def write(self, frames: bytes) -> None:
        """Send whole frames (:func:`text_frame`); ask :attr:`has_room` before."""
        self.transport.write(frames)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_room is not None:
            self.on_room()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Its pong is owed to somebody who reads (RFC 6455 section 5.5.3 lets us leave it out).
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        # close() would wait until the peer has read everything.
        self.loop.call_later(LAST_CHANCE_S, self.transport.abort)

    def cut(self, code: int, reason: str) -> None:
        """Close with ``code``; abort when the peer has not taken it in :data:`LAST_CHANCE_S`."""
        if self.disconnected or self.close_sent:
            return
        self.stop_keepalive()
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(LAST_CHANCE_S, self.transport.abort)
