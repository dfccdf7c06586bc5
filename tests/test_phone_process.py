"""From a level on the bus to a phone's screen: a real notifier, the phones' process, real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from callshield import push_command
from callshield.bus import BusClient, Codec
from callshield.errors import SetupError
from callshield.messages import (
    CallEnded,
    CrisisHint,
    Hello,
    HelperChanged,
    NodeMessage,
    Reason,
    RiskChanged,
)
from callshield.messages_phones import ScreenPushed
from firmware_profiles.catalogue import shipped
from firmware_profiles.process import Phones
from tests.mentions import labelled
from tests.notifier_kit import WITHIN_S, Bridge, Desk, desk_in_process
from tests.phone_sims_http import Phone
from tests.phone_sims_http_poly import PolyPhone
from tests.phone_sims_http_xml import MitelPhone

SITE = """
[sip.phone]
networks = ["127.0.0.0/8"]
[phones]
limit_s = {limit_s}
[phones.families.mitel-6800]
push = "xml-post"
port = {port}
[phones.families.poly-vvx]
user = "callshield"
password_file = "{password}"
port = {poly_port}
{more}
"""
SECRET = "pushing-s3cret"


@dataclass
class Floor:
    """A running notifier with the phones of agents 1001 (Mitel) and 1002 (Poly)."""

    desk: Desk
    bridge: Bridge
    mitel: MitelPhone
    poly: PolyPhone
    phones: Phones

    async def reads(self, phone: Phone, text: str) -> None:
        """Wait until the phone shows ``text``; empty: nothing."""
        await until(lambda: text in phone.screen.text if text else not phone.screen.text)

    async def metrics(self) -> str:
        async with self.desk.http() as http:
            return (await http.get("/metrics")).text

    async def calls(self, count: int) -> None:
        """Wait until the notifier has so many live calls."""
        async with asyncio.timeout(WITHIN_S):
            while f"callshield_live_calls {count}.0" not in await self.metrics():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 (several sources)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def floor(
    folder: Path, *, more: str = "", start: bool = True, agents: str = "", limit_s: float = 20.0
) -> AsyncIterator[Floor]:
    password = folder / "password"
    password.write_text(SECRET)
    password.chmod(0o600)
    mitel = MitelPhone(post_list=["127.0.0.1"])
    poly = PolyPhone(user="callshield", password=SECRET)
    mitel.in_call = poly.in_call = True
    async with mitel.on("127.0.0.31"), poly.on("127.0.0.32"):
        site = SITE.format(
            port=mitel.port, poly_port=poly.port, password=password, more=more, limit_s=limit_s
        )
        async with desk_in_process(folder, site) as desk, desk.bridge() as bridge:
            # The kit's agents have one table; their phones differ.
            tables = desk.settings.agents
            tables["1001"] = tables["1001"].model_copy(
                update={"phone_model": "Mitel-6920-SIP/6.4.0.140", "phone_address": "127.0.0.31"}
            )
            tables["1002"] = tables["1002"].model_copy(
                update={
                    "phone_model": "PolycomVVX-VVX_450-UA/6.4.0.1",
                    "phone_address": "127.0.0.32",
                }
            )
            phones = Phones(desk.settings, shipped())
            if start:
                await phones.start()
                await phones._bus.connected.wait()
            try:
                yield Floor(desk, bridge, mitel, poly, phones)
            finally:
                await phones.close()


async def test_a_level_is_on_the_phone_and_goes_with_the_call(tmp_path: Path) -> None:
    async with floor(tmp_path) as site:
        call = site.bridge.start_call("1001")
        site.bridge.risk(call, 2)
        await site.reads(site.mitel, "위험 고성")
        site.bridge.risk(call, 3)
        await site.reads(site.mitel, "심각 고성")
        site.bridge.end_call(call)
        await site.reads(site.mitel, "보호 화면 종료")
        assert not site.poly.requests, "another agent's phone heard of it"
        page = await site.metrics()
        assert 'callshield_phone_screens_total{family="few",outcome="taken"} 3.0' in page
        assert not [value for value in labelled(page) if "1001" in value]
        assert "mitel" not in page, "a family of one phone is one person"


async def test_digest_and_a_clear_by_key(tmp_path: Path) -> None:
    async with floor(tmp_path) as site:
        call = site.bridge.start_call("1002")
        site.bridge.risk(call, 3)
        await site.reads(site.poly, "심각")
        site.bridge.end_call(call)
        await until(lambda: site.poly.keys == ["Home"])
        assert not site.poly.screen.text


async def test_the_agent_reads_what_becomes_of_a_request_for_help(tmp_path: Path) -> None:
    async with floor(tmp_path) as site:
        call = site.bridge.start_call("1001")
        async with site.desk.http(site.desk.agent) as http:
            asked = await http.post(f"/api/v1/calls/{call}/actions", json={"action": "help"})
            assert asked.status_code == 200, asked.text
        await site.reads(site.mitel, "관리자 호출 중")
        async with site.desk.http(site.desk.supervisor) as http:
            alerts = (await http.get("/api/v1/alerts")).json()
            alerts = alerts if isinstance(alerts, list) else alerts["alerts"]
            taken = await http.post(
                f"/api/v1/alerts/{alerts[0]['alert_id']}/accept", json={"how": "seen"}
            )
            assert taken.status_code == 200, taken.text
        await site.reads(site.mitel, "관리자가 확인함")
        site.bridge.send(
            HelperChanged(ts=1.0, call_id=call, agent_id="1001", state="calling", role="supervisor")
        )
        await site.reads(site.mitel, "관리자가 옵니다")


async def test_a_process_that_comes_late_or_back_learns_what_is_true(tmp_path: Path) -> None:
    async with floor(tmp_path, start=False) as site:
        call = site.bridge.start_call("1001")
        site.bridge.risk(call, 3)
        await site.calls(1)
        await site.phones.start()
        await site.reads(site.mitel, "심각")
        # The notifier's connection breaks, and the call ends meanwhile.
        site.phones._bus._task.cancel()  # type: ignore[union-attr]
        await asyncio.gather(site.phones._bus._task, return_exceptions=True)  # type: ignore[arg-type]
        site.bridge.end_call(call)
        await site.calls(0)
        assert "심각" in site.mitel.screen.text
        site.phones._bus.start()
        await site.reads(site.mitel, "보호 화면 종료")


async def test_a_level_that_fell_while_the_process_was_away_is_told(tmp_path: Path) -> None:
    async with floor(tmp_path) as site:
        call = site.bridge.start_call("1001")
        site.bridge.risk(call, 3)
        await site.reads(site.mitel, "심각")
        site.phones._bus._task.cancel()  # type: ignore[union-attr]
        await asyncio.gather(site.phones._bus._task, return_exceptions=True)  # type: ignore[arg-type]
        site.bridge.risk(call, 0)
        async with site.desk.http(site.desk.supervisor) as http, asyncio.timeout(WITHIN_S):
            while (await http.get("/api/v1/calls")).json()["calls"][0]["level"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        site.phones._bus.start()
        await site.reads(site.mitel, "보호 화면 종료")


async def test_a_screen_of_a_process_that_died_is_taken_away_by_the_next(tmp_path: Path) -> None:
    async with floor(tmp_path) as site:
        call = site.bridge.start_call("1002")
        site.bridge.risk(call, 3)
        await site.reads(site.poly, "심각")
        await until_page(site, 'outcome="taken"} 1.0')
        await site.phones.close()
        site.bridge.end_call(call)
        await site.calls(0)
        assert "심각" in site.poly.screen.text
        site.phones = Phones(site.desk.settings, shipped())
        await site.phones.start()
        try:
            await until(lambda: site.poly.keys == ["Home"])
            assert not site.poly.screen.text
        finally:
            await site.phones.close()


async def test_words_and_numbers_do_not_reach_the_process(tmp_path: Path) -> None:
    heard: list[NodeMessage] = []

    async def on_message(message: NodeMessage) -> None:
        heard.append(message)

    async with floor(tmp_path, start=False) as site:
        client: BusClient[NodeMessage] = BusClient(
            site.desk.settings.bus_path,
            NodeMessage,
            on_message,
            lambda: [Hello(role="phones", pid=1)],
        )
        client.start()
        await client.connected.wait()
        call = site.bridge.start_call("1001")
        site.bridge.words(call, 3, "the caller's words")
        site.bridge.send(
            CrisisHint(ts=1.0, call_id=call, words=["more words"], detail="a sentence")
        )
        await until(lambda: any(isinstance(one, CrisisHint) for one in heard))
        site.bridge.end_call(call)
        await client.close()
    assert any(isinstance(one, RiskChanged) and one.level == 3 for one in heard)
    # Without ids and times: their digits are anybody's.
    said = re.sub(r"[0-9a-f]{32}|ts=[0-9.]+", "", repr(heard))
    for secret in ("words'", "more words", "a sentence", "109", "1763.42", "0.9"):
        assert secret not in said


async def test_a_family_that_keeps_failing_is_a_part_that_is_down(tmp_path: Path) -> None:
    async with floor(tmp_path) as site, site.desk.console(site.desk.supervisor) as console:
        site.poly.user = "somebody else"
        site.poly.digest.user = "somebody else"
        for _ in range(3):
            call = site.bridge.start_call("1002")
            site.bridge.risk(call, 3)
            before = len(site.poly.requests)
            await until(lambda n=before: len(site.poly.requests) > n)  # type: ignore[misc]
            site.bridge.end_call(call)
            # Pauses are for phones that are away; here a person mends it meanwhile.
            phone = site.phones.desk._screens._phones["1002"]  # type: ignore[union-attr]
            await until(lambda p=phone: p.sent is None)  # type: ignore[misc]
            phone.paused_until_s, phone.failures, phone.gave_up = 0.0, 0, False
        down = await console.until("node.degraded", component="phone_screens")
        assert down["degraded"]
        assert down["reason"].startswith("poly-vvx: 401")
        assert SECRET not in str(down)
        site.poly.digest.user = "callshield"
        call = site.bridge.start_call("1002")
        site.bridge.risk(call, 3)
        up = await console.until("node.degraded", component="phone_screens")
        assert not up["degraded"]


async def test_only_the_process_itself_says_what_came_of_pushes(tmp_path: Path) -> None:
    async with floor(tmp_path, start=False) as site:
        site.bridge.send(
            ScreenPushed(
                agent_id="1001", call_id="", profile="x", method="y", kind="warning", ok=True
            )
        )
        call = site.bridge.start_call("1001")
        await site.calls(1)
        assert "callshield_phone_screens_total{" not in await site.metrics()
        site.bridge.end_call(call)


async def test_the_process_makes_no_level_and_ends_no_call(tmp_path: Path) -> None:
    """It answers the phones' network: whoever broke into it is no detector and no bridge."""
    async with floor(tmp_path) as site:
        call = site.bridge.start_call("1001")
        await site.calls(1)
        send: Callable[[NodeMessage], None] = site.phones._bus.send
        send(
            RiskChanged(
                ts=time.time(), call_id=call, level=3, previous=0, categories=["threat"], score=1.0
            )
        )
        send(
            CallEnded(
                ts=time.time(), call_id=call, agent_id="1001", reason="agent_hangup", duration_s=1.0
            )
        )
        send(
            ScreenPushed(
                agent_id="1001",
                call_id=call,
                profile="mitel-6800",
                method="xml-post",
                kind="warning",
                ok=True,
            )
        )
        # Behind them on the same connection: what came before was looked at.
        await until_page(site, 'outcome="taken"} 1.0')
        async with site.desk.http(site.desk.supervisor) as http:
            calls = (await http.get("/api/v1/calls")).json()["calls"]
        assert [(one["call_id"], one["level"]) for one in calls] == [(call, 0)]


async def until_page(site: Floor, words: str) -> None:
    """Wait until the metrics say it."""
    async with asyncio.timeout(WITHIN_S):
        while words not in await site.metrics():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with floor(tmp_path) as site:
        settings = site.desk.settings
        status = await asyncio.to_thread(push_command.push, settings, "1001", "<b>\u202e시험</b>")
        assert status == 0
        assert "mitel-6800, xml-post: taken in" in capsys.readouterr().out
        assert "<b>시험</b>" in site.mitel.screen.text
        site.poly.mood = "redirect"
        assert await asyncio.to_thread(push_command.push, settings, "1002", "") == 1
        assert "redirect" in capsys.readouterr().err
        call = site.bridge.start_call("1001")
        site.bridge.risk(call, 3)
        await site.reads(site.mitel, "심각")
        assert await asyncio.to_thread(push_command.push, settings, "1001", "") == 1
        assert "a warning is on the screen" in capsys.readouterr().err
        assert "심각" in site.mitel.screen.text


async def test_a_test_without_a_node_says_so(tmp_path: Path) -> None:
    async with floor(tmp_path, start=False) as site:
        settings = site.desk.settings
        assert await asyncio.to_thread(push_command.push, settings, "1001", "") == 1
    with pytest.raises(SetupError, match="callshield serve"):
        await asyncio.to_thread(push_command.push, settings, "1001", "")
    with pytest.raises(SetupError, match="no agent"):
        push_command.show_plan(settings, "nobody", "")


async def _delays(site: Floor, console: Any, calls: list[str], rounds: int) -> list[float]:
    """From a level to the console, ms."""
    took = []
    for number in range(rounds):
        for call in calls:
            level = 2 + number % 2
            began = time.perf_counter()
            site.bridge.send(
                RiskChanged(
                    ts=time.time(),
                    call_id=call,
                    level=level,
                    previous=0,
                    categories=["threat"],
                    score=0.5,
                    reasons=[Reason(kind="vocal_effort", score=0.5, detail=str(number))],
                )
            )
            await console.until("risk.changed", call_id=call, level=level)
            took.append((time.perf_counter() - began) * 1000)
    return took


def _ratio(some: list[float], others: list[float]) -> float:
    """Of the lower quartiles: what else runs on the machine only ever adds."""
    return statistics.quantiles(some, n=4)[0] / statistics.quantiles(others, n=4)[0]


async def test_a_phone_that_hangs_delays_neither_the_console_nor_the_other_phone(
    tmp_path: Path,
) -> None:
    async with (
        floor(tmp_path, limit_s=1.0) as site,
        site.desk.console(site.desk.supervisor) as console,
    ):
        well, hanging = site.bridge.start_call("1002"), site.bridge.start_call("1001")
        calls = [hanging, well]
        await _delays(site, console, calls, 3)
        without, with_ = [], []
        for _ in range(4):
            site.mitel.mood = "well"
            without += await _delays(site, console, calls, 10)
            site.mitel.mood = "silent"
            with_ += await _delays(site, console, calls, 10)
        assert _ratio(with_, without) < 2.5, (with_, without)
        # While one phone keeps a request under way for the whole limit, the other one is told.
        phones = site.phones.desk._screens._phones  # type: ignore[union-attr]
        site.bridge.end_call(hanging)
        hanging = site.bridge.start_call("1001")
        await until(lambda: phones["1001"].sent is None)
        phones["1001"].paused_until_s, phones["1001"].gave_up = 0.0, False
        site.bridge.risk(hanging, 3)
        await until(lambda: phones["1001"].sent is not None)
        await until(lambda: phones["1002"].sent is None)
        site.bridge.send(
            RiskChanged(ts=1.0, call_id=well, level=2, previous=3, categories=["hate"], score=0.5)
        )
        await site.reads(site.poly, "혐오·차별 발언")
        assert phones["1001"].sent is not None, "it answered before the other phone was told"


async def test_a_process_that_stands_still_delays_nobody(tmp_path: Path) -> None:
    """Whoever is on the bus as ``phones`` and does not read is no weight on the alert path."""
    codec: Codec[NodeMessage] = Codec(NodeMessage)
    async with (
        floor(tmp_path, start=False) as site,
        site.desk.console(site.desk.supervisor) as console,
    ):
        call = site.bridge.start_call("1001")
        await _delays(site, console, [call], 3)
        without, stuck = [], []
        for _ in range(4):
            without += await _delays(site, console, [call], 15)
            reader, writer = await asyncio.open_unix_connection(str(site.desk.settings.bus_path))
            writer.write(codec.frame(Hello(role="phones", pid=1)))
            await writer.drain()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            stuck += await _delays(site, console, [call], 15)
            writer.close()
        assert _ratio(stuck, without) < 2.5, (stuck, without)
