"""A NOTIFY from a whole node to desk phones, in and out of calls."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from callshield.free_ports import free_port
from sipbridge.phone_notify import MAX_A_PHONE
from tests.peers.node import Node, running_node
from tests.peers.scene import ATTESTED
from tests.peers.sip_ua import Dialog, Ua, running_ua
from tests.phone_asker import Asker, asking
from tests.phone_sims_sip import (
    CISCO_MPP,
    FANVIL,
    MITEL,
    SNOM,
    YEALINK,
    SipPhone,
    document,
    running_phone,
)
from tests.test_peers_tls import Authority

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

US, PHONE_SIDE, PBX, PHONE = "127.0.50.2", "127.0.50.3", "127.0.50.4", "127.0.50.5"
STRANGER = "127.0.50.66"
PASSWORD = "7c-not-to-be-logged-1e"
#: For phones that answer, so long may the machine stand still.
LIMIT_S = 6.0


@dataclass
class Floor:
    """A node, and a phone for each agent."""

    node: Node
    pbx: Ua
    asker: Asker
    phones: dict[str, SipPhone]

    async def show(
        self, agent: str, words: str, *, event: str = "", content_type: str = ""
    ) -> tuple[int, str]:
        """Ask for a screen of the family; status and detail."""
        family = self.phones[agent].family
        answer = await self.asker.ask(
            agent,
            event or family.event or "xml",
            content_type or family.content_type,
            document(family, words),
        )
        return answer.status, answer.detail

    @contextlib.asynccontextmanager
    async def call(self, agent: str) -> AsyncIterator[tuple[Dialog, tuple[str, int]]]:
        """A call of this agent: the PBX's dialog, and where the caller's audio goes."""
        caller = self.pbx.begin(self.node.uri(agent), US, self.node.pbx_port)
        answer = await caller.invite(headers=ATTESTED)
        assert answer.status == 200, answer.text
        yield caller, (answer.media_address, answer.media_port)
        assert (await caller.ask("BYE")).status == 200
        phone = self.phones[agent]
        await phone.until(lambda it: not it.in_call, "the end of the call")

    async def hears(self, agent: str, to: tuple[str, int], packets: int) -> int:
        """The caller speaks; how many of its packets do not reach the phone."""
        heard = self.phones[agent].audio.heard
        end = time.monotonic() + 20
        while not heard:  # until the relay is open
            assert time.monotonic() < end, "the phone hears nothing"
            await self.pbx.audio.speak(0x22, to, 5)
        before = await _settled(heard)
        await self.pbx.audio.speak(0x22, to, packets)
        end = time.monotonic() + 10
        # What is lost never comes; packets tell nobody that they came.
        while len(heard) < before + packets and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return packets - (await _settled(heard) - before)


async def _settled(heard: list[int]) -> int:
    """How many packets came, once no more come: nothing tells when what is on the way is there."""
    count, since = len(heard), time.monotonic()
    while time.monotonic() - since < 1.0:
        await asyncio.sleep(0.05)
        if len(heard) != count:
            count, since = len(heard), time.monotonic()
    return count


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    folder = tmp_path_factory.mktemp("floor")
    secret = folder / "secret"
    secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
    secret.chmod(0o600)
    authority = Authority(folder / "authority")
    tls = authority.table("phone", PHONE_SIDE).replace("TLS_PORT", str(free_port(PHONE_SIDE)))
    made = {
        "yealink": SipPhone(YEALINK, PHONE, "yealink", PHONE_SIDE),
        "blocked": SipPhone(
            YEALINK, PHONE, "blocked", PHONE_SIDE, settings={"push_xml.block_in_calling": "1"}
        ),
        "elsewhere": SipPhone(YEALINK, PHONE, "elsewhere", STRANGER),
        "snom": SipPhone(SNOM, PHONE, "snom", STRANGER, settings={"mb_trusted_hosts": PHONE_SIDE}),
        "mitel": SipPhone(MITEL, PHONE, "mitel", PHONE_SIDE),
        "fanvil": SipPhone(FANVIL, PHONE, "fanvil", PHONE_SIDE),
        "overtcp": SipPhone(YEALINK, PHONE, "overtcp", PHONE_SIDE, transport="tcp"),
        "overtls": SipPhone(
            YEALINK,
            PHONE,
            "overtls",
            PHONE_SIDE,
            transport="tls",
            certificate=authority.server(PHONE),
        ),
        "cisco": SipPhone(CISCO_MPP, PHONE, "cisco", PHONE_SIDE, password=PASSWORD),
        "sha": SipPhone(
            CISCO_MPP, PHONE, "sha", PHONE_SIDE, password=PASSWORD, algorithm="SHA-256"
        ),
        "wrong": SipPhone(CISCO_MPP, PHONE, "wrong", PHONE_SIDE, password="another"),
        "unknown": SipPhone(CISCO_MPP, PHONE, "unknown", PHONE_SIDE, password=PASSWORD),
        "silent": SipPhone(YEALINK, PHONE, "silent", PHONE_SIDE),
    }
    with_password = ("cisco", "sha", "wrong")
    tables = "".join(
        f'[agents.{name}]\nuri = "{made[name].uri}"\nusername = "{name}"\n'
        f'password_file = "{secret}"\n'
        for name in with_password
    )
    plain = {name: phone.uri for name, phone in made.items() if name not in with_password}
    async with contextlib.AsyncExitStack() as stack:
        for phone in made.values():
            await stack.enter_async_context(running_phone(phone))
        pbx = await stack.enter_async_context(running_ua(PBX, "pbx"))
        node = await stack.enter_async_context(
            running_node(
                folder / "node",
                plain,
                peer=PBX,
                peer_options="attests_notice = true\n",
                sides=(US, PHONE_SIDE),
                extra=f"{tables}{tls}[phones]\nenabled = false\nlimit_s = {LIMIT_S}\n",
            )
        )
        asker = await stack.enter_async_context(asking(node.settings.bus_path))
        yield Floor(node, pbx, asker, made)
        log = node.log_path.read_text(encoding="utf-8")
        assert "Traceback" not in log
        assert PASSWORD not in log


BY_FAMILY = ["yealink", "snom", "mitel", "fanvil", "cisco", "sha", "overtcp", "overtls"]


@pytest.mark.parametrize("agent", BY_FAMILY)
async def test_the_screen_shows_it_during_a_call(floor: Floor, agent: str) -> None:
    phone = floor.phones[agent]
    async with floor.call(agent):
        assert phone.in_call
        assert await floor.show(agent, "위험 · 욕설") == (200, "")
        assert phone.screen == "위험 · 욕설"
        # And again, something else: each is a request of its own.
        assert await floor.show(agent, "주의") == (200, "")
        assert phone.shown[-2:] == ["위험 · 욕설", "주의"]
    request, _ = phone.notifies[-1]
    assert request["Event"] == (phone.family.event or "xml")
    assert request["Subscription-State"].startswith("terminated")
    assert request["Contact"].startswith(f"<sip:callshield@{PHONE_SIDE}:")
    assert request["From"].startswith(f"<sip:callshield@{PHONE_SIDE}>;tag=")
    assert ";tag=" not in request["To"]
    assert request.start == f"NOTIFY {phone.uri} SIP/2.0"


@pytest.mark.parametrize("agent", ["yealink", "cisco"])
async def test_the_screen_shows_it_without_a_call(floor: Floor, agent: str) -> None:
    """It is outside of any dialog: the clear after a call goes the same way."""
    assert await floor.show(agent, "끝") == (200, "")
    assert floor.phones[agent].screen == "끝"


async def test_a_document_of_ten_thousand_bytes_arrives_whole(floor: Floor) -> None:
    words = "가" * 3000
    assert await floor.show("yealink", words) == (200, "")
    assert floor.phones["yealink"].screen == words
    assert (await floor.show("yealink", words + "가" * 400))[0] == 413
    status, detail = await floor.show("yealink", words * 2)
    assert status == 0
    assert "longer" in detail
    assert floor.phones["yealink"].screen == words


# ---------------------------------------------------------------------------------- refusals


async def test_a_wrong_event_and_a_wrong_type_are_told(floor: Floor) -> None:
    phone = floor.phones["yealink"]
    before = list(phone.shown)
    status, detail = await floor.show("yealink", "x", event="ACTION-XML")
    assert (status, detail) == (489, "the phone does not know this event")
    status, detail = await floor.show("yealink", "x", content_type="text/plain")
    assert (status, detail) == (415, "the phone does not know this content type")
    status, _ = await floor.show("snom", "x", content_type="application/xml")
    assert status == 415
    assert phone.shown == before


async def test_a_phone_of_another_server_refuses_ours(floor: Floor) -> None:
    """And the control: the same phone takes it when its account's server is us."""
    status, detail = await floor.show("elsewhere", "x")
    assert status == 403
    assert "trust" in detail
    phone = floor.phones["elsewhere"]
    assert phone.screen == ""
    phone.server = PHONE_SIDE
    assert (await floor.show("elsewhere", "y"))[0] == 200
    assert phone.screen == "y"


async def test_blocked_in_a_call_is_a_200_that_shows_nothing(floor: Floor) -> None:
    """Why `profiles check` exists: SIP cannot tell."""
    phone = floor.phones["blocked"]
    assert await floor.show("blocked", "before") == (200, "")
    async with floor.call("blocked"):
        assert await floor.show("blocked", "during") == (200, "")
        assert phone.screen == "before"
        phone.settings["push_xml.block_in_calling"] = "0"
        assert await floor.show("blocked", "now") == (200, "")
        assert phone.screen == "now"


# ------------------------------------------------------------------------------------ digest


@pytest.mark.parametrize(("agent", "algorithm"), [("cisco", "MD5"), ("sha", "SHA-256")])
async def test_a_challenge_is_answered_once(floor: Floor, agent: str, algorithm: str) -> None:
    phone = floor.phones[agent]
    before = len(phone.notifies)
    assert await floor.show(agent, "심각") == (200, "")
    assert [status for _, status in phone.notifies[before:]] == [401, 200]
    first, second = (message for message, _ in phone.notifies[before:])
    assert first["Authorization"] == ""
    assert f"algorithm={algorithm}" in second["Authorization"]
    assert PASSWORD not in second.text


async def test_a_wrong_password_is_told_and_tried_once(floor: Floor) -> None:
    phone = floor.phones["wrong"]
    status, detail = await floor.show("wrong", "x")
    assert status == 401
    assert "password" in detail
    assert [one for _, one in phone.notifies] == [401, 401]
    assert phone.screen == ""


async def test_without_credentials_a_challenge_is_the_answer(floor: Floor) -> None:
    status, detail = await floor.show("unknown", "x")
    assert status == 401
    assert "none" in detail
    assert len(floor.phones["unknown"].notifies) == 1


# ---------------------------------------------------------------------- nobody answers


async def test_a_phone_that_is_silent_is_told_in_time_and_not_flooded(floor: Floor) -> None:
    phone = floor.phones["silent"]
    phone.silent = True
    began = time.monotonic()
    status, detail = await floor.show("silent", "x")
    took_s = time.monotonic() - began
    assert status == 0
    assert "has not answered" in detail
    assert LIMIT_S * 0.9 < took_s < LIMIT_S + 2
    asked = [floor.asker.begin("silent", "Yealink-xml") for _ in range(8)]
    answers = [await floor.asker.answer(one) for one in asked]
    assert all(one.status == 0 for one in answers)
    # PJSIP repeats those that it was given; the others were never sent.
    assert len(phone.notifies) == MAX_A_PHONE
    refused = sum("not answered the last" in one.detail for one in answers)
    assert refused == 1 + len(asked) - MAX_A_PHONE
    # Other phones are not behind it.
    assert await floor.show("yealink", "z") == (200, "")
    # When it is back, what is repeated is answered, and makes room.
    phone.silent = False
    phone._said = {key: value for key, value in phone._said.items() if value}
    end = time.monotonic() + 30
    while (await floor.show("silent", "back"))[0] != 200:
        assert time.monotonic() < end, phone.log[-1]
        await asyncio.sleep(0.2)  # PJSIP repeats after at most 4 s
    assert phone.screen == "back"


async def test_nobody_at_the_port_and_nobody_of_that_name(floor: Floor) -> None:
    phone = floor.phones["overtcp"]
    await phone.stop()
    for writer in list(phone._writers):
        writer.transport.abort()
    status, _ = await floor.show("overtcp", "x")
    assert status == 0
    answer = await floor.asker.ask("nobody", "xml")
    assert (answer.status, answer.detail) == (0, "there is no such agent")


@pytest.mark.parametrize(
    ("event", "content_type"),
    [
        ("xml\r\nX-Evil: 1", "application/xml"),
        ("xml evil", "application/xml"),
        ("xml", "application/xml\r\nX-Evil: 1"),
        ("xml", ""),
    ],
)
async def test_nothing_becomes_a_header_of_ours(
    floor: Floor, event: str, content_type: str
) -> None:
    before = len(floor.phones["snom"].notifies)
    answer = await floor.asker.ask("snom", event, content_type, "<a/>")
    assert answer.status == 0
    assert len(floor.phones["snom"].notifies) == before


async def test_only_the_process_for_screens_may_ask(floor: Floor) -> None:
    async with asking(floor.node.settings.bus_path, "detector2") as stranger:
        answer = await stranger.ask("yealink", "Yealink-xml")
    assert (answer.status, answer.detail) == (0, "this process may not ask for it")


# -------------------------------------------------------------------------- who is there


async def test_what_the_phone_calls_itself_is_told_once(floor: Floor) -> None:
    phone = floor.phones["fanvil"]
    async with floor.call("fanvil"):
        seen = await floor.asker.heard_of("fanvil", FANVIL.user_agent)
    assert seen.source == "bridge"
    async with floor.call("fanvil"):
        pass
    assert sum(one.agent_id == "fanvil" for one in floor.asker.seen) == 1
    phone.family = dataclasses.replace(FANVIL, user_agent="Fanvil X4U 2.14.0")
    async with floor.call("fanvil"):
        await floor.asker.heard_of("fanvil", "Fanvil X4U 2.14.0")
    # Whoever comes later is told what is known.
    async with asking(floor.node.settings.bus_path) as other:
        await other.heard_of("fanvil", "Fanvil X4U 2.14.0")
        await other.heard_of("yealink", YEALINK.user_agent)


# ------------------------------------------------------------------------------- the call


async def test_no_packet_of_the_call_is_lost(floor: Floor) -> None:
    async with floor.call("snom") as (_, to):
        assert await floor.hears("snom", to, 20) == 0
        before = len(floor.phones["snom"].notifies)
        speaking = asyncio.create_task(floor.hears("snom", to, 150))
        sent = 0
        while not speaking.done():
            assert await floor.show("snom", f"screen {sent}") == (200, "")
            sent += 1
        assert await speaking == 0
        assert len(floor.phones["snom"].notifies) - before == sent
        assert sent >= 20


async def test_what_it_costs(floor: Floor, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the bridge's one thread, and of whoever calls meanwhile; printed with ``-s``."""
    quiet = await _options_ms(floor, 60)
    pid, shows = floor.node.pid_of("bridge"), 200
    before, took_ms = _cpu_s(pid), []
    probing = asyncio.create_task(_options_ms(floor, 60))
    for number in range(shows):
        began = time.perf_counter()
        assert await floor.show("yealink", f"screen {number}") == (200, "")
        took_ms.append(1000 * (time.perf_counter() - began))
    busy = await probing
    cpu_ms = 1000 * (_cpu_s(pid) - before) / (shows + 60)
    line = (
        f"{shows} NOTIFYs: p50 {_at(took_ms, 50):.1f} ms, p95 {_at(took_ms, 95):.1f} ms to the "
        f"screen and back; {cpu_ms:.2f} ms of the bridge each; OPTIONS p95 {_at(quiet, 95):.1f} "
        f"ms before, {_at(busy, 95):.1f} ms meanwhile"
    )
    with capsys.disabled():
        print(f"\n{line}")
    assert cpu_ms < 20, line
    assert _at(took_ms, 50) < 300, line


async def _options_ms(floor: Floor, count: int) -> list[float]:
    """Round trips of OPTIONS from the PBX: how long PJSIP's loop keeps others waiting."""
    took = []
    for _ in range(count):
        dialog = floor.pbx.begin(floor.node.uri("x"), US, floor.node.pbx_port)
        began = time.perf_counter()
        assert (await dialog.ask("OPTIONS")).status == 200
        took.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(0.01)  # spread over the time in which the screens are sent
    return took


def _cpu_s(pid: int) -> float:
    """CPU of a process so far, all threads, kernel included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _at(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


async def test_the_count_notices_a_packet_that_is_not_there(floor: Floor) -> None:
    """The control: two packets that the caller sends elsewhere are missed."""
    async with floor.call("mitel") as (_, to):
        assert await floor.hears("mitel", to, 5) == 0
        heard = floor.phones["mitel"].audio.heard
        before = await _settled(heard)
        await floor.pbx.audio.speak(0x22, to, 18)
        await floor.pbx.audio.speak(0x22, (PBX, floor.pbx.port), 2)
        assert 20 - (await _settled(heard) - before) == 2
