"""A node as far as SIP sees one: its real bridge process, and a double of the media worker.

What a node answers to INVITE and OPTIONS, and when it drains, is the bridge's doing alone; a whole
node takes many times as long to start.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from callshield.free_ports import free_port
from callshield.messages import LegName
from callshield.messages_media import LegUpdate
from callshield.settings import load_settings
from tests.peers.signalling import FakeWorker


class BridgeNode:
    """One bridge.

    Args:
        folder: its files.
        agents: agent id → SIP URI of the phone.
        peer: address of the edge.
        sides: our addresses towards the PBX and the phones.
        sip: more keys of ``[sip]``.
        pbx_side: more keys of ``[sip.pbx]`` and tables below it.
    """

    def __init__(
        self,
        folder: Path,
        agents: dict[str, str],
        *,
        peer: str,
        sides: tuple[str, str],
        sip: str = "",
        pbx_side: str = "",
    ) -> None:
        folder.mkdir(parents=True)
        self.pbx_address, phone_address = sides
        self.pbx_port = free_port(self.pbx_address)
        tables = "".join(f'[agents.{name}]\nuri = "{uri}"\n' for name, uri in agents.items())
        config = folder / "callshield.toml"
        config.write_text(
            f"""
[node]
state_dir = "{folder}"
runtime_dir = "{folder}"
stop_timeout_s = 60
[sip]
{sip}
[sip.pbx]
bind = "{self.pbx_address}"
port = {self.pbx_port}
{pbx_side}
[sip.phone]
bind = "{phone_address}"
port = {free_port(phone_address)}
[[peers]]
name = "edge"
networks = ["{peer}"]
attests_notice = true
{tables}
""",
            encoding="utf-8",
        )
        self.config, self.log_path = config, folder / "log"
        self.settings = load_settings(config)
        self._media = FakeWorker(self.settings.media_path)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        if self._process is None:
            await self._media.server.start()
        before = len(self.logs("bridge_ready"))
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "sipbridge.process", "--config", str(self.config)),
                stderr=log,
            )
        async with asyncio.timeout(60):
            while len(self.logs("bridge_ready")) == before:
                assert self.running, self.log_path.read_text()
                await asyncio.sleep(0.05)  # a file tells nobody that it grew

    def logs(self, event: str) -> list[dict[str, Any]]:
        """Log lines with this event name."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]

    async def connected(self, call_id: str) -> None:
        """Wait until it has the ACK of a call's caller.

        Before that, the caller's next INVITE is refused with 491; and an ACK that lies in the
        edge's socket when the edge ends is gone.
        """
        await self._media.wait(
            LegUpdate, lambda update: update.call_id == call_id and update.leg is LegName.CALLER
        )

    @property
    def running(self) -> bool:
        """It was started and did not end yet."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """SIGTERM: calls finish, new ones are refused. SIGKILL: nothing at all."""
        assert self._process is not None
        self._process.send_signal(number)

    async def drains(self) -> None:
        """SIGTERM, and wait until it says that it drains."""
        before = len(self.logs("bridge_draining"))
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            # A file tells nobody that it grew.
            while len(self.logs("bridge_draining")) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def ended(self, timeout_s: float = 60) -> int:
        """Wait until it ends by itself; its exit status."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    async def stop(self) -> None:
        """At once, whatever calls there are."""
        if self.running:
            self.signal(signal.SIGKILL)
            await self.ended()
        await self._media.server.close()
