"""What every speech recogniser here can do, whatever library is behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

#: Samples a second of everything that is transcribed.
RATE = 8_000
#: Longest piece of audio that a recogniser is given, seconds; the rest is cut off.
LONGEST_S = 16.0

#: Why a transcript was thrown away.
Rejection = Literal["", "no_speech", "loop", "echo", "failed"]


@dataclass(frozen=True, slots=True)
class Transcript:
    """One utterance in writing."""

    text: str
    """As recognised, not redacted; empty where nothing was understood or it was rejected."""
    language: str
    """``ko``, ``en``, ``zh``, ``ja``; what was asked for, or detected."""
    avg_logprob: float
    """Mean log probability of a token, at most 0; 0 where the model gives none."""
    no_speech: float
    """Probability that nobody speaks, 0..1; 0 where the model gives none."""
    rejected: Rejection = ""
    """``no_speech``: the model doubts both that and what was said; ``loop``: it repeated itself;
    ``echo``: it read out the hotwords that it had been given; ``failed``: the recogniser broke."""
    language_odds: dict[str, float] = field(default_factory=dict)
    """Where the language was detected: how likely each is by this utterance alone, 0..1."""


class Recogniser(Protocol):
    """A loaded model. Not safe for several threads."""

    @property
    def name(self) -> str:
        """Backend and model, for logs and the operator."""

    def transcribe(
        self,
        samples: NDArray[np.int16],
        language: str | None,
        expected: Mapping[str, float] | None = None,
    ) -> Transcript:
        """Write down one utterance.

        Args:
            samples: ``(n,)`` int16 at 8 kHz; beyond :data:`LONGEST_S` cut off.
            language: ``ko``, ``en``, ``zh`` or ``ja``; None: detect it.
            expected: for detecting, how likely each is by what was known before, the likeliest 1;
                ``""`` stands for all that are not named.
        """


def likeliest(odds: Mapping[str, float], expected: Mapping[str, float] | None) -> str:
    """The language of an utterance (Bayes): what it says by itself, times what was expected."""
    known = expected or {}
    return max(odds, key=lambda tongue: odds[tongue] * known.get(tongue, known.get("", 1.0)))
