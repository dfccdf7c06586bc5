"""What breaks between two nodes: a node, the bus's memory, a store that went back, an outbox that
is full; and that each alert still calls somebody once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from callshield.cluster_command import examine_cluster, look
from callshield.errors import CallshieldError, SetupError
from callshield.settings import load_settings
from notifier.backup import read_backup, write_backup
from notifier.database import place_of
from tests.cluster_kit import (
    FAST,
    NODES,
    all_heard,
    cluster_toml,
    desk_of,
    heard_events,
    migrated,
    own_events,
    two_desks,
    until,
    until_heard,
    until_listed,
    write_node,
)
from tests.nats_server import NatsServer
from tests.notifier_kit import Desk, Process, _answers
from tests.postgres import Cluster, Database
from tests.receiver import Receiver

# A busy machine takes its time to start two nodes.
pytestmark = [pytest.mark.postgres, pytest.mark.nats, pytest.mark.timeout(300)]


@pytest.fixture
def bus() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.remove()


class NodeProcess(Process):
    """A node's notifier in a process of its own, to be killed."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.desk = Desk(load_settings(config))
        self.process = None

    async def begin(self) -> None:
        with (self.config.parent / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "notifier.process", "--config", str(self.config)),
                stderr=log,
            )
        await _answers(self.desk)


@contextlib.asynccontextmanager
async def desk_and_process(
    folder: Path, database: Database, bus: NatsServer, more: str = FAST
) -> AsyncIterator[tuple[Desk, NodeProcess]]:
    """Node a in this process, node b in one of its own."""
    cluster = cluster_toml([bus.url], more)
    configs = [write_node(folder / name, name, database, cluster) for name in NODES]
    other = NodeProcess(configs[1])
    async with desk_of(configs[0]) as desk:
        await other.begin()
        try:
            yield desk, other
        finally:
            if other.process is not None and other.process.returncode is None:
                await other.end(signal.SIGTERM)


async def until_up(desk: Desk, node: str) -> None:
    """Until a node is seen by another one."""

    async def seen() -> bool:
        async with desk.http() as http:
            page = (await http.get("/metrics")).text
        return f'callshield_cluster_node_up{{node="{node}"}} 1.0' in page

    await until(seen)


async def test_a_killed_node_is_an_alert_that_somebody_must_take(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    async with (
        desk_and_process(tmp_path, cluster_database, bus) as (a, b),
        a.console(a.supervisor) as console,
        a.http(a.supervisor) as http,
    ):
        await until_up(a, "node-b")
        async with b.desk.bridge() as bridge:
            call_id = bridge.start_call("1001")
            await console.until("call.started", call_id=call_id)
        began = time.monotonic()
        await b.end(signal.SIGKILL)
        silent = await console.until("node.degraded", component="node:node-b")
        assert silent["degraded"]
        alert = await console.until("alert.raised")
        print(f"the alert came {time.monotonic() - began:.1f} s after kill -9 (dead_after_s = 4)")
        assert (alert["kind"], alert["reason"], alert["call_id"]) == (
            "node",
            "node_away:node-b",
            "",
        )
        assert "node" not in alert, "it is this node's own"
        step = await console.until("alert.escalated", alert_id=alert["alert_id"])
        assert step["step"] == 1
        calls = (await http.get("/api/v1/calls")).json()["calls"]
        assert [(one["call_id"], one["unreachable"]) for one in calls] == [(call_id, True)]
        act = await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "warn"})
        assert (act.status_code, act.json()["type"]) == (503, "urn:callshield:problem:node_away")
        path = f"/api/v1/alerts/{alert['alert_id']}/acknowledge"
        assert (await http.post(path)).status_code == 200
        assert (await http.post(path)).status_code == 409
        # It comes back: its calls ended with it, and that is told as it should be.
        await b.begin()
        await console.until("node.degraded", component="node:node-b", degraded=False)
        async with b.desk.bridge():
            ended = await console.until("call.ended", call_id=call_id)
            assert (ended["reason"], ended["node"]) == ("lost", "node-b")
        await until_listed(a, "calls", "calls", 0)
        # A clean stop is no death.
        assert await b.end(signal.SIGTERM) == 0
        stopped = await console.until("node.degraded", component="node:node-b")
        assert stopped["reason"] == "stopped"
        await asyncio.sleep(5)  # longer than dead_after_s: nothing must come
        assert (await http.get("/api/v1/alerts")).json()["alerts"] == []
        # Control, and another death: another alert.
        await b.begin()
        await console.until("node.degraded", component="node:node-b", degraded=False)
        await b.end(signal.SIGKILL)
        again = await console.until("alert.raised", reason="node_away:node-b")
        assert again["alert_id"] != alert["alert_id"]


async def test_an_alert_calls_people_once_and_those_at_the_other_node_too(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    receiver = Receiver()
    await receiver.start()
    secret = tmp_path / "webhook.secret"
    secret.write_text("whsec_" + "QUFB" * 10 + "\n")
    secret.chmod(0o600)
    extra = f"""
[supervisors.kim]
uri = "sip:kim@192.0.2.30"
[supervisors.lee]
uri = "sip:lee@192.0.2.31"
[teams.floor]
supervisors = ["lee", "kim"]
order = "fixed"
next_after_s = 60
[webhooks.crm]
url = "http://127.0.0.1:{receiver.port}/hook"
secret_file = "{secret}"
events = ["alert.raised", "alert.escalated", "alert.acknowledged"]
"""
    agents = 'team = "floor"'
    from notifier.tokens import create_token

    cluster = cluster_toml([bus.url])
    configs = [
        write_node(tmp_path / name, name, cluster_database, cluster, extra, agents)
        for name in NODES
    ]
    async with desk_of(configs[0]) as a, desk_of(configs[1]) as b:
        kim = create_token(a.settings, "supervisor", "kim", supervisor_id="kim")
        async with (
            b.bridge() as bridge,
            a.console(kim) as console,
            a.http(kim) as http,
            b.http(b.agent) as agent,
        ):
            call_id = bridge.start_call("1001")
            await console.until("call.started", call_id=call_id)
            # Node b hears in a heartbeat that kim's console is open at node a.
            await until_asked(b, "kim")
            await agent.post(f"/api/v1/calls/{call_id}/actions", json={"action": "help"})
            raised = await console.until("alert.raised", call_id=call_id)
            step = await console.until("alert.escalated", alert_id=raised["alert_id"])
            assert (step["stage"], step["to"]) == ("person", ["kim"]), "lee has no console open"
            accepted = await http.post(
                f"/api/v1/alerts/{raised['alert_id']}/accept", json={"how": "join"}
            )
            assert accepted.status_code == 200, accepted.text
            assert accepted.json()["supervisor_id"] == "kim"
            assert bridge.commands[-1].target == "kim"
            await console.until("alert.acknowledged", alert_id=raised["alert_id"])
            await until_heard(a, b)
            letters = await receiver.until(3)
    kinds = sorted(one.event["type"] for one in letters)
    assert kinds == ["alert.acknowledged", "alert.escalated", "alert.raised"]
    assert {one.letter_id for one in receiver.got} == {one.letter_id for one in letters}
    await receiver.stop()


async def until_asked(desk: Desk, supervisor: str) -> None:
    async def known() -> bool:
        status = await look(desk.settings)
        return sum(row.consoles for row in status.nodes) > 0

    await until(known)
    await asyncio.sleep(0.7)  # two heartbeats: the other node has heard it as well


async def test_an_outbox_that_is_full_says_what_it_leaves_out(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    more = FAST + "outbox_limit = 100\n"
    async with two_desks(tmp_path, cluster_database, bus, more) as (a, b):  # noqa: SIM117
        async with b.bridge() as bridge, a.console(a.supervisor) as console:
            first = bridge.start_call("1001")
            await console.until("call.started", call_id=first)
            await until_listed(a, "calls", "calls", 1)
            await asyncio.to_thread(bus.stop)
            bridge.end_call(first)
            kept = bridge.start_call("1002")
            bridge.notice(kept)
            bridge.risk(kept, 3)
            for _ in range(60):
                call_id = bridge.start_call("1001")
                bridge.notice(call_id)
                bridge.end_call(call_id)
            last = bridge.start_call("1001")

            async def all_stored() -> bool:
                told = own_events(b)
                return ("call.answered", last) in [(kind, call) for kind, call, _ in told]

            await until(all_stored)
            await asyncio.to_thread(bus.start)
            await console.until("call.answered", call_id=last)
            own: list[tuple[str, str, float]] = []
            heard: list[tuple[str, str, float]] = []
            left_out = 0.0

            async def nothing_under_way() -> bool:
                # Whoever is told of the alert again is an event, at any time.
                nonlocal own, heard, left_out
                own, heard = own_events(b), heard_events(a)
                page = (await b.http().get("/metrics")).text
                left_out = metric(page, "callshield_cluster_events_left_out_total")
                return heard[-1] == own[-1] and own == own_events(b)

            await until(nothing_under_way)
            # Nothing came that was not there, in its order, once; and what is missing was counted.
            assert len(set(heard)) == len(heard)
            assert [one for one in own if one in set(heard)] == heard
            assert len(own) - len(heard) == left_out > 50
            missing = {kind for kind, _, _ in set(own) - set(heard)}
            assert not any(kind.startswith("alert.") for kind in missing)
            assert "call.ended" not in missing
            assert "call.started" in missing
            # And yet what is true now is known.
            calls = await until_listed(a, "calls", "calls", 2)
            assert {one["call_id"] for one in calls} == {kept, last}
            levels = {one["call_id"]: one["level"] for one in calls}
            assert levels[kept] == 3
            alerts = await until_listed(a, "alerts", "alerts", 1)
            assert alerts[0]["call_id"] == kept


def metric(page: str, name: str) -> float:
    line = next(line for line in page.splitlines() if line.startswith(name + " "))
    return float(line.split()[1])


async def test_what_the_bus_lost_before_it_was_read_is_told_again(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    """Node a is away while node b speaks, and then the bus loses its disk."""
    cluster = cluster_toml([bus.url])
    configs = [write_node(tmp_path / name, name, cluster_database, cluster) for name in NODES]
    async with desk_of(configs[1]) as b, b.bridge() as bridge:
        async with desk_of(configs[0]) as a:
            bridge.start_call("1001")
            await until_heard(a, b)
        bridge.risk(bridge.start_call("1002"), 3)

        async def taken_by_the_bus() -> bool:
            alerted = "alert.raised" in {kind for kind, _, _ in own_events(b)}
            return alerted and (await look(b.settings)).nodes[1].outbox == 0

        await until(taken_by_the_bus)
        assert len(heard_events(a)) < len(own_events(b)), "control: node a has not read it"
        await asyncio.to_thread(bus.stop)
        bus.forget()
        await asyncio.to_thread(bus.start)
        async with desk_of(configs[0]) as a:
            await until_heard(a, b, calls=2, alerts=1)
            assert all_heard(a, b)


async def test_a_bus_that_lost_its_disk_makes_nothing_come_twice(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    async with two_desks(tmp_path, cluster_database, bus) as (a, b):  # noqa: SIM117
        async with a.bridge() as bridge_a, b.bridge() as bridge_b:
            for bridge in (bridge_a, bridge_b):
                bridge.risk(bridge.start_call("1001"), 3)
            await until_heard(a, b, alerts=1)
            await until_heard(b, a, alerts=1)
            await asyncio.to_thread(bus.stop)
            bus.forget()
            for bridge in (bridge_a, bridge_b):
                bridge.risk(bridge.start_call("1002"), 3)
            await asyncio.to_thread(bus.start)
            await until_heard(a, b, calls=2, alerts=2)
            await until_heard(b, a, calls=2, alerts=2)
            assert all_heard(a, b)
            assert all_heard(b, a)
            await until_listed(a, "calls", "calls", 4)
            await until_listed(b, "calls", "calls", 4)


async def test_while_a_nodes_database_is_away_what_it_hears_waits_on_the_bus(
    tmp_path: Path, bus: NatsServer
) -> None:
    server = Cluster()
    await asyncio.to_thread(server.start)
    try:
        database = migrated(tmp_path / "files", server)
        async with two_desks(tmp_path, database, bus) as (a, b):  # noqa: SIM117
            async with a.bridge() as bridge_a, b.bridge() as bridge_b:
                bridge_b.start_call("1001")
                await until_heard(a, b)
                await asyncio.to_thread(server.stop)
                for bridge in (bridge_a, bridge_b):
                    bridge.risk(bridge.start_call("1002"), 3)
                await asyncio.sleep(1)  # nothing can be stored or told
                await asyncio.to_thread(server.start)

                await until_heard(a, b, calls=2, alerts=1)
                await until_heard(b, a, alerts=1)
                assert all_heard(a, b)
                assert all_heard(b, a)
    finally:
        server.remove()


async def test_a_store_that_went_back_begins_a_new_epoch(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    cluster = cluster_toml([bus.url])
    configs = [write_node(tmp_path / name, name, cluster_database, cluster) for name in NODES]
    backup = tmp_path / "node-b.backup"
    async with desk_of(configs[0]) as a:
        async with desk_of(configs[1]) as b, b.bridge() as bridge:
            bridge.start_call("1001")
            await until_heard(a, b)
            await asyncio.to_thread(write_backup, place_of(b.settings), backup)
            for _ in range(5):
                bridge.risk(bridge.start_call("1001"), 3)
            await until_heard(a, b, calls=6, alerts=5)
        before = heard_events(a)
        await asyncio.to_thread(read_backup, place_of(b.settings), backup, force=True)
        async with desk_of(configs[1]) as b, b.bridge() as bridge:
            # Control: its numbers are given a second time.
            assert len(own_events(b)) < len(before)
            call_id = bridge.start_call("1002")

            async def came() -> bool:
                return any(call == call_id for _, call, _ in heard_events(a))

            await until(came)
            assert heard_events(a)[: len(before)] == before
            await until_listed(a, "calls", "calls", 1)
        async with a.http(a.supervisor) as http:
            assert (await http.get("/api/v1/calls")).status_code == 200, "its token is still there"


async def test_status_and_doctor_say_who_is_there(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    cluster = cluster_toml([bus.url])
    configs = [write_node(tmp_path / name, name, cluster_database, cluster) for name in NODES]
    settings = load_settings(configs[0])
    status = await look(settings)
    assert [(row.node, row.state) for row in status.nodes] == [
        ("node-a", "not heard"),
        ("node-b", "not heard"),
    ]
    async with desk_of(configs[0]) as a, desk_of(configs[1]) as b, b.bridge() as bridge:
        bridge.start_call("1001")
        await until_heard(a, b)

        async def settled() -> bool:
            nonlocal status
            status = await look(settings)
            return not status.troubles and all(row.lag == 0 for row in status.nodes)

        await until(settled)
        assert [(row.node, row.state, row.calls) for row in status.nodes] == [
            ("node-a", "up", 0),
            ("node-b", "up", 1),
        ]
        assert status.messages >= 1
        said = await asyncio.to_thread(examine_cluster, settings)
        assert "heard of 2 nodes: node-a, node-b" in said
        ready = await a.http().get("/readyz")
        assert ready.status_code == 503, "no bridge at node a"
        assert "cluster" not in ready.json(), "a bus that is away makes no node unready"
    other = configs[1].read_text().replace("[agents.1002]", "[agents.1003]")
    configs[1].write_text(other)
    async with desk_of(configs[0]), desk_of_other(configs[1]):

        async def differs() -> bool:
            return any("different agents" in one for one in (await look(settings)).troubles)

        await until(differs)
    await asyncio.to_thread(bus.stop)
    with pytest.raises(CallshieldError, match="no NATS server can be used"):
        await asyncio.to_thread(examine_cluster, settings)


@contextlib.asynccontextmanager
async def desk_of_other(config: Path) -> AsyncIterator[None]:
    """A node whose agents are others than the tests' own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier.process", "--config", str(config)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_the_bus_lets_in_who_it_knows(tmp_path: Path, cluster_database: Database) -> None:
    server = NatsServer('authorization { user: node, password: "geheimnis" }')
    server.start()
    try:
        secret = tmp_path / "bus.secret"
        secret.write_text("geheimnis\n")
        secret.chmod(0o600)
        more = f'{FAST}user = "node"\nsecret_file = "{secret}"\n'
        cluster = cluster_toml([server.url], more)
        config = write_node(tmp_path / "node-a", "node-a", cluster_database, cluster)
        async with desk_of(config) as a:
            await until(lambda: joined(a))
        wrong = tmp_path / "wrong.secret"
        wrong.write_text("falsch\n")
        wrong.chmod(0o600)
        config.write_text(config.read_text().replace(str(secret), str(wrong)))
        with pytest.raises(CallshieldError, match=r"[Aa]uthorization") as refused:
            await look(load_settings(config))
        assert "falsch" not in str(refused.value)
        wrong.chmod(0o644)
        with pytest.raises(SetupError, match="mode 0644"):
            await look(load_settings(config))
    finally:
        server.remove()


async def joined(desk: Desk) -> bool:
    page: str = (await desk.http().get("/metrics")).text
    return metric(page, "callshield_cluster_connected") == 1
