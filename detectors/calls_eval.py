"""What the detector does in made calls: false alarms an hour, hits, delays.

Each call goes through :class:`detectors.engine.Detector` as a live one does, several at a time as
on a live node. An alarm is a rise of the level to :data:`ALERT_LEVEL`: as many as there would be
alerts if every alert were taken at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from callshield import g711
from callshield.intervals import rate_interval, share_interval
from callshield.tap import CallerFrame, TapCodec, TapKind
from detectors.acoustic import AcousticModel
from detectors.engine import Detector, Verdict
from detectors.made_calls import Kind, MadeCall
from detectors.replay import Heard, Rules, heard, replayed
from detectors.resample import RATE

#: ``alerts.level`` as it is without a configuration.
ALERT_LEVEL = 2
#: A level that rises this soon after the last angry word still follows from it.
GRACE_S = 2.0
_TOGETHER = 12
_BLOCK = RATE // 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call through the pipeline."""

    kind: Kind
    corpus: str
    speaker: str
    traits: tuple[str, ...]
    hours: float
    speech_s: float
    false_1: int
    """Rises to level 1 or more from level 0 outside anger."""
    false_2: int
    """Rises to the alert level outside anger: false alarms."""
    hit: bool | None
    """The anger reached the alert level; None in a call without any."""
    delay_s: float
    """From the first angry word to the alert level; NaN where it was not reached, or stood there
    before."""


def verdicts_of(model: AcousticModel, calls: Sequence[MadeCall]) -> list[list[Verdict]]:
    """Play calls into one detector at the same time; the verdicts of each."""
    detector = Detector(model)
    ids = [number.to_bytes(16, "big") for number in range(1, len(calls) + 1)]
    found: dict[bytes, list[Verdict]] = {call_id: [] for call_id in ids}
    coded = [g711.encode(call.pcm, g711.PCMU) for call in calls]
    for start in range(0, max(map(len, coded), default=0), _BLOCK):
        now_s = (start + _BLOCK) / RATE
        for call_id, payload in zip(ids, coded, strict=True):
            part = payload[start : start + _BLOCK]
            detector.feed(
                [
                    CallerFrame(
                        call_id,
                        TapKind.AUDIO,
                        TapCodec.PCMU,
                        (start + at) // 160 % 2**16,
                        start + at,
                        0,
                        part[at : at + 160],
                    )
                    for at in range(0, len(part), 160)
                ],
                now_s,
            )
            if part and start + _BLOCK >= len(payload):
                detector.finish(call_id)
        for verdict in detector.step(now_s):
            found[verdict.call_id].append(verdict)
    return [found[call_id] for call_id in ids]


@dataclass(frozen=True, slots=True)
class Judged:
    """Levels held against a call's truth."""

    false_1: int
    false_2: int
    hit: bool
    delay_s: float


def judged(anger_s: tuple[float, float] | None, verdicts: Iterable[Verdict]) -> Judged:
    """Count false alarms outside the anger, and find the hit inside.

    Args:
        anger_s: where the call is angry; None where it is not.
        verdicts: of the whole call, in order.
    """
    start, end = anger_s or (np.inf, -np.inf)
    false_1 = false_2 = level_before = 0
    hit, delay_s = False, float("nan")
    for verdict in verdicts:
        level, previous = verdict.decision.level, verdict.decision.previous
        inside = start < verdict.at_s <= end + GRACE_S
        if verdict.at_s <= start:
            level_before = level
        if not inside:
            false_1 += previous == 0 < level
            false_2 += previous < ALERT_LEVEL <= level
        elif level >= ALERT_LEVEL and not hit:
            hit = True
            if level_before < ALERT_LEVEL:
                delay_s = verdict.at_s - start
    return Judged(false_1, false_2, hit, delay_s)


def outcome(call: MadeCall, verdicts: Iterable[Verdict]) -> Outcome:
    """Hold a call's levels against its truth."""
    found = judged(call.anger_s, verdicts)
    return Outcome(
        kind=call.kind,
        corpus=call.corpus,
        speaker=f"{call.corpus}/{call.speaker}",
        traits=call.traits,
        hours=call.seconds / 3600,
        speech_s=call.speech_s,
        false_1=found.false_1,
        false_2=found.false_2,
        hit=None if call.anger_s is None else found.hit,
        delay_s=found.delay_s,
    )


@dataclass(frozen=True, slots=True)
class Played:
    """One call through the pipeline, and what it takes to judge it again by other rules."""

    outcome: Outcome
    anger_s: tuple[float, float] | None
    heard: tuple[Heard, ...]

    def by(self, rules: Rules) -> Outcome:
        """The outcome that other rules would have had."""
        found = judged(self.anger_s, replayed(self.heard, rules))
        return replace(
            self.outcome,
            false_1=found.false_1,
            false_2=found.false_2,
            hit=None if self.anger_s is None else found.hit,
            delay_s=found.delay_s,
        )


def played(model: AcousticModel, calls: Iterable[MadeCall]) -> Iterator[Played]:
    """All calls, a dozen at a time; their audio is not kept."""
    waiting = iter(calls)
    while some := list(islice(waiting, _TOGETHER)):
        for call, verdicts in zip(some, verdicts_of(model, some), strict=True):
            yield Played(outcome(call, verdicts), call.anger_s, heard(verdicts))


def outcomes(model: AcousticModel, calls: Iterable[MadeCall]) -> list[Outcome]:
    """All calls; what was judged is not kept."""
    return [one.outcome for one in played(model, calls)]


@dataclass(frozen=True, slots=True)
class Rate:
    """Events an hour with a 95 % interval."""

    calls: int
    speakers: int
    hours: float
    events: int
    low: float
    high: float

    @property
    def per_hour(self) -> float:
        return self.events / self.hours if self.hours else float("nan")


def false_alarms(
    found: Sequence[Outcome], seed: int, *, level: int = ALERT_LEVEL, rounds: int = 1000
) -> Rate:
    """False alarms an hour.

    The interval is the wider one, at either end, of the exact Poisson interval (which knows that
    few events say little) and a bootstrap by speaker (which knows that they come from few people).
    """
    counts: dict[str, list[float]] = {}
    for one in found:
        events = one.false_2 if level >= ALERT_LEVEL else one.false_1
        total = counts.setdefault(one.speaker, [0.0, 0.0])
        total[0] += events
        total[1] += one.hours
    hours = sum(total[1] for total in counts.values())
    events = int(sum(total[0] for total in counts.values()))
    low, high = rate_interval(events, hours)
    if len(counts) > 1 and events:
        table = np.array(list(counts.values()))
        rng = np.random.default_rng(seed)
        drawn = table[rng.integers(len(table), size=(rounds, len(table)))].sum(axis=1)
        ends = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return Rate(len(found), len(counts), hours, events, low, high)


@dataclass(frozen=True, slots=True)
class Share:
    """Angry passages that reached the alert level, with a 95 % interval."""

    calls: int
    speakers: int
    hits: int
    low: float
    high: float
    delays_s: tuple[float, ...]
    """Known ones."""


def hit_share(found: Sequence[Outcome], seed: int, rounds: int = 1000) -> Share:
    """Hit rate of abusive calls; the interval is the wider one of Wilson's and a bootstrap by
    speaker."""
    angry = [one for one in found if one.hit is not None]
    counts: dict[str, list[int]] = {}
    for one in angry:
        total = counts.setdefault(one.speaker, [0, 0])
        total[0] += bool(one.hit)
        total[1] += 1
    hits = sum(total[0] for total in counts.values())
    low, high = share_interval(hits, len(angry))
    if len(counts) > 1:
        table = np.array(list(counts.values()))
        rng = np.random.default_rng(seed)
        drawn = table[rng.integers(len(table), size=(rounds, len(table)))].sum(axis=1)
        ends = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    delays = tuple(one.delay_s for one in angry if one.hit and not np.isnan(one.delay_s))
    return Share(len(angry), len(counts), hits, low, high, delays)
