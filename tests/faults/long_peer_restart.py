"""The PBX, or a telephone, is killed in the middle of a call and comes back: who is left alone is
told within seconds, and not by the session timer half an hour later."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.figures import measured
from tests.peers.baresip import Baresip
from tests.peers.node import running_node
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

CALLER, PHONE = "127.0.4.24", "127.0.4.25"
SIDES = ("127.0.4.22", "127.0.4.23")
#: 3 s until it is called silence, 7 s until the first question, and what a busy machine takes.
WITHIN_S = 16.0


@pytest.mark.parametrize(("who", "asks"), [("pbx", True), ("phone", True), ("pbx", False)])
async def test_far_end_that_is_killed_and_started_again_in_a_call(
    tmp_path: Path, who: str, asks: bool
) -> None:
    """Without the question (the control) nobody ever says that the call is dead."""
    tone = write_tone(tmp_path / "tone.wav", 1000.0, 60)
    caller = Baresip(tmp_path / "caller", CALLER, "01000000000", tone)
    agent = Baresip(tmp_path / "agent", PHONE, "1001", tone)
    try:
        await caller.start()
        await agent.start()
        async with (
            running_node(
                tmp_path / "node",
                {"1001": agent.uri},
                peer=CALLER,
                peer_options="attests_notice = true\n",
                sides=SIDES,
                sip="" if asks else "ask_silent_legs = false\n",
                extra='[notice]\nprompts = ["recording"]\n',
            ) as node,
            node.watch("supervisor") as console,
        ):
            await caller.command("dial", node.uri("1001"))
            await console.wait("notice.finished")
            victim, other = (caller, agent) if who == "pbx" else (agent, caller)
            killed = time.monotonic()
            await victim.kill()
            await victim.start()
            if not asks:
                await asyncio.sleep(WITHIN_S)  # nothing comes of it
                assert not console.seen("call.ended")
                await other.command("hangup")
                await console.wait("call.ended")
                return
            ended = await console.wait("call.ended", timeout_s=WITHIN_S + 10)
            await other.wait("CALL_CLOSED")
            took_s = time.monotonic() - killed
            assert ended["reason"] == ("caller_hangup" if who == "pbx" else "agent_hangup")
            (asked,) = node.logs("silent_leg_asked")
            assert asked["leg"] == ("caller" if who == "pbx" else "agent")
            measured(f"{who} restarted", other_side_told_after_s=round(took_s, 1))
            assert 8.0 < took_s < WITHIN_S
            # And the next call is one like any other.
            await caller.command("dial", node.uri("1001"))
            await console.wait("call.started", count=2)
            await console.wait("notice.finished", count=2)
            await caller.command("hangup")
            await console.wait("call.ended", count=2)
    finally:
        await caller.stop()
        await agent.stop()
