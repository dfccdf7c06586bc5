"""``[transcriber]``: who writes down what callers say, and with which model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from callshield.settings_base import SECTION

SpokenLanguage = Literal["ko", "en", "zh", "ja"]
#: ``detect``: found out call by call, among ``transcriber.languages``.
CallerLanguage = Literal["ko", "en", "zh", "ja", "detect"]


class TranscriberSettings(BaseModel):
    """``[transcriber]``: the processes that turn callers' speech into text; off with
    ``workers = 0`` or ``[detector] enabled = false``."""

    model_config = SECTION

    workers: int = Field(1, ge=0, le=16)
    """Processes, each with the model in memory; one uses at most ``threads`` cores."""
    backend: Literal["whisper", "sensevoice", "zipformer"] = "whisper"
    """``whisper``: by CTranslate2. The others by sherpa-onnx, which is to be installed besides
    (``pip install callshield[sherpa]``)."""
    model_dir: Path | None = None
    """Folder of the model: converted for CTranslate2, or as sherpa-onnx publishes it. Absent: the
    Whisper base model that `./run setup` installs."""
    language: CallerLanguage | None = None
    """What callers speak; ``detect``: find it out call by call. ``notice.language`` when absent;
    ``agents.ID.language`` goes first."""
    languages: Annotated[list[SpokenLanguage], Field(min_length=1)] = ["ko", "en", "zh", "ja"]
    """Among which ``detect`` chooses."""
    threads: int = Field(1, ge=1, le=16)
    """Threads of one process."""
    niceness: int = Field(10, ge=0, le=19)
    """Scheduling priority below the rest of the node's: audio never waits for words."""

    @field_validator("languages")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("each language once")
        return value
