"""The agent's word counts like the machine's: a whole notifier, a bridge, a PBX double."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from callshield.messages import Action, CallAnswered, CallEnded, CallStarted, HelperChanged
from callshield.messages_care import CallBackSpoken, CallMarked, HandOverUnanswered
from notifier import aftercare, ami_client, settling
from notifier.care_store import is_marked
from notifier.store import Store
from tests.ami_double import WITHIN_S, AmiDouble
from tests.notifier_kit import Bridge, Desk, Process, desk_in_process, new_call_id

CHANNEL = "PJSIP/trunk-0000002a"
REST = """
[aftercare]
rest_s = 600
counselling = "상담사 마음건강실"
counselling_number = "1588-0000"
"""
PEOPLE = """
[supervisors.lee]
uri = "sip:2001@192.0.2.31:5060"
[supervisors.kim]
uri = "sip:2000@192.0.2.30:5060"
role = "manager"
"""
LEFT_OUT = ["quality", "handling_time", "survey"]


async def say(desk: Desk, call_id: str, status: int = 200, token: str = "", **body: Any) -> Any:
    async with desk.http(token or desk.agent) as http:
        answer = await http.post(f"/api/v1/calls/{call_id}/after", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def get(desk: Desk, path: str, token: str = "", status: int = 200) -> Any:
    async with desk.http(token or desk.agent) as http:
        answer = await http.get(f"/api/v1{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


async def post(desk: Desk, path: str, token: str = "", status: int = 200, **body: Any) -> Any:
    async with desk.http(token or desk.agent) as http:
        answer = await http.post(f"/api/v1{path}", json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()


def past_call(bridge: Bridge, began_ago_s: float, ended_ago_s: float | None) -> str:
    """A calm call, told with the times at which it was."""
    call_id, now = new_call_id(), time.time()
    began = now - began_ago_s
    started = CallStarted(ts=began, call_id=call_id, agent_id="1001", pbx_call_id="1763.7")
    bridge.calls[call_id] = started
    bridge.send(started)
    bridge.send(CallAnswered(ts=began, call_id=call_id, agent_id="1001"))
    if ended_ago_s is not None:
        bridge.calls.pop(call_id)
        ended = CallEnded(
            ts=now - ended_ago_s, call_id=call_id, agent_id="1001", reason="caller_hangup"
        )
        bridge.send(ended)
    return call_id


# ------------------------------------------------------------------------------ the agent's word


async def test_the_agents_word_in_a_call_is_level_3_for_everybody(tmp_path: Path) -> None:
    """As the machine's: level, alert, mark, rest. Nobody can tell one from the other."""
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = bridge.start_call()
        await agent.until("call.answered")
        await say(desk, call_id, action="abusive")
        own = await agent.until("call.marked")
        assert (own["by"], own["exclude"]) == ("level", LEFT_OUT)
        level = await watching.until("risk.changed", call_id=call_id)
        assert level["level"] == 3
        assert "reasons" not in level
        assert (await watching.until("alert.raised"))["level"] == 3
        seen = await watching.until("call.marked")
        assert "by" not in seen
        assert bridge.levels[-1].level == 3, "the agent's ear is protected from now on"
        bridge.end_call(call_id)
        rest = await agent.until("rest.changed")
        assert (rest["state"], rest["reason"]) == ("resting", "level")
        assert (await say(desk, call_id, action="abusive"))["status"] == "already"


async def test_the_word_after_a_calm_call_has_the_same_consequences(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = bridge.start_call()
        async with desk.http(desk.agent) as http:  # help lets supervisors read words, not this
            await agent.until("call.answered")
            asked = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            assert asked.status_code == 200
        bridge.end_call(call_id)
        await agent.until("call.ended")
        said = await say(desk, call_id, action="abusive")
        assert said["resting"]
        assert 595 < said["until_ts"] - time.time() <= 600
        assert (await agent.until("call.marked"))["by"] == "agent"
        seen = await watching.until("call.marked")
        assert set(seen) == {"id", "type", "ts", "call_id", "agent_id", "pbx_call_id", "exclude"}
        # Replayed from the store it says no more.
        async with desk.console(desk.second, last_id=0) as later:
            assert "by" not in await later.until("call.marked")
        await asyncio.sleep(0)
        assert "agent.said" not in [m["type"] for m in watching.seen]
        store = Store(desk.settings.database_path)
        assert await is_marked(store, call_id)
        assert not await is_marked(store, new_call_id())
        await store.close()


async def test_no_false_alarm_of_a_supervisor_shortens_rest_or_restores_scoring(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        bridge.risk(call_id, 3)
        alert = await agent.until("alert.raised")
        bridge.end_call(call_id)
        await agent.until("rest.changed", state="resting")
        before = await get(desk, "/me/rest")
        await post(desk, f"/alerts/{alert['alert_id']}/verdict", desk.supervisor, verdict="refuted")
        assert await get(desk, "/me/rest") == before | {"now": pytest.approx(time.time(), abs=5)}
        assert "rest.changed" not in [m["type"] for m in agent.seen if m.get("state") == "over"]
        store = Store(desk.settings.database_path)
        assert await is_marked(store, call_id)
        await store.close()


async def test_rest_evidence_and_note_work_at_level_0_and_once(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = past_call(bridge, 7200, 3600)
        await agent.until("call.ended")
        asked = await say(desk, call_id, action="rest")
        assert (asked["status"], asked["resting"]) == ("done", True)
        assert (await agent.until("rest.changed"))["reason"] == "asked"
        assert (await say(desk, call_id, action="rest"))["status"] == "already"
        evidence = await say(desk, call_id, action="evidence")
        wanted = await watching.until("evidence.requested")
        assert wanted["request_id"] == evidence["request_id"]
        await say(desk, call_id, action="note", note="threat")
        changed = await say(desk, call_id, action="note", note="insult")
        shown = (await get(desk, "/me/requests"))["requests"]
        assert {(r["action"], r["note"]) for r in shown} == {
            ("rest", ""),
            ("evidence", ""),
            ("note", "insult"),
        }
        assert changed["request_id"] in {r["request_id"] for r in shown}
        assert (await get(desk, "/me/requests", desk.other))["requests"] == []
        for path in ("/me/requests", "/me/rest", "/me/breaks"):
            await get(desk, path, desk.supervisor, status=403)


async def test_who_may_say_what_of_which_call(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = past_call(bridge, 90100, 86500)
        late = past_call(bridge, 90000, 86300)
        await agent.until("call.ended", call_id=late)
        too_late = await say(desk, call_id, 409, action="abusive")
        assert too_late["type"].endswith("too_late")
        await say(desk, late, 404, desk.other, action="abusive")
        await say(desk, late, 403, desk.supervisor, action="abusive")
        await say(desk, new_call_id(), 404, action="abusive")
        await say(desk, late, 422, action="note")
        await say(desk, late, 422, action="note", note="he said that my mother")
        await say(desk, late, 422, action="rest", note="insult")
        await say(desk, late, action="abusive")


async def test_rest_asked_for_in_the_call_begins_after_it(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, REST) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        await agent.until("call.answered")
        assert not (await say(desk, call_id, action="rest"))["resting"]
        bridge.end_call(call_id)
        assert (await agent.until("rest.changed"))["reason"] == "asked"


async def test_the_agent_makes_the_rest_longer_and_sees_who_offers_counselling(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, REST + "extend_s = 300\nlongest_s = 800\n") as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        await post(desk, "/me/rest/extend", status=409)
        call_id = bridge.start_call()
        bridge.ending(call_id)
        first = await agent.until("rest.changed")
        mine = await get(desk, "/me/rest")
        assert (mine["counselling"], mine["counselling_number"]) == (
            "상담사 마음건강실",
            "1588-0000",
        )
        assert mine["extend_s"] == pytest.approx(200, abs=1)
        longer = await post(desk, "/me/rest/extend")
        assert longer["until_ts"] == pytest.approx(first["until_ts"] + 200, abs=0.01)
        assert (await post(desk, "/me/rest/extend"))["status"] == "already"
        assert (await agent.until("rest.changed"))["until_ts"] == longer["until_ts"]
        await post(desk, "/me/rest/extend", desk.supervisor, status=403)


# ---------------------------------------------------------------------------------------- marks


@pytest.fixture
async def double(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AmiDouble]:
    monkeypatch.setattr(ami_client, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(settling, "RETRY_S", 0.2)
    async with AmiDouble() as server:
        yield server


def with_pbx(double: AmiDouble, folder: Path) -> str:
    secret = folder / "ami.secret"
    secret.write_text(double.secret)
    secret.chmod(0o600)
    return double.settings(secret)


async def test_the_pbxs_call_record_and_the_bridge_are_told(
    tmp_path: Path, double: AmiDouble
) -> None:
    async with (
        desk_in_process(tmp_path, with_pbx(double, tmp_path)) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        await double.until(lambda: double.logins > 0)
        calm = bridge.start_call(pbx_channel="PJSIP/trunk-00000001")
        call_id = bridge.start_call(pbx_channel=CHANNEL)
        bridge.risk(call_id, 2)
        bridge.risk(call_id, 3, 2)
        await double.until(lambda: bool(double.asked("Setvar")))
        (asked,) = double.asked("Setvar")
        assert asked["channel"] == [CHANNEL]
        assert asked["variable"] == ["CDR(callshield_exclude)"]
        assert asked["value"] == ["quality,handling_time,survey"]
        await agent.until("call.marked")
        assert [mark.call_id for mark in bridge.marks] == [call_id]
        # A bridge that comes anew hears it again; the calm call is nobody's news.
        async with Bridge(desk.settings.bus_path) as second:
            second.calls = dict(bridge.calls)
            async with asyncio.timeout(WITHIN_S):
                while not second.marks:
                    await second.asked.wait()
                    second.asked.clear()
            assert [mark.call_id for mark in second.marks] == [call_id]
        assert calm in bridge.calls


async def test_a_refused_field_is_said_and_a_channel_that_is_gone_is_no_fault(
    tmp_path: Path, double: AmiDouble
) -> None:
    double.refuse["Setvar"] = "Permission denied"
    async with (
        desk_in_process(tmp_path, with_pbx(double, tmp_path)) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call(pbx_channel=CHANNEL)
        bridge.ending(call_id)
        told = await agent.until("node.degraded", component="pbx_actions", degraded=True)
        assert "Permission denied" in told["reason"]
        double.refuse["Setvar"] = "No such channel"
        await agent.until("node.degraded", component="pbx_actions", degraded=False)


# -------------------------------------------------------------------------------------- breaks


def break_now(began_ago_s: float, minutes: int = 60) -> str:
    """A planned break, by UTC's clock, whole minutes."""
    begins = datetime.fromtimestamp(time.time() - began_ago_s, UTC)
    ends = begins + timedelta(minutes=minutes)
    return (
        '[breaks]\ntime_zone = "UTC"\nbefore_s = 3600\n'
        f'[breaks.plans.lunch]\ntimes = ["{begins:%H:%M}-{ends:%H:%M}"]\n'
    )


async def test_a_bad_call_eats_of_a_break_which_moves_and_stays_the_agents_own(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, break_now(600)) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = past_call(bridge, 1200, None)
        bridge.risk(call_id, 2)
        bridge.end_call(call_id)
        moved = await agent.until("break.changed")
        # Whole minutes: between ten and eleven of them were eaten.
        assert 595 < moved["owed_s"] <= 665
        assert moved["moved_to_ts"] == pytest.approx(time.time(), abs=5)
        rest = await agent.until("rest.changed")
        assert rest["reason"] == "break"
        assert rest["until_ts"] == pytest.approx(moved["moved_to_ts"] + 3600, abs=5)
        mine = await get(desk, "/me/breaks")
        assert mine["owed_s"] == pytest.approx(moved["owed_s"], abs=0.1)
        assert [row["call_id"] for row in mine["breaks"]] == [call_id]
        assert (await get(desk, "/me/breaks", desk.other))["breaks"] == []
        # He goes back to work: all of it stays owed, and he takes it when he likes.
        await post(desk, "/agents/1001/ready")
        taken = await post(desk, "/me/breaks/take")
        assert taken["until_ts"] == pytest.approx(time.time() + mine["owed_s"], abs=5)
        await post(desk, "/me/breaks/take", status=409)
        await watching.until("call.ended")
        kinds = {m["type"] for m in watching.seen}
        assert not kinds & {"break.changed", "rest.changed"}


async def test_before_a_planned_break_an_agent_out_of_a_bad_call_gets_no_other(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, break_now(-1200, minutes=30)) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        calm = bridge.start_call()
        bridge.end_call(calm)
        bad = bridge.start_call()
        bridge.risk(bad, 2)
        bridge.end_call(bad)
        rest = await agent.until("rest.changed")
        assert (rest["call_id"], rest["reason"]) == (bad, "break")
        # To the end of the break: nobody calls in the second in which it begins.
        assert 2900 < rest["until_ts"] - time.time() <= 3000


async def test_a_calm_call_that_its_agent_calls_abusive_owes_what_it_ate(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, break_now(600)) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = past_call(bridge, 1200, 0)
        assert (await agent.until("break.changed"))["owed_s"] == 0
        await say(desk, call_id, action="abusive")
        assert (await agent.until("break.changed"))["owed_s"] > 595


# ------------------------------------------------------------------------------------ call-backs


def unanswered(bridge: Bridge, call_id: str) -> None:
    """What the bridge says of a hand over that nobody answered."""
    now = time.time()
    bridge.send(
        HelperChanged(ts=now, call_id=call_id, agent_id="1001", state="unreachable", role="manager")
    )
    bridge.send(HandOverUnanswered(ts=now, call_id=call_id, agent_id="1001", helper_id="kim"))


async def test_a_hand_over_nobody_answered_becomes_a_call_back(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PEOPLE) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = bridge.start_call()
        unanswered(bridge, call_id)
        promised = await watching.until("callback.changed")
        assert (promised["state"], promised["owner"]) == ("promised", "kim")
        assert promised["due_ts"] == pytest.approx(time.time() + 14400, abs=5)
        bridge.send(CallBackSpoken(ts=time.time(), call_id=call_id, agent_id="1001", complete=True))
        await watching.until("callback.changed", state="spoken")
        bridge.end_call(call_id)
        (listed,) = (await get(desk, "/callbacks", desk.supervisor))["callbacks"]
        assert (listed["spoken"], listed["pbx_call_id"]) == (True, "1763.42")
        assert not any("number" in key for key in listed)
        await get(desk, "/callbacks", desk.agent, status=403)
        path = f"/callbacks/{listed['callback_id']}/done"
        await post(desk, path, desk.agent, status=403)
        assert (await post(desk, path, desk.second))["status"] == "done"
        assert (await post(desk, path, desk.supervisor))["status"] == "already"
        await watching.until("callback.changed", state="done")
        assert (await get(desk, "/callbacks", desk.supervisor))["callbacks"] == []
        await post(desk, f"/callbacks/{new_call_id()}/done", desk.supervisor, status=404)


async def test_an_overdue_call_back_is_an_alert_that_done_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftercare, "_TICK_S", 0.05)
    extra = PEOPLE + '[callbacks]\nwithin_s = 0.3\nowner = "lee"\n'
    async with (
        desk_in_process(tmp_path, extra) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as watching,
    ):
        call_id = bridge.start_call()
        unanswered(bridge, call_id)
        bridge.end_call(call_id)
        overdue = await watching.until("callback.changed", state="overdue")
        alert = await watching.until("alert.raised")
        assert (alert["kind"], alert["call_id"]) == ("callback", call_id)
        await post(desk, f"/callbacks/{overdue['callback_id']}/done", desk.supervisor)
        await watching.until("alert.acknowledged", alert_id=alert["alert_id"])


async def test_the_agent_promises_one_and_somebody_who_comes_after_all_settles_it(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path, PEOPLE) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        await agent.until("call.answered")
        path = f"/calls/{call_id}/actions"
        answer = await post(desk, path, action="promise_call_back")
        assert answer["status"] == "done"
        assert [c.action for c in bridge.commands] == [Action.PROMISE_CALL_BACK]
        assert (await agent.until("callback.changed"))["owner"] == "kim"
        assert (await post(desk, path, action="promise_call_back"))["status"] == "already"
        await post(desk, path, desk.supervisor, status=403, action="promise_call_back")
        bridge.send(
            HelperChanged(
                ts=time.time(), call_id=call_id, agent_id="1001", state="took_over", role="manager"
            )
        )
        assert (await agent.until("callback.changed"))["state"] == "done"


async def test_without_call_backs_none_are_promised(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, PEOPLE + "[callbacks]\nwithin_s = 0\n") as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        await agent.until("call.answered")
        path = f"/calls/{call_id}/actions"
        await post(desk, path, status=409, action="promise_call_back")
        assert bridge.commands == []


# ------------------------------------------------------------------------------------- a crash


async def test_kill_9_loses_nothing_of_it(tmp_path: Path) -> None:
    """Mark, what the agent said, what is owed, and the open call-back, in a real process."""
    notifier = Process(tmp_path, PEOPLE + REST + break_now(600))
    await notifier.start()
    desk = notifier.desk
    async with desk.bridge() as bridge, desk.console(desk.agent) as agent:
        call_id = past_call(bridge, 1200, None)
        unanswered(bridge, call_id)
        await agent.until("callback.changed")
        bridge.end_call(call_id)
        await agent.until("call.ended")
        await say(desk, call_id, action="abusive")
        await say(desk, call_id, action="evidence")
        before = [
            await get(desk, "/me/breaks"),
            await get(desk, "/me/requests"),
            await get(desk, "/me/rest"),
            await get(desk, "/callbacks", desk.supervisor),
        ]
        await notifier.end(signal.SIGKILL)
        await notifier.start()
        after = [
            await get(desk, "/me/breaks"),
            await get(desk, "/me/requests"),
            await get(desk, "/me/rest"),
            await get(desk, "/callbacks", desk.supervisor),
        ]
        for shown in (*before, *after):
            shown.pop("now", None)
        assert before == after
        assert before[0]["owed_s"] > 595
        assert before[2]["resting"]
        assert len(before[3]["callbacks"]) == 1
        assert (await say(desk, call_id, action="abusive"))["status"] == "already"
    assert await notifier.end(signal.SIGTERM) == 0
    assert isinstance(bridge.marks[0], CallMarked)
