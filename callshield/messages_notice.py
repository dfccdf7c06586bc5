"""Announcements as evidence, and what the caller said to them by a key."""

from __future__ import annotations

from typing import Literal

import msgspec

from callshield.message_base import Message

Spared = Literal["", "never_automatic", "vulnerable", "relay_service"]
"""Why nothing is done automatically in a call; ``relay_service``: no sound is judged either."""


class PromptStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that one prompt was played (or attested)."""

    prompt_id: str
    version: str
    """Where the PBX played it: as the PBX says, else empty."""
    sha256: str
    """Of the WAV file that was played, the 8 or the 16 kHz one; empty where the PBX played it."""
    started_ts: float
    finished_ts: float
    complete: bool
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
    """An announcement after the notice: recording begins or goes on, an objection is accepted."""

    ts: float
    call_id: str
    agent_id: str
    stamp: PromptStamp
    pbx_call_id: str = ""


NoticeEvent = ProtectionChanged | PromptPlayed
