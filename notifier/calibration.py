"""From judged alerts to a threshold, and to an honest "not yet". Pure: calls in, a proposal out.

What is known of a call: how long it was analysed, the highest threshold at which sound would have
raised an alert (:mod:`detectors.reached`), and what people said of its alert. Nobody says anything
of a call that raised no alert, so a threshold is judged only from the one in force upwards:

* a call whose alert was refuted and that stays below a higher threshold is one false alarm less;
* a call whose alert was confirmed and that stays below it is what that costs;
* an alert that nobody judged may be either: it counts as refuted in the upper end of the interval.

Abuse that raised no alert is seen only where a person said of the call that one was missed: that is
counted, with the threshold at which its sound would have raised one, and no lower threshold is
proposed from it, because nobody knows what false alarms that would bring. A call for help is a
person's own: it is never set against the machine's score. Alerts are counted by call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from callshield.intervals import NONE_SEEN, rate_interval, share_interval

#: Judged alerts that rest on sound alone, without which nothing is proposed.
MIN_JUDGED = 30
#: Of them refuted ones, without which there is nothing to get rid of.
MIN_REFUTED = 10
#: Share of the alerts that must be judged: who judges only what annoyed him would judge for all.
MIN_JUDGED_SHARE = 0.5
#: Agents of a group: figures of fewer would be figures about a person.
MIN_AGENTS = 5
#: Distance of two thresholds that are tried.
STEP = 0.01
_SAME = 1e-9
#: A threshold above this is no threshold any more.
HIGHEST = 0.99

Label = Literal["confirmed", "refuted", "unjudged"]
Key = Literal["caution", "serious"]


@dataclass(frozen=True, slots=True)
class JudgedCall:
    """One analysed call."""

    group: str
    agent_id: str
    hours: float
    """Of the caller's audio that was analysed."""
    in_force: float
    """The threshold that the call was judged by."""
    reached: float
    """Highest threshold at which sound would have raised an alert; 0: none."""
    alerted: bool
    """It raised an alert."""
    by_words: bool
    """Its alert rests on words, so that no threshold of sound changes it."""
    label: Label
    model: str
    missed: bool = False
    """It raised no alert, and a person said that one was missed."""


def _wrong(refuted: int, confirmed: int, unjudged: int) -> float:
    judged = refuted + confirmed
    return refuted + unjudged * (refuted / judged if judged else 1.0)


@dataclass(frozen=True, slots=True)
class Row:
    """What one threshold would have given."""

    threshold: float
    hours: float
    """Of the calls that were judged by this threshold or a lower one: the others cannot tell."""
    refuted: int
    confirmed: int
    unjudged: int
    words_refuted: int
    """Refuted alerts that rest on words: part of the rate at every threshold."""
    words_confirmed: int
    words_unjudged: int
    confirmed_before: int
    """Confirmed alerts by sound at the threshold in force."""

    @property
    def per_hour(self) -> float:
        """False alarms an hour: refuted, and of the unjudged the share that the judged have."""
        if self.hours <= 0:
            return math.nan
        sound = _wrong(self.refuted, self.confirmed, self.unjudged)
        words = _wrong(self.words_refuted, self.words_confirmed, self.words_unjudged)
        return (sound + words) / self.hours

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: at the lower end no unjudged alert was false, at the upper end each was."""
        sure = self.refuted + self.words_refuted
        low, _ = rate_interval(sure, self.hours)
        _, high = rate_interval(sure + self.unjudged + self.words_unjudged, self.hours)
        return low, high

    @property
    def kept(self) -> tuple[float, float, float]:
        """Share of the confirmed alerts by sound that would still have been raised, and its 95 %
        interval."""
        if not self.confirmed_before:
            return math.nan, 0.0, 1.0
        low, high = share_interval(self.confirmed, self.confirmed_before)
        return self.confirmed / self.confirmed_before, low, high


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is known of one group, and what follows from it."""

    group: str
    """``""``: the whole node."""
    key: Key
    agents: int
    calls: int
    in_force: float
    rows: tuple[Row, ...]
    """From the threshold in force upwards."""
    threshold: float | None
    """Proposed; None: nothing is."""
    why: str
    """A sentence: what the proposal rests on, or what is missing and how much of it."""
    model: str
    missed: int = 0
    """Calls without an alert of which people said that one was missed."""
    missed_reached: tuple[float, ...] = ()
    """Of them the thresholds at which their sound would have raised one, the highest first."""

    @property
    def row(self) -> Row | None:
        """Of the proposed threshold."""
        return next((row for row in self.rows if row.threshold == self.threshold), None)


def row_at(calls: Sequence[JudgedCall], threshold: float, base: float) -> Row:
    """What ``threshold`` would have given in calls judged by it or by a lower one.

    Args:
        calls: of one model.
        threshold: to be tried.
        base: the threshold whose confirmed alerts count as all.
    """
    fit = [call for call in calls if call.in_force <= threshold + _SAME]
    sound = [call for call in fit if call.alerted and not call.by_words]
    raised = [call for call in sound if _raises(call, threshold)]
    words = [call for call in fit if call.alerted and call.by_words]

    def count(some: Sequence[JudgedCall], label: Label) -> int:
        return sum(call.label == label for call in some)

    return Row(
        threshold=threshold,
        hours=sum(call.hours for call in fit),
        refuted=count(raised, "refuted"),
        confirmed=count(raised, "confirmed"),
        unjudged=count(raised, "unjudged"),
        words_refuted=count(words, "refuted"),
        words_confirmed=count(words, "confirmed"),
        words_unjudged=count(words, "unjudged"),
        confirmed_before=count([call for call in sound if _raises(call, base)], "confirmed"),
    )


def _raises(call: JudgedCall, threshold: float) -> bool:
    """Whether the call's sound raises an alert at a threshold that is not under its own. What was
    reached is known to a step: between two steps the call counts as raising it."""
    step = math.floor(threshold / STEP + 1e-6) * STEP
    return threshold <= call.in_force + _SAME or call.reached >= step - _SAME


def propose(calls: Sequence[JudgedCall], group: str, key: Key, target_per_hour: float) -> Proposal:
    """A threshold for one group, or the sentence that says why there is none.

    The lowest threshold is proposed of which the upper end of the 95 % interval keeps the target:
    with few hours that end is far away, and nothing is proposed.

    Args:
        calls: of the group, all judged by one model.
        group: its name; ``""`` for the whole node.
        key: which threshold raises alerts (``alerts.level`` 1: caution, 2: serious).
        target_per_hour: false alarms an hour of analysed call that are put up with.
    """
    agents = len({call.agent_id for call in calls})
    model = calls[0].model if calls else ""
    newest = calls[-1].in_force if calls else 0.0

    def answer(threshold: float | None, why: str, rows: tuple[Row, ...] = ()) -> Proposal:
        missed = [call.reached for call in calls if call.missed]
        heard = tuple(sorted((reached for reached in missed if reached > 0), reverse=True))
        return Proposal(
            group, key, agents, len(calls), newest, rows, threshold, why, model, len(missed), heard
        )

    if not calls and not group:
        return answer(None, "no call was analysed yet")
    if agents < MIN_AGENTS:
        instead = "; use those of the whole node" if group else ""
        why = (
            f"{agents} agent{'' if agents == 1 else 's'}: of fewer than {MIN_AGENTS} no figures "
            f"are made, they would be figures about a person{instead}"
        )
        return Proposal(group, key, agents, len(calls), newest, (), None, why, model)
    first = math.ceil(newest / STEP - 1e-6)
    rows = (
        row_at(calls, newest, newest),
        *(
            row_at(calls, round(step * STEP, 2), newest)
            for step in range(first, round(HIGHEST / STEP) + 1)
            if step * STEP > newest + _SAME
        ),
    )
    now = rows[0]
    judged = now.refuted + now.confirmed
    alerts = judged + now.unjudged
    if judged < MIN_JUDGED:
        return answer(
            None,
            f"{judged} alerts by sound are judged and {MIN_JUDGED} are needed: "
            f"{MIN_JUDGED - judged} more",
            rows,
        )
    if judged < MIN_JUDGED_SHARE * alerts:
        missing = math.ceil(MIN_JUDGED_SHARE * alerts) - judged
        return answer(
            None,
            f"{judged} of {alerts} alerts by sound are judged and half are needed: {missing} more",
            rows,
        )
    if now.interval[1] <= target_per_hour:
        return answer(None, "the threshold in force keeps the target: nothing to change", rows)
    hours_needed = NONE_SEEN / target_per_hour
    if now.hours < hours_needed:
        return answer(
            None,
            f"{now.hours:.1f} hours were analysed and {hours_needed:.1f} are needed before "
            f"{target_per_hour:g} an hour could be shown even if no alert were false: "
            f"{hours_needed - now.hours:.1f} more",
            rows,
        )
    if now.refuted < MIN_REFUTED:
        return answer(
            None,
            f"{now.refuted} alerts by sound are refuted and {MIN_REFUTED} are needed to tell "
            "where a threshold would part them from the right ones",
            rows,
        )
    fixed = now.words_refuted + now.words_unjudged
    if rate_interval(fixed, now.hours)[1] > target_per_hour:
        return answer(
            None,
            f"{fixed} alerts that rest on words are refuted or unjudged: no threshold of sound "
            "changes them, and with them the target cannot be kept; look at the words first "
            "(docs/detection.md), or judge what is unjudged",
            rows,
        )
    for row in rows[1:]:
        if row.interval[1] <= target_per_hour:
            return answer(row.threshold, _because(row, now), rows)
    return answer(
        None,
        f"no threshold up to {HIGHEST} keeps the target: this detector cannot part these alerts; "
        "ask for a higher target, or for more hours",
        rows,
    )


def _because(row: Row, now: Row) -> str:
    kept, low, high = row.kept
    text = (
        f"it rests on {now.refuted + now.confirmed} judged alerts in {now.hours:.1f} hours and "
        f"was chosen by them: new calls may give a little more"
    )
    if math.isnan(kept):
        return text + "; no confirmed alert is known, so what it would cost is not known either"
    if low < 0.5:
        return text + (
            f"; LOOK: of the confirmed alerts only {row.confirmed} of {row.confirmed_before} "
            f"({100 * low:.0f} to {100 * high:.0f} %) would still be raised"
        )
    return text


def by_newest_model(calls: Sequence[JudgedCall]) -> tuple[list[JudgedCall], int]:
    """Calls of the model that judged the newest one, and how many were left out."""
    kept = [call for call in calls if call.model == calls[-1].model] if calls else []
    return kept, len(calls) - len(kept)
