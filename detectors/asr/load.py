"""The recogniser that the configuration names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from callshield.transcriber_settings import TranscriberSettings
from detectors.asr.protocol import Recogniser
from detectors.asr.whisper import WhisperRecogniser


def default_model_dir() -> Path:
    """Where ``./run setup`` installs the Whisper base model: beside the packages that use it."""
    return Path(sys.prefix) / "share" / "callshield" / "whisper-base"


def load_recogniser(
    settings: TranscriberSettings,
    languages: Sequence[str],
    hotwords: Mapping[str, Sequence[str]],
) -> Recogniser:
    """Load the model.

    Args:
        settings: backend, folder, threads.
        languages: that callers may speak.
        hotwords: for each language the words that the model should expect.

    Raises:
        DetectorModelError: it is missing, damaged or of another kind; or its library is missing.
    """
    folder = settings.model_dir or default_model_dir()
    if settings.backend == "whisper":
        return WhisperRecogniser(folder, languages, hotwords, settings.threads)
    from detectors.asr.sherpa import SherpaRecogniser

    return SherpaRecogniser(settings.backend, folder, languages, settings.threads)
