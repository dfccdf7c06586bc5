"""From the caller's packets to words: the detector process with a transcriber beside it."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from callshield.bus import BusServer, Peer
from callshield.messages import (
    AlertRaised,
    CallStarted,
    Hello,
    NodeDegraded,
    NodeMessage,
    WarningPlayed,
)
from callshield.settings import DetectorSettings, NodeSettings, Settings
from callshield.settings_sip import AgentSettings
from callshield.transcriber_settings import TranscriberSettings
from detectors import transcriber, transcription
from detectors.asr.load import load_recogniser
from detectors.process import DetectorProcess
from detectors.redaction import redact
from detectors.text_pipeline import TextPipeline
from detectors.transcriber import TranscriberProcess, load_pipeline
from detectors.transcription import HeardWords
from detectors.utterances import Utterance
from detectors.words import Judge
from detectors.words.model import SHIPPED as WORD_MODELS
from tests import transcriber_double as double
from tests.speech_kit import character_errors, sentences, speech_model
from tests.test_detector_process import Notifier, play, running

pytestmark = pytest.mark.timeout(120)


def make_settings(tmp_path: Path, **transcriber: object) -> Settings:
    return Settings(
        node=NodeSettings(state_dir=tmp_path, runtime_dir=tmp_path / "r"),
        detector=DetectorSettings(),
        transcriber=TranscriberSettings(**transcriber),
    )


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * 8000), dtype=np.int16)


async def until(done: Callable[[], object], limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        while not done():  # noqa: ASYNC110 - nobody tells us: ask again
            await asyncio.sleep(0.02)


async def test_a_callers_sentence_arrives_as_judged_words(tmp_path: Path) -> None:
    """Packets, codec, VAD, cutter, socket, Whisper, judge: only judge and redaction are doubles."""
    speech_model()
    settings = make_settings(tmp_path)
    heard: list[HeardWords] = []
    stop = asyncio.Event()
    transcriber = TranscriberProcess(
        settings,
        "transcriber-1",
        double.load_pipeline,
        lambda _: load_recogniser(settings.transcriber, ["ko"], {"ko": ["씨발"]}),
    )
    task = asyncio.create_task(transcriber.run(stop))
    async with running(settings, on_words=heard.append) as (_, tap):
        tap.setblocking(False)
        curse, calm = sentences()["bad_02f"], sentences()["calm_12f"]  # no pause within
        abuser, citizen = uuid.uuid4().bytes, uuid.uuid4().bytes
        for call, sentence in ((abuser, curse), (citizen, calm)):
            await play(tap, call, np.concatenate([quiet(1.0), sentence.samples, quiet(2.0)]))
        await until(lambda: {found.call_id for found in heard} == {abuser, citizen}, 60)
        first = next(found for found in heard if found.call_id == abuser)
        second = next(found for found in heard if found.call_id == citizen)
        assert first.words.abusive
        assert first.words.hits[0].quote == "씨발"
        assert first.start_s == pytest.approx(1.0, abs=0.6)
        assert not second.words.abusive
        assert character_errors(calm.text, second.words.text)[0] <= 4
        assert second.end_s - second.start_s == pytest.approx(len(calm.samples) / 8000, abs=0.8)
    stop.set()
    await task


async def test_without_a_model_the_node_is_degraded_and_well_again_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcription, "START_S", 0.5)
    settings = make_settings(tmp_path, model_dir=tmp_path / "none")

    def said(heard: list[NodeMessage], degraded: bool) -> list[NodeDegraded]:
        return [
            m
            for m in heard
            if isinstance(m, NodeDegraded)
            and m.component == "transcriber"
            and m.degraded is degraded
        ]

    stop = asyncio.Event()
    without = asyncio.create_task(
        TranscriberProcess(settings, "transcriber-1", double.load_pipeline).run(stop)
    )
    async with running(settings) as (notifier, _):
        await notifier.wait(lambda heard: bool(said(heard, True)))
        await notifier.wait(lambda heard: "no speech model" in said(heard, True)[-1].reason)
        stop.set()
        await without
        stop = asyncio.Event()
        working = asyncio.create_task(
            TranscriberProcess(
                settings,
                "transcriber-1",
                double.load_pipeline,
                lambda _: double.Recogniser(tmp_path),
            ).run(stop)
        )
        await notifier.wait(lambda heard: bool(said(heard, False)))
        # The supervisor says that it died, the detector that it works again.
        await notifier.wait(
            lambda heard: any(
                isinstance(m, NodeDegraded) and m.component == "transcriber-1" and not m.degraded
                for m in heard
            )
        )
        stop.set()
        await working


async def test_without_a_word_model_words_are_heard_and_somebody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lexicon judges alone; with the model nothing is told (the control)."""
    settings = make_settings(tmp_path)

    def lacks(heard: list[NodeMessage]) -> list[NodeDegraded]:
        return [m for m in heard if isinstance(m, NodeDegraded) and m.degraded]

    async def told(load: Callable[[Settings], TextPipeline], count: int) -> list[NodeDegraded]:
        stop = asyncio.Event()
        recogniser = double.Recogniser(tmp_path)
        process = TranscriberProcess(settings, "transcriber-1", load, lambda _: recogniser)
        task = asyncio.create_task(process.run(stop))
        async with running(settings) as (notifier, _):
            # Said once it has its model; what it lacks follows at the next tick.
            await notifier.wait(lambda heard: any(isinstance(m, NodeDegraded) for m in heard))
            await notifier.wait(lambda heard: len(lacks(heard)) >= count)
            await asyncio.sleep(0.5)  # and no more than that
            stop.set()
            await task
            return lacks(notifier.heard)

    assert await told(load_pipeline, 0) == []
    without = functools.partial(Judge.load, model_dir=tmp_path)
    monkeypatch.setattr("detectors.transcriber.Judge.load", without)
    (said,) = await told(load_pipeline, 1)
    assert said.component == "transcriber"
    assert "words in 'ko' are judged by the lexicon alone" in said.reason


async def test_a_word_model_that_appears_later_is_taken_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for again every 30 s; the control is the time before it was there."""
    monkeypatch.setattr(transcriber, "RETRY_S", 0.2)
    settings = make_settings(tmp_path)
    there = tmp_path / "models"
    there.mkdir()
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def load(_: Settings) -> TextPipeline:
        loop.call_soon_threadsafe(looked.set)
        judge = Judge.load(("ko",), model_dir=there)
        return TextPipeline(judge, redact, judge.missing)

    def said(heard: list[NodeMessage]) -> list[bool]:
        return [
            m.degraded
            for m in heard
            if isinstance(m, NodeDegraded) and m.component == "transcriber"
        ]

    stop = asyncio.Event()
    recogniser = double.Recogniser(tmp_path)
    process = TranscriberProcess(settings, "transcriber-1", load, lambda _: recogniser)
    task = asyncio.create_task(process.run(stop))
    async with running(settings) as (notifier, _):
        await notifier.wait(lambda heard: said(heard) == [True])
        for _ in range(2):  # looked for in vain: nothing is said a second time
            looked.clear()
            await asyncio.wait_for(looked.wait(), 10)
        assert said(notifier.heard) == [True]
        # In one step, as an installation does it: who looks meanwhile finds nothing half written.
        made = tmp_path / "made"
        made.mkdir()
        for name in ("words_ko.onnx", "words_ko.toml"):
            shutil.copy(WORD_MODELS / name, made / name)
        made.rename(there)
        await notifier.wait(lambda heard: said(heard) == [True, False])
        looked.clear()
        await asyncio.sleep(0.6)
        assert not looked.is_set(), "what is whole is not looked for again"
    stop.set()
    await task


async def test_the_agents_press_makes_a_caller_heard_first(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    detector = DetectorProcess(settings)
    assert detector.words is not None
    scheduler = detector.words.transcription.scheduler
    pressed, warned, other = (uuid.uuid4() for _ in range(3))
    now_s = time.monotonic()
    await detector.hear_news(
        AlertRaised(
            ts=1.0, alert_id="a", call_id=pressed.hex, agent_id="1001", kind="help", level=0
        )
    )
    await detector.hear_news(
        WarningPlayed(ts=1.0, call_id=warned.hex, agent_id="1001", grade=1, complete=True)
    )
    for call in (other, warned, pressed):  # who waits longest is no agent's concern
        scheduler.offer(call.bytes, Utterance(0.0, np.zeros(8000, np.int16), 1.0), now_s)
    turns = [scheduler.take(now_s + 0.1) for _ in range(3)]
    assert [turn.call_id for turn in turns if turn] == [
        call.bytes for call in (pressed, warned, other)
    ]


async def test_switched_off_there_is_no_socket_and_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(transcription, "START_S", 0.1)
    settings = make_settings(tmp_path, workers=0)
    async with running(settings) as (notifier, _):
        await asyncio.sleep(0.5)
        assert not settings.words_path.exists()
        assert not [m for m in notifier.heard if isinstance(m, NodeDegraded)]


async def test_callers_speak_what_their_agents_configuration_says(tmp_path: Path) -> None:
    agents = {"1001": {"uri": "sip:1001@192.0.2.21"}}
    agents["1003"] = {"uri": "sip:1003@192.0.2.22", "language": "en"}
    settings = make_settings(tmp_path).model_copy(
        update={"agents": {name: AgentSettings(**table) for name, table in agents.items()}}
    )
    notifier = Notifier()
    peers: list[Peer[NodeMessage]] = []

    async def on_message(peer: Peer[NodeMessage], message: NodeMessage) -> None:
        peers.append(peer)
        await notifier.on_message(peer, message)

    bus: BusServer[NodeMessage] = BusServer(settings.bus_path, NodeMessage, on_message)
    await bus.start()
    stop = asyncio.Event()
    detector = DetectorProcess(settings)
    task = asyncio.create_task(detector.run(stop))
    await notifier.wait(lambda heard: any(isinstance(m, Hello) for m in heard))
    call, other = uuid.uuid4(), uuid.uuid4()
    assert detector.words is not None
    desk = detector.words.transcription
    assert desk.language_of(call.bytes) == "ko"
    for call_id, agent_id in ((other.hex, "1001"), ("no call", "1003"), (call.hex, "1003")):
        peers[0].send(CallStarted(ts=1.0, call_id=call_id, agent_id=agent_id, pbx_call_id="p"))
    await until(lambda: desk.language_of(call.bytes) == "en", 10)
    assert desk.language_of(other.bytes) == "ko"
    stop.set()
    await task
    await bus.close()


async def test_the_detector_killed_with_speech_in_flight_takes_nobody_with_it(
    tmp_path: Path,
) -> None:
    """Both as processes; ``kill -9`` of the detector, and a new one is served at once."""
    config = tmp_path / "c.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path}"\nruntime_dir = "{tmp_path / "r"}"\n')
    settings = make_settings(tmp_path)
    notifier = Notifier()
    bus: BusServer[NodeMessage] = BusServer(settings.bus_path, NodeMessage, notifier.on_message)
    await bus.start()

    async def begin(module: str, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, "--config", str(config), *more),
            stderr=asyncio.subprocess.PIPE,
        )

    def hellos(heard: list[NodeMessage]) -> int:
        return sum(isinstance(m, Hello) for m in heard)

    transcriber = await begin("tests.transcriber_double", "--name", "transcriber-1")
    first = await begin("detectors.process")
    await notifier.wait(lambda heard: hellos(heard) == 1)
    await _line(first, b"transcriber_state")
    os.kill(first.pid, signal.SIGKILL)
    await first.communicate()
    second = await begin("detectors.process")
    await _line(second, b"transcriber_state")
    assert transcriber.returncode is None
    for process in (second, transcriber):
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    await bus.close()


async def _line(process: asyncio.subprocess.Process, wanted: bytes) -> None:
    """Wait for a line of its log."""
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while wanted not in (line := await process.stderr.readline()):
            assert line, "the process ended"
