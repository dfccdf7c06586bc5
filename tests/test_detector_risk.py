"""The level's state machine: what raises it, what does not, and how it comes down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.risk import ACOUSTIC_CEILING, Decision, Policy, RiskMachine, Rule

POLICY = Policy(caution=0.5, serious=0.7, release=0.4)
SHOUT, RAISED, BETWEEN, CALM = 0.9, 0.6, 0.45, 0.1


def play(machine: RiskMachine, score: float | None, seconds: float) -> list[Decision]:
    """Half-second hops full of speech, or of silence where there is no score."""
    hops = round(seconds / 0.5)
    return [machine.update(0.5, 0.0 if score is None else 0.5, score) for _ in range(hops)]


def test_sustained_shouting_reaches_level_2_within_its_time_and_says_why() -> None:
    machine = RiskMachine(POLICY)
    decisions = play(machine, SHOUT, 3.0)
    changed = [(i, d.level, d.rule) for i, d in enumerate(decisions) if d.changed]
    hops = -(-POLICY.sustain_s // 0.5)
    assert changed == [(0, 1, Rule.RAISED_VOICE), (hops - 1, 2, Rule.SUSTAINED_EFFORT)]
    assert decisions[-1].score == SHOUT


def test_one_short_shout_is_at_most_caution() -> None:
    machine = RiskMachine(POLICY)
    machine.update(0.5, 0.3, SHOUT)
    machine.update(0.5, 0.3, SHOUT)
    play(machine, None, 5.0)
    assert machine.level == 1


def test_one_window_beyond_doubt_is_enough_and_one_just_above_serious_is_not() -> None:
    policy = Policy(caution=0.5, serious=0.7, release=0.4, sure=0.85)
    for score, level in ((SHOUT, 2), (0.8, 1)):
        machine = RiskMachine(policy)
        machine.update(0.5, 0.5, CALM, 0.5)
        assert machine.update(0.5, 0.5, score, 1.0).level == level


def test_a_window_beyond_doubt_counts_no_more_than_the_speech_in_it() -> None:
    machine = RiskMachine(Policy(caution=0.5, serious=0.7, release=0.4, sure=0.85))
    for _ in range(3):
        assert machine.update(0.5, 0.1, SHOUT, 0.6).level < 2


def test_a_window_beyond_doubt_counts_only_when_it_is_full_of_voice() -> None:
    policy = Policy(caution=0.5, serious=0.7, release=0.4, sure=0.85)
    for window_s, level in ((policy.sure_s - 0.02, 1), (policy.sure_s, 2)):
        machine = RiskMachine(policy)
        assert machine.update(0.5, 0.5, SHOUT, window_s).level == level


def test_short_shouts_minutes_apart_do_not_add_up() -> None:
    machine = RiskMachine(POLICY)
    for _ in range(10):
        machine.update(0.5, 0.4, SHOUT)
        play(machine, None, 30.0)
        assert machine.level < 2


def test_short_shouts_a_breath_apart_do_add_up() -> None:
    """Control of the test above: it is the pause that forgets."""
    machine = RiskMachine(POLICY)
    for _ in range(6):
        machine.update(0.5, 0.4, SHOUT)
        play(machine, None, 0.5)
    assert machine.level == 2


def test_a_raised_voice_that_never_shouts_stays_at_caution() -> None:
    machine = RiskMachine(POLICY)
    play(machine, RAISED, 120.0)
    assert machine.level == 1


def test_calm_talk_never_leaves_level_0() -> None:
    machine = RiskMachine(POLICY)
    assert not any(d.changed for d in play(machine, CALM, 600.0))


def test_an_hour_of_shouting_stops_at_the_acoustic_ceiling() -> None:
    machine = RiskMachine(POLICY)
    assert max(d.level for d in play(machine, 1.0, 3600.0)) == ACOUSTIC_CEILING == 2


def test_levels_fall_one_at_a_time_each_after_the_hold() -> None:
    machine = RiskMachine(POLICY)
    play(machine, SHOUT, 3.0)
    falls = [i * 0.5 + 0.5 for i, d in enumerate(play(machine, CALM, 30.0)) if d.changed]
    assert falls == [POLICY.hold_s, 2 * POLICY.hold_s]
    assert machine.level == 0


def test_silence_calms_at_half_the_pace() -> None:
    machine = RiskMachine(POLICY)
    play(machine, SHOUT, 3.0)
    falls = [i * 0.5 + 0.5 for i, d in enumerate(play(machine, None, 60.0)) if d.changed]
    assert falls[0] == 2 * POLICY.hold_s


def test_a_voice_between_release_and_caution_neither_raises_nor_releases() -> None:
    machine = RiskMachine(POLICY)
    play(machine, SHOUT, 3.0)
    play(machine, BETWEEN, 300.0)
    assert machine.level == 2
    fresh = RiskMachine(POLICY)
    play(fresh, BETWEEN, 300.0)
    assert fresh.level == 0


def test_a_caller_at_the_threshold_does_not_make_the_level_flicker() -> None:
    machine = RiskMachine(POLICY)
    changes = 0
    for i in range(600):
        score = POLICY.serious + (0.02 if i % 2 else -0.02)
        changes += machine.update(0.5, 0.5, score).changed
    assert changes <= 2


evidence = st.lists(
    st.tuples(
        st.floats(0.0, 0.5),
        st.one_of(st.none(), st.floats(0.0, 1.0)),
    ),
    max_size=200,
)


@given(evidence)
def test_whatever_is_heard_levels_stay_in_range_and_steps_are_explained(
    heard: list[tuple[float, float | None]],
) -> None:
    machine = RiskMachine(POLICY)
    level = 0
    for speech_s, score in heard:
        decision = machine.update(0.5, speech_s, score)
        assert decision.previous == level
        level = decision.level
        assert 0 <= level <= ACOUSTIC_CEILING
        assert decision.changed == (decision.rule is not None)
        assert level >= decision.previous - 1
        assert (decision.rule is Rule.CALMED_DOWN) == (level < decision.previous)
        assert 0.0 <= decision.score <= 1.0


@given(evidence)
def test_whatever_was_heard_enough_calm_always_ends_at_level_0(
    heard: list[tuple[float, float | None]],
) -> None:
    machine = RiskMachine(POLICY)
    for speech_s, score in heard:
        machine.update(0.5, speech_s, score)
    play(machine, CALM, 2 * POLICY.hold_s + 1.0)
    assert machine.level == 0


@given(evidence)
def test_without_a_score_above_caution_nothing_ever_rises(
    heard: list[tuple[float, float | None]],
) -> None:
    machine = RiskMachine(POLICY)
    for speech_s, score in heard:
        bounded = None if score is None else min(score, POLICY.caution - 1e-6)
        assert machine.update(0.5, speech_s, bounded).level == 0


@given(evidence)
def test_less_speech_above_serious_than_sustain_s_never_makes_level_2(
    heard: list[tuple[float, float | None]],
) -> None:
    machine = RiskMachine(POLICY)
    shouted_s = 0.0
    for speech_s, score in heard:
        if score is not None and score >= POLICY.serious:
            if shouted_s + speech_s >= POLICY.sustain_s - 1e-3:
                score = POLICY.serious - 1e-6
            else:
                shouted_s += speech_s
        assert machine.update(0.5, speech_s, score).level < 2
