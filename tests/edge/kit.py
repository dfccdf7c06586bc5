"""A real edge: Kamailio and rtpengine of the distribution, with the files that operators get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from callshield.edge_rpc import ask
from callshield.free_ports import free_port, free_range
from callshield.settings import load_settings
from tests.edge.bridge_node import BridgeNode
from tests.peers.node import Node

#: Addresses of these tests; nobody else's.
EDGE, PBX, RTPENGINE = "127.0.50.4", "127.0.50.1", "127.0.50.5"
NODES = (("127.0.51.1", "127.0.51.2"), ("127.0.52.1", "127.0.52.2"), ("127.0.53.1", "127.0.53.2"))
PHONE_1, PHONE_2, STRANGER, OUTER = "127.0.60.1", "127.0.60.2", "127.0.99.1", "127.0.61.1"
PHONES = "127.0.60.0/24"
READY_S = 20.0


def program(name: str) -> str:
    """Path of a program of the distribution that may not be on this user's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found is not None, f"there is no {name}: ./run test-edge installs it"
    return found


class Edge:
    """Kamailio with what `callshield edge render` wrote.

    Args:
        folder: its files.
        nodes: name → SIP URI of the PBX side, and further networks of each node.
        pbx: more keys of the one PBX's table.
        keys: more keys of ``[edge]``.
        tables: more tables.
    """

    def __init__(
        self,
        folder: Path,
        nodes: dict[str, tuple[str, list[str]]],
        *,
        address: str = EDGE,
        port: int = 0,
        pbx: str = "",
        keys: str = "",
        tables: str = "",
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.address, self.port = folder, address, port or free_port(address)
        self.config, self.log_path = folder / "edge.toml", folder / "kamailio.log"
        self.nodes = nodes
        self._more = (pbx, keys, tables)
        self._process: asyncio.subprocess.Process | None = None
        (folder / "run").mkdir()
        self.write()

    async def change(self, keys: str = "", *, tables: str | None = None) -> None:
        """Another configuration, as an operator brings it in: render and restart."""
        self._more = (self._more[0], keys, self._more[2] if tables is None else tables)
        self.write()
        await self.render()
        await self.stop()
        await self.start()

    def write(self) -> None:
        """The configuration, as it is now."""
        pbx, keys, tables = self._more
        probe = "" if "probe_s" in keys else "probe_s = 1"
        phones = "" if "phones" in keys else f'phones = ["{PHONES}"]'
        nodes = "".join(
            f'[[edge.nodes]]\nname = "{name}"\nuri = "{uri}"\nnetworks = {json.dumps(networks)}\n'
            for name, (uri, networks) in self.nodes.items()
        )
        self.config.write_text(
            f"""
[edge]
bind = "{self.address}"
port = {self.port}
{phones}
proxies = ["{OUTER}"]
secrets_file = "{self.folder / "secrets"}"
state_dir = "{self.folder / "state"}"
runtime_dir = "{self.folder / "run"}"
{probe}
workers = 2
{keys}
{nodes}
[[edge.pbx]]
name = "pbx"
networks = ["{PBX}"]
{pbx}
{tables}
""",
            encoding="utf-8",
        )
        self.settings = load_settings(self.config)

    @property
    def place(self) -> str:
        """``address:port``, UDP and TCP."""
        return f"{self.address}:{self.port}"

    async def command(self, *words: str, status: int = 0) -> str:
        """`callshield edge …` as an operator types it; what it prints."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "callshield.cli", "edge", *words, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, said = await process.communicate()
        assert process.returncode == status, said.decode()
        return printed.decode()

    async def password(self, user: str) -> str:
        return (await self.command("password", user)).strip()

    async def render(self) -> str:
        etc = str(self.folder / "etc")
        return await self.command("render", "--into", etc, "--rtpengine-into", etc)

    async def start(self) -> None:
        """Start Kamailio and wait until it answers."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program("kamailio"),
                *("-f", str(self.folder / "etc/kamailio.cfg"), "-DD", "-E"),
                *("-m", "32", "-Y", str(self.folder / "run"), "-w", str(self.folder)),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(READY_S):
            while True:
                if self._process.returncode is not None:
                    raise AssertionError(f"Kamailio ended: {self.log_path.read_text()}")
                try:
                    await self.ask("core.uptime")
                    return
                except Exception:  # not there yet: nothing outside tells us
                    await asyncio.sleep(0.05)

    async def ask(self, method: str, *parameters: str) -> Any:
        return await asyncio.to_thread(ask, self.settings.edge, method, *parameters)

    async def states(self) -> dict[str, bool]:
        """Node → whether it takes calls, as `callshield edge status` says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "callshield.cli", "edge", "status", "--json", "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        return {node["name"]: node["takes_calls"] for node in json.loads(printed)["nodes"]}

    async def until(self, timeout_s: float = 20, **wanted: bool) -> None:
        """Wait until nodes take calls, or take none: ``node_1=True``."""
        states = {name.replace("_", "-"): state for name, state in wanted.items()}
        async with asyncio.timeout(timeout_s):
            while True:
                records = (await self.ask("dispatcher.list"))["RECORDS"][0]["SET"]["TARGETS"]
                found = {
                    target["DEST"]["ATTRS"]["BODY"].removeprefix("duid="): target["DEST"][
                        "FLAGS"
                    ].startswith("A")
                    for target in records
                }
                if all(found[name] == state for name, state in states.items()):
                    return
                await asyncio.sleep(0.05)  # Kamailio tells nobody

    async def registered(self, user: str, timeout_s: float = 20) -> dict[str, Any]:
        """The registration of a user, once there is one."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    found = await self.ask("ul.lookup", "location", user)
                    contact: dict[str, Any] = found["Contacts"][0]["Contact"]
                    return contact
                except Exception:  # "AOR not found": not yet
                    await asyncio.sleep(0.05)

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    async def stop(self, *, kill: bool = False) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None and not kill:
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if kill else 10):
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def of_node(node: Node | BridgeNode) -> tuple[str, list[str]]:
    """A node as :class:`Edge` wants it."""
    side = node.settings.sip.phone.bind
    return f"sip:{node.pbx_address}:{node.pbx_port}", [side]


@asynccontextmanager
async def running_edge(
    folder: Path,
    nodes: dict[str, tuple[str, list[str]]],
    users: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[tuple[Edge, dict[str, str]]]:
    """An edge for as long as the block lasts, and the passwords of its users."""
    edge = Edge(folder, nodes, **options)
    try:
        passwords = {user: await edge.password(user) for user in users or ("1001",)}
        await edge.render()
        await edge.start()
        yield edge, passwords
    finally:
        await edge.stop()


@asynccontextmanager
async def running_rtpengine(edge: Edge) -> AsyncIterator[Path]:
    """The rtpengine that the edge's ``rtpengine.conf`` describes; its log."""
    log_path = edge.folder / "rtpengine.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program("rtpengine"),
            *("--config-file", str(edge.folder / "etc/rtpengine.conf"), "--foreground"),
            *("--log-stderr", "--num-threads=2"),
            stdout=log,
            stderr=log,
        )
    try:
        yield log_path
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def rtpengine_table(address: str = RTPENGINE) -> str:
    """``[edge.rtpengine]`` with free ports."""
    first, last = free_range(address, 200)
    return (
        f'[edge.rtpengine]\ncontrol = "{address}:{free_port(address)}"\nbind = "{address}"\n'
        f"ports = [{first}, {last}]\n"
    )
