"""The caller is told that somebody will call back: once a call, to its end, to a caller who hears.

Pure, part of :class:`sipbridge.call.Call`. Owed when nobody took the call over, or when the agent
promises it because nobody came; played as soon as nothing else plays and the caller is not on hold.
Caller and agent go on afterwards; an agent who has hung up leaves a caller who hears this and then
gets BYE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from callshield.messages import LegName
from callshield.messages_media import PlayFinished
from sipbridge.announcer import Announcer
from sipbridge.call_events import CallEvents
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import Emit, Outcome, StartTimer, Step, StopTimer, ToMedia
from sipbridge.help_request import HelpRequest, Stage
from sipbridge.prompt_catalogue import Prompt

#: An announcement whose end is not reported this long after it should have come is over.
_SPOKEN_WITHIN_S = 5.0


class TellingCall(Protocol):
    """What is needed of the call."""

    plan: CallPlan
    events: CallEvents
    help: HelpRequest

    @property
    def caller_listens(self) -> bool:
        """The caller is not on hold."""

    @property
    def agent_left(self) -> bool:
        """The agent hung up while a hand-over was under way."""

    def flow(self) -> ToMedia:
        """What may pass now."""

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """Let the agent know that the caller hears these, as configured."""

    def alarm(self, reason: str) -> Emit:
        """An announcement could not be played."""


class CallBackTalk:
    """Whether the caller was told.

    Args:
        call: that it belongs to.
        plays: what plays in it.
    """

    def __init__(self, call: TellingCall, plays: Announcer) -> None:
        self._call = call
        self._plays = plays
        self._state: Literal["", "owed", "saying", "said"] = ""

    @property
    def owed(self) -> bool:
        """It must still be said."""
        return self._state == "owed"

    @property
    def saying(self) -> bool:
        """The caller hears it now."""
        return self._state == "saying"

    def owe(self) -> None:
        """Nobody came; where call-backs are configured the caller is told, once."""
        if self._call.plan.call_back is not None and not self._state:
            self._state = "owed"

    def promise(self, by: str) -> tuple[Outcome, str, list[Step]]:
        """The agent promises it."""
        if not by.startswith("agent:"):
            return "not_now", "Only the call's own agent promises a call-back.", []
        if self._call.plan.call_back is None:
            return "not_now", "No call-backs are promised here (callbacks.within_s is 0).", []
        if self._state:
            return "already", "The caller is told, or was told, already.", []
        self.owe()
        return "done", "The caller is told that somebody will call back.", self.tell()

    def tell(self) -> list[Step]:
        """Say it if it is owed and can be heard; call it whenever that may have changed."""
        call, prompt = self._call, self._call.plan.call_back
        free = not self._plays.announcing and call.help.stage in (Stage.NONE, Stage.JOINED)
        if prompt is None or not self.owed or not free or not call.caller_listens:
            return []
        self._state = "saying"
        steps: list[Step] = [*call.murmur([prompt]), self._plays.to_caller("call_back", [prompt])]
        if call.agent_left:
            steps += self.alone()
        return steps

    def alone(self) -> list[Step]:
        """It is said, and the agent has hung up: the caller hears it to its end, and then BYE."""
        prompt = self._call.plan.call_back
        assert prompt is not None
        limit = StartTimer("call_back", prompt.duration_s + _SPOKEN_WITHIN_S)
        return [self._call.flow(), limit]

    def on_played(self, played: PlayFinished) -> list[Step]:
        """It ended, was stopped, or could not be played."""
        self._state = "said"
        call = self._call
        steps: list[Step] = [StopTimer("call_back")]
        if not call.agent_left:
            steps.append(self._plays.stop(LegName.AGENT))
        steps.append(call.events.call_back_spoken(complete=played.complete))
        if not played.complete and played.error:
            steps.append(call.alarm(played.error))
        return steps

    def on_hold_changed(self) -> list[Step]:
        """A caller on hold hears nothing: it begins again from its first word afterwards."""
        call = self._call
        if self.saying and not call.caller_listens:
            self._state = "owed"
            steps: list[Step] = [StopTimer("call_back"), self._plays.hush(LegName.CALLER)]
            return steps if call.agent_left else [*steps, self._plays.hush(LegName.AGENT)]
        return self.tell()
