"""Finding lexicon words in a text: Aho-Corasick over folded sounds, then judged letter by letter.

Every word of the lexicon is folded like the text and put into one automaton (Aho and Corasick
1975), so that a text is read once however many words there are. What it finds is only a
candidate: it must begin and end where a word may, must not be spelled further away than its
length allows (a short word forgives nothing), must not be pieced together from neighbouring
words, and must not stand inside a phrase that the lexicon calls clean. A few of
those are known to be misheard themselves (새끼 손카락).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import ahocorasick

from detectors.words.folded import Folded
from detectors.words.lexicon import Entry, Lexicon
from detectors.words.nearby import DISTANCE, LONG, Nearby, Word
from detectors.words.surface import Surface, surface


@dataclass(frozen=True, slots=True)
class Found:
    """A lexicon word in a text."""

    start: int
    """Index of its first character in the original text."""
    end: int
    """Index after its last character."""
    word: str
    """As the lexicon spells it."""
    category: str
    severity: int
    distance: float
    """0 as spelled; more the more letters differ from the lexicon's."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a language is read; what differs between the four."""

    views: Callable[[Surface], list[Surface]]
    """The surface, and other readings of it."""
    fold: Callable[[Surface], Folded]
    distance: Callable[[list[str], list[str]], float]
    """Between letters of equal number."""
    forgiven: Callable[[int], float]
    """The distance allowed to a word of so many sounds."""
    spaced: bool
    """Words are divided by spaces: then they begin and end at one."""
    liaison: bool = False
    """A word's last consonant may begin the next syllable (Korean)."""
    confusable: frozenset[str] = frozenset()
    """Pairs of sounds that a transcriber takes for one another; see :mod:`.nearby`."""


@dataclass(frozen=True, slots=True)
class _Form:
    entry: Entry
    letters: list[str]
    starts: list[bool]
    gaps: frozenset[int]
    syllables: int
    open_end: bool
    """Ends in a vowel, or in no syllable at all: nothing can be carried over."""


class Matcher:
    """One language's lexicon, ready to search. Immutable after it is made; threads may share it."""

    def __init__(self, lexicon: Lexicon, reading: Reading) -> None:
        self._reading = reading
        self._lexicon = lexicon
        self._initials = {entry.word: entry for entry in lexicon.entries if entry.initials}
        self._longest_prefix = max((len(prefix) for prefix in lexicon.prefixes), default=0)
        self._prefixes = frozenset(lexicon.prefixes)
        forms: dict[str, list[_Form]] = {}
        for entry in lexicon.entries:
            if not entry.initials:
                self._add(forms, entry)
        for word in lexicon.clean:
            self._add(forms, Entry(word, "", 0, exact=True))
        misheard = {Entry(word, "", 0) for word in lexicon.misheard}
        for entry in misheard:
            self._add(forms, entry)
        self._automaton = ahocorasick.Automaton()
        for sounds, several in forms.items():
            self._automaton.add_word(sounds, (len(sounds), several))
        self._nearby = Nearby(
            [
                Word(form.entry, sounds, tuple(form.starts), form.gaps)
                for sounds, several in forms.items()
                for form in several
                if len(sounds) >= LONG
                and (form.entry.severity == 3 or form.entry in misheard)
                and form.entry.category != "crisis"
            ],
            reading.confusable,
        )
        self._automaton.make_automaton()  # an empty one (no words) stays a trie

    def _add(self, forms: dict[str, list[_Form]], entry: Entry) -> None:
        folded = self._reading.fold(surface(entry.word))
        if not folded or (len(folded) == 1 and len(entry.word) > 1):
            return
        forms.setdefault("".join(folded.sounds), []).append(
            _Form(
                entry,
                folded.letters,
                folded.starts,
                frozenset(k for k in range(1, len(folded)) if folded.gaps[k]),
                sum(folded.starts),
                folded.vowels[-1] or not any(folded.vowels),
            )
        )

    def find(self, text: str) -> list[Found]:
        """All words found, in the order of their places; time is linear in the text's length."""
        plain = surface(text)
        hits: dict[tuple[int, int, str], Found] = {}
        for view in self._reading.views(plain):
            for hit in self._search(text, view)[0]:
                key = (hit.start, hit.end, hit.category)
                if key not in hits or _graver(hit, hits[key]):
                    hits[key] = hit
        for hit in self._search_initials(plain):
            hits.setdefault((hit.start, hit.end, hit.category), hit)
        return sorted(hits.values(), key=lambda hit: (hit.start, hit.end))

    def ordinary(self, text: str) -> list[tuple[int, int]]:
        """Where phrases stand that the lexicon calls clean, in the original text; end exclusive."""
        plain = surface(text)
        return [span for view in self._reading.views(plain) for span in self._search(text, view)[1]]

    def _search(self, text: str, view: Surface) -> tuple[list[Found], list[tuple[int, int]]]:
        """Words found, and the places of the clean phrases."""
        folded = self._reading.fold(view)
        if not folded or not len(self._automaton):
            return [], []
        found: list[tuple[int, int, Entry, float]] = []
        clean: list[tuple[int, int]] = []
        total = len(folded)
        gaps, starts = folded.gaps, folded.starts
        for last, (length, forms) in self._automaton.iter("".join(folded.sounds)):
            begin, end = last - length + 1, last + 1
            if not starts[begin]:
                continue
            inside = end < total and not starts[end]
            carried = inside and self._reading.liaison and starts[last] and folded.vowels[end]
            if inside and not carried:
                continue
            written = folded.letters[begin:end]
            cuts = [k for k in range(1, length) if gaps[begin + k]]
            for form in forms:
                entry = form.entry
                if entry.exact:
                    # The same syllables too: 인연 sounds like 이년.
                    if carried or form.letters != written or form.starts != starts[begin:end]:
                        continue
                    distance = 0.0
                else:
                    if carried and form.open_end:
                        continue
                    distance = self._reading.distance(form.letters, written)
                    if distance > self._reading.forgiven(length):
                        continue
                extra = [cut for cut in cuts if cut not in form.gaps]
                if not entry.severity:
                    if not extra or not entry.exact:
                        clean.append((begin, end))
                    continue
                if extra and not self._pieced(folded, form, begin, end, extra, distance):
                    continue
                if (self._reading.spaced or entry.whole) and not self._bounded(
                    text, folded, form, begin, end
                ):
                    continue
                found.append((begin, end, entry, distance))
        taken = [(begin, end) for begin, end, *_ in found]
        for begin, end, entry in self._nearby.find(folded):
            if not entry.severity:
                clean.append((begin, end))
            elif not any(first < end and begin < last for first, last in taken):
                found.append((begin, end, entry, DISTANCE))
        kept = [
            Found(
                folded.source[begin],
                _run_end(text, folded.source[end - 1]),
                entry.word,
                entry.category,
                entry.severity,
                distance,
            )
            for begin, end, entry, distance in found
            if not _is_clean(begin, end, clean)
        ]
        return kept, [(folded.source[begin], folded.source[end - 1] + 1) for begin, end in clean]

    def _pieced(
        self,
        folded: Folded,
        form: _Form,
        begin: int,
        end: int,
        extra: list[int],
        distance: float,
    ) -> bool:
        """Gaps where the word has none: only spelled out (시 발), or in a long word as written."""
        if not self._reading.spaced:
            return distance == 0.0
        if not folded.gaps[begin] or distance > 0.5:
            return False
        closed = end >= len(folded) or folded.gaps[end]
        everywhere = len(extra) + len(form.gaps) >= form.syllables - 1
        if form.syllables <= 2:
            return everywhere and closed and form.entry.severity >= 2 and distance <= 0.25
        return (everywhere and closed) or (
            self._reading.liaison and form.entry.severity >= 3 and distance <= 0.25
        )

    def _bounded(self, text: str, folded: Folded, form: _Form, begin: int, end: int) -> bool:
        """The hit begins where a word may, and ends there if it must."""
        entry = form.entry
        before = text[: folded.source[begin]][-self._longest_prefix :] if begin else ""
        if not (
            folded.gaps[begin]
            or entry.anywhere
            or any(before[k:] in self._prefixes for k in range(len(before)))
        ):
            return False
        if not entry.whole or end >= len(folded) or folded.gaps[end]:
            return True
        if not self._lexicon.particles:
            return False
        after = re.match(r"\w{0,4}", text[folded.source[end - 1] + 1 :][:5])
        return after is not None and after.group() in self._lexicon.particles

    _RUN = re.compile(r"[ㄱ-ㅎ](?:[\s.*~1!,^-]{0,2}[ㄱ-ㅎ]){0,11}")
    _LAUGHTER = re.compile(r"[ㅋㅎㅠㅜㅡㄷㅇ]{2,}|^[ㅋㅎ]|[ㅋㅎ]$")

    def _search_initials(self, plain: Surface) -> list[Found]:
        if not self._initials:
            return []
        chars, source = plain
        text = "".join(chars)
        out = []
        for run in self._RUN.finditer(text):
            places = [k for k in range(run.start(), run.end()) if "ㄱ" <= text[k] <= "ㅎ"]
            letters = "".join(text[k] for k in places)
            at = 0
            for piece in [*self._LAUGHTER.finditer(letters), None]:
                stop = piece.start() if piece else len(letters)
                entry = self._initials.get(letters[at:stop])
                if entry is not None:
                    out.append(
                        Found(
                            source[places[at]],
                            source[places[stop - 1]] + 1,
                            entry.word,
                            entry.category,
                            entry.severity,
                            0.0,
                        )
                    )
                if piece:
                    at = piece.end()
        return out


def _graver(one: Found, other: Found) -> bool:
    """Graver, or as grave and nearer to the lexicon's spelling."""
    return (one.severity, -one.distance) > (other.severity, -other.distance)


def _is_clean(begin: int, end: int, clean: list[tuple[int, int]]) -> bool:
    for first, last in clean:
        if first <= begin and end <= last:
            return True
        if first < begin < last and (last - begin) * 2 >= end - begin:
            return True
    return False


def _run_end(text: str, last: int) -> int:
    """The end of a word whose last Latin letter is held on (fuckkk)."""
    end = last + 1
    while end < len(text) and text[end] == text[last] and text[last].isascii():
        end += 1
    return end
