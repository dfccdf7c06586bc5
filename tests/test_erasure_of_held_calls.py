"""Erasure and access where a call is, or was, held as evidence: on both databases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from callshield.messages import EarDose, Event
from callshield.messages_care import EvidenceRequested
from callshield.messages_evidence import EvidenceChanged, EvidenceExported
from callshield.messages_fairness import RingbackMarked
from callshield.messages_hearing import EarWarning
from callshield.settings import Settings, load_settings
from notifier import erasure, store_deletion
from notifier.anchor import write_head
from notifier.audit import verify
from notifier.care import Said
from notifier.chain import ERASED
from notifier.database import Place, transact
from notifier.evidence import Decision, EvidenceRequests, Wanted
from notifier.holds import hold_on
from notifier.live import Entry
from notifier.retention import DAY_S
from notifier.retention_run import delete_due
from notifier.schema_care import held_events
from notifier.store import Store
from notifier.subject_access import collect
from notifier.subject_text import page
from notifier.subject_words import EVENTS, WORDS
from tests.notifier_kit import write_config
from tests.store_kit import QUOTE, T0, fill, rows, story, tamper
from tests.test_erasure import asked, erase, table
from tests.test_evidence_holds import aside, ask, settle
from tests.test_retention import NOW, call_id, past

HELD, OTHER = call_id(0), call_id(1)
TOKEN = "0123456789abcdef"
REASON = "먼저 1001 상담사와 이야기합시다"


@pytest.fixture
def settings(place: Place, tmp_path: Path, store_toml: str) -> Settings:
    return load_settings(write_config(tmp_path, 8080, store_toml))


def decided(place: Place) -> dict[str, dict[str, Any]]:
    return {row["call_id"]: row for row in table(place, "evidence_decisions")}


async def two_held(place: Place, settings: Settings, folder: Path) -> None:
    """Two calls beyond retention, both refused and held, and a young one."""
    await past(place, folder, [390, 380, 1])
    for call in (HELD, OTHER):
        ask(place, call, until_ts=NOW + DAY_S)
    delete_due(settings, NOW)
    assert {row["call_id"] for row in aside(place)} == {HELD, OTHER}
    assert decided(place)[HELD]["reason"] == "no"


async def put(place: Place, told: list[Event], audience: str = "1001") -> None:
    """Store events as they are."""
    store = Store(place)
    await store.take()
    last_id = await store.last_event_id()
    entries = [Entry(event, audience) for event in told]
    for number, entry in enumerate(entries, last_id + 1):
        entry.event_id = number
    await store.write(entries)
    assert store.head is not None
    write_head(place.head_path, store.head)
    await store.close()


def verify_without_held(place: Place) -> list[int]:
    """Numbers of the events that ``audit verify`` misses when nothing that was put aside is there;
    it is there again afterwards."""
    kept = aside(place)
    tamper(place, "DELETE FROM held_events")
    missed = [fault.event_id for fault in verify(place).faults if fault.kind == "missing"]
    transact(place, lambda connection: connection.execute(insert(held_events), kept))
    return missed


async def test_what_was_put_aside_goes_with_an_erasure_and_so_does_what_was_written(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    await two_held(place, settings, tmp_path)
    before = decided(place)
    settle(place, HELD)
    assert await erase(place, HELD, NOW) == [0], "of the chain's table nothing was left"
    assert {row["call_id"] for row in aside(place)} == {OTHER}
    assert HELD not in {row["call_id"] for row in table(place, "calls")}
    after = decided(place)
    assert after[HELD] == {**before[HELD], "reason": ""}, "what was decided is the agent's"
    assert after[OTHER] == before[OTHER]
    assert verify(place).faults == []
    assert await erase(place, HELD, NOW) == [], "once"
    # What is held still is missed and checked as before.
    assert len(verify_without_held(place)) == len(aside(place)) > 0
    tamper(place, "UPDATE held_events SET body = replace(body, '1001', '1002')")
    assert {fault.kind for fault in verify(place).faults} == {"changed"}


async def test_the_control_of_that_finds_what_an_erasure_forgot(
    place: Place, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: an erasure that does not know of the table leaves the words in it."""
    await two_held(place, settings, tmp_path)
    settle(place, HELD)
    less = tuple(name for name in erasure.ERASED_TABLES if name != "held_events")
    monkeypatch.setattr(erasure, "ERASED_TABLES", less)
    await erase(place, HELD, NOW)
    left = [row for row in aside(place) if row["call_id"] == HELD]
    assert any(QUOTE in (row["words"] or "") for row in left)


async def test_a_call_that_lies_in_both_tables_goes_whole_with_its_mark(
    place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 2)
    old, young = NOW - 366 * DAY_S, NOW - 364 * DAY_S
    await fill(place, story(old, HELD)[:3])
    mark = RingbackMarked(
        ts=old + 5, until_ts=NOW, call_id=HELD, mark_id="e" * 32, category="threat"
    )
    await put(place, [mark, *story(young, HELD)[3:]])
    await fill(place, story(NOW - DAY_S, OTHER))
    ask(place, HELD)
    delete_due(settings, NOW)
    assert "ringback.marked" in {row["type"] for row in aside(place)}
    settle(place, HELD)
    store = Store(place)
    found = await store.asking(erasure.find, asked(HELD), NOW, 0)
    await store.close()
    assert found is not None
    assert found[0].mark_ids == ("e" * 32,), "also the mark that was put aside is known"
    await erase(place, HELD, NOW)
    assert aside(place) == []
    assert {row["call_id"] for row in rows(place)} == {"", HELD, OTHER}
    assert {row["type"] for row in rows(place) if row["call_id"] == HELD} == {"call.erased"}
    assert {row["type"] for row in rows(place) if row["call_id"] == ""} >= {ERASED}
    assert verify(place).faults == []


async def test_retention_goes_on_through_an_erased_call_that_was_held(
    place: Place, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erased, then the rest of the chain grows old: empty events are put aside by nobody."""
    await past(place, tmp_path, [100, 99, 1])
    ask(place, HELD)
    ask(place, OTHER)
    settle(place, HELD)
    await erase(place, HELD, NOW)
    monkeypatch.setattr(store_deletion, "BATCH", 4)
    later = NOW + 300 * DAY_S
    delete_due(settings, later)
    assert {row["call_id"] for row in aside(place)} == {OTHER}
    assert ERASED not in {row["type"] for row in aside(place)}
    assert verify(place).faults == []


async def test_the_agents_ear_and_who_took_a_package_stay(place: Place) -> None:
    await fill(place, story(T0, HELD))
    own = {"ts": T0 + 9, "call_id": HELD, "agent_id": "1001", "estimate": False}
    dose = EarDose(
        **own, heard_s=60.0, level_dba=70.0, lex_8h_dba=61.0, dose_pct=3.0, action_value="none",
        last_of_call=True,
    )  # fmt: skip
    warning = EarWarning(**own, dose_pct=81.0, threshold_pct=80.0, lex_8h_dba=84.0)
    await put(place, [dose, warning, *evidence_of(HELD, T0)])
    await erase(place, HELD)
    left = {row["type"]: row for row in rows(place) if row["call_id"] == HELD}
    assert set(left) == {"ear.dose", "ear.warning", "evidence.exported", "call.erased"}
    text = json.dumps([row["body"] for row in left.values()], ensure_ascii=False)
    assert REASON not in text
    assert "1.2" not in [json.loads(row["body"]).get("pbx_call_id") for row in left.values()]
    assert verify(place).faults == []


# -------------------------------------------------------------------------------- what waits


def test_who_asks_is_told_what_the_hold_says() -> None:
    requests = EvidenceRequests()
    assert hold_on(requests, HELD) is None
    said = Said("1" * 32, HELD, "1001", "evidence", T0, "")
    requests.restore([Wanted(said, "1.2")])
    found = hold_on(requests, HELD)
    assert found is not None
    assert "since 2023-11-14" in found.sentence
    assert "when the request for evidence is settled" in found.sentence
    assert "erased then without being asked for again" in found.sentence
    assert hold_on(requests, OTHER) is None, "another call"
    no = Decision("1" * 32, HELD, "refused", T0, "admin", "t", REASON, NOW)
    assert requests.decide(no)
    found = hold_on(requests, HELD)
    assert found is not None
    assert "2024-12-18 at the latest" in found.sentence
    assert REASON not in found.sentence
    assert requests.lapse(NOW)
    assert hold_on(requests, HELD) is None


# ------------------------------------------------------------------------- what a caller gets


def evidence_of(call: str, ts: float) -> list[Event]:
    """What there is of a request, from the press to the package."""
    ids = {"call_id": call, "agent_id": "1001", "request_id": "f" * 32}
    return [
        EvidenceRequested(ts=ts + 10, pbx_call_id="1.2", **ids),
        EvidenceChanged(
            ts=ts + 11, state="refused", by_role="supervisor", by=TOKEN, reason=REASON, **ids
        ),
        EvidenceChanged(ts=ts + 12, state="approved", by_role="admin", by=TOKEN, **ids),
        EvidenceExported(
            ts=ts + 13, package_id="c" * 32, package_sha256="d" * 64, manifest_sha256="e" * 64,
            key_id="k" * 16, unredacted=False, whole=True, encryption="age", by_role="admin",
            by=TOKEN, **ids,
        ),
    ]  # fmt: skip


async def test_what_was_put_aside_is_given_like_any_other_event(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    await past(place, tmp_path, [390, 1])
    ask(place, HELD)

    def given() -> dict[str, Any]:
        (call,) = transact(place, lambda c: collect(c, settings, [HELD]))["calls"]
        return call

    before = given()
    assert QUOTE in json.dumps(before["events"], ensure_ascii=False)
    delete_due(settings, NOW)
    assert not [row for row in rows(place) if row["call_id"] == HELD]
    assert given() == before, "wherever it lies by now"
    # Negative control: of the chain's table alone nothing would be given.
    transact(place, lambda c: c.execute(held_events.delete()))
    assert given()["events"] == []


@pytest.mark.parametrize("language", ["ko", "en", "zh", "ja"])
async def test_a_caller_is_told_that_it_is_held_and_handed_out_not_who_asked_or_what_was_decided(
    place: Place, settings: Settings, language: str
) -> None:
    await fill(place, story(T0, HELD))
    await put(place, evidence_of(HELD, T0))
    ask(place, HELD, until_ts=NOW + DAY_S)
    opening = {
        "opening_id": "b" * 32, "ts": T0 + 12.5, "call_id": HELD, "agent_id": "1001",
        "by_role": "admin", "by": TOKEN, "why": "request", "ref": "f" * 32, "reason": "",
    }  # fmt: skip

    def opened(connection: Connection) -> None:
        connection.execute(insert(erasure.openings).values(**opening))  # type: ignore[attr-defined]

    transact(place, opened)
    (call,) = transact(place, lambda c: collect(c, settings, [HELD], language=language))["calls"]
    text = page(call, language, "Asia/Seoul", [])
    both = json.dumps(call, ensure_ascii=False) + text
    for hidden in ("1001", TOKEN, REASON, "f" * 32, "c" * 32, "d" * 64, "refused", "approved"):
        assert hidden not in both, hidden
    assert call["held_as_evidence"] is True
    assert WORDS[language]["held"] in text
    (package,) = [one for one in call["events"] if one["type"] == "evidence.exported"]
    assert (package["whole"], package["unredacted"], package["encryption"]) == (True, False, "age")
    assert EVENTS[language]["evidence.exported"] in text
    assert not {"said", "evidence_decisions", "held_events"} & call["rows"].keys()
    assert call["rows"]["openings"][0]["why"] == "request"
    # Negative control: settled, it is kept like any other.
    settle(place, HELD)
    (call,) = transact(place, lambda c: collect(c, settings, [HELD], language=language))["calls"]
    assert call["held_as_evidence"] is False
    assert WORDS[language]["held"] not in page(call, language, "Asia/Seoul", [])


async def whole(place: Place, entries: list[Entry]) -> Store:
    """Store a batch as the node's journal does."""
    store = Store(place)
    await store.take()
    for number, entry in enumerate(entries, await store.last_event_id() + 1):
        entry.event_id = number
    await store.write(entries)
    assert store.head is not None
    write_head(place.head_path, store.head)
    return store


async def erasing(place: Place) -> Entry:
    """What is stored to erase the call: looked for when nobody held it."""
    store = Store(place)
    found = await store.asking(erasure.find, asked(HELD), NOW, 1)
    await store.close()
    assert found is not None
    return Entry(found[1], "", erasure=found[0])


def press(ts: float) -> Entry:
    """The agent asks for the evidence of the call."""
    said = Said("1" * 32, HELD, "1001", "evidence", ts)
    event = EvidenceRequested(
        ts=ts, call_id=HELD, agent_id="1001", request_id=said.request_id, pbx_call_id=""
    )
    return Entry(event, "1001", kept=(said,))


@pytest.mark.parametrize("when", ["before", "in the same batch", "not at all", "unasked"])
async def test_each_batch_asks_for_holds_in_its_own_transaction(
    place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """*not at all* and *unasked* are the controls: the call goes where nobody holds it, and it
    would go, held or not, if the transaction did not ask."""
    await fill(place, story(NOW - DAY_S, HELD))
    before = [row for row in rows(place) if row["call_id"] == HELD]
    gone = await erasing(place)
    if when == "unasked":

        async def passes(*_: Any) -> None:
            pass

        monkeypatch.setattr("notifier.store.keep_held", passes)
    if when in ("before", "unasked"):
        await (await whole(place, [press(NOW - 1)])).close()
    batch = [press(NOW - 1), gone] if when == "in the same batch" else [gone]
    await (await whole(place, batch)).close()
    left = [row["call_id"] for row in table(place, "calls")]
    assert verify(place).faults == []
    if when in ("not at all", "unasked"):
        assert left == []
        assert gone.erasure is not None
        return
    assert left == [HELD]
    assert gone.erasure is None
    after = {row["id"]: row for row in rows(place)}
    assert [after[row["id"]] for row in before] == before, "as it was"
    last = after[max(after)]
    assert last["type"] == "erasure.asked"
    assert json.loads(last["body"])["waits"] == "evidence"
    assert "call.erased" not in {row["type"] for row in after.values()}
