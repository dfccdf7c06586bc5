"""Escalation through the API and the WebSocket, with a bridge that answers; and kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callshield.errors import SetupError
from callshield.messages import Action, CallAnswered, CommandResult, HelperChanged, WarningPlayed
from notifier.tokens import create_token, list_tokens
from tests.notifier_kit import WITHIN_S, Bridge, Console, Desk, Process, desk_in_process

TEAMS = """
[agents.1003]
uri = "sip:1003@192.0.2.22:5060"
[supervisors.a]
uri = "sip:2001@192.0.2.31:5060"
[supervisors.b]
uri = "sip:2002@192.0.2.32:5060"
[supervisors.d]
uri = "sip:2004@192.0.2.34:5060"
[supervisors.m]
uri = "sip:2000@192.0.2.30:5060"
role = "manager"
[teams.north]
supervisors = ["a", "b"]
order = "fixed"
next_after_s = {next_after_s}
manager_after_s = {manager_after_s}
limit_s = {limit_s}
preset = "public"
[teams.south]
supervisors = ["d"]
"""


def tables(next_after_s: float = 60, manager_after_s: float = 60, limit_s: float = 300) -> str:
    # The kit's configuration names agents 1001 and 1002 without a team: the environment adds it.
    return TEAMS.format(**locals())


@pytest.fixture(autouse=True)
def _teams_of_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLSHIELD_AGENTS__1001__TEAM", "north")
    monkeypatch.setenv("CALLSHIELD_AGENTS__1002__TEAM", "south")


async def tied(desk: Desk, supervisor_id: str) -> str:
    return await asyncio.to_thread(
        create_token, desk.settings, "supervisor", supervisor_id, supervisor_id=supervisor_id
    )


async def post(desk: Desk, token: str, path: str, body: dict[str, Any] | None = None) -> Any:
    async with desk.http(token) as http:
        return await http.post(f"/api/v1{path}", json=body)


async def help_asked(desk: Desk, call_id: str) -> str:
    answer = await post(desk, desk.agent, f"/calls/{call_id}/actions", {"action": "help"})
    assert answer.status_code == 200, answer.text
    alert_id: str = answer.json()["alert_id"]
    return alert_id


async def shown(desk: Desk, token: str, alert_id: str) -> dict[str, Any]:
    async with desk.http(token) as http:
        alerts = (await http.get("/api/v1/alerts?state=all")).json()["alerts"]
    [found] = [one for one in alerts if one["alert_id"] == alert_id]
    assert isinstance(found, dict)
    return found


@contextlib.asynccontextmanager
async def asked(
    folder: Path, extra: str, *connected: str
) -> AsyncIterator[tuple[Desk, Bridge, Console, dict[str, Console], str, str]]:
    """A call of 1001 whose agent asked for help, with these supervisors' consoles open."""
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(desk_in_process(folder, extra))
        bridge = await stack.enter_async_context(desk.bridge())
        agent = await stack.enter_async_context(desk.console(desk.agent))
        consoles = {}
        for one in connected:
            consoles[one] = await stack.enter_async_context(desk.console(await tied(desk, one)))
        # A console counts from the moment on that it gets events; of this agent without a team
        # everybody gets them.
        everybodys = bridge.start_call("1003")
        for console in consoles.values():
            await console.until("call.answered", call_id=everybodys)
        bridge.end_call(everybodys)
        call_id = bridge.start_call()
        await agent.until("call.answered", call_id=call_id)
        yield desk, bridge, agent, consoles, call_id, await help_asked(desk, call_id)


async def test_the_agent_sees_every_step_and_so_does_the_team(tmp_path: Path) -> None:
    extra = tables(next_after_s=3, manager_after_s=3, limit_s=12)
    async with asked(tmp_path, extra, "a", "b") as (desk, _, agent, consoles, call_id, alert_id):
        told = []
        for _ in range(5):
            event = await agent.until("alert.escalated", alert_id=alert_id)
            assert event["call_id"] == call_id
            told.append((event["stage"], event["to"]))
        assert told == [
            ("person", ["a"]),
            ("person", ["b"]),
            ("all", ["a", "b"]),
            ("manager", ["m"]),
            ("nobody", []),
        ]
        assert (await agent.until("alert.unanswered"))["offers"] == ["end", "promise_call_back"]
        assert (await consoles["b"].until("alert.escalated", stage="manager"))["to"] == ["m"]
        state = (await shown(desk, desk.agent, alert_id))["escalation"]
        assert state["unanswered"]
        assert state["told"] == ["a", "b", "m"]
        # It is still open, and somebody who comes late is welcome.
        late = await post(
            desk, await tied(desk, "b"), f"/alerts/{alert_id}/accept", {"how": "seen"}
        )
        assert late.status_code == 200, late.text
        taken = await agent.until("alert.acknowledged")
        assert (taken["how"], taken["supervisor_id"]) == ("seen", "b")


async def test_a_refusal_asks_the_next_at_once_and_closes_nothing(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a", "b") as (desk, _, agent, consoles, _, alert_id):
        a = await tied(desk, "a")
        refuse = f"/alerts/{alert_id}/refuse"
        assert (await post(desk, a, refuse, {"reason": ""})).status_code == 422
        assert (await post(desk, a, refuse, {})).status_code == 422
        assert (await post(desk, a, refuse, {"reason": "\n\t \x00"})).status_code == 422
        answer = await post(desk, a, refuse, {"reason": "통화 중, 02-123-4567\n8 로 연락"})
        assert answer.status_code == 200, answer.text
        event = await agent.until("alert.refused")
        assert (event["by"], event["reason"]) == ("a", "통화 중, *** 로 연락")
        assert (await agent.until("alert.escalated", step=2))["to"] == ["b"]
        assert (await consoles["b"].until("alert.escalated", step=2))["to"] == ["b"]
        assert (await post(desk, a, refuse, {"reason": "still busy"})).status_code == 200
        b, m = await tied(desk, "b"), await tied(desk, "m")
        for token, stage in ((b, "manager"), (m, "nobody")):
            refused = await post(desk, token, refuse, {"reason": "회의 중"})
            assert refused.json()["escalation"]["stage"] == stage
            assert refused.json()["acknowledged_ts"] is None
        await agent.until("alert.unanswered")
        state = await shown(desk, desk.agent, alert_id)
        assert [one["by"] for one in state["escalation"]["refusals"]] == ["a", "b", "m"]
        assert state["acknowledged_ts"] is None
        # Who refused may come all the same.
        assert (await post(desk, a, f"/alerts/{alert_id}/accept", {})).status_code == 200
        gone = await post(desk, b, refuse, {"reason": "no"})
        assert gone.status_code == 409
        assert gone.json()["type"].endswith("already_acknowledged")


async def test_accepting_as_join_calls_the_own_phone_and_only_then_is_accepted(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, tables(), "a") as (desk, bridge, agent, _, call_id, alert_id):
        b, accept = await tied(desk, "b"), f"/alerts/{alert_id}/accept"
        bridge.answer = lambda command: "not_now" if command.action is Action.JOIN else "done"
        assert (await post(desk, b, accept, {"how": "join"})).status_code == 409
        assert (await shown(desk, b, alert_id))["acknowledged_ts"] is None
        bridge.answer = lambda command: "done"
        answer = await post(desk, b, accept, {"how": "take_over"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["how"], answer.json()["supervisor_id"]) == ("take_over", "b")
        [_, join] = [one for one in bridge.commands if one.action is Action.JOIN]
        assert (join.call_id, join.target) == (call_id, "b")
        assert (await agent.until("alert.acknowledged"))["how"] == "take_over"
        # Only the agent hands over: nothing of that kind was sent.
        assert all(one.action is not Action.HAND_OVER for one in bridge.commands)


async def test_two_who_join_at_once_one_phone_is_called(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a", "b") as (desk, bridge, _, _, _, alert_id):
        accept = f"/alerts/{alert_id}/accept"
        bridge.answer = lambda command: None  # it takes its time
        first = asyncio.create_task(post(desk, await tied(desk, "a"), accept, {"how": "join"}))
        async with asyncio.timeout(WITHIN_S):
            while not any(one.action is Action.JOIN for one in bridge.commands):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        second = await post(desk, await tied(desk, "b"), accept, {"how": "join"})
        assert second.status_code == 409
        assert second.json()["type"].endswith("being_accepted")
        [join] = [one for one in bridge.commands if one.action is Action.JOIN]
        bridge.client.send(CommandResult(command_id=join.command_id, status="done"))
        assert (await first).status_code == 200
        third = await post(desk, await tied(desk, "b"), accept, {"how": "join"})
        assert third.status_code == 409
        assert len([one for one in bridge.commands if one.action is Action.JOIN]) == 1


async def test_many_who_accept_at_once_exactly_one_wins(tmp_path: Path) -> None:
    async with asked(tmp_path, tables()) as (desk, _, agent, _, _, alert_id):
        tokens = [await tied(desk, one) for one in ("a", "b", "m")] * 4
        answers = await asyncio.gather(
            *(post(desk, token, f"/alerts/{alert_id}/accept", {}) for token in tokens)
        )
        assert sorted(one.status_code for one in answers) == [200] + [409] * 11
        [won] = [one.json() for one in answers if one.status_code == 200]
        assert (await agent.until("alert.acknowledged"))["by"] == won["acknowledged_by"]


async def test_who_accepted_and_whose_phone_was_not_answered_is_replaced(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a", "b") as (desk, bridge, agent, _, call_id, alert_id):
        answer = await post(
            desk, await tied(desk, "a"), f"/alerts/{alert_id}/accept", {"how": "join"}
        )
        assert answer.status_code == 200
        by = answer.json()["acknowledged_by"]

        def helper(state: Any) -> None:
            bridge.send(
                HelperChanged(
                    ts=1.0,
                    call_id=call_id,
                    agent_id="1001",
                    state=state,
                    role="supervisor",
                    by=f"supervisor:{by}",
                    helper_id="a",
                )
            )

        await agent.until("alert.acknowledged", alert_id=alert_id)
        helper("calling")
        helper("unreachable")
        again = await agent.until("alert.raised", reason="help")
        assert again["alert_id"] != alert_id
        step = await agent.until("alert.escalated", alert_id=again["alert_id"])
        assert (step["stage"], step["to"]) == ("person", ["b"])
        # Who is in the call has accepted, whatever this process missed.
        helper("joined")
        taken = await agent.until("alert.acknowledged", alert_id=again["alert_id"])
        assert (taken["how"], taken["supervisor_id"]) == ("join", "a")


async def test_who_comes_into_the_call_has_taken_all_that_is_open_of_it(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a", "b") as (desk, bridge, agent, _, call_id, alert_id):
        bridge.notice(call_id)
        bridge.risk(call_id, 2)
        raised = await agent.until("alert.raised", reason="shouting")
        other = bridge.start_call()
        bridge.notice(other)
        bridge.risk(other, 2)
        elsewhere = await agent.until("alert.raised", call_id=other)
        accept = f"/alerts/{alert_id}/accept"
        assert (await post(desk, await tied(desk, "a"), accept, {"how": "join"})).status_code == 200
        taken = await shown(desk, desk.supervisor, raised["alert_id"])
        assert (taken["how"], taken["supervisor_id"]) == ("join", "a")
        still = await shown(desk, desk.supervisor, elsewhere["alert_id"])
        assert still["acknowledged_ts"] is None


async def test_whose_console_goes_away_while_he_is_asked_is_passed_over(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a", "b") as (_, _, agent, consoles, _, alert_id):
        assert (await agent.until("alert.escalated", alert_id=alert_id))["to"] == ["a"]
        await consoles["a"].connection.close()
        assert (await agent.until("alert.escalated", alert_id=alert_id))["to"] == ["b"]


async def test_the_length_of_a_call_is_said_once_also_after_kill_9(tmp_path: Path) -> None:
    notifier = Process(tmp_path, tables())
    desk = notifier.desk
    await notifier.start()
    try:
        async with desk.bridge() as bridge:
            async with desk.console(desk.agent) as agent:
                call_id = bridge.start_call(answer=False)
                bridge.answered.add(call_id)
                bridge.send(
                    CallAnswered(ts=time.time() - 21 * 60, call_id=call_id, agent_id="1001")
                )
                offered = await agent.until("call.length")
                assert (offered["step"], offered["minutes"]) == ("end_offered", 21)
                assert offered["until_ts"] == 0, "nothing ends by itself"
                seen = agent.last_id
            await notifier.end(signal.SIGKILL)
            await notifier.start()
            async with desk.console(desk.agent, seen) as back:
                extended = await post(
                    desk, desk.agent, f"/calls/{call_id}/actions", {"action": "extend"}
                )
                assert extended.status_code == 200, extended.text
                # The first word about it: the offer was not made a second time.
                assert (await back.until("call.length"))["step"] == "extended"
            assert [one for one in bridge.commands if one.action is Action.END] == []
    finally:
        await notifier.end(signal.SIGKILL)


async def test_a_supervisor_knows_nothing_of_another_teams_calls(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a", "d", "m") as scene:
        desk, bridge, _, consoles, call_id, alert_id = scene
        lone = bridge.start_call("1003")
        await consoles["m"].until("alert.raised", alert_id=alert_id)
        await consoles["d"].until("call.answered", call_id=lone)
        assert call_id not in {one.get("call_id") for one in consoles["d"].seen}
        d, a = await tied(desk, "d"), await tied(desk, "a")
        async with desk.http(d) as http:
            calls = (await http.get("/api/v1/calls")).json()["calls"]
            assert [one["call_id"] for one in calls] == [lone]
            for state in ("open", "all"):
                answer = await http.get(f"/api/v1/alerts?state={state}")
                assert answer.json()["alerts"] == []
        paths = [
            (f"/alerts/{alert_id}/accept", {"how": "seen"}),
            (f"/alerts/{alert_id}/accept", {"how": "join"}),
            (f"/alerts/{alert_id}/refuse", {"reason": "not mine"}),
            (f"/alerts/{alert_id}/acknowledge", None),
            (f"/alerts/{alert_id}/verdict", {"verdict": "refuted"}),
            (f"/calls/{call_id}/actions", {"action": "join"}),
            (f"/calls/{call_id}/actions", {"action": "end"}),
        ]
        for path, body in paths:
            assert (await post(desk, d, path, body)).status_code == 404, path
        # Replayed, not live: the same.
        async with desk.console(d, 0) as replayed:
            await replayed.until("call.answered", call_id=lone)
            assert call_id not in {one.get("call_id") for one in replayed.seen}
        # Negative control: the own team's supervisor gets all that.
        async with desk.console(a, 0) as own:
            await own.until("alert.raised", alert_id=alert_id)
        assert (await post(desk, a, f"/alerts/{alert_id}/refuse", {"reason": "no"})).is_success
        assert (await shown(desk, desk.supervisor, alert_id))["alert_id"] == alert_id


async def test_who_is_not_shown_a_call_is_not_recorded_as_its_reader(tmp_path: Path) -> None:
    async with asked(tmp_path, tables()) as (desk, bridge, agent, _, call_id, _):
        bridge.words(call_id, 2, "씨*")
        await agent.until("risk.changed", call_id=call_id)
        for supervisor in ("d", "a"):  # of the other team, of the own one
            async with desk.http(await tied(desk, supervisor)) as http:
                calls = (await http.get("/api/v1/calls")).json()["calls"]
                assert bool(calls) is (supervisor == "a")
        read = await agent.until("record.read")
        tokens = {
            one["name"]: one["token_id"]
            for one in await asyncio.to_thread(list_tokens, desk.settings)
        }
        assert read["by"] == tokens["a"]
        assert [one["type"] for one in agent.seen].count("record.read") == 1


async def test_agents_neither_accept_nor_refuse(tmp_path: Path) -> None:
    async with asked(tmp_path, tables()) as (desk, _, _, _, _, alert_id):
        for path, body in (("accept", {}), ("refuse", {"reason": "no"})):
            for token in (desk.agent, desk.other):
                answer = await post(desk, token, f"/alerts/{alert_id}/{path}", body)
                assert answer.status_code == 403


async def test_nobody_joins_a_call_whose_agent_did_not_ask(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, tables()) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        bridge.notice(call_id)
        bridge.risk(call_id, 2)
        raised = await agent.until("alert.raised")
        accept = f"/alerts/{raised['alert_id']}/accept"
        answer = await post(desk, await tied(desk, "a"), accept, {"how": "join"})
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("not_asked")
        assert [one for one in bridge.commands if one.action is Action.JOIN] == []
        bridge.end_call(call_id)
        await agent.until("call.ended")
        assert (await post(desk, await tied(desk, "a"), accept, {"how": "seen"})).status_code == 200


async def test_help_of_an_ended_call_can_be_seen_but_not_joined(tmp_path: Path) -> None:
    async with asked(tmp_path, tables(), "a") as (desk, bridge, agent, _, call_id, alert_id):
        bridge.end_call(call_id)
        await agent.until("call.ended")
        a, accept = await tied(desk, "a"), f"/alerts/{alert_id}/accept"
        joined = await post(desk, a, accept, {"how": "join"})
        assert joined.status_code == 409
        assert joined.json()["type"].endswith("call_ended")
        assert (await shown(desk, a, alert_id))["escalation"]["stage"] == "person"
        assert (await post(desk, a, accept, {"how": "seen"})).status_code == 200


async def test_the_agent_is_advised_and_the_supervisor_does_not_see_it(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path, tables()) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.supervisor) as supervisor,
    ):
        call_id = bridge.start_call()
        bridge.notice(call_id)
        bridge.words(call_id, 2, "x")
        advice = await agent.until("policy.advice")
        assert (advice["warn_grade"], advice["end_highlighted"]) == (1, False)
        assert advice["category"] == "profanity"
        for grade in (1, 2, 3):
            bridge.send(
                WarningPlayed(ts=1.0, call_id=call_id, agent_id="1001", grade=grade, complete=True)
            )
        assert (await agent.until("policy.advice", end_highlighted=True))["warn_grade"] == 3
        bridge.end_call(call_id)
        await supervisor.until("call.ended")
        assert {"policy.advice", "call.length"} & {one["type"] for one in supervisor.seen} == set()
        # The policy wants no automatic warnings: nobody but a person warned.
        assert [one for one in bridge.commands if one.action is Action.WARN] == []


async def test_an_automatic_warning_goes_out_as_the_policys_own(tmp_path: Path) -> None:
    extra = tables().replace(
        "[teams.south]", "[teams.north.policy]\nautomatic_warnings = true\n[teams.south]"
    )
    async with (
        desk_in_process(tmp_path, extra) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
    ):
        call_id = bridge.start_call()
        bridge.notice(call_id)
        bridge.risk(call_id, 2)  # sound alone
        await agent.until("risk.changed")
        assert bridge.commands == []
        bridge.risk(call_id, 0, 2)
        bridge.words(call_id, 2, "x")
        async with asyncio.timeout(WITHIN_S):
            while not bridge.commands:
                bridge.asked.clear()
                await bridge.asked.wait()
        [warning] = bridge.commands
        assert (warning.action, warning.by) == (Action.WARN, "policy")


async def test_end_reaches_the_bridge_at_once_whatever_the_policy_says(tmp_path: Path) -> None:
    """Every preset, every level, before and after the answer, with help open and unanswered."""
    for preset in ("kr", "public"):
        folder = tmp_path / preset
        folder.mkdir()
        extra = (
            tables(3, 3, 10)
            .replace('preset = "public"', f'preset = "{preset}"')
            .replace(
                "[teams.south]",
                "[teams.north.policy]\nlevel_3 = 'nobody'\nlength_end_min = 600\n"
                "end_after_warnings = {profanity = 9, shouting = 9}\n[teams.south]",
            )
        )
        async with (
            desk_in_process(folder, extra) as desk,
            desk.bridge() as bridge,
            desk.console(desk.agent) as agent,
        ):
            for level in range(4):
                call_id = bridge.start_call(answer=level > 0)
                bridge.notice(call_id)
                if level:
                    bridge.risk(call_id, level)
                    await agent.until("risk.changed", call_id=call_id)
                    await help_asked(desk, call_id)
                else:
                    await agent.until("notice.finished", call_id=call_id)
                actions = f"/calls/{call_id}/actions"
                assert (await post(desk, desk.agent, actions, {"action": "end"})).status_code == 200
                ends = [one for one in bridge.commands if one.action is Action.END]
                assert [one.call_id for one in ends[-1:]] == [call_id]
                assert ends[-1].by == "agent:console"


async def test_extend_and_promise_are_the_agents_own(tmp_path: Path) -> None:
    async with asked(tmp_path, tables()) as (desk, bridge, agent, _, call_id, _):
        actions = f"/calls/{call_id}/actions"
        extended = await post(desk, desk.agent, actions, {"action": "extend"})
        assert extended.json()["status"] == "done"
        event = await agent.until("call.length")
        assert event["step"] == "extended"
        assert 29 * 60 < event["until_ts"] - event["ts"] <= 30 * 60
        for status in ("done", "already"):
            answer = await post(desk, desk.agent, actions, {"action": "promise_call_back"})
            assert answer.json()["status"] == status
        promised = await agent.until("callback.changed")
        assert (promised["state"], promised["owner"]) == ("promised", "m")
        for action in ("extend", "promise_call_back"):
            refused = await post(desk, desk.supervisor, actions, {"action": action})
            assert refused.status_code == 403
        # Neither is the bridge's business.
        # The caller is told of the call-back; time is nobody else's business.
        assert {one.action for one in bridge.commands} == {Action.HELP, Action.PROMISE_CALL_BACK}
        south = bridge.start_call("1002")
        async with desk.console(desk.other, 0) as other:
            await other.until("call.answered", call_id=south)
        none = await post(desk, desk.other, f"/calls/{south}/actions", {"action": "extend"})
        assert none.status_code == 409


async def test_the_policies_in_force_can_be_read(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path, tables()) as desk:

        async def teams(token: str) -> dict[str, Any]:
            async with desk.http(token) as http:
                answer = await http.get("/api/v1/policies")
            return {one["team"]: one for one in answer.json()["teams"]}

        every = await teams(desk.supervisor)
        assert list(every) == ["north", "south", ""]
        assert every["north"]["policy"]["length_end_min"] == 20
        assert every["north"]["on_duty"] == ["a", "b"]
        assert every["south"]["policy"]["end_after_warnings"]["threat"] == 0
        assert not any(one["policy"]["automatic_warnings"] for one in every.values())
        assert list(await teams(desk.agent)) == ["north"]


async def test_a_token_is_tied_to_somebody_who_is_configured(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path, tables()) as desk:
        with pytest.raises(SetupError, match="one of the configured supervisors"):
            await tied(desk, "nobody")
        with pytest.raises(SetupError, match="goes with role supervisor"):
            await asyncio.to_thread(create_token, desk.settings, "admin", "x", supervisor_id="a")
        async with desk.http(await tied(desk, "a")) as http:
            assert (await http.get("/api/v1/node")).json()["supervisor_id"] == "a"


async def test_as_ever_without_teams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for agent_id in ("1001", "1002"):
        monkeypatch.delenv(f"CALLSHIELD_AGENTS__{agent_id}__TEAM")
    async with asked(tmp_path, "") as (desk, _, agent, _, _, alert_id):
        step = await agent.until("alert.escalated", alert_id=alert_id)
        assert (step["stage"], step["to"]) == ("all", [])
        answer = await post(desk, desk.second, f"/alerts/{alert_id}/acknowledge")
        assert answer.status_code == 200
        async with desk.http(desk.agent) as http:
            [team] = (await http.get("/api/v1/policies")).json()["teams"]
        assert (team["team"], team["policy"]["level_2"]) == ("", "all")


# ------------------------------------------------------------------------------------- kill -9


async def test_an_escalation_survives_kill_9_in_its_middle(tmp_path: Path) -> None:
    notifier = Process(tmp_path, tables(next_after_s=60, manager_after_s=3, limit_s=300))
    desk = notifier.desk
    a, b = await tied(desk, "a"), await tied(desk, "b")
    await notifier.start()
    try:
        async with desk.bridge() as bridge, contextlib.AsyncExitStack() as stack:
            agent = await stack.enter_async_context(desk.console(desk.agent))
            first = await stack.enter_async_context(desk.console(a))
            second = await stack.enter_async_context(desk.console(b))
            call_id = bridge.start_call()
            for console in (agent, first, second):
                await console.until("call.answered")
            alert_id = await help_asked(desk, call_id)
            assert (await agent.until("alert.escalated"))["to"] == ["a"]
            refuse = f"/alerts/{alert_id}/refuse"
            assert (await post(desk, a, refuse, {"reason": "외근 중"})).status_code == 200
            assert (await agent.until("alert.escalated"))["to"] == ["b"]
            seen = agent.last_id
            assert await notifier.end(signal.SIGKILL) == -signal.SIGKILL
            await notifier.start()
            async with (
                desk.console(desk.agent, seen) as back,
                desk.console(b) as waiting,
            ):
                state = (await shown(desk, b, alert_id))["escalation"]
                assert (state["stage"], state["asking"], state["step"]) == ("person", "b", 2)
                assert [one["reason"] for one in state["refusals"]] == ["외근 중"]
                # It goes on: b cannot come either, and the request is with the manager.
                assert (await post(desk, b, refuse, {"reason": "회의 중"})).is_success
                step = await back.until("alert.escalated")
                assert (step["step"], step["stage"], step["to"]) == (3, "manager", ["m"])
                assert (await waiting.until("alert.escalated"))["step"] == 3
                accepted = await post(desk, await tied(desk, "m"), f"/alerts/{alert_id}/accept", {})
                assert accepted.status_code == 200
                await back.until("alert.acknowledged", alert_id=alert_id)
            await notifier.end(signal.SIGKILL)
            await notifier.start()
            taken = await shown(desk, b, alert_id)
            assert (taken["how"], taken["supervisor_id"]) == ("seen", "m")
            assert taken["escalation"] is None
    finally:
        with contextlib.suppress(httpx.TransportError):
            await notifier.end(signal.SIGKILL)


FORGETS_ITS_STEPS = """
    import sys
    from notifier.process import main
    from notifier.store import Store

    async def none(self):
        return []

    Store.escalations = none
    sys.exit(main())
"""


async def test_a_notifier_without_the_stored_steps_would_begin_anew(tmp_path: Path) -> None:
    """Negative control of the test above."""
    notifier = Process(tmp_path, tables())
    desk = notifier.desk
    a = await tied(desk, "a")
    await notifier.start()
    try:
        async with desk.bridge() as bridge:
            async with desk.console(desk.agent) as agent:
                call_id = bridge.start_call()
                await agent.until("call.answered")
                alert_id = await help_asked(desk, call_id)
                refuse = f"/alerts/{alert_id}/refuse"
                assert (await post(desk, a, refuse, {"reason": "외근 중"})).is_success
            await notifier.end(signal.SIGKILL)
            await notifier.start(sys.executable, "-c", textwrap.dedent(FORGETS_ITS_STEPS))
            state = (await shown(desk, a, alert_id))["escalation"]
            assert (state["step"], state["refusals"]) == (1, [])
    finally:
        await notifier.end(signal.SIGKILL)


async def test_time_goes_on_while_the_notifier_is_dead(tmp_path: Path) -> None:
    """The steps by time that were due meanwhile are made when it is back."""
    notifier = Process(tmp_path, tables(next_after_s=3, manager_after_s=3, limit_s=10))
    desk = notifier.desk
    a = await tied(desk, "a")
    await notifier.start()
    try:
        async with desk.bridge() as bridge:
            async with desk.console(desk.agent) as agent, desk.console(a) as console:
                call_id = bridge.start_call()
                for one in (agent, console):
                    await one.until("call.answered")
                alert_id = await help_asked(desk, call_id)
                assert (await agent.until("alert.escalated"))["to"] == ["a"]
                seen = agent.last_id
            await notifier.end(signal.SIGKILL)
            await notifier.start()
            async with desk.console(desk.agent, seen) as back:
                stages = []
                while "nobody" not in stages:
                    stages.append((await back.until("alert.escalated"))["stage"])
                assert stages == ["all", "manager", "nobody"]
                assert (await back.until("alert.unanswered"))["alert_id"] == alert_id
    finally:
        await notifier.end(signal.SIGKILL)
