"""A kept call whose session cannot be refreshed ends before its session timer would end it.

The shortest session that RFC 4028 allows is 90 s; its far ends give it up after 60.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.figures import measured
from tests.peers.scene import ATTESTED, PBX, PHONE, Scene, running_scene
from tests.peers.sip_ua import Dialog
from tests.peers.talker import Talker, talking
from tests.test_peers_kept import gets_bye, kill_bridge, within

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

EXPIRES_S = 90
#: RFC 4028 section 10: a far end that is not refreshed says BYE so long before the end.
GIVES_UP_S = EXPIRES_S - EXPIRES_S / 3
SHORT = f"session_expires_s = {EXPIRES_S}\nmin_se_s = 90\nrtp_timeout_s = 600\n"


@asynccontextmanager
async def call(scene: Scene, refresher: str) -> AsyncIterator[tuple[Dialog, Dialog, float]]:
    """A connected call with a session timer on the PBX's leg; and when it began.

    Both sides talk: whoever is silent is asked by OPTIONS whether they are there.
    """
    async with talking(PBX) as caller_voice, talking(PHONE) as agent_voice:
        yield await _connected(scene, refresher, caller_voice, agent_voice)


async def _connected(
    scene: Scene, refresher: str, caller_voice: Talker, agent_voice: Talker
) -> tuple[Dialog, Dialog, float]:
    caller = scene.pbx.begin(scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port)
    timer = (
        "Supported: timer",
        "Allow: INVITE, ACK, BYE, CANCEL, UPDATE",
        f"Session-Expires: {EXPIRES_S};refresher={refresher}",
    )
    body = scene.pbx.sdp(port=caller_voice.port)
    answering = asyncio.create_task(caller.invite(body=body, headers=(*ATTESTED, *timer)))
    invite = await scene.phone.request("INVITE")
    agent = scene.phone.accept(
        invite,
        body=scene.phone.sdp(port=agent_voice.port),
        headers=("Allow: INVITE, ACK, BYE, CANCEL",),
    )
    await scene.phone.request("ACK")
    answer = await answering
    caller_voice.to = (answer.media_address, answer.media_port)
    agent_voice.to = (invite.media_address, invite.media_port)
    caller_voice.talking = agent_voice.talking = True
    assert answer["Session-Expires"].startswith(f"{EXPIRES_S};refresher=")
    begun = time.monotonic()
    await scene.console.wait("notice.finished")
    return caller, agent, begun


async def test_call_ends_cleanly_before_the_far_end_gives_it_up(tmp_path: Path) -> None:
    """We promised to refresh, and the far end does not know UPDATE."""
    async with (
        running_scene(tmp_path, sip=SHORT) as scene,
        call(scene, "uas") as (caller, agent, begun),
    ):
        await kill_bridge(scene)
        update = await scene.pbx.expect(within(caller, "UPDATE"), "our refresh", EXPIRES_S)
        assert time.monotonic() - begun == pytest.approx(EXPIRES_S / 2, abs=3)
        assert update["Session-Expires"] == f"{EXPIRES_S};refresher=uac"
        scene.pbx.reply(update, 501)
        await gets_bye(caller, EXPIRES_S)
        ended_s = time.monotonic() - begun
        await gets_bye(agent)
        assert await scene.over() == "bridge_lost"
        measured("session not refreshed after the bridge died", ended_after_s=round(ended_s, 1))
        assert GIVES_UP_S - 8 < ended_s < GIVES_UP_S


async def test_call_whose_sessions_are_refreshed_goes_on(tmp_path: Path) -> None:
    async with (
        running_scene(tmp_path, sip=SHORT) as scene,
        call(scene, "uas") as (caller, agent, begun),
    ):
        await kill_bridge(scene)
        for turn in (1, 2):
            update = await scene.pbx.expect(within(caller, "UPDATE"), "our refresh", EXPIRES_S)
            assert time.monotonic() - begun == pytest.approx(turn * EXPIRES_S / 2, abs=4)
            scene.pbx.reply(
                update,
                200,
                headers=(f"Session-Expires: {EXPIRES_S};refresher=uac", "Require: timer"),
            )
        await asyncio.sleep(GIVES_UP_S - EXPIRES_S / 2 + 5)  # past the first session's end
        assert not scene.console.seen("call.ended")
        assert (await agent.ask("BYE")).status == 200
        await gets_bye(caller)
        assert await scene.over() == "agent_hangup"
        measured(
            "session refreshed after the bridge died", lasted_s=round(time.monotonic() - begun)
        )


async def test_far_end_that_promised_to_refresh_and_does_not(tmp_path: Path) -> None:
    async with (
        running_scene(tmp_path, sip=SHORT) as scene,
        call(scene, "uac") as (caller, agent, begun),
    ):
        await kill_bridge(scene)
        await gets_bye(agent, EXPIRES_S)
        await gets_bye(caller)
        assert time.monotonic() - begun < GIVES_UP_S
        assert await scene.over() == "bridge_lost"
