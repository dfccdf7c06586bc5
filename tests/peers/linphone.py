"""linphonec (Debian: linphone-cli) as an agent's softphone: speaks a file, records what it hears.

It takes orders on its standard input, the digits of a DTMF code as a line of their own.
"""

from __future__ import annotations

import asyncio
import configparser
import io
import os
import re
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callshield.free_ports import free_port, free_range
from callshield.heard import read_growing_wav

#: It binds to every address; its packets to the loopback come from here.
ADDRESS = "127.0.0.1"


class Linphone:
    """One linphonec.

    Args:
        folder: its configuration and recording.
        user: user part of its URI.
        source: WAV file (8 kHz mono) that it speaks, over and over; on hold, too.
    """

    def __init__(self, folder: Path, user: str, source: Path) -> None:
        folder.mkdir(parents=True)
        (folder / ".local/share/linphone").mkdir(parents=True)
        self.folder, self.user, self.source = folder, user, source
        self.port = free_port(ADDRESS)
        self._rtp = free_range(ADDRESS, 4)[0]
        self.configuration = ""
        """Of the account, in Linphone's own format."""
        self.recording = folder / "heard.wav"
        self._said = ""
        self._news = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{ADDRESS}:{self.port}"

    @property
    def trace(self) -> str:
        """Its own log, SIP messages and all."""
        return (self.folder / "trace").read_text(encoding="utf-8", errors="replace")

    def _write(self) -> Path:
        """The account's configuration, and what only a test needs: ports of its own."""
        file = configparser.RawConfigParser(strict=False)
        file.optionxform = str  # type: ignore[assignment,method-assign]
        file.read_string(self.configuration)
        more = {
            "sip": {"sip_port": self.port, "sip_tcp_port": -1, "sip_tls_port": -1},
            "rtp": {"audio_rtp_port": self._rtp},
        }
        for section, keys in more.items():
            if not file.has_section(section):
                file.add_section(section)
            for key, value in keys.items():
                file.set(section, key, str(value))
        text = io.StringIO()
        file.write(text, space_around_delimiters=False)
        path = self.folder / "linphonerc"
        path.write_text(text.getvalue(), encoding="utf-8")
        return path

    async def start(self) -> None:
        """Start it, and let it speak and record files instead of a sound card."""
        self._process = await asyncio.create_subprocess_exec(
            "linphonec",
            *("-c", str(self._write()), "-d", "5", "-l", str(self.folder / "trace")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(self.folder), "LANG": "C.UTF-8"},
        )
        self._reader = asyncio.create_task(self._read())
        await self.until("linphonec>")
        await self.say("soundcard use files")
        await self.until("Using wav files")
        await self.say(f"play {self.source}")
        await self.say(f"record {self.recording}")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(4096):
            async with self._news:
                self._said += data.decode(errors="replace")
                self._news.notify_all()

    async def say(self, line: str) -> None:
        """One line at its prompt."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, text: str, *, count: int = 1, timeout_s: float = 30) -> None:
        """Wait until it printed a text so often."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: self._said.count(text) >= count)
        except TimeoutError:
            raise AssertionError(f"linphonec never said {text!r}:\n{self._said}") from None

    # ------------------------------------------------------------------- what an agent does

    async def answer(self) -> None:
        await self.until("Receiving new incoming call")
        await self.say("answer")

    async def press(self, digits: str) -> None:
        await self.say(digits)

    async def hold(self) -> None:
        """Hold; a resume that comes before the other side agreed would be lost."""
        before = self._said.count(" is now paused")
        await self.say("pause")
        await self.until(" is now paused", count=before + 1)

    async def resume(self) -> None:
        """Go on; digits pressed before its streams run again would be lost."""
        before = self._said.count("Media streams established")
        await self.say("resume")
        await self.until("Media streams established", count=before + 1)

    async def over(self) -> None:
        """Wait until its call has ended."""
        await self.until(" ended (")

    def heard(self) -> NDArray[np.float32]:
        """What it heard, at 8 kHz, full scale ±1."""
        return read_growing_wav(self.recording)

    def user_agent(self) -> str:
        """As it signs its messages."""
        found = re.search(r"^User-Agent: (Linphone.*?)\r?$", self.trace, re.MULTILINE)
        assert found is not None
        return found[1]

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.say("quit")
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reader is not None:
            await self._reader
