"""A real node between a scripted PBX and a scripted phone: for dialogs that no telephone leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.node import PBX_SIDE, Node, Watch, running_node
from tests.peers.sip_ua import Dialog, Ua, running_ua

PBX, PHONE = "127.0.0.4", "127.0.0.5"
#: The PBX played every notice: connected at once, and tapped.
ATTESTED = ("X-Callshield-Notice: abuse_prevention, recording",)


@dataclass
class Scene:
    """A node, the PBX and an agent's phone."""

    node: Node
    pbx: Ua
    phone: Ua
    console: Watch

    async def call(self, agent: str = "1001") -> tuple[Dialog, Dialog]:
        """A connected call: the PBX's dialog with us, the phone's dialog with us."""
        caller = self.pbx.begin(self.node.uri(agent), PBX_SIDE, self.node.pbx_port)
        before = len(self.console.seen("notice.finished"))
        answering = asyncio.create_task(caller.invite(headers=ATTESTED))
        invite = await self.phone.request("INVITE")
        agent_side = self.phone.accept(invite)
        await self.phone.request("ACK")
        assert (await answering).status == 200
        await self.console.wait("notice.finished", count=before + 1)
        return caller, agent_side

    async def over(self, count: int = 1) -> str:
        """Why the call ended."""
        ended = await self.console.wait("call.ended", count=count)
        return str(ended["reason"])


@asynccontextmanager
async def running_scene(
    folder: Path,
    *,
    peer_options: str = "",
    agent_options: str = "",
    sip: str = "",
    extra: str = "",
) -> AsyncIterator[Scene]:
    """They run; nothing of the node may have failed in the end.

    Args:
        folder: for the node.
        peer_options: more keys of the PBX.
        agent_options: more keys of the agent.
        sip: more keys of ``[sip]``.
        extra: more tables of the configuration.
    """
    async with (
        running_ua(PBX, "pbx") as pbx,
        running_ua(PHONE, "1001") as phone,
        running_node(
            folder / "node",
            {"1001": phone.uri},
            peer=PBX,
            peer_options=f"attests_notice = true\n{peer_options}",
            agent_options=agent_options,
            sip=f"ring_timeout_s = 10\n{sip}",
            extra=extra,
        ) as node,
        node.watch("1001") as console,
    ):
        yield Scene(node, pbx, phone, console)
        assert "Traceback" not in node.log_path.read_text()


async def phone_media(agent: Dialog) -> tuple[str, int]:
    """Where the phone sends its audio."""
    response = await agent.invite()
    assert response.status == 200
    return response.media_address, response.media_port
