"""From a transcript to what may leave the transcriber's process.

The judge sees the text as it was said; everybody after it sees the redacted one. Words that the
judge points at are quoted from the redacted text too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec


class FoundHit(Protocol):
    """A passage that a judge points at."""

    @property
    def category(self) -> str: ...
    @property
    def severity(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def exact(self) -> bool: ...


class FoundVerdict(Protocol):
    """What a judge says of one text."""

    @property
    def score(self) -> float: ...
    @property
    def abusive(self) -> bool: ...
    @property
    def categories(self) -> tuple[str, ...]: ...
    @property
    def hits(self) -> Sequence[FoundHit]: ...
    @property
    def crisis(self) -> bool: ...


class TextJudge(Protocol):
    """:class:`detectors.words.Judge`, or a double of it."""

    def judge(self, text: str, language: str) -> FoundVerdict: ...

    def hotwords(self, language: str) -> list[str]: ...


class RedactedText(Protocol):
    """:class:`detectors.redaction.Redacted`, or a double of it."""

    @property
    def text(self) -> str: ...

    def excerpt(self, start: int, end: int) -> str:
        """The redacted form of the original's ``[start:end]``."""


Redactor = Callable[[str, str], RedactedText]
"""``redact(text, language)``."""


class WordHit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that counts, redacted."""

    category: str
    severity: int
    """1..3."""
    exact: bool
    """Spelled as the lexicon has it; else only near it, perhaps the recogniser's error."""
    quote: str


class JudgedText(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance's text and what it amounts to; nothing of the original is left in it."""

    text: str = ""
    """Redacted."""
    score: float = 0.0
    """0..1, rising with abuse."""
    abusive: bool = False
    categories: list[str] = []
    """Never ``crisis``."""
    hits: list[WordHit] = []
    crisis: bool = False
    """The caller may be in danger; apart from abuse."""


@dataclass(frozen=True, slots=True)
class TextPipeline:
    """Judge, then redact."""

    judge: TextJudge
    redact: Redactor
    lacking: tuple[str, ...] = ()
    """What the judge works without, a sentence each."""

    def __call__(self, text: str, language: str) -> JudgedText:
        """Judge and redact one transcript; an empty one is nothing."""
        if not text:
            return JudgedText()
        verdict = self.judge.judge(text, language)
        redacted = self.redact(text, language)
        return JudgedText(
            text=redacted.text,
            score=verdict.score,
            abusive=verdict.abusive,
            categories=list(verdict.categories),
            hits=[
                WordHit(
                    category=hit.category,
                    severity=hit.severity,
                    exact=hit.exact,
                    quote=redacted.excerpt(hit.start, hit.end),
                )
                for hit in verdict.hits
            ],
            crisis=verdict.crisis,
        )
