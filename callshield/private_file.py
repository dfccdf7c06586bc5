"""Secrets in files: read only where nobody else can, or said why not.

One rule for every secret of the node (recording keys, passwords of lines and phones, the manager
interface's): a plain file, no link, of this user or of root, that nobody else may read or write.

Under systemd a secret may belong to root alone: ``LoadCredential=secrets:/etc/callshield/secrets``
gives a service its own copy of each file in that folder (systemd.exec(5), "Credentials"), which is
read in the place of the file that the configuration names. What is not in that folder, such as key
files that are changed while the node runs, is read as ever.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from callshield.errors import CallshieldError

#: Names the folder of a service's credentials, set by systemd.
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"


def placed(path: Path) -> Path:
    """Where a secret is read: the service's own copy, if systemd made one, or ``path`` itself.

    The copy of ``FOLDER/NAME`` is called ``FOLDER_NAME``.
    """
    given = os.environ.get(CREDENTIALS_VARIABLE, "")
    if not given or not path.parent.name:
        return path
    copy = Path(given) / f"{path.parent.name}_{path.name}"
    return copy if copy.is_file() else path


def forbidden_bits(path: Path) -> int:
    """The bits of the mode by which somebody else could use the file.

    Of a service's credential systemd lets its user in, by owner or by an access control list, whose
    mask then shows as the group's bits.
    """
    given = os.environ.get(CREDENTIALS_VARIABLE, "")
    return 0o007 if given and path.parent == Path(given) else 0o077


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
    path = placed(path)
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
        if status.st_mode & forbidden_bits(path):
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
