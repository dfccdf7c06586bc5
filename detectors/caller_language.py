"""Which language a caller speaks, from what a recogniser makes of each utterance.

One short utterance is often taken for the wrong language, a call seldom changes it: the odds of
all of them are multiplied, with those of the node's own language before any (Bayes), until one
language is sure, and it is kept from then on. Until then each utterance is read in the language
that is likeliest with what was heard before (:attr:`CallerLanguage.expected`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: Odds against all others together that make a language sure.
SURE_ODDS = 50.0
#: No single utterance decides.
LEAST_UTTERANCES = 2
#: Utterances after which the likeliest is taken, sure or not.
ENOUGH_UTTERANCES = 5
#: Odds, before anything was heard, of the language that callers usually speak against each other:
#: nineteen callers of twenty. A recogniser that errs, errs at odds of about 30 (docs/detection.md).
USUAL_ODDS = 20.0
#: No utterance counts for more than this against a language.
_LEAST = 0.01


class CallerLanguage:
    """The language of one call.

    Args:
        fixed: by configuration; empty: to be found out.
        usual: what callers of this node usually speak; empty: nothing is known.
    """

    __slots__ = ("_heard", "_log_odds", "_usual", "language")

    def __init__(self, fixed: str = "", usual: str = "") -> None:
        self.language = fixed
        """Empty while it is not sure."""
        self._usual = usual
        self._heard = 0
        self._log_odds: dict[str, float] = {}

    @property
    def expected(self) -> dict[str, float]:
        """How likely each language is by what was known and heard so far, the likeliest 1; ``""``
        stands for those that are not named. Empty: nothing is known."""
        if self.language or not (self._usual or self._log_odds):
            return {}
        found = {tongue: self._score(tongue) for tongue in self._log_odds}
        if not found:
            found = {self._usual: self._score(self._usual), "": 0.0}
        top = max(found.values())
        return {tongue: math.exp(value - top) for tongue, value in found.items()}

    def _score(self, tongue: str) -> float:
        prior = math.log(USUAL_ODDS) if tongue == self._usual else 0.0
        return prior + self._log_odds.get(tongue, 0.0)

    def hear(self, odds: Mapping[str, float]) -> None:
        """Take what one utterance says by itself: how likely each language is, 0..1."""
        if self.language or not odds:
            return
        self._heard += 1
        for tongue, value in odds.items():
            before = self._log_odds.get(tongue, 0.0)
            self._log_odds[tongue] = before + math.log(max(value, _LEAST))
        scores = {tongue: self._score(tongue) for tongue in self._log_odds}
        best = max(scores, key=scores.__getitem__)
        others = sum(math.exp(v - scores[best]) for k, v in scores.items() if k != best)
        sure = others * SURE_ODDS <= 1.0 and self._heard >= LEAST_UTTERANCES
        if sure or self._heard >= ENOUGH_UTTERANCES:
            self.language = best
