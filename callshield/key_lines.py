"""Files of keys: one key of 32 bytes a line, 64 hexadecimal digits, the current one first.

Replaced whole or not at all; mode 0600; read only where nobody else can
(:mod:`callshield.private_file`).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from callshield.errors import SetupError
from callshield.private_file import read_private

_LINE = re.compile(r"[0-9a-f]{64}")


def new_key() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(32)


def read_keys(path: Path, what: str, most: int, missing: str) -> tuple[bytes, ...]:
    """The keys of a file, the current one first.

    Args:
        path: the file.
        what: its key in the configuration, for messages.
        most: keys that one file may hold.
        missing: the whole message where there is no such file.

    Raises:
        SetupError: it is missing, open to others, or holds no keys; the message does not quote it.
    """
    text = read_private(path, what, SetupError, missing=missing)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= most or not all(_LINE.fullmatch(line) for line in lines):
        raise SetupError(
            f"{what} {path} must hold 1 to {most} keys of 64 small hexadecimal digits, one a "
            "line, the current one first"
        )
    return tuple(bytes.fromhex(line) for line in lines)


def write_keys(path: Path, what: str, keys: Sequence[bytes], *, replace: bool = True) -> None:
    """Write a file of keys, whole.

    Args:
        path: the file.
        what: its key in the configuration, for messages.
        keys: the current one first.
        replace: False: a file that is there stays as it is; of two processes that make one at
            the same moment the first wins.

    Raises:
        SetupError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            if os.geteuid() == 0:
                # Made by an administrator, read by the node's user.
                owner = path.stat() if path.exists() else path.parent.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.writelines(key.hex() + "\n" for key in keys)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(beside, path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(beside, path)
    except OSError as error:
        raise SetupError(
            f"{what} {path} cannot be written ({error.strerror}): choose a {what} in a folder "
            "that this user can write to"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
