"""The simulation of the transcribers' budget: against theory, and against what is known of it."""

from __future__ import annotations

import random

import pytest

from tests.load.erlang import erlang_c, waits_longer
from tests.load.transcriber_budget import Arrival, budget, conversations, needed, run
from tests.load.turn_time import TurnTimes, read_turn_times
from tests.load.utterance_pattern import Pattern, read_patterns, summary


def poisson(per_s: float, seconds: float, seed: int) -> list[Arrival]:
    """Strangers who say one thing each, at random moments."""
    rng = random.Random(seed)
    found: list[Arrival] = []
    at_s = 0.0
    while at_s < seconds:
        at_s += rng.expovariate(per_s)
        found.append(Arrival(at_s, len(found).to_bytes(16, "big"), 2.0, 2.0, at_s, False))
    return found


@pytest.mark.parametrize(
    ("servers", "per_s", "seconds"), [(1, 0.6, 8000.0), (4, 3.0, 1500.0), (8, 5.6, 1000.0)]
)
def test_where_theory_has_an_answer_the_simulation_gives_it(
    servers: int, per_s: float, seconds: float
) -> None:
    """M/M/n, first come, first served: Erlang's formula, service of a second in the mean."""
    rng = random.Random("service")  # not the arrivals' stream
    found = run(
        poisson(per_s, seconds, seed=2),
        servers,
        lambda _turn: rng.expovariate(1.0),
        seconds,
        warm_up_s=50.0,
    )
    waits = found.all.waits_s
    share = sum(wait > 1e-9 for wait in waits) / len(waits)
    assert share == pytest.approx(erlang_c(servers, per_s), abs=0.05)
    longer = sum(wait > 1.0 for wait in waits) / len(waits)
    assert longer == pytest.approx(waits_longer(servers, per_s, 1.0, 1.0), abs=0.05)
    assert found.busy_s / (seconds * servers) == pytest.approx(per_s / servers, rel=0.05)


def test_nothing_is_lost_or_counted_twice() -> None:
    arrivals = poisson(2.0, 300.0, seed=4)
    found = run(arrivals, 4, lambda _turn: 0.1, 1000.0, warm_up_s=0.0)
    assert found.turns == len(arrivals)
    assert found.all.heard_s == pytest.approx(found.all.offered_s)
    assert found.all.in_time_pct == 100.0


def test_what_was_measured_is_what_a_conversation_may_be() -> None:
    told = summary(read_patterns())
    assert {"bench", "calm emodb", "abusive nemo"} <= set(told)
    for kind in told.values():
        assert 35 < kind["speech_pct"] < 65
        assert 4 < kind["utterances_a_minute"] < 12
        assert 0.4 < kind["word_to_cut_p50_s"] < 1.2


def test_the_aroused_are_cut_sooner_and_heard_first_and_more_transcribers_help() -> None:
    patterns = [one for one in read_patterns() if one.kind == "bench"]
    times = TurnTimes((0.35,), (0.7,))

    def with_transcribers(count: int) -> dict[str, float]:
        return budget(
            patterns,
            times,
            calls=50,
            transcribers=count,
            aroused_share=0.1,
            seconds=240,
            seeds=(1,),
        )

    one, four = with_transcribers(1), with_transcribers(4)
    # As the scheduler's own simulation (tests/test_schedule.py): the aroused lose nothing.
    assert one["aroused_heard_pct"] >= 99.0
    assert one["aroused_in_time_pct"] > 80.0 > one["all_in_time_pct"]
    assert four["all_in_time_pct"] > 95.0
    # Negative control: a twentieth of a core is not enough for anybody.
    starved = budget(
        patterns,
        times,
        calls=50,
        transcribers=1,
        aroused_share=0.1,
        core_share=0.05,
        seconds=240,
        seeds=(1,),
    )
    assert starved["aroused_in_time_pct"] < 10.0


def test_a_conversation_is_the_measured_one_on_another_clock() -> None:
    pattern = Pattern(
        "made", 10.0, calm=[(1.0, 2.0, 1.5, 2.6, 3.5)], aroused=[(1.0, 2.0, 1.5, 2.6, 3.0)]
    )
    lines = conversations([pattern], calls=2, aroused=1, seconds=100.0, seed=1)
    assert {one.aroused for one in lines} == {True, False}
    for one in lines:
        lag_s = one.at_s - one.words_end_s
        assert lag_s == pytest.approx(0.4 if one.aroused else 0.9)
    assert [one.at_s for one in lines] == sorted(one.at_s for one in lines)


def test_turn_times_were_measured_and_the_long_window_costs_more() -> None:
    times = read_turn_times()
    assert 0.1 < min(times.short) <= max(times.short) < 3.0
    assert not times.long or min(times.long) > min(times.short)
    rng = random.Random(1)
    assert times.draw(3.0, rng) in times.short


def test_the_fewest_that_are_enough_are_found() -> None:
    rows = [
        {"calls": 50, "transcribers": 1, "x": 40.0},
        {"calls": 50, "transcribers": 2, "x": 95.0},
        {"calls": 50, "transcribers": 3, "x": 99.0},
        {"calls": 100, "transcribers": 3, "x": 80.0},
    ]
    assert needed(rows, "x", 90.0) == {50: 2, 100: None}
