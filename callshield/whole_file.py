"""A file that is there whole, or not at all.

It is written without a name where the file system can do that (``O_TMPFILE``), so that a process
that is killed leaves nothing behind; elsewhere under a temporary one. It gets its name when all of
it is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import IO

from callshield.errors import CallshieldError

#: What a file system says that has no nameless files.
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class WholeFile:
    """Mode 0600; used as a context, and kept by :meth:`keep`.

    Args:
        path: what it will be called.
        error: raised when it cannot be written.
        overwrite: replace a file of that name.
    """

    def __init__(
        self, path: Path, error: type[CallshieldError], *, overwrite: bool = False
    ) -> None:
        self._path = path
        self._error = error
        self._overwrite = overwrite
        self._temporary: Path | None = None
        self.file: IO[bytes]

    def __enter__(self) -> WholeFile:
        if not self._overwrite and os.path.lexists(self._path):
            raise self._error(
                f"{self._path} is there already: name another file, or give --overwrite"
            )
        folder = self._path.parent
        try:
            descriptor = self._open(folder)
        except OSError as failure:
            raise self._error(f"{folder} cannot be written: {failure.strerror}") from None
        self.file = os.fdopen(descriptor, "w+b")
        return self

    def _open(self, folder: Path) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(folder, flags | os.O_TMPFILE, 0o600)
        except OSError as failure:
            if failure.errno not in _NO_NAMELESS or not folder.is_dir():
                raise
        path = folder / f".{self._path.name}.{secrets.token_hex(4)}.part"
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._temporary = path
        return descriptor

    def settle(self) -> None:
        """Bring it to the disk, still without its name: what can go wrong with space goes wrong
        here.

        Raises:
            CallshieldError: it cannot be written; there is nothing then.
        """
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as failure:
            raise self.failed(failure) from None

    def keep(self) -> None:
        """Give it its name, once it is on the disk.

        Raises:
            CallshieldError: it cannot be kept; there is nothing then.
        """
        self.settle()
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._name(folder)
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise self._error(
                f"{self._path} is there already: name another file, or give --overwrite"
            ) from None
        except OSError as failure:
            raise self.failed(failure) from None

    def _name(self, folder: int) -> None:
        if self._temporary is None:
            # By its descriptor: there is no other way to a file without a name (open(2)). With a
            # folder Python calls linkat(), which alone follows it there.
            here = f"/proc/self/fd/{self.file.fileno()}"
            if not self._overwrite:
                os.link(here, self._path, src_dir_fd=folder, follow_symlinks=True)
                return
            fresh = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
            os.link(here, fresh, src_dir_fd=folder, follow_symlinks=True)
            self._temporary = fresh
        if self._overwrite:
            os.replace(self._temporary, self._path)
        else:
            os.link(self._temporary, self._path)
            self._temporary.unlink()
        self._temporary = None

    def failed(self, failure: OSError) -> CallshieldError:
        """The error for a write that failed."""
        return self._error(
            f"{self._path} cannot be written: {failure.strerror}; nothing was left there"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            # What is still in its buffer may not fit on the disk: it goes with the file.
            self.file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
