"""What the tests of the words share: judges loaded once, and made sentences."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from detectors.words import Judge

SENTENCES = Path(__file__).parent / "words"


@cache
def judge(language: str, *, with_model: bool = True) -> Judge:
    """A judge of one language; without its model the lexicon alone."""
    if with_model:
        return Judge.load((language,))
    return Judge.load((language,), model_dir=None)


def sentences(language: str, kind: str) -> list[str]:
    """Sentences made for these tests; nobody's calls."""
    table = tomllib.loads((SENTENCES / f"{language}.toml").read_text(encoding="utf-8"))
    return list(table[kind])
