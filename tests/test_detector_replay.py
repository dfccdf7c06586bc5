"""Rules played again: they give what the live engine gives, and other rules give something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.acoustic import AcousticModel
from detectors.calls_eval import Outcome, Played
from detectors.engine import Hop, Verdict
from detectors.evaluate import verdicts
from detectors.made_calls import Kind
from detectors.onset import CalmRange, first_heard_s
from detectors.replay import Heard, Rules, heard, replayed
from detectors.resample import RATE, to_int16
from detectors.risk import Decision, Policy
from detectors.running import FALLING_WEIGHT, RunningScore
from detectors.thresholds import card_policy
from detectors.tradeoff import OnsetCall, front, markdown, point, points
from tests.detector_sounds import calm_voice, shouting_voice

POLICY = Policy(caution=0.6, serious=0.7, release=0.4, sure=0.9)


def call(*scores: float | None) -> tuple[Heard, ...]:
    """Half seconds full of speech with a score each, or without any."""
    return tuple(
        Heard(0.5 * (i + 1), Hop(0.0 if s is None else 0.5, s, 0.0 if s is None else 0.9, 1.0))
        for i, s in enumerate(scores)
    )


def levels(of: tuple[Heard, ...], rules: Rules) -> list[int]:
    return [verdict.decision.level for verdict in replayed(of, rules)]


def test_a_replayed_call_is_the_live_one() -> None:
    """Calm, a pause that makes the engine forget, a shout, calm again."""
    model = AcousticModel()
    silence = np.zeros(2 * RATE, np.float32)
    audio = np.concatenate([calm_voice(6.0), silence, shouting_voice(3.0), calm_voice(6.0)])
    live = verdicts(model, to_int16(audio))
    again = replayed(heard(live), Rules(card_policy(model.card)))
    assert max(v.decision.level for v in live) == 2
    assert [v.decision for v in again] == [v.decision for v in live]
    assert [(v.score, v.sustained) for v in again] == [(v.score, v.sustained) for v in live]
    # Control: other rules are not the live ones.
    other = Rules(card_policy(model.card), rising=0.2)
    assert [v.score for v in replayed(heard(live), other)] != [v.score for v in live]


def test_a_call_is_replayed_to_the_end_of_its_audio_and_refused_when_more_came_later() -> None:
    still = Verdict(b"x", 1.0, None, Decision(0, 0, 0.0, None, 0.0))
    spoke = replace(still, hop=Hop(0.5, 0.1, 0.5, 0.0))
    assert heard([spoke, still, still]) == (Heard(1.0, Hop(0.5, 0.1, 0.5, 0.0)),)
    with pytest.raises(ValueError, match="audio in every half second"):
        heard([spoke, still, spoke])


def test_a_rising_voice_counts_at_once_and_a_breath_does_not_end_a_shout() -> None:
    running = RunningScore()
    running.add(0.1)
    assert running.add(0.9)[0] == pytest.approx(0.9), "what was calm before holds nothing back"
    after, _ = running.add(0.5)
    odds = FALLING_WEIGHT * np.log(0.5 / 0.5) + (1 - FALLING_WEIGHT) * np.log(0.9 / 0.1)
    assert after == pytest.approx(1 / (1 + np.exp(-odds)))
    slow = RunningScore(rising=0.7)
    slow.add(0.1)
    assert slow.add(0.9)[0] < 0.75, "control: a mean that waits"


def test_the_trade_off_counts_what_other_rules_do() -> None:
    hour = Outcome(Kind.CALM, "made", "made/1", (), 1.0, 5.0, 0, 0, None, float("nan"))
    calm = Played(hour, None, call(*[0.1] * 4, 0.75, 0.1, *[0.1] * 4))
    angry = [
        OnsetCall(2.0, 2.2, call(*[0.1] * 4, *[0.8] * 4)),
        OnsetCall(2.0, float("nan"), call(*[0.1] * 8)),
        OnsetCall(2.0, 2.0, call(0.8, 0.8, *[0.1] * 6)),
    ]
    now = point([calm], angry, Rules(POLICY))
    assert (now.false_alarms, now.per_hour) == (0, 0.0)
    assert now.delays_s == (1.0, np.inf), "an alarm before the anger tells no delay"
    assert now.from_raised_s == pytest.approx((0.8,))
    assert now.reached == 0.5
    assert now.delay_s(50) == 1.0
    assert now.delay_s(95) == np.inf
    hasty = point([calm], angry, Rules(replace(POLICY, sustain_s=0.5)))
    assert (hasty.false_alarms, hasty.delay_s(50)) == (1, 0.5)
    assert front([hasty, now, replace(hasty, false_alarms=3)]) == [now, hasty]


def test_the_table_begins_with_the_rules_in_force() -> None:
    hour = Outcome(Kind.CALM, "made", "made/1", (), 1.0, 5.0, 0, 0, None, float("nan"))
    calm = Played(hour, None, call(*[0.1] * 10))
    found = points([calm], [OnsetCall(2.0, 2.2, call(*[0.1] * 4, *[0.8] * 4))], POLICY)
    assert [p.shipped for p in found[:2]] == [True, False]
    rows = [line for line in markdown(found) if line.startswith("| ")][1:]
    assert rows[0].startswith(
        "| in force | 1 | 0.7 | 0.95 s | 1.00 s (0.80) | 1.00 s | 100 % | 0.00"
    )
    assert len(rows) > 1


def voice(f0_hz: float, seconds: float, sharp: float) -> np.ndarray:
    """Harmonics of one pitch; ``sharp`` is the amplitude of each against the one before."""
    at = np.arange(int(seconds * RATE)) / RATE
    parts = [sharp**k * np.sin(2 * np.pi * f0_hz * (k + 1) * at) for k in range(12)]
    waves = np.sum(parts, axis=0) * (1 + 0.2 * np.sin(2 * np.pi * 3 * at))
    made: np.ndarray = (0.3 * waves / np.abs(waves).max()).astype(np.float32)
    return made


def test_the_first_raised_moment_is_where_pitch_and_edge_rise_not_where_sound_begins() -> None:
    calm = [voice(f0_hz, 2.0, 0.6) for f0_hz in (110.0, 120.0, 130.0)]
    own = CalmRange(calm)
    silence = np.zeros(RATE // 2, np.float32)
    audio = np.concatenate([silence, voice(120.0, 1.0, 0.6), voice(260.0, 1.0, 0.9)])
    assert first_heard_s(audio) == pytest.approx(0.5, abs=0.04)
    assert own.first_raised_s(audio) == pytest.approx(1.5, abs=0.1)
    # Control: a calm voice never rises above itself.
    assert np.isnan(own.first_raised_s(voice(115.0, 1.0, 0.6)))
    assert np.isnan(own.first_raised_s(np.zeros(100, np.float32)))
