"""Whoever reached the bus: nothing of theirs is believed, everything of theirs is counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client

from callshield.messages_cluster import MAX_BYTES, MAX_EVENTS
from notifier.cluster.proof import HEADER, proof
from notifier.database import place_of, transact
from notifier.schema import tokens
from notifier.tokens import create_token, digest, revoke_token
from tests.cluster_kit import (
    heard_events,
    two_desks,
    until,
    until_heard,
    until_joined,
    until_listed,
)
from tests.nats_server import NatsServer
from tests.notifier_kit import Desk
from tests.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.nats, pytest.mark.timeout(300)]
EVENTS, BEAT = "callshield.events.", "callshield.beat."


@pytest.fixture
def bus() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.remove()


@contextlib.asynccontextmanager
async def stranger(bus: NatsServer) -> AsyncIterator[Client]:
    """Somebody who has got onto the bus."""
    client = await nats.connect(bus.url)
    try:
        yield client
    finally:
        await client.close()


async def refused(desk: Desk, reason: str) -> int:
    """How many messages a node has refused for a reason."""
    async with desk.http() as http:
        page = (await http.get("/metrics")).text
    name = f'callshield_cluster_refused_total{{reason="{reason}"}} '
    return next((int(float(x.removeprefix(name))) for x in page.splitlines() if name in x), 0)


def body(call_id: str, **fields: Any) -> msgspec.Raw:
    event = {
        "type": "risk.changed", "ts": time.time(), "call_id": call_id, "level": 3, "previous": 0,
        "categories": ["profanity"], "score": 0.9,
        "reasons": [{"kind": "words", "score": 0.9, "words": ["geheim"]}], **fields,
    }  # fmt: skip
    return msgspec.Raw(msgspec.json.encode(event))


def batch(node: str, event_id: int, *events: msgspec.Raw, **fields: Any) -> bytes:
    numbered = [
        {"id": event_id + at, "agent_id": "1001", "event": event} for at, event in enumerate(events)
    ]
    given = {
        "v": 1, "node": node, "boot": "c" * 16, "epoch": 2**50, "first": 0,
        "last": event_id + len(events), "as_of": event_id, "events": numbered, **fields,
    }  # fmt: skip
    return msgspec.json.encode(given)


async def test_messages_that_cannot_be_believed_are_refused_and_counted(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    call_id = uuid.uuid4().hex
    good = batch("node-b", 1, body(call_id))
    async with two_desks(tmp_path, cluster_database, bus) as (a, b), stranger(bus) as client:
        js = client.jetstream()
        lies: list[tuple[str, str, bytes]] = [
            ("schema", "node-b", b""),
            ("schema", "node-b", b"\xff\x00" * 50),
            ("schema", "node-b", b"[" * 100_000),
            ("schema", "node-b", good.replace(b'"v":1', b'"v":2')),
            ("schema", "node-b", batch("node-b", 1, *[body(call_id)] * (MAX_EVENTS + 1))),
            (
                "schema",
                "node-b",
                good.replace(b'"agent_id":"1001"', b'"agent_id":"' + b"9" * 99 + b'"'),
            ),
            ("wrong_node", "node-b", batch("node-a", 1, body(call_id))),
            ("wrong_node", "node-b", batch("node-x", 1, body(call_id))),
            ("unknown_node", "node-x", batch("node-x", 1, body(call_id))),
        ]
        for _, sender, data in lies:
            await js.publish(EVENTS + sender, data)
        expected = {why: sum(one[0] == why for one in lies) for why in {one[0] for one in lies}}

        async def counted() -> bool:
            return all([await refused(a, why) >= n for why, n in expected.items()])

        await until(counted)
        # Beyond what the stream takes, NATS itself refuses.
        with pytest.raises(nats.js.errors.APIError):
            await js.publish(EVENTS + "node-b", b"x" * (MAX_BYTES + 1))
        for data in (b"{}", b'{"v":1}', b"\x00"):
            await client.publish(BEAT + "node-b", data)
        await client.publish(BEAT + "node-x", b"{}")
        async with b.bridge() as bridge:
            # Control: what is true still comes through, after and between all that.
            true = bridge.start_call("1001")
            await until_listed(a, "calls", "calls", 1)
            await until_heard(a, b)
            assert {call for _, call, _ in heard_events(a)} == {true}
            bridge.end_call(true)
            await until_listed(a, "calls", "calls", 0)
        assert await refused(a, "schema") >= expected["schema"] + 3


async def test_even_a_node_that_lies_shows_no_words_and_makes_nobody_act(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    """A believable message with what must not travel: words, the agent's own, our call's level."""
    async with (
        two_desks(tmp_path, cluster_database, bus) as (a, _b),
        stranger(bus) as client,
        a.bridge() as bridge,
        a.console(a.supervisor) as console,
    ):
        own = bridge.start_call("1001")
        foreign = uuid.uuid4().hex
        await console.until("call.started", call_id=own)
        await client.jetstream().publish(
            EVENTS + "node-b",
            batch(
                "node-b",
                1,
                body(foreign),
                body(own),
                msgspec.Raw(b'{"type":"rest.changed","ts":1,"agent_id":"1001","call_id":"x"}'),
                msgspec.Raw(b'{"type":"warning.played"}'),
                msgspec.Raw(b'{"type":"of a later version"}'),
                # What the database would refuse, again and again.
                body("x" * 33),
                body("\x00"),
                body(foreign, categories=["\x00"]),
                msgspec.Raw(
                    b'{"type":"alert.raised","ts":1,"alert_id":"'
                    + b"f" * 32
                    + b'","call_id":"","agent_id":"","kind":"help","level":3}'
                ),
            ),
        )
        level = await console.until("risk.changed", call_id=foreign)
        assert level["node"] == "node-b"
        assert "geheim" not in str(level)
        alert = await console.until("alert.raised", alert_id="f" * 32)
        assert alert["node"] == "node-b"
        assert await refused(a, "event") == 5
        # Our own call is as it was, and nobody is called for what another node says.
        async with a.http(a.supervisor) as http:
            calls = (await http.get("/api/v1/calls")).json()["calls"]
            assert [(one["call_id"], one["level"]) for one in calls] == [(own, 0)]
        assert bridge.levels == []
        page = (await a.http().get("/metrics")).text
        assert "callshield_open_alerts 0.0" in page
        assert "geheim" not in (tmp_path / "node-a" / "callshield.toml").read_text()


def request(sender: str, to: str, **fields: Any) -> dict[str, Any]:
    return {
        "v": 1, "id": uuid.uuid4().hex, "node": sender, "to": to, "ts": time.time(), **fields
    }  # fmt: skip


async def test_a_wish_without_the_persons_token_is_none(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    async with (
        two_desks(tmp_path, cluster_database, bus) as (_a, b),
        stranger(bus) as client,
        b.bridge() as bridge,
        b.http(b.agent) as agent,
    ):
        await until_joined(b)
        call_id = bridge.start_call("1001")

        async def begun() -> bool:
            helped = await agent.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            return helped.status_code == 200

        await until(begun)
        known = {"supervisor": b.supervisor, "agent": b.agent, "other": b.other}
        ids = transact(
            place_of(b.settings),
            lambda connection: {
                row.sha256: row.token_id for row in connection.execute(tokens.select())
            },
        )
        subject = "callshield.ask.node-b.node-a"

        async def wish(
            who: str, *, sha256: str = "", on: str = subject, within_s: float = 30, **fields: Any
        ) -> Any:
            asked = {"op": "act", "of": call_id, "body": {"action": "end"}, **fields}
            asked = request("node-a", "node-b", token_id=ids[digest(known[who])], **asked)
            data = msgspec.json.encode(asked)
            headers = {HEADER: proof(sha256 or digest(known[who]), on, data)}
            try:
                reply = await client.request(subject, data, timeout=within_s, headers=headers)
            except nats.errors.TimeoutError:
                return "no answer"
            again = await quiet(client, subject, data, headers)
            assert again == "no answer", "a request is good once"
            return msgspec.json.decode(reply.data)["status"]

        assert await wish("supervisor", sha256="0" * 64) == 401
        assert await wish("supervisor", sha256=digest(known["agent"])) == 401
        assert await wish("supervisor", on="callshield.ask.node-c.node-a") == 401
        assert await wish("other") == 404, "another agent's call does not exist for him"
        assert await wish("other", op="words", body={}, of="") == 403
        assert await wish("agent", op="acknowledge", of="f" * 32, body={}) == 403
        lies: list[dict[str, Any]] = [{"ts": time.time() + s} for s in (-3600, 3600)]
        for lie in (*lies, {"node": "node-b"}):
            assert await wish("supervisor", within_s=2, **lie) == "no answer"
        assert await wish("supervisor", body={"action": "help"}) == 403
        assert await wish("supervisor", body={"action": "format the disk"}) == 422
        assert await wish("supervisor", body={"action": "end", "more": 1}) == 422
        assert bridge.commands == [one for one in bridge.commands if one.action == "help"]
        gone = create_token(b.settings, "supervisor", "gone")
        known["gone"] = gone
        ids[digest(gone)] = transact(
            place_of(b.settings),
            lambda connection: connection.scalar(
                tokens.select()
                .with_only_columns(tokens.c.token_id)
                .where(tokens.c.sha256 == digest(gone))
            ),
        )
        # Control: a good token does it, and the same one when it is revoked does not.
        assert await wish("gone", body={"action": "warn"}) == 200
        assert bridge.commands[-1].action == "warn"
        assert await asyncio.to_thread(revoke_token, b.settings, ids[digest(gone)])
        assert await wish("gone", body={"action": "warn"}) == 401
        assert await refused(b, "proof") == 4
        # How the floor stands any node is told; never a word.
        state = await client.request(
            subject, msgspec.json.encode(request("node-a", "node-b", op="state")), timeout=30
        )
        assert call_id.encode() in state.data
        assert b"reasons" not in state.data


async def quiet(client: Client, subject: str, data: bytes, headers: dict[str, str]) -> str:
    try:
        await client.request(subject, data, timeout=0.5, headers=headers)
    except nats.errors.TimeoutError:
        return "no answer"
    return "answered"
