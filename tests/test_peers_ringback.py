"""A caller who was ended rings back: a scripted PBX and phone, a whole node between them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import Message, Ua, running_ua

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

PBX_SIDE, PHONE_SIDE = "127.0.46.2", "127.0.46.3"
PBX, PHONE = "127.0.46.4", "127.0.46.5"
HEADER = "X-Callshield-Recent-End"
BAD, OTHER, LISTED = "01012345678", "01087654321", "0212345678"


@dataclass
class Scene:
    """A node between a PBX and one agent's phone."""

    node: Node
    pbx: Ua
    phone: Ua
    agent: Watch
    supervisor: Watch

    async def rings(self, caller: str, *headers: str) -> Message:
        """A call that the phone refuses: our INVITE to the phone."""
        before = len(self.agent.seen("call.ended"))
        dialog = self.pbx.begin(self.node.uri("1001"), PBX_SIDE, self.node.pbx_port, caller)
        cseq = dialog.send("INVITE", body=self.pbx.sdp(), headers=headers)
        invite = await self.phone.request("INVITE")
        self.phone.reply(invite, 486, tag="busy")
        await self.phone.request("ACK")
        refused = await dialog.response(cseq, "INVITE")
        dialog.learn(refused)
        dialog.send("ACK", cseq=cseq)
        await self.agent.wait("call.ended", count=before + 1)
        return invite

    async def ended(self, caller: str, *headers: str, by: str = "agent") -> str:
        """A call that is taken and ended, by the agent or by the caller; its id."""
        before = len(self.agent.seen("call.started"))
        dialog = self.pbx.begin(self.node.uri("1001"), PBX_SIDE, self.node.pbx_port, caller)
        cseq = dialog.send("INVITE", body=self.pbx.sdp(), headers=headers)
        self.phone.accept(await self.phone.request("INVITE"))
        await self.phone.request("ACK")
        answer = await dialog.response(cseq, "INVITE")
        dialog.learn(answer)
        dialog.send("ACK", cseq=cseq)
        started = await self.agent.wait("call.started", count=before + 1)
        call_id = str(started["call_id"])
        await self.agent.wait("notice.started", lambda e: e["call_id"] == call_id)
        if by == "agent":
            path = f"/calls/{call_id}/actions"
            assert (await self.node.post(path, "1001", {"action": "end"})).status_code == 200
            self.phone.reply(await self.phone.request("BYE"), 200)
            # The closing announcement, then we hang up.
            self.pbx.reply(await self.pbx.request("BYE", timeout_s=30), 200)
        else:
            await dialog.ask("BYE")
            self.phone.reply(await self.phone.request("BYE"), 200)
        await self.agent.wait("call.ended", lambda e: e["call_id"] == call_id)
        return call_id


async def callshield(node: Node, *words: str, said: str = "") -> tuple[int, str]:
    """``callshield …`` as a person types it: exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callshield.cli", *words, "--config", str(node.config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(said.encode())
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    prompts = Prompts(tmp_path / "prompts")
    key_file = tmp_path / "ringback.keys"
    extra = f'[ringback]\nenabled = true\nkey_file = "{key_file}"\nnever = ["{LISTED}"]\n'
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pbx, phone = await enter(running_ua(PBX, "pbx")), await enter(running_ua(PHONE, "desk"))
        node = await enter(
            running_node(
                tmp_path / "node",
                {"1001": phone.uri},
                peer=PBX,
                sides=(PBX_SIDE, PHONE_SIDE),
                extra=prompts.toml + extra,
            )
        )
        agent = await enter(node.watch("1001"))
        supervisor = await enter(node.watch("supervisor", 0))
        yield Scene(node, pbx, phone, agent, supervisor)
        log = node.log_path.read_text(encoding="utf-8")
        assert "Traceback" not in log
        for number in (BAD, OTHER, LISTED):
            assert number.lstrip("0") not in log


def header(invite: Message) -> str:
    """What our INVITE says of the caller's last call."""
    return invite[HEADER] if HEADER.lower() in invite.text.lower() else ""


async def test_who_was_ended_by_the_agent_is_announced_when_he_rings_back(scene: Scene) -> None:
    # Without a key nobody is marked, the call goes on, and everybody is told what to do.
    degraded = await scene.supervisor.wait("node.degraded", lambda e: e["component"] == "ringback")
    assert "new-key" in degraded["reason"]
    await scene.ended(BAD)
    assert header(await scene.rings(BAD)) == ""
    assert (await callshield(scene.node, "ringback", "new-key"))[0] == 0
    # A caller who hung up himself, and one who withheld the number.
    await scene.ended(OTHER, by="caller")
    await scene.ended(BAD, "Privacy: id")
    await scene.ended(LISTED)
    for caller in (OTHER, BAD, LISTED):
        assert header(await scene.rings(caller)) == ""
    await scene.ended(BAD)
    invite = await scene.rings(BAD)
    assert header(invite) == "unnamed", "the agent saw what the machine did not"
    seen = await scene.agent.wait("ringback.seen")
    assert (seen["category"], seen["ended_days_ago"]) == ("unnamed", 0)
    order = [e["type"] for e in scene.agent.events if e["call_id"] == seen["call_id"]]
    assert order == ["call.started", "ringback.seen", "call.ended"], "before answering"
    # However the number is written, and whoever forges the header.
    assert header(await scene.rings("+821012345678")) == "unnamed"
    assert header(await scene.rings(OTHER, f"{HEADER}: threat")) == ""
    assert "ringback.seen" not in {e["type"] for e in scene.supervisor.events}
    # Removed on review, by the number.
    assert (await callshield(scene.node, "ringback", "remove", "--number", said=f"{OTHER}\n"))[0]
    removed = await callshield(scene.node, "ringback", "remove", "--number", said=f"{BAD}\n")
    assert removed[0] == 0, removed
    assert header(await scene.rings(BAD)) == ""


async def test_a_mark_outlives_the_bridge_and_the_notifier(scene: Scene) -> None:
    assert (await callshield(scene.node, "ringback", "new-key"))[0] == 0
    await scene.ended(BAD)
    assert header(await scene.rings(BAD)) == "unnamed"
    for part in ("notifier", "bridge"):
        before = len(scene.node.logs("process_started"))
        scene.node.kill(part)
        await scene.node.wait_for_log("process_started", count=before + 1)
    await scene.node.until_ready()
    async with scene.node.watch("1001", 0) as agent, asyncio.timeout(30):
        scene.agent = agent
        while True:  # the bridge is told the marks when both have found each other
            await scene.node.until_ready()
            if header(await scene.rings(BAD)) == "unnamed":
                break
            await asyncio.sleep(0.2)
