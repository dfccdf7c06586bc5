"""Local message bus: length-prefixed MessagePack over a Unix stream socket.

Frame: 4-byte big-endian length, then one message of :mod:`callshield.messages`. The server side
accepts any number of peers; the client side keeps trying to connect for as long as it lives, and
queues what it could not send. The queue has a bound and drops its **oldest** message when full
(counted in :attr:`BusClient.dropped`): a late risk level is worth less than the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from callshield.errors import BusError

M = TypeVar("M")
log = structlog.get_logger()

_LENGTH = struct.Struct(">I")
#: A message longer than this is a fault of ours, not traffic.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


class Codec(Generic[M]):
    """Encode and decode one union of messages.

    Args:
        union: the tagged union, e.g. :data:`callshield.messages.NodeMessage`.
    """

    def __init__(self, union: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)

    def frame(self, message: M) -> bytes:
        """One message with its length in front."""
        body = self._encoder.encode(message)
        return _LENGTH.pack(len(body)) + body

    async def read(self, reader: asyncio.StreamReader) -> M:
        """The next message.

        Raises:
            asyncio.IncompleteReadError: the peer closed.
            BusError: the bytes are not a message of this union.
        """
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_MESSAGE_BYTES:
            raise BusError(f"a local message of {length} bytes is too long: restart the node")
        body = await reader.readexactly(length)
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise BusError(f"a local message cannot be read ({error}): restart the node") from None


class Peer(Generic[M]):
    """One connection on the server's side."""

    def __init__(self, writer: asyncio.StreamWriter, codec: Codec[M]) -> None:
        self._writer = writer
        self._codec = codec
        self.role = ""

    def send(self, message: M) -> None:
        """Queue a message; a peer that does not read is cut off rather than waited for."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MAX_MESSAGE_BYTES:
            log.warning("bus_peer_too_slow", role=self.role)
            self._writer.transport.abort()
            return
        self._writer.write(self._codec.frame(message))

    def close(self) -> None:
        self._writer.close()


class BusServer(Generic[M]):
    """Accept peers on a Unix socket and hand their messages to one coroutine.

    Args:
        path: socket file; a stale one is replaced. Its folder must be private to the node.
        union: what may be said.
        on_message: called with the peer and each message, in order for each peer.
        on_close: called when a peer is gone.
    """

    def __init__(
        self,
        path: Path,
        union: Any,
        on_message: Callable[[Peer[M], M], Awaitable[None]],
        on_close: Callable[[Peer[M]], None] | None = None,
    ) -> None:
        self._path = path
        self._codec: Codec[M] = Codec(union)
        self._on_message = on_message
        self._on_close = on_close
        self._server: asyncio.Server | None = None
        self.peers: set[Peer[M]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            BusError: the socket cannot be made.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        try:
            self._server = await asyncio.start_unix_server(self._serve, path=str(self._path))
        except OSError as error:
            raise BusError(
                f"the socket {self._path} cannot be opened ({error.strerror}): choose a "
                "node.runtime_dir that this user can write to, with a path under 90 characters"
            ) from None
        os.chmod(self._path, 0o600)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer, self._codec)
        self.peers.add(peer)
        try:
            while True:
                message = await self._codec.read(reader)
                try:
                    await self._on_message(peer, message)
                except Exception:  # one message must not cost the connection
                    log.exception("bus_message_failed", message=type(message).__name__)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except BusError as error:
            log.error("bus_message_unreadable", role=peer.role, error=str(error))
        finally:
            self.peers.discard(peer)
            if self._on_close is not None:
                self._on_close(peer)
            writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.close()


class BusClient(Generic[M]):
    """A connection that comes back by itself.

    Args:
        path: the server's socket file.
        union: what may be said.
        on_message: called with each message from the server.
        on_connect: messages to say first on every connection (a Hello, a snapshot).
        limit: messages kept while the server is away; beyond it the oldest is dropped.
        on_disconnect: called when an established connection is lost.
    """

    def __init__(
        self,
        path: Path,
        union: Any,
        on_message: Callable[[M], Awaitable[None]],
        on_connect: Callable[[], list[M]],
        limit: int = 10_000,
        on_disconnect: Callable[[], None] | None = None,
    ) -> None:
        self._path = path
        self._codec: Codec[M] = Codec(union)
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._queue: deque[M] = deque()
        self._limit = limit
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.connected = asyncio.Event()
        self.dropped = 0

    def start(self) -> None:
        """Begin connecting in the background."""
        self._task = asyncio.create_task(self._run(), name=f"bus {self._path.name}")

    def send(self, message: M) -> None:
        """Queue a message; never blocks."""
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(message)
        self._drained.clear()
        self._wake.set()

    async def _run(self) -> None:
        delay_s = 0.05
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path))
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)
                continue
            delay_s = 0.05
            try:
                for message in self._on_connect():
                    self._say(writer, message)
                self.connected.set()
                await self._exchange(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            except BusError as error:
                log.error("bus_message_unreadable", error=str(error))
            except Exception:  # this connection is a process's only way to be heard
                log.exception("bus_client_failed")
            finally:
                self.connected.clear()
                writer.close()
                if self._on_disconnect is not None and not self._closing:
                    self._on_disconnect()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = asyncio.create_task(self._read(reader))
        writing = asyncio.create_task(self._write(writer))
        try:
            done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = await self._codec.read(reader)
            try:
                await self._on_message(message)
            except Exception:  # one message must not cost the connection
                log.exception("bus_message_failed", message=type(message).__name__)

    def _say(self, writer: asyncio.StreamWriter, message: M) -> None:
        try:
            frame = self._codec.frame(message)
        except (TypeError, ValueError) as error:
            # Text that is no Unicode, say. It can never be sent: losing it beats losing all.
            self.dropped += 1
            log.error(
                "bus_message_unencodable", message=type(message).__name__, error=str(error)[:80]
            )
            return
        writer.write(frame)

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        while True:
            while self._queue:
                if writer.is_closing():  # said before the message is taken: it goes to the next
                    raise ConnectionResetError("the other end is gone")
                self._say(writer, self._queue.popleft())
                await writer.drain()
            self._drained.set()
            self._wake.clear()
            await self._wake.wait()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued was handed to the socket; False after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop; ``on_disconnect`` is for losses, not for this."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
