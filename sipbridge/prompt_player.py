"""All prompts that play now, in all calls: loaded, sent frame by frame, reported.

Every :class:`callshield.messages.PlayPrompts` is answered by exactly one
:class:`callshield.messages.PlayFinished`, whatever becomes of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from callshield.errors import CallshieldError
from callshield.messages import LegName, MediaMessage, PlayFinished, PlayPrompts
from sipbridge.media_session import MediaSession
from sipbridge.playout import Playout
from sipbridge.prompt_file import PromptCache

log = structlog.get_logger()

_Key = tuple[str, LegName]


class PromptPlayer:
    """The prompts of one media worker.

    Args:
        outbox: where reports are left.
        flush: sends what is in the outbox; called after something that no tick follows at once.
    """

    def __init__(self, outbox: list[MediaMessage], flush: Callable[[], None]) -> None:
        self._outbox = outbox
        self._flush = flush
        self._cache = PromptCache()
        self._playing: dict[_Key, MediaSession] = {}
        self._loading: dict[_Key, PlayPrompts] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def play(self, session: MediaSession, message: PlayPrompts) -> None:
        """Begin at the next tick, or when the files are loaded; what played there is stopped."""
        self.stop(session, message.leg)
        if not message.files:
            self._refuse(message, "no prompt was named")
            return
        paths = [Path(file) for file in message.files]
        if all(self._cache.cached(path) is not None for path in paths):
            self._begin(session, message)
            return
        self._loading[message.call_id, message.leg] = message
        task = asyncio.create_task(self._load_and_begin(session, message, paths))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load_and_begin(
        self, session: MediaSession, message: PlayPrompts, paths: list[Path]
    ) -> None:
        """A slow disk makes its own call wait, no other one."""
        key = (message.call_id, message.leg)
        refusal = ""
        try:
            for path in paths:
                await asyncio.to_thread(self._cache.load, path)
        except CallshieldError as error:
            refusal = str(error)
        if self._loading.get(key) is not message:
            # Stopped or replaced meanwhile, and reported then.
            return
        del self._loading[key]
        if refusal:
            self._refuse(message, refusal)
        else:
            self._begin(session, message)
        self._flush()

    def _begin(self, session: MediaSession, message: PlayPrompts) -> None:
        try:
            prompts = [self._cache.load(Path(file)) for file in message.files]
        except CallshieldError as error:
            self._refuse(message, str(error))
            return
        playout = Playout(message.play_id, prompts, loop=message.loop, mix=message.mix)
        refusal = session.begin_play(message.leg, playout)
        if refusal:
            self._refuse(message, refusal)
        else:
            self._playing[message.call_id, message.leg] = session

    def _refuse(self, message: PlayPrompts, error: str) -> None:
        if error:
            log.error("prompt_not_played", call_id=message.call_id, error=error)
        self._outbox.append(
            PlayFinished(
                call_id=message.call_id,
                play_id=message.play_id,
                leg=message.leg,
                complete=False,
                spans=[],
                error=error,
            )
        )

    def stop(self, session: MediaSession, name: LegName) -> None:
        """Stop what plays or is being loaded on a leg, if anything is."""
        waiting = self._loading.pop((session.call_id, name), None)
        if waiting is not None:
            self._refuse(waiting, "")
        self._end(session, name)

    def _end(
        self, session: MediaSession, name: LegName, *, complete: bool = False, error: str = ""
    ) -> None:
        self._playing.pop((session.call_id, name), None)
        session.finish_play(
            name, complete=complete, now=time.monotonic(), wall_now=time.time(), error=error
        )

    def tick(self, ticks: int, now: float) -> None:
        """Send what is due on every leg.

        Args:
            ticks: frames for each; more than one when the machine was late.
            now: monotonic seconds.
        """
        for (_, name), session in list(self._playing.items()):
            self._send_frames(session, name, ticks, now)

    def _send_frames(self, session: MediaSession, name: LegName, ticks: int, now: float) -> None:
        outlet = session.leg(name).outlet
        playout = outlet.playout
        assert playout is not None
        send = session.ports(name).rtp.sendto
        destination = outlet.latch.destination
        if destination is None:
            self._end(session, name, error="the other side stopped taking media")
            return
        for _ in range(ticks):
            packet = outlet.tick(now)
            if not packet:
                break
            try:
                send(packet, destination)
            except OSError:
                outlet.unsent += 1
                playout.failed += 1
        if playout.finished(now):
            self._end(session, name, complete=True)

    def close(self) -> None:
        """Give up loading."""
        for task in self._tasks:
            task.cancel()
