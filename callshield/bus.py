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
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from callshield.errors import BusError
from callshield.local_socket import LocalSocket

M = TypeVar("M")
log = structlog.get_logger()

_LENGTH = struct.Struct(">I")
#: A message longer than this is a fault of ours, not traffic.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
#: After a connection that could not be taken (no descriptor left, say).
_ACCEPT_AGAIN_S = 1.0


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

    async def read(self, reader: asyncio.StreamReader | LocalSocket) -> M:
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

    def __init__(self, connection: LocalSocket, codec: Codec[M]) -> None:
        self._connection = connection
        self._codec = codec
        self.role = ""

    def send(self, message: M) -> None:
        """Queue a message; a peer that does not read is cut off rather than waited for."""
        if self._connection.deaf:
            return
        if self._connection.unsent > MAX_MESSAGE_BYTES:
            log.warning("bus_peer_too_slow", role=self.role)
            self._connection.abort()
            return
        self._connection.write(self._codec.frame(message))

    def close(self) -> None:
        self._connection.close()


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
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.peers: set[Peer[M]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            BusError: the socket cannot be made.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(self._path))
            listener.listen()
        except OSError as error:
            listener.close()
            raise BusError(
                f"the socket {self._path} cannot be opened ({error.strerror or error}): choose a "
                "node.runtime_dir that this user can write to, with a path under 90 characters"
            ) from None
        os.chmod(self._path, 0o600)
        listener.setblocking(False)
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name=f"bus {self._path.name}")

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                log.error("bus_accept_failed", error=str(error))
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            task = asyncio.create_task(self._serve(LocalSocket(accepted)))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: LocalSocket) -> None:
        peer = Peer(connection, self._codec)
        self.peers.add(peer)
        try:
            while True:
                message = await self._codec.read(connection)
                try:
                    await self._on_message(peer, message)
                except Exception:  # one message must not cost the connection
                    log.exception("bus_message_failed", message=type(message).__name__)
        except asyncio.IncompleteReadError:
            pass
        except BusError as error:
            log.error("bus_message_unreadable", role=peer.role, error=str(error))
        finally:
            self.peers.discard(peer)
            if self._on_close is not None:
                self._on_close(peer)
            connection.close()

    async def close(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
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
        self._connection: LocalSocket | None = None
        self._closing = False
        self.connected = asyncio.Event()
        self.dropped = 0

    def start(self) -> None:
        """Begin connecting in the background."""
        self._task = asyncio.create_task(self._run(), name=f"bus {self._path.name}")

    def send(self, message: M) -> None:
        """Hand a message to the kernel, or queue it; never blocks.

        At once where that can be: a process that dies in its next step has said it.
        """
        connection = self._connection
        if not (connection is None or self._queue or connection.unsent or connection.deaf):
            self._say(connection, message)
            if not connection.deaf:
                return
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
                connection = await self._connect()
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 1.0)
                continue
            delay_s = 0.05
            try:
                for message in self._on_connect():
                    self._say(connection, message)
                self._connection = connection
                self.connected.set()
                await self._exchange(connection)
            except asyncio.IncompleteReadError:
                pass
            except BusError as error:
                log.error("bus_message_unreadable", error=str(error))
            except Exception:  # this connection is a process's only way to be heard
                log.exception("bus_client_failed")
            finally:
                self.connected.clear()
                self._connection = None
                connection.close()
                if self._on_disconnect is not None and not self._closing:
                    self._on_disconnect()

    async def _connect(self) -> LocalSocket:
        unconnected = socket.socket(socket.AF_UNIX)
        unconnected.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(unconnected, str(self._path))
        except BaseException:
            unconnected.close()
            raise
        return LocalSocket(unconnected)

    async def _exchange(self, connection: LocalSocket) -> None:
        reading = asyncio.create_task(self._read(connection))
        writing = asyncio.create_task(self._write(connection))
        try:
            done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await reading  # nobody hears us any more; what was said before is still to be read
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, connection: LocalSocket) -> None:
        while True:
            message = await self._codec.read(connection)
            try:
                await self._on_message(message)
            except Exception:  # one message must not cost the connection
                log.exception("bus_message_failed", message=type(message).__name__)

    def _say(self, connection: LocalSocket, message: M) -> None:
        try:
            frame = self._codec.frame(message)
        except (TypeError, ValueError) as error:
            # Text that is no Unicode, say. It can never be sent: losing it beats losing all.
            self.dropped += 1
            log.error(
                "bus_message_unencodable", message=type(message).__name__, error=str(error)[:80]
            )
            return
        connection.write(frame)

    async def _write(self, connection: LocalSocket) -> None:
        while True:
            while self._queue:
                message = self._queue.popleft()
                self._say(connection, message)
                if connection.deaf:  # the next one gets it
                    self._queue.appendleft(message)
                    return
                await connection.drain()
            self._drained.set()
            self._wake.clear()
            await self._wake.wait()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued was handed to the socket; False after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
                if self._connection is not None:
                    await self._connection.drain()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop; ``on_disconnect`` is for losses, not for this."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
