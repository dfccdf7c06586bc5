"""Nobody talks us down: no old protocol, no weak cipher, no secured agent called in the clear.

Certificates that are wrong, strangers' or missing are in :mod:`tests.test_peers_tls`, keys over
plain SIP and SRTP against the policy in :mod:`tests.test_peers_offer`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.peers.signalling import End, Message, Signalling, Wire, signalling
from tests.test_peers_offer import audio, crypto, hang_up, said, talk
from tests.test_peers_tls import Authority

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

SIDES = ("127.0.42.22", "127.0.42.23")
PBX, PHONE, STRANGER = "127.0.42.24", "127.0.42.25", "127.0.42.66"
WEAK = "eNULL:aNULL:EXPORT:DES:3DES:RC4:MD5:IDEA:SEED:PSK:SRP:CAMELLIA"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "house")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bridge(
    tmp_path_factory: pytest.TempPathFactory, house: Authority
) -> AsyncIterator[Signalling]:
    """TLS on both sides; nobody is at the agent's address unless a test puts somebody there."""
    secured = f'uri = "sips:1001@{PHONE}:5999"\nsrtp = "required"\n'
    async with signalling(
        tmp_path_factory.mktemp("bridge"),
        {"1001": secured},
        pbx='srtp = "required"\n' + house.table("pbx", SIDES[0]),
        phone='srtp = "required"\n' + house.table("phone", SIDES[1]),
        sides=SIDES,
        peer=PBX,
    ) as bridge:
        yield bridge


async def s_client(bridge: Signalling, house: Authority, *options: str, source: str = PBX) -> str:
    """What ``openssl s_client`` says of a handshake with us."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"{SIDES[0]}:{bridge.tls_port}", "-bind", source),
        *("-CAfile", str(house.file), "-verify_ip", SIDES[0], "-verify_return_error", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    return out.decode(errors="replace")


def agreed(said_by_openssl: str) -> bool:
    return "Verify return code: 0 (ok)" in said_by_openssl and "Cipher is (NONE)" not in (
        said_by_openssl
    )


async def test_openssl_finds_no_old_protocol_and_no_weak_cipher(
    bridge: Signalling, house: Authority
) -> None:
    weak = ("-cipher", "ALL:@SECLEVEL=0")
    for old in ("-tls1", "-tls1_1"):
        assert not agreed(await s_client(bridge, house, old, *weak)), old
    assert not agreed(await s_client(bridge, house, "-tls1_2", "-cipher", f"{WEAK}:@SECLEVEL=0"))
    # The controls: what is not old or weak.
    assert agreed(await s_client(bridge, house, "-tls1_3"))
    found = await s_client(bridge, house, "-tls1_2", "-cipher", "ECDHE+AESGCM")
    assert agreed(found)
    assert "Secure Renegotiation IS supported" in found
    assert "Compression: NONE" in found
    # A client that offers everything gets forward secrecy.
    chosen = await s_client(bridge, house, "-tls1_2", *weak)
    assert "Cipher is ECDHE" in chosen


async def test_a_cipher_without_forward_secrecy_is_refused(
    tmp_path: Path, house: Authority
) -> None:
    """With an RSA certificate, which could do without: SRTP keys travel in this SIP."""
    table = house.table("pbx", SIDES[0])
    house.issue(SIDES[0], rsa.generate_private_key(65537, 2048))  # in place of the other
    async with signalling(tmp_path / "b", {}, pbx=table, sides=SIDES, peer=PBX) as bridge:
        kept = ("-tls1_2", "-cipher", "kRSA:@SECLEVEL=0")
        assert not agreed(await s_client(bridge, house, *kept))
        for control in ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA"):
            found = await s_client(bridge, house, "-tls1_2", "-cipher", control)
            assert agreed(found), found
            assert f"Cipher is {control}" in found


async def test_a_stranger_gets_no_handshake(bridge: Signalling, house: Authority) -> None:
    with socket.socket() as stranger:
        stranger.bind((STRANGER, 0))
        stranger.settimeout(0.4)
        with pytest.raises(TimeoutError):
            stranger.connect((SIDES[0], bridge.tls_port))
    assert agreed(await s_client(bridge, house))  # the control


async def test_a_secured_agent_is_never_called_in_the_clear(
    bridge: Signalling, house: Authority
) -> None:
    """The phone's TLS port is closed: the call fails, and nothing goes by UDP or TCP instead."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket() as tcp,
    ):
        for one in (udp, tcp):
            one.bind((PHONE, 5060))
            one.setblocking(False)
        tcp.listen()
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind((PHONE, 5999))
        other.setblocking(False)
        pbx = await bridge.caller(tls=house.client())
        refused = await pbx.invite(said("8", "RTP/SAVP " + crypto(1, 1)))
        assert refused.status == 480
        for one in (udp, other):
            with pytest.raises(BlockingIOError):
                one.recv(1)
        with pytest.raises(BlockingIOError):
            tcp.accept()
        other.close()


async def test_required_srtp_is_never_answered_without(tmp_path: Path, house: Authority) -> None:
    phone = End(await Wire.tls_server(PHONE, house.server(PHONE)))
    agent = f'uri = "sips:1001@{PHONE}:{phone.wire.port}"\nsrtp = "required"\n'
    async with signalling(
        tmp_path / "bridge",
        {"1001": agent},
        pbx='srtp = "required"\n' + house.table("pbx", SIDES[0]),
        phone='srtp = "required"\n' + house.table("phone", SIDES[1]),
        sides=SIDES,
        peer=PBX,
    ) as bridge:
        pbx = await bridge.caller(tls=house.client())
        plain = await pbx.invite(said("8"))
        assert plain.status == 488
        assert "RTP/SAVP is required" in plain.header("Warning")
        # Keys beside a plain profile ("best effort") are no way around it either.
        best_effort = await (await bridge.caller(tls=house.client())).invite(
            said("8", crypto(1, 1))
        )
        assert best_effort.status == 488
        # A phone that answers RTP/AVP to our RTP/SAVP has no call.
        pbx = await bridge.caller(tls=house.client())
        pbx.request("INVITE", said("8", "RTP/SAVP " + crypto(1, 1)))
        invite = await phone.pick_up(said("8", address=PHONE, port=5000))
        assert audio(invite).profile == "RTP/SAVP"
        final: Message = await pbx.final()
        assert final.status in (480, 488)
        assert "m=audio" not in final.body
    phone.close()


async def test_a_peer_that_has_tls_makes_no_call_without(tmp_path: Path, house: Authority) -> None:
    """A forged datagram could have an agent's phone ring and send its audio to whom it names."""
    phone = End(await Wire.udp(PHONE))
    async with signalling(
        tmp_path / "b",
        {"1001": f'uri = "sip:1001@{PHONE}:{phone.wire.port}"\n'},
        pbx=house.table("pbx", SIDES[0]),
        sides=SIDES,
        peer=PBX,
        peer_options="tls_only = true",
    ) as bridge:
        forged = await bridge.caller()
        assert (await forged.invite(said("8"))).status == 403
        replaces = "Replaces: a;to-tag=b;from-tag=c\r\n"
        assert (await (await bridge.caller()).invite(said("8"), replaces)).status == 403
        assert phone.wire.inbox.empty()
        pbx = await bridge.caller(tls=house.client())  # the control
        await talk(bridge, pbx, phone, said("8"), said("8", address=PHONE, port=5000))
        await hang_up(bridge, pbx)
    phone.close()


async def test_who_only_says_tls_is_not_over_tls(bridge: Signalling) -> None:
    """A Via that claims TLS on a UDP packet must not bring keys into the clear."""
    pbx = await bridge.caller()
    pbx.wire.kind = "TLS"  # what its Via says; the socket is UDP
    refused = await pbx.invite(said("8", "RTP/SAVP " + crypto(1, 1)))
    assert refused.status == 400
    assert "crypto" not in refused.body
    assert not [m for m in pbx.seen if "a=crypto" in m.body]
