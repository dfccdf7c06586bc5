"""The detector process: real sockets, bad datagrams, and the notifier's bus at the other end."""

from __future__ import annotations

import asyncio
import json
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
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield import g711
from callshield.bus import BusServer, Peer
from callshield.errors import BusError
from callshield.logs import configure_logs
from callshield.messages import (
    Action,
    CallAnalysed,
    CallEnded,
    CallStarted,
    Command,
    Hello,
    NodeDegraded,
    NodeMessage,
    RiskChanged,
)
from callshield.settings import DetectorSettings, NodeSettings, Settings
from callshield.settings_sip import AgentSettings
from callshield.tap import MAGIC, CallerFrame, TapCodec, TapKind, encode_batches
from callshield.threshold_settings import ThresholdSettings
from callshield.transcriber_settings import TranscriberSettings
from detectors import corpora, fusion, silero
from detectors.acoustic import CARD_FILE, MODEL_FILE, SHIPPED, load_card
from detectors.engine import OUT_OF_REACH, Detector, Verdict
from detectors.levels import Levels
from detectors.process import DetectorProcess, TapQueue, open_tap
from detectors.resample import to_8k, to_int16
from detectors.risk import Decision, Rule
from detectors.transcription import HeardWords
from tests.detector_sounds import DATA, needs_data, shouting_voice
from tests.speech_kit import SPEECH


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
        transcriber=TranscriberSettings(workers=0),
    )


class Notifier:
    """The other end of the bus: keeps what it hears, and lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: list[NodeMessage] = []
        self._changed = asyncio.Event()
        self._peer: Peer[NodeMessage] | None = None

    def tell(self, *messages: NodeMessage) -> None:
        assert self._peer is not None
        for message in messages:
            self._peer.send(message)

    async def on_message(self, peer: Peer[NodeMessage], message: NodeMessage) -> None:
        self._peer = peer
        self.heard.append(message)
        self._changed.set()

    async def wait(self, until: Callable[[list[NodeMessage]], bool], limit_s: float = 60.0) -> None:
        async with asyncio.timeout(limit_s):
            while not until(self.heard):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(
    config: Settings, on_words: Callable[[HeardWords], None] | None = None
) -> AsyncIterator[tuple[Notifier, socket.socket]]:
    """A detector with a notifier behind it and a media worker's socket before it."""
    notifier = Notifier()
    bus: BusServer[NodeMessage] = BusServer(config.bus_path, NodeMessage, notifier.on_message)
    await bus.start()
    stop = asyncio.Event()
    task = asyncio.create_task(DetectorProcess(config, on_words).run(stop))
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


async def test_a_call_leaves_its_figures_and_is_judged_by_its_agents_group(tmp_path: Path) -> None:
    strict, plain = uuid.uuid4(), uuid.uuid4()
    config = Settings(
        node=NodeSettings(state_dir=tmp_path, runtime_dir=tmp_path / "r"),
        agents={"1001": AgentSettings(uri="sip:1001@192.0.2.1", group="loud")},
        detector=DetectorSettings(
            groups={"loud": ThresholdSettings(caution=0.9, serious=0.95, model="")}
        ),
    )
    async with running(config) as (notifier, tap):
        tap.setblocking(False)
        notifier.tell(
            CallStarted(ts=1.0, call_id=strict.hex, agent_id="1001", pbx_call_id="x"),
            CallStarted(ts=1.0, call_id=plain.hex, agent_id="1002", pbx_call_id="y"),
        )
        await asyncio.sleep(0.2)
        for call_id in (strict, plain):
            await play(tap, call_id.bytes, to_int16(shouting_voice(3.0)))
        await asyncio.sleep(0.5)
    left = {m.call_id: m for m in notifier.heard if isinstance(m, CallAnalysed)}
    assert left.keys() == {strict.hex, plain.hex}, "said when the detector stops"
    assert (left[strict.hex].caution, left[strict.hex].serious) == (0.9, 0.95)
    assert left[plain.hex].serious == load_card(SHIPPED / CARD_FILE).serious
    assert all(m.analysed_s >= 2.5 and len(m.model) == 12 for m in left.values())


async def test_no_sound_is_judged_of_a_call_over_a_relay_service(tmp_path: Path) -> None:
    """An operator speaks for the caller; the same voice in the call beside it raises a level."""
    relayed, plain = uuid.uuid4(), uuid.uuid4()
    config = make_settings(tmp_path).model_copy(
        update={
            "detector": DetectorSettings(
                groups={"loud": ThresholdSettings(caution=0.3, serious=0.31, model="")}
            ),
            "agents": {"1001": AgentSettings(uri="sip:1001@192.0.2.1", group="loud")},
        }
    )
    begun = CallStarted(ts=1.0, call_id=plain.hex, agent_id="1001", pbx_call_id="x")
    async with running(config) as (notifier, tap):
        tap.setblocking(False)
        notifier.tell(
            begun,
            msgspec.structs.replace(begun, call_id=relayed.hex, spared="relay_service"),
        )
        await asyncio.sleep(0.2)
        for call_id in (relayed, plain):
            await play(tap, call_id.bytes, to_int16(shouting_voice(4.0)))
        await notifier.wait(
            lambda heard: any(isinstance(m, RiskChanged) and m.call_id == plain.hex for m in heard)
        )
    told = {m.call_id for m in notifier.heard if isinstance(m, RiskChanged | CallAnalysed)}
    assert told == {plain.hex}, "neither a level nor figures of the relayed call"


async def test_a_relayed_call_stays_unjudged_over_a_long_hold_and_is_forgotten_after_it(
    tmp_path: Path,
) -> None:
    process = DetectorProcess(make_settings(tmp_path))
    detector = process._detector = Detector(None)
    told: list[NodeMessage] = []
    process._bus.send = told.append  # type: ignore[method-assign, assignment]
    process._model = "a model"
    held, never_heard = uuid.uuid4(), uuid.uuid4()
    for number, call in enumerate((held, never_heard)):
        await process.hear_news(
            CallStarted(
                ts=1.0,
                call_id=call.hex,
                agent_id="1001",
                pbx_call_id=str(number),
                spared="relay_service",
            )
        )

    def speaks(second: int) -> None:
        detector.feed([frame(held.bytes, second, bytes(160))], float(second))

    speaks(1)
    detector.step(40.0)  # on hold for so long that the detector forgets it
    process._tell_figures(detector.take_figures())
    speaks(50)
    assert detector._calls[held.bytes].risk.policy is OUT_OF_REACH
    for call in (held, never_heard):
        await process.hear_news(
            CallEnded(ts=60.0, call_id=call.hex, agent_id="1001", reason="caller_hangup")
        )
    detector.step(90.0)
    process._tell_figures(detector.take_figures())
    assert told == [], "no figures of either part"
    assert (process._unjudged, detector._own) == ({}, {}), "nothing is kept"


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


async def test_without_an_acoustic_model_words_are_heard_and_the_agents_word_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node degrades to what it has; when the model comes, voices are judged by it."""
    monkeypatch.setattr("detectors.process.RETRY_S", 0.2)
    monkeypatch.setattr(
        "detectors.process.Levels", lambda language: Levels(language, fusion.Policy(press_s=0.3))
    )
    made: list[DetectorProcess] = []

    def remember(*given: Any, original: Any = DetectorProcess) -> DetectorProcess:
        made.append(original(*given))
        return made[0]

    monkeypatch.setattr(
        "tests.test_detector_process.DetectorProcess",
        remember,
    )
    shutil.copy(SHIPPED / CARD_FILE, tmp_path / CARD_FILE)
    config = make_settings(tmp_path, model_dir=tmp_path)
    config = config.model_copy(update={"transcriber": TranscriberSettings(workers=1)})
    call_id, later = uuid.uuid4(), uuid.uuid4()
    spoken, _ = soundfile.read(SPEECH / "calm_01f.flac", dtype="int16")
    async with running(config) as (notifier, tap):
        await notifier.wait(lambda heard: any(isinstance(m, NodeDegraded) for m in heard))
        notifier.tell(
            Command(command_id="1", call_id=call_id.hex, action=Action.ABUSIVE, by="agent:console")
        )
        await notifier.wait(lambda heard: [r.level for r in risks(heard)] == [3, 0])
        words = made[0].words
        assert words is not None
        offered = asyncio.Event()
        monkeypatch.setattr(words.transcription.scheduler, "offer", lambda *_: offered.set())
        await play(tap, call_id.bytes, np.concatenate([spoken, np.zeros(16000, np.int16)]))
        await asyncio.wait_for(offered.wait(), 10)
        shutil.copy(SHIPPED / MODEL_FILE, tmp_path / MODEL_FILE)
        await notifier.wait(
            lambda heard: any(isinstance(m, NodeDegraded) and not m.degraded for m in heard)
        )
        await play(tap, later.bytes, np.concatenate([spoken, np.zeros(16000, np.int16)]))
    peaks = {m.call_id: m.effort_peak for m in notifier.heard if isinstance(m, CallAnalysed)}
    assert peaks.keys() == {call_id.hex, later.hex}
    assert peaks[later.hex] > 0.0, "judged by the model that came"
    assert peaks[call_id.hex] == 0.0, "no figures of what was heard without one"


def risks(heard: list[NodeMessage]) -> list[RiskChanged]:
    return [m for m in heard if isinstance(m, RiskChanged)]


async def test_a_corrupt_speech_model_degrades_the_node_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectors.process.RETRY_S", 0.2)
    for name in (MODEL_FILE, CARD_FILE):
        shutil.copy(SHIPPED / name, tmp_path / name)
    (tmp_path / silero.MODEL_FILE).write_bytes(b"torn")
    async with running(make_settings(tmp_path, model_dir=tmp_path)) as (notifier, _):
        await notifier.wait(lambda heard: any(isinstance(m, NodeDegraded) for m in heard))
        told = next(m for m in notifier.heard if isinstance(m, NodeDegraded))
        assert told.degraded
        assert "silero_8k.onnx is not the one of this version" in told.reason
        shutil.copy(SHIPPED / silero.MODEL_FILE, tmp_path / silero.MODEL_FILE)
        await notifier.wait(
            lambda heard: any(isinstance(m, NodeDegraded) and not m.degraded for m in heard)
        )


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


async def test_a_new_notifier_is_told_the_levels_again(tmp_path: Path) -> None:
    process = DetectorProcess(make_settings(tmp_path))
    call_id = bytes(range(16))
    raised = Verdict(call_id, 3.0, 0.9, Decision(2, 0, 0.9, Rule.SUSTAINED_EFFORT, 1.5))
    process._publish(process._levels.hear_voice(raised, 100.0))
    again = [m for m in process._hello() if isinstance(m, RiskChanged)]
    assert [(m.call_id, m.level) for m in again] == [(call_id.hex(), 2)]
    calm = Verdict(call_id, 30.0, None, Decision(0, 2, 0.0, None, 0.0))
    process._publish(process._levels.hear_voice(calm, 130.0))
    assert not [m for m in process._hello() if isinstance(m, RiskChanged)]


async def test_the_agents_word_is_level_3_until_the_call_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Of a call that the detector never heard, too; the line in the log keeps its own level."""
    configure_logs("detector")
    # Else every logger used here would write to this test's closed standard error ever after.
    structlog.configure(cache_logger_on_first_use=False)
    request.addfinalizer(structlog.reset_defaults)
    abused, other = uuid.uuid4(), uuid.uuid4()
    async with running(make_settings(tmp_path)) as (notifier, _):
        notifier.tell(
            Command(command_id="1", call_id=other.hex, action=Action.WARN, by="agent:console"),
            Command(command_id="2", call_id=abused.hex, action=Action.ABUSIVE, by="agent:console"),
        )
        await notifier.wait(lambda heard: any(isinstance(m, RiskChanged) for m in heard))
        notifier.tell(CallEnded(ts=2.0, call_id=abused.hex, agent_id="1001", reason="x"))
        await notifier.wait(
            lambda heard: any(isinstance(m, RiskChanged) and not m.level for m in heard)
        )
    told = [m for m in notifier.heard if isinstance(m, RiskChanged)]
    assert [(m.call_id, m.level, m.previous) for m in told] == [
        (abused.hex, 3, 0),
        (abused.hex, 0, 3),
    ]
    assert told[0].may_trigger
    assert told[0].reasons[0].kind == "agent"
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    logged = [line for line in lines if line["event"] == "risk_changed"]
    assert [(line["level"], line["risk_level"]) for line in logged] == [("info", 3), ("info", 0)]
