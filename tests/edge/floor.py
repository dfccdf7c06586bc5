"""A call centre behind an edge: nodes, Kamailio, a registered phone, a caller at the PBX."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callshield.free_ports import free_port
from tests.edge.kit import EDGE, NODES, PBX, PHONE_1, Edge, of_node, running_edge
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.node import Node, Watch
from tests.peers.sound import write_tone

#: Who speaks at which frequency.
CALLER_HZ, AGENT_HZ = 1000.0, 1600.0
QUIET = 0.05


@dataclass
class Floor:
    """Everybody who takes part."""

    edge: Edge
    nodes: list[Node]
    consoles: list[Watch]
    """The agent's, at each node."""
    passwords: dict[str, str]
    folder: Path
    stack: AsyncExitStack
    _phones: dict[str, Baresip] = field(default_factory=dict)

    async def phone(
        self, user: str = "1001", address: str = PHONE_1, password: str = "", options: str = ""
    ) -> Baresip:
        """A telephone that registers at the edge, or tries to."""
        name = f"phone-{user}-{len(self._phones)}"
        source = write_tone(self.folder / f"{name}.wav", AGENT_HZ, 60, QUIET)
        secret = password or self.passwords[user]
        phone = await self.stack.enter_async_context(
            running_baresip(
                self.folder / name,
                address,
                user,
                source,
                registrar=self.edge.place,
                options=f";auth_user={user};auth_pass={secret}{options}",
                jitter_buffer="0-0",
            )
        )
        self._phones[name] = phone
        return phone

    async def caller(self, address: str = PBX, user: str = "01012345678") -> Baresip:
        """The PBX, as a telephone that calls through it."""
        name = f"caller-{len(self._phones)}"
        source = write_tone(self.folder / f"{name}.wav", CALLER_HZ, 60, QUIET)
        caller = await self.stack.enter_async_context(
            running_baresip(self.folder / name, address, user, source, jitter_buffer="0-0")
        )
        self._phones[name] = caller
        return caller

    def uri(self, agent: str = "1001") -> str:
        """Where the PBX sends a call for an agent."""
        return f"sip:{agent}@{self.edge.place}"


@asynccontextmanager
async def floor(
    folder: Path,
    *,
    nodes: int = 1,
    agents: Sequence[str] = ("1001",),
    node_options: dict[str, Any] | None = None,
    each_node: Callable[[str], str] | None = None,
    **options: Any,
) -> AsyncIterator[Floor]:
    """They run for as long as the block lasts; nothing of any node may have failed in the end.

    Args:
        folder: everybody's files.
        nodes: how many.
        agents: their ids; each has a password at the edge.
        node_options: more of each node.
        each_node: name of a node → more TOML of it.
        options: more of the edge.
    """
    port = free_port(EDGE)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        running = [
            Node(
                folder / f"node-{number + 1}",
                {agent: f"sip:{agent}@{EDGE}:{port}" for agent in agents},
                peer=EDGE,
                sides=NODES[number],
                name=f"node-{number + 1}",
                extra=each_node(f"node-{number + 1}") if each_node else "",
                **(node_options or {}),
            )
            for number in range(nodes)
        ]
        for node in running:
            node.ready_timeout_s = 300  # several at once, on however many cores there are
            stack.push_async_callback(node.stop)
        await asyncio.gather(*(node.start() for node in running))
        behind = {f"node-{number + 1}": of_node(node) for number, node in enumerate(running)}
        edge, passwords = await enter(
            running_edge(folder / "edge", behind, agents, port=port, **options)
        )
        consoles = [await enter(node.watch(agents[0])) for node in running]
        yield Floor(edge, running, consoles, passwords, folder, stack)
        for node in running:
            assert "Traceback" not in node.log_path.read_text()
