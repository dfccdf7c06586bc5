"""Both sides begin at once (RFC 3261 14.1): our session refresh meets one of the far end's.

A refresh of ours comes 45 s into a session of 90 s, the shortest there is (RFC 4028), so these
calls are begun before all other scenarios and judged when they are through.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.sip.half_node import HalfNode, half_node
from tests.sip.parts import SDP

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

DESCRIBED = f"Content-Type: application/sdp\nContent-Length: [len]\n\n{SDP}"
EMPTY = "Content-Length: 0\n"
ACK = '<recv request="ACK"/>'
REINVITE = {"also": "", "refresh": "INVITE", "maybe_ack": ACK, "description": DESCRIBED}
UPDATE = {"also": ", UPDATE", "refresh": "UPDATE", "maybe_ack": "", "description": EMPTY}
#: Name → scenario and what fills it.
GLARES = {
    "re-INVITE 491": ("pbx_refuses_the_refresh", REINVITE | {"refusal": "491 Request Pending"}),
    "UPDATE 491": ("pbx_refuses_the_refresh", UPDATE | {"refusal": "491 Request Pending"}),
    "UPDATE 500": (
        "pbx_refuses_the_refresh",
        UPDATE | {"refusal": "500 Server Internal Error\nRetry-After: 2"},
    ),
    "crossing": ("pbx_crosses_the_refresh", REINVITE),
}
NAMES = list(GLARES)


async def play_glares(folder: Path) -> dict[str, str]:
    """Play all of them at once; what the PBX wrote of each that did not go as its file says."""

    async def one(half: HalfNode, name: str) -> tuple[str, str]:
        agent = half.agent()
        scenario, values = GLARES[name]
        async with (
            half.phone(folder / agent, agent, "phone_answers") as desk,
            half.pbx(folder / agent, agent, scenario, values=values) as caller,
        ):
            good = await caller.finish(90) == 0 and await desk.finish(10) == 0
            return name, "" if good else caller.messages() + desk.messages()

    async with half_node(folder / "node", sip="rtp_timeout_s = 120\n") as half:
        results = dict(await asyncio.gather(*(one(half, name) for name in NAMES)))
        await half.judge(folder)
    return results


@pytest.mark.parametrize("name", NAMES)
async def test_a_glare_is_survived(glares: asyncio.Task[dict[str, str]], name: str) -> None:
    wrong = (await asyncio.shield(glares))[name]
    assert not wrong, wrong
