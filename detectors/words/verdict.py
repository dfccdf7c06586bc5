"""What the words of one utterance amount to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """A word or phrase of the lexicon in a text. The word itself is ``text[start:end]``."""

    category: str
    """``profanity``, ``insult``, ``threat``, ``sexual_harassment``, ``hate`` or ``crisis``."""
    severity: int
    """1 rude, 2 abusive, 3 gross."""
    start: int
    """Index of its first character in the text that was judged."""
    end: int
    """Index after its last character."""
    exact: bool
    """As the lexicon spells it, disguises undone; else only near it (a transcriber's error?)."""


@dataclass(frozen=True, slots=True)
class TextVerdict:
    """A text's judgement."""

    score: float
    """0..1, rising with abuse; from 0.5 the text counts as abusive."""
    abusive: bool
    categories: tuple[str, ...]
    """Kinds of abuse in a fixed order, at least one where ``abusive``; never ``crisis``."""
    hits: tuple[Hit, ...]
    """Lexicon words in the order of their places, severity 1 and ``crisis`` among them."""
    crisis: bool
    """The speaker may be in danger. Says nothing about abuse and never raises the score."""


EMPTY = TextVerdict(0.0, False, (), (), False)
