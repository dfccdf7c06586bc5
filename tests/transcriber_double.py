"""A transcriber whose recogniser reads what it "hears" out of the samples themselves.

The process, its socket and its restarts are real; model, judge and redaction are played from a
script. The first sample of an utterance chooses the line of :data:`SCRIPT`.

``python -m tests.transcriber_double --config FILE --name NAME``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from callshield.logs import configure_logs
from callshield.settings import Settings, load_settings
from detectors.asr.protocol import Transcript
from detectors.text_pipeline import TextPipeline
from detectors.transcriber import TranscriberProcess, serve

CALM, CURSE, NUMBER, DIES, BREAKS, NOISE, SLOW, STUCK = 1, 2, 3, 4, 5, 6, 7, 8
SCRIPT = {
    CALM: "배송이 늦어서 전화했습니다",
    CURSE: "야 이 씨발 뭐 하는 거야",
    NUMBER: "씨발 010-1234-5678 로 전화해",
    SLOW: "천천히 말씀해 주세요",
    STUCK: "잠시만 기다려 주세요",
}


@dataclass(frozen=True)
class Hit:
    category: str
    severity: int
    start: int
    end: int
    exact: bool


@dataclass(frozen=True)
class Verdict:
    score: float
    abusive: bool
    categories: tuple[str, ...]
    hits: tuple[Hit, ...]
    crisis: bool


class Judge:
    """Knows one word."""

    def judge(self, text: str, language: str) -> Verdict:
        at = text.find("씨발")
        if at < 0:
            return Verdict(0.1, False, (), (), False)
        return Verdict(0.9, True, ("profanity",), (Hit("profanity", 3, at, at + 2, True),), False)

    def hotwords(self, language: str) -> list[str]:
        return ["씨발"] if language == "ko" else []


class Redacted:
    def __init__(self, text: str) -> None:
        self.text = text.replace("010-1234-5678", "[전화번호]")

    def excerpt(self, start: int, end: int) -> str:
        return self.text[start:end]


def redact(text: str, _language: str) -> Redacted:
    return Redacted(text)


class Recogniser:
    name = "script"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def transcribe(
        self, samples: np.ndarray, language: str | None, expected: object = None
    ) -> Transcript:
        line = int(samples[0])
        if line == DIES:
            with (self._folder / "deaths").open("a") as file:
                file.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if line == BREAKS:
            raise RuntimeError("씨발")  # must not get into the log
        if line == SLOW:
            begun = time.monotonic()
            threading.Event().wait(1.0)
            with (self._folder / "slow").open("a") as file:
                file.write(f"{os.getpid()} {begun} {time.monotonic()}\n")
        if line == STUCK and not (stuck := self._folder / "stuck").exists():
            stuck.touch()
            threading.Event().wait()  # the first time; whoever is given it again says it
        if line == NOISE:
            return Transcript("", language or "ko", -3.0, 0.9, "no_speech", {"ko": 0.5, "en": 0.5})
        odds = {} if language else {"ko": 0.9, "en": 0.1}
        return Transcript(SCRIPT[line], language or "ko", -0.3, 0.01, "", odds)


def load_pipeline(_settings: Settings) -> TextPipeline:
    return TextPipeline(Judge(), redact)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--whisper", action="store_true", help="the real recogniser")
    arguments = parser.parse_args()
    settings = load_settings(arguments.config)
    configure_logs(arguments.name)
    folder = settings.node.state_dir
    model = None if arguments.whisper else (lambda _: Recogniser(folder))
    asyncio.run(serve(TranscriberProcess(settings, arguments.name, load_pipeline, model)))
