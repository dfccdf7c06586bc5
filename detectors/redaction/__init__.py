"""Takes personal data out of what a caller said, before the text leaves the process.

:func:`redact` replaces telephone, card, account and identity numbers, e-mail addresses and
postal addresses by a mark that names their kind, whether they are written in digits (of any
script) or spoken digit by digit, as a recogniser writes them down. It leans to the safe side:
a long number that is not clearly an amount, a date or a time goes, whatever it is. What it does
not know: names, and places told without a number. It runs in time linear in the text's length.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from detectors.redaction.mail import find_mail
from detectors.redaction.marks import Kind, mark
from detectors.redaction.numbers import find_numbers
from detectors.redaction.places import find_places
from detectors.redaction.plain import plain

__all__ = ["Kind", "Redacted", "Span", "redact"]


@dataclass(frozen=True, slots=True)
class Span:
    """One passage that was replaced."""

    kind: Kind
    start: int
    """In the original text."""
    end: int
    marked_start: int
    """Of the mark, in the redacted text."""
    marked_end: int


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text that may leave the process. It does not hold the original."""

    text: str
    spans: tuple[Span, ...]

    @property
    def found(self) -> tuple[Kind, ...]:
        """The kind of each mark, in the order of the text."""
        return tuple(span.kind for span in self.spans)

    def excerpt(self, start: int, end: int) -> str:
        """The redacted form of the original's ``[start:end]``; a mark is given whole or not.

        Offsets outside of the text are clipped to it.
        """
        if end <= start:
            return ""
        first = self._moved(start, at_end=False)
        last = self._moved(end, at_end=True)
        return self.text[first:last]

    def _moved(self, offset: int, *, at_end: bool) -> int:
        ends = [span.end for span in self.spans]
        k = bisect_left(ends, offset) if at_end else bisect_right(ends, offset)
        if k < len(self.spans) and self.spans[k].start < offset:
            # Within a passage that was replaced: the whole mark belongs to the excerpt.
            return self.spans[k].marked_end if at_end else self.spans[k].marked_start
        before = self.spans[k - 1] if k else None
        shift = before.marked_end - before.end if before else 0
        return min(max(offset + shift, 0), len(self.text))


def redact(text: str, language: str) -> Redacted:
    """Replace personal data by marks.

    Args:
        text: what was said, in any script and mixture.
        language: ``ko``, ``en``, ``zh`` or ``ja`` (others count as ``en``): the language of the
            marks, and which country's numbers are guessed first. Numbers of all four are found
            in any case.
    """
    if not text:
        return Redacted("", ())
    shape = plain(text)
    found = [*find_mail(shape.text), *find_places(shape.text)]
    found += find_numbers(shape.text, language)
    found.sort(key=lambda item: (item[0], -item[1]))
    pieces: list[str] = []
    spans: list[Span] = []
    done = length = 0
    for first, last, kind in found:
        start, end = shape.start[first], shape.end[last - 1]
        if start < done:
            if end > done:
                # Two rules see overlapping passages: the rest goes with the first.
                held = spans[-1]
                spans[-1] = Span(held.kind, held.start, end, held.marked_start, held.marked_end)
                done = end
            continue
        shown = mark(kind, language)
        pieces += [text[done:start], shown]
        length += start - done
        spans.append(Span(kind, start, end, length, length + len(shown)))
        length += len(shown)
        done = end
    pieces.append(text[done:])
    return Redacted("".join(pieces), tuple(spans))
