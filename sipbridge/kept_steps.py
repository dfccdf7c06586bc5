"""What is to be done for a call whose bridge died; :mod:`sipbridge.kept_call` says it, and
:mod:`sipbridge.kept_calls` does it."""

from __future__ import annotations

from dataclasses import dataclass

from callshield.messages import LegName
from callshield.messages_media import KeptInvite
from sipbridge.call_steps import CallSupervisor, Emit, ToMedia


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a request that came in a dialog."""

    token: int
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    sdp: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Send a request in a leg's dialog."""

    leg: LegName
    method: str
    headers: tuple[tuple[str, str], ...] = ()
    cseq_skip: int = 0


@dataclass(frozen=True, slots=True)
class Say:
    """Send a message that has no transaction (any more)."""

    about: KeptInvite
    message: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Drop:
    """A leg's dialog is over: forget it."""

    leg: LegName


@dataclass(frozen=True, slots=True)
class Over:
    """Every leg is over: forget the call."""


KeptStep = Answer | Request | Say | Drop | Over | ToMedia | Emit | CallSupervisor
