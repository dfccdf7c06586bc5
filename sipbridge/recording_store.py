"""Where recordings lie: ``directory/2026-11-22/<call id>-<part>.csrec``, a folder a day (UTC).

Names are made of validated call ids only, and everything is opened relative to a descriptor of its
folder, never following a symbolic link: nobody who can write elsewhere can redirect a recording.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from callshield.errors import RecordingDamaged, RecordingError
from sipbridge.held import held_calls
from sipbridge.recording_format import (
    HEADER_BYTES,
    SLOT_BYTES,
    SLOT_OFFSETS,
    parse_header,
    unwrap_key,
    wrap_key,
)
from sipbridge.recording_keys import KeyRing

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAME = re.compile(r"([0-9a-f]{32})-([1-9]\d{0,2})\.csrec")
_CALL_ID = re.compile(r"[0-9a-f]{32}")
#: Recordings of one call: a worker that starts anew begins another one.
_MAX_PARTS = 999
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, order=True)
class StoredRecording:
    """One file, found by its name."""

    day: str
    call_id: str
    part: int

    @property
    def name(self) -> str:
        """Of the file, within its day's folder."""
        return f"{self.call_id}-{self.part}.csrec"


def check_call_id(call_id: str) -> str:
    """``call_id`` if it is one.

    Raises:
        RecordingError: it is not; no path is ever made of it.
    """
    if not _CALL_ID.fullmatch(call_id):
        raise RecordingError(
            "a call id has 32 small hexadecimal digits: see `callshield recordings list`"
        )
    return call_id


class RecordingStore:
    """The folder of all recordings.

    Args:
        directory: made with mode 0700, parents too, when it is missing and ``make`` is true.
        make: False to only read.

    Raises:
        RecordingError: it cannot be made or used.
    """

    def __init__(self, directory: Path, *, make: bool = False) -> None:
        self.directory = directory
        try:
            if make:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(directory, _FOLDER_FLAGS)
        except OSError as error:
            if not make and isinstance(error, FileNotFoundError):
                raise RecordingError(
                    f"there is no folder {directory}: nothing was recorded yet, or "
                    "recording.directory names another one"
                ) from None
            raise RecordingError(
                f"the folder of recordings {directory} cannot be used: {error.strerror}"
            ) from None
        status = os.fstat(self._folder)
        if make and status.st_mode & 0o077:
            try:
                os.fchmod(self._folder, 0o700)
            except OSError:
                os.close(self._folder)
                raise RecordingError(
                    f"the folder of recordings {directory} is open to others and belongs to user "
                    f"{status.st_uid}: chown it to the user that runs Callshield, and chmod 700"
                ) from None

    def close(self) -> None:
        """Give the folder's descriptor back."""
        os.close(self._folder)

    def is_current(self) -> bool:
        """False when the path names another folder by now: a disk was mounted or replaced."""
        try:
            there = os.stat(self.directory)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._folder))

    def free_bytes(self) -> int:
        """Space that an ordinary user may still fill."""
        status = os.fstatvfs(self._folder)
        return status.f_bavail * status.f_frsize

    def create(self, call_id: str, at_ns: int) -> tuple[int, StoredRecording]:
        """A new file, locked as being written for as long as its descriptor is open.

        Raises:
            RecordingError: not a call id, or too many recordings of this call.
            OSError: the disk does not want to.
        """
        check_call_id(call_id)
        day = datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d")
        try:
            os.mkdir(day, 0o700, dir_fd=self._folder)
            os.fsync(self._folder)
        except FileExistsError:
            pass
        folder = self._open_day(day)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            for part in range(1, _MAX_PARTS + 1):
                stored = StoredRecording(day, call_id, part)
                try:
                    descriptor = os.open(stored.name, flags, 0o600, dir_fd=folder)
                except FileExistsError:
                    continue
                with contextlib.suppress(OSError):
                    # Without it (`list` looks in this very moment, or a file system has no
                    # locks) it is shown as ended early while it runs, no more.
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return descriptor, stored
        finally:
            os.close(folder)
        raise RecordingError(f"the call has {_MAX_PARTS} recordings already")

    def sync_day(self, day: str) -> None:
        """Make the names of a day's files last (fsync of the folder)."""
        folder = self._open_day(day)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, stored: StoredRecording) -> None:
        """Delete one file; no error when it is gone."""
        try:
            folder = self._open_day(stored.day)
        except FileNotFoundError:
            return
        try:
            os.unlink(stored.name, dir_fd=folder)
        except FileNotFoundError:
            pass
        finally:
            os.close(folder)

    def days(self) -> list[str]:
        """All days' folders, oldest first."""
        with os.scandir(self._folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if _DAY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )

    def stored(self, call_id: str | None = None) -> Iterator[StoredRecording]:
        """All recordings, or one call's, oldest first."""
        for day in self.days():
            try:
                folder = self._open_day(day)
            except FileNotFoundError:
                continue
            try:
                with os.scandir(folder) as entries:
                    matches = [_NAME.fullmatch(entry.name) for entry in entries]
            finally:
                os.close(folder)
            yield from sorted(
                StoredRecording(day, match[1], int(match[2]))
                for match in matches
                if match and call_id in (None, match[1])
            )

    @contextmanager
    def open(self, stored: StoredRecording, *, write: bool = False) -> Iterator[BinaryIO]:
        """A file to read, or with ``write`` to change its header.

        Raises:
            RecordingError: it cannot be opened, or is not a plain file.
        """
        mode = os.O_RDWR if write else os.O_RDONLY
        flags = mode | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            folder = self._open_day(stored.day)
            try:
                descriptor = os.open(stored.name, flags, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise RecordingError(
                f"{stored.day}/{stored.name} cannot be opened: {error.strerror}"
            ) from None
        with os.fdopen(descriptor, "r+b" if write else "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RecordingError(f"{stored.day}/{stored.name} is not a plain file")
            yield file

    def held(self) -> frozenset[str]:
        """Calls whose recordings stay although their time is over: :mod:`sipbridge.held`.

        Raises:
            RecordingError: who wrote that cannot be understood; nothing may be deleted then.
        """
        return held_calls(self._folder)

    def purge(
        self,
        today: date,
        retention_days: int,
        *,
        dry_run: bool = False,
        also_held: frozenset[str] = frozenset(),
    ) -> int:
        """Delete all days that are more than ``retention_days`` before ``today``.

        Args:
            today: by UTC.
            retention_days: full days to keep.
            dry_run: only count.
            also_held: calls that stay besides those of :meth:`held`.

        Returns:
            Files deleted.

        Raises:
            RecordingError: it cannot be read which recordings must stay; nothing is deleted.
        """
        held = self.held() | also_held
        limit = (today - timedelta(days=retention_days)).isoformat()
        deleted = 0
        for day in self.days():
            if day >= limit:
                break
            folder = self._open_day(day)
            try:
                with os.scandir(folder) as entries:
                    found = [_NAME.fullmatch(entry.name) for entry in entries]
                names = [match[0] for match in found if match and match[1] not in held]
                deleted += len(names)
                if dry_run:
                    continue
                for name in names:
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)
            try:
                os.rmdir(day, dir_fd=self._folder)
            except OSError:
                # A held recording, or something of somebody else's: not ours to delete.
                continue
        return deleted

    def _open_day(self, day: str) -> int:
        return os.open(day, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=self._folder)


def is_being_written(file: BinaryIO) -> bool:
    """True while a recorder has the file open: its lock ends with its process."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file.fileno(), fcntl.LOCK_UN)
    return False


def rewrap(file: BinaryIO, keys: KeyRing) -> bool:
    """Wrap a recording's key by the current node key instead of an older one, in place.

    The new slot is on the disk before the old one is wiped: wherever a crash or a power cut comes
    between, one of them opens the file. The audio is not touched.

    Returns:
        False when the file was as it should be already.

    Raises:
        RecordingKeyError: no key of ``keys`` opens it.
        RecordingDamaged: the header was changed.
    """
    descriptor = file.fileno()
    data = os.pread(descriptor, HEADER_BYTES, 0)
    if not data and not is_being_written(file):
        # Killed in the moment between its name and its header: there is nothing in it.
        return False
    header = parse_header(data)
    opened = unwrap_key(header, keys.find)
    current = header.slots[opened.slot]
    fresh = wrap_key(header.identity, keys.current, opened.key)
    other = 1 - opened.slot
    if current[:8] == fresh[:8]:
        if not any(header.slots[other]):
            return False
        # Of a rotation that was cut short: the current key's slot is there, the old one too.
        _write_slot(descriptor, other, bytes(SLOT_BYTES))
        return True
    _write_slot(descriptor, other, fresh)
    check = parse_header(os.pread(descriptor, HEADER_BYTES, 0))
    if check.slots[other] != fresh:
        raise RecordingDamaged("the new key slot was not kept: is the disk well?")
    _write_slot(descriptor, opened.slot, bytes(SLOT_BYTES))
    return True


def _write_slot(descriptor: int, number: int, slot: bytes) -> None:
    os.pwrite(descriptor, slot, SLOT_OFFSETS[number])
    os.fdatasync(descriptor)
