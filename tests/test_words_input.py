"""Hostile and odd texts, missing models, and the command: an answer or one clear error."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callshield import doctor
from callshield.errors import DetectorModelError, SetupError
from callshield.settings import Settings
from detectors.words import Judge, lexicon
from detectors.words import judge as judge_module
from detectors.words.classify import classify, lines_of
from detectors.words.lexicon import LANGUAGES
from tests.words_kit import judge

ROOT = Path(__file__).parent.parent
ODD = {
    "empty": "",
    "blank": " \t\u3000",
    "a megabyte": "가나다 라마 " * 150_000,
    "a megabyte of abuse": "시발" * 500_000,
    "half words": "ㅅ" * 1_000_000,
    "open markup": "<" * 1_000_000,
    "stars": "f*" * 500_000,
    "spelled": "s h i t " * 120_000,
    "scattered jamo": "ㅅ ㅣ " * 200_000,
    "emoji": "😀👨‍👩‍👧‍👦" * 50_000,
    "combining marks": "e" + "\u0301" * 500_000,
    "bidi": "\u202eabc\u202d\u2066\u2069",
    "lone surrogates": "\ud800\udc00\udfff시발",
    "nul": "a\x00b\x00",
    "mixed": "씨발 fuck 死ね 操你妈 привет مرحبا",
    "unassigned": "\U000e0fff\uffff\ufdd0",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ODD)
def test_any_text_gets_an_answer_in_bounded_time(language: str, name: str) -> None:
    text = ODD[name]
    began = time.process_time()
    verdict = judge(language).judge(text, language)
    assert time.process_time() - began < 10
    assert 0 <= verdict.score <= 1
    assert all(0 <= hit.start < hit.end <= len(text) for hit in verdict.hits)


def test_nothing_said_is_nothing_judged() -> None:
    for text in ("", "   ", "\n"):
        verdict = judge("ko").judge(text, "ko")
        assert (verdict.score, verdict.abusive, verdict.hits) == (0.0, False, ())


def test_a_surrogate_beside_a_word_does_not_hide_it() -> None:
    assert judge("ko").judge("\ud800 시발놈아", "ko").abusive


def test_a_missing_model_leaves_the_lexicon_and_says_so(tmp_path: Path) -> None:
    alone = Judge.load(("ko",), model_dir=tmp_path)
    assert len(alone.missing) == 1
    assert "lexicon alone" in alone.missing[0]
    assert alone.judge("씨발놈아", "ko").abusive


def test_a_corrupt_model_leaves_the_lexicon_and_says_so(tmp_path: Path) -> None:
    from detectors.words.model import SHIPPED, card_file, model_file

    data = bytearray((SHIPPED / model_file("ko")).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / model_file("ko")).write_bytes(data)
    (tmp_path / card_file("ko")).write_bytes((SHIPPED / card_file("ko")).read_bytes())
    alone = Judge.load(("ko",), model_dir=tmp_path)
    assert "not the file that its card names" in alone.missing[0]
    assert alone.judge("씨발놈아", "ko").abusive
    assert Judge.load(("ko",)).missing == ()


@pytest.fixture
def lexicons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the shipped lexicons, which the judge loads from."""
    folder = tmp_path / "lexicons"
    shutil.copytree(lexicon.FOLDER, folder)
    monkeypatch.setattr(lexicon, "FOLDER", folder)
    judge_module._matcher.cache_clear()
    yield folder
    judge_module._matcher.cache_clear()


def _cut(text: str, how: str) -> str:
    if how == "in a line":
        return text[: len(text) // 2]
    if how == "between two lines":  # still TOML: only its end is missing
        return text[: text.index("[allow]")]
    if how == "another shape":
        return "entry = 3\nallow = [1]\n"
    return ""


@pytest.mark.parametrize("how", ["in a line", "between two lines", "at once", "another shape"])
def test_a_torn_lexicon_silences_its_language_alone(lexicons: Path, how: str) -> None:
    torn = lexicons / "zh.toml"
    torn.write_text(_cut(torn.read_text(encoding="utf-8"), how), encoding="utf-8")
    left = Judge.load(("ko", "zh", "en"))
    assert left.judge("씨발놈아", "ko").abusive
    assert left.judge("fuck you", "en").abusive
    assert left.judge("操你妈", "zh") == left.judge("", "zh")
    assert left.hotwords("zh") == []
    assert left.hotwords("ko")
    (sentence,) = left.missing
    assert sentence.startswith("words in 'zh' are not judged:")
    assert "zh.toml" in sentence


def test_whole_lexicons_lack_nothing(lexicons: Path) -> None:
    """Negative control: it is the tearing that is noticed."""
    whole = Judge.load(("ko", "zh", "en"))
    assert whole.missing == ()
    assert whole.judge("操你妈", "zh").abusive


def test_without_any_lexicon_there_is_no_judge(lexicons: Path) -> None:
    (lexicons / "ko.toml").write_text("entry = [", encoding="utf-8")
    with pytest.raises(DetectorModelError, match=r"ko\.toml"):
        Judge.load(("ko",))


def test_doctor_and_the_transcriber_name_the_language_that_is_lost(
    lexicons: Path, tmp_path: Path
) -> None:
    from detectors.transcriber import pipeline_for

    (lexicons / "ja.toml").write_text("", encoding="utf-8")
    pipeline = pipeline_for(["ko", "ja"])
    assert pipeline("死ねバカ", "ja").text == "死ねバカ"  # written down still, not judged
    assert pipeline("씨발놈아", "ko").abusive
    (sentence,) = pipeline.lacking
    assert "'ja'" in sentence
    settings = Settings.model_validate(
        {
            "node": {"state_dir": tmp_path, "runtime_dir": tmp_path / "r"},
            "transcriber": {"language": "detect", "languages": ["ko", "ja"]},
        }
    )
    with pytest.raises(doctor._Failed, match="words in 'ja' are not judged"):
        doctor._word_models(settings)


def test_an_unknown_language_is_an_error_that_names_the_known() -> None:
    with pytest.raises(DetectorModelError, match="ko, zh, en, ja"):
        Judge.load().judge("hola", "es")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entry = [", "cannot be read"),
        ('[[entry]]\ncategory = "rude"\nseverity = 1\nwords = ["x"]', "found 'rude'"),
        ('[[entry]]\ncategory = "threat"\nseverity = 4\nwords = ["x"]', "found 4"),
        ('[[entry]]\ncategory = "threat"\nseverity = 1\nwords = ["{a|b"]', "braces"),
        ('[[entry]]\ncategory = "threat"\nseverity = 1\nword = ["x"]', "unknown key 'word'"),
    ],
)
def test_a_faulty_lexicon_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ko.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DetectorModelError, match=message):
        lexicon.load("ko", path)


def test_patterns_stand_for_all_their_spellings() -> None:
    assert lexicon.expand("{a|b{c|d}}e") == ["ae", "bce", "bde"]
    with pytest.raises(DetectorModelError, match="too many"):
        lexicon.expand("{a|b|c|d|e|f|g|h|i|j}" * 5)


def test_every_line_gets_an_answer_in_order() -> None:
    lines = [b"\n", "씨발\n".encode(), b"\xff\xfe\n", "죽어버릴 거예요".encode()]
    answers = list(classify(lines, "ko", judge("ko")))
    assert [answer["abusive"] for answer in answers] == [False, True, False, False]
    assert answers[3]["categories"] == ["crisis"]


def test_the_command_answers_lines_of_json() -> None:
    said = "안녕하세요\n\n이 씨8놈아\n시발점이 어디예요?\n죽여버린다\n"
    done = subprocess.run(
        [sys.executable, "-m", "callshield.cli", "classify", "--lang", "ko", "--json"],
        input=said.encode(),
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["abusive"] for answer in answers] == [False, False, True, False, True]
    assert set(answers[0]) == {"score", "abusive", "categories"}
    assert "threat" in answers[4]["categories"]
    assert done.stderr == b""


def test_closed_standard_input_is_one_sentence() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m callshield.cli classify --lang ko --json <&-', sys.executable],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("callshield: there is no standard input")
    assert done.stderr.count("\n") == 1


def test_standard_input_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with (tmp_path / "written").open("wb") as write_only, pytest.raises(SetupError, match="read"):
        list(lines_of(write_only))
    assert list(lines_of(io.BytesIO(b"a\nb"))) == [b"a\n", b"b"]
