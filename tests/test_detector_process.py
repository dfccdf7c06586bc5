"""The detector process: real sockets, bad datagrams, and the notifier's bus at the other end."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield import g711
from callshield.bus import BusServer, Peer
from callshield.errors import BusError
from callshield.messages import Hello, NodeDegraded, NodeMessage, RiskChanged
from callshield.settings import DetectorSettings, NodeSettings, Settings
from callshield.tap import MAGIC, CallerFrame, TapCodec, TapKind, encode_batches
from detectors import corpora
from detectors.acoustic import CARD_FILE, MODEL_FILE, SHIPPED
from detectors.engine import Verdict
from detectors.process import DetectorProcess, TapQueue, describe, open_tap, risk_changed
from detectors.resample import to_8k, to_int16
from detectors.risk import Decision, Rule
from tests.detector_sounds import DATA, needs_data


def frame(call_id: bytes, number: int, payload: bytes) -> CallerFrame:
    return CallerFrame(
        call_id,
        TapKind.AUDIO,
        TapCodec.PCMU,
        number % 2**16,
        number * 160 % 2**32,
        number * 20,
        payload,
    )


def batch(frames: list[CallerFrame]) -> bytes:
    (datagram,) = encode_batches(frames, time.monotonic_ns())
    return datagram


def make_settings(tmp_path: Path, model_dir: Path | None = None) -> Settings:
    # A socket's path is short: /tmp/pytest-of-… can come near the limit of 107 bytes.
    return Settings(
        node=NodeSettings(state_dir=tmp_path, runtime_dir=tmp_path / "r"),
        detector=DetectorSettings(model_dir=model_dir),
    )


class Notifier:
    """The other end of the bus: keeps what it hears, and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: list[NodeMessage] = []
        self._changed = asyncio.Event()

    async def on_message(self, _peer: Peer[NodeMessage], message: NodeMessage) -> None:
        self.heard.append(message)
        self._changed.set()

    async def wait(self, until: Callable[[list[NodeMessage]], bool], limit_s: float = 20.0) -> None:
        async with asyncio.timeout(limit_s):
            while not until(self.heard):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(config: Settings) -> AsyncIterator[tuple[Notifier, socket.socket]]:
    """A detector with a notifier behind it and a media worker's socket before it."""
    notifier = Notifier()
    bus: BusServer[NodeMessage] = BusServer(config.bus_path, NodeMessage, notifier.on_message)
    await bus.start()
    stop = asyncio.Event()
    task = asyncio.create_task(DetectorProcess(config).run(stop))
    await notifier.wait(lambda heard: any(isinstance(m, Hello) for m in heard))
    tap = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    tap.connect(str(config.tap_path))
    try:
        yield notifier, tap
    finally:
        tap.close()
        stop.set()
        await asyncio.wait_for(task, 10)
        await bus.close()


async def play(tap: socket.socket, call_id: bytes, pcm: np.ndarray, faster: float = 6.0) -> None:
    """Send audio as a media worker does, several times faster than real time."""
    payloads = g711.encode(pcm, g711.PCMU)
    for start in range(0, len(payloads) // 1600 * 1600, 1600):
        frames = [
            frame(call_id, at // 160, payloads[at : at + 160])
            for at in range(start, start + 1600, 160)
        ]
        await asyncio.get_running_loop().sock_sendall(tap, batch(frames))
        await asyncio.sleep(0.2 / faster)


def recorded(speaker: str, emotion: str, clips: int) -> np.ndarray:
    chosen = [
        c
        for c in corpora.read_manifest(DATA)
        if c.corpus == "emodb" and c.speaker == speaker and c.emotion == emotion
    ][:clips]
    assert len(chosen) == clips
    return np.concatenate([to_int16(to_8k(*corpora.read_clip(c.path))) for c in chosen])


@needs_data
@pytest.mark.data
async def test_a_shouting_caller_raises_a_level_at_the_notifier_and_a_calm_one_does_not(
    tmp_path: Path,
) -> None:
    angry, calm, witness = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    async with running(make_settings(tmp_path)) as (notifier, tap):
        tap.setblocking(False)
        await play(tap, calm.bytes, recorded("emodb_12", "neutral", 4))
        await play(tap, angry.bytes, recorded("emodb_12", "anger", 4))
        await notifier.wait(
            lambda heard: any(isinstance(m, RiskChanged) and m.level == 2 for m in heard)
        )
        # Bytes that are no batch cost nothing: a third call after them is still heard.
        await asyncio.get_running_loop().sock_sendall(tap, b"CSTP\xff garbage")
        await play(tap, witness.bytes, recorded("emodb_12", "anger", 4))
        await notifier.wait(
            lambda heard: any(
                isinstance(m, RiskChanged) and m.call_id == witness.hex for m in heard
            )
        )
    risks = [m for m in notifier.heard if isinstance(m, RiskChanged)]
    assert not [m for m in risks if m.call_id == calm.hex]
    first = [m for m in risks if m.call_id == angry.hex]
    assert [(m.previous, m.level) for m in first][:2] in ([(0, 1), (1, 2)], [(0, 2)])
    two = next(m for m in first if m.level == 2)
    assert two.categories == ["shouting"]
    assert two.reasons[0].kind == "vocal_effort"
    assert "고성" in two.reasons[0].detail
    assert 0.5 < two.score <= 1.0


async def test_a_corrupt_model_degrades_the_node_and_the_process_lives(tmp_path: Path) -> None:
    for name in (MODEL_FILE, CARD_FILE):
        shutil.copy(SHIPPED / name, tmp_path / name)
    (tmp_path / MODEL_FILE).write_bytes(b"broken")
    async with running(make_settings(tmp_path, model_dir=tmp_path)) as (notifier, _):
        await notifier.wait(lambda heard: any(isinstance(m, NodeDegraded) for m in heard))
    # Said on connecting, and perhaps once more from the queue; the notifier stores it once.
    told, *again = [m for m in notifier.heard if isinstance(m, NodeDegraded)]
    assert all((m.degraded, m.reason) == (True, told.reason) for m in again)
    assert told.degraded
    assert told.component == "detector"
    assert "not the one that its card names" in told.reason


async def test_the_tap_socket_is_private_and_gone_after_a_clean_stop(tmp_path: Path) -> None:
    config = make_settings(tmp_path)
    async with running(config):
        assert config.tap_path.stat().st_mode & 0o777 == 0o600
    assert not config.tap_path.exists()


def test_a_runtime_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r"choose a node\.runtime_dir"):
        open_tap(tmp_path / ("x" * 120) / "tap.sock")


def test_a_wrong_configuration_ends_the_process_with_status_2(tmp_path: Path) -> None:
    config = tmp_path / "callshield.toml"
    config.write_text("[node]\nname = 5\n", encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "detectors.process", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 2
    assert "node.name" in ran.stderr
    assert "Traceback" not in ran.stderr


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_datagram_breaks_the_queue(data: bytes) -> None:
    queue = TapQueue()
    good = batch([frame(bytes(16), 1, b"\xff" * 160)])
    queue.datagram_received(data, None)
    queue.datagram_received(good, None)
    frames = queue.take()
    assert frames[-1].payload == b"\xff" * 160
    if not data.startswith(MAGIC):
        assert queue.bad_datagrams == 1
        assert len(frames) == 1


def test_batches_with_bytes_changed_or_cut_off_never_break_the_queue() -> None:
    rng = random.Random(5)
    whole = batch([frame(bytes([i]) * 16, i, bytes(160)) for i in range(8)])
    queue = TapQueue(limit=10_000)
    for _ in range(2000):
        damaged = bytearray(whole[: rng.randrange(len(whole) + 1)])
        for _ in range(rng.randrange(6)):
            if damaged:
                damaged[rng.randrange(min(len(damaged), 80))] = rng.randrange(256)
        queue.datagram_received(bytes(damaged), None)
    queue.take()
    assert queue.bad_datagrams > 1000


def test_a_full_queue_drops_the_oldest_datagram_and_counts_it() -> None:
    queue = TapQueue(limit=3)
    for i in range(5):
        queue.datagram_received(batch([frame(bytes(16), i, b"x")]), None)
    assert [f.sequence for f in queue.take()] == [2, 3, 4]
    assert queue.dropped_datagrams == 2


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
def test_every_rule_has_words_in_every_language(language: str) -> None:
    for rule in Rule:
        assert describe(rule, 1.5, language)  # type: ignore[arg-type]
    assert "1.5" in describe(Rule.SUSTAINED_EFFORT, 1.5, language)  # type: ignore[arg-type]


def test_a_forgotten_call_is_reported_calm_without_a_category() -> None:
    verdict = Verdict(bytes(range(16)), 12.5, None, Decision(0, 2, 0.0, None, 0.0))
    message = risk_changed(verdict, 1000.0, "ko")
    assert (message.level, message.previous, message.categories) == (0, 2, [])
    assert message.call_id == bytes(range(16)).hex()
    assert message.reasons == []


async def test_a_new_notifier_is_told_the_levels_again(tmp_path: Path) -> None:
    process = DetectorProcess(make_settings(tmp_path))
    call_id = bytes(range(16))
    process._publish(Verdict(call_id, 3.0, 0.9, Decision(2, 0, 0.9, Rule.SUSTAINED_EFFORT, 1.5)))
    again = [m for m in process._hello() if isinstance(m, RiskChanged)]
    assert [(m.call_id, m.level) for m in again] == [(call_id.hex(), 2)]
    process._publish(Verdict(call_id, 30.0, None, Decision(0, 2, 0.0, None, 0.0)))
    assert not [m for m in process._hello() if isinstance(m, RiskChanged)]
