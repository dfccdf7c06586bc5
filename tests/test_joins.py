"""Who came into calls: read from the log, and whether the agent had asked."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from callshield.cli import app
from callshield.messages import HelperChanged
from notifier.joins import joins, unasked
from notifier.tokens import create_token
from tests.notifier_kit import Bridge, desk_in_process


def log(*bodies: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return [
        (number, {"ts": float(number), "call_id": "c", "agent_id": "1001", **body})
        for number, body in enumerate(bodies, start=1)
    ]


STARTED = {"type": "call.started"}
ASKED = {"type": "alert.raised", "kind": "help"}
RISK = {"type": "alert.raised", "kind": "risk"}
ENDED = {"type": "call.ended"}


def helper(state: str, by: str = "supervisor:t1", **more: Any) -> dict[str, Any]:
    told = {"role": "supervisor", "helper_id": "lee", "by": by, "asked_ts": 2.0}
    return {"type": "helper.changed", "state": state, **told, **more}


def test_lines_of_the_log_become_one_a_person() -> None:
    found = joins(
        log(
            STARTED,
            ASKED,
            helper("calling"),
            helper("joined"),
            helper("left"),
            helper("calling", "agent:console"),
            helper("unreachable", "agent:console"),
            helper("calling", "agent:dtmf", role="manager", helper_id="kim"),
            helper("took_over", "agent:dtmf", role="manager", helper_id="kim"),
        )
    )
    assert [(one.how, one.helper_id, one.ts, one.left_ts) for one in found] == [
        ("joined", "lee", 4.0, 5.0),
        ("took_over", "kim", 9.0, None),
    ]
    assert found[0].asked_ts == 2.0


def test_an_event_of_an_older_version_says_not_when_it_was_asked_for() -> None:
    body = helper("joined")
    del body["asked_ts"]
    [one] = joins(log(STARTED, ASKED, body))
    assert one.asked_ts == 0.0


@pytest.mark.parametrize(
    ("bodies", "wrong"),
    [
        ((STARTED, ASKED, helper("joined")), []),
        ((STARTED, helper("joined")), [2]),
        ((STARTED, RISK, helper("joined")), [3]),
        # One request lets one person in.
        ((STARTED, ASKED, helper("joined"), helper("left"), helper("joined")), [5]),
        ((STARTED, ASKED, helper("joined"), helper("left"), ASKED, helper("joined")), []),
        # Who could not be reached used up nothing.
        ((STARTED, ASKED, helper("unreachable"), helper("joined")), []),
        # Asked for after it happened.
        ((STARTED, helper("joined"), ASKED), [2]),
        ((STARTED, helper("took_over", "agent:console")), []),
        ((STARTED, helper("took_over", "supervisor:t1")), [2]),
        # Another call's request.
        ((STARTED, {**ASKED, "call_id": "d"}, helper("joined")), [3]),
        # Its beginning was deleted: nothing can be said.
        ((helper("joined"),), []),
    ],
)
def test_who_came_without_a_request_is_found(bodies: tuple[Any, ...], wrong: list[int]) -> None:
    assert unasked(log(*bodies)) == wrong


def changed(bridge: Bridge, call_id: str, state: str, by: str, asked_ts: float) -> None:
    bridge.send(
        HelperChanged(
            ts=time.time(),
            call_id=call_id,
            agent_id=bridge.agent(call_id),
            state=state,  # type: ignore[arg-type]
            role="supervisor",
            helper_id="lee",
            by=by,
            asked_ts=asked_ts,
        )
    )


async def test_the_agent_reads_who_and_oversight_reads_that(tmp_path: Path) -> None:
    async with (
        desk_in_process(tmp_path) as desk,
        desk.bridge() as bridge,
        desk.console(desk.agent) as screen,
        desk.http(desk.agent) as own,
        desk.http(desk.other) as other,
        desk.http(desk.supervisor) as supervisor,
    ):
        call_id = bridge.start_call()
        await own.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
        token_id = (await supervisor.get("/api/v1/node")).json()["token_id"]
        asked = time.time()
        changed(bridge, call_id, "joined", f"supervisor:{token_id}", asked)
        changed(bridge, call_id, "left", f"supervisor:{token_id}", asked)
        await screen.until("helper.changed", state="left")
        [one] = (await own.get("/api/v1/me/joined")).json()["joins"]
        assert (one["call_id"], one["how"], one["helper_id"]) == (call_id, "joined", "lee")
        assert (one["by"], one["by_name"]) == (token_id, "first")
        assert one["asked_ts"] == pytest.approx(asked)
        assert one["ts"] < one["left_ts"]
        assert (await other.get("/api/v1/me/joined")).json() == {"joins": []}
        for path in ("/api/v1/me/joined", "/api/v1/oversight/joins"):
            assert (await supervisor.get(path)).status_code == 403
        for role in ("representative", "auditor", "admin"):
            token = await asyncio.to_thread(create_token, desk.settings, role, role)
            async with desk.http(token) as http:
                [seen] = (await http.get("/api/v1/oversight/joins")).json()["joins"]
                assert not {"call_id", "agent_id", "by_name"} & set(seen)
                assert seen["by"] == token_id
        # Now one whom nobody asked for, as a broken bridge would say it.
        changed(bridge, call_id, "joined", f"supervisor:{token_id}", 0.0)
        await screen.until("helper.changed", state="joined")
        config = str(tmp_path / "callshield.toml")
        listed = await asyncio.to_thread(
            CliRunner().invoke, app, ["audit", "joins", "--json", "--config", config]
        )
    assert listed.exit_code == 1
    lines = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [line["asked"] for line in lines] == [True, False], "the second is found"
    said = CliRunner().invoke(app, ["audit", "joins", "--config", config])
    assert said.stdout.count("NOBODY ASKED") == 1
    assert call_id in said.stdout
