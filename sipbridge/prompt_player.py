"""Prompts: loaded, encoded, handed to the relay, reported.

Every :class:`callshield.messages.PlayPrompts` is answered by exactly one
:class:`callshield.messages.PlayFinished`, whatever becomes of it. The relay sends the packets by
itself; a Python that stands still is not heard as a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import structlog

from callshield.errors import CallshieldError
from callshield.messages import LegName
from callshield.messages_media import MediaMessage, PlayFinished, PlayPrompts
from callshield.tap import TapCodec
from sipbridge.media_session import LEG_NUMBER, LEGS, MediaSession
from sipbridge.prompt_clips import ClipCache
from sipbridge.relay_core import Core

log = structlog.get_logger()

_Key = tuple[str, LegName]

#: How the relay says that a prompt ended (relay.h, ``enum play_end``).
_DONE, _STOPPED, _UNHEARD, _NO_ADDRESS, _WRONG_CODEC = range(5)

#: Codecs that carry more than a telephone's band.
WIDE_BAND = frozenset({TapCodec.G722, TapCodec.OPUS})


def chosen_files(message: PlayPrompts, codec: TapCodec) -> list[tuple[Path, str]]:
    """Of each prompt the file for this codec, and its hash: the 16 kHz one where it serves and
    exists."""
    wide = codec in WIDE_BAND
    narrow_files = zip_longest(message.files, message.sha256, fillvalue="")
    wide_files = zip_longest(message.wide_files, message.wide_sha256, fillvalue="") if wide else ()
    return [
        (Path(wide_file), wide_sha256) if wide_file else (Path(file), sha256)
        for (file, sha256), (wide_file, wide_sha256) in zip_longest(
            narrow_files, wide_files, fillvalue=("", "")
        )
    ]


@dataclass(frozen=True, slots=True)
class _Playing:
    call_id: str
    play_id: int
    wide: bool


class PromptPlayer:
    """The prompts of one media worker.

    Args:
        core: the relay.
        outbox: where reports are left.
        flush: sends what is in the outbox.
    """

    def __init__(self, core: Core, outbox: list[MediaMessage], flush: Callable[[], None]) -> None:
        self._core = core
        self._outbox = outbox
        self._flush = flush
        self._clips = ClipCache()
        self._loading: dict[_Key, PlayPrompts] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # The relay's own numbers, so that a report can't be taken for that of a later request.
        self._next_id = 0
        self._playing: dict[int, _Playing] = {}

    def play(self, session: MediaSession, message: PlayPrompts) -> None:
        """Begin at the next tick, or when the files are loaded; what played there is stopped."""
        self.stop(session, message.leg)
        if not message.files:
            self._refuse(message, "no prompt was named")
            return
        form = self._form(session, message)
        chosen = chosen_files(message, form[0])
        clips = [self._clips.cached(path, *form, sha256) for path, sha256 in chosen]
        if all(clip is not None for clip in clips):
            self._begin(session, message)
            return
        self._loading[message.call_id, message.leg] = message
        task = asyncio.create_task(self._load_and_begin(session, message, chosen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _form(session: MediaSession, message: PlayPrompts) -> tuple[TapCodec, int, float]:
        return (
            TapCodec[session.codecs.get(message.leg, "PCMU")],
            session.ptime_ms.get(message.leg, 20),
            message.gain_db,
        )

    async def _load_and_begin(
        self, session: MediaSession, message: PlayPrompts, chosen: list[tuple[Path, str]]
    ) -> None:
        """A slow disk, or an encoder, makes its own call wait, no other one."""
        key = (message.call_id, message.leg)
        refusal = ""
        try:
            for path, sha256 in chosen:
                form = self._form(session, message)
                await asyncio.to_thread(self._clips.load, path, *form, sha256)
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
        form = self._form(session, message)
        try:
            clips = [
                self._clips.load(path, *form, sha256)
                for path, sha256 in chosen_files(message, form[0])
            ]
            self._next_id += 1
            begun = self._core.play(
                session.handle,
                LEG_NUMBER[message.leg],
                self._next_id,
                clips,
                message.loop,
                message.mix,
            )
        except (CallshieldError, ValueError) as error:
            self._refuse(message, str(error))
            return
        except KeyError:
            begun = False
        if begun:
            self._playing[self._next_id] = _Playing(
                message.call_id, message.play_id, form[0] in WIDE_BAND
            )
        else:
            self._refuse(
                message,
                f"the {message.leg.value}'s media address is not known: nobody would hear the "
                "prompt",
            )

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
        try:
            self._core.stop_play(session.handle, LEG_NUMBER[name])
        except KeyError:
            return

    def on_played(self, event: tuple[Any, ...]) -> None:
        """A prompt ended in the relay."""
        _, _, leg, number, end, frames, failed, spans = event
        playing = self._playing.pop(number, None)
        if playing is None:
            return
        name = LEGS[leg]
        error = {
            _UNHEARD: f"{failed} of {frames} packets of the prompt could not be sent: check the "
            "route to the other side",
            _NO_ADDRESS: "the other side stopped taking media",
            _WRONG_CODEC: "the codec changed while the prompt played",
        }.get(end, "")
        self._outbox.append(
            PlayFinished(
                call_id=playing.call_id,
                play_id=playing.play_id,
                leg=name,
                complete=end == _DONE,
                spans=spans,
                wide=playing.wide,
                error=error,
            )
        )

    def close(self) -> None:
        """Give up loading."""
        for task in self._tasks:
            task.cancel()
