"""Prompts that rtpengine plays: begun one after the other, counted by the clock, reported once.

rtpengine says how long a file is when it begins and nothing when it ends. So the end is counted by
the clock, and believed only where everything that could be looked at was right: the length is that
of the file that we read ourselves, the codec did not change, and rtpengine still has the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callshield.errors import CallshieldError
from callshield.messages_media import PlayFinished, PlayPrompts
from callshield.tap import TapCodec
from sipbridge.ng_client import NgClient
from sipbridge.prompt_player import WIDE_BAND, chosen_files
from sipbridge.wav_file import read_wav

#: From the answer to *play media* to the last packet, beyond the file's length: a packet, and
#: rtpengine's own timer.
TAIL_S = 0.06
#: By how much rtpengine's length of a file may differ from ours.
_LENGTH_TOLERANCE_S = 0.1
#: *repeat-times* of what plays until it is stopped.
_FOR_EVER = 1_000_000


class Play:
    """One :class:`PlayPrompts` on its way; made by the call, which asks rtpengine to stop it.

    Args:
        ng: rtpengine.
        message: what is to be played.
        codec: of the leg.
        key: names call and leg to rtpengine (``call-id``, ``from-tag``).
        report: is handed the one :class:`PlayFinished`.
    """

    def __init__(
        self,
        ng: NgClient,
        message: PlayPrompts,
        codec: TapCodec,
        key: dict[str, Any],
        report: Callable[[PlayFinished], None],
    ) -> None:
        self._ng = ng
        self.message = message
        self.codec = codec
        self._key = key
        self._report = report
        self._spans: list[tuple[float, float]] = []
        self._began_ts = 0.0
        self._task: asyncio.Task[None] | None = None
        self._asked: asyncio.Future[dict[str, Any]] | None = None
        self.over = False
        """It was reported."""

    def begin(self) -> None:
        """Play from now on; harmless when it does already."""
        if self._task is None and not self.over:
            self._task = asyncio.create_task(self._run())

    @property
    def begun(self) -> bool:
        """rtpengine was, or is being, asked to play."""
        return self._task is not None

    def stop(self, error: str = "") -> None:
        """Report that it ended early; what rtpengine plays is the call's to stop."""
        if self._task is not None:
            self._task.cancel()
        self._end(error=error)

    async def settled(self) -> None:
        """Wait until rtpengine has answered *play media*: a *stop media* must not overtake it."""
        if self._asked is not None:
            await asyncio.wait({self._asked})
            self._asked.exception()

    def _end(self, *, error: str = "", complete: bool = False) -> None:
        if self.over:
            return
        self.over = True
        if self._began_ts:
            self._spans.append((self._began_ts, time.time()))
        message = self.message
        self._report(
            PlayFinished(
                call_id=message.call_id,
                play_id=message.play_id,
                leg=message.leg,
                complete=complete,
                spans=self._spans,
                wide=self.codec in WIDE_BAND,
                error=error,
            )
        )

    async def _run(self) -> None:
        try:
            for path, sha256 in chosen_files(self.message, self.codec):
                await self._play(path.resolve(), sha256)
            # A call that rtpengine has lost meanwhile heard nothing to its end.
            await self._ng.ask("query", self._key)
        except CallshieldError as error:
            self._end(error=str(error))
        else:
            self._end(complete=True)

    async def _play(self, path: Path, sha256: str) -> None:
        wav = await asyncio.to_thread(read_wav, path)
        if sha256 and wav.sha256 != sha256:
            raise CallshieldError(
                f"the prompt {path} is not the file that it was when the node started (sha256 "
                "differs), and is not played: restart the node"
            )
        length_s = wav.duration_s
        body = {**self._key, "file": str(path)}
        if self.message.loop:
            body["repeat-times"] = _FOR_EVER
        self._asked = asyncio.ensure_future(self._ng.ask("play media", body))
        reply = await asyncio.shield(self._asked)
        self._began_ts = time.time()
        duration = reply.get("duration")
        duration_s = duration / 1000 if isinstance(duration, int) else -1.0
        if not self.message.loop and abs(duration_s - length_s) > _LENGTH_TOLERANCE_S:
            raise CallshieldError(
                f"rtpengine plays {path.name} for {duration_s:.1f} s, not for the {length_s:.1f} s "
                "of the file: it does not read the file that this node reads"
            )
        if self.message.loop:
            await asyncio.get_running_loop().create_future()  # until it is stopped
        await asyncio.sleep(length_s + TAIL_S)
        self._spans.append((self._began_ts, self._began_ts + length_s))
        self._began_ts = 0.0
