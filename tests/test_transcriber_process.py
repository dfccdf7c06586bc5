"""Detector and transcriber as processes: words come back, whoever is killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from callshield.settings import Settings, load_settings
from detectors import transcription
from detectors.schedule import FORGET_S, MAX_AGE_S
from detectors.transcription import HeardWords, Transcription
from tests import transcriber_double as double
from tests.speech_kit import sentences, speech_model

pytestmark = pytest.mark.timeout(200)
HOP = 25


def make_settings(folder: Path, extra: str = "") -> Path:
    config = folder / "c.toml"
    config.write_text(
        f'[node]\nstate_dir = "{folder}"\nruntime_dir = "{folder / "r"}"\n{extra}', encoding="utf-8"
    )
    return config


class Ears:
    """The detector's side, with what it heard."""

    def __init__(self, settings: Settings, language: str = "ko") -> None:
        self.words: list[HeardWords] = []
        self.desk = Transcription(settings.words_path, language, self.words.append)

    def say(self, call_id: bytes, line: int, start_s: float = 0.0, seconds: float = 1.0) -> None:
        """One caller says one thing, and pauses."""
        frames = round(seconds * 50)
        flags = np.arange(frames + 40) < frames
        samples = np.repeat(np.where(flags, line, 0), 160).astype(np.int16)
        self.desk.hear(call_id, start_s, samples, flags)

    async def until(self, done: Callable[[], object], limit_s: float = 45.0) -> None:
        async with asyncio.timeout(limit_s):
            while not done():
                self.desk.step()
                await asyncio.sleep(0.02)


class Child:
    """One transcriber process."""

    def __init__(self, config: Path, name: str = "transcriber-1", *more: str) -> None:
        self._arguments = ("-m", "tests.transcriber_double", "--config", str(config), *more)
        self._name = name
        self.process: asyncio.subprocess.Process | None = None
        self.errors = b""

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            "--name",
            self._name,
            stderr=asyncio.subprocess.PIPE,
        )

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
            _, errors = await self.process.communicate()
            self.errors += errors


@asynccontextmanager
async def running(
    tmp_path: Path, children: int = 1, language: str = "ko"
) -> AsyncIterator[tuple[Ears, list[Child]]]:
    config = make_settings(tmp_path)
    ears = Ears(load_settings(config), language)
    await ears.desk.start()
    team = [Child(config, f"transcriber-{number + 1}") for number in range(children)]
    for child in team:
        await child.start()
    try:
        await ears.until(lambda: ears.desk.ready == children)
        yield ears, team
    finally:
        for child in team:
            await child.stop()
        await ears.desk.close()


def new_call() -> bytes:
    return uuid.uuid4().bytes


async def test_without_a_transcriber_no_callers_voice_is_kept(tmp_path: Path) -> None:
    clock_s = 0.0
    ears = Ears(load_settings(make_settings(tmp_path)))
    ears.desk = Transcription(tmp_path / "w.sock", "ko", ears.words.append, clock=lambda: clock_s)
    for _ in range(3):
        call = new_call()
        ears.say(call, double.NUMBER)
        ears.desk.end(call)
    scheduler = ears.desk.scheduler
    assert (scheduler.calls, scheduler.waiting_s > 0) == (3, True)
    clock_s = MAX_AGE_S + 1.0
    ears.desk.step()
    assert scheduler.waiting_s == 0.0
    assert scheduler.shares.all.percent == 0.0
    clock_s = FORGET_S + 1.0
    ears.desk.step()
    assert scheduler.calls == 0


async def test_words_come_back_judged_and_redacted(tmp_path: Path) -> None:
    async with running(tmp_path) as (ears, _):
        call = new_call()
        ears.say(call, double.NUMBER, start_s=12.0)
        await ears.until(lambda: ears.words)
        (heard,) = ears.words
        assert heard.call_id == call
        assert (heard.start_s, heard.end_s) == (12.0, 13.4)
        assert heard.words.text == "씨발 [전화번호] 로 전화해"
        assert "5678" not in repr(replace(heard, call_id=b"")), "the id may hold it by chance"
        assert heard.words.abusive
        assert heard.words.categories == ["profanity"]
        (hit,) = heard.words.hits
        assert (hit.quote, hit.severity, hit.exact) == ("씨발", 3, True)
        assert ears.desk.scheduler.shares.all.percent == 100.0


async def test_calm_words_are_no_abuse(tmp_path: Path) -> None:
    """The negative control of the test above."""
    async with running(tmp_path) as (ears, _):
        ears.say(new_call(), double.CALM)
        await ears.until(lambda: ears.words)
        assert not ears.words[0].words.abusive
        assert not ears.words[0].words.hits


async def test_what_the_recogniser_does_not_believe_is_no_words_but_was_heard(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (ears, _):
        ears.say(new_call(), double.NOISE)
        await ears.until(lambda: ears.desk.counters.rejected)
        assert not ears.words
        assert ears.desk.scheduler.shares.all.heard_s == 1.0


async def test_a_failure_costs_one_utterance_and_quotes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (ears, (child,)):
        ears.say(new_call(), double.BREAKS)
        ears.say(new_call(), double.CURSE)
        await ears.until(lambda: ears.words)
        assert ears.desk.counters.failed == 1
        assert ears.desk.scheduler.shares.all.heard_s == 1.0
        assert child.process is not None
        assert child.process.returncode is None
        await child.stop()
        assert b"transcription_failed" in child.errors
        assert "씨발" not in child.errors.decode()


async def test_a_killed_transcriber_loses_nothing_once_another_is_there(tmp_path: Path) -> None:
    async with running(tmp_path) as (ears, (child,)):
        ears.say(new_call(), double.STUCK)
        await ears.until((tmp_path / "stuck").exists)  # it is in the middle of it
        await child.stop(signal.SIGKILL)
        await ears.until(lambda: not ears.desk.ready)
        ears.say(new_call(), double.CURSE)
        assert not ears.words
        await child.start()
        await ears.until(lambda: len(ears.words) == 2)
        assert {heard.words.text for heard in ears.words} == {
            double.SCRIPT[double.STUCK],
            double.SCRIPT[double.CURSE],
        }


async def test_speech_that_kills_is_given_out_twice_and_no_more(tmp_path: Path) -> None:
    async with running(tmp_path, children=3) as (ears, team):
        ears.say(new_call(), double.DIES)
        await ears.until(lambda: ears.desk.ready == 1)
        ears.say(new_call(), double.CALM)
        await ears.until(lambda: ears.words)
        assert len((tmp_path / "deaths").read_text().split()) == transcription.ATTEMPTS
        # A socket is closed before its process is gone.
        await ears.until(lambda: sum(c.process.returncode is None for c in team if c.process) == 1)
        assert ears.desk.scheduler.dropped == 1


async def test_a_transcriber_finds_the_new_detector(tmp_path: Path) -> None:
    """As after ``kill -9`` of the detector: the socket goes and comes, the transcriber stays."""
    async with running(tmp_path) as (ears, (child,)):
        ears.say(new_call(), double.SLOW)
        await asyncio.sleep(0.2)
        await ears.desk.close()
        second = Ears(load_settings(tmp_path / "c.toml"))
        await second.desk.start()
        await second.until(lambda: second.desk.ready)
        second.say(new_call(), double.CURSE)
        await second.until(lambda: second.words)
        # The old detector's answer is not taken for the new one's.
        assert [heard.words.text for heard in second.words] == [double.SCRIPT[double.CURSE]]
        assert child.process is not None
        assert child.process.returncode is None
        await second.desk.close()


async def test_two_transcribers_share_the_work(tmp_path: Path) -> None:
    async with running(tmp_path, children=2) as (ears, _):
        for _ in range(4):
            ears.say(new_call(), double.SLOW)
        await ears.until(lambda: len(ears.words) == 4)
    turns = [line.split() for line in (tmp_path / "slow").read_text().splitlines()]
    assert len(turns) == 4
    # Both were at it at the same time, as one alone never is with two.
    spans = [(process, float(begun), float(ended)) for process, begun, ended in turns]
    assert any(
        one[0] != other[0] and max(one[1], other[1]) < min(one[2], other[2])
        for one, other in itertools.combinations(spans, 2)
    )


async def test_the_language_is_asked_for_until_the_call_has_made_it_sure(tmp_path: Path) -> None:
    async with running(tmp_path, language="") as (ears, _):
        call = new_call()
        for number in range(4):
            ears.say(call, double.CALM, start_s=10.0 * number)
            await ears.until(lambda n=number: len(ears.words) == n + 1)  # type: ignore[misc]
        assert ears.desk.language_of(call) == "ko"
        assert ears.desk.language_of(new_call()) == ""


def test_an_aroused_callers_sentence_is_closed_by_a_shorter_pause(tmp_path: Path) -> None:
    """And the control: that of a caller without cause waits for the longer one."""
    settings = load_settings(make_settings(tmp_path))
    desk = Transcription(settings.words_path, "ko", lambda _: None)
    calm, aroused = new_call(), new_call()
    desk.rouse(aroused)
    flags = np.arange(70) < 50  # a second of speech, 0.4 s of silence
    for call in (calm, aroused):
        desk.hear(call, 0.0, np.ones(70 * 160, np.int16), flags)
    turn = desk.scheduler.take(0.0)
    assert turn is not None
    assert turn.call_id == aroused
    assert desk.scheduler.take(0.0) is None
    desk.hear(calm, 1.4, np.ones(10 * 160, np.int16), np.zeros(10, np.bool_))
    turn = desk.scheduler.take(0.0)
    assert turn is not None
    assert turn.call_id == calm


async def test_without_a_transcriber_speech_grows_old_and_somebody_is_told(tmp_path: Path) -> None:
    now = [0.0]
    settings = load_settings(make_settings(tmp_path))
    desk = Transcription(settings.words_path, "ko", lambda _: None, clock=lambda: now[0])
    ears = Ears(settings)
    ears.desk = desk
    assert not desk.trouble
    for second in range(120):
        now[0] = float(second)
        ears.say(new_call(), double.CALM, seconds=9.0)
        desk.step()
    assert desk.trouble == "words are not heard: no transcriber is running"
    assert desk.scheduler.waiting_s <= 600.0
    now[0] = 200.0
    desk.scheduler.take(now[0])
    assert desk.scheduler.shares.all.percent == 0.0
    assert desk.scheduler.dropped == 120


async def test_a_transcriber_without_a_model_says_why(tmp_path: Path) -> None:
    config = make_settings(tmp_path, f'[transcriber]\nmodel_dir = "{tmp_path / "none"}"\n')
    ears = Ears(load_settings(config))
    await ears.desk.start()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "detectors.transcriber", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await ears.until(lambda: ears.desk.states() and not ears.desk.ready)
        (state,) = ears.desk.states()
        assert not state.ready
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == max(10, ours)
        first_to_go = await asyncio.to_thread(
            Path(f"/proc/{process.pid}/oom_score_adj").read_text, encoding="ascii"
        )
        assert first_to_go == "500\n"
    finally:
        process.terminate()
        await process.communicate()
        await ears.desk.close()
    assert process.returncode == 0


async def test_a_transcriber_with_its_model_stays_within_its_memory(tmp_path: Path) -> None:
    speech_model()
    config = make_settings(tmp_path)
    ears = Ears(load_settings(config))
    await ears.desk.start()
    child = Child(config, "transcriber-1", "--whisper")
    await child.start()
    try:
        await ears.until(lambda: ears.desk.ready)
        said = [sentence.samples for sentence in sentences().values()]
        long = np.concatenate(said)[: 14 * 8000]
        for number, samples in enumerate((said[0], long, np.tile(long, 2)[: 15 * 8000], said[1])):
            frames = len(samples) // 160
            speech = np.arange(frames + 50) < frames
            padded = np.concatenate([samples[: frames * 160], np.zeros(50 * 160, np.int16)])
            ears.desk.hear(new_call(), 100.0 * number, padded, speech)
        await ears.until(lambda: ears.desk.counters.turns == 4, 60)
        assert child.process is not None
        status = await asyncio.to_thread(Path(f"/proc/{child.process.pid}/status").read_text)
        (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        assert int(peak.split()[1]) <= 600 * 1024, peak
    finally:
        await child.stop()
        await ears.desk.close()
