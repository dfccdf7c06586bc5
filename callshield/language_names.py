"""The languages that a command may be told."""

from __future__ import annotations

from enum import StrEnum


class LanguageName(StrEnum):
    """Languages of prompts, consoles and words."""

    KO = "ko"
    EN = "en"
    ZH = "zh"
    JA = "ja"
