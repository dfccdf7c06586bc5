"""``detector.acoustic = false``: how a voice sounds is not judged; what is said still is."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import detectors.process
from callshield.messages import CallAnalysed, NodeDegraded, RiskChanged
from callshield.settings import DetectorSettings, Settings
from callshield.transcriber_settings import TranscriberSettings
from detectors.process import DetectorProcess
from detectors.resample import to_int16
from tests import test_detector_process as kit
from tests.detector_sounds import shouting_voice
from tests.speech_kit import SPEECH


def config(tmp_path: Path, *, acoustic: bool, workers: int = 0) -> Settings:
    return kit.make_settings(tmp_path).model_copy(
        update={
            "detector": DetectorSettings(acoustic=acoustic),
            "transcriber": TranscriberSettings(workers=workers),
        }
    )


async def test_switched_off_no_voice_is_judged_and_the_model_is_not_even_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("the acoustic model was loaded")

    monkeypatch.setattr(detectors.process, "AcousticModel", load)
    call_id = uuid.uuid4()
    async with kit.running(config(tmp_path, acoustic=False)) as (notifier, tap):
        tap.setblocking(False)
        await kit.play(tap, call_id.bytes, to_int16(shouting_voice(4.0)))
        await asyncio.sleep(1.0)
    judged = [m for m in notifier.heard if isinstance(m, RiskChanged | CallAnalysed)]
    assert judged == []
    assert not [m for m in notifier.heard if isinstance(m, NodeDegraded)], "it is no fault"


async def test_switched_on_the_same_voice_raises_a_level(tmp_path: Path) -> None:
    """The control of the test above."""
    call_id = uuid.uuid4()
    async with kit.running(config(tmp_path, acoustic=True)) as (notifier, tap):
        tap.setblocking(False)
        await kit.play(tap, call_id.bytes, to_int16(shouting_voice(4.0)))
        await notifier.wait(lambda heard: any(isinstance(m, RiskChanged) for m in heard))


async def test_switched_off_words_are_still_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DetectorProcess] = []

    def remember(*given: Any, original: Any = DetectorProcess) -> DetectorProcess:
        made.append(original(*given))
        return made[0]

    monkeypatch.setattr("tests.test_detector_process.DetectorProcess", remember)
    spoken, _ = soundfile.read(SPEECH / "calm_01f.flac", dtype="int16")
    async with kit.running(config(tmp_path, acoustic=False, workers=1)) as (_, tap):
        tap.setblocking(False)
        words = made[0].words
        assert words is not None
        offered = asyncio.Event()
        monkeypatch.setattr(words.transcription.scheduler, "offer", lambda *_: offered.set())
        call_id = uuid.uuid4()
        await kit.play(tap, call_id.bytes, np.concatenate([spoken, np.zeros(16000, np.int16)]))
        await asyncio.wait_for(offered.wait(), 20)
