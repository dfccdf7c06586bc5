"""What a team's policy decides, and that none of it can stand between an agent and *end*."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from callshield.settings_teams import PolicySettings
from notifier.call_length import CallLengths, Prompt
from notifier.live import Call
from notifier.policy import LAST_CHANCE_S, NONE, PRESETS, Advice, Advisor, Policies, Policy, preset
from notifier.rota import Teams
from tests.escalation_kit import CALL, alert, settings


def policies(**north: Any) -> Policies:
    configured = settings(north=north)
    return Policies(configured, Teams(configured))


def call(level: int = 2, *categories: str, **fields: Any) -> Call:
    one = Call(CALL, "1001", "x", "pbx", 0.0, answered_ts=0.0)
    one.level, one.categories = level, list(categories)
    for name, value in fields.items():
        setattr(one, name, value)
    return one


def test_every_preset_is_whole_and_nothing_in_it_happens_by_itself() -> None:
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    assert names == ["kr", "public"]
    for name in names:
        policy = Policy(**preset(name))
        assert not policy.automatic_warnings
        assert not policy.length_end_automatically
        assert set(policy.end_after_warnings) == {
            "profanity", "insult", "threat", "sexual_harassment", "hate", "shouting",
        }  # fmt: skip
        assert policy.help != "nobody"
        assert policy.crisis != "nobody"


@pytest.mark.parametrize(
    ("category", "warnings"),
    [
        ("threat", 0),
        ("sexual_harassment", 1),
        ("hate", 1),
        ("profanity", 3),
        ("insult", 3),
        ("shouting", 3),
    ],
)
def test_the_end_is_highlighted_after_as_many_warnings_as_the_category_says(
    category: str, warnings: int
) -> None:
    advised = policies()
    for given in range(4):
        advice = advised.advice(call(2, category, warnings=given))
        assert advice.end_highlighted is (given >= warnings), given
        assert advice.category == category
        assert advice.warn_grade == min(given + 1, 3)


def test_the_strictest_of_several_categories_counts() -> None:
    advice = policies().advice(call(3, "profanity", "threat"))
    assert (advice.end_highlighted, advice.category) == (True, "threat")


def test_nothing_is_advised_below_level_2_in_a_crisis_or_after_the_call() -> None:
    advised = policies()
    assert advised.advice(call(1, "threat")) == NONE
    assert advised.advice(call(3, "threat", crisis_ts=5.0)) == NONE
    assert advised.advice(call(3, "threat", ended_ts=5.0)) == NONE


def test_a_team_changes_single_numbers_of_its_preset() -> None:
    changed = policies(policy={"end_after_warnings": {"profanity": 1}})
    assert changed.advice(call(2, "profanity", warnings=1)).end_highlighted
    assert not changed.advice(call(2, "insult", warnings=1)).end_highlighted
    # More warnings than there are prompts cannot be waited for.
    never = policies(policy={"end_after_warnings": {"profanity": 9}})
    assert never.advice(call(2, "profanity", warnings=3)).end_highlighted


def test_only_news_is_advised() -> None:
    advisor = Advisor(policies())
    one = call(2, "profanity")
    assert advisor.changed(one) == Advice(1, False, "profanity")
    assert advisor.changed(one) is None
    one.warnings = 3
    assert advisor.changed(one) == Advice(3, True, "profanity")
    one.level = 0
    assert advisor.changed(one) == NONE


WORDS = {"words_confirmed": True, "may_trigger": True}


def test_a_warning_plays_by_itself_only_where_the_team_wants_it() -> None:
    assert not Advisor(policies()).warns_now(call(2, "profanity", **WORDS), 0.0)
    wanted = policies(policy={"automatic_warnings": True})
    assert Advisor(wanted).warns_now(call(2, "profanity", **WORDS), 0.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"may_trigger": False, "words_confirmed": True},
        {"may_trigger": True, "acoustic_only": True},
        {**WORDS, "crisis_ts": 5.0},
        {**WORDS, "ending_ts": 5.0},
        {**WORDS, "shadow": True},
        {**WORDS, "warnings": 3},
        {**WORDS, "level": 1},
    ],
)
def test_no_warning_plays_by_itself_on_sound_alone_in_a_crisis_in_shadow_or_while_it_ends(
    fields: dict[str, Any],
) -> None:
    wanted = policies(policy={"automatic_warnings": True})
    one = call(2, "profanity")
    for name, value in fields.items():
        setattr(one, name, value)
    assert not Advisor(wanted).warns_now(one, 0.0)


def test_automatic_warnings_follow_a_rise_and_leave_time_for_an_answer() -> None:
    advisor = Advisor(policies(policy={"automatic_warnings": True}))
    one = call(2, "profanity", **WORDS)
    assert advisor.warns_now(one, 0.0)
    assert not advisor.warns_now(one, 60.0), "the level did not rise"
    one.level = 3
    assert advisor.warns_now(one, 61.0)
    one.level = 0
    assert not advisor.warns_now(one, 62.0)
    one.level = 2
    assert not advisor.warns_now(one, 63.0), "too soon after the last"
    one.level = 0
    advisor.warns_now(one, 90.0)
    one.level = 2
    assert advisor.warns_now(one, 91.0)
    # The agent warned: the machine does not talk into it.
    one.level = 3
    advisor.warning_played(CALL, 111.0)
    assert not advisor.warns_now(one, 112.0)


def test_who_is_told_at_which_level() -> None:
    plain = policies()
    assert plain.alert_level("1001") == 2
    assert plain.of("1001").told(alert(kind="risk", level=2)) == "in_turn"
    assert plain.of("1001").told(alert(kind="risk", level=3)) == "all"
    quiet = policies(policy={"level_2": "nobody", "level_3": "nobody"})
    assert quiet.alert_level("1001") == 4
    assert quiet.of("1001").told(alert(kind="help")) == "in_turn"
    early = policies(policy={"level_1": "all"})
    assert early.alert_level("1001") == 1
    # Never fewer people for a worse call.
    assert early.of("1001").told(alert(kind="risk", level=2)) == "all"


def test_without_a_team_alerts_are_what_they_ever_were() -> None:
    plain = policies()
    assert plain.alert_level("1003") == 2
    assert plain.alert_level("nobody I know") == 2
    assert plain.of("1003").told(alert(kind="help")) == "all"


# ------------------------------------------------------------------------------- length of a call

MIN = 60.0


def public(**policy: Any) -> CallLengths:
    return CallLengths(policies(preset="public", policy=policy))


def said(lengths: CallLengths, one: Call, until_min: int) -> list[tuple[str, int]]:
    return [
        (prompt.step, prompt.minutes)
        for second in range(0, until_min * 60, 5)
        for prompt in lengths.due(one, float(second))[0]
    ]


def test_public_offices_get_a_notice_at_15_minutes_and_the_offer_at_20() -> None:
    assert said(public(), call(0), 120) == [("notice", 15), ("end_offered", 20)]
    assert said(CallLengths(policies()), call(0), 120) == []


def test_one_press_extends_as_often_as_it_is_pressed() -> None:
    lengths, one = public(), call(0)
    said(lengths, one, 21)
    assert lengths.extend(one, 21 * MIN) == Prompt("extended", 21, 31 * MIN)
    assert lengths.due(one, 30 * MIN) == ([], False)
    assert lengths.due(one, 31 * MIN) == ([Prompt("end_offered", 31, 0.0)], False)
    assert lengths.extend(one, 31 * MIN) == Prompt("extended", 31, 41 * MIN)
    # Before the offer it moves the offer on.
    early = public()
    assert early.extend(one, 16 * MIN) == Prompt("extended", 16, 30 * MIN)
    assert CallLengths(policies()).extend(one, 16 * MIN) is None


def test_it_never_ends_by_itself_unless_the_team_wants_it_and_then_a_minute_later() -> None:
    one = call(0)
    assert not any(public().due(one, s * MIN)[1] for s in range(300))
    lengths = public(length_end_automatically=True)
    assert lengths.due(one, 20 * MIN) == (
        [Prompt("end_offered", 20, 20 * MIN + LAST_CHANCE_S)],
        False,
    )
    assert lengths.due(one, 21 * MIN - 1) == ([], False)
    assert lengths.due(one, 21 * MIN) == ([], True)
    assert lengths.due(one, 22 * MIN) == ([], False), "once"
    in_danger = public(length_end_automatically=True)
    one.crisis_ts = 1.0
    in_danger.due(one, 20 * MIN)
    assert in_danger.due(one, 25 * MIN) == ([], False)


def test_a_restart_says_nothing_twice_and_keeps_what_was_added() -> None:
    one = call(0)
    lengths = public()
    lengths.restore(one, "notice", 15 * MIN, 20 * MIN)
    assert said(lengths, one, 25) == [("end_offered", 20)]
    lengths = public()
    for step, ts, until in (("notice", 15, 20), ("end_offered", 20, 0), ("extended", 21, 31)):
        lengths.restore(one, step, ts * MIN, until * MIN)  # type: ignore[arg-type]
    assert lengths.due(one, 30 * MIN) == ([], False)
    assert lengths.due(one, 31 * MIN)[0] == [Prompt("end_offered", 31, 0.0)]


# -------------------------------------------------------------------------------------------- end


def test_no_key_of_a_policy_is_about_hiding_delaying_or_refusing_the_end() -> None:
    """What a policy says of *end* can only bring it forward: every value of every such key leaves
    the button alone. A new key has to be thought about here."""
    about_end = {name for name in PolicySettings.model_fields if "end" in name}
    assert about_end == {
        "end_after_warnings", "length_end_min", "length_end_automatically", "length_extend_min",
    }  # fmt: skip
    for preset_name, warnings, level in itertools.product(("kr", "public"), range(4), range(4)):
        advice = policies(preset=preset_name).advice(call(level, "insult", warnings=warnings))
        assert set(vars(type(advice))["__dataclass_fields__"]) == {
            "warn_grade", "end_highlighted", "category",
        }  # fmt: skip
