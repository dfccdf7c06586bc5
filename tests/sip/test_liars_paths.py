"""Where a far end would lead us: Contact and Record-Route elsewhere, redirections and chains."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from callshield.messages import CallEnded
from tests.sip.half_node import PHONE, STRANGER, HalfNode

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]


@contextmanager
def listening(address: str, port: int = 0) -> Iterator[socket.socket]:
    """Somebody who only listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((address, port))
        ear.setblocking(False)
        yield ear


def heard(ear: socket.socket) -> list[str]:
    """The first lines of all that came."""
    lines = []
    while True:
        try:
            lines.append(ear.recv(65536).split(b"\r\n")[0].decode())
        except BlockingIOError:
            return lines


@pytest.mark.parametrize("kind", ["contact", "maddr", "name", "record-route"])
@pytest.mark.parametrize("liar", ["phone", "pbx"])
async def test_nothing_leaves_the_networks(
    half: HalfNode, tmp_path: Path, liar: str, kind: str
) -> None:
    """ACK and BYE go where the message came from, and none to the place that it names."""
    agent = half.agent()
    with listening(STRANGER) as ear:
        elsewhere = f"{STRANGER}:{ear.getsockname()[1]}"
        here = "Contact: <sip:x@[local_ip]:[local_port]>"
        lie = {
            "contact": f"Contact: <sip:x@{elsewhere}>",
            "maddr": f"Contact: <sip:x@[local_ip]:{ear.getsockname()[1]};maddr={STRANGER}>",
            "name": "Contact: <sip:x@pbx.example.invalid>",
            "record-route": f"{here}\nRecord-Route: <sip:{elsewhere};lr>",
        }[kind]
        phone = "phone_leads_away" if liar == "phone" else "phone_hangs_up"
        pbx = "pbx_talks" if liar == "phone" else "pbx_waits"
        async with (
            half.phone(tmp_path, agent, phone, values={"headers": lie}) as desk,
            half.pbx(tmp_path, agent, pbx, values={"headers": lie}) as caller,
        ):
            assert await caller.finish(20) == 0, caller.messages()
            assert await desk.finish(20) == 0, desk.messages()
        await half.judge(tmp_path)
        assert heard(ear) == []


async def test_a_contact_inside_the_networks_is_followed(half: HalfNode, tmp_path: Path) -> None:
    agent = half.agent()
    with listening(PHONE) as ear:
        port = ear.getsockname()[1]
        async with (
            half.phone(
                tmp_path, agent, "phone_answers_here", values={"elsewhere": f"{PHONE}:{port}"}
            ) as desk,
            half.pbx(tmp_path, agent, "pbx_talks") as caller,
        ):
            assert await desk.finish(20) == 0, desk.messages()
            assert await caller.finish(20) == 0, caller.messages()
        await half.judge(tmp_path)
        lines = heard(ear)
    assert lines[0] == f"ACK sip:phone@{PHONE}:{port} SIP/2.0"
    assert f"BYE sip:phone@{PHONE}:{port} SIP/2.0" in lines


async def test_a_dialog_does_not_move_out_in_the_middle(half: HalfNode, tmp_path: Path) -> None:
    """A re-INVITE with another Contact is a target refresh (RFC 3261 12.2.1.2)."""
    agent = half.agent()
    with listening(STRANGER) as ear:
        elsewhere = f"{STRANGER}:{ear.getsockname()[1]}"
        async with (
            half.phone(tmp_path, agent, "phone_hangs_up") as desk,
            half.pbx(tmp_path, agent, "pbx_moves", values={"elsewhere": elsewhere}) as caller,
        ):
            assert await caller.finish(20) == 0, caller.messages()
            assert await desk.finish(20) == 0, desk.messages()
        await half.judge(tmp_path)
        assert heard(ear) == []


# ------------------------------------------------------------------------------ redirections


async def test_a_phone_that_has_moved_is_followed_twice(half: HalfNode, tmp_path: Path) -> None:
    """302 → 302 → answer: the same user at other ports of the phones' network."""
    agent, second, third = half.agent(), half.agent(), half.agent()
    ports = half.ports
    moved = [
        {"headers": f"Contact: <sip:{agent}@{PHONE}:{ports[where]}>"} for where in (second, third)
    ]
    async with (
        half.phone(tmp_path, agent, "phone_redirects", values=moved[0]) as first,
        half.phone(tmp_path, second, "phone_redirects", values=moved[1]) as middle,
        half.phone(tmp_path, third, "phone_answers") as last,
        half.pbx(tmp_path, agent, "pbx_talks") as caller,
    ):
        assert await caller.finish(20) == 0, caller.messages()
        for phone in (first, middle, last):
            assert await phone.finish(20) == 0, phone.messages()
        (invite,) = last.received("INVITE")
        assert invite.startswith(f"INVITE sip:{agent}@{PHONE}:{ports[third]} SIP/2.0")
    await half.judge(tmp_path)


@pytest.mark.parametrize(
    ("to", "status"),
    [
        ("sip:AGENT@PHONE:OWN", 480),  # to itself: a loop
        ("sip:AGENT@STRANGER:5060", 480),  # outside the networks
        ("sip:AGENT@PHONE:OWN;transport=tcp", 480),
        ("sip:1002@STRANGER:5060", 302),  # somebody else: the PBX decides
        ("tel:+8225551234", 302),
        ("", 480),
    ],
    ids=["loop", "host", "transport", "forward", "tel", "nowhere"],
)
async def test_a_redirection_that_is_not_followed(
    half: HalfNode, tmp_path: Path, to: str, status: int
) -> None:
    agent = half.agent()
    target = (
        to.replace("AGENT", agent)
        .replace("STRANGER", STRANGER)
        .replace("PHONE", PHONE)
        .replace("OWN", str(half.ports[agent]))
    )
    headers = f"Contact: <{target}>" if target else "Server: phone"
    with listening(STRANGER, 5060) as ear:
        async with (
            half.phone(tmp_path, agent, "phone_redirects", values={"headers": headers}) as desk,
            half.pbx(tmp_path, agent, "pbx_refused", values={"status": str(status)}) as caller,
        ):
            assert await caller.finish(20) == 0, caller.messages()
            assert await desk.finish(20) == 0, desk.messages()
            (answer,) = caller.received(f"SIP/2.0 {status}")
        await half.judge(tmp_path)
        assert heard(ear) == []
    assert (f"<{target}>" in answer) == (status == 302)
    ended = half.of_agent(CallEnded, agent)
    assert [event.reason for event in ended] == ["redirected" if status == 302 else "no_answer"]


async def test_a_chain_without_end_is_given_up(half: HalfNode, tmp_path: Path) -> None:
    """Each phone names the next one; the third redirection is followed, the fourth is not."""
    agent = half.agent()
    others = [half.agent() for _ in range(4)]
    chain = [agent, *others[:3]]
    nexts = {name: half.ports[other] for name, other in zip(chain, others, strict=True)}
    async with AsyncExitStack() as stack:
        desks = []
        for name in chain:
            values = {"headers": f"Contact: <sip:{agent}@{PHONE}:{nexts[name]}>"}
            desk = half.phone(tmp_path, name, "phone_redirects", values=values)
            desks.append(await stack.enter_async_context(desk))
        with listening(PHONE, half.ports[others[3]]) as ear:
            async with half.pbx(tmp_path, agent, "pbx_refused", values={"status": "480"}) as caller:
                assert await caller.finish(20) == 0, caller.messages()
            for phone in desks:
                assert await phone.finish(20) == 0, phone.messages()
            assert heard(ear) == []
    await half.judge(tmp_path)
