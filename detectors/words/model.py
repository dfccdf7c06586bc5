"""The word models: one ONNX file a language, n-grams and lexicon findings in, opinions out."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors.words import evidence, ngrams

#: Models and cards shipped with the product.
SHIPPED = Path(__file__).parent / "models"
#: Languages that have a model. No Japanese texts were there to train on: its lexicon works alone.
LANGUAGES = ("ko", "zh", "en")
#: Rows of the table of kinds; n-grams share them, modulo this.
KIND_ROWS = 1 << 16


def model_file(language: str) -> str:
    """Name of a language's model; its card has ``.toml`` for ``.onnx``."""
    return f"words_{language}.onnx"


def card_file(language: str) -> str:
    """Name of a language's model card."""
    return f"words_{language}.toml"


def contract() -> str:
    """SHA-256 of what a model was trained to be fed; another program must refuse it."""
    text = f"{ngrams.VERSION} {ngrams.BUCKETS} {ngrams.SIZES} {evidence.ABUSE} {evidence.SIZE}"
    text += f" {KIND_ROWS}"
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model makes of one text."""

    score: float
    """0..1; 0.5 is the threshold chosen in training."""
    likeliest: str
    """The likeliest kind of abuse; whatever the score."""
    crisis: bool
    """The text is like those of callers in danger."""


class WordModel:
    """One language's model. Immutable; threads may share it."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def load(cls, language: str, folder: Path = SHIPPED) -> WordModel:
        """Read model and card.

        Raises:
            DetectorModelError: a file is missing, corrupt, or not the one its card names.
        """
        path = folder / model_file(language)
        card_path = folder / card_file(language)
        try:
            data = path.read_bytes()
            card = tomllib.loads(card_path.read_text(encoding="utf-8"))["model"]
            expected, fed = card["sha256"], card["contract"]
        except (OSError, UnicodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise DetectorModelError(
                f"{path} or its card cannot be read ({error}): reinstall Callshield, or run "
                "`callshield train text`"
            ) from None
        if hashlib.sha256(data).hexdigest() != expected:
            raise DetectorModelError(
                f"{path} is not the file that its card names: reinstall Callshield"
            )
        if fed != contract():
            raise DetectorModelError(
                f"{path} was trained for another version of the program: reinstall Callshield, or "
                "run `callshield train text`"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own kinds, all of them undocumented
            raise DetectorModelError(
                f"{path} cannot be loaded ({type(error).__name__}): reinstall Callshield"
            ) from None
        return cls(session)

    def run(
        self,
        grams: NDArray[np.int64],
        weights: NDArray[np.float32],
        findings: NDArray[np.float32],
    ) -> Opinion:
        """The opinion on one text.

        Args:
            grams: ``(k,)`` rows of the model's table, see :func:`detectors.words.ngrams.rows`.
            weights: ``(k,)`` one weight a row.
            findings: ``(evidence.SIZE,)``, see :func:`detectors.words.evidence.features`.
        """
        (scores,) = self._session.run(
            None, {"grams": grams, "weights": weights, "findings": findings}
        )
        kinds = scores[1 : 1 + len(evidence.ABUSE)]
        return Opinion(
            float(scores[0]), evidence.ABUSE[int(np.argmax(kinds))], bool(scores[-1] >= 0.5)
        )
