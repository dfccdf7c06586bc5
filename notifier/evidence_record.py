"""Everything the store holds about a call whose evidence was asked for, of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from callshield.errors import EvidenceError
from notifier.audit import begin_snapshot, read
from notifier.care import Said
from notifier.chain import GENESIS, Head
from notifier.database import Place
from notifier.evidence import Decision, state_of
from notifier.evidence_manifest import ChainedEvent
from notifier.schema import calls, events
from notifier.schema_care import evidence_decisions, held_events, said

#: What of a call belongs into its evidence: what happened in it, who was told, who opened it. Not
#: in here is what is the agent's own (``agent.said``, rests, breaks, the ear, scores, verdicts):
#: a package that somebody else reads must not tell what the agent asked for besides, nor set his
#: word beside a level.
EVIDENCE_TYPES = frozenset(
    {
        "call.started",
        "call.answered",
        "notice.started",
        "notice.finished",
        "tap.started",
        "protection.changed",
        "prompt.played",
        "risk.changed",
        "crisis.hint",
        "warning.played",
        "media.silent",
        "recording.changed",
        "pause.changed",
        "hold.changed",
        "alert.raised",
        "alert.acknowledged",
        "alert.escalated",
        "alert.refused",
        "alert.unanswered",
        "helper.changed",
        "call.ending",
        "call.ended",
        "callback.changed",
        "evidence.requested",
        "evidence.changed",
        "evidence.exported",
        "recording.opened",
        "record.read",
    }
)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What goes into a package of the store's."""

    call: Mapping[str, Any]
    """Row of ``calls``."""
    request: Said
    decision: Decision
    events: Sequence[ChainedEvent]
    """Of :data:`EVIDENCE_TYPES`, oldest first."""
    head: Head
    """Of the whole chain at that moment."""


def read_record(place: Place, call_id: str, request_id: str) -> CallRecord:
    """Read one call.

    Args:
        place: the database.
        call_id: of the call.
        request_id: of its agent's request.

    Raises:
        EvidenceError: the store does not have it (any more).
        SetupError: the database cannot be read.
    """

    def work(connection: Connection) -> CallRecord:
        begin_snapshot(connection)
        call = connection.execute(select(calls).where(calls.c.call_id == call_id)).mappings()
        asked = connection.execute(select(said).where(said.c.request_id == request_id)).mappings()
        decided = connection.execute(
            select(evidence_decisions).where(evidence_decisions.c.request_id == request_id)
        ).mappings()
        row, request, decision = call.first(), asked.first(), decided.first()
        if row is None or request is None:
            raise EvidenceError(
                f"call {call_id} is not in this node's store any more: it was deleted"
            )
        if decision is None or state_of(Said(**request), Decision(**decision)) == "refused":
            raise EvidenceError("the agent's request was not approved")
        return CallRecord(
            dict(row),
            Said(**request),
            Decision(**decision),
            _chained(connection, call_id),
            _head(connection),
        )

    return read(place, work)


def was_recorded(place: Place, call_id: str) -> bool:
    """True when a recording of this call began once.

    Raises:
        SetupError: the database cannot be read.
    """

    def work(connection: Connection) -> bool:
        for table in (events, held_events):
            query = select(table.c.body).where(
                table.c.call_id == call_id, table.c.type == "recording.changed"
            )
            if any('"state":"recording"' in row.body for row in connection.execute(query)):
                return True
        return False

    return read(place, work)


def _head(connection: Connection) -> Head:
    query = select(events.c.id, events.c.hash).order_by(events.c.id.desc()).limit(1)
    row = connection.execute(query).first()
    return Head(0, GENESIS) if row is None else Head(row.id, row.hash)


def _chained(connection: Connection, call_id: str) -> list[ChainedEvent]:
    """The call's events in the chain, and those that were put aside when their time was over."""
    query = select(events).where(events.c.call_id == call_id, events.c.type.in_(EVIDENCE_TYPES))
    here = [dict(row) for row in connection.execute(query).mappings()]
    before = [row["id"] - 1 for row in here]
    hashes: dict[int, str] = {0: GENESIS}
    for first in range(0, len(before), 500):
        some = before[first : first + 500]
        found = connection.execute(select(events.c.id, events.c.hash).where(events.c.id.in_(some)))
        hashes.update({row.id: row.hash for row in found})
    for row in here:
        row["previous"] = hashes.get(row["id"] - 1) or _deleted_up_to(connection, row["id"] - 1)
    query = select(held_events).where(
        held_events.c.call_id == call_id, held_events.c.type.in_(EVIDENCE_TYPES)
    )
    aside = [dict(row) for row in connection.execute(query).mappings()]
    rows = sorted([*aside, *here], key=lambda row: int(row["id"]))
    return [ChainedEvent(**row) for row in rows]


def _deleted_up_to(connection: Connection, event_id: int) -> str:
    """Hash of a deleted event on which the chain goes on."""
    query = select(events.c.body).where(events.c.type == "retention.deleted")
    for row in connection.execute(query.order_by(events.c.id.desc())):
        body = msgspec.json.decode(row.body)
        if body["kind"] == "events" and body["to_id"] == event_id:
            return str(body["to_hash"])
    return ""
