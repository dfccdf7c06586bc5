"""The texts that word models are trained on and measured with, and the sentences made for it."""

from __future__ import annotations

import gzip
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import SetupError
from detectors.words.lexicon import CATEGORIES, expand

MADE = Path(__file__).parent / "made"
_MADE_CALM = 1500
_MADE_EACH = 250


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text."""

    text: str
    abusive: bool
    source: str
    """As the data names it; ``made/...`` for this project's own sentences."""
    category: str = ""
    """Where it is known, else empty. ``crisis`` comes with ``abusive`` false."""

    @property
    def family(self) -> str:
        """The corpus without its subset: rows of one family are weighed together."""
        return self.source.split("/")[0].removesuffix("_train").removesuffix("_valid")


def read(data: Path, name: str, language: str) -> list[Row]:
    """One language's rows of ``data/text/<name>.tsv.gz``.

    Raises:
        SetupError: the file is missing or is not the table expected.
    """
    path = data / "text" / f"{name}.tsv.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            header = next(file).rstrip("\n").split("\t")
            if header != ["lang", "label", "source", "licence", "text"]:
                raise SetupError(f"{path}: found the columns {header}, expected lang, label, ...")
            return list(_rows(file, language))
    except (OSError, EOFError, StopIteration, UnicodeError, ValueError) as error:
        raise SetupError(
            f"{path} cannot be read ({error}): give --data the data's folder"
        ) from None


def _rows(lines: Iterator[str], language: str) -> Iterator[Row]:
    for line in lines:
        lang, label, source, _, text = line.rstrip("\n").split("\t", 4)
        if lang == language:
            hate = "hate" if source.endswith("/hate") else ""
            yield Row(text, label == "1", source, hate)


def made(language: str, seed: int) -> list[Row]:
    """This project's own sentences: each pattern's spellings, drawn evenly by a seeded hand."""
    table = tomllib.loads((MADE / f"{language}.toml").read_text(encoding="utf-8"))
    rng = random.Random(seed)
    out: list[Row] = []
    for category in ("calm", *CATEGORIES):
        patterns = [expand(pattern) for pattern in table.get(category, [])]
        share = (_MADE_CALM if category == "calm" else _MADE_EACH) // max(len(patterns), 1)
        for spellings in patterns:
            for text in rng.sample(spellings, min(share, len(spellings))):
                known = "" if category == "calm" else category
                out.append(Row(text, known not in ("", "crisis"), f"made/{category}", known))
    return out
