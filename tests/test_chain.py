"""The hash chain: what was changed, removed, inserted or reordered is found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from callshield.cli import app
from notifier.anchor import read_head, write_head
from notifier.audit import Verdict, verify
from notifier.chain import GENESIS, Head, Verifier, link
from notifier.database import Place, place_of, transact
from notifier.schema import events
from notifier.sealed import seal, unseal
from tests.notifier_kit import desk_in_process
from tests.store_kit import CALL, QUOTE, T0, config_of, fill, rows, story, tamper


@pytest.fixture
async def told(place: Place) -> Place:
    """Two calls, twelve events."""
    await fill(place, [*story(T0), *story(T0 + 100, "b" * 32)])
    assert len(rows(place)) == 12
    return place


def sentences(verdict: Verdict) -> list[str]:
    return [fault.sentence for fault in verdict.faults]


def test_what_nobody_touched_is_whole(told: Place) -> None:
    verdict = verify(told)
    assert verdict.faults == []
    assert (verdict.events, verdict.first_id, verdict.head.last_id) == (12, 1, 12)
    assert verdict.noted == verdict.head
    assert not any(QUOTE in row["body"] for row in rows(told))
    assert any(QUOTE in (row["words"] or "") for row in rows(told))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ts", "1"),
        ("type", "'tap.stopped'"),
        ("call_id", "'x'"),
        ("agent_id", "NULL"),
        ("body", "'{}'"),
        ("hash", f"'{'0' * 64}'"),
    ],
)
def test_a_changed_event_is_named(told: Place, column: str, value: str) -> None:
    tamper(told, f"UPDATE events SET {column} = {value} WHERE id = 5")
    verdict = verify(told)
    assert verdict.faults[0].event_id == 5
    assert {fault.kind for fault in verdict.faults} == {"changed"}


def test_an_event_changed_with_its_hash_breaks_the_one_after_it(told: Place) -> None:
    four, five = rows(told)[3:5]
    forged = link(four["hash"], {**five, "body": "{}"})
    tamper(told, f"UPDATE events SET body = '{{}}', hash = '{forged}' WHERE id = 5")
    assert sentences(verify(told)) == [
        "event 6 was changed, or exchanged for another, or the hash of event 5 was"
    ]


def test_a_removed_event_is_named(told: Place) -> None:
    tamper(told, "DELETE FROM events WHERE id IN (6, 7)")
    assert sentences(verify(told)) == ["events 6 to 7 are missing: removed from the middle"]


def test_the_newest_events_removed_are_missed(told: Place) -> None:
    tamper(told, "DELETE FROM events WHERE id >= 11")
    assert sentences(verify(told)) == [
        "events 11 to 12 are missing: the newest were removed after they were noted"
    ]


def test_the_oldest_events_removed_without_a_record_are_missed(told: Place) -> None:
    tamper(told, "DELETE FROM events WHERE id <= 3")
    assert sentences(verify(told)) == [
        "events 1 to 3 are missing, and no deletion of just these is recorded"
    ]


@pytest.mark.parametrize(("one", "other"), [(3, 8), (5, 6), (11, 12), (1, 2), (1, 9)])
@pytest.mark.parametrize("with_hash", [True, False])
def test_reordered_events_are_named(told: Place, one: int, other: int, with_hash: bool) -> None:
    if with_hash:
        tamper(
            told,
            f"UPDATE events SET id = 1000 WHERE id = {one}",
            f"UPDATE events SET id = {one} WHERE id = {other}",
            f"UPDATE events SET id = {other} WHERE id = 1000",
        )
    else:
        a, b = rows(told)[one - 1], rows(told)[other - 1]
        columns = ("ts", "type", "call_id", "agent_id", "body", "words")

        def exchange(connection: object) -> None:
            for here, there in ((a, b), (b, a)):
                values = {name: there[name] for name in columns}
                connection.execute(events.update().where(events.c.id == here["id"]).values(values))  # type: ignore[attr-defined]

        transact(told, exchange)
    found = [fault for fault in verify(told).faults if fault.kind != "head"]
    assert [fault.sentence for fault in found] == [
        f"events {one} and {other} stand in each other's place"
    ]


def test_an_inserted_event_is_named(told: Place) -> None:
    tamper(
        told,
        "UPDATE events SET id = id + 1000 WHERE id > 4",
        "UPDATE events SET id = id - 999 WHERE id > 1000",
        f"INSERT INTO events (id, ts, type, call_id, body) VALUES (5, 1, 'x', '{CALL}', '{{}}')",
    )
    verdict = verify(told)
    assert verdict.faults[0].sentence == "event 5 was inserted: it has no hash"


def test_events_added_at_the_end_without_the_node_are_missed_by_their_number(told: Place) -> None:
    head = verify(told).head
    row = {"ts": 1.0, "type": "x", "call_id": "", "agent_id": None, "body": "{}", "words": None}
    more, previous = [], head.hash
    for event_id in range(head.last_id + 1, head.last_id + 600):
        previous = link(previous, {**row, "id": event_id})
        more.append({**row, "id": event_id, "hash": previous})
    transact(told, lambda connection: connection.execute(events.insert(), more))
    assert sentences(verify(told)) == [
        "events 13 to 611 were added without the node: it notes every batch"
    ]


def test_a_chain_written_anew_passes_no_head_that_was_noted(told: Place) -> None:
    """Who owns the database computes everything anew; the note beside it tells."""
    noted = read_head(told.head_path)
    assert noted is not None

    def anew(connection: object) -> None:
        previous = GENESIS
        for row in rows_:
            row["body"] = row["body"].replace("caller_hangup", "agent_hangup")
            previous = row["hash"] = link(previous, row)
            connection.execute(events.update().where(events.c.id == row["id"]).values(row))  # type: ignore[attr-defined]

    rows_ = rows(told)
    transact(told, anew)
    [fault] = verify(told).faults
    assert (fault.kind, fault.event_id) == ("head", 12)
    # What a person with root can do: forge the note, too. A head kept elsewhere still tells.
    write_head(told.head_path, Head(12, rows(told)[-1]["hash"]))
    assert verify(told).faults == []
    [fault] = verify(told, [noted]).faults
    assert fault.kind == "head"


def test_words_changed_or_removed_are_named(told: Place) -> None:
    tamper(told, 'UPDATE events SET words = \'{"salt":"","values":[]}\' WHERE id = 3')
    assert sentences(verify(told)) == ["the words of event 3 were changed"]
    tamper(told, "UPDATE events SET words = NULL WHERE id = 3")
    assert sentences(verify(told)) == [
        "the words of event 3 are gone, and no deletion of them is recorded"
    ]


def test_the_command_says_it_and_its_status_is_1(told: Place, tmp_path: Path) -> None:
    arguments = ["audit", "verify", "--config", str(config_of(tmp_path))]
    whole = CliRunner().invoke(app, [*arguments, "--json"])
    assert whole.exit_code == 0, whole.output
    assert json.loads(whole.stdout)["events"] == 12
    head = read_head(told.head_path)
    assert head is not None
    kept = [*arguments, "--head", f"{head.last_id}:{head.hash}"]
    assert CliRunner().invoke(app, kept).exit_code == 0
    tamper(told, "UPDATE events SET body = '{}' WHERE id = 2")
    found = CliRunner().invoke(app, kept)
    assert found.exit_code == 1
    assert "event 2 was changed" in found.stdout


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("words"), inner),
)


@given(st.dictionaries(st.sampled_from(["type", "words", "reasons", "quote", "x"]), JSON))
def test_words_taken_out_and_put_back_are_the_same(body: dict[str, object]) -> None:
    kept, words = seal(body)
    assert json.loads(unseal(json.dumps(kept), words)) == body


@given(st.lists(st.text(max_size=8), min_size=1, max_size=20), st.data())
def test_any_one_change_of_any_row_is_found(bodies: list[str], data: st.DataObject) -> None:
    chain, previous = [], GENESIS
    for number, body in enumerate(bodies, 1):
        row: dict[str, object] = {
            "id": number,
            "ts": 1.5 * number,
            "type": "t",
            "call_id": "",
            "agent_id": None,
            "body": body,
            "words": None,
        }
        previous = link(previous, row)
        chain.append({**row, "hash": previous})
    victim = data.draw(st.integers(0, len(chain) - 1))
    other = data.draw(st.text(max_size=8).filter(lambda text: text != bodies[victim]))
    chain[victim] = {**chain[victim], "body": other}
    verifier = Verifier()
    for row in chain:
        verifier.feed(row)
    assert [fault.event_id for fault in verifier.finish()] == [victim + 1]


async def test_a_node_that_starts_says_that_its_store_has_lost_the_newest_events(
    tmp_path: Path, store_toml: str
) -> None:
    async with (
        desk_in_process(tmp_path, store_toml) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        for _ in range(3):
            await console.until("call.started", call_id=bridge.start_call())
        settings = desk.settings
    found = place_of(settings)
    head = read_head(found.head_path)
    assert head == verify(found).head
    tamper(found, f"DELETE FROM events WHERE id > {head.last_id - 2}")
    async with (
        desk_in_process(tmp_path, store_toml) as desk,
        desk.console(desk.supervisor, last_id=0) as console,
    ):
        said = await console.until("node.degraded", component="chain")
        assert said["degraded"]
        assert str(head.last_id) in said["reason"]
    # The numbers went on from where the store ended: the head that somebody kept still tells.
    assert verify(found, [head]).faults != []
    async with (
        desk_in_process(tmp_path, store_toml) as desk,
        desk.console(desk.supervisor, last_id=0) as console,
    ):
        await console.until("node.degraded", component="chain", degraded=False)
