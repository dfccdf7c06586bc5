"""Which language a call is in."""

from __future__ import annotations

from detectors.asr.protocol import likeliest
from detectors.caller_language import ENOUGH_UTTERANCES, CallerLanguage


def test_no_single_utterance_decides_and_two_that_agree_do() -> None:
    caller = CallerLanguage()
    caller.hear({"ko": 1.0, "ja": 0.0, "zh": 0.0})
    assert caller.language == ""
    caller.hear({"ko": 0.9, "ja": 0.1, "zh": 0.0})
    assert caller.language == "ko"


def test_one_odd_utterance_does_not_turn_a_call() -> None:
    caller = CallerLanguage()
    for odds in ({"ko": 0.8, "ja": 0.2}, {"ko": 0.3, "ja": 0.7}, {"ko": 0.9, "ja": 0.1}):
        caller.hear(odds)
        assert caller.language == ""
    caller.hear({"ko": 0.95, "ja": 0.05})
    assert caller.language == "ko"
    caller.hear({"ko": 0.0, "ja": 1.0})
    assert caller.language == "ko"


def test_who_stays_unsure_is_given_the_likeliest_in_the_end() -> None:
    caller = CallerLanguage()
    for _ in range(ENOUGH_UTTERANCES):
        assert caller.language == ""
        caller.hear({"ko": 0.45, "ja": 0.55})
    assert caller.language == "ja"


def test_a_configured_language_is_never_argued_with() -> None:
    caller = CallerLanguage("en")
    caller.hear({"ko": 1.0, "en": 0.0})
    assert caller.language == "en"


def test_no_odds_say_nothing() -> None:
    caller = CallerLanguage()
    for _ in range(10):
        caller.hear({})
    assert caller.language == ""


def test_a_short_sentence_is_read_in_the_usual_language_unless_it_is_clearly_another() -> None:
    caller = CallerLanguage(usual="ko")
    mistaken, clear = {"ko": 0.2, "ja": 0.8, "en": 0.0}, {"ko": 0.01, "ja": 0.0, "en": 0.99}
    assert likeliest(mistaken, caller.expected) == "ko"
    assert likeliest(clear, caller.expected) == "en"
    # The control: nothing known of the node, nothing heard.
    assert likeliest(mistaken, CallerLanguage().expected) == "ja"


def test_what_was_heard_before_decides_how_the_next_sentence_is_read() -> None:
    caller = CallerLanguage()
    caller.hear({"ko": 0.9, "ja": 0.1})
    assert caller.language == ""
    assert likeliest({"ko": 0.3, "ja": 0.7}, caller.expected) == "ko"
    caller.hear({"ko": 0.3, "ja": 0.7})
    caller.hear({"ko": 0.1, "ja": 0.9})
    assert likeliest({"ko": 0.4, "ja": 0.6}, caller.expected) == "ja"


def test_the_usual_language_does_not_keep_a_caller_of_another() -> None:
    caller = CallerLanguage(usual="ko")
    caller.hear({"ko": 0.0, "en": 1.0})
    assert caller.language == "", "no single utterance decides"
    caller.hear({"ko": 0.0, "en": 1.0})
    assert caller.language == "en"
    own = CallerLanguage(usual="ko")
    own.hear({"ko": 1.0, "en": 0.0})
    assert own.language == "", "neither for the usual one"
