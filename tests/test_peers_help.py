"""A supervisor joins, a manager takes over: real telephones, and the real bridge and notifier.

Most of these tests are about signalling and the order of things: the media worker is a double
that speaks its protocol. The last one is about what everybody really heard.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.heard import find, read_growing_wav, read_wav
from callshield.messages import LegName
from callshield.messages_media import CloseLeg, FlowUpdate, LegUpdate, PromoteHelper
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.media_double import MediaDouble, running_double
from tests.peers.node import Node, Watch, running_node
from tests.peers.sound import blocks, tone_db, write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE, HELPER = "127.0.0.4", "127.0.0.5", "127.0.0.6"
CALLER_HZ, AGENT_HZ, HELPER_HZ = 1000.0, 1600.0, 2300.0


class HalfNode(Node):
    """Bridge and notifier of a node; its media worker is the test's own."""

    async def start(self) -> None:
        self.make_tokens()
        self._parts: list[asyncio.subprocess.Process] = []
        with self.log_path.open("ab") as log:
            for module in ("notifier.process", "sipbridge.process"):
                self._parts.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable,
                        *("-m", module, "--config", str(self.config)),
                        stderr=log,
                        stdout=log,
                    )
                )
        self._process = self._parts[0]
        await self.until_ready()

    async def stop(self) -> int:
        for part in reversed(self._parts):
            if part.returncode is None:
                part.terminate()
            async with asyncio.timeout(30):
                await part.wait()
        return 0


@dataclass
class Scene:
    """A conversation that has begun, and everybody who may come into it."""

    node: Node
    media: MediaDouble
    caller: Baresip
    agent: Baresip
    helper: Baresip
    console: Watch
    call_id: str

    async def act(self, who: str, action: str, **more: str) -> Any:
        return await self.node.post(
            f"/calls/{self.call_id}/actions", who, {"action": action, **more}
        )

    async def state(self, state: str) -> dict[str, Any]:
        return await self.console.wait("helper.changed", lambda event: event["state"] == state)


@asynccontextmanager
async def conversation(folder: Path, *, helper_answers: bool = True) -> AsyncIterator[Scene]:
    tone = write_tone(folder / "tone.wav", CALLER_HZ, 60)
    async with (
        running_baresip(folder / "agent", PHONE, "1001", tone) as agent,
        running_baresip(folder / "caller", CALLER, "01000000000", tone) as caller,
        running_baresip(
            folder / "helper", HELPER, "2000", tone, auto_answer=helper_answers
        ) as helper,
    ):
        extra = f'[supervisors.kim]\nuri = "{helper.uri}"\nrole = "manager"\n'
        node = HalfNode(folder / "node", {"1001": agent.uri}, peer=CALLER, extra=extra)
        async with running_double(node.settings) as media:
            try:
                await node.start()
                async with node.watch("1001") as console:
                    await caller.command("dial", node.uri("1001"))
                    await console.wait("notice.finished")
                    call_id = console.seen("call.started")[0]["call_id"]
                    yield Scene(node, media, caller, agent, helper, console, call_id)
            finally:
                await node.stop()


async def test_a_supervisor_is_heard_by_nobody_before_both_were_told(tmp_path: Path) -> None:
    async with conversation(tmp_path) as scene:
        media = scene.media
        refused = await scene.act("supervisor", "join", target="kim")
        assert refused.status_code == 409
        assert "asked" in refused.json()["detail"]
        assert (await scene.act("1001", "help")).status_code == 200
        media.held_back = {"joined"}
        assert (await scene.act("supervisor", "join", target="kim")).status_code == 200
        await scene.helper.wait("CALL_ESTABLISHED")
        told = await media.wait_plays("joined", 2)
        assert {play.leg for play in told} == {LegName.CALLER, LegName.AGENT}
        (update,) = [m for m in media.told if isinstance(m, LegUpdate) and m.leg is LegName.HELPER]
        assert update.address == HELPER
        await asyncio.sleep(0.5)  # a conference that opened too early would be told by now
        assert not any(m.conference for m in media.told if isinstance(m, FlowUpdate))

        media.finish("joined")
        joined = await scene.state("joined")
        assert (joined["role"], joined["helper_id"]) == ("manager", "kim")
        assert joined["by"].startswith("supervisor:")
        await media.until_flow(lambda flow: flow.conference)
        again = await scene.act("supervisor", "join", target="kim")
        assert (again.status_code, again.json()["status"]) == (200, "already")

        await scene.helper.command("hangup")
        await scene.state("left")
        assert (await media.until_flow(lambda flow: not flow.conference)).agent_to_caller
        await media.wait(lambda m: isinstance(m, CloseLeg))
        # The request was fulfilled: without a new one nobody comes back.
        assert (await scene.act("supervisor", "join")).status_code == 409
        await scene.caller.command("hangup")
        ended = await scene.console.wait("call.ended")
        assert ended["reason"] == "caller_hangup"


async def test_an_announcement_that_fails_hangs_the_supervisor_up(tmp_path: Path) -> None:
    """Negative control of the test above."""
    async with conversation(tmp_path) as scene:
        media = scene.media
        media.held_back = {"joined"}
        await scene.act("1001", "help")
        await scene.act("supervisor", "join")
        await media.wait_plays("joined", 2)
        media.finish("joined", complete=False, error="the file is gone")
        await scene.helper.wait("CALL_CLOSED")
        await scene.state("unreachable")
        await scene.console.wait("node.degraded", lambda e: e["component"] == "prompts")
        assert not any(m.conference for m in media.told if isinstance(m, FlowUpdate))
        assert not scene.console.seen("call.ended")


async def test_hand_over_frees_the_agent_and_the_manager_takes_the_leg(tmp_path: Path) -> None:
    async with conversation(tmp_path) as scene:
        media = scene.media
        media.held_back = {"handed_over"}
        assert (await scene.act("1001", "hand_over")).status_code == 200
        await scene.helper.wait("CALL_ESTABLISHED")
        await media.wait_plays("handed_over")
        assert "CALL_CLOSED" not in [e.get("type") for e in scene.agent.events]
        media.finish("handed_over")
        await scene.state("took_over")
        await scene.agent.wait("CALL_CLOSED")
        await media.wait(lambda m: isinstance(m, PromoteHelper))
        assert "CALL_CLOSED" not in [e.get("type") for e in scene.caller.events]
        await media.until_flow(
            lambda flow: (
                (flow.caller_to_agent, flow.agent_to_caller, flow.conference) == (True, True, False)
            )
        )
        # Hold by the manager is hold by the agent's side now.
        await scene.helper.command("hold")
        await media.wait(lambda m: isinstance(m, FlowUpdate) and m.on_hold)
        await scene.helper.command("hangup")
        ended = await scene.console.wait("call.ended")
        assert ended["reason"] == "agent_hangup"
        await scene.caller.wait("CALL_CLOSED")


async def test_the_caller_who_gives_up_stops_the_managers_phone_ringing(tmp_path: Path) -> None:
    async with conversation(tmp_path, helper_answers=False) as scene:
        await scene.act("1001", "hand_over")
        await scene.helper.wait("CALL_INCOMING")
        await scene.caller.command("hangup")
        await scene.helper.wait("CALL_CLOSED")
        await scene.agent.wait("CALL_CLOSED")
        ended = await scene.console.wait("call.ended")
        assert ended["reason"] == "caller_hangup"


async def test_a_manager_who_refuses_leaves_agent_and_caller_talking(tmp_path: Path) -> None:
    async with conversation(tmp_path, helper_answers=False) as scene:
        await scene.act("1001", "hand_over")
        await scene.helper.wait("CALL_INCOMING")
        await scene.helper.command("hangup")
        await scene.state("unreachable")
        assert (await scene.act("1001", "warn")).status_code == 200
        warned = await scene.console.wait("warning.played")
        assert warned["complete"]


async def test_an_agent_who_leaves_early_leaves_the_caller_to_the_manager(tmp_path: Path) -> None:
    async with conversation(tmp_path, helper_answers=False) as scene:
        await scene.act("1001", "hand_over")
        await scene.helper.wait("CALL_INCOMING")
        await scene.agent.command("hangup")
        (hold_on,) = await scene.media.wait_plays("hold_on")
        assert hold_on.loop
        await scene.helper.command("accept")
        await scene.state("took_over")
        await scene.media.until_flow(lambda flow: flow.agent_to_caller)
        await scene.caller.command("hangup")
        await scene.helper.wait("CALL_CLOSED")


@asynccontextmanager
async def three_telephones(folder: Path) -> AsyncIterator[tuple[Node, Watch, list[Baresip], str]]:
    """A whole node and three tones; caller and agent have begun to talk."""
    caller_tone = write_tone(folder / "caller.wav", CALLER_HZ, 90)
    agent_tone = write_tone(folder / "agent.wav", AGENT_HZ, 90)
    helper_tone = write_tone(folder / "helper.wav", HELPER_HZ, 90)
    async with (
        running_baresip(folder / "agent", PHONE, "1001", agent_tone) as agent,
        running_baresip(folder / "caller", CALLER, "01000000000", caller_tone) as caller,
        running_baresip(folder / "helper", HELPER, "2000", helper_tone) as helper,
        running_node(
            folder / "node",
            {"1001": agent.uri},
            peer=CALLER,
            extra=(
                '[notice]\nprompts = ["recording"]\n'
                f'[supervisors.kim]\nuri = "{helper.uri}"\nrole = "manager"\n'
            ),
        ) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await console.wait("notice.finished")
        call_id = console.seen("call.started")[0]["call_id"]
        yield node, console, [caller, agent, helper], call_id


def level_db(samples: NDArray[np.float32], hertz: float, from_s: float, to_s: float) -> float:
    """The median level of a tone in a stretch of a recording."""
    stretch = samples[int(from_s * 8000) : int(to_s * 8000)]
    return float(np.median([tone_db(block, hertz) for block in blocks(stretch)]))


async def test_three_way_everybody_hears_the_announcement_and_then_each_other(
    tmp_path: Path,
) -> None:
    async with three_telephones(tmp_path) as (node, console, phones, call_id):
        caller, agent, helper = phones
        await node.post(f"/calls/{call_id}/actions", "1001", {"action": "help"})
        await node.post(f"/calls/{call_id}/actions", "supervisor", {"action": "join"})
        three = await console.wait("helper.changed", lambda e: e["state"] == "joined")
        await asyncio.sleep(3)  # three people talk: this is what is judged
        await caller.command("hangup")
        gone = await helper.wait("CALL_CLOSED")
        ended = await console.wait("call.ended")

    joined = read_wav(SHIPPED / "ko" / "joined.wav")
    heard = {phone.user: read_growing_wav(phone.recording()) for phone in phones}
    for phone, others in ((caller, (AGENT_HZ, HELPER_HZ)), (agent, (CALLER_HZ, HELPER_HZ))):
        own = heard[phone.user]
        found = find(joined, own)
        assert found is not None
        assert found.whole
        last_s = len(own) / 8000
        # The agent's ear is protected against steady tones: they come there, but quietly.
        for hz in others:
            assert level_db(own, hz, found.end_s + 0.5, last_s - 0.3) > -60
        assert level_db(own, HELPER_HZ, 0.5, found.start_s - 0.3) < -65
    # The way to the caller is not limited: there the difference is plain, block by block.
    own = heard[caller.user]
    found = find(joined, own)
    assert found is not None
    before = blocks(own[: int(found.end_s * 8000)])
    assert max(tone_db(block, HELPER_HZ) for block in before) < -40
    assert level_db(own, HELPER_HZ, found.end_s + 0.5, len(own) / 8000 - 0.3) > -15
    # The helper heard nothing at all before both were told: not a packet came.
    alone = heard[helper.user]
    least_s, most_s = ended["ts"] - three["ts"], gone["at"] - three["ts"]
    assert least_s - 1.0 < len(alone) / 8000 < most_s + 1.0
    for hz in (CALLER_HZ, AGENT_HZ):
        assert level_db(alone, hz, 0.5, len(alone) / 8000 - 0.3) > -60


async def test_after_a_hand_over_the_caller_hears_the_manager_and_the_agent_is_free(
    tmp_path: Path,
) -> None:
    async with three_telephones(tmp_path) as (node, console, phones, call_id):
        caller, agent, helper = phones
        await node.post(f"/calls/{call_id}/actions", "1001", {"action": "hand_over"})
        took_over = await console.wait("helper.changed", lambda e: e["state"] == "took_over")
        agent_gone = await agent.wait("CALL_CLOSED")
        await asyncio.sleep(3)  # caller and manager talk: this is what is judged
        await helper.command("hangup")
        ended = await console.wait("call.ended")
        # At once: long before the other two are done.
        assert agent_gone["at"] - took_over["ts"] < (ended["ts"] - took_over["ts"]) / 4
        assert ended["reason"] == "agent_hangup"

    own = read_growing_wav(caller.recording())
    position = 0.0
    for prompt_id in ("handing_over", "handed_over"):
        found = find(read_wav(SHIPPED / "ko" / f"{prompt_id}.wav"), own, after_s=position)
        assert found is not None, prompt_id
        assert found.whole, prompt_id
        position = found.end_s - 0.1
    before = blocks(own[: int(position * 8000)])
    assert max(tone_db(block, HELPER_HZ) for block in before) < -40
    last_s = len(own) / 8000
    assert level_db(own, HELPER_HZ, position + 0.5, last_s - 0.5) > -15
    assert level_db(own, AGENT_HZ, position + 0.5, last_s - 0.5) < -50
    managers = read_growing_wav(helper.recording())
    assert level_db(managers, CALLER_HZ, 0.5, len(managers) / 8000 - 0.5) > -60
    assert level_db(managers, AGENT_HZ, 0.5, len(managers) / 8000 - 0.5) < -70
