"""``callshield audit``: checks the hash chain, lists who read what and who came into calls."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from callshield.errors import SetupError
from notifier.anchor import read_head
from notifier.chain import Fault, Head, Verifier
from notifier.database import Place, lock, reason_of, transact
from notifier.evidence_holds import held_faults
from notifier.joins import TYPES, Joined, joins, unasked
from notifier.reading import READINGS
from notifier.schema import events

_PAGE = 2000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found."""

    faults: list[Fault]
    events: int
    first_id: int
    head: Head
    redacted: int
    erased: int
    noted: Head | None
    """The head beside the database, if there is one."""


def verify(place: Place, heads: list[Head] | None = None) -> Verdict:
    """Check every event; the node may be running.

    Args:
        place: the database.
        heads: through which the chain must pass, noted elsewhere.

    Raises:
        SetupError: there is no database, or it cannot be read.
    """
    running = is_running(place)
    # Noted before the events are read: what comes meanwhile lies beyond it.
    noted = read_head(place.head_path)

    def check(connection: Connection) -> Verdict:
        begin_snapshot(connection)
        verifier = Verifier()
        for head in [*([noted] if noted else []), *(heads or [])]:
            verifier.expect(head)
        for row in pages(connection):
            verifier.feed(row)
        faults = [
            *verifier.finish(running=running),
            *held_faults(connection, verifier.put_aside, verifier.still_aside),
        ]
        return Verdict(
            sorted(faults, key=lambda fault: fault.event_id),
            verifier.events,
            verifier.first_id,
            verifier.head,
            verifier.redacted,
            verifier.erased,
            noted,
        )

    return read(place, check)


def read(place: Place, work: Callable[[Connection], T]) -> T:
    """Run ``work`` on a connection.

    Raises:
        SetupError: there is no database, or it cannot be read.
    """
    if place.path is not None and not place.path.is_file():
        raise SetupError(f"there is no database {place.path}: start the node once")
    try:
        return transact(place, work)
    except SQLAlchemyError as error:
        raise SetupError(
            f"{place} cannot be read ({reason_of(error)}): start the node once with this version, "
            "which brings its tables up to date"
        ) from None


def begin_snapshot(connection: Connection) -> None:
    """All that is read in this transaction is of one moment."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    else:
        connection.exec_driver_sql("BEGIN")


def pages(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every event, in order."""
    last_id: int | None = None
    while True:
        query = select(events).order_by(events.c.id).limit(_PAGE)
        if last_id is not None:
            query = query.where(events.c.id > last_id)
        rows = connection.execute(query).mappings().all()
        for row in rows:
            yield dict(row)
        if len(rows) < _PAGE:
            return
        last_id = rows[-1]["id"]


def is_running(place: Place) -> bool:
    """Whether a notifier of this machine uses the database."""
    if not place.lock_path.exists():
        return False
    with contextlib.suppress(SetupError):
        os.close(lock(place))
        return False
    return True


def reads(place: Place) -> list[dict[str, Any]]:
    """Every recorded reading of words or of a recording, oldest first."""

    def find(connection: Connection) -> list[dict[str, Any]]:
        query = select(events.c.id, events.c.body).where(events.c.type.in_(READINGS))
        return [
            {"id": row.id, **msgspec.json.decode(row.body)}
            for row in connection.execute(query.order_by(events.c.id))
        ]

    return read(place, find)


def who_joined(place: Place) -> tuple[list[Joined], list[int]]:
    """Everybody who came into a call, oldest first, and the numbers of those events for which the
    log has no request of the call's agent."""

    def find(connection: Connection) -> tuple[list[Joined], list[int]]:
        query = select(events.c.id, events.c.body).where(events.c.type.in_(TYPES))
        found = [
            (row.id, msgspec.json.decode(row.body))
            for row in connection.execute(query.order_by(events.c.id))
        ]
        return joins(found), unasked(found)

    return read(place, find)
