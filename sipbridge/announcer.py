"""What plays on which leg of a call: one play a leg, numbered so that its end can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from callshield.messages import LegName
from callshield.messages_media import PlayFinished, PlayPrompts, StopPlay
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import Step, ToMedia
from sipbridge.prompt_catalogue import Prompt, wide_files

#: How loud the agent hears what is played to the caller (``notice.agent_hears = "prompt"``).
AGENT_PROMPT_DB = -18.0

#: What the caller hears; ``hold_on`` is played again and again until it is stopped.
Announcement = Literal[
    "notice",
    "closing",
    "warning",
    "help",
    "hold_on",
    "call_back",
    "objection",
    "recording",
    "resumed",
]


class Announcer:
    """What plays in one call; pure, messages for the media worker out.

    Args:
        plan: the call, the tone for the agent, and what the agent hears meanwhile.
    """

    def __init__(self, plan: CallPlan) -> None:
        self._plan = plan
        self._newest = 0
        self._caller_play = 0
        self._agent_play = 0
        self.announcing: Announcement | Literal[""] = ""
        """What the caller hears now; ``""`` when nothing plays that is waited for."""

    def play_on(self, leg: LegName) -> int:
        """Number of the last play on a leg; 0 when it was forgotten, or there was none."""
        return self._caller_play if leg is LegName.CALLER else self._agent_play

    def to_caller(self, what: Announcement, prompts: Sequence[Prompt]) -> ToMedia:
        """Instead of the agent."""
        self._newest += 1
        self._caller_play = self._newest
        self.announcing = what
        return ToMedia(
            PlayPrompts(
                call_id=self._plan.call_id,
                play_id=self._newest,
                leg=LegName.CALLER,
                files=[str(prompt.path) for prompt in prompts],
                wide_files=wide_files(prompts),
                loop=what == "hold_on",
            )
        )

    def to_agent(self, prompts: Sequence[Prompt], *, gain_db: float | None) -> ToMedia:
        """Instead of the caller, or under the caller's voice with ``gain_db``."""
        self._newest += 1
        self._agent_play = self._newest
        return ToMedia(
            PlayPrompts(
                call_id=self._plan.call_id,
                play_id=self._newest,
                leg=LegName.AGENT,
                files=[str(prompt.path) for prompt in prompts],
                wide_files=wide_files(prompts),
                loop=tuple(prompts) == (self._plan.notice_tone,),
                mix=gain_db is not None,
                gain_db=gain_db or 0.0,
            )
        )

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """The agent's soft tone while the caller hears ``prompts``, or the prompts, quietly."""
        if self._plan.agent_hears == "tone":
            return [self.to_agent([self._plan.notice_tone], gain_db=0.0)]
        return [self.to_agent(prompts, gain_db=AGENT_PROMPT_DB)] if prompts else []

    def stop(self, leg: LegName) -> ToMedia:
        """Stop what plays on a leg; its end is still waited for."""
        return ToMedia(StopPlay(call_id=self._plan.call_id, leg=leg))

    def hush(self, leg: LegName) -> ToMedia:
        """Stop what plays on a leg and forget it."""
        if leg is LegName.CALLER:
            self.announcing, self._caller_play = "", 0
        else:
            self._agent_play = 0
        return self.stop(leg)

    def ended(self, played: PlayFinished) -> Announcement | Literal[""]:
        """What the caller heard until now; ``""`` for a play that was forgotten or replaced."""
        if played.leg is not LegName.CALLER or played.play_id != self._caller_play:
            return ""
        what, self.announcing = self.announcing, ""
        return what
