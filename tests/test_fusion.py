"""From evidence to a level: sound, words, the agent's press, and what may follow from each."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.messages import CrisisHint, RiskChanged
from callshield.settings_notice import Language
from detectors import risk
from detectors.engine import Verdict
from detectors.fusion import (
    Decision,
    Fusion,
    Policy,
    Reason,
    Rule,
)
from detectors.levels import Levels
from detectors.phrases import describe, describe_crisis
from detectors.risk import RiskMachine
from detectors.word_evidence import ABUSIVE, CATEGORIES, GROSS, RUDE, WordEvidence

ACOUSTIC = risk.Policy(caution=0.5, serious=0.7, release=0.4)
SHOUT, RAISED, CALM = 0.9, 0.6, 0.1
HOP_S = 0.5


class Caller:
    """A call as it is heard: half seconds of sound, utterances when they were transcribed."""

    def __init__(self) -> None:
        self.machine = RiskMachine(ACOUSTIC)
        self.fusion = Fusion()
        self.at_s = 0.0
        self.told: list[Decision] = []

    def sounds(self, score: float | None, seconds: float) -> Caller:
        """``score`` of the voice; None: silence."""
        for _ in range(round(seconds / HOP_S)):
            self.at_s += HOP_S
            heard = self.machine.update(HOP_S, 0.0 if score is None else HOP_S, score)
            self._keep(self.fusion.hear_voice(heard, self.at_s, HOP_S, spoke=score is not None))
        return self

    def says(self, said: WordEvidence, ago_s: float = 0.0, length_s: float = 2.0) -> Decision:
        """An utterance, heard after it was said."""
        end_s = self.at_s - ago_s
        return self._keep(self.fusion.hear_words(said, end_s - length_s, end_s))

    def _keep(self, decision: Decision) -> Decision:
        if decision.told or decision.crisis:
            self.told.append(decision)
        return decision

    @property
    def level(self) -> int:
        return self.fusion.level


def words(
    category: str = "profanity",
    severity: int = ABUSIVE,
    *,
    sure: bool = True,
    quote: str = "이 새끼",
) -> WordEvidence:
    grave = sure and severity == GROSS and category in ("threat", "sexual_harassment")
    return WordEvidence(0.9, severity, (category,), sure, (quote,), grave)


HARMLESS = WordEvidence(0.05, 0, (), False, ())
CRISIS = WordEvidence(0.1, 0, (), False, (), crisis=True, crisis_words=("죽어버릴 거예요",))


# ------------------------------------------------------------------------------ sound alone


def test_sound_alone_stops_at_level_2_and_may_trigger_nothing() -> None:
    caller = Caller().sounds(SHOUT, 600.0)
    assert caller.level == 2
    assert max(d.level for d in caller.told) == 2
    assert all(d.acoustic_only for d in caller.told)
    assert not any(d.may_trigger or d.words_confirmed for d in caller.told)
    assert caller.told[-1].categories == ("shouting",)


@pytest.mark.parametrize("said", [words("profanity", RUDE), words(sure=False)])
def test_words_that_make_less_than_the_shouting_let_nothing_follow_from_it(
    said: WordEvidence,
) -> None:
    """One rude word is no cause to warn a caller who is merely loud."""
    caller = Caller()
    caller.says(said)
    decision = caller.sounds(SHOUT, 3.0).told[-1]
    assert (decision.level, decision.acoustic_only) == (2, True)
    assert (decision.may_trigger, decision.words_confirmed) == (False, False)
    assert [reason.kind for reason in decision.reasons] == ["vocal_effort", "words"]


def test_abusive_words_carry_the_level_until_they_fade_and_then_sound_is_alone_again() -> None:
    """Control of the test above; and that words no longer carry a level is told."""
    caller = Caller().sounds(CALM, 1.0)
    caller.says(words())
    # Long after the words, so that it is no shouted abuse.
    caller.sounds(CALM, 15.0).sounds(SHOUT, 3.0)
    with_words = caller.told[-1]
    assert (with_words.level, with_words.may_trigger, with_words.acoustic_only) == (2, True, False)
    caller.sounds(SHOUT, 10.0)
    alone = caller.told[-1]
    assert (alone.level, alone.previous) == (2, 2)
    assert (alone.may_trigger, alone.acoustic_only) == (False, True)


def test_a_single_happy_shout_is_no_abuse_and_is_taken_back_when_it_was_heard() -> None:
    caller = Caller().sounds(CALM, 3.0).sounds(SHOUT, 0.5).sounds(CALM, 1.0)
    assert caller.level <= 1
    decision = caller.says(HARMLESS)
    assert (decision.level, decision.categories) == (0, ())
    assert decision.reasons[0].rule is Rule.NOTHING_SAID
    assert caller.sounds(CALM, 10.0).level == 0
    assert not any(d.may_trigger for d in caller.told)


def test_sustained_shouting_is_not_excused_by_harmless_words() -> None:
    """Control of the test above: what was said excuses one loud word, no storm."""
    caller = Caller().sounds(SHOUT, 3.0)
    assert caller.says(HARMLESS).level == 2
    excused = Caller().sounds(SHOUT, 0.5)
    assert excused.says(HARMLESS).level == 0
    assert excused.sounds(SHOUT, 2.0).level == 2, "an excuse is for the past"


def test_harmless_words_from_before_the_shout_excuse_nothing() -> None:
    caller = Caller().sounds(CALM, 10.0).sounds(SHOUT, 0.5)
    assert caller.says(HARMLESS, ago_s=5.0).level == 1
    assert caller.says(HARMLESS, ago_s=0.0).level == 0, "control: these are the shouted ones"


# ----------------------------------------------------------------------------------- words


def test_a_whispered_threat_is_abuse() -> None:
    caller = Caller().sounds(CALM, 5.0)
    decision = caller.says(words("threat", ABUSIVE, quote="죽여버린다"))
    assert (decision.level, decision.categories) == (2, ("threat",))
    assert decision.words_confirmed
    assert decision.may_trigger
    assert not decision.acoustic_only
    [reason] = decision.reasons
    assert (reason.kind, reason.rule, reason.words) == (
        "words",
        Rule.ABUSIVE_WORDS,
        ("죽여버린다",),
    )


def test_a_grave_threat_or_sexual_harassment_is_level_3_at_once() -> None:
    for category, level in [
        ("threat", 3),
        ("sexual_harassment", 3),
        ("profanity", 2),
        ("insult", 2),
        ("hate", 2),
    ]:
        assert Caller().says(words(category, GROSS)).level == level, category


def test_words_known_only_nearly_are_caution_until_a_second_utterance_confirms_them() -> None:
    caller = Caller().sounds(CALM, 2.0)
    first = caller.says(words("insult", GROSS, sure=False))
    assert (first.level, first.words_confirmed, first.may_trigger) == (1, False, False)
    assert first.reasons[0].rule is Rule.UNSURE_WORDS
    caller.sounds(CALM, 5.0)
    second = caller.says(words("insult", ABUSIVE, sure=False))
    assert (second.level, second.words_confirmed, second.may_trigger) == (2, True, True)
    assert second.reasons[0].rule is Rule.CONFIRMED_WORDS


def test_unsure_words_of_another_kind_or_long_ago_confirm_nothing() -> None:
    caller = Caller()
    caller.says(words("insult", sure=False))
    assert caller.says(words("threat", sure=False)).level == 1
    late = Caller()
    late.says(words("insult", sure=False))
    late.sounds(CALM, Policy().memory_s + 1.0)
    assert late.says(words("insult", sure=False)).level == 1


def test_unsure_words_and_shouting_stay_below_level_3_and_trigger_nothing() -> None:
    caller = Caller().sounds(SHOUT, 3.0)
    decision = caller.says(words("profanity", GROSS, sure=False))
    assert (decision.level, decision.may_trigger) == (2, False)


def test_abusive_words_and_sustained_shouting_are_level_3_in_either_order() -> None:
    shouted_first = Caller().sounds(SHOUT, 3.0)
    decision = shouted_first.says(words())
    assert (decision.level, decision.reasons[0].rule) == (3, Rule.SHOUTED_ABUSE)
    assert decision.categories == ("profanity", "shouting")
    words_first = Caller().sounds(CALM, 2.0)
    assert words_first.says(words()).level == 2
    assert words_first.sounds(SHOUT, 3.0).level == 3


def test_shouting_long_after_the_words_is_not_shouted_abuse() -> None:
    caller = Caller()
    caller.says(words())
    caller.sounds(CALM, Policy().together_s + 2.0)
    assert caller.sounds(SHOUT, 3.0).level == 2


def test_repeated_abuse_is_level_3_and_repeated_rudeness_level_2() -> None:
    rude, abusive, gross = Caller(), Caller(), Caller()
    assert [rude.says(words(severity=RUDE)).level for _ in range(4)] == [1, 1, 2, 2]
    assert [abusive.says(words(severity=ABUSIVE)).level for _ in range(3)] == [2, 2, 3]
    assert [gross.says(words(severity=GROSS)).level for _ in range(2)] == [2, 3]


def test_the_level_of_words_falls_step_by_step_and_forgets() -> None:
    caller = Caller()
    caller.says(words("threat", GROSS))
    hold_s = Policy().hold_s
    levels = [caller.sounds(CALM, hold_s).level for _ in range(3)]
    assert levels == [2, 1, 0]
    last = caller.told[-1]
    assert (last.level, last.categories, last.words_confirmed) == (0, (), False)
    assert last.reasons[0].rule is Rule.NO_MORE_WORDS
    assert [d.may_trigger for d in caller.told] == [True, True, False, False]


def test_silence_lets_the_level_of_words_fall_at_half_the_pace() -> None:
    caller = Caller()
    caller.says(words())
    assert caller.sounds(None, 1.9 * Policy().hold_s).level == 2
    assert caller.sounds(None, 0.2 * Policy().hold_s).level == 1


def test_new_words_hold_a_level_that_would_fall() -> None:
    caller = Caller()
    caller.says(words("threat", GROSS))
    for _ in range(4):
        caller.sounds(CALM, 15.0)
        caller.says(words("insult", RUDE))
    assert caller.level == 3


def test_calm_sound_does_not_take_back_what_was_said() -> None:
    caller = Caller().sounds(SHOUT, 3.0)
    caller.says(words())
    caller.sounds(CALM, ACOUSTIC.hold_s + 1.0)
    assert caller.level == 3


def test_the_agents_press_is_level_3_for_a_while_whatever_the_machine_heard() -> None:
    caller = Caller().sounds(CALM, 2.0)
    decision = caller._keep(caller.fusion.press())
    assert (decision.level, decision.may_trigger, decision.acoustic_only) == (3, True, False)
    assert decision.reasons[0].kind == "agent"
    assert caller.sounds(CALM, Policy().press_s - 1.0).level == 3
    assert caller.sounds(CALM, 2.0).level == 0


# ---------------------------------------------------------------------------------- crisis


def test_a_hint_of_crisis_raises_no_level_and_keeps_everything_automatic_back() -> None:
    caller = Caller().sounds(CALM, 2.0)
    decision = caller.says(CRISIS)
    assert (decision.level, decision.told, decision.crisis) == (0, False, True)
    assert decision.crisis_words == ("죽어버릴 거예요",)
    after = caller.says(words("threat", GROSS))
    assert after.level == 3, "abuse is abuse"
    assert after.words_confirmed
    assert not after.may_trigger, "but nothing automatic follows in a crisis"


def test_without_a_crisis_the_same_words_may_trigger() -> None:
    """Control of the test above."""
    assert Caller().says(words("threat", GROSS)).may_trigger


def test_a_crisis_is_told_once_in_a_while() -> None:
    caller = Caller()
    told = [caller.says(CRISIS).crisis]
    caller.sounds(CALM, 5.0)
    told.append(caller.says(CRISIS).crisis)
    caller.sounds(CALM, Policy().crisis_s)
    told.append(caller.says(CRISIS).crisis)
    assert told == [True, False, True]


# -------------------------------------------------------------------------- from a judgement


@dataclass
class Hit:
    category: str
    severity: int
    exact: bool
    quote: str


@dataclass
class Judged:
    score: float = 0.9
    abusive: bool = True
    categories: list[str] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    crisis: bool = False


_INSIDE = ("profanity", 3, True, "새끼")


def test_evidence_of_a_judged_utterance() -> None:
    exact = Hit("threat", 3, True, "죽여버린다")
    near = Hit("profanity", 2, False, "시바")
    crisis = Hit("crisis", 3, True, "죽고 싶어요")
    both = WordEvidence.of(Judged(categories=["profanity", "threat"], hits=[near, exact]))
    assert (both.severity, both.sure, both.words) == (3, True, ("죽여버린다",))
    assert both.categories == ("threat", "profanity")
    assert both.grave
    rude_threat = Hit("threat", 1, True, "두고 보자")
    gross = Hit("profanity", 3, True, "씨발 새끼")
    mixed = WordEvidence.of(
        Judged(categories=["profanity", "threat"], hits=[rude_threat, gross, Hit(*_INSIDE)])
    )
    assert (mixed.severity, mixed.grave) == (3, False), "what is gross is no threat"
    assert mixed.words == ("두고 보자", "씨발 새끼"), "no quotation within another"
    unsure = WordEvidence.of(Judged(categories=["profanity"], hits=[near]))
    assert (unsure.severity, unsure.sure, unsure.words) == (2, False, ("시바",))
    model = WordEvidence.of(Judged(categories=["insult"]))
    assert (model.severity, model.sure, model.words) == (2, False, ())
    calm = WordEvidence.of(Judged(score=0.2, abusive=False, hits=[near]))
    assert (calm.severity, calm.sure, calm.words, calm.categories) == (0, False, (), ())
    danger = WordEvidence.of(Judged(score=0.1, abusive=False, hits=[crisis], crisis=True))
    assert (danger.severity, danger.crisis, danger.crisis_words) == (0, True, ("죽고 싶어요",))
    assert Fusion().hear_words(danger, 0.0, 1.0).level == 0


# ---------------------------------------------------------------------------- every sequence

_words = st.builds(
    WordEvidence,
    score=st.floats(0, 1),
    severity=st.integers(0, 3),
    categories=st.lists(st.sampled_from(CATEGORIES), max_size=2, unique=True).map(tuple),
    sure=st.booleans(),
    words=st.just(("x",)),
    crisis=st.booleans(),
)
_steps = st.lists(st.one_of(st.none(), st.floats(0, 1), _words, st.just("press")), max_size=120)


@given(_steps)
def test_whatever_is_heard_the_rules_hold(steps: list[float | WordEvidence | str | None]) -> None:
    caller = Caller()
    level = 0
    heard_words = pressed = crisis = False
    for step in steps:
        if isinstance(step, WordEvidence):
            heard_words |= step.severity > 0
            crisis |= step.crisis
            decision = caller.says(step)
        elif step == "press":
            pressed = True
            decision = caller.fusion.press()
        else:
            assert step is None or isinstance(step, float)
            before = len(caller.told)
            caller.sounds(step, HOP_S)
            if len(caller.told) == before:
                assert caller.level == level
                continue
            decision = caller.told[-1]
        assert 0 <= decision.level <= 3
        assert decision.previous == level
        assert decision.level == caller.level
        level = decision.level
        if not (heard_words or pressed):
            assert level <= 2
        if decision.acoustic_only:
            assert level <= 2
            assert not decision.may_trigger
            assert not decision.words_confirmed
        if decision.may_trigger:
            assert level >= 2
            assert not crisis
            assert decision.words_confirmed or pressed
        if decision.told:
            assert decision.reasons, "every decision explains itself"
        if level:
            assert decision.reasons[-1].rule is not Rule.CALMED_DOWN
            assert set(decision.categories) <= {*CATEGORIES, "shouting"}


# -------------------------------------------------------------------------------- messages

LANGUAGES: tuple[Language, ...] = ("ko", "en", "zh", "ja")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_rule_has_words_in_every_language(language: Language) -> None:
    sentences = {describe(Reason("words", rule, 0.5, effort_s=1.5), language) for rule in Rule}
    assert len(sentences) == len(Rule), "no two rules say the same"
    assert any("1.5" in sentence for sentence in sentences)
    assert describe_crisis(language) in sentences


@dataclass
class Heard:
    call_id: bytes
    words: Judged
    start_s: float = 0.0
    end_s: float = 2.0


CALL = bytes(range(16))


def verdict(level: int, previous: int = 0, *, over: bool = False) -> Verdict:
    rule = risk.Rule.SUSTAINED_EFFORT if level > previous else None
    return Verdict(CALL, 3.0, 0.9, risk.Decision(level, previous, 0.9, rule, 1.5), over=over)


def test_a_message_carries_categories_reasons_and_redacted_words() -> None:
    levels = Levels("ko")
    [shouting] = levels.hear_voice(verdict(2), 100.0)
    assert isinstance(shouting, RiskChanged)
    assert (shouting.level, shouting.acoustic_only, shouting.may_trigger) == (2, True, False)
    assert "고성" in shouting.reasons[0].detail
    hit = Hit("threat", 2, True, "죽여버린다 [전화번호]")
    [message] = levels.hear_words(Heard(CALL, Judged(categories=["threat"], hits=[hit])), 101.0)
    assert isinstance(message, RiskChanged)
    assert (message.level, message.previous) == (3, 2)
    assert message.categories == ["threat", "shouting"]
    assert [reason.rule for reason in message.reasons] == ["shouted_abuse", "sustained_effort"]
    assert message.reasons[0].words == ["죽여버린다 [전화번호]"]
    assert "죽여" not in "".join(reason.detail for reason in message.reasons)
    assert message.may_trigger
    assert list(levels.news[CALL.hex()].values()) == [message]


def test_a_crisis_is_a_message_of_its_own() -> None:
    levels = Levels("ko")
    levels.hear_voice(verdict(0), 99.0)
    hit = Hit("crisis", 3, True, "죽고 싶어요")
    said = Heard(CALL, Judged(0.1, False, [], [hit], crisis=True))
    [message] = levels.hear_words(said, 100.0)
    assert isinstance(message, CrisisHint)
    assert message.words == ["죽고 싶어요"]
    assert message.detail == "고객이 위험한 상황일 수 있습니다"


def test_the_end_of_a_call_is_level_0_whatever_held_it_up() -> None:
    levels = Levels("en")
    levels.hear_voice(verdict(0), 99.0)
    hit = Hit("threat", 3, True, "kill you")
    [raised] = levels.hear_words(Heard(CALL, Judged(categories=["threat"], hits=[hit])), 100.0)
    assert isinstance(raised, RiskChanged)
    assert raised.level == 3
    [last] = levels.hear_voice(verdict(0, over=True), 110.0)
    assert isinstance(last, RiskChanged)
    assert (last.level, last.previous, last.categories, last.reasons) == (0, 3, [], [])
    assert levels.news == {}
    assert levels.hear_words(Heard(CALL, Judged(hits=[hit])), 111.0) == [], "too late"


def test_a_press_in_a_call_that_sends_no_audio_runs_out_by_the_clock() -> None:
    levels = Levels("ko", Policy(press_s=60.0))
    [pressed] = levels.press(CALL, 100.0)
    assert isinstance(pressed, RiskChanged)
    assert (pressed.level, pressed.may_trigger, pressed.reasons[0].rule) == (3, True, "agent_press")
    assert levels.step(159.0) == []
    [over] = levels.step(160.0)
    assert isinstance(over, RiskChanged)
    assert (over.level, over.previous) == (0, 3)
    assert levels.step(161.0) == []
    assert levels.news[CALL.hex()] == {}


def test_a_call_on_hold_keeps_the_agents_word_for_its_minute_and_forgets_what_was_heard() -> None:
    levels = Levels("ko", Policy(press_s=60.0))
    levels.hear_voice(verdict(0), 90.0)
    hit = Hit("profanity", 2, True, "…")
    levels.hear_words(Heard(CALL, Judged(categories=["profanity"], hits=[hit])), 95.0)
    levels.press(CALL, 100.0)
    [held] = levels.hear_voice(verdict(0, over=True), 120.0)
    assert isinstance(held, RiskChanged)
    assert (held.level, held.previous, held.categories) == (3, 3, [])
    [over] = levels.step(160.0)
    assert isinstance(over, RiskChanged)
    assert (over.level, over.previous) == (0, 3)
    # Control: test_the_end_of_a_call_is_level_0_whatever_held_it_up, where nobody pressed.


def test_a_press_that_the_audio_outlived_is_told_once() -> None:
    levels = Levels("ko", Policy(press_s=1.0))
    levels.press(CALL, 100.0)
    told = [message for _ in range(4) for message in levels.hear_voice(verdict(0), 100.0)]
    assert [m.level for m in told if isinstance(m, RiskChanged)] == [0]
    assert levels.step(200.0) == []


def test_a_pressed_call_that_ends_is_forgotten() -> None:
    levels = Levels("ko")
    levels.press(CALL, 100.0)
    [last] = levels.end(CALL, 110.0)
    assert isinstance(last, RiskChanged)
    assert (last.level, last.previous) == (0, 3)
    assert levels.news == {}
    assert levels.step(1000.0) == levels.end(CALL, 1000.0) == []
