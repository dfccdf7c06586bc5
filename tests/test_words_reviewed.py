"""Sentences of a reviewer and their likes: what was missed, and what was wrongly taken for it."""

from __future__ import annotations

import tomllib

import pytest

from detectors.words.lexicon import LANGUAGES
from tests.test_words_training import made
from tests.words_kit import SENTENCES, judge

REVIEWED: dict[str, dict[str, list[str]]] = tomllib.loads(
    (SENTENCES / "reviewed.toml").read_text(encoding="utf-8")
)


def of(kind: str) -> list[tuple[str, str]]:
    """Language and sentence of one kind."""
    return [(lang, text) for lang in LANGUAGES for text in REVIEWED[lang].get(kind, [])]


@pytest.mark.parametrize(("language", "text"), of("crisis"))
def test_a_cry_is_heard_and_is_no_abuse(language: str, text: str) -> None:
    verdict = judge(language).judge(text, language)
    assert verdict.crisis
    assert not verdict.abusive


@pytest.mark.parametrize(("language", "text"), of("no_crisis"))
def test_what_sounds_like_a_cry_is_an_ordinary_matter(language: str, text: str) -> None:
    verdict = judge(language).judge(text, language)
    assert not verdict.crisis
    assert not verdict.abusive


@pytest.mark.parametrize(("language", "text"), of("abusive"))
def test_abuse_is_not_hidden_by_what_is_let_through(language: str, text: str) -> None:
    assert judge(language).judge(text, language).abusive


@pytest.mark.parametrize(("language", "text"), of("not_abusive"))
def test_what_sounds_like_abuse_is_an_ordinary_matter(language: str, text: str) -> None:
    verdict = judge(language).judge(text, language)
    assert not verdict.abusive
    assert not verdict.crisis


@pytest.mark.parametrize(("language", "text"), of("threats"))
def test_a_threat_is_heard_as_one(language: str, text: str) -> None:
    assert "threat" in judge(language).judge(text, language).categories


@pytest.mark.parametrize(("language", "text"), of("insults"))
def test_belittling_is_heard_as_an_insult(language: str, text: str) -> None:
    assert "insult" in judge(language).judge(text, language).categories


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_fifteen_cries_a_language_and_none_was_trained_on(language: str) -> None:
    trained = set().union(*made(language).values())
    assert len(REVIEWED[language]["crisis"]) >= 15
    assert not trained & {text for texts in REVIEWED[language].values() for text in texts}


def test_an_ordinary_phrase_does_not_quieten_the_cry_beside_it() -> None:
    """Both cries are the model's alone: the lexicon has no word of them."""
    for cry in ("my family would be better off", "I swallowed the bottle, please tell my family"):
        verdict = judge("en").judge(f"I want to end the contract, {cry}", "en")
        assert verdict.crisis, cry
        assert not any(hit.category == "crisis" for hit in verdict.hits)
