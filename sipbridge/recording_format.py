"""The recording's own container: what lies where, and what is locked with what (docs/recording.md).

A file is a header of 256 bytes and chunks behind it. Integers are little-endian::

    header   offset  bytes
             0       8    magic
             8       2    version, 1
             10      2    bytes of the header, 256
             12      4    zero
             16      16   call id
             32      16   recording id, random
             48      8    started at, ns since the Unix epoch
             56      2x76 key slots, each: node key id 8, nonce 12, wrapped key 32, its tag 16,
                          zero 8
             208     48   zero
    chunk    0       4    bytes of ciphertext and tag that follow the chunk's header
             4       4    index: 0, 1, 2, ...
             8       4    kind: 0 records, 1 the last chunk
             12      n    AES-256-GCM ciphertext, tag of 16 bytes at its end

The first 56 bytes are the recording's *identity*. A recording has a random key of its own, wrapped
by a node key in one of the slots (AES-256-GCM, random nonce, the identity and the node key's id as
associated data). A chunk's nonce is its index and its associated data the SHA-256 of the identity
with the chunk's header, so that a chunk fits one place of one file only. The slots are not part of
that: a node key can be replaced without touching the audio.

A nonce never comes twice: a key belongs to one file, a file is written by one run of one process,
never opened again to go on, and its indices only rise. (NIST SP 800-38D section 8.2.1.)

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from callshield.errors import RecordingDamaged, RecordingKeyError

MAGIC = b"CSREC\r\n\x1a"
VERSION = 1
HEADER_BYTES = 256
KEY_BYTES = 32
KEY_ID_BYTES = 8
_IDENTITY = struct.Struct("<8sHHI16s16sQ")
_SLOT = struct.Struct("<8s12s48s8x")
SLOT_BYTES = _SLOT.size
SLOT_OFFSETS = (_IDENTITY.size, _IDENTITY.size + SLOT_BYTES)
_PADDING_OFFSET = SLOT_OFFSETS[1] + SLOT_BYTES
CHUNK_HEADER = struct.Struct("<III")
_TAG_BYTES = 16
_NONCE = struct.Struct("<QI")
#: Far above a second of anything; a larger length is damage.
MAX_CHUNK_BYTES = 16 << 20

#: In a chunk: channel, codec, payload bytes, RTP timestamp, arrival (ns since the Unix epoch).
RECORD = struct.Struct("<BBHIQ")
#: The longest payload of a record.
MAX_PAYLOAD_BYTES = 0xFFFF
#: The channel of a record that is a :class:`Mark`, not audio; its codec field says which.
MARK_CHANNEL = 254
CALLER_CHANNEL = 0
AGENT_CHANNEL = 1

#: Finds the node key of a key id; None when it is not there.
KeyFinder = Callable[[bytes], bytes | None]


class ChunkKind(IntEnum):
    """What a chunk holds."""

    RECORDS = 0
    LAST = 1


class Mark(IntEnum):
    """What a record on :data:`MARK_CHANNEL` says."""

    ABOUT = 0
    """The first record: JSON about the recording in its payload."""
    PAUSED = 1
    RESUMED = 2
    LOST = 3
    """Frames were lost here: the disk was too slow for too long."""
    TOLD = 4
    """JSON of an event about what the caller was told or pressed: ``notice.finished``,
    ``prompt.played``, ``protection.changed``; without the agent's id."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The last chunk of a complete file."""

    ended: str
    """``stopped``, ``shutdown`` (the worker ended) or ``disk`` (no space)."""
    stopped_at_ns: int
    frames: int
    pauses: list[tuple[int, int]] = []
    """Begin and end, ns since the Unix epoch; 0 as the end of one that never ended."""
    lost: int = 0
    """How often frames were lost because the disk was too slow."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a recording this one; bound to every chunk and to the wrapped key."""

    call_id: bytes
    """16 bytes."""
    recording_id: bytes
    """16 random bytes: two recordings of one call differ."""
    started_at_ns: int

    def pack(self) -> bytes:
        """The header's first 56 bytes."""
        return _IDENTITY.pack(
            MAGIC, VERSION, HEADER_BYTES, 0, self.call_id, self.recording_id, self.started_at_ns
        )


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header."""

    identity: Identity
    slots: tuple[bytes, bytes]
    """As they lie in the file; an empty one is all zero."""

    def key_ids(self) -> list[bytes]:
        """Ids of the node keys of the slots in use."""
        return [slot[:KEY_ID_BYTES] for slot in self.slots if any(slot)]


def node_key_id(node_key: bytes) -> bytes:
    """The id under which files name a node key: 8 bytes of a hash of it."""
    return hashlib.sha256(b"callshield recording node key\0" + node_key).digest()[:KEY_ID_BYTES]


def wrap_key(identity: Identity, node_key: bytes, file_key: bytes) -> bytes:
    """A slot: ``file_key`` under ``node_key``, for this identity only."""
    key_id, nonce = node_key_id(node_key), os.urandom(12)
    wrapped = AESGCM(node_key).encrypt(nonce, file_key, identity.pack() + key_id)
    return _SLOT.pack(key_id, nonce, wrapped)


def pack_header(identity: Identity, slot: bytes) -> bytes:
    """A whole header with one slot in use."""
    return (identity.pack() + slot).ljust(HEADER_BYTES, b"\0")


def parse_header(data: bytes) -> Header:
    """Read a header.

    Raises:
        RecordingDamaged: it is none of ours, or has been changed.
    """
    if len(data) < HEADER_BYTES:
        raise RecordingDamaged("the file is shorter than a recording's header")
    magic, version, size, zero, call_id, recording_id, started_at_ns = _IDENTITY.unpack_from(data)
    if magic != MAGIC:
        raise RecordingDamaged("the file is no recording: its first bytes are others")
    if version != VERSION:
        raise RecordingDamaged(
            f"the recording has version {version}, this program reads version {VERSION}"
        )
    if size != HEADER_BYTES or zero or any(data[_PADDING_OFFSET:HEADER_BYTES]):
        raise RecordingDamaged("the recording's header was changed")
    first, second = (data[offset : offset + SLOT_BYTES] for offset in SLOT_OFFSETS)
    if any(first[-8:]) or any(second[-8:]):
        raise RecordingDamaged("the recording's header was changed")
    return Header(Identity(call_id, recording_id, started_at_ns), (first, second))


@dataclass(frozen=True, slots=True, repr=False)
class OpenedKey:
    """What :func:`unwrap_key` found."""

    key: bytes
    slot: int
    """Number of the slot that gave it."""
    sound: bool
    """No other slot holds what cannot be opened. One does when a rotation was cut short by a power
    cut, or when somebody wrote there; the audio is not touched by that, and a rotation mends it."""


def unwrap_key(header: Header, find: KeyFinder) -> OpenedKey:
    """The recording's own key.

    Raises:
        RecordingKeyError: none of the node keys that the header names is here.
        RecordingDamaged: a named key is here, but does not open its slot; or both slots open, to
            different keys.
    """
    opened: list[tuple[bytes, int]] = []
    named: list[str] = []
    unknown = 0
    for number, slot in enumerate(header.slots):
        if not any(slot):
            continue
        key_id, nonce, wrapped = _SLOT.unpack(slot)
        named.append(key_id.hex())
        node_key = find(key_id)
        if node_key is None:
            unknown += 1
            continue
        with contextlib.suppress(InvalidTag):
            key = AESGCM(node_key).decrypt(nonce, wrapped, header.identity.pack() + key_id)
            opened.append((key, number))
    if not named:
        raise RecordingDamaged("the recording's header was changed: both key slots are empty")
    if not opened and unknown == len(named):
        raise RecordingKeyError(
            f"the node key {' or '.join(named)} that opens this recording is not here: put it into "
            "the key file (recording.key_file), below the current one"
        )
    if not opened:
        raise RecordingDamaged("the recording's header was changed: its key cannot be opened")
    if len({key for key, _ in opened}) > 1:
        raise RecordingDamaged("the recording's two key slots do not belong together")
    return OpenedKey(*opened[0], sound=len(opened) == len(named))


class ChunkSealer:
    """Encrypts the chunks of one new file, in order.

    Args:
        identity: of the file.
        key: 32 random bytes that were never used before.
    """

    def __init__(self, identity: Identity, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._bound = hashlib.sha256(identity.pack()).digest()
        self._index = 0

    def seal(self, plain: bytes, kind: ChunkKind = ChunkKind.RECORDS) -> bytes:
        """The next chunk, ready to be written. Whether it is or not, its nonce is used up."""
        index = self._index
        self._index += 1
        head = CHUNK_HEADER.pack(len(plain) + _TAG_BYTES, index, kind)
        return head + self._cipher.encrypt(_NONCE.pack(index, 0), plain, self._bound + head)


class ChunkOpener:
    """Decrypts chunks of one file, at any index."""

    def __init__(self, identity: Identity, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._bound = hashlib.sha256(identity.pack()).digest()

    def open(self, head: bytes, sealed: bytes, index: int) -> bytes:
        """The plain text of the chunk with this index.

        Raises:
            RecordingDamaged: it is not the one that was written there.
        """
        try:
            return self._cipher.decrypt(_NONCE.pack(index, 0), sealed, self._bound + head)
        except InvalidTag:
            raise RecordingDamaged(f"chunk {index} was changed or is not in its place") from None


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk lies: found without any key."""

    index: int
    kind: ChunkKind
    offset: int
    """Of its header in the file."""
    head: bytes
    sealed_bytes: int


def chunk_places(file: BinaryIO) -> Iterator[ChunkPlace]:
    """All whole chunks behind the header, in order; an unfinished one at the end is left out.

    Raises:
        RecordingDamaged: the chain of chunks is broken.
    """
    file.seek(0, os.SEEK_END)
    end = file.tell()
    offset, index = HEADER_BYTES, 0
    while offset + CHUNK_HEADER.size <= end:
        file.seek(offset)
        head = file.read(CHUNK_HEADER.size)
        size, number, kind = CHUNK_HEADER.unpack(head)
        if number != index:
            raise RecordingDamaged(f"chunk {index} is missing or not in its place")
        if not _TAG_BYTES <= size <= MAX_CHUNK_BYTES or kind not in (0, 1):
            raise RecordingDamaged(f"chunk {index} was changed")
        following = offset + CHUNK_HEADER.size + size
        if following > end:
            return
        yield ChunkPlace(index, ChunkKind(kind), offset, head, size)
        if kind == ChunkKind.LAST:
            if following != end:
                raise RecordingDamaged("something was added behind the last chunk")
            return
        offset, index = following, index + 1


def read_chunk(file: BinaryIO, place: ChunkPlace, opener: ChunkOpener) -> bytes:
    """Decrypt the chunk at ``place``.

    Raises:
        RecordingDamaged: it was changed.
    """
    file.seek(place.offset + CHUNK_HEADER.size)
    return opener.open(place.head, file.read(place.sealed_bytes), place.index)


def records(plain: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """``(channel, codec, timestamp, at_ns, payload)`` of each record of an opened chunk.

    Raises:
        RecordingDamaged: the recorder wrote nonsense (it was authentic).
    """
    offset, size = 0, len(plain)
    while offset < size:
        if offset + RECORD.size > size:
            raise RecordingDamaged("a record is cut off inside a chunk")
        channel, codec, length, timestamp, at_ns = RECORD.unpack_from(plain, offset)
        begin = offset + RECORD.size
        offset = begin + length
        if offset > size:
            raise RecordingDamaged("a record is cut off inside a chunk")
        yield channel, codec, timestamp, at_ns, plain[begin:offset]


def mark(kind: Mark, at_ns: int, payload: bytes = b"") -> bytes:
    """A record that is a mark."""
    return RECORD.pack(MARK_CHANNEL, kind, len(payload), 0, at_ns) + payload


def pack_summary(summary: Summary) -> bytes:
    """Plain text of the last chunk."""
    return msgspec.json.encode(summary)


def parse_summary(plain: bytes) -> Summary:
    """Read the last chunk.

    Raises:
        RecordingDamaged: it does not hold a summary.
    """
    try:
        return msgspec.json.decode(plain, type=Summary)
    except msgspec.MsgspecError:
        raise RecordingDamaged("the last chunk holds no summary") from None
