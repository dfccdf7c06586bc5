"""tshark (Debian) on the loopback interface: what really went over the wire."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sipbridge.g711 import PCMA, decode


class Capture:
    """A capture of the UDP traffic of one address.

    Args:
        path: pcap file.
        address: loopback address whose packets are kept.
    """

    def __init__(self, path: Path, address: str) -> None:
        self._path, self._address = path, address
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            "tshark",
            *("-i", "lo", "-f", f"udp and host {self._address}", "-w", str(self._path)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        async with asyncio.timeout(30):
            # It says so on stderr once packets are really being captured.
            while True:
                line = await self._process.stderr.readline()
                assert line, "tshark cannot capture on lo: run the tests as root"
                if b"Capturing on" in line:
                    return

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def _tshark(self, *arguments: str) -> str:
        await self.stop()  # what is still in its buffers would be missing
        process = await asyncio.create_subprocess_exec(
            "tshark",
            *("-r", str(self._path), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        return output.decode()

    async def pcma(self, port: int) -> NDArray[np.float32]:
        """The A-law RTP audio sent to ``address:port``, decoded, in order of arrival."""
        text = await self._tshark(
            *("-d", f"udp.port=={port},rtp"),
            *("-Y", f"ip.dst=={self._address} && udp.dstport=={port} && rtp.p_type==8"),
            *("-T", "fields", "-e", "rtp.payload"),
        )
        payload = bytes.fromhex("".join(text.split()).replace(":", ""))
        return np.asarray(decode(payload, PCMA) / 32768, dtype=np.float32)

    async def rtp_ports(self) -> set[int]:
        """Ports of the address at which packets of 20 ms G.711 (12 + 160 bytes) arrived."""
        text = await self._tshark(
            *("-Y", f"ip.dst=={self._address} && udp.length==180"),
            *("-T", "fields", "-e", "udp.dstport"),
        )
        return {int(port) for port in text.split()}

    async def lost_packets(self, port: int) -> int:
        """Packets that tshark's ``rtp,streams`` misses in the stream to ``port``."""
        text = await self._tshark(
            *("-d", f"udp.port=={port},rtp", "-q", "-z", "rtp,streams"),
        )
        lost = 0
        rows = 0
        for line in text.splitlines():
            fields = line.split()
            # The payload column may hold several names: count from "lost (percent)" instead.
            found = re.search(r"(\d+)\s+(-?\d+) \(-?[\d.]+%\)", line)
            if found and fields[4:6] == [self._address, str(port)]:
                rows += 1
                lost += int(found[2])
        assert rows, f"tshark saw no RTP stream to port {port}:\n{text}"
        return lost


@asynccontextmanager
async def capturing(path: Path, address: str) -> AsyncIterator[Capture]:
    """A capture for as long as the block lasts."""
    capture = Capture(path, address)
    try:
        await capture.start()
        yield capture
    finally:
        await capture.stop()
