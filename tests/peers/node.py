"""A whole Callshield node as its users run it: ``callshield serve`` in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets

from callshield.free_ports import free_port, free_range
from callshield.settings import Settings, load_settings
from notifier.tokens import create_token

PBX_SIDE = "127.0.0.2"
PHONE_SIDE = "127.0.0.3"
READY_TIMEOUT_S = 40


class Watch:
    """A console: every event it received, and waiting for the next one that fits."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def add(self, event: dict[str, Any]) -> None:
        async with self._news:
            self.events.append(event)
            self._news.notify_all()

    def seen(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def wait(
        self,
        kind: str,
        where: Callable[[dict[str, Any]], bool] = bool,
        *,
        count: int = 1,
        timeout_s: float = 40,
    ) -> dict[str, Any]:
        """The ``count``-th event of a type that fits."""

        def matching() -> list[dict[str, Any]]:
            return [event for event in self.seen(kind) if where(event)]

        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: len(matching()) >= count)
        except TimeoutError:
            raise AssertionError(
                f"no {kind} (number {count}) in {timeout_s} s; there came "
                f"{[(e['type'], e.get('level')) for e in self.events]}"
            ) from None
        return matching()[count - 1]


class Node:
    """A running node.

    Args:
        folder: its files.
        agents: agent id → SIP URI of the phone.
        extra: more TOML, put behind the rest (tables of its own only).
        peer: address from which calls may come.
        peer_options: more keys of that peer.
        sip: more keys of ``[sip]``.
        sides: our addresses towards the PBX and the phones. Tests that capture, or run beside
            others, take a pair of their own.
        pbx_side, phone_side: more keys of ``[sip.pbx]`` and ``[sip.phone]``.
        agent_options: more keys of each agent's table.
        calls: admission limit.
        name: ``node.name``.
        stop_timeout_s: how long running calls may take to finish when the node stops.
        environment: more of it, for the node's processes.
        media_networks: networks of both sides. baresip binds its RTP sockets to no address, so
            its packets to 127.0.0.2 come from 127.0.0.1 and not from the address in its SDP: to
            the relay it is a telephone behind NAT.
    """

    ready_timeout_s: float = READY_TIMEOUT_S

    def __init__(
        self,
        folder: Path,
        agents: dict[str, str],
        *,
        extra: str = "",
        peer: str = "127.0.0.4",
        peer_options: str = "",
        sip: str = "",
        sides: tuple[str, str] = (PBX_SIDE, PHONE_SIDE),
        pbx_side: str = "",
        phone_side: str = "",
        agent_options: str = "",
        calls: int = 10,
        environment: Mapping[str, str] | None = None,
        media_networks: tuple[str, ...] = ("127.0.0.1",),
        name: str = "test",
        stop_timeout_s: float = 1,
    ) -> None:
        media_from = json.dumps(list(media_networks))
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.environment = dict(environment or {})
        self.web_port = free_port("127.0.0.1")
        self.pbx_address, phone_address = sides
        self.pbx_port, self.phone_port = free_port(self.pbx_address), free_port(phone_address)
        pbx_rtp = free_range(self.pbx_address, 4 * calls)
        phone_rtp = free_range(phone_address, 4 * calls)
        self.config = folder / "callshield.toml"
        tables = "".join(
            f'[agents.{name}]\nuri = "{uri}"\n{agent_options}\n' for name, uri in agents.items()
        )
        # A test's steady tones are noise to the levelling of the agent's ear.
        plain_ear = "" if "[ear]" in extra else "[ear]\nlevelling = false\n"
        # Screens on phones only where a test is about them: a process more.
        no_screens = "" if "[phones" in extra else "[phones]\nenabled = false\n"
        # Words only where a test is about them: a model is half a second of work and 300 MiB.
        no_words = "" if "[transcriber]" in extra else "[transcriber]\nworkers = 0\n"
        self.config.write_text(
            f"""
[node]
name = "{name}"
state_dir = "{folder / "state"}"
runtime_dir = "{folder / "run"}"
stop_timeout_s = {stop_timeout_s}
[sip]
admission_limit = {calls}
{sip}
[sip.pbx]
bind = "{self.pbx_address}"
port = {self.pbx_port}
rtp_ports = [{pbx_rtp[0]}, {pbx_rtp[1]}]
networks = {media_from}
{pbx_side}
[sip.phone]
bind = "{phone_address}"
port = {self.phone_port}
rtp_ports = [{phone_rtp[0]}, {phone_rtp[1]}]
networks = {media_from}
{phone_side}
[[peers]]
name = "pbx"
networks = ["{peer}"]
{peer_options}
{tables}
[web]
port = {self.web_port}
{plain_ear}{no_words}{no_screens}{extra}
""",
            encoding="utf-8",
        )
        self.settings: Settings = load_settings(self.config)
        self.base = f"http://127.0.0.1:{self.web_port}"
        self.tokens: dict[str, str] = {}
        self.log_path = folder / "node.log"
        self._process: asyncio.subprocess.Process | None = None

    def uri(self, agent: str) -> str:
        """Where the PBX sends a call for an agent."""
        return f"sip:{agent}@{self.pbx_address}:{self.pbx_port}"

    def make_tokens(self) -> None:
        """A token for every agent, and one for a supervisor."""
        self.settings.node.state_dir.mkdir(exist_ok=True)
        self.tokens["supervisor"] = create_token(self.settings, "supervisor", "test")
        for agent in self.settings.agents:
            self.tokens[agent] = create_token(self.settings, "agent", "test", agent)

    async def start(self) -> None:
        """Start and wait until /readyz says yes."""
        self.make_tokens()
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "callshield.cli", "serve", "--config", str(self.config)),
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until /readyz says yes."""
        assert self._process is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            async with asyncio.timeout(self.ready_timeout_s):
                while True:
                    if self._process.returncode is not None:
                        raise AssertionError(f"the node ended: {self.log_path.read_text()}")
                    try:
                        if (await client.get(f"{self.base}/readyz")).status_code == 200:
                            return
                    except httpx.HTTPError:
                        pass
                    await asyncio.sleep(0.05)  # nothing outside tells us: ask again

    def logs(self, event: str) -> list[dict[str, Any]]:
        """Log lines with this event name."""
        found = []
        # The last line may be half written.
        for line in self.log_path.read_text(encoding="utf-8").split("\n")[:-1]:
            if line.startswith("{"):
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    async def wait_for_log(
        self, event: str, *, count: int = 1, timeout_s: float = 30
    ) -> list[dict[str, Any]]:
        """The log lines with this event name, once there are ``count`` of them."""
        async with asyncio.timeout(timeout_s):
            # A file tells nobody that it grew.
            while len(found := self.logs(event)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    async def wait_for_log_of(
        self, event: str, where: Callable[[dict[str, Any]], bool], *, timeout_s: float = 30
    ) -> list[dict[str, Any]]:
        """The log lines with this event name that fit, once there is one."""
        async with asyncio.timeout(timeout_s):
            # A file tells nobody that it grew.
            while not (found := [line for line in self.logs(event) if where(line)]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    def pid_of(self, part: str) -> int:
        """Process id of a part that runs now."""
        return int([e for e in self.logs("process_started") if e["part"] == part][-1]["pid"])

    def kill(self, part: str) -> None:
        """``kill -9`` one process."""
        os.kill(self.pid_of(part), signal.SIGKILL)

    def kill_all(self) -> None:
        """``kill -9`` everything at once, as if the machine lost its power."""
        assert self._process is not None
        running = {entry["part"]: int(entry["pid"]) for entry in self.logs("process_started")}
        for pid in (self._process.pid, *running.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def press_control_c(self) -> None:
        """What a terminal does: SIGINT to the whole process group."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)

    def signal(self, number: signal.Signals) -> None:
        """A signal for the supervisor itself."""
        assert self._process is not None
        self._process.send_signal(number)

    @asynccontextmanager
    async def watch(self, who: str, last_event_id: int | None = None) -> AsyncIterator[Watch]:
        """A console's WebSocket for as long as the block lasts."""
        watch = Watch()
        url = f"ws://127.0.0.1:{self.web_port}/api/v1/events"
        if last_event_id is not None:
            url += f"?last_event_id={last_event_id}"
        async with websockets.connect(url, proxy=None) as connection:
            await connection.send(json.dumps({"token": self.tokens[who]}))
            hello = json.loads(await connection.recv())
            assert hello["type"] == "session.ready", hello

            async def read() -> None:
                async for message in connection:
                    event = json.loads(message)
                    if "id" in event:
                        await watch.add(event)

            reader = asyncio.create_task(read())
            try:
                yield watch
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def post(self, path: str, who: str, body: Any = None) -> httpx.Response:
        """One API call."""
        async with httpx.AsyncClient(trust_env=False, timeout=40) as client:
            return await client.post(
                f"{self.base}/api/v1{path}",
                json=body,
                headers={"Authorization": f"Bearer {self.tokens[who]}"},
            )

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(30):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()


@asynccontextmanager
async def running_node(folder: Path, agents: dict[str, str], **options: Any) -> AsyncIterator[Node]:
    """A node for as long as the block lasts."""
    node = Node(folder, agents, **options)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()
