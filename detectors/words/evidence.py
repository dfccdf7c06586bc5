"""The lexicon's findings as numbers: what the model sees of them, and what they say alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from detectors.words.lexicon import CATEGORIES
from detectors.words.verdict import Hit

#: Kinds of abuse, in the order of everything that lists them; ``crisis`` is none.
ABUSE = CATEGORIES[:-1]
#: What the model is told: one flag a category and severity, then the five below.
SIZE = 3 * len(ABUSE) + 5
#: Score of a text's worst word where there is no model, by severity and exactness. A near miss is
#: a hint, not abuse: 0.5 is where that begins.
_ALONE = {(1, True): 0.3, (2, True): 0.7, (3, True): 0.9, (1, False): 0.2, (2, False): 0.4}
_ALONE[3, False] = 0.45


def features(hits: Iterable[Hit]) -> NDArray[np.float32]:
    """``(SIZE,)`` float32: flags by category and severity; any abusive word; how many places
    (logarithm); any near miss; any gross word; any hint of a crisis.
    """
    out = np.zeros(SIZE, dtype=np.float32)
    places = set()
    base = 3 * len(ABUSE)
    for hit in hits:
        if hit.category == "crisis":
            out[base + 4] = 1
            continue
        if not hit.exact:
            # Only a hint, whatever the word would be.
            out[base + 2] = 1
            continue
        out[3 * ABUSE.index(hit.category) + hit.severity - 1] = 1
        if hit.severity >= 2:
            places.add(hit.start)
            out[base] = 1
        if hit.severity == 3:
            out[base + 3] = 1
    out[base + 1] = math.log1p(len(places))
    return out


def alone(hits: Iterable[Hit]) -> float:
    """The score 0..1 that the lexicon gives without a model."""
    found = [_ALONE[hit.severity, hit.exact] for hit in hits if hit.category != "crisis"]
    if not found:
        return 0.0
    return min(max(found) + 0.01 * min(len(found) - 1, 5), 1.0)


def categories(hits: Iterable[Hit], severity: int = 2) -> tuple[str, ...]:
    """Kinds of abuse among the hits of this severity or more, in the order of :data:`ABUSE`."""
    found = {hit.category for hit in hits if hit.severity >= severity}
    return tuple(category for category in ABUSE if category in found)
