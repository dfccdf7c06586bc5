"""The recorder's second thread: what may wait for the disk for long.

It makes files last (fdatasync) and deletes those that are too old, so that the thread that takes
the frames hardly ever waits.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from callshield.errors import RecordingError
from callshield.settings import RecordingSettings
from sipbridge.recording_store import RecordingStore, StoredRecording
from sipbridge.recording_writer import RecordingWriter

log = structlog.get_logger()

_PURGE_S = 3600.0

#: Called with what went wrong when a finished file is closed.
OnClosed = Callable[[OSError | RecordingError | None], None]


@dataclass(frozen=True, slots=True)
class _Sync:
    descriptor: int
    """Ours: closed afterwards."""
    stored: StoredRecording
    new: bool
    writer: RecordingWriter
    on_closed: OnClosed | None = None


class RecordingDisk:
    """Keeps one folder of recordings.

    Args:
        settings: of ``[recording]``.
        on_fault: called from this thread as ``on_fault(call_id, error)`` when the disk could not
            keep what it took.
    """

    def __init__(
        self,
        settings: RecordingSettings,
        on_fault: Callable[[str, OSError | RecordingError], None],
    ) -> None:
        self._settings = settings
        self._on_fault = on_fault
        self._queue: queue.SimpleQueue[_Sync | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="recorder-disk", daemon=True)
        self.thread.start()

    def sync(self, writer: RecordingWriter, *, new: bool = False) -> None:
        """Make what a running recording has written last; nothing while that is under way.

        Args:
            writer: of the recording.
            new: its name too.
        """
        if writer.sync_pending:
            return
        writer.sync_pending = True
        writer.synced_at = time.monotonic()
        self._queue.put(_Sync(os.dup(writer.descriptor), writer.stored, new, writer))

    def sync_and_close(self, writer: RecordingWriter, on_closed: OnClosed | None = None) -> None:
        """Make a finished recording last, and close its file.

        Args:
            writer: of the recording.
            on_closed: called from the disk's thread, in the place of ``on_fault`` too.
        """
        self._queue.put(_Sync(writer.release(), writer.stored, False, writer, on_closed))

    def end(self) -> None:
        """Stop when all is done; the caller joins :attr:`thread`."""
        self._queue.put(None)

    def _run(self) -> None:
        purge_at = time.monotonic()
        while True:
            try:
                job = self._queue.get(timeout=max(purge_at - time.monotonic(), 0.0))
            except queue.Empty:
                purge_at = time.monotonic() + _PURGE_S
                try:
                    self._purge()
                except (OSError, RecordingError) as error:
                    log.error("recordings_not_purged", error=str(error))
                continue
            if job is None:
                return
            fault: OSError | RecordingError | None = None
            try:
                os.fdatasync(job.descriptor)
                if job.new:
                    self._sync_name(job.stored)
            except (OSError, RecordingError) as error:
                log.error("recording_not_synced", call_id=job.stored.call_id, error=str(error))
                fault = error
            finally:
                os.close(job.descriptor)
                job.writer.sync_pending = False
            if job.on_closed is not None:
                job.on_closed(fault)
            elif fault is not None:
                self._on_fault(job.stored.call_id, fault)

    def _sync_name(self, stored: StoredRecording) -> None:
        store = RecordingStore(self._settings.directory)
        try:
            store.sync_day(stored.day)
        finally:
            store.close()

    def _purge(self) -> None:
        """Delete what is older than we may keep; a look an hour is often enough."""
        if not self._settings.directory.is_dir():
            return
        store = RecordingStore(self._settings.directory)
        try:
            deleted = store.purge(datetime.now(UTC).date(), self._settings.retention_days)
        finally:
            store.close()
        if deleted:
            log.info("recordings_purged", files=deleted)
