"""Finds live sound and live words in whatever bytes a door gave away.

Sound is looked for as the bytes of what the test's own telephones say: mu-law, A-law, 16-bit and
32-bit samples, as they are and inside base64, hexadecimal, lists of numbers and compressed
streams. Words are looked for as the marker words that the test's transcriber hears. What another
codec or a cipher makes of the sound is not recognised: docs/listening.md says so.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import statistics
import unicodedata
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from callshield import g711

#: Bytes in a row that are enough: 2 ms of G.711.
WINDOW = 16
#: Windows with fewer different bytes are silence or a table, not somebody's voice.
_LEAST_DIFFERENT = 6
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){12,}")
_NUMBERS = re.compile(rb"-?\d{1,6}(?:\s*,\s*-?\d{1,6}){11,}")
_ESCAPES = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+")
#: How deep things are unpacked: base64 in JSON in a compressed stream.
_DEPTH = 3

Pcm = NDArray[np.int16]


def _encodings(pcm: Pcm) -> Iterator[tuple[bytes, int]]:
    """The sound as bytes, and how many of them a sample has."""
    for law in (g711.PCMU, g711.PCMA):
        codes = g711.encode(pcm, law)
        yield codes, 1
        heard = g711.decode(codes, law)
        for order in "<>":
            yield heard.astype(f"{order}i2").tobytes(), 2
        yield (heard / 32768).astype("<f4").tobytes(), 4
    for order in "<>":
        yield pcm.astype(f"{order}i2").tobytes(), 2


def _windows(data: bytes, step: int) -> Iterator[bytes]:
    for start in range(0, len(data) - WINDOW + 1, step):
        window = data[start : start + WINDOW]
        if len(set(window)) >= _LEAST_DIFFERENT:
            yield window


class LeakFinder:
    """Looks for known sounds and words.

    Args:
        sounds: what is said in the test's call, by whom; 8 kHz.
        words: what the transcriber hears, by what it is.
    """

    def __init__(self, sounds: Mapping[str, Pcm], words: Mapping[str, str]) -> None:
        self._sounds: dict[bytes, str] = {}
        for name, pcm in sounds.items():
            for data, step in _encodings(pcm):
                for window in _windows(data, step):
                    self._sounds.setdefault(window, name)
        self._words = {
            form: name
            for name, word in words.items()
            for kind in ("NFC", "NFD")
            for text in (unicodedata.normalize(kind, word),)
            for form in (text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be"))
        }

    def look(self, data: bytes) -> set[str]:
        """``sound:NAME`` and ``word:NAME`` of what is in there, however it is wrapped."""
        found: set[str] = set()
        for view in _views(data, _DEPTH):
            found |= {f"word:{name}" for form, name in self._words.items() if form in view}
            for start in range(len(view) - WINDOW + 1):
                name = self._sounds.get(view[start : start + WINDOW])
                if name is not None:
                    found.add(f"sound:{name}")
                    break
        return found


def _views(data: bytes, depth: int) -> Iterator[bytes]:
    yield data
    if depth == 0:
        return
    for inner in _unpacked(data):
        if inner:
            yield from _views(inner, depth - 1)


def _unpacked(data: bytes) -> Iterator[bytes]:
    for match in _BASE64.finditer(data):
        text = match[0].rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for skip in range(4):
            # A run of letters may begin before the encoded part does.
            part = text[skip:]
            yield _quietly(base64.b64decode, part[: len(part) // 4 * 4])
    for match in _HEX.finditer(data):
        yield _quietly(binascii.unhexlify, match[0])
    for match in _NUMBERS.finditer(data):
        numbers = [int(n) for n in match[0].split(b",")]
        if all(0 <= n < 256 for n in numbers):
            yield bytes(numbers)
        if all(-32768 <= n < 32768 for n in numbers):
            yield np.array(numbers, dtype="<i2").tobytes()
    if _ESCAPES.search(data):
        yield _ESCAPES.sub(_unescaped, data)
    if b"%" in data:
        yield urllib.parse.unquote_to_bytes(data)
    if data[:2] == b"\x1f\x8b":
        yield _quietly(gzip.decompress, data)
    if data[:1] == b"\x78":
        yield _quietly(zlib.decompress, data)


def _unescaped(match: re.Match[bytes]) -> bytes:
    return match[0].decode("unicode_escape").encode("utf-16", "surrogatepass").decode(
        "utf-16", "replace"
    ).encode()  # fmt: skip


def _quietly(unpack: object, data: bytes) -> bytes:
    try:
        return unpack(data)  # type: ignore[operator, no-any-return]
    except (ValueError, OSError, EOFError, zlib.error):
        return b""


def news_per_second(answers: Iterable[tuple[float, bytes]]) -> float:
    """How fast a door tells something new: compressed bytes a second that the next answer has
    beyond the one before. Sound of any codec is at least some 75 (600 bit/s).

    Args:
        answers: when, seconds, and what.
    """
    rates = [
        max(0, len(zlib.compress(before + after, 9)) - len(zlib.compress(before + before, 9)))
        / max(later - earlier, 1e-3)
        for (earlier, before), (later, after) in pairwise(answers)
    ]
    return max(rates, default=0.0)


def steady_news_per_second(answers: Sequence[tuple[float, bytes]]) -> float:
    """The same as most of the answers have it: of three and more, one with much news is none.

    Args:
        answers: two at least.
    """
    return statistics.median(news_per_second(pair) for pair in pairwise(answers))
