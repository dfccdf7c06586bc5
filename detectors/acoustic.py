"""The acoustic model: vocal-effort features in, one score a window out, batched across calls."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from callshield.errors import DetectorModelError
from detectors import features

#: Model and card shipped with the product.
SHIPPED = Path(__file__).parent / "models"
MODEL_FILE = "vocal_effort.onnx"
CARD_FILE = "vocal_effort.toml"


@dataclass(frozen=True, slots=True)
class Card:
    """What the model card says that the runtime needs; the rest is for people."""

    version: str
    sha256: str
    """Of the ONNX file, hexadecimal."""
    features_sha256: str
    """Of the feature names that it was trained on, see :func:`features_digest`."""
    caution: float
    """Score from which a voice counts as raised, 0..1."""
    serious: float
    """Score from which a voice counts as shouting, 0..1."""
    release: float
    """Score below which a voice counts as calm again, 0..1."""
    sure: float
    """Score from which one window is proof enough that all of it was shouted, 0..1."""


def features_digest() -> str:
    """SHA-256 of the names and order of the features that this program computes."""
    return hashlib.sha256("\n".join(features.NAMES).encode()).hexdigest()


def _number(table: dict[str, Any], key: str, path: Path) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DetectorModelError(
            f"{path}: thresholds.{key}: found {value!r}, expected a number from 0 to 1; "
            "reinstall Callshield or run detectors.train"
        )
    return float(value)


def load_card(path: Path) -> Card:
    """Read a model card.

    Raises:
        DetectorModelError: the file is missing, not TOML, or lacks a key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DetectorModelError(
            f"the model card {path} is missing: reinstall Callshield, or set detector.model_dir "
            f"to a folder with {CARD_FILE} and {MODEL_FILE}"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DetectorModelError(
            f"the model card {path} cannot be read ({error}): reinstall Callshield"
        ) from None
    model, thresholds = values.get("model"), values.get("thresholds")
    if not isinstance(model, dict) or not isinstance(thresholds, dict):
        raise DetectorModelError(
            f"the model card {path} lacks its [model] or [thresholds] table: reinstall Callshield"
        )
    texts = [model.get(key) for key in ("version", "sha256", "features_sha256")]
    if not all(isinstance(text, str) for text in texts):
        raise DetectorModelError(
            f"the model card {path} lacks model.version, model.sha256 or model.features_sha256: "
            "reinstall Callshield"
        )
    card = Card(
        version=str(texts[0]),
        sha256=str(texts[1]),
        features_sha256=str(texts[2]),
        caution=_number(thresholds, "caution", path),
        serious=_number(thresholds, "serious", path),
        release=_number(thresholds, "release", path),
        sure=_number(thresholds, "sure", path),
    )
    if not card.release <= card.caution <= card.serious <= card.sure:
        raise DetectorModelError(
            f"{path}: thresholds must rise from release over caution and serious to sure, found "
            f"{card.release}, {card.caution}, {card.serious}, {card.sure}"
        )
    return card


class Scores(NamedTuple):
    """What the model says of a batch of windows; each ``(n,)`` float32, 0..1."""

    scores: NDArray[np.float32]
    """Vocal effort, against the caller's own calm voice as far as that is known."""
    alone: NDArray[np.float32]
    """The same by the window alone."""


class AcousticModel:
    """A loaded model.

    Args:
        folder: holds ``vocal_effort.onnx`` and its card ``vocal_effort.toml``.

    Raises:
        DetectorModelError: a file is missing, corrupt, or belongs to other features; the
            message says which and what to do.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or SHIPPED
        self.card = load_card(folder / CARD_FILE)
        path = folder / MODEL_FILE
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DetectorModelError(
                f"the acoustic model {path} cannot be read ({error.strerror}): reinstall "
                "Callshield, or set detector.model_dir"
            ) from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.card.sha256:
            raise DetectorModelError(
                f"the acoustic model {path} is not the one that its card names (sha256 "
                f"{found[:12]}…, expected {self.card.sha256[:12]}…): reinstall Callshield"
            )
        if self.card.features_sha256 != features_digest():
            raise DetectorModelError(
                f"the acoustic model {path} was trained on other features than this version "
                "computes: take the model of this version, or run detectors.train"
            )
        options = onnxruntime.SessionOptions()
        # One thread: a batch takes less than a millisecond, and the cores belong to the calls.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Idle worker threads must not spin beside the relay.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            probe = self.score(np.zeros((2, features.FEATURE_COUNT), dtype=np.float32)).scores
        except Exception as error:  # onnxruntime raises a class of its own for each fault
            raise DetectorModelError(
                f"the acoustic model {path} cannot be run ({type(error).__name__}): reinstall "
                "Callshield"
            ) from None
        if probe.shape != (2,) or not np.isfinite(probe).all():
            raise DetectorModelError(
                f"the acoustic model {path} does not give one score a window: run detectors.train"
            )

    def score(
        self,
        vectors: NDArray[np.float32],
        references: NDArray[np.float32] | None = None,
        known: NDArray[np.float32] | None = None,
    ) -> Scores:
        """Vocal effort of each window.

        Args:
            vectors: ``(n, FEATURE_COUNT)`` float32.
            references: mean vector of each caller's own calm speech, of the same shape; nothing
                is known of any caller when absent.
            known: ``(n,)`` float32, 0 (the reference says nothing) to 1.
        """
        count = len(vectors)
        if not count:
            nothing = np.zeros(0, dtype=np.float32)
            return Scores(nothing, nothing)
        if references is None or known is None:
            references, known = vectors, np.zeros(count, dtype=np.float32)
        found = self._session.run(
            ["score", "alone"],
            {"features": vectors, "reference": references, "known": known.reshape(-1, 1)},
        )
        scores, alone = (np.asarray(f, dtype=np.float32).reshape(-1) for f in found)
        return Scores(scores, alone)
