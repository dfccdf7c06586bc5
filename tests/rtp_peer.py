"""Far ends for the media worker's tests: RTP sockets, a bridge, a detector. All on loopback."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
import uuid
import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import uvloop
from numpy.typing import NDArray

from callshield import free_ports, g711
from callshield.bus import BusClient
from callshield.messages import LegName
from callshield.messages_media import (
    FlowUpdate,
    LegUpdate,
    MediaMessage,
    OpenSession,
    PlayPrompts,
    SessionOpened,
)
from callshield.settings import Settings
from callshield.tap import CallerFrame, decode_batch
from sipbridge.bench_arrivals import HEADER
from sipbridge.media_worker import MediaWorker

WAIT_S = 20.0
T = TypeVar("T")


def tone(frequency_hz: float, seconds: float, amplitude: float = 1500.0) -> NDArray[np.int16]:
    """A sine, int16 at 8 kHz; quieter than what the shock guard cuts."""
    at_s = np.arange(int(seconds * 8000)) / 8000
    return (amplitude * np.sin(2 * np.pi * frequency_hz * at_s)).astype(np.int16)


def strength(samples: NDArray[np.int16], frequency_hz: float) -> float:
    """Share of a signal's energy that lies at one frequency, 0..1."""
    linear = samples.astype(float)
    turning = np.exp(-2j * np.pi * frequency_hz * np.arange(len(linear)) / 8000)
    energy = float(np.sum(linear**2))
    return 0.0 if energy == 0 else float(2 * abs(turning @ linear) ** 2 / len(linear) / energy)


def write_wav(path: Path, samples: NDArray[np.int16], rate_hz: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def free_range(pairs: int, address: str = "127.0.0.1") -> tuple[int, int]:
    """An even first port and the last port of a range that is free now."""
    return free_ports.free_range(address, 2 * pairs)


def node_settings(folder: Path, *, pairs: int = 8, **sip: Any) -> Settings:
    """A node on loopback with sockets in ``folder``: two sides on two addresses."""
    return Settings(**node_values(folder, pairs=pairs, **sip))


def node_values(folder: Path, *, pairs: int = 8, **sip: Any) -> dict[str, Any]:
    pbx = {"bind": "127.0.0.1", "rtp_ports": list(free_range(pairs))}
    phone = {"bind": "127.0.0.2", "rtp_ports": list(free_range(pairs, "127.0.0.2"))}
    pbx.update(sip.pop("pbx", {}))
    phone.update(sip.pop("phone", {}))
    return {
        "node": {"state_dir": str(folder), "runtime_dir": str(folder / "run")},
        "sip": {"pbx": pbx, "phone": phone, **sip},
    }


@dataclass(frozen=True)
class Heard:
    """One packet that a peer received."""

    first: int
    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    source: tuple[str, int]
    at: float


class RtpPeer(asyncio.DatagramProtocol):
    """A PBX's or phone's media socket."""

    transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.address: tuple[str, int] = ("", 0)
        self._news = asyncio.Event()
        self.sequence = random.randrange(65536)
        self.timestamp = random.randrange(2**32)
        self.ssrc = random.randrange(2**32)
        self.target: tuple[str, int] = ("", 0)

    @classmethod
    async def open(cls, address: str) -> RtpPeer:
        loop = asyncio.get_running_loop()
        transport, peer = await loop.create_datagram_endpoint(cls, local_addr=(address, 0))
        peer.transport = transport
        peer.address = transport.get_extra_info("sockname")
        return peer

    def datagram_received(self, data: bytes, source: Any) -> None:
        first, kind, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        self.heard.append(
            Heard(
                first,
                bool(kind & 0x80),
                kind & 0x7F,
                sequence,
                timestamp,
                ssrc,
                data[12:],
                source,
                time.monotonic(),
            )
        )
        self._news.set()

    def send_raw(self, data: bytes) -> None:
        self.transport.sendto(data, self.target)

    def packet(self, payload: bytes, payload_type: int = 0, *, marker: bool = False) -> bytes:
        """The next packet of this peer's stream."""
        data = HEADER.pack(
            0x80,
            payload_type | (0x80 if marker else 0),
            self.sequence,
            self.timestamp,
            self.ssrc,
        )
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (self.timestamp + len(payload)) & 0xFFFFFFFF
        return data + payload

    def say(self, payload: bytes, payload_type: int = 0, *, marker: bool = False) -> None:
        self.send_raw(self.packet(payload, payload_type, marker=marker))

    def press(self, code: int, payload_type: int = 101, *, ends: int = 3) -> None:
        """One whole telephone-event: three updates, then the end, sent ``ends`` times."""
        start = self.timestamp
        for number in range(3 + ends):
            end = number >= 3
            duration = 160 * min(number + 1, 4)
            payload = bytes([code, (0x80 if end else 0) | 10]) + duration.to_bytes(2, "big")
            data = HEADER.pack(
                0x80,
                payload_type | (0x80 if number == 0 else 0),
                self.sequence,
                start,
                self.ssrc,
            )
            self.send_raw(data + payload)
            self.sequence = (self.sequence + 1) & 0xFFFF
        self.timestamp = (start + 640) & 0xFFFFFFFF

    async def until(self, met: Callable[[list[Heard]], bool]) -> list[Heard]:
        """Wait until what was heard meets a condition."""
        async with asyncio.timeout(WAIT_S):
            while not met(self.heard):
                self._news.clear()
                await self._news.wait()
        return self.heard

    async def hear(self, count: int) -> list[Heard]:
        return await self.until(lambda heard: len(heard) >= count)

    def close(self) -> None:
        self.transport.close()


class Bridge:
    """The other end of the media worker's control socket."""

    def __init__(self, settings: Settings) -> None:
        self.messages: list[MediaMessage] = []
        self._news = asyncio.Event()
        self._requests = 0
        self._client: BusClient[MediaMessage] = BusClient(
            settings.media_path, MediaMessage, self._on_message, list
        )
        self._client.start()

    async def _on_message(self, message: MediaMessage) -> None:
        self.messages.append(message)
        self._news.set()

    def send(self, message: MediaMessage) -> None:
        self._client.send(message)

    async def expect(self, kind: type[T], **fields: Any) -> T:
        """The first message of a kind with these fields, taken out of what has come."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for message in self.messages:
                    if isinstance(message, kind) and all(
                        getattr(message, name) == value for name, value in fields.items()
                    ):
                        self.messages.remove(message)
                        return message
                self._news.clear()
                await self._news.wait()

    async def open(self, call_id: str | None = None) -> SessionOpened:
        self._requests += 1
        self.send(OpenSession(request_id=self._requests, call_id=call_id or uuid.uuid4().hex))
        return await self.expect(SessionOpened, request_id=self._requests)

    async def settle(self) -> None:
        """Wait until the worker has carried out everything sent so far."""
        # Messages of one peer are handled in order: the answer to this one comes last.
        self._requests += 1
        self.send(OpenSession(request_id=self._requests, call_id="not a call id"))
        await self.expect(SessionOpened, request_id=self._requests)

    async def close(self) -> None:
        await self._client.close()


class WorkerThread:
    """A media worker in this process, in a thread with the worker's own event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="media worker")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        worker = MediaWorker(self._settings)
        await worker.start()
        self._ready.set()
        await self._stop.wait()
        await worker.close()

    @classmethod
    async def start(cls, settings: Settings) -> WorkerThread:
        made = cls(settings)
        made._thread.start()
        assert await asyncio.to_thread(made._ready.wait, WAIT_S)
        return made

    async def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, WAIT_S)
        assert not self._thread.is_alive()


class Call:
    """A session with a caller and an agent attached."""

    def __init__(self, bridge: Bridge, opened: SessionOpened, caller: RtpPeer, agent: RtpPeer):
        self.bridge = bridge
        self.opened = opened
        self.call_id = opened.call_id
        self.caller = caller
        self.agent = agent

    @classmethod
    async def set_up(
        cls, bridge: Bridge, *, caller_type: int = 0, agent_type: int = 0, answered: bool = True
    ) -> Call:
        opened = await bridge.open()
        assert opened.error == ""
        caller = await RtpPeer.open("127.0.0.1")
        agent = await RtpPeer.open("127.0.0.2")
        caller.target = ("127.0.0.1", opened.caller_port)
        agent.target = ("127.0.0.2", opened.agent_port)
        call = cls(bridge, opened, caller, agent)
        if answered:
            call.negotiate(LegName.CALLER, payload_type=caller_type, event_payload_type=101)
            call.negotiate(LegName.AGENT, payload_type=agent_type, event_payload_type=96)
            await bridge.settle()
        return call

    def negotiate(
        self,
        leg: LegName,
        *,
        address: tuple[str, int] | None = None,
        payload_type: int = 0,
        event_payload_type: int = 101,
        signalling: str = "",
    ) -> None:
        peer = self.caller if leg is LegName.CALLER else self.agent
        host, port = address or peer.address
        self.bridge.send(
            LegUpdate(
                call_id=self.call_id,
                leg=leg,
                address=host,
                port=port,
                payload_type=payload_type,
                event_payload_type=event_payload_type,
                signalling_address=signalling,
            )
        )

    async def flow(self, *, to_agent: bool = True, to_caller: bool = True, **more: bool) -> None:
        self.bridge.send(
            FlowUpdate(
                call_id=self.call_id,
                caller_to_agent=to_agent,
                agent_to_caller=to_caller,
                **{"tap": False, **more},
            )
        )
        await self.bridge.settle()

    def play(self, play_id: int, leg: LegName, files: Iterable[Path], **more: Any) -> None:
        self.bridge.send(
            PlayPrompts(
                call_id=self.call_id,
                play_id=play_id,
                leg=leg,
                files=[str(file) for file in files],
                **more,
            )
        )

    def hang_up(self) -> None:
        self.caller.close()
        self.agent.close()


class Detector:
    """The far end of the tap."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.frames: list[CallerFrame] = []
        self.batches = 0
        self._news = asyncio.Event()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        _, frames = decode_batch(self._socket.recv(65536))
        self.batches += 1
        self.frames += frames
        self._news.set()

    async def until(self, met: Callable[[list[CallerFrame]], bool]) -> list[CallerFrame]:
        async with asyncio.timeout(WAIT_S):
            while not met(self.frames):
                self._news.clear()
                await self._news.wait()
        return self.frames

    def stop_reading(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)

    def go_on_reading(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)


def payloads(samples: NDArray[np.int16], payload_type: int = 0) -> list[bytes]:
    """Frames of 20 ms, whole ones only."""
    data = g711.encode(samples, payload_type)
    return [data[at : at + 160] for at in range(0, len(data) - 159, 160)]


class Payload(Protocol):
    """Whatever has one."""

    @property
    def payload(self) -> bytes: ...


def decoded(heard: Iterable[Payload], payload_type: int = 0) -> NDArray[np.int16]:
    return g711.decode(b"".join(packet.payload for packet in heard), payload_type)
