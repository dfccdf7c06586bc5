"""A network that loses 5 %, overtakes and trembles by 60 ms: audio both ways, and signalling."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.figures import measured
from tests.peers.impairment import Plan, impaired
from tests.peers.node import running_node
from tests.peers.scene import PBX, PHONE, running_scene
from tests.peers.sipp import running_sipp
from tests.peers.talker import talking
from tests.test_peers_kept import talk

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

BAD = Plan(loss=0.05, swaps=0.05, jitter_ms=60, seed=20260301)


async def test_both_ways_of_a_conversation_through_a_bad_network(tmp_path: Path) -> None:
    """What the network lost is missing at the other end, and not one packet more."""
    async with (
        running_scene(tmp_path) as scene,
        talking(PBX) as caller_voice,
        talking(PHONE) as agent_voice,
        impaired(PBX, BAD) as from_caller,
        impaired(PHONE, Plan(loss=0.05, swaps=0.05, jitter_ms=60, seed=7)) as from_agent,
    ):
        # Each talker's packets go to a relay, and seem to come from its other socket.
        networks = (from_caller, from_agent)
        caller, agent = await talk(scene, caller_voice, agent_voice, networks)
        await asyncio.sleep(12)  # the sample
        for network in networks:
            network.plan = Plan()
        await asyncio.sleep(0.5)  # in order again
        caller_voice.talking = agent_voice.talking = False
        await asyncio.sleep(1.0)  # what is under way
        assert (await caller.ask("BYE")).status == 200
        bye = await agent.ua.request("BYE")
        agent.ua.reply(bye, 200)
        assert await scene.over() == "caller_hangup"
        (closed,) = await scene.node.wait_for_log("media_closed")
        await scene.console.wait("media.quality", count=2)
        quality = {event["leg"]: event for event in scene.console.seen("media.quality")}
    for leg, network, voice in (
        ("caller", from_caller, agent_voice),
        ("agent", from_agent, caller_voice),
    ):
        figures, done = closed[f"{leg}_leg"], network.done
        assert len(done.lost) > 10
        assert figures["lost"] == len(done.lost)
        # The relay added no loss of its own to the network's: from the first packet that was heard
        # to the last, none is missing but those. (What comes before the gate is open is not heard.)
        heard, missing = holes(voice.packets)
        assert missing <= len(done.lost)
        assert figures["received"] - 5 <= heard <= figures["received"]
        measured(
            f"bad network from the {leg}",
            loss_pct=quality[leg]["loss_pct"],
            jitter_ms=quality[leg]["jitter_ms"],
            mos=quality[leg]["mos"],
            lost_by_us=max(0, missing - len(done.lost)),
        )
    assert closed["tapped"] >= closed["caller_leg"]["received"] - 5


def holes(packets: list[bytes]) -> tuple[int, int]:
    """How many different ones of an RTP stream came, and how many between them did not."""
    first = int.from_bytes(packets[0][2:4], "big")
    ahead = {(int.from_bytes(p[2:4], "big") - first + 0x8000) & 0xFFFF for p in packets}
    return len(ahead), max(ahead) - min(ahead) + 1 - len(ahead)


def test_control_a_hole_is_seen_across_the_wrap() -> None:
    packets = [b"\x80\x08" + (n & 0xFFFF).to_bytes(2, "big") for n in (65534, 65533, 65535, 1, 1)]
    assert holes(packets) == (4, 1)


async def test_calls_come_about_over_signalling_that_loses_and_overtakes(tmp_path: Path) -> None:
    """SIP over UDP repeats what is lost (RFC 3261 17): sipp calls through the bad network."""
    calls = 30
    plan = Plan(loss=0.05, swaps=0.05, jitter_ms=60, seed=4)
    async with (
        impaired("127.0.4.14", plan) as network,
        running_sipp(tmp_path / "uas", "127.0.4.15", "uas_answer", calls=calls) as phone,
        running_node(
            tmp_path / "node",
            {"1001": phone.uri},
            peer="127.0.4.14",
            peer_options="attests_notice = true\n",
            sides=("127.0.4.12", "127.0.4.13"),
            calls=calls,
        ) as node,
        node.watch("supervisor") as console,
    ):
        network.far_end = (node.pbx_address, node.pbx_port)
        begun = time.monotonic()
        async with running_sipp(
            tmp_path / "uac",
            "127.0.4.14",
            "uac_lossy",
            target=f"127.0.4.14:{network.inner_port}",
            calls=calls,
            values={"headers": "X-Callshield-Notice: abuse_prevention, recording\n"},
        ) as pbx:
            assert await pbx.finish(120) == 0, (tmp_path / "uac" / "errors").read_text()
        await console.wait("call.ended", count=calls)
        reasons = [event["reason"] for event in console.seen("call.ended")]
        measured(
            "SIP over a bad network",
            calls_set_up=calls,
            datagrams_lost=len(network.done.lost),
            seconds=round(time.monotonic() - begun, 1),
        )
        assert reasons == ["caller_hangup"] * calls
        assert len(network.done.lost) >= 3
