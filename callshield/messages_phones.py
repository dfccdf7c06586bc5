"""Between the process that writes on phones' screens and the rest of the node; nothing is stored.

``phones`` is a client of the notifier's bus. It hears what happens to calls, decides what each
phone shows, and sends it itself (HTTP) or asks for a SIP NOTIFY (:class:`SendNotify`), which the
bridge or the PBX sends.
"""

from __future__ import annotations

from typing import Literal

from callshield.message_base import Message

NotifyVia = Literal["bridge", "pbx"]
ScreenKind = Literal["warning", "update", "clear", "test"]


class PhoneSeen(Message, tag="phone.seen", frozen=True, kw_only=True):
    """What an agent's phone calls itself; from the bridge, or from the PBX that hides it."""

    agent_id: str
    user_agent: str
    """User-Agent or Server header, printable, at most 256 characters."""
    source: Literal["bridge", "pbx", "configured"]


class SendNotify(Message, tag="phone.notify", frozen=True, kw_only=True):
    """Ask for one SIP NOTIFY outside of any dialog to an agent's phone."""

    request_id: str
    agent_id: str
    via: NotifyVia
    """``bridge``: we send it to the agent's ``uri``; ``pbx``: the PBX sends it to ``endpoint``."""
    event: str
    """Of the Event header; never empty."""
    content_type: str = ""
    body: str = ""
    """Sent in UTF-8."""


class NotifySent(Message, tag="phone.notified", frozen=True, kw_only=True):
    """What became of one :class:`SendNotify`."""

    request_id: str
    status: int
    """SIP status; 0: not sent, or nobody answered. The PBX does not tell the phone's: 202 when it
    took the request."""
    detail: str = ""
    """A sentence for the log; no address and no name."""


class PhoneKey(Message, tag="phone.key", frozen=True, kw_only=True):
    """The agent pressed a key of the phone that calls one of our URLs."""

    ts: float
    """When it was pressed, seconds since the epoch: a press that comes late ends no other call."""
    agent_id: str
    action: Literal["end", "help"]
    key_id: str
    """Of this press, so that a repeated request is not a second one."""


class PhoneKeyDone(Message, tag="phone.key.done", frozen=True, kw_only=True):
    """What came of one :class:`PhoneKey`: a sentence about it is shown on the phone."""

    key_id: str
    outcome: Literal["done", "already", "no_call", "not_now", "unreached"]
    """``no_call``: the agent has no call that was answered; ``unreached``: nobody who could do it
    answered, press again."""


class ShowTest(Message, tag="phone.test", frozen=True, kw_only=True):
    """From the command line: show a few words on this agent's phone, and take them away."""

    request_id: str
    agent_id: str
    text: str = ""
    """Instead of ours; it is cleaned and cut."""


class ScreenPushed(Message, tag="phone.screen", frozen=True, kw_only=True):
    """One attempt to show something, after its retry: for metrics, the log and the doctor."""

    agent_id: str
    call_id: str
    """Empty for a test."""
    profile: str
    """Id of the family; what is counted is counted by it, never by agent."""
    method: str
    kind: ScreenKind
    ok: bool
    """The phone took it. No phone says whether it was seen."""
    reason: str = ""
    """Why not, a short sentence without address, name or secret."""
    took_ms: float = 0.0
    tries: int = 1
    family_agents: int = 1
    """How many agents have such a phone: what few have is not counted by itself."""
    request_id: str = ""
    """Of a :class:`ShowTest`."""


class ScreensLeft(Message, tag="phone.screens_left", frozen=True, kw_only=True):
    """To a process that comes (back): these phones took a screen and nobody took it away."""

    agent_ids: list[str]


PhonesMessage = (
    PhoneSeen
    | SendNotify
    | NotifySent
    | PhoneKey
    | PhoneKeyDone
    | ShowTest
    | ScreenPushed
    | ScreensLeft
)
