"""Words of a recording, in this process: the transcriber's work for ``callshield analyze``.

The same utterances, recogniser, judge and redaction as in a live call; only that nobody waits, so
that every utterance is heard.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from callshield.transcriber_settings import TranscriberSettings
from detectors.asr.load import default_model_dir, load_recogniser
from detectors.asr.protocol import Recogniser
from detectors.caller_language import CallerLanguage
from detectors.text_pipeline import JudgedText, TextPipeline
from detectors.transcriber import pipeline_for
from detectors.utterances import Utterance, UtteranceCutter
from detectors.words.lexicon import LANGUAGES

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FileWords:
    """What was said in one utterance of a recording, judged and redacted."""

    start_s: float
    end_s: float
    words: JudgedText


class WordsReader:
    """Writes down and judges utterances; one for all recordings of a process.

    Args:
        recogniser: the loaded model.
        pipeline: judge and redaction.
        language: of all recordings; empty: found out for each.
    """

    def __init__(self, recogniser: Recogniser, pipeline: TextPipeline, language: str) -> None:
        self._recogniser = recogniser
        self._pipeline = pipeline
        self.language = language

    @property
    def lacking(self) -> tuple[str, ...]:
        """What words are judged without, a sentence each."""
        return self._pipeline.lacking

    def read(self, samples: NDArray[np.int16], caller: CallerLanguage) -> JudgedText:
        """One utterance, int16 at 8 kHz; a failure costs this utterance only."""
        try:
            transcript = self._recogniser.transcribe(
                samples, caller.language or None, caller.expected
            )
            caller.hear(transcript.language_odds)
            return self._pipeline(transcript.text, transcript.language)
        except Exception as error:  # its message may quote what was said
            log.error("transcription_failed", error=type(error).__name__)
            return JudgedText()


def is_installed() -> bool:
    """Whether there is a speech model to hear words with."""
    return (default_model_dir() / "model.bin").is_file()


@functools.cache
def load_reader(language: str) -> WordsReader:
    """The model that ``./run setup`` installs, with judge and redaction.

    Args:
        language: ``ko``, ``en``, ``zh`` or ``ja``; empty: found out for each recording.

    Raises:
        DetectorModelError: a model is missing or damaged.
    """
    languages = (language,) if language else LANGUAGES
    pipeline = pipeline_for(languages)
    hotwords = {tongue: pipeline.judge.hotwords(tongue) for tongue in languages}
    recogniser = load_recogniser(TranscriberSettings.model_validate({}), languages, hotwords)
    return WordsReader(recogniser, pipeline, language)


class FileListener:
    """Hears one recording beside the acoustic model (:class:`detectors.engine.Listener`)."""

    def __init__(self, reader: WordsReader) -> None:
        self._reader = reader
        self._cutter = UtteranceCutter()
        self._caller = CallerLanguage(reader.language)
        self._heard: list[FileWords] = []

    def hear(
        self,
        call_id: bytes,
        start_s: float,
        samples: NDArray[np.int16],
        speech: NDArray[np.bool_],
    ) -> None:
        """One hop; utterances that end with it are read at once."""
        self._read(self._cutter.push(start_s, samples, speech))

    def pause(self, call_id: bytes) -> None:
        """The recording is over."""
        self._read(self._cutter.flush())

    def end(self, call_id: bytes) -> None:
        """As :meth:`pause`."""
        self.pause(call_id)

    def take(self) -> list[FileWords]:
        """What was heard since the last time."""
        heard, self._heard = self._heard, []
        return heard

    def _read(self, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            words = self._reader.read(utterance.samples, self._caller)
            if words.text:
                self._heard.append(FileWords(utterance.start_s, utterance.end_s, words))
