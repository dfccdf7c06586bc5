"""Recordings that stay although their time is over: somebody asked for the evidence.

The notifier says which calls those are, all of them each time; the bridge writes it down beside the
recordings, in ``directory/held`` (a call id a line), so that whoever deletes old recordings reads
it also while neither of them runs. A file that is damaged keeps everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import structlog

from callshield.errors import RecordingError

log = structlog.get_logger()

_NAME = "held"
_CALL_ID = re.compile(r"[0-9a-f]{32}")
#: More than 200,000 calls: no file of ours.
_MAX_BYTES = 8 * 1024 * 1024


def held_calls(folder: int) -> frozenset[str]:
    """Calls whose recordings must stay; empty when nobody ever asked.

    Args:
        folder: descriptor of the folder of all recordings.

    Raises:
        RecordingError: the file is there and cannot be read.
    """
    try:
        descriptor = os.open(_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise _unreadable(error.strerror or "unknown error") from None
    lines = data.decode("ascii", "replace").splitlines()
    if len(data) > _MAX_BYTES or not all(_CALL_ID.fullmatch(line) for line in lines):
        raise _unreadable("it holds something else than call ids")
    return frozenset(lines)


def hold_recordings(directory: Path, call_ids: Iterable[str]) -> None:
    """Write down which recordings stay; those that are not named are held no longer.

    A fault is logged: the bridge goes on, and the former file with it. Where nothing was ever
    recorded there is nothing to hold.
    """
    if not directory.is_dir():
        return
    wanted = sorted({one for one in call_ids if _CALL_ID.fullmatch(one)})
    try:
        _write(directory, "".join(f"{one}\n" for one in wanted).encode("ascii"))
    except OSError as error:
        log.error("recordings_not_held", calls=len(wanted), error=error.strerror)


def _write(directory: Path, data: bytes) -> None:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fresh = f"{_NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(fresh, flags, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, _NAME, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)


def _unreadable(why: str) -> RecordingError:
    return RecordingError(
        f"the file 'held' beside the recordings cannot be used ({why}), so none is deleted: "
        "restart the notifier, which has it written anew"
    )
