"""A node dies under load: new calls go on to the other, the other's calls notice nothing, and a
supervisor there is alerted."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest

from callshield.free_ports import free_port, free_range
from tests.cluster_kit import cluster_toml
from tests.edge.floor import CALLER_HZ, Floor, floor
from tests.edge.kit import PBX, PHONE_1, PHONE_2, RTPENGINE
from tests.edge.scripted import Registration
from tests.nats_server import NatsServer
from tests.peers.node import Node, Watch
from tests.peers.sip_ua import Dialog, bye_of, running_ua
from tests.peers.sound import write_tone
from tests.postgres import Cluster

pytestmark = [
    pytest.mark.edge,
    pytest.mark.postgres,
    pytest.mark.nats,
    pytest.mark.timeout(800),
]

#: Measured calls of each node, and calls a second of the load, so many seconds long each.
MEASURED = 4
#: Flows through a plain relay beside them: what the machine itself does to packets meanwhile.
PLAIN = 2
RATE, TALK_S = 4, 5
#: Before the kill and after it.
BEFORE_S, AFTER_S = 10.0, 9.0
ATTESTED = ("X-Callshield-Notice: abuse_prevention, recording",)
FAILOVER_S = 2.0
#: ``cluster.dead_after_s``, its default.
DEAD_AFTER_S = 8.0


class FarEnds:
    """:mod:`tests.edge.far_ends` on one address."""

    def __init__(self, process: asyncio.subprocess.Process, ports: list[int]) -> None:
        self._process, self.ports = process, ports

    def talk(self, number: int, host: str, port: int) -> None:
        self._say({"talk": [[number, host, port]]})

    def _say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def finish(self) -> list[dict[str, list[tuple[int, int]]]]:
        """What each socket sent and heard."""
        assert self._process.stdout is not None
        self._say({"stop": []})
        async with asyncio.timeout(30):
            return list(json.loads(await self._process.stdout.readline()))

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def far_ends(address: str, count: int) -> AsyncIterator[FarEnds]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.edge.far_ends", address, str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    assert process.stdout is not None
    ends = FarEnds(process, json.loads(await process.stdout.readline()))
    try:
        yield ends
    finally:
        await ends.stop()


@asynccontextmanager
async def plain_flows(callers: FarEnds, agents: FarEnds, numbers: range) -> AsyncIterator[None]:
    """Sockets of these numbers talk to each other through :mod:`tests.edge.plain_relay`."""
    pairs = [[PBX, callers.ports[one], PHONE_1, agents.ports[one]] for one in numbers]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.edge.plain_relay", RTPENGINE, json.dumps(pairs)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        for number, (first, second) in zip(numbers, ports, strict=True):
            callers.talk(number, RTPENGINE, first)
            agents.talk(number, RTPENGINE, second)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Direction:
    """One way of a measured call, in one stretch of time."""

    sent: int
    lost: int
    gap_ms: float
    """The longest silence between two packets, at the listener."""
    added_gap_ms: float
    """By how much it is longer than the longest pause of who spoke."""
    delay_p99_ms: float

    @classmethod
    def of(
        cls, sent: list[tuple[int, int]], heard: list[tuple[int, int]], begin: int, end: int
    ) -> Direction:
        """Of the packets that were sent in [begin, end), nanoseconds."""
        out = {number: at for number, at in sent if begin <= at < end}
        into = {number: at for number, at in heard if number in out}
        arrivals, departures = sorted(into.values()), sorted(out.values())
        delays = sorted((at - out[number]) / 1e6 for number, at in into.items())
        gap, pause = _longest_ms(arrivals), _longest_ms(departures)
        p99 = delays[int(0.99 * (len(delays) - 1))] if delays else float("inf")
        return cls(len(out), len(out) - len(into), gap, gap - pause, p99)


def _longest_ms(times: list[int]) -> float:
    return max((later - sooner) / 1e6 for sooner, later in itertools.pairwise(times))


@dataclass
class Load:
    """One call of sipp, as its messages tell it."""

    invited: float
    answered: float = 0.0
    node: str = ""
    refused: int = 0
    left: float = 0.0
    over: bool = False


_HEAD = re.compile(r"^-{20,} (\d{4}-\d\d-\d\d)[ \t](\d\d:\d\d:\d\d\.\d+)", re.MULTILINE)


def read_load(text: str) -> dict[str, Load]:
    """Call-ID → call."""
    calls: dict[str, Load] = {}
    parts = _HEAD.split(text)[1:]
    for day, clock, message in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        whole, _, fraction = clock.partition(".")
        stamp = time.mktime(time.strptime(f"{day} {whole}", "%Y-%m-%d %H:%M:%S"))
        at = stamp + float(f"0.{fraction}")
        call_id = re.search(r"^Call-ID: (\S+)", message, re.MULTILINE)
        cseq = re.search(r"^CSeq: \d+ (\w+)", message, re.MULTILINE)
        status = re.search(r"^SIP/2.0 (\d{3})", message, re.MULTILINE)
        if call_id is None or cseq is None:
            continue
        if "message sent" in message:
            if cseq[1] == "INVITE":
                calls.setdefault(call_id[1], Load(at))
            elif cseq[1] == "BYE":
                calls[call_id[1]].left = calls[call_id[1]].left or at
            continue
        call = calls[call_id[1]]
        if status is None or int(status[1]) < 200:
            continue
        if cseq[1] == "BYE":
            call.over = status[1] == "200"
        elif status[1] == "200" and not call.answered:
            call.answered = at
            contact = re.search(r"^Contact: <sip:[^@>]*@([0-9.]+)", message, re.MULTILINE)
            call.node = contact[1] if contact else "?"
        elif status[1] != "200":
            call.refused = int(status[1])
    return calls


@asynccontextmanager
async def load(all_: Floor, calls: int) -> AsyncIterator[Path]:
    """sipp calls agent 2001, whose phone is another sipp; the file of its messages."""
    async with running_ua(PHONE_2, "2001") as once:
        registered = await Registration(once, all_.edge, "2001").register(all_.passwords["2001"])
        assert registered.status == 200
        port = once.port
    echo, source, media = free_range(PHONE_2, 4)[0], free_port(PBX), free_range(PBX, 200)[0]
    folder = all_.folder / "load"
    folder.mkdir()
    sound = write_tone(folder / "caller.wav", CALLER_HZ, 20, 0.05)
    here = Path(__file__).parent
    for name in ("uac_load", "uas_load"):
        text = (here / f"{name}.xml").read_text(encoding="utf-8")
        values = {"audio": str(sound), "talk_ms": str(TALK_S * 1000)}
        (folder / f"{name}.xml").write_text(Template(text).safe_substitute(values))
    messages = folder / "messages"
    common = ("-nostdin", "-trace_err", "-error_file", str(folder / "errors"))
    phone = await asyncio.create_subprocess_exec(
        "sipp",
        *("-sf", str(folder / "uas_load.xml"), "-i", PHONE_2, "-p", str(port), "-rtp_echo"),
        *("-mi", PHONE_2, "-mp", str(echo), "-ci", PHONE_2, *common),
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    caller = await asyncio.create_subprocess_exec(
        "sipp",
        *(all_.edge.place, "-sf", str(folder / "uac_load.xml"), "-s", "2001"),
        *("-i", PBX, "-p", str(source), "-mi", PBX, "-mp", str(media), "-ci", PBX),
        *("-r", str(RATE), "-m", str(calls), *common),
        *("-trace_msg", "-message_file", str(messages)),
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield messages
        async with asyncio.timeout(90):
            await caller.wait()
    finally:
        for process in (caller, phone):
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
def bus() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.remove()


async def listed(node: Node, what: str) -> list[dict[str, Any]]:
    """Calls or alerts, as a supervisor is shown them."""
    headers = {"Authorization": f"Bearer {node.tokens['supervisor']}"}
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        answer = await client.get(f"{node.base}/api/v1/{what}", headers=headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()[what]
    return found


def deaths(console: Watch) -> list[dict[str, Any]]:
    """Alerts that a node is away."""
    return [alert for alert in console.seen("alert.raised") if alert["kind"] == "node"]


async def alerted(console: Watch) -> tuple[dict[str, Any], float]:
    """The alert that a node is away, and when it came."""
    alert = await console.wait("alert.raised", lambda one: one["kind"] == "node")
    return alert, time.time()


async def test_node_killed_under_load(
    tmp_path: Path, postgres_cluster: Cluster, bus: NatsServer
) -> None:
    database = postgres_cluster.database()

    def joined(name: str) -> str:
        own = tmp_path / f"{name}.files"
        own.mkdir()
        return database.toml(own) + cluster_toml([bus.url], "", nodes=("node-1", "node-2"))

    calls = int(RATE * (BEFORE_S + AFTER_S))
    async with (
        floor(
            tmp_path,
            nodes=2,
            agents=("1001", "2001"),
            pbx="attests_notice = true\n",
            node_options={"peer_options": "attests_notice = true\n", "calls": 60},
            each_node=joined,
        ) as all_,
        all_.nodes[1].watch("supervisor") as supervisor,
        running_ua(PBX, "pbx") as pbx,
        running_ua(PHONE_1, "1001") as phone,
        far_ends(PBX, 2 * MEASURED + PLAIN) as callers,
        far_ends(PHONE_1, 2 * MEASURED + PLAIN) as agents,
        plain_flows(callers, agents, range(2 * MEASURED, 2 * MEASURED + PLAIN)),
    ):
        edge, (dying, living) = all_.edge, all_.nodes
        registered = await Registration(phone, edge, "1001").register(all_.passwords["1001"])
        assert registered.status == 200
        await edge.until(node_1=True, node_2=True)

        dialogs: list[tuple[Dialog, Dialog]] = []
        nodes: list[str] = []
        for number in range(2 * MEASURED):
            caller = pbx.begin(
                f"sip:1001@{edge.place}", edge.address, edge.port, user=f"0200{number}"
            )
            answering = asyncio.create_task(
                caller.invite(body=pbx.sdp(port=callers.ports[number]), headers=ATTESTED)
            )
            invite = await phone.request("INVITE")
            agent = phone.accept(invite, body=phone.sdp(port=agents.ports[number]))
            await phone.request("ACK")
            answer = await answering
            assert answer.status == 200, answer.text
            callers.talk(number, answer.media_address, answer.media_port)
            agents.talk(number, invite.media_address, invite.media_port)
            dialogs.append((caller, agent))
            nodes.append(answer.media_address)
        for console in all_.consoles:
            await console.wait("tap.started", lambda one: "node" not in one, count=MEASURED)
        # The supervisor at node 2 is shown the calls of node 1 as well.
        elsewhere = [
            await supervisor.wait("call.started", lambda one: one.get("node") == "node-1", count=n)
            for n in range(1, MEASURED + 1)
        ]

        async with load(all_, calls) as messages:
            # The load itself is what is waited for; and the control: nobody is said to be dead
            # while nobody is, for longer than that takes.
            quiet_since = time.monotonic()
            await asyncio.sleep(BEFORE_S)
            quiet_s = time.monotonic() - quiet_since
            assert deaths(supervisor) == []
            killed_ns = time.time_ns()
            dying.kill_all()
            alert_comes = asyncio.create_task(alerted(supervisor))
            await edge.until(node_1=False)
            noticed_s = (time.time_ns() - killed_ns) / 1e9
            ended = time.monotonic() + AFTER_S
            await asyncio.sleep(max(0.0, ended - time.monotonic()))
            over_ns = time.time_ns() - 500_000_000  # what was sent by then has arrived
        survivors = [number for number, node in enumerate(nodes) if node == "127.0.52.1"]
        victims = [number for number in range(2 * MEASURED) if number not in survivors]
        heard_by_callers, heard_by_agents = await callers.finish(), await agents.finish()
        for number in survivors:
            caller, agent = dialogs[number]
            assert (await caller.ask("BYE")).status == 200
            bye = await phone.expect(bye_of(agent.call_id), "BYE")
            phone.reply(bye, 200)
        alert, alert_at = await alert_comes
        open_calls = {one["call_id"]: one for one in await listed(living, "calls")}
        open_alerts = [one["alert_id"] for one in await listed(living, "alerts")]
        path = f"/alerts/{alert['alert_id']}/acknowledge"
        taken = [(await living.post(path, "supervisor")).status_code for _ in range(2)]
        lived_on = await edge.states()
        loaded = read_load(messages.read_text(errors="replace"))
        silences = [entry["silent_s"] for entry in living.logs("cluster_node_away")]

    # ------------------------------------------------------------- the measured calls
    began_ns = killed_ns - int((BEFORE_S - 1) * 1e9)

    def ways(numbers: list[int], begin: int, end: int) -> list[Direction]:
        return [
            Direction.of(from_[number]["sent"], to[number]["heard"], begin, end)
            for number in numbers
            for from_, to in (
                (heard_by_callers, heard_by_agents),
                (heard_by_agents, heard_by_callers),
            )
        ]

    before, after = ways(survivors, began_ns, killed_ns), ways(survivors, killed_ns, over_ns)
    plain = ways(list(range(2 * MEASURED, 2 * MEASURED + PLAIN)), killed_ns, over_ns)
    last_heard_s = [
        (max(at for _, at in side[number]["heard"]) - killed_ns) / 1e9
        for number in victims
        for side in (heard_by_callers, heard_by_agents)
    ]
    # ------------------------------------------------------------- the load
    killed_s = killed_ns / 1e9
    late = [call for call in loaded.values() if call.invited > killed_s]
    known = killed_s + noticed_s
    on_survivor = [
        call for call in loaded.values() if call.node == "127.0.52.1" and call.invited <= killed_s
    ]
    died = [
        call
        for call in loaded.values()
        if call.node == "127.0.51.1" and (not call.left or call.left > killed_s)
    ]
    # Those that its phone was called for when it died: the caller hears it ring (docs/edge.md).
    rang = [call for call in loaded.values() if not call.answered and call.invited <= killed_s]
    waits = [call.answered - call.invited for call in late if call.answered]
    figures = {
        "load_average": os.getloadavg()[0],
        "edge_noticed_after_s": round(noticed_s, 2),
        "alert_after_s": round(alert_at - killed_ns / 1e9, 2),
        "no_alert_before_for_s": round(quiet_s, 1),
        "alert_after_silence_s": silences,
        "survivors": _figures(before=before, after=after, plain_relay_after=plain),
        "victims_last_packet_after_s": round(max(last_heard_s), 3),
        "load": {
            "calls": len(loaded),
            "begun_after_the_kill": len(late),
            "of_these_answered": len(waits),
            "set_up_s_median": round(statistics.median(waits), 3),
            "set_up_s_max": round(max(waits), 3),
            "set_up_s_max_once_noticed": round(
                max(c.answered - c.invited for c in late if c.answered and c.invited > known), 3
            ),
            "waited_for_failover": sum(wait > FAILOVER_S * 0.9 for wait in waits),
            "running_on_the_survivor": len(on_survivor),
            "of_these_ended_as_they_should": sum(call.over for call in on_survivor),
            "died_with_the_node": len(died),
            "rang_when_it_died": len(rang),
        },
    }
    print(json.dumps(figures, indent=2))

    assert len(survivors) == len(victims) == MEASURED
    # The other node's calls: not a packet less, no gap more.
    assert sum(way.sent for way in after) > 0.9 * 2 * MEASURED * 50 * (AFTER_S - 1)
    assert sum(way.lost for way in [*before, *after]) == 0
    worst = max(way.added_gap_ms for way in before)
    # Where the machine keeps a relay waiting that has nothing to do with any node, ours waits too.
    assert plain
    assert all(way.lost == 0 for way in plain)
    machines = max(way.added_gap_ms for way in plain)
    assert max(way.added_gap_ms for way in after) <= max(20.0, 1.5 * max(worst, machines)), figures
    # The control: the same measure sees the dead node's calls end.
    assert max(last_heard_s) < 0.5
    # New calls: every one is answered, by the other node, the first ones after edge.failover_ms.
    assert len(late) > 0.8 * RATE * AFTER_S
    assert [call for call in late if not call.answered] == []
    assert {call.node for call in late} == {"127.0.52.1"}
    assert max(waits) < FAILOVER_S + 2.0
    # Calls that were there on the other node went to their own end.
    assert on_survivor
    assert all(call.over for call in on_survivor)
    # And some really died; of those that rang, only what was begun in the last moments.
    assert died
    assert all(call.invited > killed_s - 2 for call in rang)
    assert lived_on == {"node-1": False, "node-2": True}
    # The alert, at the other node's supervisor: once, and until somebody has taken it.
    assert alert["reason"] == "node_away:node-1"
    assert len(deaths(supervisor)) == 1
    assert alert["alert_id"] in open_alerts
    assert taken == [200, 409]
    # Its last heartbeat came before it died, up to one and whatever kept it waiting.
    assert len(silences) == 1
    assert silences[0] >= DEAD_AFTER_S
    assert alert_at - killed_s < DEAD_AFTER_S + 7
    # Who was talking to whom at the dead node stays on the screen.
    assert all(open_calls[one["call_id"]]["unreachable"] for one in elsewhere)
    assert all(open_calls[one["call_id"]]["node"] == "node-1" for one in elsewhere)


def _figures(**named: list[Direction]) -> dict[str, object]:
    return {
        name: {
            "packets": sum(way.sent for way in ways),
            "lost": sum(way.lost for way in ways),
            "longest_gap_ms": round(max(way.gap_ms for way in ways), 1),
            "longest_gap_added_ms": round(max(way.added_gap_ms for way in ways), 1),
            "delay_p99_ms": round(max(way.delay_p99_ms for way in ways), 2),
        }
        for name, ways in named.items()
    }
