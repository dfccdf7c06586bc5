"""What one transcribed utterance says, as evidence: how grave, how sure, and which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

#: Categories in the order in which they are told, the gravest first.
CATEGORIES = ("threat", "sexual_harassment", "hate", "insult", "profanity")
#: Those whose gravest words make level 3 at once.
GRAVE = ("threat", "sexual_harassment")
#: Severities of :class:`detectors.words.Hit`.
RUDE, ABUSIVE, GROSS = 1, 2, 3
#: Quotations with one piece of evidence.
MAX_QUOTES = 5


class JudgedHit(Protocol):
    """A passage that a judge of words points at (:class:`detectors.text_pipeline.WordHit`)."""

    @property
    def category(self) -> str: ...
    @property
    def severity(self) -> int: ...
    @property
    def exact(self) -> bool: ...
    @property
    def quote(self) -> str: ...


class JudgedWords(Protocol):
    """One utterance, judged and redacted (:class:`detectors.text_pipeline.JudgedText`)."""

    @property
    def score(self) -> float: ...
    @property
    def abusive(self) -> bool: ...
    @property
    def categories(self) -> Sequence[str]: ...
    @property
    def hits(self) -> Sequence[JudgedHit]: ...
    @property
    def crisis(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class WordEvidence:
    """What one utterance says."""

    score: float
    """0..1, rising with abuse."""
    severity: int
    """0 for no abuse; :data:`RUDE`, :data:`ABUSIVE` or :data:`GROSS`."""
    categories: tuple[str, ...]
    sure: bool
    """Words as the lexicon spells them; else only near ones, or the model's opinion."""
    words: tuple[str, ...]
    """Quotations, redacted."""
    grave: bool = False
    """Among the sure words is a gross threat or gross sexual harassment."""
    crisis: bool = False
    crisis_words: tuple[str, ...] = ()
    """Quotations that hint at a crisis, redacted."""

    @classmethod
    def of(cls, judged: JudgedWords) -> WordEvidence:
        """Of a judged utterance. One that as a whole counts as no abuse is none, whatever words
        it has; the model's opinion without a word of the lexicon is abuse, but unsure."""
        abuse = [hit for hit in judged.hits if hit.category in CATEGORIES]
        exact = [hit for hit in abuse if hit.exact]
        severity = 0
        if judged.abusive:
            severity = max((hit.severity for hit in exact or abuse), default=ABUSIVE)
            severity = min(max(severity, RUDE), GROSS)
        return cls(
            score=judged.score,
            severity=severity,
            categories=ordered(judged.categories) if judged.abusive else (),
            sure=bool(exact) and judged.abusive,
            words=_quotes(hit.quote for hit in exact or abuse) if judged.abusive else (),
            grave=judged.abusive
            and any(hit.category in GRAVE and hit.severity >= GROSS for hit in exact),
            crisis=judged.crisis,
            crisis_words=_quotes(hit.quote for hit in judged.hits if hit.category == "crisis"),
        )


def ordered(categories: Iterable[str]) -> tuple[str, ...]:
    """Each category once, the gravest first; what is none is left out."""
    found = set(categories)
    return tuple(name for name in CATEGORIES if name in found)


def _quotes(quotes: Iterable[str]) -> tuple[str, ...]:
    """Each once, in order, bounded; none that stands within another."""
    shown = list(dict.fromkeys(quote.strip()[:80] for quote in quotes if quote.strip()))[:64]
    whole = [quote for quote in shown if not any(quote != q and quote in q for q in shown)]
    return tuple(whole[:MAX_QUOTES])
