"""Whisper by CTranslate2: any folder with a converted model.

CTranslate2 (Klein et al.) runs the network; features (:mod:`detectors.asr.mel`) and vocabulary
(:mod:`detectors.asr.tokens`) are ours, so that nothing else has to be installed.

Whisper was trained on 30 s windows, mostly filled; the encoder's cost is the window's. It takes
shorter ones: with 10 s the text is as good at a sixth of the cost, below that it gets worse
(docs/detection.md). So the window is 10 s, and 16 s for what does not fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors.asr.guard import is_echo, is_unspeakable, shorten
from detectors.asr.mel import log_mel
from detectors.asr.protocol import LONGEST_S, RATE, Rejection, Transcript, likeliest
from detectors.asr.tokens import Vocabulary, decode

#: Windows, seconds: the first that an utterance fits into is taken; and silence at its end,
#: without which the last word suffers.
WINDOWS_S, TAIL_S = (10.0, LONGEST_S), 0.5
#: Hypotheses kept while decoding.
BEAM_SIZE = 5
#: Tokens that an utterance may have: those of the fastest speech, and some for its ends.
TOKENS_S, SPARE_TOKENS = 12.0, 12
#: Tokens of hotwords in the prompt; half of Whisper's text context is 224.
MAX_HOTWORD_TOKENS = 120
#: On noise the model says what it was told to expect. A text less likely than the first is decoded
#: again without hotwords and taken from there where that sees this little sign of speech; one less
#: likely than the second is taken from there in any case.
UNSURE_LOGPROB, UNSURE_PROB, GUESSED_LOGPROB = -0.9, 0.4, -1.2
#: Whisper's own rule for silence: no speech this likely, and a text this unlikely.
SILENCE_PROB, SILENCE_LOGPROB = 0.6, -1.0
#: File beside ``model.bin`` with its SHA-256, written by ``./run setup``.
DIGEST_FILE = "model.bin.sha256"


class WhisperRecogniser:
    """A CTranslate2 Whisper model.

    Args:
        folder: with ``model.bin``, ``config.json`` and the vocabulary.
        languages: among which a language is detected.
        hotwords: for each language the words that the model should expect, most important first.
        threads: that one utterance may use.
        windows_s: lengths of the encoder's window, the shortest first; none above 30.

    Raises:
        DetectorModelError: CTranslate2 or the model is missing, damaged, or no Whisper model.
    """

    def __init__(
        self,
        folder: Path,
        languages: Sequence[str],
        hotwords: Mapping[str, Sequence[str]] | None = None,
        threads: int = 1,
        windows_s: Sequence[float] = WINDOWS_S,
    ) -> None:
        _check_files(folder)
        try:
            import ctranslate2
        except ImportError as error:
            raise DetectorModelError(
                f"CTranslate2 cannot be loaded ({error}): run ./run setup again"
            ) from None
        self.name = f"whisper {folder.name}"
        self._arrays = ctranslate2.StorageView
        try:
            self._model: Any = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type="int8", intra_threads=threads
            )
        except (RuntimeError, ValueError) as error:
            raise DetectorModelError(
                f"the Whisper model in {folder} cannot be loaded ({error}): install it again"
            ) from None
        self._vocabulary = Vocabulary(folder)
        self._windows_s = tuple(windows_s)
        multilingual = bool(self._model.is_multilingual)
        self._languages = [tongue for tongue in languages if multilingual or tongue == "en"]
        if not self._languages:
            raise DetectorModelError(
                f"the Whisper model in {folder} knows English only, which is none of "
                f"{', '.join(languages)}: give transcriber.model_dir a multilingual one"
            )
        self._hotwords = {
            language: self._fitting(words) for language, words in (hotwords or {}).items()
        }

    def _fitting(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """As many of the words as fit into the prompt, and their tokens."""
        kept: list[str] = []
        tokens: list[str] = []
        for word in words:
            more = self._vocabulary.encode(word.split())
            if len(tokens) + len(more) > MAX_HOTWORD_TOKENS:
                break
            kept.append(word)
            tokens += more
        return kept, tokens

    def transcribe(
        self,
        samples: NDArray[np.int16],
        language: str | None,
        expected: Mapping[str, float] | None = None,
    ) -> Transcript:
        """Write down one utterance; see :class:`detectors.asr.protocol.Recogniser`."""
        seconds = min(len(samples) / RATE, LONGEST_S)
        fitting = (w for w in self._windows_s if seconds + TAIL_S <= w)
        window_s = next(fitting, self._windows_s[-1])
        features = log_mel(samples, int(self._model.n_mels), window_s)[None]
        encoded = self._model.encode(self._arrays.from_array(features))
        odds: dict[str, float] = {}
        if language not in self._languages:
            odds = self._detect(encoded)
            language = likeliest(odds, expected)
        words, prompt = self._hotwords.get(language, ([], []))
        found = self._generate(encoded, language, prompt, seconds)
        if prompt and found.scores[0] < UNSURE_LOGPROB:
            plain = self._generate(encoded, language, [], seconds)
            if plain.no_speech_prob > UNSURE_PROB or found.scores[0] < GUESSED_LOGPROB:
                found = plain
        text = decode(found.sequences[0])
        if is_unspeakable(text, seconds):
            # Once more, with what loops are made of forbidden.
            found = self._generate(encoded, language, [], seconds, no_repeat_ngram_size=3)
            text = decode(found.sequences[0])
        logprob, no_speech = float(found.scores[0]), float(found.no_speech_prob)
        rejected: Rejection = ""
        if no_speech > SILENCE_PROB and logprob < SILENCE_LOGPROB:
            rejected = "no_speech"
        elif is_unspeakable(text, seconds):
            rejected = "loop"
        elif is_echo(text, words):
            rejected = "echo"
        kept = "" if rejected else shorten(text)
        return Transcript(kept, language, logprob, no_speech, rejected, odds)

    def _detect(self, encoded: Any) -> dict[str, float]:
        """How likely each of our languages is; they add up to 1."""
        if len(self._languages) == 1:
            return {self._languages[0]: 1.0}
        found = dict(self._model.detect_language(encoded)[0])
        odds = {tongue: max(found.get(f"<|{tongue}|>", 0.0), 1e-9) for tongue in self._languages}
        total = sum(odds.values())
        return {tongue: value / total for tongue, value in odds.items()}

    def _generate(
        self, encoded: Any, language: str, hotwords: list[str], seconds: float, **options: Any
    ) -> Any:
        prompt = ["<|startofprev|>", *hotwords] if hotwords else []
        prompt.append("<|startoftranscript|>")
        if self._model.is_multilingual:
            prompt += [f"<|{language}|>", "<|transcribe|>"]
        prompt.append("<|notimestamps|>")
        return self._model.generate(
            encoded,
            [prompt],
            beam_size=BEAM_SIZE,
            max_length=len(prompt) + SPARE_TOKENS + int(TOKENS_S * seconds),
            return_scores=True,
            return_no_speech_prob=True,
            **options,
        )[0]


def _check_files(folder: Path) -> None:
    """Raise a sentence where the library would end in one of its own.

    Raises:
        DetectorModelError: a file is missing, or ``model.bin`` is not the one that was installed.
    """
    for name in ("model.bin", "config.json"):
        if not (folder / name).is_file():
            raise DetectorModelError(
                f"there is no speech model in {folder} ({name} is missing): run ./run setup, or "
                "give transcriber.model_dir a CTranslate2 Whisper folder"
            )
    try:
        expected = (folder / DIGEST_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return  # a folder of the operator's own
    with (folder / "model.bin").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise DetectorModelError(
            f"{folder / 'model.bin'} is damaged (its SHA-256 is not that of {DIGEST_FILE}): remove "
            "the folder and run ./run setup"
        )
