"""Events about what is stored: who read words or a recording, and what was deleted."""

from __future__ import annotations

from typing import Literal

from callshield.message_base import Message

ReadWhat = Literal["recording", "words", "transcript", "evidence", "access", "number"]
"""``access``: what is held on a caller, given to him; ``number``: of a call-back, to make it."""
RetentionKind = Literal[
    "events",
    "words",
    "alerts",
    "calls",
    "draws",
    "reports",
    "tokens",
    "dead_letters",
    "held_events",
]


class RecordRead(Message, tag="record.read", frozen=True, kw_only=True):
    """Somebody opened a recording, or was shown what a caller said.

    The call's agent sees it; so do auditors and the workers' representative, without the agent.
    """

    ts: float
    call_id: str
    what: ReadWhat
    by_role: str
    """A role, or ``operator`` for the command line."""
    by: str
    """Token id, or ``user:UID`` of the operating system; never a name."""
    why: str
    """What the reader gave as the reason, or which rule let him: ``help_asked``."""
    agent_id: str = ""


class RetentionDeleted(Message, tag="retention.deleted", frozen=True, kw_only=True):
    """Old data was deleted; part of the hash chain, which it keeps verifiable.

    For *events* the hashes are those before the first deleted event and of the last one, so that
    what follows can be checked from there; for *words* the range says whose quotations were taken
    out.
    """

    ts: float
    kind: RetentionKind
    count: int
    rule: str
    """What ordered it, such as ``events_days=365``."""
    before_ts: float
    """What is older than this was due."""
    from_id: int = 0
    """First and last event of the range; 0 for other kinds."""
    to_id: int = 0
    from_hash: str = ""
    """Hash of the event before ``from_id``."""
    to_hash: str = ""
    """Hash of event ``to_id``."""
    held: list[str] = []
    """Events of the range that were put aside because somebody asked for the evidence of their
    call, as ``ID:HASH``; of *held_events* the numbers of those that went."""
    call_id: str = ""
    """Always empty: it is no call's."""


class StoreRestored(Message, tag="store.restored", frozen=True, kw_only=True):
    """A backup was put back; what came after it is not in this store any more."""

    ts: float
    backup_sha256: str
    last_id: int
    """Newest event of the backup."""
    replaced_id: int
    """Newest event that the node had noted before; more than ``last_id`` where events are gone."""
    call_id: str = ""
    """Always empty: it is no call's."""
