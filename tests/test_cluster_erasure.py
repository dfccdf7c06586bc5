"""A call that its node erases: what the other nodes have of it goes too, and does not come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callshield.messages_privacy import RecordingsErased
from notifier import erasing
from notifier.audit import verify
from notifier.cluster import erasures
from notifier.database import place_of
from notifier.tokens import create_token
from tests.cluster_kit import (
    FAST,
    NODES,
    cluster_toml,
    desk_of,
    heard_events,
    two_desks,
    until,
    until_heard,
    write_node,
)
from tests.nats_server import NatsServer
from tests.notifier_kit import Bridge, Console, Desk
from tests.postgres import Database
from tests.store_kit import rows as rows_of

pytestmark = [pytest.mark.postgres, pytest.mark.nats, pytest.mark.timeout(300)]
REF = "R-17"


@pytest.fixture
def bus() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ended is settled at once, and what was erased is looked at often."""
    monkeypatch.setattr(erasing, "SETTLED_S", 0.0)
    monkeypatch.setattr(erasing, "TICK_S", 0.1)
    monkeypatch.setattr(erasures, "_EVERY_S", 0.1)


def of_call(desk: Desk, call_id: str) -> list[str]:
    """Types of the events in a node's record that name a call, in its columns or its text."""
    return [
        row["type"]
        for row in rows_of(place_of(desk.settings))
        if call_id == row["call_id"] or call_id in row["body"]
    ]


def but_steps(types: list[str]) -> list[str]:
    """Without the steps of an alert: nobody takes it, and on a slow machine it makes more."""
    return [one for one in types if one not in ("@alert.escalated", "@alert.unanswered")]


async def one_call(bridge: Bridge, console: Console) -> str:
    """A whole call with words, which a console has seen."""
    call_id = bridge.start_call("1001")
    bridge.notice(call_id)
    bridge.words(call_id, 2, "씨*")
    await console.until("alert.raised", call_id=call_id)
    bridge.end_call(call_id)
    await console.until("call.ended", call_id=call_id)
    return call_id


async def asked(desk: Desk, token: str, what: str, call_id: str) -> tuple[int, dict[str, Any]]:
    async with desk.http(token) as http:
        body = {"call_id": call_id, "ref": REF}
        answer = await http.post(f"/api/v1/privacy/{what}", json=body)
        return answer.status_code, answer.json()


async def gone_there(desk: Desk, call_id: str) -> None:
    """Until a node has nothing of a call but the record of its erasure."""

    async def gone() -> bool:
        return set(await asyncio.to_thread(of_call, desk, call_id)) == {"call.erased"}

    await until(gone)


async def chain_is_whole(desk: Desk, erased: int) -> None:
    verdict = await asyncio.to_thread(verify, place_of(desk.settings))
    assert verdict.faults == []
    assert verdict.erased >= erased


async def test_an_erasure_reaches_the_copies_of_other_nodes(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    async with (
        two_desks(tmp_path, cluster_database, bus) as (a, b),
        a.bridge() as idle,
        b.bridge() as bridge,
        a.console(a.supervisor) as console,
    ):
        call_id, other = await one_call(bridge, console), await one_call(bridge, console)
        await until_heard(a, b)
        copies = but_steps(of_call(a, call_id))
        assert len(copies) >= 5
        assert all(kind.startswith("@") for kind in copies)
        admin = await asyncio.to_thread(create_token, a.settings, "admin", "privacy desk")
        # Where only copies are, nobody is answered as if they were all there is.
        for what in ("access", "erase"):
            code, problem = await asked(a, admin, what, call_id)
            assert code == 409, problem
            assert "node-b" in problem["detail"]
        assert but_steps(of_call(a, call_id)) == copies
        code, given = await asked(b, admin, "access", call_id)
        assert (code, given["outcomes"][0]["outcome"]) == (200, "given")
        code, answer = await asked(b, admin, "erase", call_id)
        assert (code, answer["outcomes"][0]["outcome"]) == (200, "erased"), answer
        await gone_there(a, call_id)
        (record,) = [
            json.loads(row["body"])
            for row in rows_of(place_of(a.settings))
            if row["type"] == "call.erased"
        ]
        assert (record["ref"], record["by_role"], record["by"]) == (REF, "node", "node-b")
        await chain_is_whole(a, len(copies))
        # Negative control: the caller who did not ask is still there.
        assert but_steps(of_call(a, other)) == copies
        # Asked for there once more, now that nothing is left.
        idle.erased = lambda call_id: RecordingsErased(call_id=call_id, files=0)
        code, answer = await asked(a, admin, "erase", call_id)
        assert (code, answer["outcomes"][0]["outcome"]) == (200, "already"), answer


async def after_an_absence(folder: Path, database: Database, bus: NatsServer) -> tuple[str, str]:
    """Node a is away while node b has two calls and erases one; the id of that one, and all that a
    console of node a was told when it was back."""
    cluster = cluster_toml([bus.url], FAST)
    configs = [write_node(folder / name, name, database, cluster) for name in NODES]
    async with desk_of(configs[0]) as a, desk_of(configs[1]) as b:
        # Both have said that they are here: from now on each is told of the other.
        async with b.bridge() as bridge, a.console(a.supervisor) as console:
            await one_call(bridge, console)
        await until_heard(a, b)
        admin = await asyncio.to_thread(create_token, b.settings, "admin", "privacy desk")
    async with (
        desk_of(configs[1]) as b,
        b.bridge() as bridge,
        b.console(b.supervisor) as console,
    ):
        erased, kept = await one_call(bridge, console), await one_call(bridge, console)

        async def on_the_bus() -> bool:
            async with b.http() as http:
                page = (await http.get("/metrics")).text
            return "callshield_cluster_outbox_events 0.0" in page

        await until(on_the_bus)
        code, answer = await asked(b, admin, "erase", erased)
        assert (code, answer["outcomes"][0]["outcome"]) == (200, "erased"), answer
        async with desk_of(configs[0]) as a, a.console(a.supervisor, 0) as late:
            # The call that was kept came after the other one.
            await late.until("call.ended", call_id=kept)
            assert len([one for one in heard_events(a) if one[1] == kept]) >= 5
            return erased, json.dumps(late.seen)


async def test_who_was_away_is_not_told_of_what_was_erased_meanwhile(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    erased, told = await after_an_absence(tmp_path, cluster_database, bus)
    assert erased not in told


async def test_control_the_stream_still_has_what_was_erased(
    tmp_path: Path,
    cluster_database: Database,
    bus: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who did not ask what is erased would tell it."""

    async def none(self: object, call_ids: object) -> set[str]:
        return set()

    monkeypatch.setattr(erasures.Erasures, "gone", none)
    erased, told = await after_an_absence(tmp_path, cluster_database, bus)
    assert erased in told
