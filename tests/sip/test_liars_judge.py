"""The judge of this folder is itself judged: each kind of leftover is noticed."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from callshield.messages import CallStarted
from tests.peers.sipp import running_sipp
from tests.sip.half_node import PBX, PHONE, SCENARIOS, HalfNode
from tests.sip.parts import PARTS

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_an_honest_call_leaves_nothing(half: HalfNode, tmp_path: Path) -> None:
    await half.judge(tmp_path)


@pytest.mark.parametrize(
    ("leak", "mend", "shows"),
    [
        ("leak call", "mend call", "calls"),
        ("leak task", "mend", "tasks"),
        ("leak socket", "mend", "descriptors"),
        ("leak port", "mend port", "ports"),
    ],
)
async def test_the_judge_notices(half: HalfNode, leak: str, mend: str, shows: str) -> None:
    await half.ask(leak)
    try:
        # A port is opened by another process: it may take a moment to show.
        left: dict[str, object] = {}
        for _ in range(20):
            left = dict(await half.leftovers(patience_s=0.1))
            if left:
                break
        assert list(left) == [shows]
    finally:
        await half.ask(mend)
    assert not await half.leftovers()


async def test_the_judge_notices_a_dialog(half: HalfNode, tmp_path: Path) -> None:
    """A call that still rings is no clean state; its transactions and dialogs are seen."""
    agent = half.agent()
    async with half.phone(tmp_path, agent, "phone_rings"), half.pbx(tmp_path, agent, "pbx_talks"):
        await half.event(CallStarted, lambda event: event.agent_id == agent)
        left = await half.leftovers(patience_s=0.1)
        assert {"calls", "dialogs", "transactions", "legs", "ports"} <= set(left)
    # Both peers are gone without a word: the ring timeout ends it.
    await half.judge(tmp_path)


#: Without a body, which the phone does not look at.
REQUEST = """\
{method} sip:1001@{address}:{port} SIP/2.0\r
Via: SIP/2.0/UDP {own};branch=z9hG4bK{method}\r
From: <sip:pbx@{own}>;tag=1\r
To: <sip:1001@{address}>\r
Call-ID: again\r
CSeq: {number} {method}\r
Content-Length: 0\r
\r
"""


@pytest.mark.parametrize(("again", "status"), [("INVITE", 0), ("OPTIONS", 1)])
async def test_the_honest_phone_takes_an_invite_that_has_crossed_its_answer(
    tmp_path: Path, again: str, status: int
) -> None:
    """And, the negative control, nothing else in its place."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind((PBX, 0))
        line.settimeout(10)
        own = f"{PBX}:{line.getsockname()[1]}"

        def say(phone_port: int, method: str, number: int) -> None:
            values = {"address": PHONE, "port": phone_port, "own": own}
            request = REQUEST.format(method=method, number=number, **values)
            line.sendto(request.encode(), (PHONE, phone_port))

        async def answers(first: bytes) -> None:
            while not (await asyncio.to_thread(line.recv, 4096)).startswith(first):
                pass

        async with running_sipp(
            tmp_path, PHONE, "phone_answers", values=PARTS, scenarios=SCENARIOS
        ) as phone:
            await asyncio.sleep(0.5)  # until it listens
            say(phone.port, "INVITE", 1)
            await answers(b"SIP/2.0 200")
            for _ in range(3):
                say(phone.port, again, 1)
            say(phone.port, "ACK", 1)
            say(phone.port, "BYE", 2)
            assert await phone.finish(20) == status, phone.messages()
