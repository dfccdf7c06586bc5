"""A call is erased: nothing of it is left, and the chain goes on; what is no erasure is found."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, text

from callshield.messages import CallStarted, Event
from callshield.messages_care import AgentSaid
from callshield.settings import load_settings
from notifier import database, erasure
from notifier import store as store_module
from notifier.anchor import write_head
from notifier.audit import verify
from notifier.chain import ERASED, ERASED_BODY, GENESIS, Fault, Head, Verifier, link
from notifier.database import Place, migrate, sqlite_place, transact
from notifier.erasure import ERASED_TABLES, KEPT_EVENTS, KEPT_TABLES, OF_ALERTS, Asked, known
from notifier.live import Entry
from notifier.retention import DAY_S, Due
from notifier.retention_run import delete_due
from notifier.schema import events, metadata, outbox
from notifier.schema_fairness import openings
from notifier.store import Store
from tests.notifier_kit import write_config
from tests.store_kit import QUOTE, T0, fill, rows, story, tamper

A, B = "a" * 32, "b" * 32
PBX_ID = "1763.4711"


def told(call_id: str, ts: float) -> list[Event]:
    """A call with words, an alert, and a word of its agent's."""
    first, *others = story(ts, call_id)
    assert isinstance(first, CallStarted)
    return [msgspec.structs.replace(first, pbx_call_id=PBX_ID), *others]


def two_calls(ts: float = T0) -> list[Event]:
    """Two calls at once: their events take turns."""
    return [event for pair in zip(told(A, ts), told(B, ts), strict=True) for event in pair]


def asked(call_id: str = A) -> Asked:
    return Asked(call_id, "R-1", "admin", "t" * 16, T0)


async def erase(place: Place, call_id: str = A, ts: float = T0 + 100) -> list[int]:
    """Erase a call as the node does; how many events each batch took."""
    store = Store(place)
    await store.take()
    last_id = await store.last_event_id()
    batches = []
    while found := await store.asking(erasure.find, asked(call_id), ts, 1):
        gone, event = found
        entry = Entry(event, "", erasure=gone)
        entry.event_id = last_id = last_id + 1
        await store.write([entry])
        batches.append(len(gone.event_ids))
    assert store.head is not None
    write_head(place.head_path, store.head)
    await store.tidy()
    await store.close()
    return batches


def table(place: Place, name: str) -> list[dict[str, Any]]:
    def read(connection: Connection) -> list[dict[str, Any]]:
        found = connection.execute(select(metadata.tables[name]))
        return [dict(row) for row in found.mappings()]

    return transact(place, read)


async def test_nothing_of_an_erased_call_is_left_and_the_chain_goes_on(place: Place) -> None:
    await fill(place, two_calls())
    before = {row["id"]: row for row in rows(place)}
    of_a = [number for number, row in before.items() if row["call_id"] == A]
    assert len(of_a) >= 6
    assert await erase(place) == [len(of_a)]
    after = {row["id"]: row for row in rows(place)}
    for number, row in before.items():
        if number not in of_a:
            assert after[number] == row, "the other call is as it was"
            continue
        empty = {"type": ERASED, "call_id": "", "agent_id": "", "body": ERASED_BODY, "words": None}
        assert after[number] == {**row, **empty}
    (record,) = [row for row in after.values() if row["type"] == "call.erased"]
    body = json.loads(record["body"])
    assert (body["call_id"], body["ref"], body["files"]) == (A, "R-1", 1)
    assert not {"agent_id", "pbx_call_id"} & body.keys()
    for name in (*ERASED_TABLES, *OF_ALERTS):
        if "call_id" in metadata.tables[name].c:
            assert A not in {row["call_id"] for row in table(place, name)}, name
    assert [row["call_id"] for row in table(place, "calls")] == [B]
    assert [row["call_id"] for row in table(place, "alerts")] == [B]
    verdict = verify(place)
    assert verdict.faults == []
    assert verdict.erased == len(of_a)
    assert await erase(place) == [], "once"


def log_size(place: Place) -> int:
    return Path(f"{place.path}-wal").stat().st_size


async def test_a_reader_does_not_make_the_node_wait_for_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be cut off now is, as soon as nobody reads."""
    waits_s = 20.0  # so that no disk that stands still for a moment is taken for such a wait
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", waits_s)
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", waits_s)
    place = sqlite_place(tmp_path / "node.sqlite3")
    migrate(place)
    await fill(place, told(A, T0))
    assert place.path is not None
    reader = sqlite3.connect(place.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    await fill(place, told(B, T0 + 50))
    store = Store(place)
    began = time.monotonic()
    assert not await store.tidy()
    assert time.monotonic() - began < waits_s / 2
    assert log_size(place) > 0
    reader.close()
    assert await store.tidy()
    assert log_size(place) == 0
    # Control: whoever else uses the same connection waits for a writer as long as before.
    async with store.engine.connect() as connection:
        waits_ms = await connection.scalar(text("PRAGMA busy_timeout"))
    assert waits_ms == waits_s * 1000
    await store.close()


async def test_the_database_file_holds_no_byte_of_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite overwrites what it frees, and its log is cut off."""

    def bytes_of(place: Place) -> bytes:
        assert place.path is not None
        return b"".join(path.read_bytes() for path in place.path.parent.glob("node.sqlite3*"))

    place = sqlite_place(tmp_path / "node.sqlite3")
    migrate(place)
    await fill(place, [*told(A, T0), *(e for n in range(20) for e in story(T0 + n, f"{n:032x}"))])
    marks = (PBX_ID.encode(), b'"agent_id":"1001","pbx_call_id":"1763.4711"')
    assert all(mark in bytes_of(place) for mark in marks), "it was there"
    await erase(place)
    left = bytes_of(place)
    assert not any(mark in left for mark in marks)
    assert QUOTE.encode() in left, "of the other calls"


CONTROLS = {
    # Somebody empties an event of the other call and says nothing.
    "emptied": (
        f"UPDATE events SET type = '{ERASED}', call_id = '', agent_id = '', words = NULL, "
        f"body = '{ERASED_BODY}' WHERE id = 2",
        "event 2 is empty, and no erasure of it is recorded",
    ),
    "smuggled": (
        'UPDATE events SET body = \'{"type":"erased","x":1}\' WHERE id = 1',
        "event 1 was erased, and holds something",
    ),
    "put back": (
        "UPDATE events SET type = 'tap.started' WHERE id = 3",
        "event 3 was erased, and is there again",
    ),
    "removed": ("DELETE FROM events WHERE id = 3", "event 3 is missing"),
    "hash": (
        f"UPDATE events SET hash = '{'0' * 64}' WHERE id = 3",
        "the hash of event 3, which was erased, is not it",
    ),
}


@pytest.mark.parametrize("name", CONTROLS)
async def test_what_is_no_erasure_is_found(place: Place, name: str) -> None:
    """Negative controls: the same rows without the record of it, or not as the record says."""
    await fill(place, two_calls())
    await erase(place)
    assert verify(place).faults == []
    statement, sentence = CONTROLS[name]
    tamper(place, statement)
    said = [fault.sentence for fault in verify(place).faults]
    assert any(sentence in one for one in said), said


async def test_the_event_before_an_erased_one_cannot_be_rewritten(place: Place) -> None:
    """What joined its hash to the next one is gone; the record of the erasure holds it."""
    await fill(place, two_calls())
    await erase(place)
    stored = rows(place)
    number = next(
        row["id"]
        for row, after in itertools.pairwise(stored)
        if row["call_id"] == B and after["type"] == ERASED
    )
    row, before = stored[number - 1], stored[number - 2]
    forged = {**row, "body": row["body"].replace(PBX_ID, "1763.9999")}
    assert forged != row
    digest = link(before["hash"], forged)

    def write(connection: Connection) -> None:
        connection.execute(
            events.update().where(events.c.id == number).values(body=forged["body"], hash=digest)
        )

    transact(place, write)
    assert [fault.event_id for fault in verify(place).faults] == [number]


async def test_retention_deletes_through_an_erased_call(
    place: Place, tmp_path: Path, store_toml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a batch of it ends within a run of erased events."""
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    now = T0 + 400 * DAY_S
    old, young = now - 390 * DAY_S, now - 10 * DAY_S
    await fill(place, [*told(B, old), *told(A, old + 60), *told("c" * 32, young)])
    await erase(place, A, young + 60)
    monkeypatch.setattr("notifier.store_deletion.BATCH", 4)
    store = Store(place)
    await store.take()
    last_id = await store.last_event_id()
    due = Due("events", now - 365 * DAY_S, "events_days=365")
    for _ in range(2):
        found = await store.find_due(due, now)
        assert found is not None
        entry = Entry(found[1], "", deletion=found[0])
        entry.event_id = last_id = last_id + 1
        await store.write([entry])
        write_head(place.head_path, store.head)  # type: ignore[arg-type]
        assert verify(place).faults == []
    await store.close()
    assert rows(place)[0]["type"] == ERASED, "it stands within the run"
    counts = delete_due(settings, now)
    assert counts["events"] > 0
    assert verify(place).faults == []
    assert rows(place)[0]["ts"] >= young


async def test_an_erasure_after_retention_begins_where_that_ended(
    place: Place, tmp_path: Path, store_toml: str
) -> None:
    settings = load_settings(write_config(tmp_path, 8080, store_toml))
    now = T0 + 400 * DAY_S
    await fill(place, [*told(B, now - 390 * DAY_S), *told(A, now - 10 * DAY_S)])
    delete_due(settings, now)
    assert rows(place)[0]["call_id"] == A
    await erase(place, A, now)
    assert verify(place).faults == []
    # Negative control: where the run begins is held by what retention recorded.
    (record,) = [row for row in rows(place) if row["type"] == "call.erased"]
    (run,) = json.loads(record["body"])["events"]
    assert run["from_hash"] not in ("", GENESIS)
    verifier = Verifier()
    for row in rows(place):
        verifier.feed({**row, "body": row["body"].replace(run["from_hash"], "1" * 64)})
    assert "changed" in {fault.kind for fault in verifier.finish()}


async def test_what_is_the_agents_own_stays_and_nothing_that_names_the_pbx_call(
    place: Place,
) -> None:
    await fill(place, told(A, T0))
    store = Store(place)
    await store.take()
    last_id = await store.last_event_id()
    word = AgentSaid(
        ts=T0 + 5, call_id=A, agent_id="1001", request_id="1" * 32, kind="note", choice="threat"
    )
    entry = Entry(word, "1001")
    entry.event_id = last_id + 1
    await store.write([entry])
    await store.close()
    opened = {
        "ts": T0, "call_id": A, "agent_id": "1001", "by_role": "auditor", "by": "t",
    }  # fmt: skip

    def put(connection: Connection) -> None:
        for number, (why, ref, reason) in enumerate(
            (("complaint", "C-7", "the caller wrote that he was ill"), ("draw", "d" * 32, ""))
        ):
            row = {**opened, "opening_id": f"{number:032x}", "why": why, "ref": ref}
            connection.execute(insert(openings).values(**row, reason=reason))
        letter = {"letter_id": "1" * 32, "channel": "webhook:crm", "event_id": 1, "type": "x"}
        more = {"body": "{}", "state": "dead", "attempts": 9, "next_ts": 0.0, "failure": ""}
        connection.execute(insert(outbox).values(**letter, ts=T0, **more))

    transact(place, put)
    await erase(place)
    kept = [row for row in rows(place) if row["type"] not in (ERASED, "call.erased")]
    assert [row["type"] for row in kept] == ["agent.said"]
    assert "agent.said" in KEPT_EVENTS
    assert not any(PBX_ID in row["body"] for row in rows(place))
    left = {row["why"]: (row["ref"], row["reason"]) for row in table(place, "openings")}
    assert left == {"complaint": ("", ""), "draw": ("d" * 32, "")}
    assert table(place, "outbox") == [], "no copy is under way any more"
    assert verify(place).faults == []


async def test_a_long_call_goes_in_batches_each_of_them_recorded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 2)
    await fill(place, two_calls())
    batches = await erase(place)
    assert len(batches) > 2
    assert sum(batches) == verify(place).erased
    assert verify(place).faults == []


async def test_the_request_goes_with_the_last_of_the_call(place: Place) -> None:
    await fill(place, two_calls())

    def put(connection: Connection) -> None:
        row = {"call_id": A, "asked_ts": T0, "ref": "R-1", "by_role": "admin", "by": "t"}
        connection.execute(insert(metadata.tables["erasures"]).values(**row, waits=""))

    transact(place, put)
    await erase(place)
    assert table(place, "erasures") == []


def test_every_table_that_speaks_of_a_call_is_erased_or_says_why_not() -> None:
    named = {*ERASED_TABLES, *OF_ALERTS, *KEPT_TABLES}
    speaking = {
        name
        for name, found in metadata.tables.items()
        if {"call_id", "alert_id", "pbx_call_id"} & {column.name for column in found.c}
    }
    assert speaking == named
    # Negative control: a new table would be seen.
    assert "new" not in named


async def test_nothing_is_known_of_a_call_that_never_was(place: Place) -> None:
    await fill(place, told(B, T0))
    store = Store(place)
    assert not await store.asking(known, A)
    assert await store.asking(known, B)
    await store.close()
    assert await erase(place) == []


# ------------------------------------------------------------------------------ the chain alone

Row = dict[str, Any]


def chain_of(call_ids: Sequence[str]) -> list[Row]:
    """Events of these calls, one after the other."""
    found: list[Row] = []
    previous = GENESIS
    for number, call_id in enumerate(call_ids, 1):
        row: Row = {
            "id": number, "ts": T0 + number, "type": "tap.started", "call_id": call_id,
            "agent_id": "1001", "body": f'{{"type":"tap.started","n":{number}}}', "words": None,
        }  # fmt: skip
        previous = row["hash"] = link(previous, row)
        found.append(row)
    return found


def erased(chain: list[Row], call_id: str) -> list[Row]:
    """The chain after this call was erased, with the record of it at its end."""
    gone = [
        row["id"] for row in chain if row["call_id"] == call_id and row["type"] != "call.erased"
    ]
    runs: list[list[int]] = []
    for number in gone:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    hashes = {0: GENESIS, **{row["id"]: row["hash"] for row in chain}}
    ranges = [
        {"from_id": r[0], "to_id": r[-1], "from_hash": hashes[r[0] - 1], "to_hash": hashes[r[-1]]}
        for r in runs
    ]
    empty = {"type": ERASED, "call_id": "", "agent_id": "", "body": ERASED_BODY, "words": None}
    after = [{**row, **empty} if row["id"] in gone else dict(row) for row in chain]
    body = json.dumps({"type": "call.erased", "call_id": call_id, "events": ranges})
    row = {
        "id": len(chain) + 1, "ts": T0, "type": "call.erased", "call_id": call_id, "agent_id": "",
        "body": body, "words": None,
    }  # fmt: skip
    row["hash"] = link(after[-1]["hash"], row)
    return [*after, row]


def faults(chain: Sequence[Row], head: Head) -> list[Fault]:
    verifier = Verifier()
    verifier.expect(head)
    for row in chain:
        verifier.feed(row)
    return verifier.finish()


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=30),
    st.permutations(["a", "b", "c"]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_whatever_is_erased_the_chain_holds_and_no_other_change_passes(
    call_ids: list[str], order: list[str], count: int, dice: random.Random
) -> None:
    chain = chain_of(call_ids)
    for call_id in order[:count]:
        chain = erased(chain, call_id)
    head = Head(chain[-1]["id"], chain[-1]["hash"])
    assert faults(chain, head) == []
    # Somebody changes one event, and computes its own hash anew: whatever stands beside it.
    index = dice.randrange(len(chain))
    row = chain[index]
    if row["type"] == ERASED:
        forged = {**row, "hash": "0" * 64}
    else:
        forged = {**row, "agent_id": "1002"}
        before = chain[index - 1]["hash"] if index else GENESIS
        forged["hash"] = link(before, forged)
    run_inside = (
        row["type"] == ERASED
        and index + 1 < len(chain)
        and chain[index + 1]["type"] == ERASED
        and not any(
            row["id"] in (part["to_id"], part["from_id"] - 1)
            for other in chain
            if other["type"] == "call.erased"
            for part in json.loads(other["body"])["events"]
        )
    )
    found = faults([*chain[:index], forged, *chain[index + 1 :]], head)
    # The hash of an empty row within a run joins nothing that is left.
    assert bool(found) != run_inside
