"""Secrets in files: read only where nobody else can, or said why not.

One rule for every secret of the node (recording keys, passwords of lines and phones, the manager
interface's): a plain file, no link, of this user or of root, that nobody else may read or write.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from callshield.errors import CallshieldError


def read_private(
    path: Path,
    what: str,
    error: type[CallshieldError],
    *,
    missing: str = "",
    max_bytes: int = 4096,
) -> str:
    """The text of a file that holds a secret.

    Args:
        path: the file.
        what: names it at the start of every message, such as its key in the configuration.
        error: raised when it cannot be used; no message quotes the file.
        missing: the whole message where there is no such file; a general one when empty.
        max_bytes: no more than so many are read.

    Raises:
        CallshieldError: an ``error``; it is missing, no text, no plain file, or not private.
    """
    try:
        # Neither a link to elsewhere nor a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as failure:
        if missing and isinstance(failure, FileNotFoundError):
            raise error(missing) from None
        raise error(f"{what} {path} cannot be read: {failure.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{what} {path} is not a plain file")
        if status.st_mode & 0o077:
            raise error(
                f"{what} {path} has mode {stat.S_IMODE(status.st_mode):04o}, so that others can "
                f"read it: chmod 600 {path}"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise error(
                f"{what} {path} belongs to user {status.st_uid}: chown it to the user that runs "
                "Callshield"
            )
        content = os.read(descriptor, max_bytes)
    finally:
        os.close(descriptor)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise error(f"{what} {path} is no text in UTF-8") from None
