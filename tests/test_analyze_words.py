"""Words in ``callshield analyze``: heard, judged, redacted, told as events; or left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callshield.errors import SetupError
from detectors.analyze import Findings, analyze_file
from detectors.analyze_words import FileWords, WordsReader, load_reader
from detectors.asr import report as asr_report
from detectors.asr.protocol import Transcript
from detectors.engine import Verdict
from detectors.risk import Decision
from detectors.text_pipeline import JudgedText, TextPipeline
from detectors.transcriber import pipeline_for
from tests.speech_kit import SPEECH, Sentence, sentences, speech_model


def call(path: Path, *said: Sentence, pause_s: float = 1.5) -> Path:
    """A recording in which one caller says these sentences."""
    quiet = np.zeros(round(pause_s * 8000), np.int16)
    soundfile.write(
        path, np.concatenate([quiet, *(p for s in said for p in (s.samples, quiet))]), 8000
    )
    return path


class Told:
    """A recogniser that is told what it hears, utterance by utterance."""

    name = "told"

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)

    def transcribe(
        self, samples: np.ndarray, language: str | None, expected: object = None
    ) -> Transcript:
        return Transcript(self._texts.pop(0), language or "ko", -0.2, 0.0)


@pytest.fixture(scope="module")
def pipeline() -> TextPipeline:
    return pipeline_for(["ko"])


def test_a_spoken_threat_is_heard_and_calm_sentences_are_not_accused(tmp_path: Path) -> None:
    speech_model()
    bad = analyze_file(
        call(tmp_path / "a.wav", sentences()["calm_12f"], sentences()["bad_04f"]),
        reader=load_reader("ko"),
    )
    assert (bad.level, bad.categories) == (3, ["threat"])
    (event,) = bad.events
    assert event.kind == "threat"
    assert "죽여" in event.text
    assert event.start == pytest.approx(
        1.5 + len(sentences()["calm_12f"].samples) / 8000 + 1.5, abs=0.5
    )
    calm = analyze_file(
        call(tmp_path / "b.wav", *(sentences()[name] for name in ("calm_07m", "calm_08f"))),
        reader=load_reader("ko"),
    )
    assert (calm.level, calm.categories, calm.events) == (0, [], [])


def test_without_words_the_same_threat_is_silence_to_the_detector(tmp_path: Path) -> None:
    """Negative control, and ``--no-asr``."""
    found = analyze_file(call(tmp_path / "a.wav", sentences()["bad_04f"]))
    assert (found.level, found.categories, found.events) == (0, [], [])


def test_events_hold_redacted_text_only(tmp_path: Path, pipeline: TextPipeline) -> None:
    said = WordsReader(Told("씨발 010-1234-5678로 전화해"), pipeline, "ko")
    found = analyze_file(call(tmp_path / "a.wav", sentences()["bad_12f"]), reader=said)
    assert found.categories == ["profanity"]
    assert "1234" not in json.dumps([event.text for event in found.events])
    assert "[전화번호]" in found.events[0].text


def test_a_caller_in_danger_is_told_apart_from_abuse(
    tmp_path: Path, pipeline: TextPipeline
) -> None:
    said = WordsReader(Told("저 그냥 죽어버릴 거예요"), pipeline, "ko")
    found = analyze_file(call(tmp_path / "a.wav", sentences()["calm_12f"]), reader=said)
    assert (found.level, found.categories) == (0, ["crisis"])
    assert [event.kind for event in found.events] == ["crisis"]


def test_shouting_shows_what_was_shouted() -> None:
    findings = Findings(caution=0.6)
    for at_s in (1.0, 1.5, 6.0):
        findings.add(Verdict(bytes(16), at_s, 0.9, Decision(2, 2, 0.9, None, 1.0), 0.8))
    findings.hear(FileWords(0.4, 1.4, JudgedText(text="와 이겼다")))
    events = findings.finished(8.0)
    assert [(event.kind, event.text) for event in events] == [
        ("shouting", "와 이겼다"),
        ("shouting", ""),
    ]
    assert (findings.level, findings.categories) == (2, ["shouting"])


def test_a_broken_recogniser_costs_its_words_and_quotes_nothing(
    tmp_path: Path, pipeline: TextPipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    found = analyze_file(
        call(tmp_path / "a.wav", sentences()["bad_12f"]), reader=WordsReader(Told(), pipeline, "ko")
    )
    assert (found.level, found.events) == (0, [])
    assert "IndexError" in "".join(capfd.readouterr())


def test_the_command_hears_words_unless_told_not_to(tmp_path: Path) -> None:
    speech_model()
    path = str(call(tmp_path / "a.wav", sentences()["bad_04f"]))

    def levels(*more: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "callshield.cli", "analyze", path, "--json", *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return int(json.loads(done.stdout)["level"])

    assert levels("--lang", "ko") == 3
    assert levels("--lang", "ko", "--no-asr") == 0


def test_the_figures_of_eval_asr_are_those_of_the_recogniser(pipeline: TextPipeline) -> None:
    speech = [("ko", s.abusive, s.text, s.samples) for s in list(sentences().values())[:2]]
    right = Told(*(text for _, _, text, _ in speech))
    perfect = list(asr_report.measure(right, pipeline, speech, asr_report.LINES[0], 1))
    assert [one.wrong for one in perfect] == [0, 0]
    deaf = list(asr_report.measure(Told("", ""), pipeline, speech, asr_report.LINES[2], 1))
    assert [one.wrong for one in deaf] == [one.letters for one in deaf]
    assert not any(one.flagged for one in deaf)


def test_eval_asr_says_what_folder_it_wants(tmp_path: Path) -> None:
    from callshield.model_commands import eval_asr

    assert (SPEECH / "manifest.tsv").is_file()
    with pytest.raises(SetupError, match=r"manifest\.tsv is not there"):
        eval_asr(tmp_path, tmp_path / "out")
