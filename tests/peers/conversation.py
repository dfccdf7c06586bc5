"""A caller who talks by hand, a real telephone and a whole node: calls one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.baresip import Baresip, running_baresip
from tests.peers.capture import Capture, capturing
from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import Dialog, Ua, running_ua
from tests.peers.sound import write_tone
from tests.peers.talker import Talker, talking

AGENT_HZ = 1600.0


@dataclass
class Scene:
    """Everybody who takes part."""

    node: Node
    agent: Baresip
    pbx: Ua
    talker: Talker
    console: Watch
    """The agent's."""
    capture: Capture
    """Of the phone's side."""
    prompts: Prompts

    async def dial(self, media_port: int = 0) -> Call:
        """A new call, up to its answer.

        Args:
            media_port: of the caller's SDP; the talker's own by default.
        """
        dialog = self.pbx.begin(
            self.node.uri("1001"), self.node.settings.sip.pbx.bind, self.node.pbx_port
        )
        before = len(self.console.seen("call.started"))
        answer = await dialog.invite(body=self.pbx.sdp(port=media_port or self.talker.port))
        assert answer.status == 200, answer.text
        started = await self.console.wait("call.started", count=before + 1)
        self.talker.to = (answer.media_address, answer.media_port)
        return Call(self, dialog, started["call_id"], self.talker.to)


@dataclass
class Call:
    """One of the scene's calls."""

    scene: Scene
    dialog: Dialog
    call_id: str
    media: tuple[str, int]
    """Where the caller's RTP goes."""

    async def wait(self, kind: str, *, count: int = 1, **values: object) -> dict[str, Any]:
        """The ``count``-th event of this call that has these values."""
        return await self.scene.console.wait(
            kind,
            lambda event: (
                event["call_id"] == self.call_id
                and all(event[name] == value for name, value in values.items())
            ),
            count=count,
        )

    async def act(self, action: str) -> None:
        """A button on the agent's console."""
        path = f"/calls/{self.call_id}/actions"
        answer = await self.scene.node.post(path, "1001", {"action": action})
        assert answer.status_code == 200, answer.text

    async def hang_up(self) -> dict[str, Any]:
        """BYE from the caller; the log line with both legs' figures."""
        assert (await self.dialog.ask("BYE")).status == 200
        return await self.closed()

    async def closed(self) -> dict[str, Any]:
        """The log line with both legs' figures, once the call is over."""
        await self.wait("call.ended")
        async with asyncio.timeout(20):
            while True:
                for line in self.scene.node.logs("media_closed"):
                    if line["call_id"] == self.call_id:
                        return line
                await asyncio.sleep(0.05)  # a file tells nobody that it grew


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    caller: str,
    phone: str,
    sides: tuple[str, str],
    extra: str = "",
    source: Path | None = None,
) -> AsyncIterator[Scene]:
    """A scene for as long as the block lasts.

    Args:
        folder: everybody's files.
        caller, phone: loopback addresses.
        sides: addresses of the node.
        extra: more TOML.
        source: what the agent says; a tone of :data:`AGENT_HZ` by default.
    """
    prompts = Prompts(folder / "prompts")
    said = source or write_tone(folder / "agent.wav", AGENT_HZ, 60)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        agent = await enter(running_baresip(folder / "agent", phone, "1001", said))
        node = await enter(
            running_node(
                folder / "node",
                {"1001": agent.uri},
                peer=caller,
                sides=sides,
                extra=prompts.toml + extra,
            )
        )
        console = await enter(node.watch("1001"))
        capture = await enter(capturing(folder / "phone.pcap", sides[1]))
        pbx = await enter(running_ua(caller, "pbx"))
        talker = await enter(talking(caller))
        yield Scene(node, agent, pbx, talker, console, capture, prompts)
