"""Messages that lie about themselves: lengths, descriptions, hops, and one sent a hundred times."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from callshield.messages import CallEnded, CallStarted
from tests.peers.signalling import End, Wire
from tests.sip.half_node import PBX, PBX_SIDE, PHONE_SIDE, HalfNode
from tests.sip.parts import SDP

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

HEAD = "v=0\no=u 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n"
AUDIO = "m=audio [media_port] RTP/AVP 8 0\n"
VIDEO = "m=video 4002 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
SIX = "v=0\no=u 1 1 IN IP6 2001:db8::1\ns=-\nc=IN IP6 2001:db8::1\nt=0 0\n" + AUDIO
NAMED = HEAD.replace("IN IP4 [media_ip]", "IN IP4 phone.example.com") + AUDIO


async def refused(half: HalfNode, folder: Path, status: int, **values: str) -> str:
    """A call from the PBX that must end with this status; the agent whom it was for."""
    agent = half.agent()
    values = {"status": str(status), **values}
    async with half.pbx(folder, agent, "pbx_refused", values=values) as pbx:
        assert await pbx.finish(20) == 0, pbx.messages()
    await half.judge(folder)
    return agent


# ------------------------------------------------------------------------------ Content-Length


@pytest.mark.parametrize(("length", "status"), [("40", 400), ("9999", 400), ("0", 480)])
async def test_a_datagram_is_as_long_as_it_says(
    half: HalfNode, tmp_path: Path, length: str, status: int
) -> None:
    """UDP: what is behind Content-Length is cut off, too little is 400 (RFC 3261 18.3).

    With 0 it is an INVITE without an offer, and it reaches the phone (which is not there: 480).
    """
    await refused(half, tmp_path, status, length=length)


@pytest.mark.parametrize("length", ["40", "9999", "-1", "99999999999999999999"])
async def test_a_wrong_length_on_a_stream_harms_that_stream_only(
    half: HalfNode, tmp_path: Path, length: str
) -> None:
    """TCP: whatever follows cannot be read any more; other connections and calls go on."""
    before = await half.held()
    agent = half.agent()
    with socket.create_connection(
        (PBX_SIDE, half.pbx_port), timeout=5, source_address=(PBX, 0)
    ) as liar:
        body = SDP.replace("[local_ip]", PBX).replace("[media_ip]", PBX)
        body = body.replace("[media_port]", "4000").replace("\n", "\r\n")
        port = liar.getsockname()[1]
        for number in range(3):
            liar.sendall(
                f"INVITE sip:{agent}@{PBX_SIDE}:{half.pbx_port} SIP/2.0\r\n"
                f"Via: SIP/2.0/TCP {PBX}:{port};branch=z9hG4bK{length}{number}\r\n"
                f"From: <sip:x@{PBX}>;tag=l{length}\r\nTo: <sip:{agent}@{PBX_SIDE}>\r\n"
                f"Call-ID: l{length}{number}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
                f"Contact: <sip:x@{PBX}:{port};transport=tcp>\r\n"
                f"Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}".encode()
            )
        await half.good_call(tmp_path)
    assert not half.of_agent(CallStarted, agent)
    await half.judge(tmp_path)
    assert (await half.held())["descriptors"] == before["descriptors"]


# --------------------------------------------------------------------------- session descriptions


async def test_an_ack_without_the_answer_to_our_offer_ends_the_call(
    half: HalfNode, tmp_path: Path
) -> None:
    agent = half.agent()
    async with (
        half.phone(tmp_path, agent, "phone_answers") as desk,
        half.pbx(tmp_path, agent, "pbx_empty_ack") as pbx,
    ):
        assert await pbx.finish(20) == 0, pbx.messages()
        assert await desk.finish(20) == 0, desk.messages()
    await half.judge(tmp_path)


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (HEAD + AUDIO + VIDEO, "m=audio [1-9].*m=video 0 "),
        (HEAD + VIDEO + AUDIO, "m=video 0 .*m=audio [1-9]"),
        (HEAD + AUDIO + AUDIO, "m=audio [1-9].*m=audio 0 "),
        # o= only names the session: nobody ever sends anything there (RFC 4566 5.2).
        (HEAD.replace("IP4 [local_ip]", "IP6 2001:db8::1") + AUDIO, "m=audio [1-9]"),
        (HEAD.replace("IP4 [local_ip]", "IP4 pbx.example.com") + AUDIO, "m=audio [1-9]"),
    ],
    ids=["audio+video", "video+audio", "audio+audio", "IPv6 in o=", "name in o="],
)
async def test_one_audio_line_of_an_odd_offer_is_taken(
    half: HalfNode, tmp_path: Path, offer: str, answer: str
) -> None:
    agent = half.agent()
    values = {"offer": offer, "answer": answer}
    async with (
        half.phone(tmp_path, agent, "phone_answers") as desk,
        half.pbx(tmp_path, agent, "pbx_odd_offer", values=values) as pbx,
    ):
        assert await pbx.finish(20) == 0, pbx.messages()
        assert await desk.finish(20) == 0, desk.messages()
    await half.judge(tmp_path)


async def test_no_name_server_is_asked_about_a_description(half: HalfNode, tmp_path: Path) -> None:
    """PJSIP would look the name of a=rtcp up, and let every other call wait for the answer."""
    agent = half.agent()
    offer = HEAD + AUDIO + "a=rtcp:4001 IN IP4 slow.example.invalid\n"
    before = (await half.held())["counters"]["paths_mended"]
    async with (
        half.phone(tmp_path, agent, "phone_answers") as desk,
        half.pbx(
            tmp_path, agent, "pbx_odd_offer", values={"offer": offer, "answer": "m=audio"}
        ) as pbx,
    ):
        assert await pbx.finish(20) == 0, pbx.messages()
        assert await desk.finish(20) == 0, desk.messages()
    mended = (await half.held())["counters"]["paths_mended"] - before
    # An INVITE that a busy machine was sent again may be mended again.
    assert 1 <= mended <= pbx.messages().count("\nINVITE sip:")
    await half.judge(tmp_path)


@pytest.mark.parametrize("offer", [SIX, NAMED], ids=["IPv6 in c=", "name in c="])
async def test_media_that_cannot_be_reached_is_refused(
    half: HalfNode, tmp_path: Path, offer: str
) -> None:
    await refused(half, tmp_path, 488, offer=offer)


@pytest.mark.parametrize(
    ("offer", "kind"),
    [
        ("", ""),
        (SIX, "Content-Type: application/sdp\n"),
        (NAMED, "Content-Type: application/sdp\n"),
        ("hello\n", "Content-Type: text/plain\n"),
        (HEAD + "m=audio 0 RTP/AVP 8\n", "Content-Type: application/sdp\n"),
    ],
    ids=["none", "IPv6", "name", "no SDP", "port 0"],
)
async def test_a_phone_that_answers_with_nothing_usable_is_hung_up(
    half: HalfNode, tmp_path: Path, offer: str, kind: str
) -> None:
    agent = half.agent()
    async with (
        half.phone(
            tmp_path, agent, "phone_odd_answer", values={"offer": offer, "headers": kind}
        ) as desk,
        half.pbx(tmp_path, agent, "pbx_refused", values={"status": "488"}) as pbx,
    ):
        assert await pbx.finish(20) == 0, pbx.messages()
        assert await desk.finish(20) == 0, desk.messages()
    await half.judge(tmp_path)


# ------------------------------------------------------------------------------------ loops


async def test_no_hops_left(half: HalfNode, tmp_path: Path) -> None:
    await refused(half, tmp_path, 483, hops="0")


@pytest.mark.parametrize("side", ["pbx", "phone"])
async def test_an_invite_that_was_ours_is_a_loop(half: HalfNode, tmp_path: Path, side: str) -> None:
    """A proxy sent our own INVITE back: our Via is below its own (RFC 3261 16.3)."""
    own = {
        "pbx": f"{PBX_SIDE}:{half.pbx_port}",
        "phone": f"{PHONE_SIDE}:{half.phone_port}",
    }[side]
    via = f"Via: SIP/2.0/UDP {own};branch=z9hG4bKPjloop;received=127.0.0.1\n"
    agent = await refused(half, tmp_path, 482, headers=via)
    assert not half.of_agent(CallStarted, agent)


# ------------------------------------------------------------------------------ repetitions


async def test_a_hundred_times_the_same_invite_is_one_call(half: HalfNode, tmp_path: Path) -> None:
    """sipp sends no message of its own twice unasked: its INVITE is repeated from its port."""
    agent = half.agent()
    caller = End(
        await Wire.udp(PBX, (PBX_SIDE, half.pbx_port)), f"sip:{agent}@{PBX_SIDE}:{half.pbx_port}"
    )
    body = SDP.replace("[local_ip]", PBX).replace("[media_ip]", PBX)
    async with half.phone(tmp_path, agent, "phone_answers") as desk:
        caller.request("INVITE", body.replace("[media_port]", "4000").replace("\n", "\r\n"))
        for _ in range(99):
            caller.wire.send(caller.sent[0])
        assert (await caller.final()).status == 200
        caller.ack()
        caller.wire.send(caller.sent[0])  # and once more after its ACK
        caller.request("BYE")
        assert (await caller.final("BYE")).status == 200
        assert await desk.finish(20) == 0, desk.messages()
        assert len(desk.received("INVITE")) == 1
    caller.close()
    await half.judge(tmp_path)
    assert len(half.of_agent(CallStarted, agent)) == 1
    assert len(half.of_agent(CallEnded, agent)) == 1
