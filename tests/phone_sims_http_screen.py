"""What a simulated phone's screen shows: text as it is drawn, not as it was sent.

A line wider than the screen is cut, a line below its last row is not seen, a wide character
(Unicode Standard Annex 11: W and F) takes two columns, and one of which only the first column is
left is not drawn. The real ones differ: some wrap, some scroll; no manual says for which model.
Cutting is the strictest, so that a text which is whole here is whole there.
"""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


def columns(text: str) -> int:
    """Columns that a text takes on a screen of fixed width."""
    return sum(_columns_of(character) for character in text)


def cut(text: str, width: int) -> str:
    """As much of a line as is drawn in ``width`` columns."""
    taken = 0
    for place, character in enumerate(text):
        taken += _columns_of(character)
        if taken > width:
            return text[:place]
    return text


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


#: Moved or hidden text, and what no font has: a phone draws a box, or the line backwards.
_UNDRAWABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


@dataclass(frozen=True, slots=True)
class SoftKey:
    """A key under the screen, named by what was pushed."""

    label: str
    action: str
    """An address, or what the family calls an internal URI."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One thing that was shown."""

    title: tuple[str, ...]
    """Bar above the text, as drawn: no line or one."""
    lines: tuple[str, ...]
    """As drawn."""
    lost: tuple[str, ...]
    """What was sent and cannot be read: ends of lines, lines below the last, boxes."""
    keys: tuple[SoftKey, ...] = ()

    @property
    def text(self) -> str:
        """All that can be read."""
        return "\n".join([*self.title, *self.lines])


@dataclass
class Screen:
    """A screen of ``rows`` × ``width`` columns below a bar for a title."""

    rows: int
    width: int
    clock: Callable[[], float] = time.monotonic
    history: list[Picture] = field(default_factory=list)
    """Everything that was ever shown, in order; taking away is not among it."""
    beeps: int = 0
    _shown: Picture | None = None
    _until_s: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def show(
        self,
        text: str,
        *,
        title: str = "",
        timeout_s: float | None = None,
        keys: Sequence[SoftKey] = (),
    ) -> None:
        """Draw, instead of what was there.

        Args:
            text: its line breaks are kept; more than one space is drawn as one.
            title: for the bar.
            timeout_s: after which it goes away by itself; None: never.
            keys: from the left.
        """
        lost: list[str] = []
        wanted = [_squeezed(line) for line in text.strip("\r\n \t").splitlines()]
        drawn = [self._drawn(line, lost) for line in wanted[: self.rows]]
        lost += wanted[self.rows :]
        bar = [self._drawn(_squeezed(title), lost)] if title.strip() else []
        self._shown = Picture(tuple(bar), tuple(drawn), tuple(lost), tuple(keys))
        self._until_s = None if timeout_s is None else self.clock() + timeout_s
        self.history.append(self._shown)
        self._changed.set()

    def clear(self) -> None:
        """What the phone shows when nothing was pushed to it."""
        self._shown = None
        self._changed.set()

    @property
    def picture(self) -> Picture | None:
        """What is on it now."""
        if self._until_s is not None and self.clock() >= self._until_s:
            self._shown, self._until_s = None, None
        return self._shown

    @property
    def text(self) -> str:
        """What can be read on it now; empty: nothing."""
        return self.picture.text if self.picture is not None else ""

    async def changed(self, limit_s: float = 5.0) -> None:
        """Wait until something is drawn or taken away after the last call of this."""
        await asyncio.wait_for(self._changed.wait(), limit_s)
        self._changed.clear()

    def _drawn(self, line: str, lost: list[str]) -> str:
        boxes = "".join(c for c in line if unicodedata.category(c) in _UNDRAWABLE)
        if boxes:
            lost.append(boxes)
            line = "".join("\N{WHITE SQUARE}" if c in boxes else c for c in line)
        seen = cut(line, self.width)
        if seen != line:
            lost.append(line[len(seen) :])
        return seen


def _squeezed(text: str) -> str:
    return " ".join(text.replace("\t", " ").split(" ")).strip()
