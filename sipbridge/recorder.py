"""The recorder: a thread of the media worker that turns the relay's recorder ring into files.

Nothing here can hold up a call: the worker hands over bytes and commands through one queue, which
keeps their order, and goes on. One thread parses, encrypts and writes; a second one makes the disk
keep what was written (fdatasync) and deletes what is too old, so that a slow disk makes the first
one wait as late as possible. A full or broken disk ends recordings, with a sentence, and nothing
else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog

from callshield.errors import RecordingError
from callshield.settings import RecordingSettings
from sipbridge.recording_disk import RecordingDisk
from sipbridge.recording_keys import load_keys
from sipbridge.recording_parse import Parsed, parse
from sipbridge.recording_store import RecordingStore
from sipbridge.recording_writer import CHUNK_S, CallMeta, RecordingWriter

__all__ = ["CallMeta", "Recorder", "RecorderStatistics", "RecordingState"]

RecordingState = Literal["recording", "paused", "stopped", "failed"]
OnChange = Callable[[str, RecordingState, str], None]

log = structlog.get_logger()

_TICK_S = 0.05
_SPACE_CHECK_S = 1.0
#: After a resume, frames that arrived before it are refused for as long as they may be under way.
_GUARD_S = 2.0
#: A disk that hangs must not keep the process from ending.
_CLOSE_S = 10.0


@dataclass(slots=True)
class RecorderStatistics:
    """Counters since the start; read them from any thread."""

    records: int = 0
    """Frames taken into recordings."""
    unclaimed: int = 0
    """Frames of calls that are not recorded, are paused, or were stopped."""
    malformed: int = 0
    """Records with an impossible field, and ends of blobs that are not records."""
    dropped_bytes: int = 0
    """Handed over while the queue was full, and lost."""
    faults: int = 0
    """Exceptions that nobody foresaw."""


@dataclass(frozen=True, slots=True)
class _Start:
    call_id: str
    at_ns: int
    meta: CallMeta


@dataclass(frozen=True, slots=True)
class _Word:
    """A command for a running recording."""

    word: Literal["pause", "resume", "note", "stop", "not_kept"]
    call_id: str
    at_ns: int
    detail: str = ""
    note: bytes = b""


@dataclass(frozen=True, slots=True)
class _Lost:
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """The disk's thread has closed a finished file."""

    call_id: str
    reason: str
    """A sentence when the disk could not keep it."""


@dataclass(frozen=True, slots=True)
class _Close:
    at_ns: int


_Item = bytes | _Start | _Word | _Lost | _Kept | _Close


class Recorder:
    """Records calls of one node.

    Args:
        settings: of ``[recording]``.
        on_change: called as ``on_change(call_id, state, reason)`` from the recorder's thread when a
            recording began, paused, went on, ended or failed; ``reason`` is a sentence or empty.
            ``stopped`` is told when the file is on the disk and closed, not before.
    """

    def __init__(self, settings: RecordingSettings, on_change: OnChange) -> None:
        self.statistics = RecorderStatistics()
        self._settings = settings
        self._on_change = on_change
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._limit = settings.queue_mib << 20
        # Each is written by one thread only, so that neither needs a lock.
        self._fed_bytes = 0
        self._done_bytes = 0
        self._overflowing = False
        self._closed = False
        self._store: RecordingStore | None = None
        self._writers: dict[str, RecordingWriter] = {}
        self._sinks: dict[bytes, Callable[[bytes], None]] = {}
        self._guarded: dict[bytes, tuple[int, float]] = {}
        # By call with a finished file that is not closed yet (None: its end), what comes behind.
        self._untold: dict[str, list[tuple[RecordingState, str] | None]] = {}
        self._space_checked = 0.0
        self._disk = RecordingDisk(settings, self._not_kept)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------- called by the media worker

    def start(self, call_id: str, meta: CallMeta | None = None) -> None:
        """Begin a recording. Say so before the relay's first frame of it is fed.

        A call that is recorded already is left as it is.
        """
        self._queue.put(_Start(call_id, time.time_ns(), meta or CallMeta()))

    def feed(self, records: bytes) -> None:
        """Hand over a read of the recorder ring. Never waits.

        When ``queue_mib`` are waiting already, the blob is lost: counted, logged, and marked in
        every running recording.
        """
        if self._closed:
            return
        if self._fed_bytes - self._done_bytes + len(records) > self._limit:
            self.statistics.dropped_bytes += len(records)
            if not self._overflowing:
                self._overflowing = True
                self._queue.put(_Lost(time.time_ns()))
            return
        self._overflowing = False
        self._fed_bytes += len(records)
        self._queue.put(records)

    def pause(self, call_id: str) -> None:
        """Record nothing from here on; the recording says that it was so."""
        self._queue.put(_Word("pause", call_id, time.time_ns()))

    def resume(self, call_id: str) -> None:
        """Go on after a pause. Frames that arrived before this moment stay out."""
        self._queue.put(_Word("resume", call_id, time.time_ns()))

    def note(self, call_id: str, told: bytes) -> None:
        """Keep with the recording what the caller was told or pressed (JSON), paused or not."""
        self._queue.put(_Word("note", call_id, time.time_ns(), note=told))

    def stop(self, call_id: str) -> None:
        """End a recording; later frames of the call are refused."""
        self._queue.put(_Word("stop", call_id, time.time_ns()))

    def close(self) -> None:
        """End all recordings, write everything, and wait for it (ten seconds at most)."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(_Close(time.time_ns()))
        # It ends after the disk's thread.
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.error("recorder_not_flushed", waiting_bytes=self._fed_bytes - self._done_bytes)

    # ------------------------------------------------------------- the recorder's thread

    def _run(self) -> None:
        next_tick = time.monotonic() + _TICK_S
        running = True
        while running:
            try:
                item: _Item | None = self._queue.get(timeout=max(next_tick - time.monotonic(), 0.0))
            except queue.Empty:
                item = None
            try:
                if item is not None:
                    running = self._take(item)
                if time.monotonic() >= next_tick:
                    self._tick()
                    next_tick = time.monotonic() + _TICK_S
            except Exception:
                # A fault of ours, but not one that may end every recording.
                self.statistics.faults += 1
                log.exception("recorder_fault")
            finally:
                if isinstance(item, bytes):
                    self._done_bytes += len(item)
        self._disk.end()
        self._disk.thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, _Kept):
                    self._kept(item)

    def _take(self, item: _Item) -> bool:
        match item:
            case bytes():
                self._records(item)
            case _Start():
                self._begin(item)
            case _Word():
                self._attempt(item.call_id, partial(self._obey, item))
            case _Lost(at_ns):
                log.error("recorder_overloaded", queue_bytes=self._limit)
                for writer in self._writers.values():
                    if not writer.paused:
                        writer.lost(at_ns)
            case _Kept():
                self._kept(item)
            case _Close(at_ns):
                for call_id in list(self._writers):
                    self._attempt(call_id, partial(self._end, call_id, "shutdown", at_ns))
                return False
        return True

    def _records(self, blob: bytes) -> None:
        parsed: Parsed = parse(blob, self._sinks)
        statistics = self.statistics
        statistics.records += parsed.taken
        statistics.malformed += parsed.malformed
        if parsed.left_over:
            self._left_over(parsed.left_over)

    def _left_over(self, left_over: list[tuple[bytes, int, bytes]]) -> None:
        """Frames without a sink: of calls that just went on after a pause, or of nobody."""
        for key, at_ns, record in left_over:
            guard = self._guarded.get(key)
            if guard is not None and at_ns >= guard[0]:
                self._writers[key.hex()].add(record)
                self.statistics.records += 1
            else:
                self.statistics.unclaimed += 1

    def _begin(self, start: _Start) -> None:
        if start.call_id in self._writers:
            return
        descriptor = -1
        try:
            if not self._settings.enabled:
                raise RecordingError("recording is switched off: recording.enabled is false")
            store = self._usable_store()
            self._require_space(store)
            descriptor, stored = store.create(start.call_id, start.at_ns)
            # Anew for each call, so that a rotated key counts from the next call on; after the
            # file is there, so that a rotation cannot miss a file that has the old key.
            keys = load_keys(self._settings.key_file)
            writer = RecordingWriter(descriptor, stored, keys.current, start.at_ns, start.meta)
        except Exception as error:
            if descriptor >= 0:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    store.remove(stored)
            self._failed(start.call_id, self._sentence(error))
            return
        # Calls that start together must not all write together ever after: a burst of writes keeps
        # the interpreter's lock, and with it the worker's event loop, for milliseconds.
        writer.due = time.monotonic() + CHUNK_S * random.random()
        self._writers[start.call_id] = writer
        # Frames of an earlier recording of this call may still be under way.
        self._guard(bytes.fromhex(start.call_id), start.at_ns)
        self._disk.sync(writer, new=True)
        self._tell(start.call_id, "recording", "")

    def _usable_store(self) -> RecordingStore:
        if self._store is not None and not self._store.is_current():
            self._store.close()
            self._store = None
        if self._store is None:
            self._store = RecordingStore(self._settings.directory, make=True)
        return self._store

    def _guard(self, key: bytes, at_ns: int) -> None:
        """Take the call's frames from ``at_ns`` on; after a while, without looking."""
        self._guarded[key] = (at_ns, time.monotonic() + _GUARD_S)

    def _require_space(self, store: RecordingStore) -> None:
        free = store.free_bytes() >> 20
        if free < self._settings.min_free_mib:
            raise RecordingError(
                f"{free} MiB are free for recordings, recording.min_free_mib asks for "
                f"{self._settings.min_free_mib}: make space on the disk of "
                f"{self._settings.directory}"
            )

    def _attempt(self, call_id: str, action: Callable[[], None]) -> None:
        """Do something to one recording; what goes wrong ends this one and no other."""
        try:
            action()
        except Exception as error:
            self._give_up(call_id, self._sentence(error))

    def _obey(self, word: _Word) -> None:
        writer = self._writers.get(word.call_id)
        if writer is None:
            return
        key = bytes.fromhex(word.call_id)
        if word.word == "pause" and not writer.paused:
            self._sinks.pop(key, None)
            self._guarded.pop(key, None)
            writer.pause(word.at_ns)
            self._tell(word.call_id, "paused", "")
        elif word.word == "resume" and writer.paused:
            writer.resume(word.at_ns)
            self._guard(key, word.at_ns)
            self._tell(word.call_id, "recording", "")
        elif word.word == "note":
            writer.note(word.at_ns, word.note)
        elif word.word == "stop":
            self._end(word.call_id, "stopped", word.at_ns)
        elif word.word == "not_kept":
            self._give_up(word.call_id, word.detail)

    def _end(self, call_id: str, ended: str, at_ns: int, reason: str = "") -> None:
        """Finish a file; with a reason, the recording failed."""
        writer = self._writers[call_id]
        writer.finish(ended, at_ns)
        self._forget(call_id)
        if reason:
            self._disk.sync_and_close(writer)
            self._failed(call_id, reason)
        else:
            # Whoever hears that it stopped may open the file: it is told when that is so.
            self._untold.setdefault(call_id, []).append(None)
            self._disk.sync_and_close(writer, partial(self._closed_by_disk, call_id))

    def _kept(self, kept: _Kept) -> None:
        """A finished file is closed: say so, and what has waited behind it."""
        waiting = self._untold.pop(kept.call_id)
        waiting.remove(None)  # files are closed in the order of their ends: the first one
        if kept.reason:
            self._failed(kept.call_id, kept.reason)
        else:
            self._tell(kept.call_id, "stopped", "")
        while waiting and (change := waiting[0]) is not None:
            del waiting[0]
            self._tell(kept.call_id, *change)
        if waiting:
            self._untold[kept.call_id] = waiting

    def _give_up(self, call_id: str, reason: str) -> None:
        """The disk failed this recording; what is on it stays readable as ended early."""
        writer = self._forget(call_id)
        if writer is None:
            return
        descriptor = writer.release()
        try:
            os.ftruncate(descriptor, writer.written)
            os.close(descriptor)
        except OSError as error:
            log.warning("recording_not_cut_back", call_id=call_id, error=str(error))
        self._failed(call_id, reason)

    def _forget(self, call_id: str) -> RecordingWriter | None:
        key = bytes.fromhex(call_id)
        self._sinks.pop(key, None)
        self._guarded.pop(key, None)
        return self._writers.pop(call_id, None)

    def _failed(self, call_id: str, reason: str) -> None:
        log.error("recording_failed", call_id=call_id, reason=reason)
        self._tell(call_id, "failed", reason)

    def _tell(self, call_id: str, state: RecordingState, reason: str) -> None:
        if call_id in self._untold:
            self._untold[call_id].append((state, reason))
            return
        try:
            self._on_change(call_id, state, reason)
        except Exception:
            self.statistics.faults += 1
            log.exception("recording_change_not_told", call_id=call_id, state=state)

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, RecordingError):
            return str(error)
        if not isinstance(error, OSError):
            self.statistics.faults += 1
            log.error("recorder_fault", exc_info=error)
            return "Callshield's recorder has a fault of its own: see the log"
        directory = self._settings.directory
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of {directory} is full: make space, or record for fewer days"
        if error.errno == errno.EFBIG:
            return f"a recording in {directory} is larger than the system lets files be"
        return f"{directory} cannot be written: {error.strerror}"

    def _tick(self) -> None:
        now = time.monotonic()
        for call_id, writer in list(self._writers.items()):
            self._attempt(call_id, partial(self._tend, writer, now))
        for key, (_, until) in list(self._guarded.items()):
            if now >= until:
                del self._guarded[key]
                self._sinks[key] = self._writers[key.hex()].add
        if self._writers and now >= self._space_checked + _SPACE_CHECK_S:
            self._space_checked = now
            self._check_space()

    def _tend(self, writer: RecordingWriter, now: float) -> None:
        if not writer.waiting:
            pass
        elif not writer.due:
            writer.due = now + CHUNK_S - _TICK_S
        elif now >= writer.due:
            writer.flush()
        if now >= writer.synced_at + self._settings.sync_interval_s:
            self._disk.sync(writer)

    def _check_space(self) -> None:
        try:
            self._require_space(self._usable_store())
        except (RecordingError, OSError) as error:
            reason = self._sentence(error)
            # There is room yet for an orderly end.
            for call_id in list(self._writers):
                self._attempt(call_id, partial(self._end, call_id, "disk", time.time_ns(), reason))

    def _not_kept(self, call_id: str, error: OSError | RecordingError) -> None:
        """Called by the disk's thread."""
        word = _Word("not_kept", call_id, time.time_ns(), self._sentence(error))
        self._queue.put(word)

    def _closed_by_disk(self, call_id: str, error: OSError | RecordingError | None) -> None:
        """Called by the disk's thread."""
        self._queue.put(_Kept(call_id, "" if error is None else self._sentence(error)))
