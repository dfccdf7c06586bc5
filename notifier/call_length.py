"""How long a call has lasted, and what follows from it. Pure: a clock in, prompts out.

Public offices may end a conversation that has lasted for a set time (public preset: a notice at 15
minutes, *end* offered at 20). The time counts from the answer. One press of *extend* moves the
offer on; nothing ends by itself unless the policy says so, and then a minute after the offer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from notifier.live import Call
from notifier.policy import LAST_CHANCE_S, Policies, may_act_by_length

Step = Literal["notice", "end_offered", "extended"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One ``call.length`` event."""

    step: Step
    minutes: int
    """Of talk so far."""
    until_s: float
    """When *end* is offered, seconds after the answer; after the offer: when the call ends by
    itself, or 0 where it does not."""


@dataclass(slots=True)
class _Talk:
    noticed: bool = False
    offered: bool = False
    ended: bool = False
    offer_s: float = 0.0
    """When *end* is (next) offered, seconds after the answer."""


class CallLengths:
    """The prompts of all live calls.

    Args:
        policies: of the teams.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._talks: dict[str, _Talk] = {}

    def restore(self, call: Call, step: Step, ts: float, until_ts: float) -> None:
        """Take over what a former process said in a live call; one event after the other.

        Args:
            call: live and answered.
            step: what was said.
            ts: when.
            until_ts: of the same event.
        """
        talk = self._talk(call)
        answered_ts = ts if call.answered_ts is None else call.answered_ts
        talk.noticed = True
        talk.offered = step == "end_offered"
        if step == "extended":
            talk.offer_s = until_ts - answered_ts
        elif step == "end_offered":
            talk.offer_s = ts - answered_ts

    def _talk(self, call: Call) -> _Talk:
        talk = self._talks.get(call.call_id)
        if talk is None:
            minutes = self._policies.of(call.agent_id).length_end_min
            talk = self._talks[call.call_id] = _Talk(offer_s=60.0 * minutes)
        return talk

    def forget(self, call_id: str) -> None:
        """The call is over."""
        self._talks.pop(call_id, None)

    def due(self, call: Call, talked_s: float) -> tuple[list[Prompt], bool]:
        """What is to be said now, and whether the call ends by itself now.

        Args:
            call: live and answered.
            talked_s: seconds since the answer.
        """
        policy = self._policies.of(call.agent_id)
        if not (policy.length_notice_min or policy.length_end_min) or call.ending_ts is not None:
            return [], False
        talk = self._talk(call)
        minutes = int(talked_s // 60)
        prompts: list[Prompt] = []
        notice_s = 60.0 * policy.length_notice_min
        if policy.length_notice_min and not talk.noticed and talked_s >= notice_s:
            talk.noticed = True
            if not (policy.length_end_min and talked_s >= talk.offer_s):
                prompts.append(Prompt("notice", minutes, talk.offer_s))
        if not policy.length_end_min or talked_s < talk.offer_s:
            return prompts, False
        automatic = policy.length_end_automatically
        if not talk.offered:
            talk.offered = True
            # Counted from now: a process that was away gives the whole minute.
            talk.offer_s = talked_s
            ends = automatic and may_act_by_length(call)
            until_s = talked_s + LAST_CHANCE_S if ends else 0.0
            prompts.append(Prompt("end_offered", minutes, until_s))
            return prompts, False
        late = talked_s >= talk.offer_s + LAST_CHANCE_S
        if automatic and late and not talk.ended and may_act_by_length(call):
            talk.ended = True
            return prompts, True
        return prompts, False

    def extend(self, call: Call, talked_s: float) -> Prompt | None:
        """The agent needs more time; ``None`` where the policy has no such limit."""
        policy = self._policies.of(call.agent_id)
        if not policy.length_end_min:
            return None
        talk = self._talk(call)
        talk.noticed, talk.offered, talk.ended = True, False, False
        talk.offer_s = max(talk.offer_s, talked_s) + 60.0 * policy.length_extend_min
        return Prompt("extended", int(talked_s // 60), talk.offer_s)
