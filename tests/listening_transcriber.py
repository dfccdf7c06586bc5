"""A transcriber that hears marker words in whatever a live caller says.

The process, its socket, the speech that it is sent and the redaction behind it are the real ones;
recogniser and judge are played. Every other utterance is calm, the ones between are abusive.

``python -m tests.listening_transcriber --config FILE --name NAME``
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from callshield.logs import configure_logs
from callshield.settings import Settings, load_settings
from detectors.asr.protocol import Transcript
from detectors.redaction import redact
from detectors.text_pipeline import TextPipeline
from detectors.transcriber import TranscriberProcess, serve

#: In an abusive sentence: the call's own agent reads it, as a quotation.
QUOTED = "바람개비삼천"
#: In a calm sentence: nobody ever reads it.
CALM = "해바라기칠천"
SENTENCES = (f"저 {CALM} 문의하려고요", f"야 이 씨발 {QUOTED} 놈아")


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
    """Points at a whole sentence, marker and all."""

    def judge(self, text: str, language: str) -> Verdict:
        if QUOTED not in text:
            return Verdict(0.05, False, (), (), False)
        whole = Hit("profanity", 3, 0, len(text), True)
        return Verdict(0.95, True, ("profanity",), (whole,), False)

    def hotwords(self, language: str) -> list[str]:
        return []


class Recogniser:
    name = "markers"

    def __init__(self) -> None:
        self._heard = 0

    def transcribe(
        self, samples: np.ndarray, language: str | None, expected: object = None
    ) -> Transcript:
        assert np.abs(samples).max() > 500, "it is sent speech, not silence"
        text = SENTENCES[self._heard % 2]
        self._heard += 1
        return Transcript(text, language or "ko", -0.2, 0.01, "", {})


def load_pipeline(_settings: Settings) -> TextPipeline:
    return TextPipeline(Judge(), redact)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    settings = load_settings(arguments.config)
    configure_logs(arguments.name)
    asyncio.run(
        serve(TranscriberProcess(settings, arguments.name, load_pipeline, lambda _: Recogniser()))
    )
