"""A whole node and all that stands round it: callers, phones, consoles, people at the buttons."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from callshield.free_ports import free_port
from notifier.tokens import create_token
from tests.load.console import Console
from tests.load.generator import CALLERS, PHONES, Crowd, Flow, Generator, write_tracks
from tests.load.ledger import Media, Stored, Verdict, judge, read_store
from tests.load.probe import Heard, Probe, merged
from tests.load.processes import Sample, sample
from tests.peers.node import PBX_SIDE, Node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import running_ua

#: Third bytes of the addresses of the timed calls.
_PROBE_PBX, _PROBE_PHONES = 43, 44
#: So far apart are the addresses of two runs at once.
_LANE = 10
#: Where deliberate faults are: a folder for PYTHONPATH.
_FAULTS = Path(__file__).parent / "faults"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run."""

    flows: Sequence[Flow]
    probes: int = 2
    """Timed calls at once (:mod:`tests.load.probe`)."""
    probe_s: float = 30.0
    transcribers: int = 0
    record: bool = False
    track_s: float = 60.0
    """Length of what a caller says before it is said again."""
    short_notice: bool = False
    """Announcements of two seconds, so that short calls get past them."""
    consoles: int = 1
    """Supervisors' consoles; the first one's person takes all alerts."""
    agent_consoles: int = 2
    stays_s: tuple[float, float] = (10.0, 40.0)
    """How long a console's connection lasts."""
    fault: str = ""
    """A deliberate one, for a negative control: see ``faults/sitecustomize.py``."""
    limit: int = 0
    """``sip.admission_limit``; 0: what the flows need."""
    lane: int = 0
    """Runs at the same time take addresses of their own."""
    seed: int = 1

    def octet(self, base: int) -> int:
        """Third byte of the addresses of a kind of party."""
        return base + _LANE * self.lane

    @property
    def live(self) -> int:
        """Calls at once."""
        return sum(flow.live for flow in self.flows) + self.probes

    def agents(self, number: int) -> list[str]:
        """Whom a flow calls: more than can be busy, so that nobody is called during a call."""
        return [f"{number}{k:04d}" for k in range(2 * self.flows[number - 1].live + 10)]


class LoadNode(Node):
    """A node whose agents have no console, but for a few."""

    with_console: Sequence[str] = ()
    #: Hundreds of agents, transcribers that load a model, and a machine that others use, too.
    ready_timeout_s = 300

    @property
    def pid(self) -> int:
        """Of ``callshield serve``."""
        assert self._process is not None
        return self._process.pid

    def make_tokens(self) -> None:
        self.settings.node.state_dir.mkdir(exist_ok=True)
        self.tokens["supervisor"] = create_token(self.settings, "supervisor", "load")
        for agent in self.with_console:
            self.tokens[agent] = create_token(self.settings, "agent", "load", agent)


#: Two nodes that start at once would share the environment of the one with the fault.
_starting = asyncio.Lock()


@contextmanager
def _with_fault(name: str) -> Iterator[None]:
    """Processes that are started meanwhile have a deliberate fault."""
    if not name:
        yield
        return
    before = {key: os.environ.get(key) for key in ("PYTHONPATH", "CALLSHIELD_TEST_FAULT")}
    path = [str(_FAULTS), *([before["PYTHONPATH"]] if before["PYTHONPATH"] else [])]
    os.environ.update(PYTHONPATH=os.pathsep.join(path), CALLSHIELD_TEST_FAULT=name)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@dataclass
class CallCentre:
    """It runs."""

    plan: Plan
    node: LoadNode
    crowd: Crowd
    probes: list[Probe]
    consoles: list[Console]
    parts: list[str]
    """Names of the node's processes."""
    _client: httpx.AsyncClient
    _random: random.Random = field(default_factory=random.Random)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    """What the API said no to."""

    @property
    def pids(self) -> dict[str, int]:
        """Of the node's processes (as they run now), and of the load's."""
        started = {entry["part"]: int(entry["pid"]) for entry in self.node.logs("process_started")}
        supervisor = self.node.pid
        return {"supervisor": supervisor, **started, **self.crowd.pids, "bench": os.getpid()}

    def sample(self, pids: Mapping[str, int]) -> Sample:
        """Everything now."""
        counts = self.crowd.counts()
        probes = sum(len(one.begun) for one in self.probes)
        live = counts.live + sum(probe.started for probe in self.probes)
        return sample(pids, calls=counts.begun + probes, live=live)

    # ------------------------------------------------------------------------- people

    async def on_event(self, event: dict[str, Any]) -> None:
        """What the people at the screens do: take every alert, end the calls that are to be."""
        match event["type"]:
            case "alert.raised":
                self._do(self._post("supervisor", f"/alerts/{event['alert_id']}/acknowledge"))
            case "notice.finished" if event["agent_id"] in self._ended_by_agents():
                self._do(self._end(event["agent_id"], event["call_id"]))

    def _ended_by_agents(self) -> set[str]:
        return {
            agent
            for one in self.crowd.generators
            if one.flow.kind == "ended"
            for agent in one.agents
        }

    async def _end(self, agent: str, call_id: str) -> None:
        flow = next(one.flow for one in self.crowd.generators if one.flow.kind == "ended")
        await asyncio.sleep(self._random.uniform(*flow.hold_s))
        await self._post(agent, f"/calls/{call_id}/actions", {"action": "end"})

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, who: str, path: str, body: Any = None) -> None:
        """A request, tried again where the answer says so; what is refused is noted."""
        answer = ""
        for _ in range(5):
            try:
                response = await self._client.post(
                    f"{self.node.base}/api/v1{path}",
                    json=body,
                    headers={"Authorization": f"Bearer {self.node.tokens[who]}"},
                )
            except httpx.HTTPError as error:
                answer = type(error).__name__
            else:
                if response.status_code < 300:
                    return
                answer = f"{response.status_code} {response.text[:120]}"
                if response.status_code not in (429, 503, 504):
                    break
            await asyncio.sleep(1.0)
        self.complaints.append(f"{path.split('/')[-1]}: {answer}")

    # -------------------------------------------------------------------------- the end

    async def drain(self, timeout_s: float) -> list[str]:
        """Begin no more calls, and wait for those that run; the kinds of those that do not end."""
        for one in self.crowd.generators:
            one.stop_calling()
        for probe in self.probes:
            probe.finish()
        stuck: list[str] = []
        ends_s = asyncio.get_running_loop().time() + timeout_s
        for one in self.crowd.generators:
            try:
                await one.finished(max(1.0, ends_s - asyncio.get_running_loop().time()))
            except TimeoutError:
                stuck.append(one.flow.kind)
        for probe in self.probes:
            if not await probe.finished(max(1.0, ends_s - asyncio.get_running_loop().time())):
                stuck.append("probe")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)
        return stuck

    def probed(self) -> Heard:
        """What the timed calls found since the last time."""
        return merged([probe.take() for probe in self.probes])

    async def stored(self) -> list[Stored]:
        """Every event of the store."""
        return await asyncio.to_thread(read_store, self.node.settings.database_path)

    async def verdict(self) -> Verdict:
        """Is every event of every call there? After :meth:`drain`."""
        stored = await self.stored()
        last = stored[-1].id if stored else 0
        # A console may not be due the last event; a little later it has what it is due.
        await asyncio.gather(*(one.caught_up(last, timeout_s=15.0) for one in self.consoles))
        await asyncio.gather(*(one.close() for one in self.consoles))
        done: dict[str, set[str]] = {"probe": {one for p in self.probes for one in p.done}}
        unfinished = {one for p in self.probes for one in p.begun} - done["probe"]
        for one in self.crowd.generators:
            calls = one.calls()
            done[one.flow.kind] = done.get(one.flow.kind, set()) | calls["done"]
            unfinished |= calls["begun"] - calls["done"]
        seen = {
            f"console {number} ({'supervisor' if one.agent is None else 'agent'})": (
                one.agent,
                list(one.ids),
            )
            for number, one in enumerate(self.consoles, 1)
        }
        media = {
            entry["call_id"]: Media(
                tapped=entry["tapped"] > 0,
                legs_heard=sum(entry[leg]["mos"] > 0 for leg in ("caller_leg", "agent_leg")),
            )
            for entry in self.node.logs("media_closed")
        }
        return judge(done, unfinished, [e for e in stored if e.id <= last], seen, media)

    async def metrics(self) -> dict[str, float]:
        """The node's own figures, those without labels."""
        text = (await self._client.get(f"{self.node.base}/metrics")).text
        found = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#") and "{" not in name:
                found[name] = float(value)
        return found

    def disk(self) -> dict[str, int]:
        """Bytes of the store, of its write-ahead log and of the node's log."""
        store = self.node.settings.database_path
        found = {"store": store, "wal": Path(f"{store}-wal"), "log": self.node.log_path}
        return {name: path.stat().st_size for name, path in found.items() if path.exists()}

    def log_faults(self) -> list[str]:
        """What the node's processes complained of: every line at level error, and tracebacks."""
        found = []
        for line in self.node.log_path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                if entry.get("level") in ("error", "critical"):
                    found.append(line[:300])
            elif "Traceback" in line or "Error" in line:
                found.append(line[:300])
        return found


@asynccontextmanager
async def running(folder: Path, plan: Plan) -> AsyncIterator[CallCentre]:
    """The node and its phones are there, nobody calls yet (:meth:`Generator.call`)."""
    async with AsyncExitStack() as stack:
        words = plan.transcribers > 0
        tracks = await asyncio.to_thread(
            write_tracks,
            folder / "tracks",
            words=words,
            seconds=plan.track_s,
            seed=plan.seed,
        )
        numbers = range(1, len(plan.flows) + 1)
        phones = {number: f"127.0.{plan.octet(PHONES)}.{number}" for number in numbers}
        ports = {number: free_port(address) for number, address in phones.items()}
        agents = {
            agent: f"sip:{agent}@{phones[number]}:{ports[number]}"
            for number in numbers
            for agent in plan.agents(number)
        }
        pairs = []
        for number in range(1, plan.probes + 1):
            pbx = await stack.enter_async_context(
                running_ua(f"127.0.{plan.octet(_PROBE_PBX)}.{number}", "pbx")
            )
            phone = await stack.enter_async_context(
                running_ua(f"127.0.{plan.octet(_PROBE_PHONES)}.{number}", f"9{number:04d}")
            )
            agents[phone.user] = phone.uri
            pairs.append((pbx, phone))
        ended = [
            agent
            for number, flow in enumerate(plan.flows, 1)
            if flow.kind == "ended"
            for agent in plan.agents(number)
        ]
        watched = [
            agent
            for number, flow in enumerate(plan.flows, 1)
            if flow.kind == "talk"
            for agent in plan.agents(number)[: plan.agent_consoles]
        ]
        node = LoadNode(
            folder / "node",
            agents,
            peer=f"127.0.{plan.octet(CALLERS)}.0/24",
            sip="requests_per_s = 1000\nrequest_burst = 1000\n",
            calls=plan.limit or min(800, plan.live + 20),
            extra=_extra(folder, plan),
        )
        node.with_console = [*ended, *watched]
        stack.push_async_callback(node.stop)
        async with _starting:
            with _with_fault(plan.fault):
                await node.start()
        crowd = Crowd()
        stack.push_async_callback(crowd.close)
        target = f"{PBX_SIDE}:{node.pbx_port}"
        for number, flow in enumerate(plan.flows, 1):
            generator = Generator(
                folder / f"{number}-{flow.kind}",
                flow,
                tracks,
                target,
                plan.agents(number),
                callers=f"127.0.{plan.octet(CALLERS)}.{number}",
                phones=(phones[number], ports[number]),
            )
            crowd.generators.append(generator)
            await generator.answer()
        probes = [
            Probe(pbx, phone, node.uri(phone.user), (PBX_SIDE, node.pbx_port), talk_s=plan.probe_s)
            for pbx, phone in pairs
        ]
        for probe in probes:
            stack.push_async_callback(probe.close)
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=10))
        parts = ["supervisor", *(entry["part"] for entry in node.logs("process_started"))]
        centre = CallCentre(plan, node, crowd, probes, [], parts, client)
        for number in range(plan.consoles):
            on_event = None if number else centre.on_event
            console = Console(
                node, "supervisor", stays_s=plan.stays_s, seed=number, on_event=on_event
            )
            centre.consoles.append(console)
        centre.consoles += [Console(node, agent, stays_s=plan.stays_s) for agent in watched]
        for console in centre.consoles:
            stack.push_async_callback(console.close)
            console.start()
        yield centre


def _extra(folder: Path, plan: Plan) -> str:
    """Tables of the configuration."""
    tables = [
        f'[[peers]]\nname = "probe"\nnetworks = ["127.0.{plan.octet(_PROBE_PBX)}.0/24"]\n'
        "attests_notice = true\n",
        f"[transcriber]\nworkers = {plan.transcribers}\n",
        "[limits]\ntoken_per_s = 1000\ntoken_burst = 1000\n",
    ]
    if plan.record:
        tables.append("[recording]\nenabled = true\n")
    if plan.short_notice:
        tables.append(Prompts(folder / "prompts").toml)
    return "".join(tables)
