"""Node keys: what opens the recordings of this node; kept in a file or in the environment.

A key is 32 random bytes, written as 64 hexadecimal digits. In the file each stands on a line of
its own, the current one first, older ones below; ``#`` begins a comment. In the environment
variable white space or commas part them.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from callshield.errors import RecordingKeyError
from callshield.private_file import read_private
from sipbridge.recording_format import KEY_BYTES, node_key_id

#: Goes before the file.
KEY_VARIABLE = "CALLSHIELD_RECORDING_KEY"
_KEY = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """The node's keys, the current one first; never empty."""

    keys: tuple[bytes, ...]
    source: str
    """``environment`` or the file's name."""

    @property
    def current(self) -> bytes:
        """Wraps the keys of new recordings."""
        return self.keys[0]

    def find(self, key_id: bytes) -> bytes | None:
        """The key with this id, or None."""
        for key in self.keys:
            if node_key_id(key) == key_id:
                return key
        return None

    def ids(self) -> list[str]:
        """Ids of all keys as hexadecimal digits, the current one first."""
        return [node_key_id(key).hex() for key in self.keys]

    def __repr__(self) -> str:
        return f"KeyRing(ids={self.ids()}, source={self.source!r})"


def load_keys(key_file: Path) -> KeyRing:
    """The keys of :data:`KEY_VARIABLE`, or else of the file.

    Raises:
        RecordingKeyError: there is none, or it lies open to others, or is no key.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text:
        return _parse(text.replace(",", " ").split(), "environment", KEY_VARIABLE)
    lines = (line.partition("#")[0].strip() for line in _read_file(key_file).splitlines())
    return _parse([line for line in lines if line], str(key_file), str(key_file))


def from_environment() -> bool:
    """True when the keys are the environment's."""
    return bool(os.environ.get(KEY_VARIABLE))


def _parse(words: list[str], source: str, name: str) -> KeyRing:
    if not words:
        raise RecordingKeyError(
            f"{name} holds no key: write one with `callshield recordings new-key`"
        )
    keys = []
    for number, word in enumerate(words, 1):
        if not _KEY.fullmatch(word):
            raise RecordingKeyError(
                f"{name}: key {number} is not {2 * KEY_BYTES} hexadecimal digits: restore the file "
                "from your copy of it"
            )
        keys.append(bytes.fromhex(word))
    return KeyRing(tuple(dict.fromkeys(keys)), source)


def _read_file(path: Path) -> str:
    return read_private(
        path,
        "the key file",
        RecordingKeyError,
        missing=(
            f"there is no key file {path}: write one with `callshield recordings new-key`, or name "
            "yours in recording.key_file"
        ),
        max_bytes=1 << 20,
    )


def new_key_file(path: Path) -> KeyRing:
    """Write a key file with one new key.

    Raises:
        RecordingKeyError: there is a file already, or it cannot be written.
    """
    key = secrets.token_bytes(KEY_BYTES)
    _make_folder(path.parent)
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    except FileExistsError:
        raise RecordingKeyError(
            f"there is a key file {path} already: `callshield recordings rotate-key` adds a new "
            "key to it and keeps the old ones"
        ) from None
    except OSError as error:
        raise RecordingKeyError(
            f"the key file {path} cannot be written: {error.strerror}"
        ) from None
    _write_out(descriptor, _text([key]))
    _sync_folder(path.parent)
    return KeyRing((key,), str(path))


def replace_keys(path: Path, keys: list[bytes]) -> KeyRing:
    """Put ``keys``, the current one first, in the place of the file's, all or nothing.

    Raises:
        RecordingKeyError: the file cannot be written; it is as it was.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        owner = os.stat(path)
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        if os.geteuid() == 0:
            # Written by root, read by the service's user.
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        _write_out(descriptor, _text(keys))
        os.replace(fresh, path)
        _sync_folder(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RecordingKeyError(
            f"the key file {path} cannot be written: {error.strerror}"
        ) from None
    return KeyRing(tuple(keys), str(path))


def new_key() -> bytes:
    """A new random node key."""
    return secrets.token_bytes(KEY_BYTES)


@contextmanager
def key_file_lock(path: Path) -> Iterator[None]:
    """One change of the keys at a time.

    Raises:
        RecordingKeyError: another one is running.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RecordingKeyError(f"there is no folder {path.parent}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordingKeyError(
                "another change of the keys is running: wait for its end"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _text(keys: list[bytes]) -> bytes:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# Keys of Callshield's recordings: the current one first, older ones below.",
        "# Keep a copy in a safe place apart from the recordings: without it they are lost.",
        f"# Written {now}.",
        *(f"{key.hex()}  # {node_key_id(key).hex()}" for key in keys),
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _write_out(descriptor: int, text: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingKeyError(f"the folder {folder} cannot be made: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
