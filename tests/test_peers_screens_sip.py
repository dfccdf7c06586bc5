"""From a level on the bus to a desk phone's screen by SIP, with every part of the node between.

Nobody tells the node what the phones are: it hears that from their answers to its INVITE.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from callshield.bus import BusClient
from callshield.free_ports import free_port
from callshield.messages import Hello, NodeMessage, RiskChanged
from tests.peers.node import Node, Watch, running_node
from tests.peers.scene import ATTESTED
from tests.peers.sip_ua import Dialog, Ua, running_ua
from tests.phone_sims_sip import (
    CISCO_MPP,
    FANVIL,
    MITEL,
    SNOM,
    YEALINK,
    SipPhone,
    running_phone,
)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

US, PHONE_SIDE, PBX, PHONE = "127.0.51.2", "127.0.51.3", "127.0.51.4", "127.0.51.5"
PASSWORD = "5d-not-to-be-logged-2b"
SHOWN_BY_THEM = {"yealink": YEALINK, "snom": SNOM, "mitel": MITEL, "fanvil": FANVIL}


class Detector:
    """Says levels as the detector would; the node's own is off."""

    def __init__(self, path: Path) -> None:
        self.client: BusClient[NodeMessage] = BusClient(
            path, NodeMessage, self._hear, lambda: [Hello(role="detector", pid=os.getpid())]
        )

    async def _hear(self, message: NodeMessage) -> None:
        return

    def says(self, call_id: str, level: int, *categories: str) -> None:
        self.client.send(
            RiskChanged(
                ts=time.time(),
                call_id=call_id,
                level=level,
                previous=0,
                categories=list(categories),
                score=0.9,
            )
        )


@dataclass
class Floor:
    node: Node
    pbx: Ua
    console: Watch
    detector: Detector
    phones: dict[str, SipPhone]

    @contextlib.asynccontextmanager
    async def call(self, agent: str) -> AsyncIterator[str]:
        """A call of this agent; its id."""
        before = len(self.console.seen("call.started"))
        caller: Dialog = self.pbx.begin(self.node.uri(agent), US, self.node.pbx_port)
        assert (await caller.invite(headers=ATTESTED)).status == 200
        started: dict[str, Any] = await self.console.wait("call.started", count=before + 1)
        yield str(started["call_id"])
        assert (await caller.ask("BYE")).status == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def floor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Floor]:
    folder = tmp_path_factory.mktemp("floor")
    secret = folder / "secret"
    secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
    secret.chmod(0o600)
    made = {
        **{
            name: SipPhone(
                family,
                PHONE,
                name,
                PHONE_SIDE,
                settings={"mb_trusted_hosts": PHONE_SIDE} if family is SNOM else None,
            )
            for name, family in SHOWN_BY_THEM.items()
        },
        "blocked": SipPhone(
            YEALINK, PHONE, "blocked", PHONE_SIDE, settings={"push_xml.block_in_calling": "1"}
        ),
        "stranger": SipPhone(YEALINK, PHONE, "stranger", "127.0.51.66"),
        "cisco": SipPhone(CISCO_MPP, PHONE, "cisco", PHONE_SIDE, password=PASSWORD),
    }
    port = free_port("127.0.0.1")
    extra = f"""
[agents.cisco]
uri = "{made["cisco"].uri}"
username = "cisco"
password_file = "{secret}"
[phones]
limit_s = 20
port = {port}
url = "http://127.0.0.1:{port}"
[phones.families.fanvil]
push = "xml-notify"
[detector]
enabled = false
"""
    plain = {name: phone.uri for name, phone in made.items() if name != "cisco"}
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
                extra=extra,
                media_networks=("127.0.0.1", "127.0.51.0/24"),
            )
        )
        console = await stack.enter_async_context(node.watch("supervisor"))
        detector = Detector(node.settings.bus_path)
        detector.client.start()
        stack.push_async_callback(detector.client.close)
        async with asyncio.timeout(20):
            await detector.client.connected.wait()
        yield Floor(node, pbx, console, detector, made)
        log = node.log_path.read_text(encoding="utf-8")
        assert "Traceback" not in log
        assert PASSWORD not in log


@pytest.mark.parametrize("agent", list(SHOWN_BY_THEM))
async def test_warning_update_and_end_on_the_screen(floor: Floor, agent: str) -> None:
    phone = floor.phones[agent]
    async with floor.call(agent) as call_id:
        floor.detector.says(call_id, 2, "profanity")
        await phone.until(lambda it: "위험" in it.screen, "the warning")
        assert "욕설" in phone.screen
        assert "안내 후 종료 *9#" in phone.screen
        floor.detector.says(call_id, 3, "threat")
        await phone.until(lambda it: "심각" in it.screen, "the update")
        assert "협박" in phone.screen
        assert phone.in_call
    await phone.until(lambda it: "심각" not in it.screen, "the end of it")
    assert "위험" not in phone.screen
    if agent == "snom":
        assert phone.screen == ""
    assert [status for _, status in phone.notifies] == [200] * 3
    assert not floor.node.logs("screen_not_pushed")


async def test_a_calm_call_leaves_the_screen_alone(floor: Floor) -> None:
    """The control: what is shown above comes of the level."""
    phone = floor.phones["yealink"]
    before = len(phone.notifies)
    async with floor.call("yealink") as call_id:
        floor.detector.says(call_id, 1, "shouting")
        # The warning of another phone, asked for later, is there: this one would be, too.
        async with floor.call("snom") as other:
            floor.detector.says(other, 2, "insult")
            await floor.phones["snom"].until(lambda it: "위험" in it.screen, "the warning")
        assert len(phone.notifies) == before


async def test_a_phone_that_blocks_xml_in_calls_takes_it_and_stays_dark(floor: Floor) -> None:
    """Nobody can tell by SIP; `callshield profiles check` can by the phone's settings."""
    phone = floor.phones["blocked"]
    async with floor.call("blocked") as call_id:
        floor.detector.says(call_id, 3, "threat")
        await phone.until(lambda it: bool(it.notifies), "a NOTIFY")
        assert phone.notifies[-1][1] == 200
        assert phone.screen == ""


async def test_a_cisco_phone_is_asked_for_its_password_and_fetches_its_screen(floor: Floor) -> None:
    phone = floor.phones["cisco"]
    async with floor.call("cisco") as call_id:
        floor.detector.says(call_id, 2, "insult")
        await phone.until(lambda it: bool(it.executed), "what to fetch")
        (url,) = phone.executed
        assert url.startswith(floor.node.settings.phones.url)
        async with httpx.AsyncClient(trust_env=False) as client:
            page = await client.get(url)
        assert page.headers["content-type"] == "text/xml; charset=utf-8"
        assert "<Title>위험 모욕" in page.text
        assert [status for _, status in phone.notifies[:2]] == [401, 200]
    await phone.until(lambda it: it.executed[-1] == "Init:Services", "the end of it")


async def test_a_phone_that_trusts_somebody_else_is_told_of_in_the_log(floor: Floor) -> None:
    phone = floor.phones["stranger"]
    async with floor.call("stranger") as call_id:
        floor.detector.says(call_id, 3, "threat")
        await phone.until(lambda it: bool(it.notifies), "a NOTIFY")
        await floor.node.wait_for_log("screen_not_pushed")
    (said,) = floor.node.logs("screen_not_pushed")
    assert said["reason"].startswith("403")
    assert said["tries"] == 1, "what a phone refuses is not tried again"
    assert phone.screen == ""
    log = floor.node.log_path.read_text()
    assert PASSWORD not in log
    assert "협박" not in log
    assert "/p/" not in log
    assert "/s/" not in log
