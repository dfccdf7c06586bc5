"""Long words that a transcriber misheard by one sound.

A word with one wrong sound still has one half right (the pigeonhole principle), so both halves of
each long word are searched, and what stands where the word would be is compared sound by sound.
Short words are left to their spellings in the lexicon: one sound off, they are other words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import ahocorasick

from detectors.words.folded import Folded
from detectors.words.lexicon import Entry

#: Sounds that a word must have to be forgiven one.
LONG = 9
#: What a near word counts as letters' distance; more than anything spelled as in the lexicon.
DISTANCE = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """A long word of the lexicon."""

    entry: Entry
    sounds: str
    starts: tuple[bool, ...]
    gaps: frozenset[int]


class Nearby:
    """The long words of a lexicon, ready to search."""

    def __init__(self, words: Iterable[Word], confusable: frozenset[str]) -> None:
        """``confusable`` holds pairs of sounds, each as a string of two in either order."""
        self._confusable = confusable | {pair[::-1] for pair in confusable}
        halves: dict[str, list[tuple[int, Word]]] = {}
        for word in words if confusable else ():
            middle = len(word.sounds) // 2
            halves.setdefault(word.sounds[:middle], []).append((0, word))
            halves.setdefault(word.sounds[middle:], []).append((middle, word))
        self._automaton = ahocorasick.Automaton()
        for half, several in halves.items():
            self._automaton.add_word(half, (len(half), several))
        self._automaton.make_automaton()

    def find(self, folded: Folded) -> list[tuple[int, int, Entry]]:
        """Where a word stands but for one sound: ``(begin, end, entry)`` over the sounds."""
        if not len(self._automaton):
            return []
        sounds = "".join(folded.sounds)
        total = len(sounds)
        out = []
        for last, (length, several) in self._automaton.iter(sounds):
            at = last - length + 1
            for offset, word in several:
                begin = at - offset
                end = begin + len(word.sounds)
                if begin < 0 or end > total or not folded.gaps[begin]:
                    continue
                if end < total and not folded.starts[end]:
                    continue
                if self._near(word, sounds[begin:end], folded, begin):
                    out.append((begin, end, word.entry))
        return out

    def _near(self, word: Word, written: str, folded: Folded, begin: int) -> bool:
        other = [k for k, (a, b) in enumerate(zip(word.sounds, written, strict=True)) if a != b]
        if len(other) != 1:
            return False
        k = other[0]
        if word.sounds[k] + written[k] not in self._confusable:
            return False
        length = len(written)
        if tuple(folded.starts[begin : begin + length]) != word.starts:
            return False
        return all(j in word.gaps for j in range(1, length) if folded.gaps[begin + j])
