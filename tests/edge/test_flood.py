"""Floods, guesses and rubbish at the edge: their sender is not heard, everybody else is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.edge.kit import PBX, PHONE_1, PHONE_2, Edge, running_edge
from tests.edge.scripted import Registration, options
from tests.edge.test_registrar import answering_options
from tests.peers.sip_ua import Ua, running_ua

pytestmark = [pytest.mark.edge, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]

NODE = "127.0.54.2"
BAN_S = 4
LIMITS = f"""[edge.limits]
phone_requests_per_2s = 30
pbx_calls_per_s = 5
wrong_passwords = 3
ban_s = {BAN_S}
"""


@dataclass
class Scene:
    """An edge with low limits, one scripted node, and telephones at two addresses."""

    edge: Edge
    passwords: dict[str, str]
    node: Ua
    one: Ua
    other: Ua


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("flood")
    async with (
        running_ua(NODE, "node") as node,
        running_ua(PHONE_1, "1001") as one,
        running_ua(PHONE_2, "1002") as other,
        answering_options(node),
        running_edge(
            folder / "edge",
            {"node-1": (f"sip:{NODE}:{node.port}", [])},
            ("1001", "1002"),
            tables=LIMITS,
        ) as (edge, passwords),
    ):
        await edge.until(node_1=True)
        yield Scene(edge, passwords, node, one, other)


async def is_answered(ua: Ua, edge: Edge) -> bool:
    try:
        async with asyncio.timeout(1.0):
            return (await options(ua, edge)).status == 200
    except TimeoutError:
        return False


async def until_answered(ua: Ua, edge: Edge) -> None:
    """Asking does not lengthen a ban: it is over when its time is."""
    async with asyncio.timeout(BAN_S + 15):
        while not await is_answered(ua, edge):  # noqa: ASYNC110
            await asyncio.sleep(0.5)  # the time itself is what is waited for


async def test_who_floods_is_not_answered_for_a_while(scene: Scene) -> None:
    edge = scene.edge
    for _ in range(120):
        scene.one.send(
            f"OPTIONS sip:{edge.place} SIP/2.0\r\nVia: SIP/2.0/UDP {PHONE_1}:{scene.one.port};"
            f"branch=z9hG4bK{random.randrange(1 << 48):x}\r\nFrom: <sip:a@b>;tag=1\r\n"
            "To: <sip:a@b>\r\nCall-ID: f\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
            "Content-Length: 0\r\n\r\n",
            (edge.address, edge.port),
        )
    assert not await is_answered(scene.one, edge)
    # Others are: an address is one sender.
    assert await is_answered(scene.other, edge)
    assert f"flood from {PHONE_1}" in edge.log()
    await until_answered(scene.one, edge)


async def test_who_guesses_passwords_is_not_listened_to(scene: Scene) -> None:
    edge, right = scene.edge, scene.passwords["1001"]
    guesser = Registration(scene.one, edge, "1001")
    assert [(await guesser.register(f"guess{number}")).status for number in range(3)] == [401] * 3
    # Not even the right one, from there: it could be a guess.
    challenged = await guesser.send()
    said = await guesser.send(authorization=guesser.digest(challenged, right))
    assert said.status == 403
    # Elsewhere that user is let in, and here others are.
    assert (await Registration(scene.other, edge, "1001").register(right)).status == 200
    mine = await Registration(scene.one, edge, "1002").register(scene.passwords["1002"])
    assert mine.status == 200
    await asyncio.sleep(BAN_S + 2)  # the time itself is what is tested
    assert (await guesser.register(right)).status == 200


async def test_who_tries_every_user_is_not_listened_to_at_all(scene: Scene) -> None:
    edge = scene.edge
    for number in range(30):
        guesser = Registration(scene.one, edge, f"20{number:02}")
        challenged = await guesser.send()
        guesser.begin(authorization=guesser.digest(challenged, "guess"))
        if number % 5 == 4:
            await asyncio.sleep(2)  # slowly: a flood would end it at once
    assert not await is_answered(scene.one, edge)
    assert await is_answered(scene.other, edge)
    await until_answered(scene.one, edge)


async def test_pbx_that_calls_too_fast_is_told_when_to_come_back(scene: Scene) -> None:
    edge = scene.edge
    async with running_ua(PBX, "pbx") as pbx:

        async def busy() -> None:
            while True:
                scene.node.reply(await scene.node.request("INVITE", 60), 486, tag="busy")

        answering = asyncio.create_task(busy())
        target = f"sip:1001@{edge.place}"
        try:
            answers = await asyncio.gather(
                *(pbx.begin(target, edge.address, edge.port).invite() for _ in range(20))
            )
            statuses = [answer.status for answer in answers]
            # Five a second, and a second may have ended meanwhile.
            assert 5 <= statuses.count(486) <= 10, statuses
            refused = [answer for answer in answers if answer.status == 503]
            assert len(refused) == 20 - statuses.count(486)
            assert {answer["Retry-After"] for answer in refused} == {"1"}
            await asyncio.sleep(2.1)  # what they were told, and the second in which that ends
            assert (await pbx.begin(target, edge.address, edge.port).invite()).status == 486
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


async def test_rubbish_is_neither_answered_nor_written_down(scene: Scene) -> None:
    edge = scene.edge
    dice = random.Random(7)
    target = (edge.address, edge.port)
    transport = scene.one._transport
    assert transport is not None
    secret = "01099998888"
    for number in range(25):
        if number % 3 == 0:
            data = dice.randbytes(dice.randrange(5, 1400))
        elif number % 3 == 1:
            data = f"INVITE sip:{secret}@\x00\xff SIP/2.0\r\nVia: {'x' * 900}\r\n\r\n".encode()
        else:
            data = (
                f"INVITE sip:{secret}@{edge.place} SIP/2.0\r\nFrom: <sip:{secret}@@>\r\n"
                "Content-Length: -5\r\nCSeq: INVITE\r\n\r\n"
            ).encode()
        transport.sendto(data, target)
        await asyncio.sleep(0.1)  # under the limit: it is not the flood that is looked at
    assert await is_answered(scene.one, edge)
    assert secret not in edge.log()


async def test_scanners_hear_nothing(scene: Scene) -> None:
    scanner = Registration(scene.one, scene.edge, "1001", headers=("User-Agent: friendly-scanner",))
    scanner.begin()
    with pytest.raises(AssertionError):
        await scanner.answered(timeout_s=1)
