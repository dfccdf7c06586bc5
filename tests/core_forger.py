"""Packets that somebody made up, for the tests of the relay in C."""

from __future__ import annotations

import os
import random
import struct

from tests.core_kit import (
    HEADER,
    rtp,
)
from tests.core_rtcp import block, description, receiver_report, sender_report

#: The C code is compiled with sanitizers (tests/sanitize.sh): slower, and its memory is no measure.
SANITIZED = "CALLSHIELD_SANITIZED" in os.environ


class Forger:
    """Makes packets up.

    Args:
        seed: the same packets for the same seed.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.noise = self.dice.randbytes(1 << 20)

    def take(self, size: int) -> bytes:
        at = self.dice.randrange(len(self.noise) - size)
        return self.noise[at : at + size]

    def valid(self, event_type: int = 101) -> bytes:
        """Good RTP: voice or an event."""
        dice = self.dice
        if dice.random() < 0.3:
            payload = bytes([dice.randrange(20), dice.randrange(256)]) + self.take(2)
            kind = event_type
        else:
            payload, kind = self.take(dice.choice((0, 1, 80, 160, 480))), 0
        return rtp(
            payload,
            kind | dice.choice((0, 0x80)),
            dice.randrange(65536),
            dice.randrange(2**32),
            dice.randrange(4),
        )

    def random(self) -> bytes:
        return self.take(self.dice.choice((0, 1, 11, 12, 13, 44, 172, 1400, 1500, 1501, 2048)))

    def mutated(self) -> bytes:
        """Good RTP with some bytes changed, cut off or appended."""
        data = bytearray(self.valid())
        for _ in range(self.dice.randrange(1, 4)):
            data[self.dice.randrange(min(len(data), 24))] = self.dice.randrange(256)
        if self.dice.random() < 0.2:
            del data[self.dice.randrange(len(data)) :]
        if self.dice.random() < 0.2:
            data += self.take(self.dice.randrange(1400))
        return bytes(data)

    def lie(self) -> bytes:
        """RTP of the right type whose lengths, version or event are wrong."""
        dice = self.dice
        what = dice.randrange(6)
        head = (dice.randrange(65536), dice.randrange(2**32), dice.randrange(4))
        if what == 0:
            # CSRCs past the end.
            count = dice.randrange(1, 16)
            return HEADER.pack(0x80 | count, 0, *head) + self.take(dice.randrange(4 * count))
        if what == 1:
            # An extension past the end.
            words = dice.randrange(1, 65536)
            size = dice.randrange(min(4 * words, 1400))
            return HEADER.pack(0x90, 0, *head) + struct.pack(">HH", 0xBEDE, words) + self.take(size)
        if what == 2:
            # An extension that is cut off in its own header.
            return HEADER.pack(0x90, 0, *head) + self.take(dice.randrange(4))
        if what == 3:
            # Padding of nothing, or of more than there is.
            size = dice.randrange(1, 160)
            last = dice.choice((0, min(size + 1 + dice.randrange(90), 255)))
            return HEADER.pack(0xA0, 0, *head) + self.take(size - 1) + bytes([last])
        if what == 4:
            return HEADER.pack(dice.choice((0x00, 0x40, 0xC0)), 0, *head) + self.take(160)
        return HEADER.pack(0x80, 101, *head) + self.take(dice.randrange(4))

    def rtcp(self) -> bytes:
        """RTCP, good or spoilt."""
        dice = self.dice
        what = dice.randrange(4)
        if what == 0:
            return self.random()
        told = block(dice.randrange(2**32), last_sr=dice.randrange(2**32))
        data = bytearray(
            receiver_report(dice.randrange(2**32), told)
            + sender_report(dice.randrange(2**32), ntp=dice.randrange(2**64))
            + description(dice.randrange(2**32), self.take(dice.randrange(40)))
        )
        for _ in range(what):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data) if what < 3 else bytes(data[: dice.randrange(len(data))])


def is_plain_or_can_be(data: bytes) -> bool:
    """The judge: whether RFC 3550 (section 5.1, 5.3.1) lets this be RTP with a payload's place."""
    if not 12 <= len(data) <= 1500 or data[0] >> 6 != 2:
        return False
    start = 12 + 4 * (data[0] & 15)
    if data[0] & 0x10:
        if start + 4 > len(data):
            return False
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = len(data)
    if data[0] & 0x20:
        if data[-1] == 0:
            return False
        end -= data[-1]
    if start > end:
        return False
    return data[1] & 0x7F != 101 or end - start >= 4
