"""tshark (Debian) on the loopback interface: what really went over the wire."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield.g711 import PCMA, decode

#: A row of ``tshark -z rtp,streams``: times, addresses, SSRC, payload types, packets, lost, and
#: least, mean and greatest of delta and jitter in ms; an X at the end where it saw problems.
_ROW = re.compile(
    r"^\s*[\d.]+\s+[\d.]+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s+(0x[0-9A-Fa-f]{8})\s+(.*?)\s+"
    r"(\d+)\s+(-?\d+) \(-?[\d.]+%\)" + r"\s+(-?[\d.]+)" * 6 + r"\s*(X?)\s*$"
)


@dataclass(frozen=True, slots=True)
class Stream:
    """One RTP stream as tshark judges it."""

    source: tuple[str, int]
    destination: tuple[str, int]
    ssrc: str
    payloads: str
    """Names of its payload types."""
    packets: int
    lost: int
    max_delta_ms: float
    mean_jitter_ms: float
    max_jitter_ms: float
    problems: bool
    """A sequence number out of order."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured datagram of a stream; the RTP fields are read here, not by tshark."""

    at_s: float
    data: bytes

    @property
    def payload_type(self) -> int:
        return self.data[1] & 0x7F

    @property
    def marker(self) -> bool:
        return bool(self.data[1] & 0x80)

    @property
    def sequence(self) -> int:
        return int.from_bytes(self.data[2:4], "big")

    @property
    def timestamp(self) -> int:
        return int.from_bytes(self.data[4:8], "big")

    @property
    def payload(self) -> bytes:
        return self.data[12:]


class Capture:
    """A capture of the UDP traffic of one address.

    Args:
        path: pcap file.
        address: loopback address whose packets are kept.
        wanted: in libpcap's language, instead of all of that address.
    """

    def __init__(self, path: Path, address: str, wanted: str = "") -> None:
        self._path, self._address = path, address
        self._wanted = wanted or f"udp and host {address}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            "tshark",
            *("-i", "lo", "-f", self._wanted, "-w", str(self._path)),
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

    async def fields(self, shown: str, *names: str, options: tuple[str, ...] = ()) -> list[str]:
        """A line of tab-separated fields for each packet that a display filter shows."""
        wanted = [word for name in names for word in ("-e", name)]
        text = await self._tshark(*options, "-Y", shown, "-T", "fields", *wanted)
        return text.splitlines()

    async def media_ports(self) -> list[int]:
        """Our RTP ports of the captured address: even ports that sent RTP of version 2."""
        lines = await self.fields(
            f"ip.src=={self._address} && udp.payload[0]==80 && !(udp.srcport & 1)", "udp.srcport"
        )
        return sorted({int(line) for line in lines})

    async def packets(self, *, sent_by: int = 0, sent_to: int = 0) -> list[Packet]:
        """What one of our RTP ports sent, or was sent, in order."""
        side, port = ("src", sent_by) if sent_by else ("dst", sent_to)
        lines = await self.fields(
            f"ip.{side}=={self._address} && udp.{side}port=={port}",
            "frame.time_epoch",
            "udp.payload",
        )
        parts = [line.split("\t") for line in lines]
        return [Packet(float(at), bytes.fromhex(data.replace(":", ""))) for at, data in parts]

    async def streams(self, *ports: int) -> list[Stream]:
        """tshark's ``rtp,streams`` of all datagrams from or to these ports."""
        decode = [word for port in ports for word in ("-d", f"udp.port=={port},rtp")]
        text = await self._tshark(*decode, "-q", "-z", "rtp,streams")
        found = []
        for line in text.splitlines():
            row = _ROW.match(line)
            if row is None:
                continue
            source, destination = (row[1], int(row[2])), (row[3], int(row[4]))
            if not {source[1], destination[1]} & set(ports):
                continue
            found.append(
                Stream(
                    source=source,
                    destination=destination,
                    ssrc=row[5],
                    payloads=row[6],
                    packets=int(row[7]),
                    lost=int(row[8]),
                    max_delta_ms=float(row[11]),
                    mean_jitter_ms=float(row[13]),
                    max_jitter_ms=float(row[14]),
                    problems=bool(row[15]),
                )
            )
        return found

    async def rtp_ports(self) -> set[int]:
        """Ports of the address at which packets of 20 ms G.711 (12 + 160 bytes) arrived."""
        text = await self._tshark(
            *("-Y", f"ip.dst=={self._address} && udp.length==180"),
            *("-T", "fields", "-e", "udp.dstport"),
        )
        return {int(port) for port in text.split()}


@asynccontextmanager
async def capturing(path: Path, address: str, wanted: str = "") -> AsyncIterator[Capture]:
    """A capture for as long as the block lasts."""
    capture = Capture(path, address, wanted)
    try:
        await capture.start()
        yield capture
    finally:
        await capture.stop()
