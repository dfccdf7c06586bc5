"""What an agent asked to be kept reaches a person, and its recording stays until it is settled."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from callshield.errors import RecordingError
from callshield.messages_care import RecordingsHeld
from notifier.care import Said
from notifier.evidence import Decision, EvidenceRequests
from sipbridge.held import hold_recordings
from sipbridge.recording_store import RecordingStore
from sipbridge.recordings_desk import RecordingsDesk
from tests.notifier_kit import Process, desk_in_process
from tests.test_aftercare import PEOPLE, REST, get, past_call, post, say

FIELDS = {
    *("request_id", "call_id", "pbx_call_id", "agent_id", "ts"),
    *("state", "decided_ts", "reason", "held_until_ts", "may_decide"),
}
A, B = "a" * 32, "b" * 32


def test_open_requests_pure() -> None:
    requests = EvidenceRequests()
    later, first = Said(B, B, "1002", "evidence", 9.0), Said(A, A, "1001", "evidence", 3.0)
    requests.ask(later, "y")
    requests.ask(first, "x")
    assert [item.said for item in requests.open] == [first, later]
    assert requests.call_ids == [A, B]
    assert requests.done(A, "token", 10.0) is None, "nobody approved it"
    assert requests.decide(Decision(A, A, "approved", 10.0, "admin", "token")) is not None
    assert requests.decide(Decision(A, A, "refused", 10.0, "admin", "token", "no")) is None
    assert requests.done(A, "token", 11.0) is not None
    assert (first.done_ts, first.done_by) == (11.0, "token")
    assert requests.done(A, "other", 12.0) is None
    assert not requests.forget([A])
    assert requests.forget([B])
    assert requests.open == []


def test_a_refusal_holds_the_call_and_may_be_turned_until_it_lapses_pure() -> None:
    requests = EvidenceRequests()
    for name in (A, B):
        requests.ask(Said(name, name, "1001", "evidence", 1.0), "x")
        refused = Decision(name, name, "refused", 2.0, "supervisor", "t", "why", held_until_ts=9.0)
        assert requests.decide(refused) is not None
    assert requests.decide(refused) is None, "one refusal"
    assert requests.call_ids == [A, B]
    turned = requests.decide(Decision(B, B, "approved", 3.0, "admin", "u"))
    assert turned is not None
    assert turned.state == "approved"
    assert requests.lapse(8.9) == []
    (over,) = requests.lapse(9.0)
    assert (over.said.request_id, over.state, over.said.done_by) == (A, "lapsed", "")
    assert requests.call_ids == [B], "an approved one never lapses"
    assert requests.lapse(1e12) == []


async def test_a_request_reaches_the_supervisor_and_the_agent_sees_it_settled(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = past_call(bridge, 7200, 3600)
        await agent.until("call.ended")
        assert (await get(desk, "/requests", desk.supervisor))["requests"] == []
        asked = await say(desk, call_id, action="evidence")
        await say(desk, call_id, action="note", note="threat")
        await say(desk, call_id, action="abusive")
        await watching.until("evidence.requested", request_id=asked["request_id"])
        (one,) = (await get(desk, "/requests", desk.supervisor))["requests"]
        assert one.keys() == FIELDS, "nothing else that the agent said, and no level"
        assert (one["call_id"], one["agent_id"]) == (call_id, "1001")
        assert one["request_id"] == asked["request_id"]
        assert (one["state"], one["may_decide"]) == ("requested", True)
        path = f"/requests/{asked['request_id']}/done"
        await get(desk, "/requests", desk.agent, status=403)
        await post(desk, path, desk.agent, status=403)
        note = next(
            r for r in (await get(desk, "/me/requests"))["requests"] if r["action"] == "note"
        )
        # Only requests for evidence: what else he said cannot be found through this.
        await post(desk, f"/requests/{note['request_id']}/done", desk.supervisor, status=404)
        await post(desk, f"/requests/{A}/done", desk.supervisor, status=404)
        await post(desk, path, desk.supervisor, status=409)
        approve = f"/requests/{asked['request_id']}/approve"
        assert (await post(desk, approve, desk.supervisor))["status"] == "done"
        assert (await post(desk, approve, desk.second))["status"] == "already"
        told = await agent.until("evidence.changed", request_id=asked["request_id"])
        assert told["state"] == "approved"

        # Approved is not handed out: two presses may not be a refusal that says nothing.
        refused = await post(desk, path, desk.supervisor, status=409)
        assert refused["type"].endswith("not_handed_out")
        await desk.hand_out(call_id)
        await agent.until("evidence.exported", request_id=asked["request_id"])
        assert (await post(desk, path, desk.supervisor))["status"] == "done"
        told = await agent.until("evidence.changed", state="done")
        assert told["by"] == "", "who settled it nobody is told"
        assert (await post(desk, path, desk.supervisor))["status"] == "already"
        assert (await get(desk, "/requests", desk.supervisor))["requests"] == []
        mine = {r["action"]: r["done_ts"] for r in (await get(desk, "/me/requests"))["requests"]}
        assert mine["evidence"] is not None
        assert mine["note"] is mine["abusive"] is None
        async with asyncio.timeout(30):
            while len(bridge.held) < 3:
                bridge.asked.clear()
                await bridge.asked.wait()
        assert [message.call_ids for message in bridge.held] == [[], [call_id], []]
        # Settled is settled: the agent's press is the same word, not a new one.
        assert (await say(desk, call_id, action="evidence"))["status"] == "already"


async def test_kill_9_loses_no_request_and_a_new_bridge_hears_of_it(tmp_path: Path) -> None:
    notifier = Process(tmp_path, PEOPLE + REST)
    await notifier.start()
    desk = notifier.desk
    async with desk.bridge() as bridge, desk.console(desk.agent) as agent:
        call_id = past_call(bridge, 1200, None)
        bridge.end_call(call_id)
        await agent.until("call.ended")
        asked = await say(desk, call_id, action="evidence")
        await post(desk, f"/requests/{asked['request_id']}/approve", desk.supervisor)
        before = (await get(desk, "/requests", desk.supervisor))["requests"]
        assert before[0]["state"] == "approved"
        await notifier.end(signal.SIGKILL)
        await notifier.start()
        assert (await get(desk, "/requests", desk.supervisor))["requests"] == before
        assert before[0]["pbx_call_id"]
        await desk.hand_out(call_id)
        await post(desk, f"/requests/{asked['request_id']}/done", desk.supervisor)
        await notifier.end(signal.SIGKILL)
        await notifier.start()
        assert (await get(desk, "/requests", desk.supervisor))["requests"] == []
        again = await post(desk, f"/requests/{asked['request_id']}/done", desk.supervisor)
        assert again["status"] == "already"
    assert await notifier.end(signal.SIGTERM) == 0


# ------------------------------------------------------------------------------- the recordings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (f"{A}-1", f"{A}-2", f"{B}-1"):
        old = tmp_path / "2026-01-02"
        old.mkdir(exist_ok=True)
        (old / f"{name}.csrec").write_bytes(b"")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/*.csrec")}


TODAY = date(2026, 11, 22)


def test_purge_keeps_what_somebody_asked_for_and_no_longer_than_that(folder: Path) -> None:
    store = RecordingStore(folder)
    hold_recordings(folder, [A])
    assert store.purge(TODAY, 90, dry_run=True) == 1
    assert store.purge(TODAY, 90) == 1
    assert names(folder) == {f"{A}-1.csrec", f"{A}-2.csrec"}
    hold_recordings(folder, [])
    assert store.purge(TODAY, 90) == 2
    assert not (folder / "2026-01-02").exists()
    store.close()


@pytest.mark.parametrize("damage", [b"../../etc/passwd\n", b"\xff\xfe", f"{A}\n{B[:9]}".encode()])
def test_a_damaged_list_deletes_nothing(folder: Path, damage: bytes) -> None:
    (folder / "held").write_bytes(damage)
    store = RecordingStore(folder)
    with pytest.raises(RecordingError, match="held"):
        store.purge(datetime.now(UTC).date(), 90)
    assert len(names(folder)) == 3
    hold_recordings(folder, [])
    assert store.purge(datetime.now(UTC).date(), 90) == 3
    store.close()


def test_a_list_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    (folder / "held").symlink_to(elsewhere)
    store = RecordingStore(folder)
    with pytest.raises(RecordingError, match="held"):
        store.purge(TODAY, 90)
    store.close()


async def test_the_bridge_writes_down_the_last_that_it_was_told(folder: Path) -> None:
    held = RecordingsDesk(folder, lambda erased: None)
    for call_ids in ([A], [A, B], [B, "no call id"]):
        held.hold(RecordingsHeld(call_ids=call_ids))
    await asyncio.to_thread(held.close)
    assert (folder / "held").read_text() == f"{B}\n"
    assert (folder / "held").stat().st_mode & 0o777 == 0o600
