"""The four languages' readings under their codes."""

from __future__ import annotations

from detectors.words import chinese, english, japanese, korean
from detectors.words.matcher import Reading

READINGS: dict[str, Reading] = {
    "ko": korean.READING,
    "zh": chinese.READING,
    "en": english.READING,
    "ja": japanese.READING,
}
