"""A text as the matcher reads it: one character a sound, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Folded:
    """Parallel lists over the sounds of a text; all have the length of :attr:`sounds`."""

    sounds: list[str] = field(default_factory=list)
    """What is searched: one character each, disguises undone."""
    letters: list[str] = field(default_factory=list)
    """The same sound as it was written; compared to tell a near miss from the word itself."""
    source: list[int] = field(default_factory=list)
    """Index of the character in the original text."""
    starts: list[bool] = field(default_factory=list)
    """A syllable (Korean) or a letter (elsewhere) begins here."""
    vowels: list[bool] = field(default_factory=list)
    """This is a syllable's vowel: a hit may end before it by liaison. Never true elsewhere."""
    gaps: list[bool] = field(default_factory=list)
    """Something that is no letter stands before this sound, or nothing does."""

    def add(
        self,
        sound: str,
        letter: str,
        source: int,
        *,
        start: bool = True,
        gap: bool = False,
        vowel: bool = False,
    ) -> None:
        """Append one sound; ``source`` is an index into the original text."""
        self.sounds.append(sound)
        self.letters.append(letter)
        self.source.append(source)
        self.starts.append(start)
        self.gaps.append(gap)
        self.vowels.append(vowel)

    def __len__(self) -> int:
        return len(self.sounds)
