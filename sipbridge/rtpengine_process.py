"""An rtpengine of our own, started and stopped by hand: for benchmarks and tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
from pathlib import Path

from callshield.errors import SetupError
from sipbridge.media_worker import REALTIME_PRIORITY
from sipbridge.ng_client import NgClient, NgRefused, NgUnreachable
from sipbridge.ng_protocol import media_of, session_description

#: The benchmark's media address and its control port's.
ADDRESS = "127.0.0.10"
_STARTED_WITHIN_S = 30.0
_STOPPED_WITHIN_S = 5.0


def rtpengine_binary() -> str | None:
    """Where rtpengine is (Debian: rtpengine-daemon); None when it is not installed."""
    return shutil.which("rtpengine", path="/usr/bin:/usr/sbin:/usr/local/bin")


def free_udp_port(address: str) -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class Rtpengine:
    """A running rtpengine in userspace mode; use as ``async with``.

    Args:
        binary: see :func:`rtpengine_binary`.
        interfaces: ``name/address`` each; the first one's address is the control port's too.
        ports: first and last of its RTP ports.
        options: more of its command line.
        log: file for what it says; nowhere when absent.
        control_port: of its ng protocol; a free one when 0.
    """

    def __init__(
        self,
        binary: str,
        *,
        interfaces: tuple[str, ...] = (f"lo/{ADDRESS}",),
        ports: tuple[int, int],
        options: tuple[str, ...] = (),
        log: Path | None = None,
        control_port: int = 0,
    ) -> None:
        self._binary = binary
        self._log = log
        self.prefix: tuple[str, ...] = ()
        """A command that runs it, such as ``nice``."""
        address = interfaces[0].partition("/")[2]
        self.control = (address, control_port or free_udp_port(address))
        self.arguments: tuple[str, ...] = (
            "--config-file=none",
            "--foreground",
            "--log-stderr",
            "--log-level=5" if log is not None else "--log-level=3",
            "--table=-1",
            *(f"--interface={interface}" for interface in interfaces),
            f"--listen-ng={self.control[0]}:{self.control[1]}",
            f"--port-min={ports[0]}",
            f"--port-max={ports[1]}",
            "--num-threads=2",
            "--delete-delay=0",
            *self._scheduling(),
            *options,
        )
        """Its command line."""
        self._process: asyncio.subprocess.Process | None = None
        self._client: NgClient | None = None

    @staticmethod
    def _scheduling() -> list[str]:
        """The scheduling that the media worker gets where it may: a fair comparison."""
        before = os.sched_getscheduler(0)
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
        except OSError:
            return []
        os.sched_setscheduler(0, before, os.sched_param(0))
        return ["--scheduling=rr", f"--priority={REALTIME_PRIORITY}"]

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def client(self) -> NgClient:
        """To ask it."""
        assert self._client is not None
        return self._client

    async def start(self) -> None:
        """Run it, and wait until it answers.

        Raises:
            SetupError: it does not.
        """
        with contextlib.ExitStack() as files:
            out = asyncio.subprocess.DEVNULL
            if self._log is not None:
                out = files.enter_context(self._log.open("ab")).fileno()
            self._process = await asyncio.create_subprocess_exec(
                *self.prefix,
                self._binary,
                *self.arguments,
                stdout=out,
                stderr=out,
            )
        deadline = asyncio.get_running_loop().time() + _STARTED_WITHIN_S
        self._client = await NgClient.open(self.control)
        while self._process.returncode is None:
            with contextlib.suppress(NgUnreachable):
                if await self._client.ping(0.2):
                    return
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)
        await self.stop()
        raise SetupError("rtpengine does not answer: start it by hand to see why")

    async def stop(self) -> None:
        """End it."""
        if self._client is not None:
            self._client.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _STOPPED_WITHIN_S)
            await self.kill()

    async def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Rtpengine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def relay(
        self, caller: tuple[str, int], agent: tuple[str, int]
    ) -> tuple[tuple[str, int], tuple[str, int]]:
        """Set up one call.

        Returns:
            Where the caller and where the agent has to send to.

        Raises:
            SetupError: rtpengine refused.
        """
        call = {
            "call-id": secrets.token_hex(8),
            "from-tag": secrets.token_hex(4),
            "ICE": "remove",
            "replace": ["origin", "session-connection"],
            "flags": ["trust-address"],
        }
        try:
            offer = await self.client.ask("offer", {**call, "sdp": session_description(*caller)})
            answer = await self.client.ask(
                "answer",
                {**call, "to-tag": secrets.token_hex(4), "sdp": session_description(*agent)},
            )
        except (NgRefused, NgUnreachable) as error:
            raise SetupError(f"rtpengine refused a call: {error}") from None
        return media_of(answer["sdp"]), media_of(offer["sdp"])
