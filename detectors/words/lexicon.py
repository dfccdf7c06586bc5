"""The lexicons: one TOML file a language, words with category and severity, and what is clean.

The notation ``{시|쉬}발`` stands for each alternative. Flags of an entry:

* ``exact``: as written only; no near miss of spelling counts
* ``whole``: a word of its own, particles allowed after it
* ``anywhere``: also inside a word (else a hit begins a word, or follows a listed prefix)
* ``initials``: Korean first consonants (ㅅㅂ), only as a run of their own
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callshield.errors import DetectorModelError

FOLDER = Path(__file__).parent / "lexicons"
LANGUAGES = ("ko", "zh", "en", "ja")
#: What a lexicon entry may be; ``crisis`` is no abuse and never raises a score.
CATEGORIES = ("profanity", "insult", "threat", "sexual_harassment", "hate", "crisis")
_FLAGS = ("exact", "whole", "anywhere", "initials")
_KEYS = {"category", "severity", "words", *_FLAGS}
_TOO_MANY = 12_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One spelling of one word."""

    word: str
    category: str
    severity: int
    """1 rude, 2 abusive, 3 gross; 0 for what is clean."""
    exact: bool = False
    whole: bool = False
    anywhere: bool = False
    initials: bool = False


@dataclass(frozen=True, slots=True)
class Lexicon:
    """One language's words."""

    language: str
    entries: tuple[Entry, ...]
    clean: tuple[str, ...]
    """Phrases that are no abuse, whatever entry they contain."""
    misheard: tuple[str, ...]
    """Of those the ones that are as clean when a transcriber got a sound or a space wrong."""
    prefixes: tuple[str, ...]
    """What may stand before a word without a space (개, 씹, 미친)."""
    particles: frozenset[str]
    """What may follow a ``whole`` word without a space (은, 는, 아)."""
    hotwords: tuple[str, ...]
    """For a recogniser to listen for: plain spellings, gravest first."""


def expand(pattern: str) -> list[str]:
    """Every spelling of ``{a|b}c``: ``ac`` and ``bc``.

    Raises:
        DetectorModelError: a brace is open, or the pattern stands for thousands.
    """
    words, at = _alternatives(pattern, 0, pattern)
    if at != len(pattern):
        raise DetectorModelError(f"lexicon pattern {pattern!r}: braces do not close")
    return [word for word in dict.fromkeys(words) if word.strip()]


def _alternatives(text: str, at: int, whole: str) -> tuple[list[str], int]:
    """What ``a|b`` from ``at`` to the closing brace or the end stands for, and where it ends."""
    done: list[str] = []
    words = [""]
    while at < len(text) and text[at] != "}":
        if text[at] == "|":
            done += words
            words = [""]
        elif text[at] == "{":
            choice, at = _alternatives(text, at + 1, whole)
            if at >= len(text):
                raise DetectorModelError(f"lexicon pattern {whole!r}: braces do not close")
            words = [word + one for word in words for one in choice]
        else:
            words = [word + text[at] for word in words]
        if len(words) + len(done) > _TOO_MANY:
            raise DetectorModelError(f"lexicon pattern {whole!r} stands for too many words")
        at += 1
    return done + words, at


def load(language: str, path: Path | None = None) -> Lexicon:
    """Read one language's lexicon; ``path`` for a site's own instead of the shipped one.

    Raises:
        DetectorModelError: no such language, or the file is missing, not TOML or wrongly filled; of
            the shipped ones also where it breaks off.
    """
    shipped = path is None
    if path is None:
        if language not in LANGUAGES:
            raise DetectorModelError(
                f"there is no lexicon for {language!r}; there are {', '.join(LANGUAGES)}"
            )
        path = FOLDER / f"{language}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise DetectorModelError(f"{path}: cannot be read: {error}; reinstall Callshield") from None
    try:
        return _filled(language, table, path, shipped)
    except (AttributeError, TypeError, ValueError) as error:  # a table where a list should be, ...
        raise DetectorModelError(f"{path} is filled wrongly ({error}): see its comments") from None


def _filled(language: str, table: dict[str, Any], path: Path, shipped: bool) -> Lexicon:
    # The allow-list stands last: a file torn between two lines is TOML still, but lacks it.
    if shipped and not (table.get("entry") and table.get("allow", {}).get("words")):
        raise DetectorModelError(f"{path} breaks off before its end: reinstall Callshield")
    entries: list[Entry] = []
    for number, block in enumerate(table.get("entry", [])):
        entries += _block(block, f"{path}: entry {number + 1}")
    allow = table.get("allow", {})
    misheard = [word for pattern in allow.get("misheard", []) for word in expand(pattern)]
    clean = [word for pattern in allow.get("words", []) for word in expand(pattern)] + misheard
    return Lexicon(
        language,
        tuple(dict.fromkeys(entries)),
        tuple(dict.fromkeys(clean)),
        tuple(misheard),
        tuple(table.get("prefixes", [])),
        frozenset(word for pattern in table.get("particles", []) for word in expand(pattern)),
        tuple(table.get("hotwords", [])),
    )


def _block(block: dict[str, Any], place: str) -> list[Entry]:
    unknown = set(block) - _KEYS
    if unknown:
        raise DetectorModelError(f"{place}: unknown key {sorted(unknown)[0]!r}")
    if block.get("category") not in CATEGORIES:
        raise DetectorModelError(
            f"{place}: category: found {block.get('category')!r}, "
            f"expected one of {', '.join(CATEGORIES)}"
        )
    if block.get("severity") not in (1, 2, 3):
        raise DetectorModelError(
            f"{place}: severity: found {block.get('severity')!r}, expected 1, 2 or 3"
        )
    flags = {flag: bool(block.get(flag, False)) for flag in _FLAGS}
    return [
        Entry(word, str(block["category"]), int(block["severity"]), **flags)
        for pattern in block.get("words", [])
        for word in expand(pattern)
    ]
