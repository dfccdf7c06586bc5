"""sipp (Debian) as a PBX or as an agent's phone: exact SIP, and every message kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

from callshield.free_ports import free_port, free_range

SCENARIOS = Path(__file__).parent / "sipp"


class Sipp:
    """One sipp process that plays one scenario once.

    Args:
        folder: its files.
        address: loopback address that it binds to.
        scenario: name of a file in ``tests/peers/sipp``; ``$name`` in it is filled from values.
        values: for the scenario's placeholders.
        target: ``address:port`` that it calls; None waits for a call.
        service: user part of the request URI.
        calls: the scenario is played so often.
        at_once: calls that may run at the same time; 0 leaves it to sipp, which begins ten a second
            whether or not those before are over.
        scenarios: folder of the scenario's file.
        port: SIP port; a free one when 0.
        transport: sipp's name of it: ``u1`` is UDP, ``t1`` TCP.
        echo: send back every RTP packet that comes.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        scenario: str,
        *,
        values: dict[str, str] | None = None,
        target: str | None = None,
        service: str = "1001",
        calls: int = 1,
        at_once: int = 0,
        scenarios: Path = SCENARIOS,
        port: int = 0,
        transport: str = "u1",
        echo: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.address = folder, address
        self.port = port or free_port(address)
        self._transport = transport
        self._target, self._service, self._echo = target, service, echo
        self._calls, self._at_once = calls, at_once
        text = (scenarios / f"{scenario}.xml").read_text(encoding="utf-8")
        self._scenario = folder / f"{scenario}.xml"
        filled = Template(text).substitute({"hops": "70", "headers": "", **(values or {})})
        self._scenario.write_text(filled, encoding="latin-1")
        self._media_port = free_range(address, 8)[0]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def uri(self) -> str:
        return f"sip:1001@{self.address}:{self.port}"

    @property
    def media_port(self) -> int:
        return self._media_port

    async def start(self) -> None:
        target = [self._target] if self._target else []
        self._process = await asyncio.create_subprocess_exec(
            "sipp",
            *target,
            *("-sf", str(self._scenario), "-s", self._service, "-m", str(self._calls)),
            *(("-l", str(self._at_once)) if self._at_once else ()),
            *(("-rtp_echo",) if self._echo else ()),
            *("-i", self.address, "-p", str(self.port)),
            *("-mi", self.address, "-mp", str(self._media_port), "-ci", self.address, "-nostdin"),
            *("-t", self._transport),
            *("-trace_msg", "-message_file", str(self.folder / "messages")),
            *("-trace_err", "-error_file", str(self.folder / "errors")),
            cwd=self.folder,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def finish(self, timeout_s: float = 60) -> int:
        """Wait for the scenario's end; 0 when every message came as written."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    def messages(self) -> str:
        """Every SIP message that it sent and received."""
        path = self.folder / "messages"
        return path.read_text(errors="replace") if path.exists() else ""

    def received(self, start: str, *, repeated: bool = False) -> list[str]:
        """Received messages whose first line begins with ``start``.

        Args:
            start: of the first line.
            repeated: count one that comes again (RFC 3261 17.1, 13.3.1.4: byte for byte the same,
                whenever the machine was busy for T1) each time.
        """
        parts = self.messages().split("UDP message received")[1:]
        bodies = [
            part.split("-----------------------------------------------")[0] for part in parts
        ]
        texts = [body.partition("\n\n")[2] for body in bodies]
        found = [text for text in texts if text.startswith(start)]
        return found if repeated else list(dict.fromkeys(found))

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running_sipp(
    folder: Path, address: str, scenario: str, **options: object
) -> AsyncIterator[Sipp]:
    """A sipp for as long as the block lasts."""
    sipp = Sipp(folder, address, scenario, **options)  # type: ignore[arg-type]
    try:
        await sipp.start()
        yield sipp
    finally:
        await sipp.stop()
