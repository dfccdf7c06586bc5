"""Announcements as evidence, and what the caller said to them by a key."""

from __future__ import annotations

from typing import Literal

import msgspec

from callshield.message_base import Message

Spared = Literal["", "never_automatic", "vulnerable", "relay_service"]
"""Why nothing is done automatically in a call; ``relay_service``: no sound is judged either."""


StoppedBy = Literal[
    "", "skipped", "objection", "hold", "caller_changed", "superseded", "hangup", "fault"
]
"""Why the caller did not hear an announcement to its end; empty: it was heard whole.

``skipped``: the agent's emergency key; ``objection``: the caller's key; ``hold``: the caller was
put on hold, and hears it again from its first word where it still matters; ``caller_changed``:
somebody else had the caller's line; ``superseded``: something else came first (the end was pressed,
a pause, a transfer, the helper left); ``hangup``: the call was over; ``fault``: it could not be
played."""


class PromptStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that one prompt was played (or attested), or how much of it."""

    prompt_id: str
    version: str
    """Where the PBX played it: as the PBX says, else empty."""
    sha256: str
    """Of the WAV file that was played, the 8 or the 16 kHz one; empty where the PBX played it."""
    started_ts: float
    finished_ts: float
    """Of one that was cut off: when. So much of :attr:`length_s` was heard."""
    complete: bool
    """Whoever the call is with heard it from the first word to the last."""
    length_s: float = 0.0
    """Of the whole announcement, seconds; 0 where the PBX played it."""
    stopped_by: StoppedBy = ""
    language: str = ""
    """Of what was said; empty where the PBX played it."""
    names: list[str] = []
    """What it tells the caller, as its ``manifest.toml`` says: ``analysis``, ``voice``,
    ``recording``, ``details``; empty where nobody said so."""
    purposes: list[str] = []
    """What it says that this is done for: ``protection``, ``quality``, …"""


ProtectionReason = Literal[
    "objection", "no_consent", "consent", "no_objection", "caller_changed", "caller_back"
]
"""``caller_changed``: the PBX put somebody else where the caller was, who has heard no notice;
``caller_back``: the caller is there again."""


class ProtectionChanged(Message, tag="protection.changed", frozen=True, kw_only=True):
    """Whether the call is analysed changed: the caller's key, or its absence, decided, or somebody
    else is at the caller's end."""

    ts: float
    call_id: str
    agent_id: str
    protected: bool
    """The call is analysed from now on, where the configuration has it so."""
    reason: ProtectionReason
    key: str = ""
    """What the caller pressed; empty: nothing."""
    pbx_call_id: str = ""


class PromptPlayed(Message, tag="prompt.played", frozen=True, kw_only=True):
    """The caller heard an announcement, or a part of it: every one but the notice that
    ``notice.finished`` is about. A notice that was skipped, begun anew after a hold, or cut off by
    the end of the call is told here; that one may come after ``call.ended``."""

    ts: float
    call_id: str
    agent_id: str
    stamp: PromptStamp
    pbx_call_id: str = ""


NoticeEvent = ProtectionChanged | PromptPlayed
