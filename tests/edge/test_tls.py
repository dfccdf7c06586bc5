"""TLS at the edge: PBX, phone and nodes over it, keys of SRTP in it, and who is not believed."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import websockets

from callshield.free_ports import free_port
from tests.edge.bridge_node import BridgeNode
from tests.edge.floor import AGENT_HZ, CALLER_HZ, QUIET
from tests.edge.kit import EDGE, NODES, PBX, PHONE_1, Edge, running_edge
from tests.edge.scripted import options
from tests.pbx.floor import THERE_DB, levels, until_hears
from tests.peers.baresip import Baresip
from tests.peers.node import Node
from tests.peers.sip_ua import running_tls_ua, running_ua
from tests.peers.sound import RATE, write_tone
from tests.peers.talker import talking
from tests.test_peers_tls import Authority

pytestmark = [pytest.mark.edge, pytest.mark.timeout(180)]


class TlsBaresip(Baresip):
    """Speaks SIP over TLS alone, to servers whose certificate it can check."""

    def trust(self, authority: Path) -> None:
        with (self.folder / "config").open("a", encoding="utf-8") as config:
            config.write(f"sip_cafile {authority}\nsip_verify_server yes\n")


def tls_table(house: Authority, address: str, port: int, more: str = "") -> str:
    certificate, key = house.issue(address)
    return (
        f'port = {port}\ncertificate = "{certificate}"\nprivate_key = "{key}"\n'
        f'ca_file = "{house.file}"\n{more}'
    )


@pytest.fixture
def house(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "house")


async def test_call_all_over_tls(tmp_path: Path, house: Authority) -> None:
    """PBX, edge, node and phone; SRTP on the phone's leg, its keys in nothing but TLS."""
    pbx_side, phone_side = NODES[0]
    edge_tls, node_tls = free_port(EDGE), free_port(pbx_side)
    node = Node(
        tmp_path / "node",
        {"1001": f"sip:1001@{EDGE}:{edge_tls};transport=tls"},
        peer=EDGE,
        peer_options="tls_only = true\n",
        sides=NODES[0],
        pbx_side=f"[sip.pbx.tls]\n{tls_table(house, pbx_side, node_tls)}",
        phone_side='srtp = "required"\n[sip.phone.tls]\n'
        + tls_table(house, phone_side, free_port(phone_side)),
    )
    node.ready_timeout_s = 120
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.push_async_callback(node.stop)
        await node.start()
        edge, passwords = await enter(
            running_edge(
                tmp_path / "edge",
                {"node-1": (f"sip:{pbx_side}:{node_tls};transport=tls", [phone_side])},
                ["1001"],
                # Of baresip's TCP, which it binds to no address.
                keys='phones = ["127.0.0.1"]\n',
                pbx="tls_only = true\n",
                tables=f"[edge.tls]\n{tls_table(house, EDGE, edge_tls)}",
            )
        )
        await edge.until(node_1=True)
        phone = TlsBaresip(
            tmp_path / "phone",
            PHONE_1,
            "1001",
            write_tone(tmp_path / "agent.wav", AGENT_HZ, 60, QUIET),
            registrar=f"{EDGE}:{edge_tls};transport=tls",
            options=f";auth_user=1001;auth_pass={passwords['1001']};mediaenc=srtp-mand",
            jitter_buffer="0-0",
        )
        phone.trust(house.file)
        stack.push_async_callback(phone.stop)
        await phone.start()
        contact = await edge.registered("1001")
        assert "transport=tls" in contact["Received"].lower()
        console = await enter(node.watch("1001"))
        talker = await enter(talking(PBX))
        pbx = await enter(running_tls_ua(PBX, "pbx", (EDGE, edge_tls), house.client(PBX)))

        call = pbx.begin(f"sip:1001@{EDGE}:{edge_tls};transport=tls", EDGE, edge_tls)
        answer = await call.invite(body=pbx.sdp(port=talker.port))
        assert answer.status == 200, answer.text
        talker.to = (answer.media_address, answer.media_port)
        talker.hertz, talker.talking = CALLER_HZ, True
        await console.wait("tap.started")
        await until_hears(phone, CALLER_HZ)
        async with asyncio.timeout(20):
            # Half a second of the agent's tone; packets tell nobody that they came.
            while True:
                heard = talker.heard()[-RATE // 2 :]
                if len(heard) == RATE // 2 and levels(heard)[AGENT_HZ] > THERE_DB:
                    break
                await asyncio.sleep(0.1)
        assert (await call.ask("BYE")).status == 200
        await phone.wait("CALL_CLOSED")

        # The same PBX over UDP is not heard, since it is tls_only.
        plain = await enter(running_ua(PBX, "pbx"))
        over_udp = plain.begin(f"sip:1001@{edge.place}", EDGE, edge.port)
        assert (await over_udp.invite()).status == 403


async def edge_of(folder: Path, table: str, node: BridgeNode, uri: str) -> Edge:
    edge = Edge(
        folder / "edge", {"node-1": (uri, [])}, port=free_port(EDGE), tables=f"[edge.tls]\n{table}"
    )
    await edge.password("1001")
    await edge.render()
    await edge.start()
    return edge


async def test_node_with_a_strangers_certificate_gets_no_calls(
    tmp_path: Path, house: Authority
) -> None:
    stranger = Authority(tmp_path / "stranger")
    pbx_side = NODES[1][0]
    node_tls = free_port(pbx_side)
    node = BridgeNode(
        tmp_path / "node",
        {"1001": f"sip:1001@{EDGE}:5060"},
        peer=EDGE,
        sides=NODES[1],
        pbx_side=f"[sip.pbx.tls]\n{tls_table(stranger, pbx_side, node_tls)}",
    )
    uri = f"sip:{pbx_side}:{node_tls};transport=tls"
    try:
        await node.start()
        edge = await edge_of(tmp_path, tls_table(house, EDGE, free_port(EDGE)), node, uri)
        try:
            await edge.until(node_1=False)
            # Without the check it is taken: the control.
            table = tls_table(house, EDGE, free_port(EDGE), "verify_server = false\n")
            await edge.change(tables=f"[edge.tls]\n{table}")
            await asyncio.sleep(2)
            await edge.until(node_1=True)
        finally:
            await edge.stop()
    finally:
        await node.stop()


async def test_who_must_show_a_certificate_and_who_need_not(
    tmp_path: Path, house: Authority
) -> None:
    port = free_port(EDGE)
    table = tls_table(house, EDGE, port, "require_client_certificate = true\n")
    async with running_edge(
        tmp_path / "edge",
        {"node-1": ("sip:127.0.53.9:5060", [])},
        ["1001"],
        tables=f"[edge.tls]\n{table}",
    ) as (edge, _):
        strange = Authority(tmp_path / "strange")
        strangers = strange.client(PBX)
        strangers.load_verify_locations(house.file)
        assert not await answers(port, house.client())
        assert not await answers(port, strangers)
        assert await answers(port, house.client(PBX))
        # TLS 1.1 and older are not spoken, also to those who could.
        old = house.client(PBX)
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        assert not await answers(port, old)
        async with running_ua(PBX, "pbx") as pbx:
            assert (await options(pbx, edge)).status in (200, 503)


async def answers(port: int, context: ssl.SSLContext) -> bool:
    """Whether an OPTIONS over a TLS connection from the PBX's address is answered."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                EDGE, port, ssl=context, server_hostname=EDGE, local_addr=(PBX, 0)
            )
            writer.write(
                f"OPTIONS sip:{EDGE}:{port};transport=tls SIP/2.0\r\n"
                f"Via: SIP/2.0/TLS {PBX}:5061;branch=z9hG4bKtls\r\nFrom: <sip:a@b>;tag=1\r\n"
                "To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
                "Content-Length: 0\r\n\r\n".encode()
            )
            said = await reader.read(4096)
            writer.close()
            return said.startswith(b"SIP/2.0")
    except (OSError, TimeoutError):
        return False


async def test_websocket_over_tls(tmp_path: Path, house: Authority) -> None:
    """SIP over wss: (RFC 7118), where browsers show no certificate though phones must."""
    port, websocket = free_port(EDGE), free_port(EDGE)
    table = tls_table(house, EDGE, port, "require_client_certificate = true\n")
    async with running_edge(
        tmp_path / "edge",
        {"node-1": ("sip:127.0.53.9:5060", [])},
        ["1001"],
        keys='phones = ["127.0.0.1"]\n',
        tables=f"[edge.tls]\n{table}\n[edge.websocket]\nport = {websocket}\n",
    ):
        register = (
            f"REGISTER sip:{EDGE} SIP/2.0\r\nVia: SIP/2.0/WSS page.invalid;branch=z9hG4bKw\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:1001@{EDGE}>;tag=1\r\nTo: <sip:1001@{EDGE}>\r\n"
            "Call-ID: w\r\nCSeq: 1 REGISTER\r\nContact: <sip:w@page.invalid;transport=ws>\r\n"
            "Content-Length: 0\r\n\r\n"
        )
        place = f"wss://{EDGE}:{websocket}"
        async with websockets.connect(
            place, ssl=house.client(), subprotocols=[websockets.Subprotocol("sip")], proxy=None
        ) as page:
            await page.send(register)
            async with asyncio.timeout(10):
                assert str(await page.recv()).startswith("SIP/2.0 401 ")
        # Who does not believe the authority does not connect.
        with pytest.raises(ssl.SSLCertVerificationError):
            await websockets.connect(place, ssl=ssl.create_default_context(), proxy=None)
        # The port of phones takes no WebSocket, and theirs asks for a certificate.
        with pytest.raises((OSError, websockets.WebSocketException)):
            await websockets.connect(f"wss://{EDGE}:{port}", ssl=house.client(), proxy=None)
