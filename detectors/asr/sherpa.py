"""What sherpa-onnx runs: SenseVoice, and streaming zipformer transducers; an optional backend.

SenseVoice (An et al., "FunAudioLLM", 2024) reads an utterance in one pass, so it can neither loop
nor take a prompt; one model knows Korean, Chinese, Japanese and English. A zipformer (Yao et al.
2024) is made for a language each. Neither is told hotwords here. Folders are as sherpa-onnx
publishes them: ``tokens.txt`` beside ``model*.onnx``, or beside ``encoder*``, ``decoder*`` and
``joiner*.onnx``; an int8 file goes before the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors.asr.guard import is_unspeakable, shorten
from detectors.asr.protocol import LONGEST_S, RATE, Transcript

_MODEL_RATE = 16_000
#: Silence behind an utterance, without which a streaming model keeps its last word to itself.
TAIL_S = 0.5
#: SenseVoice writes language, mood and events before the text: ``<|ko|><|ANGRY|>…``.
_TAG = re.compile(r"<\|[^|]*\|>")


class SherpaRecogniser:
    """A model run by sherpa-onnx.

    Args:
        backend: ``sensevoice`` or ``zipformer``.
        folder: of the model.
        languages: that callers may speak; a zipformer is taken to know the first.
        threads: that one utterance may use.

    Raises:
        DetectorModelError: sherpa-onnx or the model is missing, damaged, or of another kind.
    """

    def __init__(
        self, backend: str, folder: Path, languages: Sequence[str], threads: int = 1
    ) -> None:
        try:
            import sherpa_onnx
        except ImportError as error:
            raise DetectorModelError(
                f"sherpa-onnx cannot be loaded ({error}): install it (pip install "
                'callshield[sherpa]), or set transcriber.backend = "whisper"'
            ) from None
        self._library: Any = sherpa_onnx
        self._languages = list(languages)
        self._backend, self._folder, self._threads = backend, folder, threads
        self.name = f"{backend} {folder.name}"
        try:
            self._model: Any = self._zipformer() if backend == "zipformer" else self._sensevoice()
        except (RuntimeError, ValueError) as error:
            raise DetectorModelError(
                f"the model in {folder} cannot be loaded ({error}): install it again"
            ) from None

    def _file(self, stem: str) -> str:
        found = sorted(self._folder.glob(f"{stem}*.onnx"), key=lambda f: ("int8" not in f.name, f))
        if not found or not (self._folder / "tokens.txt").is_file():
            raise DetectorModelError(
                f"there is no {self._backend} model in {self._folder} ({stem}*.onnx or tokens.txt "
                "is missing): give transcriber.model_dir a folder as sherpa-onnx publishes it"
            )
        return str(found[0])

    def _sensevoice(self) -> Any:
        return self._library.OfflineRecognizer.from_sense_voice(
            model=self._file("model"),
            tokens=str(self._folder / "tokens.txt"),
            language=self._languages[0] if len(self._languages) == 1 else "auto",
            num_threads=self._threads,
        )

    def _zipformer(self) -> Any:
        return self._library.OnlineRecognizer.from_transducer(
            encoder=self._file("encoder"),
            decoder=self._file("decoder"),
            joiner=self._file("joiner"),
            tokens=str(self._folder / "tokens.txt"),
            num_threads=self._threads,
        )

    def transcribe(
        self,
        samples: NDArray[np.int16],
        language: str | None,
        expected: Mapping[str, float] | None = None,
    ) -> Transcript:
        """Write down one utterance; see :class:`detectors.asr.protocol.Recogniser`.

        SenseVoice says which language it heard: one model holds all, and is not told.
        """
        samples = samples[: round(LONGEST_S * RATE)]
        seconds = len(samples) / RATE
        tail = np.zeros(round(TAIL_S * RATE), dtype=np.float32)
        audio = np.concatenate([samples.astype(np.float32) / np.float32(32768.0), tail])
        stream = self._model.create_stream()
        # Resampled here: the library would say so on standard error for each utterance.
        stream.accept_waveform(_MODEL_RATE, soxr.resample(audio, RATE, _MODEL_RATE))
        spoken = language or self._languages[0]
        odds: dict[str, float] = {}
        if self._backend == "zipformer":
            stream.input_finished()
            while self._model.is_ready(stream):
                self._model.decode_stream(stream)
            text = str(self._model.get_result(stream))
        else:
            self._model.decode_stream(stream)
            text = str(stream.result.text)
            heard = str(stream.result.lang).strip("<|>")
            if language is None and heard in self._languages:
                spoken = heard  # it has read it so already: what was expected changes nothing
                odds = dict.fromkeys(self._languages, 0.1) | {heard: 0.9}
        text = _TAG.sub("", text).strip()
        if is_unspeakable(text, seconds):
            return Transcript("", spoken, 0.0, 0.0, "loop", odds)
        return Transcript(shorten(text), spoken, 0.0, 0.0, "", odds)
