"""The HTTP API: who may do what, and what comes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Mount

from callshield import messages
from callshield.messages import (
    Action,
    Command,
    EarChanged,
    HelperChanged,
    LegName,
    MediaQuality,
    RecordingChanged,
)
from notifier import commands
from notifier.app import CONSOLE, build_app
from notifier.node import Node
from notifier.tokens import create_token
from tests.notifier_kit import WITHIN_S, Desk, Status, desk_in_process, new_call_id


async def act(
    desk: Desk, token: str, call_id: str, action: str, **more: str
) -> tuple[int, dict[str, object]]:
    async with desk.http(token) as http:
        body = {"action": action, **more}
        answer = await http.post(f"/api/v1/calls/{call_id}/actions", json=body)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code
        return answer.status_code, answer.json()


async def test_of_twenty_acknowledgements_at_once_exactly_one_wins(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        bridge.risk(bridge.start_call(), 3)
        alert_id = (await console.until("alert.raised"))["alert_id"]

        async def take(token: str) -> tuple[int, dict[str, object]]:
            async with desk.http(token) as http:
                answer = await http.post(f"/api/v1/alerts/{alert_id}/acknowledge")
                return answer.status_code, answer.json()

        answers = await asyncio.gather(
            *[take(token) for token in (desk.supervisor, desk.second) * 10]
        )
        won = [body for status, body in answers if status == 200]
        lost = [body for status, body in answers if status == 409]
        assert (len(won), len(lost)) == (1, 19)
        assert {body["acknowledged_by"] for body in lost} == {won[0]["acknowledged_by"]}
        taken = await console.until("alert.acknowledged")
        assert taken["by"] == won[0]["acknowledged_by"]
        bridge.risk(bridge.start_call(), 3)
        await console.until("alert.raised")
        # Only the new one is left, and only one acknowledgement was ever stored.
        assert [m["type"] for m in console.seen].count("alert.acknowledged") == 1
        async with desk.http(desk.supervisor) as http:
            alerts = (await http.get("/api/v1/alerts")).json()["alerts"]
            assert alert_id not in [alert["alert_id"] for alert in alerts]
            everything = (await http.get("/api/v1/alerts", params={"state": "all"})).json()
            assert alert_id in [alert["alert_id"] for alert in everything["alerts"]]


async def test_an_agent_cannot_see_or_touch_the_call_of_another(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        call_id = bridge.start_call("1001")
        bridge.risk(call_id, 3)
        raised = await console.until("alert.raised")
        unknown = await act(desk, desk.other, new_call_id(), "end")
        for action in Action:
            # The same answer as for a call that never was: nothing leaks.
            assert await act(desk, desk.other, call_id, action) == unknown
        assert bridge.commands == []
        async with desk.http(desk.other) as http:
            assert (await http.get("/api/v1/calls")).json()["calls"] == []
            for state in ("open", "all"):
                seen = await http.get("/api/v1/alerts", params={"state": state})
                assert seen.json()["alerts"] == []
            taken = await http.post(f"/api/v1/alerts/{raised['alert_id']}/acknowledge")
            assert taken.status_code == 403
        # The control: its own agent sees and touches it.
        assert (await act(desk, desk.agent, call_id, "end"))[0] == 200
        async with desk.http(desk.agent) as http:
            [call] = (await http.get("/api/v1/calls")).json()["calls"]
            assert call["reasons"]
        async with desk.http(desk.supervisor) as http:
            [call] = (await http.get("/api/v1/calls")).json()["calls"]
            assert (call["level"], call["reasons"], call["warnings"]) == (3, None, None)


@pytest.mark.parametrize(
    ("result", "status"),
    [("done", 200), ("already", 200), ("unknown_call", 404), ("not_now", 409)],
)
async def test_the_bridges_word_becomes_a_status(
    tmp_path: Path, result: Status, status: int
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        bridge.answer = lambda command: result
        call_id = bridge.start_call()
        await console.until("call.answered")
        assert (await act(desk, desk.agent, call_id, "warn"))[0] == status
        [command] = bridge.commands
        assert (command.action, command.call_id) == (Action.WARN, call_id)
        assert command.by == "agent:console"
        bridge.answer = lambda command: "not_supported"
        code, problem = await act(desk, desk.agent, call_id, "hand_over")
        assert code == 501
        assert problem["detail"]


async def test_two_end_presses_are_one_end_and_both_hear_yes(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        held: list[Command] = []

        def hold(command: Command) -> None:
            held.append(command)

        bridge.answer = hold
        call_id = bridge.start_call()
        await console.until("call.answered")
        first = asyncio.create_task(act(desk, desk.agent, call_id, "end"))
        second = asyncio.create_task(act(desk, desk.agent, call_id, "end"))
        while not held:  # asked is also set by a mark or a level
            bridge.asked.clear()
            await bridge.asked.wait()
        bridge.send(messages.CommandResult(command_id=held[0].command_id, status="done"))
        statuses = sorted([(await first)[1]["status"], (await second)[1]["status"]], key=str)
        assert statuses == ["already", "done"]
        bridge.ending(call_id)
        await console.until("call.ending")
        code, body = await act(desk, desk.agent, call_id, "end")
        assert (code, body["status"]) == (200, "already")
        bridge.end_call(call_id, "ended_with_announcement")
        await console.until("call.ended")
        code, body = await act(desk, desk.agent, call_id, "end")
        assert (code, body["status"]) == (200, "already")
        assert [c.action for c in bridge.commands] == [Action.END]
        assert (await act(desk, desk.agent, call_id, "warn"))[0] == 409


async def test_a_bridge_that_is_silent_or_away_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.Commands.__init__, "__defaults__", (0.3,))
    async with desk_in_process(tmp_path) as desk, desk.console(desk.agent) as console:
        async with desk.bridge() as bridge:
            bridge.answer = lambda command: None
            call_id = bridge.start_call()
            await console.until("call.answered")
            async with desk.http() as http:
                assert (await http.get("/readyz")).status_code == 200
            assert (await act(desk, desk.agent, call_id, "warn"))[0] == 504
        await console.until("node.degraded", component="bridge", degraded=True)
        assert (await act(desk, desk.agent, call_id, "warn"))[0] == 503
        async with desk.http() as http:
            ready = await http.get("/readyz")
            assert ready.status_code == 503
            assert ready.json() == {
                "ready": False,
                "bus": True,
                "bridge": False,
                "media": True,
                "store": True,
            }
            assert (await http.get("/healthz")).status_code == 200


async def test_help_is_an_alert_at_level_0_from_the_page_and_from_the_phone(
    tmp_path: Path,
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        first, second = bridge.start_call(), bridge.start_call("1002")
        await console.until("call.answered", call_id=second)
        code, body = await act(desk, desk.agent, first, "help")
        assert (code, body["status"]) == (200, "done")
        raised = await console.until("alert.raised")
        assert (raised["kind"], raised["level"]) == ("help", 0)
        assert raised["alert_id"] == body["alert_id"]
        code, again = await act(desk, desk.agent, first, "help")
        assert (code, again["status"], again["alert_id"]) == (200, "already", body["alert_id"])
        bridge.asked.clear()
        bridge.send(Command(command_id="c1", call_id=second, action=Action.HELP, by="agent:dtmf"))
        raised = await console.until("alert.raised")
        assert (raised["kind"], raised["call_id"]) == ("help", second)
        async with asyncio.timeout(WITHIN_S):
            while not bridge.results:  # asked is also set by a command
                await bridge.asked.wait()
                bridge.asked.clear()
        assert bridge.results[0].status == "done"
        # The bridge is told of what it cannot know: the presses on the page.
        told = [(c.call_id, c.action, c.by) for c in bridge.commands]
        assert told == [(first, Action.HELP, "agent:console")] * 2
        assert bridge.commands[0].command_id == body["alert_id"]


async def test_a_supervisor_acts_only_where_help_was_asked(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        call_id = bridge.start_call()
        await console.until("call.answered")
        assert (await act(desk, desk.supervisor, call_id, "end"))[0] == 403
        assert bridge.commands == []
        await act(desk, desk.agent, call_id, "help")
        assert (await act(desk, desk.supervisor, call_id, "end"))[0] == 200
        assert bridge.commands[-1].by.startswith("supervisor:")


async def test_a_supervisor_joins_only_after_the_request_and_takes_it(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        call_id = bridge.start_call()
        await console.until("call.answered")
        status, body = await act(desk, desk.supervisor, call_id, "join", target="lee")
        assert (status, body["type"]) == (409, "urn:callshield:problem:not_asked")
        assert bridge.commands == []
        await act(desk, desk.agent, call_id, "help")
        # The bridge has the last word, and its sentence is told.
        bridge.answer = lambda command: "not_now"
        assert (await act(desk, desk.supervisor, call_id, "join"))[0] == 409
        bridge.answer = lambda command: "done"
        assert (await act(desk, desk.supervisor, call_id, "join", target="lee"))[0] == 200
        command = bridge.commands[-1]
        assert (command.action, command.target) == (Action.JOIN, "lee")
        assert command.by.startswith("supervisor:")
        taken = await console.until("alert.acknowledged")
        assert f"supervisor:{taken['by']}" == command.by
        # The agent who asks again asks anew: the bridge is told, by another id.
        await act(desk, desk.agent, call_id, "help")
        requests = [c.command_id for c in bridge.commands if c.action is Action.HELP]
        assert len(set(requests)) == 2


async def test_the_agent_says_that_it_is_abuse_and_the_detector_hears_it(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        call_id = bridge.start_call()
        await console.until("call.answered")
        # Without a detector too, and as at /after: level, alert and mark.
        assert (await act(desk, desk.agent, call_id, "abusive"))[0] == 200
        assert (await console.until("risk.changed"))["level"] == 3
        assert (await console.until("alert.raised"))["reason"] == "agent_press"
        await console.until("call.marked")
        async with desk.http(desk.agent) as http:
            (said,) = (await http.get("/api/v1/me/requests")).json()["requests"]
            assert (said["call_id"], said["action"]) == (call_id, "abusive")
        async with desk.bridge("detector") as detector:
            async with asyncio.timeout(30):
                # Until it has said who it is, it is told nothing; pressed again, it is.
                while not detector.commands:
                    assert (await act(desk, desk.agent, call_id, "abusive"))[0] == 200
                    await asyncio.sleep(0.05)
            command = detector.commands[0]
            told = len(detector.commands)
            assert (command.call_id, command.action) == (call_id, Action.ABUSIVE)
            await act(desk, desk.agent, call_id, "help")
            status, body = await act(desk, desk.supervisor, call_id, "abusive")
            assert (status, body["type"]) == (403, "urn:callshield:problem:role")
            bridge.end_call(call_id)
            await console.until("call.ended")
            assert (await act(desk, desk.agent, call_id, "abusive"))[0] == 409
            assert len(detector.commands) == told
        assert [c.action for c in bridge.commands] == [Action.HELP], "no business of the bridge"


@pytest.mark.parametrize("action", ["help", "hand_over", "soften", "levelling", "start_recording"])
async def test_what_concerns_the_agent_alone_no_supervisor_does(
    tmp_path: Path, action: str
) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        call_id = bridge.start_call()
        await console.until("call.answered")
        await act(desk, desk.agent, call_id, "help")
        before = len(bridge.commands)
        status, body = await act(desk, desk.supervisor, call_id, action)
        assert (status, body["type"]) == (403, "urn:callshield:problem:role")
        assert len(bridge.commands) == before
        assert (await act(desk, desk.agent, call_id, action))[0] == 200
        assert (await act(desk, desk.agent, call_id, "join"))[0] == 403
        assert (await act(desk, desk.agent, call_id, "join", target="a b"))[0] == 422


async def test_a_bridge_that_comes_back_is_told_what_it_may_have_missed(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.console(desk.agent) as console:
        async with desk.bridge() as bridge:
            bridge.answer = lambda command: None  # it dies before it answers
            call_id, calm = bridge.start_call(), bridge.start_call()
            async with desk.bridge("detector") as detector:
                detector.calls = bridge.calls
                detector.risk(call_id, 3)
                await console.until("risk.changed")
            assert [level.level for level in bridge.levels] == [3]
            await act(desk, desk.agent, call_id, "help")
            (first,) = bridge.commands
        await console.until("node.degraded", component="bridge", degraded=True)
        again = desk.bridge()
        again.calls, again.answered = bridge.calls, {call_id, calm}
        async with again:
            async with asyncio.timeout(30):
                while not (again.commands and again.levels):
                    again.asked.clear()
                    await again.asked.wait()
            assert again.commands == [first]
            assert [(m.call_id, m.level) for m in again.levels] == [(call_id, 3)]
        # What it answered is not said a third time.
        async with desk.bridge() as third:
            third.calls, third.answered = bridge.calls, {call_id, calm}
            await act(desk, desk.agent, call_id, "warn")
            assert [c.action for c in third.commands] == [Action.WARN]


async def test_who_sees_the_helper_and_the_ear(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as agent,
        desk.console(desk.other) as other,
        desk.console(desk.supervisor) as supervisor,
    ):
        call_id = bridge.start_call()
        now = 1.0
        bridge.send(EarChanged(ts=now, call_id=call_id, softening=True, levelling=True))
        bridge.send(RecordingChanged(ts=now, call_id=call_id, state="paused"))
        bridge.send(
            HelperChanged(
                ts=now, call_id=call_id, agent_id="1001", state="joined", role="supervisor"
            )
        )
        bridge.end_call(call_id)
        bridge.send(
            MediaQuality(
                ts=now,
                call_id=call_id,
                leg=LegName.AGENT,
                mos=4.1,
                loss_pct=0.0,
                jitter_ms=1.0,
                rtt_ms=-1.0,
            )
        )
        marker = bridge.start_call("1002")
        await supervisor.until("call.started", call_id=marker)
        await other.until("call.started", call_id=marker)
        await agent.until("media.quality")
        assert {"ear.changed", "recording.changed", "helper.changed"} <= {
            m["type"] for m in agent.seen
        }
        seen = {m["type"] for m in supervisor.seen}
        assert "helper.changed" in seen
        assert not {"ear.changed", "recording.changed", "media.quality"} & seen
        assert {m["call_id"] for m in other.seen if "call_id" in m} == {marker}


async def test_requests_without_a_good_token_learn_nothing(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.bridge() as bridge:
        call_id = bridge.start_call()
        expired = await asyncio.to_thread(
            create_token, desk.settings, "admin", "old", expires=timedelta(microseconds=1)
        )
        bodies = set()
        for token in (None, "cs_forged", expired):
            async with desk.http(token) as http:
                for path in ("calls", "alerts", "node", f"calls/{call_id}/actions"):
                    send = http.post if path.endswith("actions") else http.get
                    answer = await send(f"/api/v1/{path}")
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"].startswith("Bearer")
                    bodies.add(answer.text)
        assert len(bodies) == 1
        async with desk.http(desk.agent) as http:
            assert (await http.get("/api/v1/calls")).status_code == 200


async def test_bodies_too_large_or_malformed_get_a_problem(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.http(desk.agent) as http:
        url = f"/api/v1/calls/{new_call_id()}/actions"

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b" " * 1024

        cases: list[tuple[int, object]] = [
            (413, b" " * (10 * 1024 * 1024)),
            (413, pieces()),
            (400, b'{"action": '),
            (422, b'{"action": "listen"}'),
            (422, b'{"action": "end", "extra": 1}'),
            (422, b"[]"),
            (422, b'"\xff"'.decode("latin-1").encode()),
        ]
        for status, body in cases:
            answer = await http.post(
                url,
                content=body,  # type: ignore[arg-type]
                headers={"Content-Type": "application/json"},
            )
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert "listen" not in answer.text
        assert (await http.post("/api/v1/calls/XYZ/actions", json={})).status_code == 422
        assert (await http.get("/nowhere")).headers["content-type"] == "application/problem+json"
        assert (await http.put("/api/v1/calls")).status_code == 405


async def test_every_answer_carries_the_security_headers(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.http(desk.agent) as http:
        for path in ("/agent", "/supervisor", "/docs", "/console/page.js", "/api/v1/calls", "/x"):
            answer = await http.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "//" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await http.get("/api/v1/calls")).headers["cache-control"] == "no-store"
        foreign = await http.get("/api/v1/calls", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
        assert "access-control-allow-origin" not in foreign.headers


async def test_metrics_name_no_agent_and_no_call(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        call_id = bridge.start_call("1001")
        await console.until("call.answered")
        await act(desk, desk.agent, call_id, "warn")
        async with desk.http() as http:
            page = (await http.get("/metrics")).text
        assert 'callshield_actions_total{action="warn",status="done"} 1.0' in page
        assert "callshield_live_calls 1.0" in page
        # Labels, not the whole page: a figure (seconds, bytes) may happen to hold these digits.
        labels = [
            value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            for value in sample.labels.values()
        ]
        assert "warn" in labels
        assert not [value for value in labels if "1001" in value or call_id in value]


def _fields(struct: Any) -> list[str]:
    return [field.name for field in msgspec.structs.fields(struct)]


AUDIO_WORDS = ("audio", "listen", "payload_data", "pcm", "wav", "stream", "recording", "spy")


async def test_no_route_and_no_message_to_a_console_carries_audio(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk:
        node = Node(desk.settings)
        app = build_app(node)
        await node.store.close()
        async with desk.http() as http:
            paths = (await http.get("/openapi.json")).json()["paths"]
    assert len(paths) >= 8, "the walk has something to walk"
    for path, methods in paths.items():
        assert not any(word in path for word in AUDIO_WORDS), path
        for spec in methods.values():
            for answer in spec["responses"].values():
                for media in answer.get("content", {}):
                    assert media in ("application/json", "application/problem+json", "text/plain")
    mounts = [route for route in app.routes if isinstance(route, Mount)]
    assert [mount.path for mount in mounts] == ["/console"]
    assert {file.suffix for file in CONSOLE.iterdir()} == {".html", ".css", ".js", ".svg"}
    unions: list[Any] = [messages.Event, messages.Command, messages.CommandResult]
    for union in unions:
        for struct in getattr(union, "__args__", (union,)):
            for name in _fields(struct):
                assert not any(word in name for word in AUDIO_WORDS), (struct, name)
            assert bytes not in [f.type for f in msgspec.structs.fields(struct)], struct
    # The control: the walk would notice one.
    assert any(word in "/api/v1/calls/{id}/audio" for word in AUDIO_WORDS)


async def test_the_pages_and_the_schema_are_served_from_here(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk, desk.http() as http:
        for path in ("/agent", "/supervisor", "/docs"):
            page = await http.get(path)
            assert page.status_code == 200
            assert 'src="http' not in page.text
            assert 'href="http' not in page.text
        assert (await http.get("/")).headers["location"] == "/agent"
        schema = (await http.get("/openapi.json")).json()
        assert json.dumps(schema).count("/api/v1/calls/{call_id}/actions") == 1


async def test_a_detector_learns_whose_sound_is_not_judged_after_a_restart(tmp_path: Path) -> None:
    """The store does not keep it: the bridge's snapshot says it again, and the detector hears."""
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as console,
    ):
        plain, relayed = bridge.start_call(), bridge.start_call()
        await console.until("call.answered")
        async with desk.bridge("detector") as detector, asyncio.timeout(30):
            while len(detector.told) < 2:
                detector.told_more.clear()
                await detector.told_more.wait()
            calls = bridge.calls
            calls[relayed] = msgspec.structs.replace(calls[relayed], spared="relay_service")
            bridge.send(bridge.snapshot())
            while len(detector.told) < 3:
                detector.told_more.clear()
                await detector.told_more.wait()
        again = detector.told[2:]
        assert [(m.call_id, getattr(m, "spared", "")) for m in again] == [
            (relayed, "relay_service")
        ]
        assert plain not in {m.call_id for m in again}
