"""A file of keys that may change while the node runs: looked at when a key is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from callshield.errors import SetupError

Keys = TypeVar("Keys")


class WatchedKeys(Generic[Keys]):
    """The keys of the file as it is now.

    Args:
        path: the file.
        load: reads it, or raises :class:`callshield.errors.SetupError`.
        trouble: told a sentence when it cannot be used, ``""`` when it can again.
    """

    def __init__(
        self, path: Path, load: Callable[[Path], Keys], trouble: Callable[[str], None]
    ) -> None:
        self._path = path
        self._load = load
        self._trouble = trouble
        self._keys: Keys | None = None
        self._seen: tuple[int, int] | None = None
        self._told: str | None = None

    def current(self) -> Keys | None:
        """``None`` where the file cannot be used: calls go on."""
        file = _stamp(self._path)
        if file != self._seen or self._keys is None:
            sentence = ""
            try:
                self._keys = self._load(self._path)
            except SetupError as error:
                self._keys, sentence = None, str(error)
            # After the load, which may have made it.
            self._seen = _stamp(self._path)
            if sentence != self._told:
                self._told = sentence
                self._trouble(sentence)
        return self._keys


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
