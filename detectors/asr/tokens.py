"""Whisper's vocabulary: tokens to text, and text to tokens for a prompt.

Whisper writes UTF-8 bytes as printable characters (GPT-2's table) and joins them by byte-pair
encoding (Sennrich et al. 2016). The vocabulary lists merged tokens in the order in which they
were merged, so their index is the rank of the merge: no second file is needed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from callshield.errors import DetectorModelError


def _byte_characters() -> dict[int, str]:
    """GPT-2's table: bytes that print stand for themselves, the rest from U+0100 on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printing}
    hidden = (byte for byte in range(256) if byte not in table)
    return table | {byte: chr(0x100 + i) for i, byte in enumerate(hidden)}


_TO_CHARACTER = _byte_characters()
_TO_BYTE = {character: byte for byte, character in _TO_CHARACTER.items()}


def decode(tokens: Iterable[str]) -> str:
    """The text of tokens; special ones (``<|…|>``) are left out, cut-off characters too."""
    raw = bytearray()
    for token in tokens:
        if not (token.startswith("<|") and token.endswith("|>")):
            raw += bytes(_TO_BYTE[mark] for mark in token if mark in _TO_BYTE)
    return raw.decode("utf-8", errors="ignore").strip()


class Vocabulary:
    """Tokens of one model.

    Args:
        folder: of the CTranslate2 model: ``vocabulary.json`` or ``vocabulary.txt``.

    Raises:
        DetectorModelError: there is none, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._rank = {token: rank for rank, token in enumerate(_read(folder))}

    def __contains__(self, token: str) -> bool:
        return token in self._rank

    def encode(self, words: Iterable[str]) -> list[str]:
        """Tokens of words, each with a space before it."""
        found: list[str] = []
        for word in words:
            found += self._merge([_TO_CHARACTER[byte] for byte in f" {word}".encode()])
        return found

    def _merge(self, parts: list[str]) -> list[str]:
        """Join the pair that was merged first in training, until none is left."""
        unknown = len(self._rank)
        while len(parts) > 1:
            ranks = [
                self._rank.get(left + right, unknown) for left, right in itertools.pairwise(parts)
            ]
            best = min(ranks)
            if best == unknown:
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts


def _read(folder: Path) -> list[str]:
    try:
        listed = folder / "vocabulary.json"
        if listed.exists():
            tokens = json.loads(listed.read_text(encoding="utf-8"))
        else:
            text = (folder / "vocabulary.txt").read_text(encoding="utf-8")
            tokens = text.removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise DetectorModelError(
            f"the vocabulary of the Whisper model in {folder} cannot be read "
            f"({type(error).__name__}): give transcriber.model_dir a CTranslate2 Whisper folder"
        ) from None
    if not isinstance(tokens, list) or "<|startoftranscript|>" not in tokens:
        raise DetectorModelError(
            f"the vocabulary in {folder} is not Whisper's: give transcriber.model_dir a "
            "CTranslate2 Whisper folder"
        )
    return tokens
