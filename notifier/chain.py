"""The hash chain over the events. Pure: rows in, findings out.

Each event carries SHA-256 over the hash of the event before it, its number, its columns and its
body as it is stored, so that a later change of any of them breaks the chain at that place.

**Not keyed, on purpose.** A key would lie on the node; whoever can read it can forge, whoever
cannot is not helped by it, and an auditor or a works council could check nothing without being
trusted with it. What protects the chain from being computed anew is that its head is noted
*elsewhere*: in a file beside the database after every commit (:mod:`notifier.anchor`), which a
PostgreSQL administrator cannot write, and once an hour in the log, which can be shipped away. Who
owns the node **and** every place to which heads were noted can still rewrite what is newer than
the last head that somebody else kept: ``callshield audit verify --head ID:HASH`` checks against it.

**Words** stay out of the hash itself: the body holds a salted SHA-256 of them, so that they can be
deleted sooner than the event (:mod:`notifier.sealed`) and cannot be guessed from what stays.

**Deleted events**: an event ``retention.deleted`` says which range went, and the hash at both its
ends; the first event that is left must follow on the last one that is not.

**Erased events**: of a call that was erased on request the rows stay, empty (:data:`ERASED`), each
with its number, its time and its hash. What joined the hash before to them is gone with their
bodies, so an event ``call.erased`` holds it: the ranges, and the hash before each and at its end.
An empty row that no such event names, and one that is not empty although one does, are faults.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from notifier.sealed import COMMITMENT, commits_to

#: The hash before the first event.
GENESIS = "0" * 64
#: Type and body of an event that was erased; all other columns but number, time and hash are empty.
ERASED = "erased"
ERASED_BODY = '{"type":"erased"}'
#: Findings told one by one; more are only counted.
MOST_FINDINGS = 200
_ENCODER = msgspec.json.Encoder()

FaultKind = Literal[
    "changed", "exchanged", "missing", "inserted", "cut_off", "unanchored", "words", "head",
    "erased",
]  # fmt: skip


def link(previous: str, row: Mapping[str, Any]) -> str:
    """The hash of one event.

    Args:
        previous: hash of the event before it, 64 hexadecimal digits.
        row: columns ``id, ts, type, call_id, agent_id, body`` of ``events``; the body as stored.
    """
    parts = (
        previous,
        row["id"],
        float(row["ts"]),
        row["type"],
        row["call_id"],
        row["agent_id"],
        row["body"],
    )
    return hashlib.sha256(_ENCODER.encode(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain goes."""

    last_id: int
    hash: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was written."""

    kind: FaultKind
    event_id: int
    """The first event that it concerns."""
    sentence: str


@dataclass(frozen=True, slots=True)
class _Broken:
    previous: str
    row: dict[str, Any]


class Verifier:
    """Checks one chain; :meth:`feed` every event in the order of its number, then
    :meth:`finish`."""

    def __init__(self) -> None:
        self.events = 0
        self.head = Head(0, GENESIS)
        self.first_id = 0
        self.redacted = 0
        """Events whose words were taken out, as recorded."""
        self.erased = 0
        """Events that were erased."""
        self._first: dict[str, Any] | None = None
        self._broken: list[_Broken] = []
        self._faults: list[Fault] = []
        self._last_redacted = 0
        self._redacted_up_to = 0
        self._deleted: dict[str, Any] | None = None
        self.put_aside: dict[int, str] = {}
        """Hashes of deleted events that stay elsewhere (:mod:`notifier.evidence_holds`), as
        recorded."""
        self.still_aside: set[int] = set()
        """Those of them whose going is not recorded."""
        self._empty: dict[int, tuple[str, str]] = {}
        """Hash before, and hash, of each erased event."""
        self._erasures: list[dict[str, Any]] = []
        """Ranges that ``call.erased`` names."""
        self._erased_ids: set[int] = set()
        self._anchors: dict[int, str] = {}
        self._expected: list[Head] = []

    def expect(self, head: Head) -> None:
        """Call before feeding: the chain must pass through this head."""
        self._expected.append(head)

    def feed(self, row: Mapping[str, Any]) -> None:
        """Take one event: its columns, with ``hash`` and ``words``."""
        event_id = row["id"]
        if not self.events:
            self.first_id = event_id
            self._first = dict(row)
        else:
            if event_id != self.head.last_id + 1:
                self._missing(self.head.last_id + 1, event_id - 1)
            if row["type"] != ERASED:
                self._check(row)
        if row["type"] == ERASED:
            self._take_erased(row)
        self.events += 1
        self.head = Head(event_id, row["hash"])
        for expected in self._expected:
            if expected.last_id == event_id:
                self._anchors[event_id] = row["hash"]
        self._look_into(row)

    def _take_erased(self, row: Mapping[str, Any]) -> None:
        event_id = row["id"]
        self.erased += 1
        self._empty[event_id] = (self.head.hash, row["hash"])
        if row["body"] != ERASED_BODY or row["call_id"] or row["agent_id"] or row["words"]:
            self._add("erased", event_id, f"event {event_id} was erased, and holds something")

    def _check_erased(self) -> None:
        """Every empty row was erased by an event that says so, and what stands on both sides of it
        is what stood there."""
        named: set[int] = set()
        for item in self._erasures:
            first, last = int(item["from_id"]), int(item["to_id"])
            named.update(range(first, last + 1))
            # A range whose beginning retention has deleted since is checked at its end.
            begin, end = self._empty.get(first), self._empty.get(last)
            if begin is not None and begin[0] != item["from_hash"]:
                self._add(
                    "changed",
                    first - 1,
                    f"event {first - 1} is not the one after which events were erased",
                )
            if end is not None and end[1] != item["to_hash"]:
                self._add("changed", last, f"the hash of event {last}, which was erased, is not it")
        for event_id in self._empty.keys() - named:
            self._add(
                "erased", event_id, f"event {event_id} is empty, and no erasure of it is recorded"
            )
        for event_id in named - self._empty.keys():
            if self.first_id <= event_id <= self.head.last_id:
                self._add("erased", event_id, f"event {event_id} was erased, and is there again")

    def _add(self, kind: FaultKind, event_id: int, sentence: str) -> None:
        if len(self._faults) < MOST_FINDINGS:
            self._faults.append(Fault(kind, event_id, sentence))

    def _missing(self, first: int, last: int) -> None:
        what = f"event {first} is" if first == last else f"events {first} to {last} are"
        self._add("missing", first, f"{what} missing: removed from the middle")

    def _check(self, row: Mapping[str, Any]) -> None:
        if link(self.head.hash, row) == row["hash"]:
            return
        if self._follows_a_gap(row["id"]):
            # What it hangs on is gone; whether it was changed itself cannot be told.
            return
        if len(self._broken) < MOST_FINDINGS:
            self._broken.append(_Broken(self.head.hash, dict(row)))

    def _follows_a_gap(self, event_id: int) -> bool:
        return event_id != self.head.last_id + 1

    def _look_into(self, row: Mapping[str, Any]) -> None:
        body: str = row["body"]
        if row["type"] == "retention.deleted":
            event = msgspec.json.decode(body)
            if event["kind"] == "words":
                self._redacted_up_to = max(self._redacted_up_to, event["to_id"])
            elif event["kind"] == "events":
                self._deleted = event
                held = (one.partition(":") for one in event.get("held", ()))
                noted = {int(number): noted for number, _, noted in held}
                self.put_aside.update(noted)
                self.still_aside |= noted.keys()
            elif event["kind"] == "held_events":
                self._gone_from_aside(event.get("held") or None)
        if row["type"] == "call.erased":
            event = msgspec.json.decode(body)
            self._erasures += event["events"]
            self._gone_from_aside(event.get("held"))
        if COMMITMENT not in body:
            if row["words"] is not None:
                self._add("words", row["id"], f"event {row['id']} was given words later")
            return
        commitment = msgspec.json.decode(body).get(COMMITMENT)
        if row["words"] is None:
            if commitment is not None:
                self.redacted += 1
                self._last_redacted = row["id"]
        elif commitment is None or not commits_to(commitment, row["words"]):
            self._add("words", row["id"], f"the words of event {row['id']} were changed")

    def _gone_from_aside(self, numbers: Iterable[int | str] | None) -> None:
        """None: an older version recorded that some went, and not which. Then nothing is missed of
        what had been put aside until then."""
        if numbers is None:
            self.still_aside.clear()
        else:
            self.still_aside.difference_update(map(int, numbers))

    def finish(self, *, running: bool = False) -> list[Fault]:
        """What is wrong, in the order of the events.

        Args:
            running: the node writes on, so that the chain may go beyond the head that was noted.
        """
        self._check_first()
        self._check_erased()
        self._name_broken()
        if self._last_redacted > self._redacted_up_to:
            self._add(
                "words",
                self._last_redacted,
                f"the words of event {self._last_redacted} are gone, and no deletion of them is "
                "recorded",
            )
        for expected in self._expected:
            self._check_head(expected, running)
        return sorted(self._faults, key=lambda fault: fault.event_id)

    def _check_first(self) -> None:
        first = self._first
        if first is None:
            return
        previous = GENESIS
        if first["id"] > 1:
            deleted = self._deleted
            if deleted is None or deleted["to_id"] != first["id"] - 1:
                self._add(
                    "cut_off",
                    1,
                    f"events 1 to {first['id'] - 1} are missing, and no deletion of just these is "
                    "recorded",
                )
                return
            previous = deleted["to_hash"]
        if first["type"] == ERASED:
            self._empty[first["id"]] = (previous, first["hash"])
        elif link(previous, first) != first["hash"]:
            self._broken.insert(0, _Broken(previous, first))

    def _name_broken(self) -> None:
        """A row whose hash does not fit was changed, or two rows stand in each other's place."""
        told: set[int] = set()
        for here in self._broken:
            event_id = here.row["id"]
            if event_id in told:
                continue
            other = next((there for there in self._broken if _swapped(here, there)), None)
            if other is not None:
                told |= {event_id, other.row["id"], *self._after_exchange(here, other)}
                self._add(
                    "exchanged",
                    min(event_id, other.row["id"]),
                    f"events {event_id} and {other.row['id']} stand in each other's place",
                )
            elif not here.row["hash"]:
                self._add("inserted", event_id, f"event {event_id} was inserted: it has no hash")
            else:
                self._add(
                    "changed",
                    event_id,
                    f"event {event_id} was changed, or exchanged for another, or the hash of "
                    f"event {event_id - 1} was",
                )

    def _after_exchange(self, one: _Broken, other: _Broken) -> set[int]:
        """Rows that are whole, and only follow on a hash that has moved away with its row."""
        hashes = (one.row["hash"], other.row["hash"])
        return {
            item.row["id"]
            for item in self._broken
            if any(link(moved, item.row) == item.row["hash"] for moved in hashes)
        }

    def _check_head(self, expected: Head, running: bool) -> None:
        last = self.head.last_id
        if expected.last_id > last:
            what = f"event {expected.last_id} is"
            if expected.last_id > last + 1:
                what = f"events {last + 1} to {expected.last_id} are"
            self._add(
                "missing",
                last + 1,
                f"{what} missing: the newest were removed after they were noted",
            )
        elif expected.last_id and expected.last_id < self.first_id:
            return  # noted before what retention deleted since
        elif expected.last_id and self._anchors.get(expected.last_id, "") != expected.hash:
            self._add(
                "head",
                expected.last_id,
                f"event {expected.last_id} is not the one whose hash was noted: the chain was "
                "written anew at or before it",
            )
        elif last > expected.last_id and not running and last - expected.last_id > _ONE_BATCH:
            self._add(
                "unanchored",
                expected.last_id + 1,
                f"events {expected.last_id + 1} to {last} were added without the node: it notes "
                "every batch",
            )


#: More than the journal writes at once cannot be what a crash left unnoted.
_ONE_BATCH = 500


def _swapped(here: _Broken, there: _Broken) -> bool:
    if here is there:
        return False
    moved = {**here.row, "id": there.row["id"]}
    kept = {here.row["hash"], there.row["hash"]}
    return link(there.previous, moved) in kept or _beside(here, there)


def _beside(here: _Broken, there: _Broken) -> bool:
    """Neighbours: the hash that the second follows on has moved with the first."""
    first, second = sorted((here, there), key=lambda item: int(item.row["id"]))
    if second.row["id"] != first.row["id"] + 1:
        return False
    hashes = {first.row["hash"], second.row["hash"]}
    began = link(first.previous, {**second.row, "id": first.row["id"]})
    return began in hashes and link(began, {**first.row, "id": second.row["id"]}) in hashes
