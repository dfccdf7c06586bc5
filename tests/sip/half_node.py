"""Half a node: the product's bridge and its media worker, each a process; here is their bus.

No detector and no notifier run, so a scenario takes as long as its SIP takes. What is left behind
by a peer that lies is counted in the bridge (:mod:`tests.sip.bridge_child`) and, as the kernel sees
it, in the ports of the media worker.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from callshield.bus import BusServer, Peer
from callshield.free_ports import free_port, free_range
from callshield.messages import NodeMessage
from callshield.settings import load_settings
from tests.peers.sipp import Sipp
from tests.sip.parts import PARTS

PBX_SIDE, PHONE_SIDE = "127.0.41.2", "127.0.41.3"
PBX, PHONE = "127.0.41.4", "127.0.41.5"
STRANGER = "127.0.41.66"
"""In no network of the configuration."""
SCENARIOS = Path(__file__).parent
PHONES = 150
HONEST = "honest"
"""Its phone answers, whoever lied before."""
DIGEST_AGENTS = ("md5", "sha", "both", "proxy")
PASSWORD = "9f-not-to-be-logged-3c"
#: The longest honest wait is 5 s of ringing (conftest), then 64·T1 after a CANCEL that nobody
#: answers, with PJSIP's T1 of 100 ms (bridge_child): 11.4 s. What stays for good stays longer.
CLEAN_IN_S = 40.0
E = TypeVar("E")


class HalfNode:
    """A bridge and a media worker.

    Args:
        folder: their files.
        sip: more keys of ``[sip]``.
        agents: agent id → more keys of its table; plain ones are there besides.
    """

    def __init__(
        self, folder: Path, *, sip: str = "", agents: dict[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.pbx_port, self.phone_port = free_port(PBX_SIDE), free_port(PHONE_SIDE)
        first, _ = free_range(PHONE, PHONES)
        special = {HONEST: "", **(agents or {})}
        names = [*special, *(f"p{number}" for number in range(PHONES - len(special)))]
        self.ports = {name: first + number for number, name in enumerate(names)}
        self._unused = [name for name in names if name not in special]
        self._rtp = [free_range(PBX_SIDE, 80), free_range(PHONE_SIDE, 80)]
        tables = "\n".join(
            f'[agents.{name}]\nuri = "sip:{name}@{PHONE}:{port}"\n{special.get(name, "")}'
            for name, port in self.ports.items()
        )
        config = folder / "callshield.toml"
        config.write_text(
            f"""
[node]
state_dir = "{folder}"
runtime_dir = "{folder}"
stop_timeout_s = 0
[sip]
# The scripts neither speak nor answer what a telephone would: tests/test_peers_kept.py asks those.
ask_silent_legs = false
admission_limit = 20
{sip}
[sip.pbx]
bind = "{PBX_SIDE}"
port = {self.pbx_port}
rtp_ports = {list(self._rtp[0])}
[sip.phone]
bind = "{PHONE_SIDE}"
port = {self.phone_port}
rtp_ports = {list(self._rtp[1])}
[[peers]]
name = "pbx"
networks = ["{PBX}"]
[notice]
prompts = ["recording"]
{tables}
""",
            encoding="utf-8",
        )
        self._config = config
        self.settings = load_settings(config)
        self.events: list[Any] = []
        self._news = asyncio.Condition()
        self._bus: BusServer[NodeMessage] = BusServer(
            self.settings.bus_path, NodeMessage, self._hear
        )
        self._processes: list[asyncio.subprocess.Process] = []
        self.base: dict[str, Any] = {}

    async def start(self) -> None:
        """Start both processes, and remember what they hold when nothing is going on."""
        await self._bus.start()
        for module, ready in (
            ("sipbridge.media_worker", "media_ready"),
            ("tests.sip.bridge_child", "bridge_ready"),
        ):
            path = self.log_path(module)
            with path.open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", module, "--config", str(self._config), stderr=log
                )
            self._processes.append(process)
            async with asyncio.timeout(30):
                while ready not in path.read_text(encoding="utf-8"):
                    assert process.returncode is None, path.read_text(encoding="utf-8")
                    await asyncio.sleep(0.05)  # a file tells nobody that it grew
        # What is made at the first call and kept is no leak.
        await self.good_call(self.folder / "first")
        end, same = time.monotonic() + CLEAN_IN_S, 0
        while same < 5:  # a task or a descriptor that is just going is none to start from
            assert time.monotonic() < end, self.base
            before, self.base = self.base, await self.held()
            same = same + 1 if _idle(self.base) and not _changed(before, self.base) else 0
            await asyncio.sleep(0.1)  # nothing outside tells us: ask again

    def log_path(self, module: str = "tests.sip.bridge_child") -> Path:
        return self.folder / f"{module}.log"

    def logs(self, event: str) -> list[dict[str, Any]]:
        # The last line may be half written.
        lines = self.log_path().read_text(encoding="utf-8").split("\n")[:-1]
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]

    async def stop(self) -> None:
        for process in reversed(self._processes):
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(10):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
        await self._bus.close()

    # ------------------------------------------------------------------------------- the bus

    async def _hear(self, peer: Peer[NodeMessage], message: NodeMessage) -> None:
        async with self._news:
            self.events.append(message)
            self._news.notify_all()

    async def event(self, kind: type[E], fits: Callable[[E], bool], timeout_s: float = 20) -> E:
        """The first event of a type that fits, once it came."""

        def found() -> list[E]:
            return [event for event in self.events if isinstance(event, kind) and fits(event)]

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(found)
        except TimeoutError:
            raise AssertionError(f"no such {kind.__name__} in {timeout_s} s") from None
        return found()[0]

    def of_agent(self, kind: type[E], agent: str) -> list[E]:
        """The events of a type about one agent's calls."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and getattr(event, "agent_id", "") == agent
        ]

    # ------------------------------------------------------------------------------ the window

    async def ask(self, word: str) -> dict[str, Any]:
        """One word to the bridge's window."""
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "window.sock"))
        writer.write(word.encode() + b"\n")
        answer: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        return answer

    async def held(self) -> dict[str, Any]:
        """What bridge and worker hold now."""
        return {**await self.ask("held"), "ports": self._open_ports()}

    def _open_ports(self) -> int:
        """UDP sockets in the media worker's port ranges, as the kernel counts them."""
        ranges = dict(zip((PBX_SIDE, PHONE_SIDE), self._rtp, strict=True))
        count = 0
        for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
            address, port = line.split()[1].split(":")
            host = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
            low, high = ranges.get(host, (1, 0))
            count += low <= int(port, 16) <= high
        return count

    async def leftovers(self, patience_s: float = CLEAN_IN_S) -> dict[str, tuple[Any, Any]]:
        """What is still held besides the base after a while; empty when all is clean."""
        end = time.monotonic() + patience_s
        while True:
            left = _changed(self.base, await self.held())
            if not left or time.monotonic() > end:
                return left
            await asyncio.sleep(0.1)  # nothing outside tells us: ask again

    # ------------------------------------------------------------------------------- scenarios

    def agent(self) -> str:
        """An agent whom no other scenario has called."""
        return self._unused.pop()

    @asynccontextmanager
    async def phone(
        self, folder: Path, agent: str, scenario: str, **options: Any
    ) -> AsyncIterator[Sipp]:
        """sipp as the phone of an agent."""
        values = {**PARTS, **options.pop("values", {})}
        sipp = Sipp(
            folder / f"phone-{agent}",
            PHONE,
            scenario,
            scenarios=SCENARIOS,
            port=self.ports[agent],
            values=values,
            **options,
        )
        try:
            await sipp.start()
            await until_bound(PHONE, sipp.port, tcp=options.get("transport") == "t1")
            yield sipp
        finally:
            await sipp.stop()

    @asynccontextmanager
    async def pbx(
        self, folder: Path, agent: str, scenario: str, **options: Any
    ) -> AsyncIterator[Sipp]:
        """sipp as the PBX that calls an agent."""
        values = {**PARTS, **options.pop("values", {})}
        sipp = Sipp(
            folder / f"pbx-{agent}",
            PBX,
            scenario,
            scenarios=SCENARIOS,
            target=f"{PBX_SIDE}:{self.pbx_port}",
            service=agent,
            values=values,
            **options,
        )
        try:
            await sipp.start()
            yield sipp
        finally:
            await sipp.stop()

    async def good_call(self, folder: Path) -> None:
        """An honest call of half a second goes through."""
        agent = HONEST
        folder = folder / f"good-{time.monotonic_ns()}"
        async with (
            self.phone(folder, agent, "phone_answers") as desk,
            self.pbx(folder, agent, "pbx_talks") as pbx,
        ):
            assert await pbx.finish(20) == 0, pbx.messages()
            assert await desk.finish(20) == 0, desk.messages()

    async def judge(self, folder: Path) -> None:
        """After every scenario: nothing is left of it, and the next honest call goes through."""
        await self.good_call(folder)
        left = await self.leftovers()
        assert not left, f"left behind (before, now): {left}"
        for module in ("tests.sip.bridge_child", "sipbridge.media_worker"):
            text = self.log_path(module).read_text(encoding="utf-8")
            assert "Traceback" not in text, text
            assert "leg_never_ended" not in text, text


def _changed(base: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not as it was: before, now."""
    return {
        name: (before, now[name])
        for name, before in base.items()
        if name not in ("rss_kib", "counters") and now[name] != before
    }


def _idle(held: dict[str, Any]) -> bool:
    """Nothing is going on: what a half node holds before it was ever lied to."""
    return not any(
        held[name]
        for name in (
            *("calls", "refusals", "legs", "bridged", "media_requests"),
            *("transactions", "dialogs", "ports"),
        )
    )


async def until_bound(address: str, port: int, *, tcp: bool = False) -> None:
    """Wait until sipp listens: what comes before is lost."""
    host = bytes(int(part) for part in reversed(address.split("."))).hex().upper()
    wanted = f"{host}:{port:04X}"
    table = Path("/proc/net/tcp" if tcp else "/proc/net/udp")
    end = time.monotonic() + 30
    while wanted not in _column(table):
        assert time.monotonic() < end, f"nobody listens on {address}:{port}"
        await asyncio.sleep(0.02)  # the kernel tells nobody


def _column(table: Path) -> list[str]:
    """The local addresses in one of the kernel's tables of sockets."""
    return [line.split()[1] for line in table.read_text(encoding="ascii").splitlines()[1:]]


@asynccontextmanager
async def half_node(folder: Path, **options: Any) -> AsyncIterator[HalfNode]:
    """A half node for as long as the block lasts."""
    node = HalfNode(folder, **options)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()
