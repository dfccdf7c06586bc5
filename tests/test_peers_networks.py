"""Bad networks, silence, strangers and sources that change, in calls through a whole node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from sipbridge.quality import mean_opinion_score
from tests.peers.conversation import AGENT_HZ, scene
from tests.peers.impairment import Plan, impaired, jitter_ms
from tests.peers.sound import RATE, blocks, purity, tone_db
from tests.peers.talker import FIRST, talking

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE, STRANGER = "127.0.3.14", "127.0.3.15", "127.0.3.66"
SIDES = ("127.0.3.12", "127.0.3.13")
CALLER_HZ, STRANGER_HZ = 1000.0, 2300.0


PLAIN = "[ear]\nlevelling = false\n"


def bound_ports(address: str, among: tuple[int, int]) -> list[int]:
    """Even UDP ports of an address, out of a range, on which somebody listens now."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    rows = [line.split()[1] for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    ports = [int(row.split(":")[1], 16) for row in rows if row.startswith(wanted)]
    return sorted(port for port in ports if among[0] <= port <= among[1] and port % 2 == 0)


async def test_figures_of_a_bad_network_are_what_the_network_did(tmp_path: Path) -> None:
    """5 % loss, 60 ms of jitter, overtaking and doubles: ten seconds by a seeded plan."""
    plan = Plan(loss=0.05, duplicates=0.03, swaps=0.03, jitter_ms=60, seed=20260301)
    async with (
        impaired(CALLER, plan) as network,
        scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=PLAIN) as talk,
    ):
        call = await talk.dial(network.outer_port)
        await call.wait("notice.finished")
        network.far_end, talk.talker.to = call.media, (CALLER, network.inner_port)
        talk.talker.talking = True
        await asyncio.sleep(10)  # the sample
        # Nobody can know what was lost behind the last packet that came.
        network.plan = Plan(jitter_ms=plan.jitter_ms)
        await asyncio.sleep(0.6)  # in order again
        talk.talker.talking = False
        await asyncio.sleep(1.0)  # what is still under way
        closed = await call.hang_up()
        done = network.done
        quality = await call.wait("media.quality", leg="caller")
        (port,) = await talk.capture.media_ports()
        to_phone = [s for s in await talk.capture.streams(port) if s.source == (SIDES[1], port)]
        packets = [p for p in await talk.capture.packets(sent_by=port) if p.payload_type == 8]

    assert min(len(done.lost), len(done.doubled), len(done.swapped)) >= 5, done  # a bad one indeed
    figures = closed["caller_leg"]
    assert figures["received"] == len(done.passed)
    assert figures["lost"] == len(done.lost)
    assert figures["duplicates"] == len(done.doubled)
    assert figures["late"] == len(done.swapped)
    relayed = packets[-len(done.passed) :]
    # What the network did; or, where the machine held the relay up, what came to it so.
    seen_ms = jitter_ms((p.sequence, p.timestamp, p.at_s) for p in relayed)
    jitter = min((done.jitter_ms(), seen_ms), key=lambda ms: abs(ms - figures["jitter_ms"]))
    assert figures["jitter_ms"] == pytest.approx(jitter, rel=0.15, abs=1)
    assert figures["jitter_ms"] > 5
    loss_pct = 100 * len(done.lost) / (len(done.lost) + len(done.passed))
    assert quality["loss_pct"] == pytest.approx(loss_pct, abs=0.01)
    assert quality["mos"] == pytest.approx(
        mean_opinion_score("PCMA", loss_pct=loss_pct, jitter_ms=figures["jitter_ms"]), abs=0.02
    )
    agent_figures = closed["agent_leg"]
    assert agent_figures["lost"] == 0  # the other leg had a good network
    assert agent_figures["mos"] > quality["mos"] + 0.3

    # The gaps are the phone's to conceal: what it gets has them, and nothing twice.
    assert len({stream.ssrc for stream in to_phone}) == 1
    assert sum(stream.lost for stream in to_phone) == len(done.lost)
    assert len({packet.sequence for packet in relayed}) == len(done.passed)
    first_in, first_out = min(done.passed), relayed[0].sequence
    assert {(p.sequence - first_out) & 0xFFFF for p in relayed} == {
        number - first_in for number in done.passed
    }
    assert first_in > FIRST


async def test_silence_strangers_and_a_caller_who_moves(tmp_path: Path) -> None:
    async with (
        scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=PLAIN) as talk,
        talking(STRANGER, ssrc=0x1234) as stranger,
        talking(CALLER, ssrc=0x1234) as neighbour,
        talking(CALLER, ssrc=0x99) as moved,
    ):
        call = await talk.dial()
        await call.wait("notice.finished")
        talker, console, agent = talk.talker, talk.console, talk.agent
        for one in (talker, moved):
            one.hertz = CALLER_HZ
        talker.talking = True
        await asyncio.sleep(1)  # a conversation

        # Two strangers: at an address that nobody knows, and behind the caller's own address.
        (agent_port,) = bound_ports(SIDES[1], talk.node.settings.sip.phone.rtp_ports)
        for one in (stranger, neighbour):
            one.hertz, one.level, one.to = STRANGER_HZ, 0.05, call.media
            one.sequence, one.timestamp, one.talking = talker.sequence, talker.timestamp, True
        await asyncio.sleep(0.6)  # both spray
        stranger.to = (SIDES[1], agent_port)
        await asyncio.sleep(0.6)  # at the agent's leg too
        stranger.talking = neighbour.talking = False

        # The source begins anew without a word, then moves to another port by a re-INVITE.
        talker.ssrc, talker.sequence, talker.timestamp = 0x77, 40000, 3_000_000_000
        await asyncio.sleep(0.6)  # heard under its new name
        talker.talking = False
        answer = await call.dialog.invite(body=talk.pbx.sdp(port=moved.port))
        assert answer.status == 200
        moved.to, moved.talking = (answer.media_address, answer.media_port), True
        await asyncio.sleep(1)  # heard from its new port
        before = len(talker.packets)
        await asyncio.sleep(0.2)  # and nothing goes to the old one
        assert len(talker.packets) == before
        assert len(moved.packets) > 40
        # The control: had it been let through, the stranger's tone would have been heard.
        moved.hertz = 2700.0
        await asyncio.sleep(0.5)
        moved.hertz = CALLER_HZ
        assert not console.seen("media.silent")

        agent.pause(paused=True)
        quiet = await console.wait("media.silent")
        assert (quiet["leg"], quiet["silent"]) == ("agent", True)
        agent.pause(paused=False)
        moved.talking = False
        again = await console.wait("media.silent", count=2)
        assert (again["leg"], again["silent"]) == ("agent", False)
        silent = await console.wait("media.silent", count=3)
        assert (silent["leg"], silent["silent"]) == ("caller", True)
        moved.talking = True
        again = await console.wait("media.silent", count=4)
        assert (again["leg"], again["silent"]) == ("caller", False)

        closed = await call.hang_up()
        await agent.wait("CALL_CLOSED")
        figures = closed["caller_leg"], closed["agent_leg"]
        (port,) = await talk.capture.media_ports()
        to_phone = [s for s in await talk.capture.streams(port) if s.source == (SIDES[1], port)]
        from_phone = await talk.capture.packets(sent_to=port)

    # Since its last packet: the telephone may have been slow before it was stopped.
    last_s = max(packet.at_s for packet in from_phone if packet.at_s < quiet["ts"])
    assert 2.9 < quiet["ts"] - last_s < 4.0
    caller_leg, agent_leg = figures
    assert stranger.sent + neighbour.sent > 100
    refused = caller_leg["wrong_source"] + agent_leg["wrong_source"]
    assert refused >= stranger.sent + neighbour.sent
    assert agent_leg["wrong_source"] >= 25
    assert not stranger.packets
    assert not neighbour.packets

    # One stream without a seam, whatever the source did.
    assert {stream.lost for stream in to_phone} == {0}
    assert len({stream.ssrc for stream in to_phone}) == 1
    heard = blocks(agent.heard()[int(2.5 * RATE) :], 0.1)
    assert max(tone_db(block, STRANGER_HZ) for block in heard) < -45
    assert max(tone_db(block, 2700.0) for block in heard) > -32
    talk_blocks = [block for block in heard if tone_db(block, CALLER_HZ) > -32]
    assert len(talk_blocks) > 30
    assert np.median([purity(block, CALLER_HZ) for block in talk_blocks]) > 0.95
    spoken = blocks(moved.heard(), 0.2)
    assert max(tone_db(block, STRANGER_HZ) for block in spoken) < -60
    assert np.median([purity(block, AGENT_HZ) for block in spoken]) > 0.95
