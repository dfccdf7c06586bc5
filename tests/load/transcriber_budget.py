"""How many transcribers for how many calls: a discrete-event simulation of the real scheduler.

    python -m tests.load.transcriber_budget [--plot FILE.png] [--json FILE]

Callers cut utterances as measured (:mod:`tests.load.utterance_pattern`); what waits is chosen by
:class:`detectors.schedule.Scheduler` itself, told the simulation's time; a turn takes what a turn
was measured to take (:mod:`tests.load.turn_time`). simpy keeps the calendar. Every utterance is
followed from its last word to the words: in time when that takes at most 2.5 s.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from detectors.schedule import JOINT_S, MAX_AGE_S, Scheduler, Turn
from detectors.transcription import AROUSED_S
from detectors.utterances import FRAME, FRAMES_PER_S, Utterance
from tests.load.plots import draw_budget, need_pyplot
from tests.load.turn_time import TurnTimes, read_turn_times
from tests.load.utterance_pattern import Pattern, read_patterns

#: From the last word to the words (docs/detection.md).
GOAL_S = 2.5
#: From the cut to the transcriber and back: half of the detector's tick, and the way.
WAY_S = 0.1
#: What is cut before this time is not counted (the simulation begins with nobody waiting), nor what
#: is cut so shortly before its end that it could be dropped or heard after it.
WARM_UP_S, COOL_DOWN_S = 60.0, MAX_AGE_S + 5.0
#: What waits at a scheduler's tick is looked at so often, as the detector does.
_TICK_S = 0.1
#: Between two calls of the same line.
_PAUSE_S = 5.0
_SILENCE = np.zeros(20 * FRAMES_PER_S * FRAME, np.int16)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An utterance that was cut."""

    at_s: float
    call_id: bytes
    length_s: float
    speech_s: float
    words_end_s: float
    """When its last word ended."""
    aroused: bool


@dataclass(slots=True)
class Outcome:
    """What became of the utterances after the warm-up, in seconds of speech."""

    offered_s: float = 0.0
    heard_s: float = 0.0
    in_time_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    """From the last word to the words, of those that were heard."""
    waits_s: list[float] = field(default_factory=list)
    """From the cut to the turn."""

    @property
    def heard_pct(self) -> float:
        return 100 * self.heard_s / self.offered_s if self.offered_s else 100.0

    @property
    def in_time_pct(self) -> float:
        return 100 * self.in_time_s / self.offered_s if self.offered_s else 100.0

    def delay_s(self, quantile: float) -> float:
        return float(np.quantile(self.delays_s, quantile)) if self.delays_s else float("nan")


@dataclass(slots=True)
class Result:
    """Of one simulation."""

    all: Outcome = field(default_factory=Outcome)
    aroused: Outcome = field(default_factory=Outcome)
    busy_s: float = 0.0
    turns: int = 0
    seconds: float = 0.0


def run(
    arrivals: Iterable[Arrival],
    transcribers: int,
    turn_s: Callable[[Turn], float],
    seconds: float,
    warm_up_s: float = WARM_UP_S,
) -> Result:
    """Serve arrivals, which are in order of time, until ``seconds``.

    Args:
        arrivals: of all calls.
        transcribers: how many.
        turn_s: how long one turn takes.
        seconds: of simulated time.
        warm_up_s: arrivals before that are served, not counted.
    """
    counted_until_s = seconds - COOL_DOWN_S
    environment = simpy.Environment()
    scheduler, result = Scheduler(), Result(seconds=seconds)
    idle: list[simpy.Event] = []
    open_: dict[tuple[bytes, float], Arrival] = {}

    def wake() -> None:
        while idle and scheduler.waiting_s:
            idle.pop().succeed()
            return

    def callers() -> Iterator[simpy.Event]:
        for one in arrivals:
            if one.at_s >= seconds:
                return
            yield environment.timeout(one.at_s - environment.now)
            utterance = Utterance(
                one.at_s,
                _SILENCE[: max(1, round(one.length_s * FRAMES_PER_S)) * FRAME],
                one.speech_s,
            )
            open_[one.call_id, one.at_s] = one
            if one.aroused:
                scheduler.rouse(one.call_id, one.at_s + AROUSED_S)
            if warm_up_s <= one.at_s < counted_until_s:
                for outcome in _outcomes(result, one):
                    outcome.offered_s += one.speech_s
            scheduler.offer(one.call_id, utterance, one.at_s)
            wake()

    def transcriber() -> Iterator[simpy.Event]:
        while True:
            turn = scheduler.take(environment.now)
            if turn is None:
                waiting = environment.event()
                idle.append(waiting)
                yield waiting
                continue
            began_s, took_s = environment.now, turn_s(turn)
            yield environment.timeout(took_s)
            scheduler.heard(turn)
            result.turns += 1
            result.busy_s += took_s
            for utterance in turn.utterances:
                one = open_.pop((turn.call_id, utterance.start_s))
                if not warm_up_s <= one.at_s < counted_until_s:
                    continue
                delay_s = environment.now - one.words_end_s + WAY_S
                for outcome in _outcomes(result, one):
                    outcome.heard_s += one.speech_s
                    outcome.in_time_s += one.speech_s * (delay_s <= GOAL_S)
                    outcome.delays_s.append(delay_s)
                    outcome.waits_s.append(began_s - one.at_s)

    environment.process(callers())
    for _ in range(transcribers):
        environment.process(transcriber())
    environment.run(until=seconds)
    return result


def _outcomes(result: Result, one: Arrival) -> tuple[Outcome, ...]:
    return (result.all, result.aroused) if one.aroused else (result.all,)


def conversations(
    patterns: Sequence[Pattern], calls: int, aroused: int, seconds: float, seed: int
) -> list[Arrival]:
    """Lines that carry one measured call after the other.

    Args:
        patterns: calls to take, at random.
        calls: lines.
        aroused: so many of them have callers who gave cause to be heard first, all the time.
        seconds: of time.
        seed: the same one makes the same calls.
    """
    rng = random.Random(seed)
    found: list[Arrival] = []
    for line in range(calls):
        roused = line < aroused
        at_s, number = -rng.uniform(0.0, 60.0), 0
        while at_s < seconds:
            pattern = rng.choice(patterns)
            call_id = (line * 100_000 + number).to_bytes(16, "big")
            for _, length_s, speech_s, words_end_s, cut_s in (
                pattern.aroused if roused else pattern.calm
            ):
                if at_s + cut_s >= 0:
                    found.append(
                        Arrival(
                            at_s + cut_s, call_id, length_s, speech_s, at_s + words_end_s, roused
                        )
                    )
            at_s += pattern.seconds + rng.uniform(0.0, 2 * _PAUSE_S)
            number += 1
    found.sort(key=lambda one: one.at_s)
    return found


def budget(
    patterns: Sequence[Pattern],
    times: TurnTimes,
    *,
    calls: int,
    transcribers: int,
    aroused_share: float,
    core_share: float = 1.0,
    seconds: float = 660.0,
    seeds: Sequence[int] = (1, 2, 3),
) -> dict[str, Any]:
    """One row: medians over the seeds.

    Args:
        patterns: how callers speak.
        times: how long turns take.
        calls: at once.
        transcribers: how many, each with ``core_share`` of a core.
        aroused_share: of the callers.
        core_share: 1: a core to itself.
        seconds: of time, the warm-up included.
        seeds: a simulation each.
    """
    found = []
    for seed in seeds:
        rng = random.Random(seed)
        arrivals = conversations(patterns, calls, round(calls * aroused_share), seconds, seed)
        one = run(
            arrivals,
            transcribers,
            lambda turn, rng=rng: times.draw(_audio_s(turn), rng) / core_share,  # type: ignore[misc]
            seconds,
        )
        found.append(
            {
                "aroused_in_time_pct": one.aroused.in_time_pct,
                "all_in_time_pct": one.all.in_time_pct,
                "aroused_heard_pct": one.aroused.heard_pct,
                "all_heard_pct": one.all.heard_pct,
                "aroused_p50_s": one.aroused.delay_s(0.5),
                "aroused_p95_s": one.aroused.delay_s(0.95),
                "busy_pct": 100 * one.busy_s / (seconds * transcribers),
            }
        )
    return {
        "calls": calls,
        "transcribers": transcribers,
        "aroused_share": aroused_share,
        "core_share": core_share,
        **{key: round(float(np.median([one[key] for one in found])), 2) for key in found[0]},
    }


def _audio_s(turn: Turn) -> float:
    lengths = [one.length_s for one in turn.utterances]
    return sum(lengths) + JOINT_S * (len(lengths) - 1)


def needed(rows: Sequence[dict[str, Any]], key: str, percent: float) -> dict[int, int | None]:
    """By calls: the fewest transcribers of the table that reach a share; None: none of it does."""
    found: dict[int, int | None] = {}
    for calls in sorted({row["calls"] for row in rows}):
        enough = [r["transcribers"] for r in rows if r["calls"] == calls and r[key] >= percent]
        found[calls] = min(enough) if enough else None
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Simulate the transcribers' budget.")
    parser.add_argument("--calls", default="50,100,200,300")
    parser.add_argument("--transcribers", default="1,2,3,4,6,8,12,16,24,32")
    parser.add_argument("--aroused", default="0.1,0.02", help="shares of callers")
    parser.add_argument("--core", default="1.0", help="share of a core that each gets")
    parser.add_argument("--kinds", default="", help="beginnings of kinds of calls; all")
    parser.add_argument("--seconds", type=float, default=660.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    need_pyplot(given.plot)
    kinds = tuple(given.kinds.split(",")) if given.kinds else ("",)
    patterns = [one for one in read_patterns() if one.kind.startswith(kinds)]
    times = read_turn_times()
    rows = []
    for share in map(float, given.aroused.split(",")):
        for core in map(float, given.core.split(",")):
            for calls in map(int, given.calls.split(",")):
                for transcribers in map(int, given.transcribers.split(",")):
                    row = budget(
                        patterns,
                        times,
                        calls=calls,
                        transcribers=transcribers,
                        aroused_share=share,
                        core_share=core,
                        seconds=given.seconds,
                    )
                    rows.append(row)
                    sys.stdout.write(json.dumps(row) + "\n")
                    sys.stdout.flush()
                    if row["all_in_time_pct"] >= 99.5:
                        break  # more of them make nothing better
    if given.json is not None:
        given.json.write_text(json.dumps(rows) + "\n")
    if given.plot is not None:
        share = float(given.aroused.split(",")[0])
        draw_budget([row for row in rows if row["aroused_share"] == share], given.plot)


if __name__ == "__main__":
    main()
