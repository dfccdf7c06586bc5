"""Who may register, what of a registration is believed, and where calls for it then go."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from callshield.edge_files import location_database
from callshield.free_ports import free_port
from tests.edge.kit import OUTER, PBX, PHONE_1, PHONE_2, STRANGER, Edge, program, running_edge
from tests.edge.scripted import Registration, options
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua

pytestmark = [pytest.mark.edge, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

#: In a node's place: whatever it sends comes from a node's address.
NODE = "127.0.54.1"


@dataclass
class Scene:
    """An edge with one scripted node, and a phone."""

    edge: Edge
    passwords: dict[str, str]
    node: Ua
    phone: Ua

    def invite(self, user: str = "1001") -> Dialog:
        """A dialog that the node begins with a user's phone."""
        edge = self.edge
        return self.node.begin(f"sip:{user}@{edge.place}", edge.address, edge.port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("registrar")
    async with (
        running_ua(NODE, "node") as node,
        running_ua(PHONE_1, "1001") as phone,
        answering_options(node),
        running_edge(
            folder / "edge",
            {"node-1": (f"sip:{NODE}:{node.port}", [])},
            ("1001", "1002", "1003"),
        ) as (edge, passwords),
    ):
        yield Scene(edge, passwords, node, phone)


@asynccontextmanager
async def answering_options(node: Ua) -> AsyncIterator[None]:
    """A scripted node is ready for as long as the block lasts."""

    async def answer() -> None:
        while True:
            node.reply(await node.request("OPTIONS", timeout_s=3600), 200)

    answering = asyncio.create_task(answer())
    try:
        yield
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def takes(phone: Ua, caller: Dialog) -> Message:
    """The phone takes a call of the node, and both hang up; the INVITE as it came."""
    answering = asyncio.create_task(caller.invite())
    invite = await phone.request("INVITE")
    agent = phone.accept(invite)
    await phone.request("ACK")
    assert (await answering).status == 200
    leaving = asyncio.create_task(agent.ask("BYE"))
    bye = await caller.ua.expect(
        lambda m: m.method == "BYE" and m["Call-ID"] == caller.call_id, "BYE"
    )
    caller.ua.reply(bye, 200)
    assert (await leaving).status == 200
    return invite


async def test_right_password_and_wrong_ones(scene: Scene) -> None:
    phone = Registration(scene.phone, scene.edge, "1001")
    challenged = await phone.send()
    assert challenged.status == 401
    assert 'realm="127.0.50.4"' in challenged["WWW-Authenticate"]
    assert 'qop="auth"' in challenged["WWW-Authenticate"]
    assert (await phone.register("wrong")).status == 401
    # Another's right password, and a nonce that has been used.
    assert (await phone.register(scene.passwords["1002"])).status == 401
    right = phone.digest(challenged, scene.passwords["1001"])
    registered = await phone.send(authorization=right)
    assert registered.status == 200
    assert f"{PHONE_1}:{scene.phone.port}" in registered["Contact"]
    assert (await phone.send(authorization=right)).status == 401
    await takes(scene.phone, scene.invite())
    # And gone again.
    assert (await phone.register(scene.passwords["1001"], expires=0)).status == 200
    assert (await scene.invite().invite()).status == 480


async def test_screen_of_a_registered_phone_is_reached(scene: Scene) -> None:
    """NOTIFY outside a dialog: how a node shows a warning on a desk phone."""
    phone = Registration(scene.phone, scene.edge, "1001")
    assert (await phone.register(scene.passwords["1001"])).status == 200
    asking = asyncio.create_task(
        scene.invite().ask("NOTIFY", headers=("Event: xml",), content_type="application/xml")
    )
    scene.phone.reply(await scene.phone.request("NOTIFY"), 200, tag="screen")
    assert (await asking).status == 200


async def test_user_registers_for_nobody_else(scene: Scene) -> None:
    """The user of the credentials has to be the one who is registered (To)."""
    phone = Registration(scene.phone, scene.edge, "1002")
    challenged = await phone.send()
    phone.user = "1001"  # whose password is right, for a digest of its own
    authorization = phone.digest(challenged, scene.passwords["1001"])
    phone.user = "1002"
    assert (await phone.send(authorization=authorization)).status == 401
    assert (await scene.invite("1002").invite()).status == 480


async def test_new_phone_takes_the_place_of_the_old(scene: Scene) -> None:
    async with running_ua(PHONE_2, "1001") as other:
        for ua in (scene.phone, other):
            registered = await Registration(ua, scene.edge, "1001").register(
                scene.passwords["1001"]
            )
            assert registered.status == 200
        await takes(other, scene.invite())
        assert not scene.phone.waiting("INVITE")


async def test_calls_go_where_the_register_came_from(scene: Scene) -> None:
    """Neither a Contact nor a Path of a phone's own can send our calls to a third party."""
    async with running_ua(STRANGER, "victim") as victim:
        phone = Registration(
            scene.phone,
            scene.edge,
            "1001",
            headers=(f"Path: <sip:{STRANGER}:{victim.port};lr>", "Supported: path"),
        )
        # As a phone behind NAT does, or somebody who wants others to be rung.
        scene.phone.address, real = STRANGER, scene.phone.address
        try:
            registered = await phone.register(scene.passwords["1001"])
        finally:
            scene.phone.address = real
        assert registered.status == 200
        assert not registered["Path"]
        invite = await takes(scene.phone, scene.invite())
        assert not victim.log
        # The Contact itself is the phone's own affair.
        assert STRANGER in invite.start


async def test_phone_behind_a_session_border_controller(scene: Scene, tmp_path: Path) -> None:
    """Path (RFC 3327): the registration names the way, and calls take it, there and back."""
    async with (
        outer(tmp_path, scene.edge) as (place, _),
        running_ua(PHONE_2, "1003") as phone,
    ):
        behind = Registration(
            phone, scene.edge, "1003", headers=("Supported: path",), to=(OUTER, place)
        )
        registered = await behind.register(scene.passwords["1003"])
        assert registered.status == 200, registered.text
        assert f"sip:{OUTER}:{place}" in registered["Path"]
        contact = await scene.edge.registered("1003")
        assert f"sip:{OUTER}:{place}" in contact["Path"]
        invite = await takes(phone, scene.invite("1003"))
        assert any(OUTER in via for via in invite.all("Via"))
        assert any(OUTER in route for route in invite.all("Record-Route"))
        # A restart forgets nothing of it.
        # usrloc writes every timer_interval: what is younger is lost to a kill -9.
        await until_written(scene.edge, "1003", phone)
        await scene.edge.stop(kill=True)
        await scene.edge.start()
        await takes(phone, scene.invite("1003"))


async def until_written(edge: Edge, user: str, phone: Ua) -> None:
    """Wait until the file of registrations has this one."""
    where = f"file:{location_database(edge.settings.edge)}?mode=ro"
    async with asyncio.timeout(40):
        while True:
            database = sqlite3.connect(where, uri=True)
            try:
                contacts = database.execute(
                    "SELECT contact FROM location WHERE username = ?", (user,)
                ).fetchall()
            finally:
                database.close()
            if any(f"{phone.address}:{phone.port}" in contact for (contact,) in contacts):
                return
            await asyncio.sleep(0.1)  # a file tells nobody


async def test_who_comes_through_a_proxy_needs_a_path(scene: Scene) -> None:
    async with running_ua(OUTER, "1002") as proxy:
        phone = Registration(proxy, scene.edge, "1002")
        assert (await phone.register(scene.passwords["1002"])).status == 403


async def test_password_given_and_taken_away_while_it_runs(scene: Scene) -> None:
    phone = Registration(scene.phone, scene.edge, "2000")
    assert (await phone.register("anything")).status == 401
    password = await scene.edge.password("2000")
    assert (await phone.register(password)).status == 200
    newer = await scene.edge.password("2000")
    assert (await phone.register(password)).status == 401
    assert (await phone.register(newer)).status == 200
    await scene.edge.command("password", "2000", "--remove")
    assert (await phone.register(newer)).status == 401
    # Neither file nor log has it.
    kept = [path.read_bytes() for path in scene.edge.folder.rglob("*") if path.is_file()]
    assert not any(word.encode() in text for text in kept for word in (password, newer))


async def test_phones_do_not_begin_calls_unless_told_where(scene: Scene) -> None:
    edge = scene.edge
    caller = scene.phone.begin(f"sip:0212345678@{edge.place}", edge.address, edge.port)
    assert (await caller.invite()).status == 403
    assert (await options(scene.phone, edge)).status == 200


async def test_phone_lends_nobody_the_edge_inside_a_dialog(scene: Scene) -> None:
    """A Route set of a phone's own invention: to the nodes and the PBX, and nowhere else."""
    edge = scene.edge
    async with running_ua(STRANGER, "victim") as victim:
        forged = scene.phone.begin(victim.uri, edge.address, edge.port)
        forged.remote += ";tag=forged"
        forged.routes = (f"<sip:{edge.place};lr>",)
        assert (await forged.ask("BYE")).status == 403
        forged.routes += (f"<sip:{STRANGER}:{victim.port};lr>",)
        assert (await forged.ask("MESSAGE")).status == 403
        assert not victim.log


async def test_strangers_hear_nothing(scene: Scene) -> None:
    edge = scene.edge
    async with running_ua(STRANGER, "stranger") as stranger:
        Registration(stranger, edge, "1001").begin()
        caller = stranger.begin(f"sip:1001@{edge.place}", edge.address, edge.port)
        caller.send("INVITE", body=stranger.sdp())
        with pytest.raises(AssertionError):
            await stranger.expect(bool, "anything", timeout_s=1)
        reader, writer = await asyncio.open_connection(
            edge.address, edge.port, local_addr=(STRANGER, 0)
        )
        writer.write(
            f"OPTIONS sip:{edge.place} SIP/2.0\r\nVia: SIP/2.0/TCP {STRANGER}:5060;branch=z9hG4bK1"
            f"\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
            "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_pbx_that_the_edge_does_not_know_is_a_stranger(scene: Scene) -> None:
    """And the one that it knows may not say what only some may."""
    edge = scene.edge
    async with running_ua(PBX, "pbx") as pbx:
        call = pbx.begin(f"sip:1001@{edge.place}", edge.address, edge.port)
        outgoing = await call.invite(headers=("X-Callshield-Agent: 1001",))
        assert outgoing.status == 403
        # An attested notice reaches no node, where the PBX may not attest one.
        call = pbx.begin(f"sip:1001@{edge.place}", edge.address, edge.port)
        asking = asyncio.create_task(call.invite(headers=("X-Callshield-Notice: recording",)))
        invite = await scene.node.request("INVITE")
        assert "X-Callshield-Notice" not in invite.text
        scene.node.reply(invite, 486, tag="busy")
        assert (await asking).status == 486


@asynccontextmanager
async def outer(folder: Path, edge: Edge) -> AsyncIterator[tuple[int, Path]]:
    """A second Kamailio in front of phones; its port and log."""
    port = free_port(OUTER)
    text = (Path(__file__).parent / "outer.cfg").read_text(encoding="utf-8")
    text = text.replace("OUTER_PLACE", f"{OUTER}:{port}").replace("EDGE_PLACE", edge.place)
    config, log_path = folder / "outer.cfg", folder / "outer.log"
    config.write_text(text, encoding="utf-8")
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program("kamailio"),
            *("-f", str(config), "-DD", "-E", "-m", "16", "-Y", str(folder)),
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.returncode is None, log_path.read_text()
                if "Listening on" in log_path.read_text() and await _listens(OUTER, port):
                    break
                await asyncio.sleep(0.05)  # it tells nobody
        yield port, log_path
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(address: str, port: int) -> bool:
    async with running_ua(OUTER.rsplit(".", 1)[0] + ".9", "asker") as asker:
        call = asker.begin(f"sip:nobody@{address}:{port}", address, port)
        call.send("OPTIONS")
        try:
            await asker.expect(bool, "an answer", timeout_s=1)
        except AssertionError:
            return False
        return True
