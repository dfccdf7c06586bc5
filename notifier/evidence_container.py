"""The container of an evidence package: a ZIP archive whose every byte follows from its files.

Any unzip program opens it; :func:`read_container` is stricter. Files are stored as they are, in a
given order, with one date, one mode and no extra fields or comments (PKWARE APPNOTE 6.3.3, sections
4.3.7, 4.3.12 and 4.3.16), so that there is exactly one archive for given files: names, sizes and
CRCs in both places, everything else constant. Whoever changes one byte outside of the files'
contents has made something else than that archive. What changed *inside* a file is the manifest's
business (:mod:`notifier.evidence_manifest`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from callshield.errors import EvidenceBroken, EvidenceError

#: Sizes and offsets have 32 bits; ZIP64 would be a second way to write the same.
MAX_BYTES = 0xFFFF_FFFF
MAX_FILES = 64
_BLOCK = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_VERSION = 20
#: 1980-01-01: the archive says nothing of its own about time.
_DATE = (1 << 5) | 1
_UNIX = 3 << 8 | _VERSION
_MODE = 0o100600 << 16
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@dataclass(frozen=True, slots=True)
class Source:
    """A file that goes into a container."""

    name: str
    file: IO[bytes]
    """Read from its beginning, more than once."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is in one."""

    name: str
    crc: int
    offset: int
    """Of its content, from the container's beginning."""
    size: int

    @property
    def header_offset(self) -> int:
        """Of its local header."""
        return self.offset - _LOCAL.size - len(self.name)


def content(file: IO[bytes]) -> Iterator[bytes]:
    """A file from its beginning to its end, a block at a time."""
    file.seek(0)
    while block := file.read(_BLOCK):
        yield block


def write_container(out: IO[bytes], sources: Sequence[Source]) -> list[Stored]:
    """Write an archive from where ``out`` stands, which must be its beginning.

    Raises:
        EvidenceError: it would be larger than an archive of this kind may be.
        ValueError: a name twice, or none that a container may hold.
        OSError: ``out`` cannot be written.
    """
    names = [source.name for source in sources]
    if len(set(names)) != len(names) or not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("each name once, of small letters, digits, '_', '.' and '-'")
    stored: list[Stored] = []
    position = 0
    for source in sources:
        crc, size = _measure(content(source.file))
        position += _LOCAL.size + len(source.name)
        if position + size > MAX_BYTES // 2:
            raise EvidenceError(
                "the package would be larger than 2 GiB, more than it may be: the call is too long "
                "for one package"
            )
        item = Stored(source.name, crc, position, size)
        out.write(_local(item))
        for block in content(source.file):
            out.write(block)
        position += size
        stored.append(item)
    out.write(_directory(stored, position))
    return stored


def read_container(file: IO[bytes]) -> list[Stored]:
    """The files of an archive, if it is the one that :func:`write_container` makes of them.

    Raises:
        EvidenceBroken: it is not; says at which byte. Whether the contents fit their CRCs is not
            looked at here.
    """
    end = file.seek(0, 2)
    if end > MAX_BYTES:
        raise _broken(MAX_BYTES, "it is larger than it can be")
    stored: list[Stored] = []
    position = 0
    while True:
        file.seek(position)
        head = file.read(_LOCAL.size)
        if head[:4] == _CENTRAL_MARK or len(stored) == MAX_FILES:
            break
        stored.append(item := _read_local(file, head, position, stored, end))
        position = item.offset + item.size
    wanted = _directory(stored, position)
    file.seek(position)
    found = file.read(len(wanted) + 1)
    if found != wanted:
        at = position + _difference(found, wanted)
        what = "it goes on after its end" if at == position + len(wanted) else "its directory"
        raise _broken(at, what)
    return stored


def _read_local(
    file: IO[bytes], head: bytes, position: int, before: Sequence[Stored], end: int
) -> Stored:
    where = f"before the file after {before[-1].name}" if before else "at its beginning"
    if len(head) < _LOCAL.size:
        raise _broken(position + len(head), f"it breaks off {where}")
    fields = _LOCAL.unpack(head)
    crc, size, length = fields[6], fields[8], fields[9]
    name = file.read(length).decode("ascii", "replace") if length <= 64 else ""
    if not _NAME.fullmatch(name):
        name = "?"
    item = Stored(name, crc, position + _LOCAL.size + length, size)
    wanted = _local(item)
    file.seek(position)
    found = file.read(_LOCAL.size + len(name))
    if found != wanted:
        raise _broken(position + _difference(found, wanted), f"the header {where}")
    if name in {one.name for one in before}:
        raise _broken(position, f"{name} is in it twice")
    if item.offset + size > end:
        raise _broken(end, f"it breaks off within {name}")
    return item


def stored_content(file: IO[bytes], item: Stored) -> Iterator[bytes]:
    """The content of one file of an archive, a block at a time."""
    left = item.size
    file.seek(item.offset)
    while left and (block := file.read(min(_BLOCK, left))):
        left -= len(block)
        yield block


def check_crc(item: Stored, crc: int) -> None:
    """Compare what the archive says with CRC-32 of the content, once the content is known to be
    right.

    Raises:
        EvidenceBroken: it says something else.
    """
    if crc != item.crc:
        raise _broken(item.header_offset + 14, f"the CRC of {item.name}")


def _broken(at: int, what: str) -> EvidenceBroken:
    return EvidenceBroken(
        f"the archive is not as `callshield evidence export` makes it, from byte {at} on: {what}"
    )


def _difference(found: bytes, wanted: bytes) -> int:
    pairs = zip(found, wanted, strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
    return min(len(found), len(wanted)) if same is None else same


def _measure(blocks: Iterable[bytes]) -> tuple[int, int]:
    crc = size = 0
    for block in blocks:
        crc, size = zlib.crc32(block, crc), size + len(block)
    return crc, size


def _local(item: Stored) -> bytes:
    name = item.name.encode("ascii")
    return (
        _LOCAL.pack(
            *(_LOCAL_MARK, _VERSION, 0, 0, 0, _DATE),
            *(item.crc, item.size, item.size, len(name), 0),
        )
        + name
    )


def _directory(stored: Sequence[Stored], position: int) -> bytes:
    """The central directory and what follows it, to the end."""
    parts = []
    for item in stored:
        name = item.name.encode("ascii")
        parts.append(
            _CENTRAL.pack(
                *(_CENTRAL_MARK, _UNIX, _VERSION, 0, 0, 0, _DATE),
                *(item.crc, item.size, item.size, len(name), 0, 0, 0, 0),
                *(_MODE, item.header_offset),
            )
            + name
        )
    directory = b"".join(parts)
    end = _END.pack(
        _END_MARK, 0, 0, len(stored), len(stored), len(directory), position & MAX_BYTES, 0
    )
    return directory + end
