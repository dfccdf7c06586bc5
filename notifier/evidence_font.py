"""Where the report's font comes from: Noto Sans CJK, one file for Korean, Chinese and Japanese.

The same character is drawn differently in the three countries, so the file (an OpenType collection)
has a face for each. Only the glyphs that a report uses are put into it. SIL Open Font License 1.1:
embedding in documents is free.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import EvidenceError

#: Debian and Ubuntu (fonts-noto-cjk), Fedora, Arch.
PLACES = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
)
_REGIONS = {"ko": "KR", "ja": "JP", "zh": "SC", "en": "KR"}


@dataclass(frozen=True, slots=True)
class Face:
    """A face of a font file."""

    path: Path
    number: int
    """Within a collection."""


@dataclass(frozen=True, slots=True)
class Faces:
    """What a report is set in."""

    regular: Face
    bold: Face
    """The regular one where there is no other."""


def find_faces(font: Path | None, language: str) -> Faces:
    """The faces for a language.

    Args:
        font: of the configuration; None: the system's.
        language: of the report.

    Raises:
        EvidenceError: there is none.
    """
    if font is not None and not font.is_file():
        raise EvidenceError(f"evidence.font: there is no file {font}")
    path = font or next((Path(place) for place in PLACES if Path(place).is_file()), None)
    if path is None:
        raise EvidenceError(
            "the report needs a font with Korean, Chinese and Japanese: install Noto Sans CJK "
            "(Debian and Ubuntu: apt-get install fonts-noto-cjk), or name one in evidence.font"
        )
    bold = path.with_name(path.name.replace("Regular", "Bold"))
    return Faces(_face(path, language), _face(bold if bold.is_file() else path, language))


def _face(path: Path, language: str) -> Face:
    from fontTools.ttLib import TTCollection, TTFont, TTLibError

    region = f"CJK {_REGIONS[language]}"
    try:
        with path.open("rb") as file:
            is_collection = file.read(4) == b"ttcf"
        if not is_collection:
            TTFont(path, lazy=True).close()
            return Face(path, 0)
        with TTCollection(path, lazy=True) as collection:
            names = [font["name"].getDebugName(1) or "" for font in collection.fonts]
    except (TTLibError, OSError, AssertionError, KeyError, struct.error) as error:
        raise EvidenceError(f"the font {path} cannot be used: {error}") from None
    return Face(path, next((k for k, name in enumerate(names) if name.endswith(region)), 0))
