"""Texts of the printed report: a TOML file a language, all with the same keys."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = ("ko", "en", "zh", "ja")


@dataclass(frozen=True, slots=True)
class Texts:
    """One language.

    Args:
        language: one of :data:`LANGUAGES`.
        tables: as in the file.
        public: a public body's call: Korean says 민원인 instead of 고객.
    """

    language: str
    tables: dict[str, Any]
    public: bool = False

    def say(self, key: str, /, **values: object) -> str:
        """A text by ``table.key``, with its values put in."""
        table, _, name = key.partition(".")
        text = self._named(str(self.tables[table][name]))
        return text.format(**values) if values else text

    def _named(self, text: str) -> str:
        # Both end alike, so particles fit.
        public = self.public and self.language == "ko"
        return text.replace("고객", "민원인") if public else text

    def one_of(self, table: str, name: str, other: str = "") -> str:
        """A text of a table, or ``other`` (else the name itself) where it has none."""
        return self.say(f"{table}.{name}") if name in self.tables[table] else other or name

    def level(self, number: int) -> str:
        """``2 (위험)``."""
        names = self.tables["level"]
        return f"{number} ({names[number]})" if 0 <= number < len(names) else str(number)

    def lines(self, key: str) -> list[str]:
        """A list of texts."""
        table, _, name = key.partition(".")
        return [self._named(str(line)) for line in self.tables[table][name]]


@functools.cache
def _tables(language: str) -> dict[str, Any]:
    path = Path(__file__).parent / f"{language}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def texts(language: str, *, public: bool = False) -> Texts:
    """The texts of a language."""
    return Texts(language, _tables(language), public)
