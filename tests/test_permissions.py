"""Roles: every route has its line in one table, every line is held, and nothing leaks between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount
from websockets.exceptions import ConnectionClosed

from callshield.settings import load_settings
from notifier.app import build_app
from notifier.node import Node
from notifier.permissions import OPEN, REFUSALS, ROLES, TABLE, allowed
from notifier.tokens import create_token
from tests.notifier_kit import desk_in_process, new_call_id, write_config


def routes_of(router: Any) -> Iterator[str]:
    """``METHOD path`` of everything that an application answers."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from routes_of(included)
        elif not isinstance(route, Mount):
            methods = (getattr(route, "methods", None) or {"WS"}) - {"HEAD"}
            yield from (f"{method} {route.path}" for method in methods)


def faults(found: set[str]) -> set[str]:
    """Routes without a line, and lines without a route."""
    return found ^ (set(TABLE) | OPEN)


@pytest.fixture
async def app(tmp_path: Path) -> FastAPI:
    node = Node(load_settings(write_config(tmp_path, 8080, OIDC)))
    await node.store.close()
    return build_app(node)


OIDC = ""


async def test_every_route_stands_in_the_table_and_every_line_is_a_route(app: FastAPI) -> None:
    found = set(routes_of(app))
    assert len(found) >= 20, "the walk has something to walk"
    assert faults(found) == set()
    assert set(REFUSALS) <= set(TABLE)
    # Negative control: a new route without a line is seen.
    new = APIRouter(prefix="/api/v1")
    new.add_api_route("/recorded/{call_id}", lambda: None, methods=["GET"])
    app.include_router(new)
    assert faults(set(routes_of(app))) == {"GET /api/v1/recorded/{call_id}"}


async def test_a_route_without_a_line_answers_nobody() -> None:
    assert not any(allowed(role, "GET", "/api/v1/new") for role in ROLES)


def filled(path: str) -> str:
    return path.format(
        agent_id="1001",
        **{
            name: new_call_id()
            for name in (
                "call_id",
                "alert_id",
                "callback_id",
                "draw_id",
                "letter_id",
                "request_id",
            )
        },
    )


async def test_each_role_gets_what_the_table_says_and_nothing_else(tmp_path: Path) -> None:
    async with desk_in_process(tmp_path) as desk:
        for role in ROLES:
            agent_id = "1001" if role == "agent" else None
            token = await asyncio.to_thread(create_token, desk.settings, role, role, agent_id)
            async with desk.http(token) as http:
                for line, may in TABLE.items():
                    method, path = line.split(" ")
                    if method == "WS":
                        continue
                    answer = await http.request(method, filled(path))
                    refused = answer.status_code == 403 and answer.json()["type"].endswith(":role")
                    assert refused == (role not in may), (role, line, answer.text)
                    assert answer.status_code not in (401, 405, 500), (role, line)
            if role in TABLE["WS /api/v1/events"]:
                async with desk.console(token) as console:
                    assert console.ready["role"] == role
            else:
                with pytest.raises(ConnectionClosed) as closed:
                    async with desk.console(token):
                        pass
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4403
        async with desk.http() as http:
            for line in TABLE:
                method, path = line.split(" ")
                if method != "WS":
                    assert (await http.request(method, filled(path))).status_code == 401, line


BODIES = {"actions": {"action": "warn"}, "after": {"action": "abusive"}}


async def test_somebody_elses_call_and_one_that_never_was_look_the_same(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        theirs = bridge.start_call("1002")
        bridge.risk(theirs, 3)
        alert = (await console.until("alert.raised"))["alert_id"]
        bridge.end_call(old := bridge.start_call("1002"))
        await console.until("call.ended")
        calls_made = len(bridge.commands)
        async with desk.http(desk.agent) as http:
            for line in TABLE:
                method, path = line.split(" ")
                if "{call_id}" not in path and "{alert_id}" not in path:
                    continue
                body = BODIES.get(path.rpartition("/")[2], {"verdict": "confirmed"})
                answers = set()
                for call_id, alert_id in (
                    (theirs, alert), (old, alert), (new_call_id(), new_call_id())
                ):  # fmt: skip
                    url = path.format(call_id=call_id, alert_id=alert_id)
                    answer = await http.request(method, url, json=body)
                    answers.add((answer.status_code, answer.text))
                assert len(answers) == 1, line
                assert answers.pop()[0] in (403, 404), line
        assert len(bridge.commands) == calls_made


async def test_the_representative_sees_rules_readings_and_totals_of_five(tmp_path: Path) -> None:
    agents = "".join(
        f'[agents.{number}]\nuri = "sip:{number}@192.0.2.20"\ngroup = "{group}"\n'
        for group, numbers in (("sales", range(2000, 2006)), ("care", range(3000, 3003)))
        for number in numbers
    )
    async with (
        desk_in_process(tmp_path, agents) as desk,
        desk.bridge() as bridge,
        desk.console(desk.supervisor) as console,
    ):
        call_id = bridge.start_call("2000")
        bridge.words(call_id, 2, "욕*")
        await console.until("risk.changed")
        async with desk.http(desk.agent) as agent, desk.http(desk.supervisor) as supervisor:
            own = await asyncio.to_thread(create_token, desk.settings, "agent", "2000", "2000")
            async with desk.http(own) as http, desk.console(own) as screen:
                url = f"/api/v1/calls/{call_id}/actions"
                assert (await http.post(url, json={"action": "help"})).status_code == 200
                await console.until("alert.raised", reason="help")
                shown = (await supervisor.get("/api/v1/calls")).json()["calls"]
                assert "욕*" in json.dumps(shown, ensure_ascii=False)
                read = await screen.until("record.read")
                assert (read["what"], read["by_role"], read["why"], read["call_id"]) == (
                    "words", "supervisor", "help_asked", call_id
                )  # fmt: skip
                bridge.words(call_id, 3, "욕*", "더*")
                await console.until("risk.changed", level=3)
                await supervisor.get("/api/v1/calls")
            assert (await agent.get("/api/v1/oversight/reads")).status_code == 403
        token = await asyncio.to_thread(create_token, desk.settings, "representative", "council")
        async with desk.http(token) as http:
            readings = (await http.get("/api/v1/oversight/reads")).json()["readings"]
            [one] = readings
            assert one["by"] == console.ready["token_id"]
            assert not {"call_id", "agent_id"} & set(one)
            rules = (await http.get("/api/v1/oversight/policies")).json()
            assert rules["retention"]["days"]["words"] == 30
            assert "192.0.2" not in json.dumps(rules)
            chain = (await http.get("/api/v1/oversight/chain")).json()
            assert len(chain["hash"]) == 64
            figures = (await http.get("/api/v1/oversight/figures")).json()
            assert figures == {"days": 28, "groups": []}
        # Once for this token and call, although the words were shown again and again.
        assert sum(m["type"] == "record.read" for m in console.seen) == 0, "no supervisor's news"
        second = await asyncio.to_thread(create_token, desk.settings, "supervisor", "third")
        async with desk.console(second, last_id=0) as replayed, desk.http(token) as http:
            await replayed.until("risk.changed", level=3)
            marker = bridge.start_call()
            await replayed.until("call.started", call_id=marker)
            readings = (await http.get("/api/v1/oversight/reads")).json()["readings"]
            assert {item["by"] for item in readings} == {
                console.ready["token_id"], replayed.ready["token_id"]
            }  # fmt: skip
