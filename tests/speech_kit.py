"""Speech for tests, and the model that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from detectors.asr.load import default_model_dir
from detectors.asr.measure import character_errors, read_speech

__all__ = ["Sentence", "character_errors", "sentences", "speech_model"]

SPEECH = Path(__file__).parent / "speech" / "ko"


@dataclass(frozen=True)
class Sentence:
    """One synthetic sentence."""

    name: str
    abusive: bool
    text: str
    samples: np.ndarray
    """int16 at 8 kHz, through mu-law as on the telephone."""


@cache
def sentences() -> dict[str, Sentence]:
    """All of them by name, e.g. ``bad_02f``."""
    lines = (SPEECH / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    names = [Path(line.split("\t")[0]).stem for line in lines]
    return {
        name: Sentence(name, abusive, text, samples)
        for name, (_, abusive, text, samples) in zip(names, read_speech(SPEECH), strict=True)
    }


def speech_model() -> Path:
    """Folder of the installed model; skips where its packages are gone, fails without set-up."""
    folder = default_model_dir()
    if (folder / "model.bin").exists():
        return folder
    gone = folder.with_name(folder.name + ".missing")
    if gone.exists():
        pytest.skip(f"no speech model, as ./run setup said: {gone.read_text().strip()}")
    raise AssertionError(f"there is no speech model in {folder}: run ./run setup")
