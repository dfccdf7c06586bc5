"""Closing a WebSocket whose other end does not read.

An ASGI ``websocket.close`` waits behind everything that the peer has not read, perhaps for ever.
This small addition to uvicorn's sans-I/O protocol gives the application :data:`CUT`: the close
frame is queued at once, and the connection is aborted shortly after. It also keeps the kernel's
send buffer small, so that a stalled console costs little memory and is noticed early.
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

#: Key in ``scope["extensions"]``; its value is ``{"cut": callable(code, reason)}``.
CUT = "callshield.cut"
#: Time in which a peer that wakes up may still read the close code.
LAST_CHANCE_S = 2.0
SEND_BUFFER_BYTES = 64 * 1024


class ConsoleProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with a way out."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    async def run_asgi(self) -> None:
        extensions = self.scope.setdefault("extensions", {})
        assert extensions is not None
        extensions[CUT] = {"cut": self.cut}
        await super().run_asgi()

    def cut(self, code: int, reason: str) -> None:
        """Close with ``code``; abort when the peer has not taken it in :data:`LAST_CHANCE_S`."""
        if self.disconnected or self.close_sent:
            return
        self.stop_keepalive()
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(LAST_CHANCE_S, self.transport.abort)
