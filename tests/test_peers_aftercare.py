"""Between real telephones: a hand over nobody answers, what the caller hears, and what BYE says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.heard import find, read_growing_wav, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import running_baresip
from tests.peers.capture import Capture, capturing
from tests.peers.node import Node, running_node
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

CALLER, PHONE, HELPER = "127.0.0.4", "127.0.0.5", "127.0.0.6"
#: Our own addresses, so that a capture sees nobody else's calls.
SIDES = ("127.0.3.62", "127.0.3.63")
HEADER = "X-Callshield-Exclude: quality, handling_time, survey"


def sip_only(node: Node) -> str:
    """For :class:`Capture`'s filter: the signalling with both telephones, no audio."""
    return f"{CALLER} and port {node.pbx_port} or (host {PHONE} and port {node.phone_port})"


async def byes(capture: Capture, node: Node, to: str) -> list[str]:
    """The header fields of every BYE of ours to an address; one that was said again counts once."""
    decoded = [
        word
        for port in (node.pbx_port, node.phone_port)
        for word in ("-d", f"udp.port=={port},sip")
    ]
    said = await capture.fields(
        f'sip.Method=="BYE" && ip.dst=={to}', "sip.msg_hdr", options=tuple(decoded)
    )
    return list(dict.fromkeys(said))


async def test_a_hand_over_nobody_answers_and_an_end_that_leaves_the_call_out_of_figures(
    tmp_path: Path,
) -> None:
    tone = write_tone(tmp_path / "tone.wav", 1000.0, 90, 0.05)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", tone) as caller,
        running_baresip(tmp_path / "helper", HELPER, "2000", tone, auto_answer=False) as helper,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            sides=SIDES,
            extra=(
                '[notice]\nprompts = ["recording"]\n'
                f'[supervisors.kim]\nuri = "{helper.uri}"\nrole = "manager"\n'
            ),
        ) as node,
        node.watch("1001") as console,
        node.watch("supervisor") as supervisor,
        capturing(tmp_path / "sip.pcap", sip_only(node)) as capture,
    ):
        # A calm call: its BYE says nothing.
        await caller.command("dial", node.uri("1001"))
        await console.wait("notice.finished")
        await agent.command("hangup")
        await console.wait("call.ended")
        await caller.wait("CALL_CLOSED")

        await caller.command("dial", node.uri("1001"))
        await console.wait("notice.finished", count=2)
        path = f"/calls/{console.seen('call.started')[1]['call_id']}/actions"
        assert (await node.post(path, "1001", {"action": "hand_over"})).status_code == 200
        await helper.wait("CALL_INCOMING")
        await asyncio.sleep(5)  # the caller hears that somebody is being called
        await helper.command("hangup")
        promised = await supervisor.wait("callback.changed")
        assert (promised["state"], promised["owner"]) == ("promised", "kim")
        await supervisor.wait("callback.changed", lambda event: event["state"] == "spoken")
        assert (await node.post(path, "1001", {"action": "end"})).status_code == 200
        assert (await console.wait("call.marked"))["by"] == "end"
        assert "by" not in await supervisor.wait("call.marked")
        await console.wait("call.ended", count=2)
        await caller.wait("CALL_CLOSED", count=2)

        await asyncio.sleep(1)  # tshark writes in blocks and tells nobody
        calm, marked = await byes(capture, node, CALLER)
        assert "X-Callshield-Exclude" not in calm
        assert HEADER in marked
        ours = await byes(capture, node, PHONE)
        assert ours, "the agent's phone got a BYE of its own"
        assert not any("X-Callshield-Exclude" in fields for fields in ours)

    heard = read_growing_wav(caller.recording())
    position = 0.0
    for prompt_id in ("recording", "handing_over", "call_back", "closing"):
        found = find(read_wav(SHIPPED / "ko" / f"{prompt_id}.wav"), heard, after_s=position)
        assert found is not None, prompt_id
        assert found.whole, prompt_id
        position = found.end_s - 0.1
