"""Phones that are registered at a real Asterisk: it sends the NOTIFY that the node asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.notifier_kit import desk_in_process
from tests.pbx.ami import Ami
from tests.pbx.asterisk import Asterisk
from tests.pbx.test_pbx_ami import ADDRESS, PHONE, asterisk, configuration, running
from tests.phone_asker import Asker, asking
from tests.phone_sims_sip import (
    CISCO_MPP,
    FANVIL,
    MITEL,
    SNOM,
    YEALINK,
    Family,
    SipPhone,
    document,
    running_phone,
)

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]

PASSWORD = "pw1001"
RIGHTS = "agent,call,system"


@dataclass
class Scene:
    pbx: Asterisk
    tester: Ami
    asker: Asker

    @contextlib.asynccontextmanager
    async def phone(self, family: Family, **settings: str) -> AsyncIterator[SipPhone]:
        """A phone that is signed in as 1001; its server is the PBX."""
        made = SipPhone(
            family, PHONE, "1001", self.pbx.address, password=PASSWORD, settings=settings
        )
        async with running_phone(made) as phone:
            await phone.register(ADDRESS, self.pbx.port)
            yield phone

    @contextlib.asynccontextmanager
    async def call(self, phone: SipPhone) -> AsyncIterator[None]:
        """Asterisk calls the phone and plays a tone."""
        await self.tester.action(
            "Originate",
            Channel="PJSIP/1001",
            Application="Milliwatt",
            Async="true",
            Timeout="10000",
        )
        await phone.until(lambda it: it.in_call, "the call")
        async with asyncio.timeout(10):
            while len(phone.audio.heard) < 10:  # noqa: ASYNC110  packets tell nobody
                await asyncio.sleep(0.02)
        yield
        await self.pbx.cli("channel request hangup all")
        await phone.until(lambda it: not it.in_call, "the end of the call")

    async def show(self, family: Family, words: str, body: str = "") -> tuple[int, str]:
        """Ask for a screen of the family; status and detail."""
        body = body or document(family, words)
        answer = await self.asker.ask("1003", family.event, family.content_type, body, "pbx")
        return answer.status, answer.detail


@contextlib.asynccontextmanager
async def scene(folder: Path, root: Path, rights: str = RIGHTS) -> AsyncIterator[Scene]:
    pbx = asterisk(folder / "pbx", root, write=rights)
    more = 'endpoint = "1001"\n[phones]\nenabled = false\n[ami]'
    async with contextlib.AsyncExitStack() as stack:
        tester = await stack.enter_async_context(running(pbx))
        text = configuration(pbx, folder).replace("[ami]", more)
        desk = await stack.enter_async_context(desk_in_process(folder, text))
        asker = await stack.enter_async_context(asking(desk.settings.bus_path))
        yield Scene(pbx, tester, asker)


async def test_phones_behind_the_pbx_show_the_warning_in_a_call(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """Each family as Asterisk sends to it, by its own model's name; and no packet is missed."""
    async with scene(tmp_path, asterisk_root) as at:
        for family in (YEALINK, SNOM, MITEL, FANVIL):
            async with at.phone(family) as phone:
                seen = await at.asker.heard_of("1003", family.user_agent)
                assert seen.source == "pbx"
                async with at.call(phone):
                    heard = len(phone.audio.heard)
                    assert await at.show(family, "위험, (욕설) &amp; 위협") == (202, "")
                    await phone.until(lambda it: bool(it.screen), "a screen")
                    assert phone.screen == "위험, (욕설) & 위협"
                    async with asyncio.timeout(10):
                        # The call goes on; packets tell nobody.
                        while len(phone.audio.heard) < heard + 50:  # noqa: ASYNC110
                            await asyncio.sleep(0.02)
                request, status = phone.notifies[-1]
                assert status == 200
                assert request["Event"] == (family.event or "xml")
                assert request["Content-Type"] == family.content_type
                assert request["Subscription-State"].startswith("terminated")


async def test_a_phone_that_trusts_another_server_or_asks_who_it_is_shows_nothing(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """And the PBX does not tell: 202 is all that is known."""
    async with scene(tmp_path, asterisk_root) as at:
        async with at.phone(YEALINK) as phone:
            await at.asker.heard_of("1003", YEALINK.user_agent)
            phone.server = "192.0.2.99"
            assert (await at.show(YEALINK, "x"))[0] == 202
            await phone.until(lambda it: bool(it.notifies), "the NOTIFY")
            assert phone.notifies[-1][1] == 403
            assert phone.screen == ""
        async with at.phone(CISCO_MPP) as phone:
            await at.asker.heard_of("1003", CISCO_MPP.user_agent)
            assert (await at.show(CISCO_MPP, "x"))[0] == 202
            await phone.until(lambda it: bool(it.notifies), "the NOTIFY")
            assert phone.notifies[0][1] == 401
            assert phone.screen == ""


async def test_without_the_right_nothing_is_sent_and_it_is_said(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """With the rights as shipped: no ``system``."""
    async with scene(tmp_path, asterisk_root, "agent,call") as at, at.phone(YEALINK) as phone:
        async with asyncio.timeout(20):
            # Nothing tells us when the notifier is logged in.
            while (answer := await at.show(YEALINK, "x"))[1].endswith(  # noqa: ASYNC110
                "not connected"
            ):
                await asyncio.sleep(0.1)  # it is not logged in yet
        assert answer[0] == 0
        assert "class system" in answer[1]
        assert phone.notifies == []


async def test_a_document_with_long_lines_arrives_whole(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with scene(tmp_path, asterisk_root) as at, at.phone(SNOM) as phone:
        await at.asker.heard_of("1003", SNOM.user_agent)
        items = "".join(f"<Line>{number} 위험, 욕설</Line>" for number in range(60))
        body = f"<IPPhoneText>{items}</IPPhoneText>"
        assert await at.show(SNOM, "", body=body) == (202, "")
        await phone.until(lambda it: bool(it.screen), "a screen")
        assert phone.screen.count("위험, 욕설") == 60
