"""The judge of this folder is itself judged: each kind of leftover is noticed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from callshield.messages import CallStarted
from tests.peers.sipp import Sipp, running_sipp
from tests.sip.half_node import PBX, PHONE, SCENARIOS, HalfNode, until_bound
from tests.sip.parts import PARTS

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_an_honest_call_leaves_nothing(half: HalfNode, tmp_path: Path) -> None:
    await half.judge(tmp_path)


async def noticed(half: HalfNode, wanted: set[str]) -> set[str]:
    """What the judge sees once these are among it, or after a while without them: a port is opened
    by another process, which may take a moment to show."""
    end = time.monotonic() + 20
    while True:
        seen = set(await half.leftovers(patience_s=0))
        if wanted <= seen or time.monotonic() > end:
            return seen
        await asyncio.sleep(0.05)  # nothing outside tells us: ask again


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
        assert await noticed(half, {shows}) == {shows}
    finally:
        await half.ask(mend)
    assert not await half.leftovers()


async def test_the_judge_notices_a_dialog(half: HalfNode, tmp_path: Path) -> None:
    """A call that still rings is no clean state; its transactions and dialogs are seen."""
    agent = half.agent()
    async with half.phone(tmp_path, agent, "phone_rings"), half.pbx(tmp_path, agent, "pbx_talks"):
        await half.event(CallStarted, lambda event: event.agent_id == agent)
        held = {"calls", "dialogs", "transactions", "legs", "ports"}
        assert held <= await noticed(half, held)
    # Both peers are gone without a word: the ring timeout ends it.
    await half.judge(tmp_path)


#: Without a body, which the phone does not look at.
REQUEST = """\
{method} sip:1001@{address}:{port} SIP/2.0\r
Via: SIP/2.0/UDP {own};branch=z9hG4bK{method}{number}\r
From: <sip:pbx@{own}>;tag=1\r
To: <sip:1001@{address}>{tag}\r
Call-ID: again\r
CSeq: {number} {method}\r
Content-Length: 0\r
\r
"""


class Caller:
    """Says to a phone what a test wants said, as often as it wants."""

    def __init__(self, line: socket.socket, port: int) -> None:
        self.line, self.port = line, port

    def say(self, method: str, number: int, tag: str = "") -> None:
        request = REQUEST.format(
            method=method,
            number=number,
            tag=tag,
            address=PHONE,
            port=self.port,
            own=f"{PBX}:{self.line.getsockname()[1]}",
        )
        self.line.sendto(request.encode(), (PHONE, self.port))

    async def hear(self, first: str) -> str:
        """The tag of the phone in the next answer that begins so, with ``;tag=``."""
        while True:
            answer = (await asyncio.to_thread(self.line.recv, 4096)).decode()
            if answer.startswith(first):
                to = next(line for line in answer.splitlines() if line.startswith("To:"))
                return "".join(to.partition(";tag=")[1:])


@asynccontextmanager
async def called(folder: Path, scenario: str, **values: str) -> AsyncIterator[tuple[Sipp, Caller]]:
    """A phone of this folder's that plays a scenario, and who calls it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind((PBX, 0))
        line.settimeout(20)
        async with running_sipp(
            folder, PHONE, scenario, values=PARTS | values, scenarios=SCENARIOS
        ) as phone:
            await until_bound(PHONE, phone.port)
            yield phone, Caller(line, phone.port)


@pytest.mark.parametrize(("again", "status"), [("INVITE", 0), ("OPTIONS", 1)])
async def test_the_honest_phone_takes_an_invite_that_has_crossed_its_answer(
    tmp_path: Path, again: str, status: int
) -> None:
    """And, the negative control, nothing else in its place."""
    async with called(tmp_path, "phone_answers") as (phone, caller):
        caller.say("INVITE", 1)
        await caller.hear("SIP/2.0 200")
        for _ in range(3):
            caller.say(again, 1)
        caller.say("ACK", 1)
        caller.say("BYE", 2)
        assert await phone.finish(20) == status, phone.messages()


@pytest.mark.parametrize(("again", "status"), [("CANCEL", 0), ("OPTIONS", 1)])
@pytest.mark.parametrize(
    ("scenario", "answer"), [("phone_rings", "487"), ("phone_answers_the_cancel", "200")]
)
async def test_a_phone_takes_a_cancel_that_has_crossed_its_answers(
    tmp_path: Path, scenario: str, answer: str, again: str, status: int
) -> None:
    async with called(tmp_path, scenario) as (phone, caller):
        caller.say("INVITE", 1)
        await caller.hear("SIP/2.0 180")
        caller.say("CANCEL", 1)
        await caller.hear("SIP/2.0 200")
        await caller.hear(f"SIP/2.0 {answer}")
        for _ in range(3):
            caller.say(again, 1)
        caller.say("ACK", 1)
        if answer == "200":
            caller.say("BYE", 2)
        assert await phone.finish(20) == status, phone.messages()


@pytest.mark.parametrize(("again", "status"), [("ACK", 0), ("OPTIONS", 1)])
async def test_a_phone_takes_no_second_ack_of_its_question_for_that_of_its_answer(
    tmp_path: Path, again: str, status: int
) -> None:
    values = {"status": "401 Unauthorized", "headers": "Server: phone\n"}
    async with called(tmp_path, "phone_challenges", **values) as (phone, caller):
        caller.say("INVITE", 1)
        asked = await caller.hear("SIP/2.0 401")
        caller.say("ACK", 1, asked)
        caller.say("INVITE", 2)
        answered = await caller.hear("SIP/2.0 200")
        for _ in range(3):
            caller.say(again, 1, asked)
        caller.say("ACK", 2, answered)
        caller.say("BYE", 3, answered)
        assert await phone.finish(20) == status, phone.messages()
