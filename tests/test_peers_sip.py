"""What the PBX is told when a call cannot be: exact SIP by sipp, on a whole node."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callshield.free_ports import free_port
from tests.peers.node import PBX_SIDE, Node, running_node
from tests.peers.sipp import Sipp, running_sipp

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

PBX, PHONE = "127.0.0.4", "127.0.0.5"
HEAD = "v=0\no=u 1 1 IN IP4 127.0.0.4\ns=-\nc=IN IP4 127.0.0.4\nt=0 0\n"
G711 = HEAD + "m=audio 4000 RTP/AVP 8 0\n"
G729_ONLY = HEAD + "m=audio 4000 RTP/AVP 18\na=rtpmap:18 G729/8000\n"
BROKEN = HEAD + "m=audio 99999 RTP/AVP 8\n"


async def refused(
    folder: Path,
    node: Node,
    status: int,
    *,
    service: str = "1001",
    sdp: str = G711,
    headers: str = "",
    hops: str = "70",
) -> Sipp:
    """Place a call that must end with ``status``; sipp itself is the judge."""
    async with running_sipp(
        folder / f"pbx-{status}-{service}",
        PBX,
        "uac_refused",
        values={"status": str(status), "sdp": sdp, "headers": headers, "hops": hops},
        target=f"127.0.0.2:{node.pbx_port}",
        service=service,
    ) as pbx:
        assert await pbx.finish() == 0, pbx.messages()
        return pbx


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node whose agent's phone is not there at all."""
    phone = f"sip:1001@{PHONE}:{free_port(PHONE)}"
    async with running_node(
        tmp_path / "node", {"1001": phone}, peer=PBX, calls=1, sip="ring_timeout_s = 5\n"
    ) as node:
        yield node


async def test_what_is_refused_before_any_phone_rings(node: Node, tmp_path: Path) -> None:
    await refused(tmp_path, node, 404, service="9999")
    await refused(tmp_path, node, 488, sdp=G729_ONLY)
    # What was offered is named, so that an operator can mend the PBX's codec list.
    (entry,) = await node.wait_for_log("offer_refused")
    assert "G729/8000" in entry["detail"]
    await refused(tmp_path, node, 400, sdp=BROKEN)
    await refused(tmp_path, node, 483, hops="0")
    assert not node.logs("leg_callback_failed")
    assert not node.logs("invite_failed")


async def test_a_phone_that_is_not_there_is_480(node: Node, tmp_path: Path) -> None:
    async with node.watch("1001") as console:
        await refused(tmp_path, node, 480)
        ended = await console.wait("call.ended")
        assert ended["reason"] == "no_answer"


@pytest.mark.parametrize(
    ("phone", "pbx", "reason"),
    [
        ("486 Busy Here", 486, "busy"),
        ("503 Service Unavailable", 480, "no_answer"),
        ("603 Decline", 603, "refused"),
        ("302 Moved Temporarily", 302, "redirected"),
    ],
)
async def test_a_phones_refusal_reaches_the_pbx(
    tmp_path: Path, phone: str, pbx: int, reason: str
) -> None:
    contact = f"Contact: <sip:1002@{PHONE}:5999>\n" if phone.startswith("302") else ""
    async with (
        running_sipp(
            tmp_path / "phone", PHONE, "uas_refuse", values={"status": phone, "headers": contact}
        ) as desk,
        running_node(tmp_path / "node", {"1001": desk.uri}, peer=PBX) as node,
        node.watch("1001") as console,
    ):
        caller = await refused(
            tmp_path,
            node,
            pbx,
            headers="X-Queue: support\nDiversion: <sip:600@pbx>;reason=unconditional\n",
        )
        assert await desk.finish() == 0
        ended = await console.wait("call.ended")
        assert ended["reason"] == reason
        (invite,) = desk.received("INVITE")
        (response,) = caller.received("SIP/2.0 " + str(pbx))
    assert f"X-Callshield-Call-ID: {ended['call_id']}" in invite
    assert f"X-Callshield-Call-ID: {ended['call_id']}" in response
    assert "X-Queue: support" in invite
    assert "Diversion: <sip:600@pbx>;reason=unconditional" in invite
    assert "Max-Forwards: 69" in invite
    assert 'From: "Kim" <sip:01012345678@127.0.0.3>' in invite
    # The caller's own address is nobody else's business.
    assert PBX not in invite
    if pbx == 302:
        assert f"<sip:1002@{PHONE}:5999>" in response


async def test_cancel_reaches_the_ringing_phone(tmp_path: Path) -> None:
    async with (
        running_sipp(tmp_path / "phone", PHONE, "uas_ring") as desk,
        running_node(tmp_path / "node", {"1001": desk.uri}, peer=PBX) as node,
        node.watch("1001") as console,
        running_sipp(
            tmp_path / "pbx",
            PBX,
            "uac_cancel",
            values={"headers": ""},
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        assert await pbx.finish() == 0, pbx.messages()
        assert await desk.finish() == 0, desk.messages()
        ended = await console.wait("call.ended")
        assert ended["reason"] == "cancelled"


async def test_both_legs_end_when_no_rtp_comes_and_the_second_call_waits_its_turn(
    tmp_path: Path,
) -> None:
    async with (
        running_sipp(tmp_path / "phone", PHONE, "uas_answer") as desk,
        running_node(
            tmp_path / "node",
            {"1001": desk.uri},
            peer=PBX,
            calls=1,
            sip="rtp_timeout_s = 5\n",
            extra='[notice]\nprompts = ["recording"]\n',
        ) as node,
        node.watch("1001") as console,
        running_sipp(
            tmp_path / "pbx",
            PBX,
            "uac_silent",
            values={"headers": ""},
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        answered = await console.wait("call.answered")
        assert answered["phone_user_agent"] == "Yealink SIP-T46S 66.85.0.5"
        busy = await refused(tmp_path, node, 503)  # admission_limit = 1
        assert "Retry-After: 5" in busy.messages()
        assert await pbx.finish() == 0, pbx.messages()
        assert await desk.finish() == 0, desk.messages()
        ended = await console.wait("call.ended")
        assert ended["reason"] == "media_timeout"
        # RFC 4028: we ask for a session timer on the phone's leg and take part on the PBX's.
        (invite,) = desk.received("INVITE")
        assert "Session-Expires: 1800" in invite
        assert "timer" in invite


def waiting(address: str, port: int) -> int:
    """Bytes that a UDP socket has not been read of yet (proc(5))."""
    host = bytes(int(part) for part in reversed(address.split("."))).hex().upper()
    rows = Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]
    (row,) = [fields for line in rows if (fields := line.split())[1] == f"{host}:{port:04X}"]
    return int(row[4].partition(":")[2], 16)


async def test_garbage_and_strangers_harm_nothing(node: Node, tmp_path: Path) -> None:
    junk = [
        b"\x00" * 64,
        b"INVITE",
        b"INVITE sip:1001@x SIP/2.0\r\n\r\n",
        b"INVITE sip:1001@x SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=\r\nCSeq: a b\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: nonsense\r\n\r\n",
        b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 99999999\r\n\r\n",
        bytes(range(256)) * 16,
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as known:
        known.bind((PBX, 0))
        for message in junk * 20:
            known.sendto(message, ("127.0.0.2", node.pbx_port))
    # What does not fit into the socket's buffer is lost: the strangers come when it is empty again.
    async with asyncio.timeout(30):
        while waiting(PBX_SIDE, node.pbx_port):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # the kernel tells nobody
    invite = (
        f"INVITE sip:1001@127.0.0.2:{node.pbx_port} SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 127.0.0.9:{port};branch=z9hG4bK{n}\r\n"
        "From: <sip:x@127.0.0.9>;tag={n}\r\nTo: <sip:1001@127.0.0.2>\r\nCall-ID: {n}\r\n"
        "CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.9", 0))
        stranger.setblocking(False)
        for number in range(50):
            text = invite.replace("{port}", str(stranger.getsockname()[1])).replace(
                "{n}", str(number)
            )
            await loop.sock_sendto(stranger, text.encode(), ("127.0.0.2", node.pbx_port))
        async with asyncio.timeout(30):
            answer = await loop.sock_recv(stranger, 65536)
        assert answer.startswith(b"SIP/2.0 403")
    # The node still works, no call was begun, and nothing was logged as our fault.
    await refused(tmp_path, node, 404, service="9999")
    assert not node.logs("leg_callback_failed")
    assert not node.logs("invite_failed")
    assert not node.logs("process_died")
    await node.stop()
    (counters,) = node.logs("sip_counters")
    assert counters["refused_source"] == 50
    assert counters["malformed"] >= 40
    assert "Traceback" not in node.log_path.read_text()


async def test_an_end_between_our_200_and_the_ack_is_a_bye(tmp_path: Path) -> None:
    """The media worker dies before the ACK: no final response can be sent any more."""
    async with (
        running_sipp(tmp_path / "phone", PHONE, "uas_answer") as desk,
        running_node(tmp_path / "node", {"1001": desk.uri}, peer=PBX) as node,
        node.watch("1001") as console,
        running_sipp(
            tmp_path / "pbx",
            PBX,
            "uac_late_ack",
            values={"ack_after_ms": "3000"},
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        await console.wait("call.answered")
        node.kill("media")
        assert await pbx.finish() == 0, pbx.messages()
        assert await desk.finish() == 0, desk.messages()
        ended = await console.wait("call.ended")
        assert ended["reason"] == "media_lost"
        await node.until_ready()


async def test_bytes_that_are_no_unicode_harm_neither_this_call_nor_the_next(
    tmp_path: Path,
) -> None:
    """Korean PBXs send names in EUC-KR: the call is placed, events go on, no place is lost."""
    name = "고객".encode("euc-kr").decode("latin-1")  # sipp writes files as they are
    phone = f"sip:1001@{PHONE}:{free_port(PHONE)}"
    async with (
        running_node(tmp_path / "node", {"1001": phone}, peer=PBX, calls=1) as node,
        node.watch("1001") as console,
    ):
        odd = f"X-Asterisk-Uniqueid: {name}\nX-Name: {name}\nP-Asserted-Identity: {name}\n"
        for number in range(2):
            await refused(tmp_path / str(number), node, 480, headers=odd)
            await console.wait("call.ended", count=number + 1)
        assert [e["pbx_call_id"] for e in console.seen("call.started")] == ["????", "????"]
    assert "Traceback" not in node.log_path.read_text()
