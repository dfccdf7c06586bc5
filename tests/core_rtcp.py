"""RTCP as RFC 3550 section 6 has it, made and read without the relay's own code."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

EPOCH_1900_S = 2_208_988_800


@dataclass(frozen=True, slots=True)
class Block:
    """A report block (section 6.4.1)."""

    ssrc: int
    fraction_lost: int
    total_lost: int
    highest: int
    jitter: int
    last_sr: int
    delay: int


@dataclass(frozen=True, slots=True)
class Report:
    """A compound packet: a report and a CNAME."""

    kind: int
    ssrc: int
    ntp: int
    timestamp: int
    packets: int
    octets: int
    blocks: list[Block]
    cname: str

    @property
    def middle(self) -> int:
        """The NTP time as LSR has it."""
        return self.ntp >> 16 & 0xFFFFFFFF

    @property
    def at_s(self) -> float:
        """The NTP time, seconds since 1970."""
        return (self.ntp >> 32) - EPOCH_1900_S + (self.ntp & 0xFFFFFFFF) / 2**32


def decode(data: bytes) -> Report:
    """Read a compound of SR or RR and SDES; every bit of it is checked."""
    assert len(data) % 4 == 0
    first, kind, length, ssrc = struct.unpack_from(">BBHI", data)
    count = first & 0x1F
    assert first & 0xE0 == 0x80, "version 2, no padding"
    assert kind in (200, 201)
    offset, ntp, timestamp, packets, octets = 8, 0, 0, 0, 0
    if kind == 200:
        ntp, timestamp, packets, octets = struct.unpack_from(">QIII", data, offset)
        offset += 20
    blocks = []
    for _ in range(count):
        source, lost, highest, jitter, last_sr, delay = struct.unpack_from(">IIIIII", data, offset)
        total = lost & 0xFFFFFF
        total -= (total & 0x800000) << 1
        blocks.append(Block(source, lost >> 24, total, highest, jitter, last_sr, delay))
        offset += 24
    assert offset == 4 * (length + 1), "the length field"
    first, description, length, chunk_ssrc, item, size = struct.unpack_from(">BBHIBB", data, offset)
    assert (first, description, chunk_ssrc, item) == (0x81, 202, ssrc, 1), "SDES with one CNAME"
    assert len(data) == offset + 4 * (length + 1)
    cname = data[offset + 10 : offset + 10 + size].decode()
    rest = data[offset + 10 + size :]
    assert 1 <= len(rest) <= 4, "the list of items ends within its word"
    assert rest == bytes(len(rest))
    return Report(kind, ssrc, ntp, timestamp, packets, octets, blocks, cname)


def ntp_now() -> int:
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 10**9)
    return (seconds + EPOCH_1900_S) << 32 | (rest << 32) // 10**9


def block(
    ssrc: int,
    *,
    fraction_lost: int = 0,
    total_lost: int = 0,
    highest: int = 0,
    jitter: int = 0,
    last_sr: int = 0,
    delay: int = 0,
) -> bytes:
    lost = fraction_lost << 24 | total_lost & 0xFFFFFF
    return struct.pack(">IIIIII", ssrc, lost, highest, jitter, last_sr, delay)


def sender_report(
    ssrc: int, *blocks: bytes, ntp: int = 0, timestamp: int = 0, packets: int = 0, octets: int = 0
) -> bytes:
    body = struct.pack(">IQIII", ssrc, ntp, timestamp, packets, octets) + b"".join(blocks)
    return struct.pack(">BBH", 0x80 | len(blocks), 200, len(body) // 4) + body


def receiver_report(ssrc: int, *blocks: bytes) -> bytes:
    body = struct.pack(">I", ssrc) + b"".join(blocks)
    return struct.pack(">BBH", 0x80 | len(blocks), 201, len(body) // 4) + body


def description(ssrc: int, cname: bytes = b"far@end") -> bytes:
    chunk = struct.pack(">IBB", ssrc, 1, len(cname)) + cname
    chunk += bytes(4 - len(chunk) % 4)
    return struct.pack(">BBH", 0x81, 202, len(chunk) // 4) + chunk
