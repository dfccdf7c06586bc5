"""``callshield classify``: a verdict a line, the lexicon and the word model alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from callshield.errors import SetupError
from detectors.words.judge import Judge


def lines_of(stream: BinaryIO | None) -> Iterator[bytes]:
    """The lines of standard input; ``None`` where it was closed before the program began.

    Raises:
        SetupError: there is none, or it cannot be read.
    """
    if stream is None:
        raise SetupError(
            "there is no standard input to read lines from: give it some, as in "
            "`callshield classify --lang ko < lines.txt`"
        )
    try:
        yield from stream
    except OSError as error:
        raise SetupError(f"standard input cannot be read ({error}): give lines of text") from None


def classify(lines: Iterable[bytes], language: str, judge: Judge) -> Iterator[dict[str, Any]]:
    """One answer a line, an empty line's among them.

    ``categories`` ends with ``crisis`` where the speaker may be in danger; that alone leaves
    ``abusive`` false. Bytes that are not UTF-8 are read as replacement characters.
    """
    for line in lines:
        verdict = judge.judge(line.decode("utf-8", "replace").rstrip("\r\n"), language)
        yield {
            "score": round(verdict.score, 4),
            "abusive": verdict.abusive,
            "categories": [*verdict.categories, *(["crisis"] if verdict.crisis else [])],
        }
