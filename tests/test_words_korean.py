"""Korean words: disguises found, innocent neighbours left alone, threat told from crisis."""

from __future__ import annotations

import pytest

from detectors.words import hangul
from detectors.words.surface import surface
from tests.words_kit import judge, sentences

KINDS = {"threats": "threat", "insults": "insult", "sexual": "sexual_harassment"}


def folded(text: str) -> str:
    return "".join(hangul.fold(surface(text)).sounds)


@pytest.mark.parametrize("with_model", [True, False])
def test_a_calm_caller_is_never_taken_for_an_abusive_one(with_model: bool) -> None:
    flagged = [
        text
        for text in sentences("ko", "clean")
        if judge("ko", with_model=with_model).judge(text, "ko").abusive
    ]
    assert flagged == []


@pytest.mark.parametrize("with_model", [True, False])
def test_profanity_is_found_in_every_disguise(with_model: bool) -> None:
    missed = [
        text
        for text in sentences("ko", "abusive")
        if not judge("ko", with_model=with_model).judge(text, "ko").abusive
    ]
    assert missed == []


@pytest.mark.parametrize("kind", KINDS)
def test_abuse_without_swear_words_has_its_category(kind: str) -> None:
    for text in sentences("ko", kind):
        verdict = judge("ko").judge(text, "ko")
        assert verdict.abusive, text
        assert KINDS[kind] in verdict.categories, text


def test_without_the_lexicon_the_same_sentences_are_not_found() -> None:
    """Negative control: an empty lexicon and no model find nothing, so the tests above can fail."""
    from detectors.words.judge import Judge
    from detectors.words.lexicon import Lexicon
    from detectors.words.matcher import Matcher
    from detectors.words.readings import READINGS

    empty = Lexicon("ko", (), (), (), (), frozenset(), ())
    blind = Judge({"ko": Matcher(empty, READINGS["ko"])}, {})
    assert not any(blind.judge(text, "ko").abusive for text in sentences("ko", "abusive"))


def test_without_its_allow_list_the_lexicon_flags_innocent_sentences() -> None:
    """Negative control: what keeps 시발점 and 새끼손가락 clean is the allow-list."""
    from dataclasses import replace

    from detectors.words import lexicon
    from detectors.words.judge import Judge
    from detectors.words.matcher import Matcher
    from detectors.words.readings import READINGS

    rude = Judge(
        {"ko": Matcher(replace(lexicon.load("ko"), clean=(), misheard=()), READINGS["ko"])}, {}
    )
    flagged = [text for text in sentences("ko", "clean") if rude.judge(text, "ko").abusive]
    assert len(flagged) > 20
    assert any("새끼손가락" in text for text in flagged)


MISHEARD = [
    "아이가 새끼 손카락을 닫혀서 병원에 갔어요",
    "새끼 송가락이 부었어요",
    "새끼 발까락 골절이요",
]
MISHEARD += ["이번이 개혁의 시발참이 무았으면 좋겠습니다", "시발 쩜을 찾아요"]


@pytest.mark.parametrize("text", MISHEARD)
def test_an_innocent_word_stays_innocent_when_it_is_misheard(text: str) -> None:
    from dataclasses import replace

    from detectors.words import lexicon
    from detectors.words.judge import Judge
    from detectors.words.matcher import Matcher
    from detectors.words.readings import READINGS

    assert not judge("ko").judge(text, "ko").abusive
    # Negative control: with the allow-list alone, as written, it is flagged.
    strict = Judge({"ko": Matcher(replace(lexicon.load("ko"), misheard=()), READINGS["ko"])}, {})
    assert strict.judge(text, "ko").abusive


@pytest.mark.parametrize(
    "text",
    [
        "이 새끼 손 봐라",
        "새끼 손모가지를 자른다",
        "시발 지금 장난해",
        "시발지금 장난해",
        "시발 점마",
    ],
)
def test_what_only_begins_like_an_innocent_word_is_none(text: str) -> None:
    assert judge("ko").judge(text, "ko").abusive


def test_a_threat_and_a_cry_for_help_are_two_things() -> None:
    threat = judge("ko").judge("죽여버린다", "ko")
    assert threat.abusive
    assert "threat" in threat.categories
    assert not threat.crisis
    cry = judge("ko").judge("죽어버릴 거예요", "ko")
    assert cry.crisis
    assert not cry.abusive
    assert cry.categories == ()


def test_every_cry_for_help_is_heard_and_none_is_abuse() -> None:
    for text in sentences("ko", "crisis"):
        verdict = judge("ko").judge(text, "ko")
        assert verdict.crisis, text
        assert not verdict.abusive, text


def test_no_calm_or_abusive_sentence_is_a_cry_for_help() -> None:
    for kind in ("clean", "abusive", *KINDS):
        for text in sentences("ko", kind):
            assert not judge("ko").judge(text, "ko").crisis, text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("병시니", "병신이"),
        ("씨이이발", "시발"),
        ("ㅅㅣ발", "시발"),
        ("ㄱ ㅐ", "개"),
        ("씨\u200b발", "씨발"),
        ("ㅆㅣ발", "씨발"),
    ],
)
def test_disguises_sound_like_the_word(written: str, meant: str) -> None:
    assert folded(written) == folded(meant)


def test_keys_struck_with_the_keyboard_switched_to_latin() -> None:
    assert hangul.typed_blind("tlqkf") == "시발"
    assert hangul.typed_blind("qudtls") == "병신"
    assert hangul.typed_blind("hello") == ""


def test_a_hit_says_where_the_word_stands() -> None:
    text = "고객센터 맞죠? 야 이 씨\u200b발놈아"
    hits = [hit for hit in judge("ko").judge(text, "ko").hits if hit.category == "profanity"]
    assert hits
    assert all(
        "씨" in text[hit.start : hit.end] or "이" in text[hit.start : hit.end] for hit in hits
    )
    assert max(hit.end for hit in hits) >= text.index("놈")
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)


def test_hotwords_are_words_that_the_lexicon_knows() -> None:
    for word in judge("ko").hotwords("ko"):
        assert len(word) <= 12
    known = [w for w in judge("ko").hotwords("ko") if judge("ko").judge(w, "ko").hits]
    assert len(known) >= 20


@pytest.mark.parametrize(
    ("heard", "category"),
    [
        ("죽여 보린다", "threat"),
        ("밤길 조심해다", "threat"),
        ("다리 벌녀 봐", "sexual_harassment"),
    ],
)
def test_a_long_phrase_misheard_by_one_sound_is_a_near_hit(heard: str, category: str) -> None:
    hits = judge("ko").judge(heard, "ko").hits
    assert any(hit.category == category and not hit.exact for hit in hits)


def test_a_near_hit_alone_is_no_abuse() -> None:
    """Short words forgive nothing, and a near miss is not certain enough to accuse anybody."""
    assert judge("ko").judge("똑같은 이야기", "ko").hits == ()
    verdict = judge("ko", with_model=False).judge("밤길 조심해다", "ko")
    assert verdict.hits
    assert 0 < verdict.score < 0.5
