"""baresip (Debian) as a caller or as an agent's phone: plays a file, records what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from callshield import free_ports

_CONFIG = """\
poll_method epoll
sip_listen {address}:{port}
call_local_timeout 120
call_max_calls 8
audio_player aufile,{folder}/play.wav
audio_source aufile,{source}
audio_alert aufile,{folder}/alert.wav
audio_level no
ausrc_srate 8000
auplay_srate 8000
ausrc_format s16
auplay_format s16
rtp_ports {rtp_first}-{rtp_last}
rtcp_mux no
jitter_buffer_delay {jitter_buffer}
net_interface {address}
module_path /usr/lib/baresip/modules
module stdio.so
module g711.so
module g722.so
module opus.so
module srtp.so
module aufile.so
module ausine.so
module sndfile.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {address}:{control}
snd_path {folder}/rec
"""


#: Ranges of the latest; so many are never up at once.
_given: deque[tuple[int, int]] = deque(maxlen=64)
#: Where the product's own default ranges begin, which a node or a benchmark may fill.
DEFAULTS_FROM = 20000


def media_ports() -> tuple[int, int]:
    """A range of RTP ports that no other baresip of this process has: it binds to no address.

    Raises:
        OSError: there is none.
    """
    # A lane may have ports above the defaults only (`tests.lanes`).
    below = DEFAULTS_FROM if DEFAULTS_FROM - free_ports.LOWEST > 4000 else free_ports.HIGHEST + 1
    for _ in range(1000):
        first, last = free_ports.free_range("0.0.0.0", 20)
        if last < below and all(last < other[0] or other[1] < first for other in _given):
            _given.append((first, last))
            return first, last
    raise OSError(f"no 20 ports for a telephone between {free_ports.LOWEST} and {below}")


class Baresip:
    """One baresip process with one account.

    Args:
        folder: its configuration and recordings.
        address: loopback address that it binds to.
        user: user part of its URI.
        source: WAV file (8 kHz mono) that it speaks.
        auto_answer: pick up by itself.
        codecs: its codecs, in order.
        options: more parameters of its account, such as ``;mediaenc=srtp-mand``.
        registrar: ``address:port`` of a PBX where it registers; its own host when empty.
        jitter_buffer: least and most frames; ``0-0`` for none. Version 1.0 drops a new SSRC whose
            sequence numbers begin below those of the one before as too late, for up to 32768 of
            them: a phone whose PBX changes the SSRC in mid-call may hear nothing more.
    """

    #: Of its command line; ``-s`` writes SIP messages to its log.
    flags: tuple[str, ...] = ("-v",)

    def __init__(
        self,
        folder: Path,
        address: str,
        user: str,
        source: Path,
        *,
        auto_answer: bool = True,
        codecs: str = "pcma/8000/1,pcmu/8000/1",
        options: str = "",
        registrar: str = "",
        jitter_buffer: str = "1-5",
    ) -> None:
        self.folder, self.address, self.user = folder, address, user
        self.port = free_ports.free_port(address)
        self.control = free_ports.free_port(address)
        first, last = self.media_ports = media_ports()
        (folder / "rec").mkdir(parents=True)
        (folder / "config").write_text(
            _CONFIG.format(
                address=address,
                port=self.port,
                folder=folder,
                source=source,
                rtp_first=first,
                rtp_last=last,
                control=self.control,
                jitter_buffer=jitter_buffer,
            ),
            encoding="utf-8",
        )
        mode = "auto" if auto_answer else "manual"
        home = f"{registrar}>;regint=600" if registrar else f"{address}:{self.port}>;regint=0"
        (folder / "accounts").write_text(
            f"<sip:{user}@{home};answermode={mode};audio_codecs={codecs}{options}\n",
            encoding="utf-8",
        )
        (folder / "contacts").write_text("", encoding="utf-8")
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{self.address}:{self.port}"

    async def start(self) -> None:
        """Start it and connect to its control port."""
        with (self.folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "baresip",
                *("-f", str(self.folder), *self.flags),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(20):
            while True:
                if self._process.returncode is not None:
                    raise AssertionError(f"baresip ended: {(self.folder / 'log').read_text()}")
                try:
                    reader, self._writer = await asyncio.open_connection(self.address, self.control)
                    break
                except OSError:
                    await asyncio.sleep(0.05)  # not listening yet: ask again
        self._reader_task = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await reader.readuntil(b":"))[:-1])
                body = json.loads(await reader.readexactly(length))
                await reader.readexactly(1)
                async with self._news:
                    self.events.append({**body, "at": time.time()})
                    self._news.notify_all()

    @property
    def of_calls(self) -> list[dict[str, Any]]:
        """What it said of calls; of its registration it speaks whenever that is refreshed."""
        return [event for event in self.events if event.get("class") == "call"]

    async def kill(self) -> None:
        """``kill -9``: not a word to anybody. It may be started again, with the same address."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        await self.stop()

    async def command(self, command: str, params: str = "") -> None:
        """One command of baresip's menu."""
        assert self._writer is not None
        body = json.dumps({"command": command, "params": params}).encode()
        self._writer.write(str(len(body)).encode() + b":" + body + b",")
        await self._writer.drain()

    async def wait(self, kind: str, timeout_s: float = 40, *, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of a type, e.g. ``CALL_ESTABLISHED``."""

        def matching() -> list[dict[str, Any]]:
            return [event for event in self.events if event.get("type") == kind]

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: len(matching()) >= count)
        except TimeoutError:
            raise AssertionError(
                f"{self.user} never saw {kind}; it saw {[e.get('type') for e in self.events]}"
            ) from None
        return matching()[count - 1]

    async def press(self, digits: str) -> float:
        """Press digits (RFC 4733); the time at which the last was handed over."""
        for digit in digits:
            await self.command("sndcode", digit)
            await self.command("sndcode", "\x04")
        return time.time()

    def pause(self, *, paused: bool) -> None:
        """``kill -STOP`` it, or let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def heard(self) -> NDArray[np.float32]:
        """What it heard, at 8 kHz, mono, full scale ±1, whatever its codec was; then 0.1 s of
        silence, because the last frames die with its jitter buffer."""
        raw = self.recording().read_bytes()
        at = raw.find(b"fmt ") + 8
        channels, rate = struct.unpack_from("<HI", raw, at + 2)
        body = raw[raw.find(b"data") + 8 :]
        samples = np.frombuffer(body[: len(body) // (2 * channels) * 2 * channels], "<i2")
        mono = samples.reshape(-1, channels).mean(axis=1) / 32768
        narrow = soxr.resample(mono, rate, 8000)
        return np.asarray(np.concatenate([narrow, np.zeros(800)]), dtype=np.float32)

    def recording(self) -> Path:
        """What it heard (decoded), newest call."""
        found = sorted((self.folder / "rec").glob("dump-*-dec.wav"))
        assert found, f"no recording in {self.folder / 'rec'}"
        return found[-1]

    async def stop(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                async with asyncio.timeout(30):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._reader_task is not None:
            self._reader_task.cancel()
            await asyncio.gather(self._reader_task, return_exceptions=True)


@asynccontextmanager
async def running_baresip(
    folder: Path, address: str, user: str, source: Path, **options: Any
) -> AsyncIterator[Baresip]:
    """A baresip for as long as the block lasts."""
    phone = Baresip(folder, address, user, source, **options)
    try:
        await phone.start()
        yield phone
    finally:
        await phone.stop()
