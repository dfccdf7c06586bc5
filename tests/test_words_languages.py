"""Chinese, English and Japanese words: what is found, what is left alone."""

from __future__ import annotations

import pytest

from detectors.words import chinese, english, japanese
from detectors.words.surface import surface
from tests.words_kit import judge, sentences

LANGUAGES = ("zh", "en", "ja")
KINDS = {"threats": "threat", "insults": "insult", "sexual": "sexual_harassment"}


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("language", LANGUAGES)
def test_calm_sentences_stay_clean(language: str, with_model: bool) -> None:
    one = judge(language, with_model=with_model)
    flagged = [
        text
        for text in sentences(language, "clean")
        if one.judge(text, language).abusive or one.judge(text, language).crisis
    ]
    assert flagged == []


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("language", LANGUAGES)
def test_abuse_is_found_in_its_disguises(language: str, with_model: bool) -> None:
    one = judge(language, with_model=with_model)
    missed = [
        text for text in sentences(language, "abusive") if not one.judge(text, language).abusive
    ]
    assert missed == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_kinds_of_abuse_are_told_apart(language: str, kind: str) -> None:
    for text in sentences(language, kind):
        verdict = judge(language).judge(text, language)
        assert verdict.abusive, text
        assert KINDS[kind] in verdict.categories, text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_cry_for_help_is_no_abuse(language: str) -> None:
    for text in sentences(language, "crisis"):
        verdict = judge(language).judge(text, language)
        assert verdict.crisis, text
        assert not verdict.abusive, text


def test_traditional_characters_and_homophones_sound_alike() -> None:
    def sounds(text: str) -> list[str]:
        return chinese.fold(surface(text)).sounds

    assert chinese.simplify("媽的") == "妈的"
    assert sounds("尼玛") == sounds("你妈")
    assert sounds("煞笔") == sounds("傻逼")
    assert sounds("相机") != sounds("香蕉")


def test_leet_and_stars_are_undone() -> None:
    def views(text: str) -> list[str]:
        return ["".join(chars) for chars, _ in english.views(surface(text))]

    assert "fuck you" in views("f*ck you")
    assert views("5 * 3 is 15") == ["5 * 3 is 15"]
    assert "".join(english.fold(surface("sh1t")).sounds) == "shit"


def test_katakana_half_width_and_long_vowels_are_one() -> None:
    def sounds(text: str) -> str:
        return "".join(japanese.fold(surface(text)).sounds)

    assert sounds("バカヤロー") == sounds("ばかやろ") == sounds("ﾊﾞｶﾔﾛｰ")
    assert sounds("はし") != sounds("ばし")
