"""sherpa-onnx behind the same protocol, with a stand-in for SenseVoice (see its ``make.py``)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from callshield.errors import DetectorModelError
from callshield.transcriber_settings import TranscriberSettings
from detectors.asr.load import load_recogniser
from detectors.asr.protocol import Recogniser
from detectors.asr.sherpa import SherpaRecogniser

DOUBLE = Path(__file__).parent / "sensevoice_double"
QUIET = np.zeros(8000, dtype=np.int16)
LOUD = np.random.default_rng(0).normal(0, 6000, 8000).astype(np.int16)


def recogniser(languages: list[str] | None = None) -> Recogniser:
    settings = TranscriberSettings(backend="sensevoice", model_dir=DOUBLE)
    return load_recogniser(settings, languages or ["ko", "en"], {"ko": ["씨발"]})


def test_sound_becomes_text_and_silence_does_not() -> None:
    model = recogniser()
    assert model.transcribe(np.concatenate([QUIET, LOUD, QUIET, LOUD, QUIET]), "ko").text == "아아"
    assert model.transcribe(np.concatenate([QUIET, QUIET]), "ko").text == ""
    assert model.transcribe(QUIET[:0], "ko").text == ""


def test_tags_are_the_language_and_no_text() -> None:
    heard = recogniser().transcribe(LOUD, None)
    assert heard.text == "아"
    assert heard.language == "ko"
    assert heard.language_odds["ko"] > heard.language_odds["en"]


def test_a_configured_language_goes_before_what_the_model_thinks() -> None:
    assert recogniser().transcribe(LOUD, "en").language == "en"


def test_repeats_are_shortened_behind_this_backend_too() -> None:
    beats = np.tile(np.concatenate([LOUD[:1600], QUIET[:1600]]), 30)
    assert recogniser().transcribe(beats, "ko").text == "아아아"


def test_a_missing_model_and_a_wrong_one_say_what_to_do(tmp_path: Path) -> None:
    for backend in ("sensevoice", "zipformer"):
        with pytest.raises(DetectorModelError, match=r"give transcriber\.model_dir a folder"):
            SherpaRecogniser(backend, tmp_path, ["ko"])
    shutil.copy(DOUBLE / "tokens.txt", tmp_path)
    (tmp_path / "model.onnx").write_bytes((DOUBLE / "model.onnx").read_bytes()[:1000])
    with pytest.raises(DetectorModelError, match="cannot be loaded"):
        SherpaRecogniser("sensevoice", tmp_path, ["ko"])


def test_without_the_library_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    with pytest.raises(DetectorModelError, match="install it"):
        SherpaRecogniser("sensevoice", DOUBLE, ["ko"])
