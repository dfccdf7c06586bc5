"""The rules that make a level, played again over half seconds that were scored before.

Scoring takes minutes, rules take seconds: what another threshold, another mean or another time
would have done is answered from the :class:`~detectors.engine.Hop` of each verdict. Exact: with the
rules in force the levels are those of the live engine (tested).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detectors.engine import Hop, Verdict
from detectors.risk import Policy, RiskMachine
from detectors.running import FALLING_WEIGHT, RISING_WEIGHT, RunningScore
from detectors.stream import HOP_FRAMES, HOP_S, WINDOW_FRAMES


@dataclass(frozen=True, slots=True)
class Rules:
    """One choice of what makes a level."""

    policy: Policy
    rising: float = RISING_WEIGHT
    """Weight of a window that scores above the running mean."""
    falling: float = FALLING_WEIGHT
    """Weight of another."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One judged half second of a call."""

    at_s: float
    """Seconds of audio of this call up to the decision."""
    hop: Hop


def heard(verdicts: Iterable[Verdict]) -> tuple[Heard, ...]:
    """What can be replayed of a call: all of it up to the end of its audio.

    Raises:
        ValueError: audio came after a time without any, in which evidence aged by the clock.
    """
    out: list[Heard] = []
    stopped = False
    for verdict in verdicts:
        if verdict.hop is None:
            stopped = True
        elif stopped:
            raise ValueError("only a call with audio in every half second can be replayed")
        else:
            out.append(Heard(verdict.at_s, verdict.hop))
    return tuple(out)


def replayed(call: Iterable[Heard], rules: Rules) -> list[Verdict]:
    """The verdicts that these rules give.

    Args:
        call: all half seconds from the call's first on.
        rules: to play by.
    """
    machine = RiskMachine(rules.policy)
    running = RunningScore(rules.rising, rules.falling)
    silent_hops = 0
    out = []
    for one in call:
        hop = one.hop
        silent_hops = 0 if hop.speech_s else silent_hops + 1
        if silent_hops * HOP_FRAMES >= WINDOW_FRAMES:
            running.forget()
        score = sustained = None
        if hop.newest is not None:
            score, sustained = running.add(hop.newest)
        decision = machine.update(HOP_S, hop.speech_s, score, hop.window_s)
        out.append(Verdict(b"", one.at_s, score, decision, sustained, hop=hop))
    return out
