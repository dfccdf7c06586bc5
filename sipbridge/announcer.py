"""What plays on which leg of a call: one play a leg, numbered so that its end can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from callshield.messages import LegName
from callshield.messages_media import PlayFinished, PlayPrompts, StopPlay
from callshield.messages_notice import PromptStamp, StoppedBy
from sipbridge.call_plan import CallPlan
from sipbridge.call_steps import Step, ToMedia
from sipbridge.notice_stamps import played_stamps
from sipbridge.prompt_catalogue import Prompt, files_of

#: How loud the agent hears what is played to the caller (``notice.agent_hears = "prompt"``).
AGENT_PROMPT_DB = -18.0

#: What the caller hears; ``ringing`` is a tone, the rest has words.
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
    "ringing",
]
#: Played again and again until it is stopped.
_LOOPS = ("hold_on", "ringing")


@dataclass(slots=True)
class _Untold:
    """A play on the caller's leg whose end was not reported yet."""

    prompts: Sequence[Prompt]
    loop: bool
    stopped_by: StoppedBy = ""


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
        self._untold: dict[int, _Untold] = {}
        self.announcing: Announcement | Literal[""] = ""
        """What the caller hears now; ``""`` when nothing plays that is waited for."""

    def play_on(self, leg: LegName) -> int:
        """Number of the last play on a leg; 0 when it was forgotten, or there was none."""
        return self._caller_play if leg is LegName.CALLER else self._agent_play

    def to_caller(self, what: Announcement, prompts: Sequence[Prompt]) -> ToMedia:
        """Instead of the agent, and of what the caller heard until now."""
        self.unheard("superseded")
        self._newest += 1
        self._caller_play = self._newest
        if what != "ringing":  # a tone tells nothing
            self._untold[self._newest] = _Untold(prompts, loop=what in _LOOPS)
        self.announcing = what
        return ToMedia(
            PlayPrompts(
                call_id=self._plan.call_id,
                play_id=self._newest,
                leg=LegName.CALLER,
                **files_of(prompts),
                loop=what in _LOOPS,
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
                **files_of(prompts),
                loop=tuple(prompts) == (self._plan.notice_tone,),
                mix=gain_db is not None,
                gain_db=gain_db or 0.0,
            )
        )

    def murmur(self, prompts: Sequence[Prompt]) -> list[Step]:
        """The agent's soft tone while the caller hears ``prompts``, or the prompts, quietly."""
        if self._plan.agent_hears == "nothing":
            return []
        if self._plan.agent_hears == "tone":
            return [self.to_agent([self._plan.notice_tone], gain_db=0.0)]
        return [self.to_agent(prompts, gain_db=AGENT_PROMPT_DB)] if prompts else []

    def unheard(self, why: StoppedBy) -> None:
        """What the caller's leg is played from now on does not reach the caller's ear, or is about
        to be stopped: its stamps say so. The first reason counts."""
        for play in self._untold.values():
            play.stopped_by = play.stopped_by or why

    def stop(self, leg: LegName, why: StoppedBy = "superseded") -> ToMedia:
        """Stop what plays on a leg; its end is still waited for.

        Args:
            leg: the caller's or the agent's.
            why: for the stamp of what the caller heard of it.
        """
        if leg is LegName.CALLER:
            self.unheard(why)
        return ToMedia(StopPlay(call_id=self._plan.call_id, leg=leg))

    def hush(self, leg: LegName, why: StoppedBy = "superseded") -> ToMedia:
        """Stop what plays on a leg and forget it: its end moves nothing, and is only stamped."""
        if leg is LegName.CALLER:
            self.announcing, self._caller_play = "", 0
        else:
            self._agent_play = 0
        return self.stop(leg, why)

    @property
    def untold(self) -> bool:
        """The end of something that the caller hears, or heard, was not reported yet."""
        return bool(self._untold)

    def never_told(self) -> None:
        """The media worker is gone, and with it how much of anything was heard."""
        self._untold.clear()

    def stamps(self, played: PlayFinished) -> list[PromptStamp]:
        """What the caller heard by this report, or of what; none of the agent's leg. Ask once."""
        if played.leg is not LegName.CALLER:
            return []
        play = self._untold.pop(played.play_id, None)
        if play is None:
            return []
        return played_stamps(play.prompts, played, play.stopped_by, repeated=play.loop)

    def ended(self, played: PlayFinished) -> Announcement | Literal[""]:
        """What the caller heard until now; ``""`` for a play that was forgotten or replaced."""
        if played.leg is not LegName.CALLER or played.play_id != self._caller_play:
            return ""
        what, self.announcing = self.announcing, ""
        return what
