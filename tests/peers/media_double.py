"""A media worker without media: it speaks the control protocol and notes what it was told.

For tests of signalling between real telephones. Ports are real numbers that nobody listens on;
a play is over at once, unless its file is held back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from callshield.bus import BusServer, Peer
from callshield.messages_media import (
    CloseSession,
    FetchKept,
    FlowUpdate,
    KeptEnd,
    LegOpened,
    LegStats,
    MediaMessage,
    OpenLeg,
    OpenSession,
    PlayFinished,
    PlayPrompts,
    SessionClosed,
    SessionOpened,
    StopPlay,
)
from callshield.settings import Settings

_NOTHING = LegStats(received=0, sent=0, malformed=0, wrong_source=0, wrong_payload_type=0)


class MediaDouble:
    """The control protocol's far end.

    Args:
        settings: names the socket and the port ranges.
    """

    def __init__(self, settings: Settings) -> None:
        self._ports = (settings.sip.pbx.rtp_ports[0], settings.sip.phone.rtp_ports[0])
        self._server: BusServer[MediaMessage] = BusServer(
            settings.media_path, MediaMessage, self._on_message, lambda peer: None
        )
        self.told: list[MediaMessage] = []
        self.held_back: set[str] = set()
        """Names of prompts (without ``.wav``) that are not over before :meth:`finish`."""
        self._waiting: list[tuple[Peer[MediaMessage], PlayPrompts]] = []
        self._news = asyncio.Condition()
        self._sessions = 0

    async def start(self) -> None:
        await self._server.start()

    async def close(self) -> None:
        await self._server.close()

    def flow(self) -> FlowUpdate:
        """What may pass now."""
        return [m for m in self.told if isinstance(m, FlowUpdate)][-1]

    async def until_flow(self, fits: Callable[[FlowUpdate], bool]) -> FlowUpdate:
        """What may pass, once it fits: it comes by another socket than what consoles are told."""

        def latest() -> FlowUpdate | None:
            told = [m for m in self.told if isinstance(m, FlowUpdate)]
            return told[-1] if told and fits(told[-1]) else None

        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: latest() is not None)
        flow = latest()
        assert flow is not None
        return flow

    async def wait(self, fits: Callable[[MediaMessage], bool]) -> MediaMessage:
        """The first message told so far, or to come, that fits."""

        def found() -> MediaMessage | None:
            return next((message for message in self.told if fits(message)), None)

        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: found() is not None)
        message = found()
        assert message is not None
        return message

    async def wait_plays(self, name: str, count: int = 1) -> list[PlayPrompts]:
        """The plays of one prompt, once there are ``count`` of them."""

        def found() -> list[PlayPrompts]:
            return [
                message
                for message in self.told
                if isinstance(message, PlayPrompts) and Path(message.files[0]).stem == name
            ]

        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()

    def finish(self, name: str, *, complete: bool = True, error: str = "") -> None:
        """Let the plays of a prompt that was held back be over."""
        for item in list(self._waiting):
            peer, play = item
            if Path(play.files[0]).stem == name:
                self._waiting.remove(item)
                self._over(peer, play, complete=complete, error=error)

    def _over(
        self, peer: Peer[MediaMessage], play: PlayPrompts, *, complete: bool, error: str = ""
    ) -> None:
        now = time.time()
        peer.send(
            PlayFinished(
                call_id=play.call_id,
                play_id=play.play_id,
                leg=play.leg,
                complete=complete,
                spans=[(now, now)] * len(play.files),
                error=error,
            )
        )

    async def _on_message(self, peer: Peer[MediaMessage], message: MediaMessage) -> None:
        async with self._news:
            self.told.append(message)
            self._news.notify_all()
        match message:
            case FetchKept():
                peer.send(KeptEnd())  # no call outlives a bridge here
            case OpenSession():
                offset = 8 * self._sessions
                self._sessions += 1
                pbx, phone = (port + port % 2 + offset for port in self._ports)
                peer.send(
                    SessionOpened(
                        request_id=message.request_id,
                        call_id=message.call_id,
                        caller_port=pbx,
                        agent_port=phone,
                    )
                )
            case OpenLeg():
                port = self._ports[1] + self._ports[1] % 2 + 8 * self._sessions - 4
                peer.send(
                    LegOpened(
                        request_id=message.request_id,
                        call_id=message.call_id,
                        leg=message.leg,
                        port=port,
                    )
                )
            case PlayPrompts(loop=True):
                self._waiting.append((peer, message))
            case PlayPrompts():
                if Path(message.files[0]).stem in self.held_back:
                    self._waiting.append((peer, message))
                else:
                    self._over(peer, message, complete=True)
            case StopPlay():
                for item in list(self._waiting):
                    if item[1].leg is message.leg and item[1].call_id == message.call_id:
                        self._waiting.remove(item)
                        self._over(*item, complete=False)
            case CloseSession():
                peer.send(
                    SessionClosed(
                        call_id=message.call_id,
                        caller=_NOTHING,
                        agent=_NOTHING,
                        tapped=0,
                        tap_dropped=0,
                    )
                )
            case _:
                pass


@asynccontextmanager
async def running_double(settings: Settings) -> AsyncIterator[MediaDouble]:
    """A double for as long as the block lasts."""
    settings.node.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    double = MediaDouble(settings)
    await double.start()
    try:
        yield double
    finally:
        await double.close()
