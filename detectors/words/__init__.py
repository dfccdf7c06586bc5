"""What the caller's words mean: normalisers, lexicons, and a small model for four languages."""

from detectors.words.judge import Judge
from detectors.words.verdict import Hit, TextVerdict

__all__ = ["Hit", "Judge", "TextVerdict"]
