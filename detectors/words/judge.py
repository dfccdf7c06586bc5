"""Judging a text: the lexicon's words, the model's opinion, one verdict."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from callshield.errors import DetectorModelError
from detectors.words import evidence, lexicon, ngrams
from detectors.words.lexicon import LANGUAGES
from detectors.words.matcher import Matcher
from detectors.words.model import LANGUAGES as MODELLED
from detectors.words.model import SHIPPED, Opinion, WordModel
from detectors.words.readings import READINGS
from detectors.words.surface import surface
from detectors.words.verdict import EMPTY, Hit, TextVerdict

#: The score from which a text counts as abusive; models are shifted so that it is theirs too.
THRESHOLD = 0.5
#: Only so much of a text is judged: beyond it nobody spoke in one breath. Keeps the time bounded.
MAX_CHARS = 20_000
#: A near miss of spelling that still counts as the word itself.
_AS_SPELLED = 0.5
#: Words given to a recogniser at most; its prompt is short.
_HOTWORDS = 40


class Judge:
    """Judges texts of the languages it has a lexicon for; threads may share it.

    Attributes:
        missing: what is not there, one sentence each. With a lexicon alone the judge still works;
            of a language whose lexicon cannot be read it finds nothing, of the others all.
    """

    def __init__(self, matchers: dict[str, Matcher], models: dict[str, WordModel]) -> None:
        self._matchers = matchers
        self._models = models
        self._lost: frozenset[str] = frozenset()
        self.missing: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, languages: tuple[str, ...] = LANGUAGES, *, model_dir: Path | None = SHIPPED
    ) -> Judge:
        """Lexicons and models of some languages; ``model_dir=None`` for the lexicons alone.

        A model that is missing or corrupt is left out and named in :attr:`missing`, and so is a
        lexicon, as long as one is left.

        Raises:
            DetectorModelError: no such language, or none of the lexicons can be read.
        """
        matchers: dict[str, Matcher] = {}
        models: dict[str, WordModel] = {}
        missing = []
        fault: DetectorModelError | None = None
        for language in languages:
            try:
                matchers[language] = _matcher(language)
            except DetectorModelError as error:
                if language not in LANGUAGES:
                    raise
                fault = error
                missing.append(f"words in {language!r} are not judged: {error}")
                continue
            if model_dir is None or language not in MODELLED:
                continue
            try:
                models[language] = WordModel.load(language, model_dir)
            except DetectorModelError as error:
                missing.append(f"words in {language!r} are judged by the lexicon alone: {error}")
        if fault is not None and not matchers:
            raise fault
        judge = cls(matchers, models)
        judge._lost = frozenset(languages) - matchers.keys()
        judge.missing = tuple(missing)
        return judge

    def judge(self, text: str, language: str) -> TextVerdict:
        """What ``text`` amounts to; any string will do, an empty one amounts to nothing.

        So does every text of a language whose lexicon could not be read: :attr:`missing` says it.

        Raises:
            DetectorModelError: this judge has no lexicon for ``language``.
        """
        matcher = self._matchers.get(language)
        if language in self._lost:
            return EMPTY
        if matcher is None:
            raise DetectorModelError(
                f"there is no lexicon for {language!r}: use one of {', '.join(self._matchers)}"
            )
        text = text[:MAX_CHARS]
        if not text.strip():
            return EMPTY
        hits = tuple(
            Hit(
                found.category,
                found.severity,
                found.start,
                found.end,
                found.distance <= _AS_SPELLED,
            )
            for found in matcher.find(text)
        )
        crisis = any(hit.category == "crisis" for hit in hits)
        score = evidence.alone(hits)
        categories = evidence.categories(hits)
        model = self._models.get(language)
        if model is not None:
            opinion = _ask(model, text, language, hits)
            # An abusive word as spelled is one, however calm the words around it.
            certain = any(h.severity >= 2 and h.exact and h.category != "crisis" for h in hits)
            score = max(opinion.score, THRESHOLD) if certain else opinion.score
            categories = categories or (opinion.likeliest,)
            if opinion.crisis and not crisis and score < THRESHOLD:
                crisis = _ask(model, _without(text, matcher.ordinary(text)), language, hits).crisis
        abusive = score >= THRESHOLD
        return TextVerdict(score, abusive, categories if abusive else (), hits, crisis)

    def hotwords(self, language: str) -> list[str]:
        """Plain spellings of the gravest words, for a recogniser to listen for; at most 40.

        Raises:
            DetectorModelError: this judge has no lexicon for ``language``.
        """
        if language in self._lost:
            return []
        if language not in self._matchers:
            raise DetectorModelError(
                f"there is no lexicon for {language!r}: use one of {', '.join(self._matchers)}"
            )
        return list(lexicon.load(language).hotwords[:_HOTWORDS])


def _ask(model: WordModel, text: str, language: str, hits: tuple[Hit, ...]) -> Opinion:
    """The model's opinion of a text in which the lexicon found ``hits``."""
    rows = ngrams.rows(text, surface(text), language, READINGS[language])
    return model.run(*rows, evidence.features(hits))


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text less its ordinary phrases: "I want to end the contract" is about a contract.

    A model that saw the cry in those alone is mistaken; one that sees it in the rest is not.
    """
    chars = list(text)
    for start, end in spans:
        chars[start:end] = " " * (end - start)
    return "".join(chars)


@cache
def _matcher(language: str) -> Matcher:
    return Matcher(lexicon.load(language), READINGS[language])
