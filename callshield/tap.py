"""The tap: the caller's audio on its way from the media worker to the detector.

One Unix datagram carries the frames of many calls for one 20 ms tick (several datagrams when a
batch outgrows :data:`MAX_DATAGRAM_BYTES`). The media worker never waits: a full or missing
receiver means that the batch is dropped and counted. Each record names its call by the 16 bytes
of its id, so that a detector restarted in mid-call needs no other state to go on.

Layout, little-endian::

    header  (16 bytes)  magic "CSTP" | version u8 | reserved u8 | records u16 | sent_at_ns u64
    record  (32 bytes)  call_id 16s | kind u8 | codec u8 | payload_bytes u16
                        | sequence u16 | flags u16 | timestamp u32 | arrived_ms u32
            followed by payload_bytes of codec data

``sequence`` and ``timestamp`` are those of the caller's RTP stream (RFC 3550 section 5.1), so a
gap in them is a loss on the caller's side or here. The clock of ``timestamp`` is the codec's own:
8 kHz for G.711 and (RFC 3551 section 4.5.2) G.722, 48 kHz for Opus (RFC 7587 section 4.1).
``arrived_ms`` is the monotonic clock of the machine in milliseconds modulo 2**32; ``sent_at_ns``
is ``time.monotonic_ns()`` at the send.
Bit 0 of ``flags``: the frame may be the echo of somebody who speaks on the phone's side
(:attr:`CallerFrame.echo`); the other bits are 0 and ignored.

Only the caller's frames can be written: :class:`CallerFrame` is made by the caller's leg alone
(design principle 2), and nothing else is accepted here. That bit is all that a detector gets of the
agent's leg.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from callshield.errors import TapError

MAGIC = b"CSTP"
VERSION = 1
#: Well under the default send buffer of a Unix datagram socket (net.core.wmem_default, 208 KiB).
MAX_DATAGRAM_BYTES = 64 * 1024

_HEADER = struct.Struct("<4sBBHQ")
_RECORD = struct.Struct("<16sBBHHHII")
_ECHO = 1
HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size


class TapKind(IntEnum):
    """What a record says."""

    AUDIO = 0
    """One RTP payload of the caller's voice."""
    DETACH = 1
    """The tap was closed (call ended, hold, pause): no payload; forget or suspend the call."""


class TapCodec(IntEnum):
    """How a payload is encoded; the numbers are the static payload types of RFC 3551."""

    PCMU = 0
    PCMA = 8
    G722 = 9
    OPUS = 111
    """Has no static type: this number is ours, whatever the session negotiated."""


@dataclass(frozen=True, slots=True)
class CallerFrame:
    """One RTP payload that came from the caller, or the end of the caller's tap."""

    call_id: bytes
    """16 bytes, ``uuid.UUID.bytes`` of the call id."""
    kind: TapKind
    codec: TapCodec
    sequence: int
    """RTP sequence number as the caller sent it, 0-65535."""
    timestamp: int
    """RTP timestamp as the caller sent it, in the codec's clock, modulo 2**32."""
    arrived_ms: int
    """Monotonic clock at arrival, milliseconds modulo 2**32."""
    payload: bytes
    echo: bool = False
    """Somebody on the phone's side speaks, or did within the last 0.4 s, more than 15 dB louder
    than this frame: it may be the echo of that voice and is not to be judged. Only where both
    sides have G.711; else False."""


def encode_batches(frames: Iterable[CallerFrame], sent_at_ns: int) -> Iterator[bytes]:
    """Pack frames into datagrams of at most :data:`MAX_DATAGRAM_BYTES`.

    Raises:
        TapError: a single payload is too large to fit.
    """
    parts: list[bytes] = []
    size = HEADER_BYTES
    count = 0
    for frame in frames:
        length = RECORD_BYTES + len(frame.payload)
        if HEADER_BYTES + length > MAX_DATAGRAM_BYTES:
            raise TapError(f"a payload of {len(frame.payload)} bytes does not fit a tap datagram")
        if size + length > MAX_DATAGRAM_BYTES:
            parts.insert(0, _HEADER.pack(MAGIC, VERSION, 0, count, sent_at_ns))
            yield b"".join(parts)
            parts, size, count = [], HEADER_BYTES, 0
        parts.append(
            _RECORD.pack(
                frame.call_id,
                frame.kind,
                frame.codec,
                len(frame.payload),
                frame.sequence,
                _ECHO if frame.echo else 0,
                frame.timestamp,
                frame.arrived_ms,
            )
        )
        parts.append(frame.payload)
        size += length
        count += 1
    if count:
        parts.insert(0, _HEADER.pack(MAGIC, VERSION, 0, count, sent_at_ns))
        yield b"".join(parts)


def decode_batch(datagram: bytes) -> tuple[int, list[CallerFrame]]:
    """Unpack one datagram into ``(sent_at_ns, frames)``.

    Raises:
        TapError: the bytes are not a batch of this version, or end too early.
    """
    if len(datagram) < HEADER_BYTES:
        raise TapError(f"a tap datagram of {len(datagram)} bytes is shorter than its header")
    magic, version, _, count, sent_at_ns = _HEADER.unpack_from(datagram)
    if magic != MAGIC:
        raise TapError("a datagram on the tap socket does not begin with CSTP")
    if version != VERSION:
        raise TapError(f"tap version {version} is not {VERSION}: restart all processes of the node")
    frames: list[CallerFrame] = []
    offset = HEADER_BYTES
    for _ in range(count):
        if offset + RECORD_BYTES > len(datagram):
            raise TapError("a tap datagram ends inside a record")
        call_id, kind, codec, length, sequence, flags, timestamp, arrived_ms = _RECORD.unpack_from(
            datagram, offset
        )
        offset += RECORD_BYTES
        if offset + length > len(datagram):
            raise TapError("a tap datagram ends inside a payload")
        try:
            frame = CallerFrame(
                call_id,
                TapKind(kind),
                TapCodec(codec),
                sequence,
                timestamp,
                arrived_ms,
                datagram[offset : offset + length],
                bool(flags & _ECHO),
            )
        except ValueError as error:
            raise TapError(f"a tap record carries an unknown kind or codec: {error}") from None
        frames.append(frame)
        offset += length
    if offset != len(datagram):
        raise TapError("a tap datagram carries bytes after its last record")
    return sent_at_ns, frames
