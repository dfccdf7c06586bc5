"""Delay against false alarms: what other rules would have done in the very same calls.

Every half second was scored once; the rules are played again over it (:mod:`detectors.replay`). The
delay is that of calls which turn angry (:func:`detectors.evaluate.onset_calls`), false alarms are
those of ordinary made calls. Whoever chooses by this table chooses on the recordings in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from detectors.acoustic import AcousticModel
from detectors.calls_eval import ALERT_LEVEL, Played
from detectors.evaluate import Onset, verdicts
from detectors.made_calls import ORDINARY, Kind
from detectors.replay import Heard, Rules, heard, replayed
from detectors.risk import Policy
from detectors.running import FALLING_WEIGHT, RISING_WEIGHT

#: What is tried: seconds of shouted speech and the score from which speech counts as shouted, each
#: with the mean in force and with one that waits on the way up, too.
SUSTAIN_S = (0.5, 0.65, 0.8, 0.95, 1.2, 1.5)
SERIOUS = (0.69, 0.725, 0.76, 0.8)
RISING = (RISING_WEIGHT, 0.7)


@dataclass(frozen=True, slots=True)
class OnsetCall:
    """One call that turns angry, scored."""

    begin_s: float
    """The first angry recording begins."""
    raised_s: float
    """The first raised moment in it."""
    heard: tuple[Heard, ...]


def scored(model: AcousticModel, calls: Iterable[Onset]) -> list[OnsetCall]:
    """Play calls to the detector; their audio is not kept."""
    return [OnsetCall(c.begin_s, c.raised_s, heard(verdicts(model, c.pcm))) for c in calls]


@dataclass(frozen=True, slots=True)
class Point:
    """What one choice of rules does."""

    rules: Rules
    shipped: bool
    hours: float
    """Of ordinary calls."""
    false_alarms: int
    """In them."""
    raised: int
    """Alarms in calls with acted joy and surprise."""
    hits: int
    """Angry passages of the made calls that reach the alert level."""
    delays_s: tuple[float, ...]
    """From the beginning of the anger to the alert level; infinite where it was never reached."""
    from_raised_s: tuple[float, ...]
    """The same from the first raised moment, where there is one."""

    @property
    def per_hour(self) -> float:
        return self.false_alarms / self.hours if self.hours else float("nan")

    @property
    def reached(self) -> float:
        """Share of the calls that reach the alert level."""
        return float(np.mean(np.isfinite(self.delays_s))) if self.delays_s else float("nan")

    def delay_s(self, percent: float = 50.0) -> float:
        """Percentile over all calls, those that never reach it included: it may be infinite."""
        if not self.delays_s:
            return float("nan")
        return float(np.percentile(self.delays_s, percent, method="inverted_cdf"))


def _delays(onsets: Sequence[OnsetCall], rules: Rules) -> tuple[list[float], list[float]]:
    delays, from_raised = [], []
    for call in onsets:
        found = replayed(call.heard, rules)
        at = next((v.at_s for v in found if v.decision.level >= ALERT_LEVEL), np.inf)
        if at <= call.begin_s:
            continue  # an alarm of the calm part: no delay can be told
        delays.append(at - call.begin_s)
        if not np.isnan(call.raised_s):
            from_raised.append(at - call.raised_s)
    return delays, from_raised


def point(
    calls: Sequence[Played], onsets: Sequence[OnsetCall], rules: Rules, shipped: bool = False
) -> Point:
    """Judge all calls again by some rules."""
    found = [one.by(rules) for one in calls]
    ordinary = [one for one in found if one.kind in ORDINARY]
    delays, from_raised = _delays(onsets, rules)
    return Point(
        rules=rules,
        shipped=shipped,
        hours=sum(one.hours for one in ordinary),
        false_alarms=sum(one.false_2 for one in ordinary),
        raised=sum(one.false_2 for one in found if one.kind is Kind.RAISED),
        hits=sum(bool(one.hit) for one in found),
        delays_s=tuple(delays),
        from_raised_s=tuple(from_raised),
    )


def points(calls: Sequence[Played], onsets: Sequence[OnsetCall], policy: Policy) -> list[Point]:
    """The rules in force first, then the grid.

    Args:
        calls: made calls.
        onsets: calls that turn angry.
        policy: in force.
    """
    out = [point(calls, onsets, Rules(policy), shipped=True)]
    for rising, serious, sustain_s in product(RISING, SERIOUS, SUSTAIN_S):
        other = replace(
            policy,
            caution=min(policy.caution, serious),
            serious=serious,
            sustain_s=sustain_s,
            sure=max(policy.sure, serious),
            sure_s=min(policy.sure_s, sustain_s),
        )
        out.append(point(calls, onsets, Rules(other, rising, FALLING_WEIGHT)))
    return out


def front(found: Iterable[Point]) -> list[Point]:
    """Those that no other one beats in both: each faster one has more false alarms."""
    out: list[Point] = []
    for one in sorted(found, key=lambda p: (p.per_hour, p.delay_s(), -p.reached)):
        if not out or one.delay_s() < out[-1].delay_s():
            out.append(one)
    return out


def markdown(found: Sequence[Point]) -> Iterator[str]:
    """The rules in force, and those that are no worse than any other in delay or false alarms."""
    yield ""
    yield "## Delay against false alarms"
    yield ""
    yield (
        f"{len(found[0].delays_s)} calls of EmoDB dev voices that turn angry; the same half "
        "seconds judged by other rules. Median over all of these calls, from the beginning of the "
        "first angry clip; in brackets from its first raised moment."
    )
    yield ""
    yield (
        "| rules | rising weight | serious | sustained | median delay | 95th percentile reached "
        "| reached | level 2 an hour | joyful voices | passages hit |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    rows = [("in force", found[0])]
    rows += [("other", one) for one in front(found[1:]) if np.isfinite(one.delay_s())]
    for name, one in rows:
        policy = one.rules.policy
        known = [d for d in one.delays_s if np.isfinite(d)]
        late = float(np.percentile(known, 95)) if known else float("nan")
        middle = float(np.median(one.from_raised_s)) if one.from_raised_s else float("nan")
        yield (
            f"| {name} | {one.rules.rising:g} | {policy.serious:g} | {policy.sustain_s:g} s "
            f"| {one.delay_s():.2f} s ({middle:.2f}) | {late:.2f} s | {100 * one.reached:.0f} % "
            f"| {one.per_hour:.2f} | {one.raised} | {one.hits} |"
        )
