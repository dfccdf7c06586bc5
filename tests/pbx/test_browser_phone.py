"""An agent whose phone is a page: JsSIP in Chromium, registered at Asterisk, reached through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.heard import find
from firmware_profiles.catalogue import shipped
from firmware_profiles.choosing import NoPlan, Source, choose
from tests.pbx.asterisk import HOLD_HZ
from tests.pbx.browser_phone import BrowserPhone, browser_phone
from tests.pbx.floor import (
    ABSENT_DB,
    AGENT_HZ,
    CALLER_HZ,
    THERE_DB,
    Floor,
    floor,
    levels,
    until_hears,
)
from tests.pbx.ice import ice_addresses
from tests.pbx.jssip_packages import packages
from tests.peers.node import Watch
from tests.peers.sound import RATE, write_tone, write_wav
from tests.test_peers_detection import LEAD_S, a_dev_speaker, speech
from tests.test_peers_softphones import pushing

pytestmark = [pytest.mark.asterisk, pytest.mark.browser, pytest.mark.timeout(180)]

AGENT, PASSWORD = "1004", "CHANGE-ME-1004"
DIALPLAN = f"""
[from-pstn](+)
exten => 606,1,Goto(callshield-agents,{AGENT},1)
"""


@dataclass
class Scene:
    """A call centre one of whose agents works in a browser."""

    floor: Floor
    phone: BrowserPhone
    console: Watch
    """The agent's."""

    async def connect(self) -> dict[str, Any]:
        """A call that the browser takes, up to the end of the notice; its ``call.started``."""
        await self.floor.dial("606")
        await self.phone.wait("ringing")
        await self.phone.do("answer")
        await self.phone.wait("confirmed")
        await self.console.wait("notice.finished")
        return self.console.seen("call.started")[-1]


@asynccontextmanager
async def scene(folder: Path, root: Path, jssip: Path, **options: Any) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        all_ = await enter(
            floor(
                folder,
                root,
                "through",
                dialplan=DIALPLAN,
                more_agents={AGENT: f"sip:phone-{AGENT}@@PBX@"},
                ice=await enter(ice_addresses()),
                **options,
            )
        )
        microphone = write_tone(folder / "browser.wav", AGENT_HZ, 10, 0.2)
        phone = await enter(browser_phone(all_.pbx, AGENT, PASSWORD, microphone, jssip))
        assert all_.node is not None
        yield Scene(all_, phone, await enter(all_.node.watch(AGENT)))


async def browser_hears(phone: BrowserPhone, hertz: float, timeout_s: float = 15) -> None:
    """Wait until the last second of what the browser heard is this tone, and no other."""
    found: dict[float, float] = {}
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                last = (await phone.heard())[-RATE:]
                if len(last) == RATE:
                    found = levels(last)
                    rest = [level for other, level in found.items() if other != hertz]
                    if found[hertz] > THERE_DB and max(rest) < ABSENT_DB:
                        return
                await asyncio.sleep(0.3)  # a recording tells nobody that it grew
    except TimeoutError:
        raise AssertionError(f"the browser misses {hertz}: {found}") from None


def found_whole(name: str, all_: Floor, heard: NDArray[np.float32]) -> bool:
    announcement = find(all_.prompts.samples(name), heard)
    return announcement is not None and announcement.whole


async def test_agent_in_a_browser_is_protected_as_any_other(
    tmp_path: Path, asterisk_root: Path, jssip: Path
) -> None:
    """Both hear each other over DTLS-SRTP, the notice comes first, digits are help and end."""
    async with scene(tmp_path, asterisk_root, jssip) as all_:
        phone, caller = all_.phone, all_.floor.caller
        await all_.connect()
        await all_.console.wait("tap.started")
        await until_hears(caller, AGENT_HZ)
        await browser_hears(phone, CALLER_HZ)
        travels = await phone.do("travels")
        stats = {row.channel.split("-")[0]: row for row in await all_.floor.pbx.channel_stats()}

        await phone.do("press", "*8#", "RFC2833")
        alert = await all_.console.wait("alert.raised")
        await phone.do("press", "*9#", "RFC2833")
        ending = await all_.console.wait("call.ending")
        await phone.wait("ended")
        await caller.wait("CALL_CLOSED")
        ended = await all_.console.wait("call.ended")
        heard_by_agent = await phone.heard()

    heard_by_caller = caller.heard()
    assert (travels["dtls"], travels["ice"]) == ("connected", "connected")
    # By the name of RFC 5764 or, as newer browsers say it, of RFC 4568.
    assert travels["srtp"].startswith(("SRTP_", "AES_CM_", "AEAD_AES_")), travels["srtp"]
    assert travels["codec"] in ("audio/PCMA", "audio/PCMU")
    assert stats[AGENT].received > 50
    assert alert["kind"] == "help"
    assert ending["by"] == "agent:dtmf"
    assert ended["reason"] == "ended_with_announcement"
    assert found_whole("recording", all_.floor, heard_by_caller)
    assert found_whole("closing", all_.floor, heard_by_caller)
    # The agent was let go at once.
    assert not found_whole("closing", all_.floor, heard_by_agent)


@pytest.mark.data
async def test_what_the_caller_shouts_at_a_browser_phone_is_analysed(
    tmp_path: Path, asterisk_root: Path, jssip: Path, data_dir: Path
) -> None:
    lead = np.zeros(int(LEAD_S * RATE))
    said = speech(data_dir, a_dev_speaker(data_dir), "anger", 15)
    sound = write_wav(tmp_path / "angry.wav", np.concatenate([lead, said, lead]))
    async with scene(tmp_path, asterisk_root, jssip, caller_sound=sound) as all_:
        started = await all_.connect()
        alert = await all_.console.wait("alert.raised")
        assert (alert["call_id"], alert["kind"]) == (started["call_id"], "risk")
        await all_.floor.hang_up()


async def test_browser_phone_left_as_it_is(
    tmp_path: Path, asterisk_root: Path, jssip: Path
) -> None:
    """Hold, digits by INFO (JsSIP's default), and what it says to a push and of itself."""
    async with scene(tmp_path, asterisk_root, jssip) as all_:
        phone, caller, pbx = all_.phone, all_.floor.caller, all_.floor.pbx
        await all_.connect()
        await until_hears(caller, AGENT_HZ)
        await phone.do("hold")
        await phone.wait("hold")
        await until_hears(caller, HOLD_HZ)
        await phone.do("unhold")
        await phone.wait("unhold")
        await until_hears(caller, AGENT_HZ)
        await browser_hears(phone, CALLER_HZ)

        await pbx.cli(f"pjsip send notify callshield-xml endpoint {AGENT}")
        pushed = await phone.wait("notify")
        await phone.do("press", "*8#", "INFO")
        alert = await all_.console.wait("alert.raised")
        await until_hears(caller, AGENT_HZ)
        await all_.floor.ami.action("PJSIPShowContacts")
        contact = await all_.floor.ami.wait(
            "ContactList", lambda packet: packet["Endpoint"] == AGENT
        )
        assert all_.floor.node is not None
        seen: dict[Source, str] = {"pbx": contact["UserAgent"]}
        plan = choose(shipped(), pushing(all_.floor.node.settings), AGENT, seen, {})
        await all_.floor.hang_up()
    assert pushed["detail"].startswith("xml ")
    assert alert["kind"] == "help"
    assert contact["UserAgent"] == f"JsSIP {packages()['jssip']}"
    # No family has it: nothing is pushed, and the operator is told why.
    assert isinstance(plan, NoPlan)
    assert plan.profile_id == "generic"
    assert "no family known here" in plan.reason


async def test_without_webrtc_at_the_endpoint_the_browser_refuses(
    tmp_path: Path, asterisk_root: Path, jssip: Path
) -> None:
    """The control: plain RTP in the offer, which a browser does not take."""
    replace = {"webrtc=yes": "webrtc=no"}
    async with scene(tmp_path, asterisk_root, jssip, replace=replace) as all_:
        await all_.floor.dial("606")
        await all_.phone.wait("ringing")
        await all_.phone.do("answer")
        failed = await all_.phone.wait("failed")
        # The dialplan then rings it once more, without Callshield (docs/pbx/asterisk.md, Limits).
        await all_.phone.wait("ringing", count=2)
        await all_.floor.hang_up()
        assert not all_.console.seen("call.answered")
    assert failed["detail"] == "WebRTC Error"
