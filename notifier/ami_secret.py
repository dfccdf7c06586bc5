"""The manager user's secret: from the environment, or from a file that only its owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from callshield.errors import SetupError
from callshield.settings import AmiSettings

#: Goes before the file.
VARIABLE = "CALLSHIELD_AMI_SECRET"
_MAX_BYTES = 1024


def load_secret(settings: AmiSettings) -> str:
    """The secret of ``ami.username``.

    Raises:
        SetupError: there is none, it lies open to others, or is no single line.
    """
    text = os.environ.get(VARIABLE) or _read_private(settings.secret_file)
    secret = text.strip()
    if not secret or any(not character.isprintable() for character in secret):
        raise SetupError(
            f"ami.secret_file {settings.secret_file} must hold one line, the secret of the PBX's "
            f"manager user {settings.username}"
        )
    return secret


def _read_private(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SetupError(
            f"there is no secret for the PBX's manager interface: write it into {path} "
            f"(ami.secret_file) with mode 0600, or set {VARIABLE}"
        ) from None
    except OSError as error:
        raise SetupError(f"ami.secret_file {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SetupError(f"ami.secret_file {path} is not a plain file")
        if status.st_mode & 0o077:
            raise SetupError(
                f"ami.secret_file {path} has mode {stat.S_IMODE(status.st_mode):04o}, so that "
                f"others can read it: chmod 600 {path}"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise SetupError(
                f"ami.secret_file {path} belongs to user {status.st_uid}: chown it to the user "
                "that runs Callshield"
            )
        return file.read(_MAX_BYTES)
