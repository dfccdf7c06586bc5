"""Messages about evidence packages: who opened a call for one, and what was handed out."""

from __future__ import annotations

from typing import Literal

from callshield.message_base import Message

RequestState = Literal["requested", "approved", "refused", "done", "lapsed"]
"""Of a request for evidence; ``lapsed``: refused, and no longer held."""
Encryption = Literal["none", "age", "password"]


class EvidenceChanged(Message, tag="evidence.changed", frozen=True, kw_only=True):
    """A request for evidence was approved, refused, handed out, or is held no longer.

    To the agent and to supervisors. Who settled one (``done``) nobody is told; who decided stands
    in ``by``.
    """

    ts: float
    call_id: str
    agent_id: str
    request_id: str
    state: Literal["approved", "refused", "done", "lapsed"] = "done"
    pbx_call_id: str = ""
    by_role: str = ""
    by: str = ""
    """Token id of who decided."""
    reason: str = ""
    """Of a refusal: in the person's own words, long numbers masked."""
    held_until_ts: float = 0.0
    """Of a refusal: until when the call stays as it is."""


class EvidenceExported(Message, tag="evidence.exported", frozen=True, kw_only=True):
    """A package was made: what left the node, by its hash; shown to the call's agent only. It is
    written before the file gets its name, so that nothing leaves unrecorded."""

    ts: float
    call_id: str
    agent_id: str
    request_id: str
    package_id: str
    package_sha256: str
    """Of the package before it was encrypted."""
    manifest_sha256: str
    key_id: str
    unredacted: bool
    whole: bool
    """With what was recorded; else the rest alone."""
    encryption: Encryption
    by_role: str
    by: str
    """Token id."""


# ------------------------------------------------------- between processes, stored by nobody


class OpenEvidence(Message, tag="evidence.open", frozen=True, kw_only=True):
    """From the command line: somebody wants to make a package of a call."""

    request_id: str
    """Of this message; not the agent's request."""
    call_id: str
    token: str
    package_id: str
    """Of the package that will be made; no other is accepted as made."""
    unredacted: bool
    whole: bool


class EvidenceMade(Message, tag="evidence.made", frozen=True, kw_only=True):
    """From the command line: the package lies ready; it is given out when this is stored."""

    request_id: str
    """Of this message."""
    call_id: str
    token: str
    package_id: str
    package_sha256: str
    manifest_sha256: str
    key_id: str
    unredacted: bool
    whole: bool
    encryption: Encryption


class EvidenceAnswer(Message, tag="evidence.answer", frozen=True, kw_only=True):
    """To the command line: may the package be made, or given out?"""

    request_id: str
    """Of the message that asked."""
    refusal: str = ""
    """Why not, a sentence; empty: yes."""
    asked_by: str = ""
    """Id of the agent's request."""
    by_role: str = ""
    by: str = ""
    """Whose token it was."""


EvidenceEvent = EvidenceChanged | EvidenceExported
EvidenceMessage = OpenEvidence | EvidenceMade | EvidenceAnswer
