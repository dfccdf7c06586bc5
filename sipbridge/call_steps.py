"""What a :class:`sipbridge.call.Call` asks its shell to do, one dataclass a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from callshield.messages import Event, LegName
from callshield.messages_media import MediaMessage

#: What comes of a button, phone key or code.
Outcome = Literal["done", "already", "not_now", "not_supported"]
#: ``helper`` bounds how long a helper's phone rings, ``soften`` is how long softening outlasts
#: shouting, ``keys`` how long after the notice a key of the caller's counts, ``call_back`` how long
#: a caller without an agent is told that somebody calls back.
TimerName = Literal["ring", "closing", "tail", "transfer", "helper", "soften", "call_back", "keys"]


@dataclass(frozen=True, slots=True)
class CallOut:
    """Send our INVITE: to the agent's phone, or over a trunk to whom the agent dialled."""

    sdp: str


@dataclass(frozen=True, slots=True)
class AnswerIncoming:
    """Send a response to the INVITE that began the call."""

    status: int
    sdp: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HangUp:
    """BYE, CANCEL or final response, whatever the leg's state asks for."""

    leg: LegName
    status: int = 0


@dataclass(frozen=True, slots=True)
class ToMedia:
    """A message for the media worker."""

    message: MediaMessage


@dataclass(frozen=True, slots=True)
class Emit:
    """An event for the notifier."""

    event: Event


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Call :meth:`Call.on_timer` with this name after ``delay_s``; replaces one of that name."""

    name: TimerName
    delay_s: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """Forget a timer."""

    name: TimerName


@dataclass(frozen=True, slots=True)
class CallSupervisor:
    """The agent keyed *help* on the phone: the notifier calls the supervisors."""

    by: str


@dataclass(frozen=True, slots=True)
class CallHelper:
    """Send the INVITE to a supervisor's or manager's phone."""

    uri: str
    sdp: str


@dataclass(frozen=True, slots=True)
class ReplaceAgent:
    """Hand over: BYE to the agent's phone; the helper's dialog is the agent's leg from now on."""


@dataclass(frozen=True, slots=True)
class Forget:
    """A call whose end was announced before (the agent was transferred out) is over."""


Step = (
    CallOut
    | AnswerIncoming
    | HangUp
    | ToMedia
    | Emit
    | CallSupervisor
    | CallHelper
    | ReplaceAgent
    | StartTimer
    | StopTimer
    | Forget
)
