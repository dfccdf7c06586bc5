"""One connection of the local bus, whose two directions end apart.

asyncio's own transports end both directions together: when a write finds the other process dead,
they close at once, and what that process had said and nobody had read is thrown away. On this bus
the last words count: the state of a call that a bridge told in the moment it was killed is what the
next one ends that call with. So here a failed write ends writing only, and reading goes on to the
end that the kernel tells.
"""

from __future__ import annotations

import asyncio
import socket

_CHUNK_BYTES = 64 * 1024
#: Nothing more is taken from the kernel while so much waits to be read: the other side waits.
_READ_AHEAD_BYTES = 256 * 1024


class LocalSocket:
    """A connected stream socket in the running event loop.

    Args:
        connected: becomes ours, and is closed with this.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._unsent = bytearray()
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()
        self._reading = False
        self._read_to_end = False
        self._writing = False
        self._closing = False
        self.deaf = False
        """A write failed, or this is closed: what is written from now on is lost."""
        self._read_on()

    # ---------------------------------------------------------------------------- reading

    async def readexactly(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            asyncio.IncompleteReadError: the other side ended, or this was closed, before.
        """
        while len(self._received) < count:
            if self._read_to_end:
                raise asyncio.IncompleteReadError(bytes(self._received), count)
            self._read_on()
            self._news.clear()
            await self._news.wait()
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    @property
    def waiting(self) -> int:
        """Bytes that came and were not read."""
        return len(self._received)

    def _read_on(self) -> None:
        if not self._reading and not self._read_to_end:
            self._loop.add_reader(self._socket, self._on_readable)
            self._reading = True

    def _stop_reading(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def _on_readable(self) -> None:
        try:
            more = self._socket.recv(_CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it died with words of ours unread; the kernel tells that last
            more = b""
        self._received += more
        if not more:
            self._end_reading()
        elif len(self._received) >= _READ_AHEAD_BYTES:
            self._stop_reading()
        self._news.set()

    def _end_reading(self) -> None:
        self._stop_reading()
        self._read_to_end = True
        self._news.set()

    # ---------------------------------------------------------------------------- writing

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Send, or keep until the kernel takes it; never blocks."""
        if self.deaf or self._closing:
            return
        if not self._unsent:
            taken = self._send(data)
            if taken == len(data):
                return
            data = data[taken:]
        if not self.deaf:
            self._unsent += data
            self._sent.clear()
            if not self._writing:
                self._loop.add_writer(self._socket, self._on_writable)
                self._writing = True

    async def drain(self) -> None:
        """Wait until everything written was taken, or never will be."""
        await self._sent.wait()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._stop_writing()
            return 0

    def _on_writable(self) -> None:
        del self._unsent[: self._send(self._unsent)]
        if not self._unsent:
            if self._writing:
                self._loop.remove_writer(self._socket)
                self._writing = False
            self._sent.set()
            if self._closing:
                self.abort()

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False
        self.deaf = True
        self._unsent.clear()
        self._sent.set()

    # ---------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Read nothing more, and end when what was written is sent."""
        self._end_reading()
        if self._unsent:
            self._closing = True
        else:
            self.abort()

    def abort(self) -> None:
        """End now; harmless when it has ended."""
        self._end_reading()
        self._stop_writing()
        self._socket.close()
