"""The bridge's connection to the media worker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

from callshield.bus import BusClient
from callshield.messages_media import (
    FetchKept,
    KeptCall,
    KeptEnd,
    MediaMessage,
    SessionOpened,
)

#: A worker that has not reserved ports after this long is not going to.
OPEN_TIMEOUT_S = 3.0


class MediaLink:
    """Send media control, match the answers to :class:`OpenSession`.

    Args:
        path: the worker's socket.
        on_message: everything else the worker says.
        on_found: a connection was made.
        on_lost: the worker died or closed: the audio of all its calls is gone.
    """

    def __init__(
        self,
        path: Path,
        on_message: Callable[[MediaMessage], Awaitable[None]],
        on_found: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._on_message = on_message
        self._on_found = on_found
        self._on_lost = on_lost
        self._requests = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[SessionOpened]] = {}
        self._kept: list[KeptCall] = []
        self._kept_told: asyncio.Future[None] | None = None
        self._client: BusClient[MediaMessage] = BusClient(
            path, MediaMessage, self._receive, self._found, on_disconnect=self._disconnected
        )

    def start(self) -> None:
        self._client.start()

    @property
    def connected(self) -> asyncio.Event:
        return self._client.connected

    def next_request_id(self) -> int:
        return next(self._requests)

    def send(self, message: MediaMessage) -> None:
        """Queue a message; nothing is kept for a worker that is not there."""
        if self._client.connected.is_set():
            self._client.send(message)

    async def opened(self, request_id: int) -> SessionOpened | None:
        """The answer to an OpenSession; None when the worker does not answer in time."""
        if not self._client.connected.is_set():
            return None
        future: asyncio.Future[SessionOpened] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await future
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            if future.cancelled():
                return None
            raise
        finally:
            self._waiting.pop(request_id, None)

    async def fetch_kept(self) -> list[KeptCall]:
        """The calls of a bridge that died; from now on they are ours. Waits for the worker.

        Raises:
            ConnectionError: the worker is gone again.
        """
        await self._client.connected.wait()
        self._kept.clear()
        self._kept_told = asyncio.get_running_loop().create_future()
        self._client.send(FetchKept())
        await self._kept_told
        return list(self._kept)

    async def _receive(self, message: MediaMessage) -> None:
        if isinstance(message, KeptCall):
            self._kept.append(message)
            return
        if isinstance(message, KeptEnd):
            if self._kept_told is not None and not self._kept_told.done():
                self._kept_told.set_result(None)
            return
        if isinstance(message, SessionOpened):
            if message.request_id == 0:
                # A session that outlived an earlier bridge; its signalling is gone.
                await self._on_message(message)
                return
            future = self._waiting.get(message.request_id)
            if future is not None and not future.done():
                future.set_result(message)
            return
        await self._on_message(message)

    def _found(self) -> list[MediaMessage]:
        self._on_found()
        return []

    def _disconnected(self) -> None:
        for future in self._waiting.values():
            future.cancel()
        if self._kept_told is not None and not self._kept_told.done():
            self._kept_told.set_exception(ConnectionError("the media worker is gone"))
        self._on_lost()

    async def close(self) -> None:
        await self._client.close()
