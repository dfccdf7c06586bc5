"""What a caller said in a recording, utterance by utterance: for an evidence package.

The same speech detection, recogniser and redaction as in a live call, over the caller's channel of
a recording, in the process that asks for it; but without the hotwords that live detection gives the
recogniser, which must not be led to hear abuse where something is to be proven. Only here, and only
where the caller of this code says so, is a text given out as it was recognised
(:attr:`Spoken.verbatim`): a live call's words leave their process redacted or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from callshield.transcriber_settings import TranscriberSettings
from detectors.acoustic import AcousticModel
from detectors.analyze import LiveFile
from detectors.asr.load import default_model_dir, load_recogniser
from detectors.asr.protocol import Recogniser
from detectors.caller_language import CallerLanguage
from detectors.redaction import redact
from detectors.speech import SpeechJudge
from detectors.utterances import Utterance, UtteranceCutter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance of the caller."""

    start_s: float
    """From the recording's beginning."""
    end_s: float
    language: str
    text: str
    """Redacted; empty where speech was not understood."""
    verbatim: str | None
    """As it was recognised; None unless that was asked for."""


class Scribe:
    """Writes recordings down.

    Args:
        recogniser: the loaded model.
        verbatim: give out what was recognised, too.
    """

    def __init__(self, recogniser: Recogniser, *, verbatim: bool) -> None:
        self._recogniser = recogniser
        self._verbatim = verbatim

    @property
    def name(self) -> str:
        """Backend and model."""
        return self._recogniser.name

    def transcribe(
        self, blocks: Iterable[NDArray[np.float32]], rate: int, caller: CallerLanguage
    ) -> Iterator[Spoken]:
        """Write one recording down.

        Args:
            blocks: of one channel, at most a second each, -1..1.
            rate: of the samples, in Hz.
            caller: what is known of the caller's language.
        """
        listener = _Listener(self._recogniser, caller, verbatim=self._verbatim)
        live = LiveFile(AcousticModel(None), rate, listener, SpeechJudge.load(None))
        for block in blocks:
            live.push(block)
            yield from listener.take()
        live.push(np.zeros(0, np.float32), last=True)
        yield from listener.take()


def load_scribe(
    settings: TranscriberSettings, languages: Sequence[str], *, verbatim: bool
) -> Scribe:
    """With the model that the node uses.

    Args:
        settings: ``[transcriber]``.
        languages: that callers may speak.
        verbatim: as :class:`Scribe`.

    Raises:
        DetectorModelError: the model is missing or damaged.
    """
    return Scribe(load_recogniser(settings, languages, {}), verbatim=verbatim)


def is_installed(settings: TranscriberSettings) -> bool:
    """Whether there is a speech model."""
    return (settings.model_dir or default_model_dir()).is_dir()


class _Listener:
    """Hears a recording beside the acoustic model (:class:`detectors.engine.Listener`)."""

    def __init__(self, recogniser: Recogniser, caller: CallerLanguage, *, verbatim: bool) -> None:
        self._recogniser = recogniser
        self._cutter = UtteranceCutter()
        self._caller = caller
        self._verbatim = verbatim
        self._heard: list[Spoken] = []

    def hear(
        self,
        call_id: bytes,
        start_s: float,
        samples: NDArray[np.int16],
        speech: NDArray[np.bool_],
    ) -> None:
        self._read(self._cutter.push(start_s, samples, speech))

    def pause(self, call_id: bytes) -> None:
        self._read(self._cutter.flush())

    def end(self, call_id: bytes) -> None:
        self.pause(call_id)

    def take(self) -> list[Spoken]:
        """What was heard since the last time."""
        heard, self._heard = self._heard, []
        return heard

    def _read(self, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            text, language = self._recognise(utterance.samples)
            self._heard.append(
                Spoken(
                    start_s=utterance.start_s,
                    end_s=utterance.end_s,
                    language=language,
                    text=redact(text, language).text,
                    verbatim=text if self._verbatim else None,
                )
            )

    def _recognise(self, samples: NDArray[np.int16]) -> tuple[str, str]:
        caller = self._caller
        try:
            heard = self._recogniser.transcribe(samples, caller.language or None, caller.expected)
        except Exception as error:  # its message may quote what was said
            log.error("transcription_failed", error=type(error).__name__)
            return "", caller.language
        caller.hear(heard.language_odds)
        return heard.text, heard.language
