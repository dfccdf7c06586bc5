"""What the notifier says of recordings: which stay although their time is over, and which go now.

Carried out in order, off the event loop: a disk that is slow now keeps no call waiting.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import structlog

from callshield.errors import RecordingError
from callshield.messages_care import RecordingsHeld
from callshield.messages_privacy import EraseRecordings, RecordingsErased
from sipbridge.held import hold_recordings
from sipbridge.recording_format import SLOT_BYTES, SLOT_OFFSETS
from sipbridge.recording_store import RecordingStore, is_being_written

log = structlog.get_logger()


class RecordingsDesk:
    """Takes both kinds of word.

    Args:
        directory: of all recordings.
        tell: told, on the event loop, what came of an erasure.
    """

    def __init__(self, directory: Path, tell: Callable[[RecordingsErased], None]) -> None:
        self._directory = directory
        self._tell = tell
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recordings")

    def hold(self, message: RecordingsHeld) -> None:
        """All calls whose recordings stay from now on."""
        self._worker.submit(hold_recordings, self._directory, message.call_ids)

    def erase(self, message: EraseRecordings) -> None:
        """Delete every recording of a call."""
        loop = asyncio.get_running_loop()

        def answer(done: Future[RecordingsErased]) -> None:
            loop.call_soon_threadsafe(self._tell, done.result())

        work = self._worker.submit(erase_recordings, self._directory, message.call_id)
        work.add_done_callback(answer)

    def close(self) -> None:
        """Wait until the last is done."""
        self._worker.shutdown()


def erase_recordings(directory: Path, call_id: str) -> RecordingsErased:
    """Delete every recording of a call; those that somebody asked for as evidence stay.

    The key of each file, which no other file has, is overwritten before its name is taken away:
    where the file system keeps old blocks, what is in them stays encrypted for good. (Not where it
    never overwrites in place, nor in a copy that somebody made: docs/privacy.md.)

    Returns:
        How many files went, and why any is still there. Never raises.
    """
    count = 0
    if not directory.is_dir():
        return RecordingsErased(call_id=call_id, files=0)
    try:
        store = RecordingStore(directory)
        try:
            if call_id in store.held():
                return RecordingsErased(
                    call_id=call_id, files=0, problem="somebody asked for the evidence"
                )
            for stored in list(store.stored(call_id)):
                with store.open(stored, write=True) as file:
                    if is_being_written(file):
                        return RecordingsErased(
                            call_id=call_id, files=count, problem="the call is being recorded"
                        )
                    _wipe_key(file)
                store.remove(stored)
                store.sync_day(stored.day)
                count += 1
        finally:
            store.close()
    except (OSError, RecordingError) as error:
        log.error("recordings_not_erased", call_id=call_id, error=str(error))
        return RecordingsErased(call_id=call_id, files=count, problem=str(error))
    if count:
        log.info("recordings_erased", call_id=call_id, files=count)
    return RecordingsErased(call_id=call_id, files=count)


def _wipe_key(file: BinaryIO) -> None:
    """Overwrite both slots of the wrapped key, and wait for the disk."""
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    for offset in SLOT_OFFSETS:
        if offset + SLOT_BYTES <= size:
            os.pwrite(descriptor, bytes(SLOT_BYTES), offset)
    os.fdatasync(descriptor)
