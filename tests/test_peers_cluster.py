"""Two whole nodes with real telephones: each other's calls, a death, a rolling upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from callshield.heard import find, read_growing_wav, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.cluster_kit import NODES, lines
from tests.nats_server import NatsServer
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.node import Node, running_node
from tests.peers.sip_ua import running_ua
from tests.peers.sound import blocks, tone_db, write_tone
from tests.postgres import Database

# A busy machine takes its time to start two nodes.
pytestmark = [
    pytest.mark.peers,
    pytest.mark.postgres,
    pytest.mark.nats,
    pytest.mark.timeout(400),
]
CALLER, PHONE = "127.0.0.4", "127.0.0.5"
SIDES = {"node-a": ("127.0.3.62", "127.0.3.63"), "node-b": ("127.0.3.64", "127.0.3.65")}
CALLER_HZ, AGENT_HZ, QUIET = 1000.0, 1600.0, 0.05
#: One notice instead of two, and no analysis: this is about the calls.
PLAIN = '[notice]\nprompts = ["recording"]\n[detector]\nenabled = false\n'


@pytest.fixture
def bus() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.remove()


@asynccontextmanager
async def two_nodes(
    folder: Path, database: Database, bus: NatsServer, agents: dict[str, str], stop_s: float
) -> AsyncIterator[tuple[Node, Node]]:
    """Nodes a and b with the same agents, as in a real cluster."""

    def node(name: str) -> dict[str, object]:
        extra = PLAIN + lines(folder / f"{name}.files", database, bus)
        return {
            "extra": extra, "peer": CALLER, "sides": SIDES[name], "name": name,
            "stop_timeout_s": stop_s,
        }  # fmt: skip

    async with (
        running_node(folder / NODES[0], agents, **node(NODES[0])) as a,
        running_node(folder / NODES[1], agents, **node(NODES[1])) as b,
    ):
        yield a, b


@asynccontextmanager
async def phones(folder: Path, numbers: tuple[str, ...]) -> AsyncIterator[dict[str, Baresip]]:
    """A caller and an agent's phone for each number."""
    caller_tone = write_tone(folder / "caller.wav", CALLER_HZ, 120, QUIET)
    agent_tone = write_tone(folder / "agent.wav", AGENT_HZ, 120)
    made: dict[str, Baresip] = {}
    running = []
    try:
        for number in numbers:
            for who, address, tone in (
                ("caller", CALLER, caller_tone),
                ("agent", PHONE, agent_tone),
            ):
                user = f"0100000{number}" if who == "caller" else number
                one = running_baresip(folder / f"{who}-{number}", address, user, tone)
                made[f"{who}-{number}"] = await one.__aenter__()
                running.append(one)
        yield made
    finally:
        for one in reversed(running):
            await one.__aexit__(None, None, None)


async def takes_calls(node: Node) -> bool:
    """What a dispatcher asks: OPTIONS, answered 200, or 503 while it is drained, or not at all."""
    async with running_ua(CALLER, "probe") as ua:
        dialog = ua.begin(node.uri("1001"), node.pbx_address, node.pbx_port)
        try:
            answer = await dialog.ask("OPTIONS")
        except (TimeoutError, AssertionError):
            return False
        return answer.status == 200


async def test_a_supervisor_acts_on_the_other_nodes_call_and_its_death_is_an_alert(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    async with phones(tmp_path, ("1001",)) as telephones:
        agent, caller = telephones["agent-1001"], telephones["caller-1001"]
        agents = {"1001": agent.uri}
        async with (
            two_nodes(tmp_path, cluster_database, bus, agents, 1) as (a, b),
            a.watch("supervisor") as console,
        ):
            await caller.command("dial", b.uri("1001"))
            await caller.wait("CALL_ESTABLISHED")
            started = await console.wait("call.started")
            assert started["node"] == "node-b"
            await console.wait("notice.finished")
            await agent.press("*8#")
            alert = await console.wait("alert.raised")
            assert (alert["kind"], alert["node"]) == ("help", "node-b")
            taken = await a.post(f"/alerts/{alert['alert_id']}/acknowledge", "supervisor")
            assert taken.status_code == 200
            await console.wait("alert.acknowledged")
            before = len(read_growing_wav(caller.recording())) / 8000
            act = f"/calls/{started['call_id']}/actions"
            warned = await a.post(act, "supervisor", {"action": "warn"})
            assert (warned.status_code, warned.json()["status"]) == (200, "done")
            warning = read_wav(SHIPPED / "ko" / "warning_1.wav")
            async with asyncio.timeout(60):
                # A file tells nobody that it grew.
                while True:
                    heard = find(warning, read_growing_wav(caller.recording()), after_s=before - 1)
                    if heard is not None and heard.whole:
                        break
                    await asyncio.sleep(0.5)
            began = time.monotonic()
            for pid in pids_of(b):
                with contextlib.suppress(ProcessLookupError):  # it went with the supervisor
                    os.kill(pid, signal.SIGKILL)
            away = await console.wait("alert.raised", lambda one: one["kind"] == "node")
            print(f"the alert came {time.monotonic() - began:.1f} s after kill -9 of all of node b")
            assert away["reason"] == "node_away:node-b"
            taken = await a.post(f"/alerts/{away['alert_id']}/acknowledge", "supervisor")
            assert taken.status_code == 200


def pids_of(node: Node) -> list[int]:
    """Every process of a node, the supervisor first, so that nothing is started again."""
    assert node._process is not None
    parts = {entry["part"] for entry in node.logs("process_started")}
    return [node._process.pid, *(node.pid_of(part) for part in sorted(parts))]


async def test_nodes_are_replaced_one_after_the_other_and_no_call_is_dropped(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    numbers = ("1001", "1002")
    async with phones(tmp_path, numbers) as telephones:
        agents = {number: telephones[f"agent-{number}"].uri for number in numbers}
        async with two_nodes(tmp_path, cluster_database, bus, agents, 120) as (a, b):
            await roll(a, b, telephones)


async def roll(a: Node, b: Node, telephones: dict[str, Baresip]) -> None:
    """Replace node a under a call, then node b under another."""
    async with b.watch("supervisor") as console:

        async def dial(number: str) -> Node:
            """As a dispatcher does: to the first node that takes calls."""
            for node in (a, b):
                if await takes_calls(node):
                    caller = telephones[f"caller-{number}"]
                    established = sum(e.get("type") == "CALL_ESTABLISHED" for e in caller.events)
                    await caller.command("dial", node.uri(number))
                    await caller.wait("CALL_ESTABLISHED", count=established + 1)
                    return node
            raise AssertionError("no node takes calls")

        assert await dial("1001") is a
        first = await console.wait("call.started", lambda one: one["agent_id"] == "1001")
        assert first["node"] == "node-a"
        await console.wait("notice.finished", lambda one: one["call_id"] == first["call_id"])

        a.signal(signal.SIGTERM)
        await a.wait_for_log("bridge_draining")
        drained = await console.wait("node.degraded", lambda e: e["component"] == "node-a/draining")
        assert drained["degraded"]
        assert await dial("1002") is b, "new calls go elsewhere"
        second = await console.wait("call.started", lambda one: one["agent_id"] == "1002")
        assert "node" not in second
        await asyncio.sleep(3)  # the first call goes on meanwhile: this is what is recorded
        assert a._process is not None
        assert a._process.returncode is None
        hung_up = await hang_up(telephones["caller-1001"])
        ended = await console.wait("call.ended", lambda one: one["call_id"] == first["call_id"])
        assert (ended["reason"], ended["node"]) == ("caller_hangup", "node-a")
        async with asyncio.timeout(60):
            assert await a._process.wait() == 0
        heard_all_along(telephones["agent-1001"], CALLER_HZ, drained["ts"], hung_up)

        await a.start()
        assert await dial("1001") is a
        third = await console.wait("call.started", lambda one: one["agent_id"] == "1001", count=2)
        assert third["node"] == "node-a"
        assert "node.degraded" not in {
            one["type"] for one in console.events if one.get("component") == "cluster"
        }
        assert not [one for one in console.seen("alert.raised") if one["kind"] == "node"]

    async with a.watch("supervisor") as console:
        b.signal(signal.SIGTERM)
        await b.wait_for_log("bridge_draining")
        drained = await console.wait("node.degraded", lambda e: e["component"] == "node-b/draining")
        assert not await takes_calls(b)
        await asyncio.sleep(3)  # the second call goes on meanwhile: this is what is recorded
        hung_up = await hang_up(telephones["caller-1002"])
        ended = await console.wait("call.ended", lambda one: one["call_id"] == second["call_id"])
        assert ended["reason"] == "caller_hangup"
        assert b._process is not None
        async with asyncio.timeout(60):
            assert await b._process.wait() == 0
        heard_all_along(telephones["agent-1002"], CALLER_HZ, drained["ts"], hung_up)
        await b.start()
        assert await takes_calls(b)
        await hang_up(telephones["caller-1001"])
        ended = await console.wait("call.ended", lambda one: one["call_id"] == third["call_id"])
        assert ended["reason"] == "caller_hangup"
        assert not [one for one in console.seen("alert.raised") if one["kind"] == "node"]


async def hang_up(caller: Baresip) -> float:
    at = time.time()
    await caller.command("hangup")
    return at


def heard_all_along(phone: Baresip, hz: float, since_ts: float, until_ts: float) -> None:
    """The far end's tone in every block of the last seconds of a call."""
    heard = read_growing_wav(phone.recording())
    seconds = min(until_ts - since_ts, 3.0)
    body = blocks(heard[-int((seconds + 0.6) * 8000) : -int(0.6 * 8000)])
    assert len(body) >= 3
    assert min(tone_db(block, hz) for block in body) > -45, "the call's audio never stopped"


async def test_control_a_node_without_patience_drops_its_calls(
    tmp_path: Path, cluster_database: Database, bus: NatsServer
) -> None:
    async with phones(tmp_path, ("1001",)) as telephones:
        agents = {"1001": telephones["agent-1001"].uri}
        async with (
            two_nodes(tmp_path, cluster_database, bus, agents, 1) as (a, b),
            b.watch("supervisor") as console,
        ):
            await telephones["caller-1001"].command("dial", a.uri("1001"))
            await telephones["caller-1001"].wait("CALL_ESTABLISHED")
            await console.wait("call.started")
            a.signal(signal.SIGTERM)
            ended = await console.wait("call.ended")
            assert ended["reason"] == "shutdown"
