"""Who is no peer: what it gets back over UDP, in bytes, and over TCP, which is nothing at all.

And who is one: it reaches the configured agents' phones and nobody else (toll fraud), whatever its
request line, Route, Contact, Record-Route or Replaces say. The bridge is the real process, its far
ends are sockets; every datagram that it sends is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from callshield.messages import LegName
from tests.peers.signalling import End, Signalling, Wire, signalling
from tests.test_peers_offer import hang_up, said, talk

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

SIDES = ("127.0.42.2", "127.0.42.3")
PEER, PHONE, STRANGER, EVIL = "127.0.42.4", "127.0.42.5", "127.0.42.66", "127.0.42.99"
_PROBES = itertools.count(100_000)
METHODS = ("INVITE", "OPTIONS", "REGISTER", "SUBSCRIBE", "MESSAGE", "BYE", "ACK", "FOO")


class Datagrams:
    """A UDP socket that counts."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind((address, 0))
        self.socket.setblocking(False)
        self.address, self.port = self.socket.getsockname()
        self.sent = self.sent_bytes = self.came_bytes = 0
        self.came: list[bytes] = []

    def request(self, method: str, number: int, port: int) -> bytes:
        return (
            f"{method} sip:1001@{SIDES[0]}:{port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bKs{number}{method};rport\r\n"
            f"From: <sip:x@{self.address}>;tag=s{number}\r\nTo: <sip:1001@{SIDES[0]}>\r\n"
            f"Call-ID: stranger-{number}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n"
            f"Contact: <sip:x@{self.address}:{self.port}>\r\nContent-Length: 0\r\n\r\n"
        ).encode()

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self.socket.sendto(data, to)
        self.sent += 1
        self.sent_bytes += len(data)

    def take(self) -> None:
        try:
            while True:
                self.came.append(self.socket.recv(65536))
                self.came_bytes += len(self.came[-1])
        except BlockingIOError:
            return


async def ask_at_pace(
    end: Datagrams, port: int, methods: tuple[str, ...], *, per_s: int, count: int
) -> float:
    """Ask so often, at that pace; how long it took until all was read, seconds."""
    started = time.monotonic()
    while end.sent < count:
        while end.sent < min(count, (time.monotonic() - started) * per_s):
            method = methods[end.sent % len(methods)]
            end.send(end.request(method, end.sent, port), (SIDES[0], port))
        await asyncio.sleep(0.005)
        end.take()
    await settled(port)
    end.take()
    return time.monotonic() - started


async def settled(port: int) -> None:
    """Return once all that was sent before has been read: the PBX's own question, sent after it, is
    answered."""
    probe = Datagrams(PEER)
    probe.send(probe.request("OPTIONS", next(_PROBES), port), (SIDES[0], port))
    async with asyncio.timeout(30):
        while not probe.came:
            await asyncio.sleep(0.005)
            probe.take()
    probe.socket.close()


def descriptors(bridge: Signalling) -> int:
    return len(list(Path(f"/proc/{bridge.pid}/fd").iterdir()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire() -> AsyncIterator[Wire]:
    wire = await Wire.udp(PHONE)
    yield wire
    wire.close()


@pytest.fixture
def phone(wire: Wire) -> End:
    # What came again of the story before (an INVITE, an ACK) is none of the next one's.
    while not wire.inbox.empty():
        wire.inbox.get_nowait()
    return End(wire)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bridge(tmp_path_factory: pytest.TempPathFactory, wire: Wire) -> AsyncIterator[Signalling]:
    """One for all stories: each leaves it as it was."""
    agents = {"1001": f'uri = "sip:1001@{PHONE}:{wire.port}"\n'}
    folder = tmp_path_factory.mktemp("bridge")
    async with signalling(folder, agents, sides=SIDES, peer=PEER) as bridge:
        yield bridge


async def test_a_spoofed_source_gets_far_less_than_was_sent_in_its_name(
    bridge: Signalling, record_property: Callable[[str, object], None]
) -> None:
    """No amplifier: what a victim whose address was forged would be sent, per byte sent to us."""
    victim = Datagrams(STRANGER)
    took_s = await ask_at_pace(victim, bridge.port, METHODS, per_s=1000, count=1000)
    ratio = victim.came_bytes / victim.sent_bytes
    # Ten at once, and ten in each second of the time that it really took.
    assert 10 <= len(victim.came) <= 10 + 10 * took_s
    assert all(answer.startswith(b"SIP/2.0 403 ") for answer in victim.came)
    assert max(map(len, victim.came)) <= max(
        len(victim.request(m, 1000, bridge.port)) for m in METHODS
    )
    assert ratio < 0.05
    # The control: the same questions of the PBX are answered one by one.
    peer = Datagrams(PEER)
    await ask_at_pace(peer, bridge.port, ("OPTIONS",), per_s=40, count=40)
    assert len(peer.came) == peer.sent
    record_property("bytes_out_per_byte_in_stranger", round(ratio, 4))
    record_property("bytes_out_per_byte_in_peer", round(peer.came_bytes / peer.sent_bytes, 3))
    print(f"stranger: {victim.sent} sent, {len(victim.came)} answered, ratio {ratio:.4f}")
    print(f"peer: {peer.sent} sent, ratio {peer.came_bytes / peer.sent_bytes:.2f}")
    victim.socket.close()
    peer.socket.close()


async def test_a_stranger_finds_no_open_port_over_tcp(bridge: Signalling) -> None:
    before = descriptors(bridge)
    for side, port in ((SIDES[0], bridge.port), (SIDES[1], bridge.phone_port)):
        with socket.socket() as stranger:
            stranger.bind((STRANGER, 0))
            stranger.settimeout(0.3)
            with pytest.raises(TimeoutError):
                stranger.connect((side, port))
    assert descriptors(bridge) == before
    # The control: a hundred connections of the PBX at once, none of which has to try again.
    connected = []
    for _ in range(100):
        peer = socket.socket()
        peer.bind((PEER, 0))
        peer.settimeout(0.5)
        peer.connect((SIDES[0], bridge.port))
        connected.append(peer)
    for peer in connected:
        peer.close()


async def test_only_a_configured_agent_can_be_reached(bridge: Signalling, phone: End) -> None:
    """Numbers, tricks with the request line, and headers that name somebody else."""
    evil = Datagrams(EVIL)
    there = f"{EVIL}:{evil.port}"
    for user in (
        "0900123456",
        "%31001",
        "1001%00",
        "1001;x=1",
        "+8210",
        "9%2C1001",
        "*9#",
    ):
        pbx = await bridge.caller(agent=user)
        refused = await pbx.invite(said("8"), f"X-Callshield-Agent: 1001\r\nTo-Dial: {there}\r\n")
        assert refused.status in (403, 404), user
    # The host of the request line says nothing about where the call goes, and neither does Route.
    pbx = await bridge.caller()
    pbx.target = pbx.remote = f"sip:1001@{there}"
    tricks = (
        f"Route: <sip:{there};lr>\r\nRecord-Route: <sip:{SIDES[0]}:{bridge.port};lr>\r\n"
        f"P-Asserted-Identity: <sip:admin@{there}>\r\nReferred-By: <sip:boss@{there}>\r\n"
        f"Replaces: nobody;to-tag=a;from-tag=b\r\n"
    )
    pbx.request("INVITE", said("8"), tricks)
    invite = await phone.pick_up(said("8", address=PHONE, port=5000))
    assert invite.start.startswith(f"INVITE sip:1001@{PHONE}:{phone.wire.port} ")
    assert EVIL not in (invite.header("Route") + invite.header("Record-Route"))
    assert EVIL not in invite.body
    await pbx.final()
    pbx.ack()
    await bridge.media.leg(LegName.CALLER)
    await bridge.media.leg(LegName.AGENT)
    # REFER on the phone's leg, to a host that no transfer may name.
    await phone.next(lambda m: m.method == "ACK")
    refer_from(phone, "sip:0900123456@127.0.42.98")
    assert (await phone.next(lambda m: m.status >= 200)).status == 403
    phone.hang_up()
    await bridge.media.call_closed()
    evil.take()
    assert evil.came == []
    evil.socket.close()


def refer_from(phone: End, target: str) -> None:
    """A REFER of the one who was called."""
    invite = phone._invite
    assert invite is not None
    phone._cseq += 1
    phone.wire.send(
        f"REFER {phone.remote} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {phone.wire.address}:{phone.wire.port};branch=z9hG4bKrefer;rport\r\n"
        f"From: {invite.header('To')};tag={phone.tag}\r\nTo: {invite.header('From')}\r\n"
        f"Call-ID: {invite.header('Call-ID')}\r\nCSeq: {phone._cseq} REFER\r\n"
        f"Contact: {phone.contact}\r\nRefer-To: <{target}>\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )


async def test_a_302_sends_no_call_anywhere(bridge: Signalling, phone: End) -> None:
    evil = Datagrams(EVIL)
    pbx = await bridge.caller()
    pbx.request("INVITE", said("8"))
    await phone.invited()
    contact = f"<sip:0900123456@{EVIL}:{evil.port}>"
    phone.wire.send(moved(phone, contact))
    final = await pbx.final()
    assert final.status == 302  # the PBX decides, with its own dial plan
    assert contact in final.header("Contact")
    evil.take()
    assert evil.came == []
    evil.socket.close()


def moved(phone: End, contact: str) -> str:
    invite = phone._invite
    assert invite is not None
    return (
        f"SIP/2.0 302 Moved Temporarily\r\nVia: {invite.header('Via')}\r\n"
        f"From: {invite.header('From')}\r\nTo: {invite.header('To')};tag=m\r\n"
        f"Call-ID: {invite.header('Call-ID')}\r\nCSeq: {invite.cseq}\r\nContact: {contact}\r\n"
        "Content-Length: 0\r\n\r\n"
    )


async def test_nobody_else_ends_or_changes_a_call_that_he_overheard(
    bridge: Signalling, phone: End
) -> None:
    """Call-ID and tags of a running call, all right, from an address that is no peer's."""
    pbx = await bridge.caller()
    await talk(bridge, pbx, phone, said("8"), said("8", address=PHONE, port=5000))
    stranger = Datagrams(STRANGER)
    for number, method in enumerate(("BYE", "INVITE", "REFER", "INFO", "UPDATE", "CANCEL")):
        stranger.send(
            (
                f"{method} {pbx.remote} SIP/2.0\r\nVia: SIP/2.0/UDP {STRANGER}:{stranger.port}"
                f";branch=z9hG4bKo{number};rport\r\nFrom: <sip:x@{PEER}>;tag={pbx.tag}\r\n"
                f"To: <{pbx.target}>;tag={pbx.to_tag}\r\nCall-ID: {pbx.call_id}\r\n"
                f"CSeq: {50 + number} {method}\r\nMax-Forwards: 70\r\n"
                f"Refer-To: <sip:0900@{EVIL}>\r\nContent-Length: 0\r\n\r\n"
            ).encode(),
            (SIDES[0], bridge.port),
        )
    await settled(bridge.port)
    stranger.take()
    assert {re.split(rb" ", answer)[1] for answer in stranger.came} == {b"403"}
    # The call is still there: the control is the PBX's own BYE with the same words.
    await hang_up(bridge, pbx)
    stranger.socket.close()


async def test_headers_many_long_and_deep_harm_nothing(
    bridge: Signalling, phone: End, record_property: Callable[[str, object], None]
) -> None:
    """Each is answered, dropped or refused within a moment, and the next call is a call."""
    peer = Datagrams(PEER)
    good = peer.request("INVITE", 0, bridge.port).replace(b"sip:1001@", b"sip:9999@", 1)
    head, tail = good[: good.index(b"Contact")], good[good.index(b"Contact") :]
    nested = b"".join(
        b"--%d\r\nContent-Type: multipart/mixed;boundary=%d\r\n\r\n" % (n, n + 1)
        for n in range(300)
    )
    odd = {
        "one header of 15 kB": head + b"X-Long: " + b"a" * 15000 + b"\r\n" + tail,
        "beyond the buffer": head + b"X-Long: " + b"a" * 40000 + b"\r\n" + tail,
        "1500 headers": head + b"X: y\r\n" * 1500 + tail,
        "500 Vias": head + b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n" * 250 + tail,
        "a Via of 500 parameters": head.replace(b";rport", b";a=b" * 3000 + b";rport") + tail,
        "a URI of 10 kB": head.replace(b"sip:9999", b"sip:" + b"9" * 10000) + tail,
        "folded 3000 times": head + b"X-Fold: a\r\n" + b" b\r\n" * 3000 + tail,
        "a comma list of 5000": head + b"Supported: " + b"a," * 5000 + b"b\r\n" + tail,
        "brackets 7000 deep": head + b"P-Asserted-Identity: " + b"<" * 7000 + b"\r\n" + tail,
        "quotes that never end": head + b'P-Asserted-Identity: "' + b"\\" * 7000 + b"\r\n" + tail,
        "bodies 300 deep": head + b"Content-Type: multipart/mixed;boundary=0\r\nContent-Length: "
        + str(len(nested)).encode() + b"\r\n\r\n" + nested,
        "a CSeq beyond 32 bits": good.replace(b"CSeq: 1 ", b"CSeq: 99999999999999999999 "),
        "a negative length": good.replace(b"Content-Length: 0", b"Content-Length: -1"),
        "no end at all": head[:-2],
    }  # fmt: skip
    slowest_s = 0.0

    async def took_s(message: bytes, number: bytes) -> float:
        """How long the question behind a message waits for its answer."""
        message = message.replace(b"z9hG4bKs0", b"z9hG4bK" + number)
        peer.send(message.replace(b"stranger-0", b"odd-" + number), (SIDES[0], bridge.port))
        started = time.monotonic()
        await settled(bridge.port)
        return time.monotonic() - started

    for name, message in odd.items():
        number = str(abs(hash(name))).encode()
        # A message that costs much costs it each time; the machine's own delays come and go.
        seen_s: list[float] = []
        while len(seen_s) < 3 and min(seen_s, default=1.0) >= 0.5:
            seen_s.append(await took_s(message, number + b"x%d" % len(seen_s)))
        slowest_s = max(slowest_s, min(seen_s))
    record_property("slowest_odd_message_ms", round(slowest_s * 1000, 1))
    print(f"slowest: {slowest_s * 1000:.1f} ms")
    assert slowest_s < 0.5
    pbx = await bridge.caller()
    await talk(bridge, pbx, phone, said("8"), said("8", address=PHONE, port=5000))
    await hang_up(bridge, pbx)
    peer.socket.close()
