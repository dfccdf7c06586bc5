"""Somebody who talks RTP by hand: any tone at any moment, from any port, and keeps what comes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
from numpy.typing import NDArray

from callshield.free_ports import free_range
from callshield.g711 import PCMA, decode, encode

FRAME = 160
#: Where the sequence number starts; random in a real phone.
FIRST = 1000


class Talker(asyncio.DatagramProtocol):
    """One A-law source that sends a packet every 20 ms while it has something to say.

    Args:
        address: loopback address; the port is a free one.
        ssrc: of its stream.
    """

    def __init__(self, address: str, ssrc: int = 0x1234) -> None:
        self.address, self.ssrc = address, ssrc
        self.port = free_range(address, 2)[0]
        self.to: tuple[str, int] = ("", 0)
        """Where it sends to."""
        self.hertz = 1000.0
        self.level = 0.05
        """Peak, of full scale."""
        self.talking = False
        self.sent = 0
        self.sequence, self.timestamp = FIRST, 0
        self.packets: list[bytes] = []
        """What came, RTP header included."""
        self._transport: asyncio.DatagramTransport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.packets.append(data)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(self.address, self.port))
        self._task = asyncio.create_task(self._pace())

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 0.02
            await asyncio.sleep(max(due - loop.time(), 0))
            # The clock runs on while nothing is said, as it does in a phone.
            self.timestamp = (self.timestamp + FRAME) & 0xFFFFFFFF
            if self.talking:
                self.say(self._tone())

    def _tone(self) -> bytes:
        time = (self.timestamp + np.arange(FRAME)) / 8000
        tone = self.level * 32767 * np.sin(2 * np.pi * self.hertz * time)
        return bytes(encode(tone.astype(np.int16), PCMA))

    def say(self, payload: bytes) -> None:
        """One packet now."""
        assert self._transport is not None
        self.sequence = (self.sequence + 1) & 0xFFFF
        header = struct.pack("!BBHII", 0x80, 8, self.sequence, self.timestamp, self.ssrc)
        self._transport.sendto(header + payload, self.to)
        self.sent += 1

    def heard(self) -> NDArray[np.float32]:
        """What came, decoded in order of arrival, full scale ±1."""
        payload = b"".join(p[12:] for p in self.packets if p[1] & 0x7F == PCMA)
        return np.asarray(decode(payload, PCMA) / 32768, dtype=np.float32)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()


@asynccontextmanager
async def talking(address: str, ssrc: int = 0x1234) -> AsyncIterator[Talker]:
    """A talker for as long as the block lasts; silent until told to talk."""
    talker = Talker(address, ssrc)
    await talker.start()
    try:
        yield talker
    finally:
        await talker.stop()
