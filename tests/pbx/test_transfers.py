"""Transfers beside a real PBX: by the phone's REFER, and by the PBX itself over AMI."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from callshield.heard import read_growing_wav
from tests.pbx.asterisk import HOLD_HZ, PHONE_3
from tests.pbx.floor import (
    AGENT_HZ,
    CALLER_HZ,
    COLLEAGUE_HZ,
    THERE_DB,
    Floor,
    floor,
    until_hears,
    until_longer,
)
from tests.peers.linphone import Linphone
from tests.peers.sip_ua import running_ua
from tests.peers.sound import tone_db, write_tone

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]


async def test_blind_transfer_by_the_phone_goes_through_us_to_the_pbx(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """REFER → Callshield → Asterisk, which rings the colleague; both our legs are over."""
    async with floor(tmp_path, asterisk_root) as all_:
        await all_.connect()
        await until_hears(all_.caller, AGENT_HZ)
        await all_.agent.command("transfer", all_.pbx.uri("1002"))
        await all_.colleague.wait("CALL_ESTABLISHED")
        await all_.agent.wait("CALL_CLOSED")
        ended = await all_.events.wait("call.ended")
        assert ended["reason"] == "transferred"
        await until_hears(all_.caller, COLLEAGUE_HZ)
        await until_hears(all_.colleague, CALLER_HZ)
        await all_.hang_up()
        rows = await all_.pbx.until_cdr(2)
        assert any(r.destination_channel.startswith("PJSIP/1002-") for r in rows), rows


async def test_blind_transfer_to_nobody_leaves_the_agent_with_the_caller(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The control: the PBX knows no such extension.

    By linphonec: baresip 1.0 hangs up by itself after a transfer that failed.
    """
    voice = write_tone(tmp_path / "d.wav", COLLEAGUE_HZ, 90, 0.2)
    phone = Linphone(tmp_path / "phone", "1003", voice)
    async with AsyncExitStack() as stack:
        all_ = await stack.enter_async_context(
            floor(tmp_path, asterisk_root, more_agents={"1003": phone.uri})
        )
        stack.push_async_callback(phone.stop)
        await phone.start()
        assert all_.node is not None
        console = await stack.enter_async_context(all_.node.watch("1003"))
        await all_.dial("605")
        await phone.answer()
        await console.wait("notice.finished")
        await until_hears(all_.caller, COLLEAGUE_HZ)
        await phone.say(f"transfer 1 {all_.pbx.uri('1999')}")
        over = (await all_.node.wait_for_log("transfer_over"))[0]
        # What is heard from here on, not what a recording held before.
        before = len(phone.heard()), len(read_growing_wav(all_.caller.recording()))
        await until_longer(all_.caller.recording(), before[1] + 12000)
        await until_longer(phone.recording, before[0] + 12000)
        await until_hears(all_.caller, COLLEAGUE_HZ)
        assert tone_db(phone.heard()[-8000:], CALLER_HZ) > THERE_DB
        assert not console.seen("call.ended")
        assert over["succeeded"] is False
        assert "SIP/2.0 404 Not Found" in phone.trace  # in the NOTIFY: linphonec shows nothing
        await all_.hang_up()
        ended = await console.wait("call.ended")
        assert ended["reason"] == "caller_hangup"


async def test_blind_transfer_by_a_phone_behind_the_pbx(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The phone's dialog is with Asterisk: it puts the colleague behind Callshield's agent leg."""
    async with floor(tmp_path, asterisk_root, "through") as all_:
        await all_.connect()
        await until_hears(all_.caller, AGENT_HZ)
        await all_.agent.command("transfer", all_.pbx.uri("1002"))
        await all_.agent.wait("CALL_CLOSED")
        await until_hears(all_.caller, COLLEAGUE_HZ)
        await until_hears(all_.colleague, CALLER_HZ)
        assert not all_.events.seen("call.ended")  # Callshield is still between them
        await all_.hang_up()
        await all_.events.wait("call.ended")


async def test_attended_transfer_after_a_consultation_at_the_pbx(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The phone joins its call of ours with its own call at Asterisk (REFER with Replaces)."""
    async with (
        running_ua(PHONE_3, "1003") as phone,
        floor(tmp_path, asterisk_root, more_agents={"1003": phone.uri}) as all_,
    ):
        assert all_.node is not None
        async with all_.node.watch("1003") as console:
            await all_.dial("605")
            agent = phone.accept(await phone.request("INVITE"))
            await phone.request("ACK")
            await console.wait("notice.finished")
            consultation = phone.begin(
                all_.pbx.uri("1002"), all_.pbx.address, all_.pbx.port, user="1003"
            )
            assert (await consultation.invite()).status == 200
            await all_.colleague.wait("CALL_ESTABLISHED")
            replaces = (
                f"{consultation.call_id};to-tag={consultation.remote_tag}"
                f";from-tag={consultation.local_tag}"
            )
            target = f"<{all_.pbx.uri('1002')}?Replaces={urllib.parse.quote(replaces, safe='')}>"
            asked = await agent.ask("REFER", headers=(f"Refer-To: {target}",))
            assert asked.status == 202
            ended = await console.wait("call.ended")
            assert ended["reason"] == "transferred"
            phone.reply(await phone.request("BYE"), 200)
        await until_hears(all_.caller, COLLEAGUE_HZ)
        await until_hears(all_.colleague, CALLER_HZ)
        await all_.hang_up()


async def test_redirect_by_ami_ends_our_call(tmp_path: Path, asterisk_root: Path) -> None:
    async with floor(tmp_path, asterisk_root) as all_:
        await all_.connect()
        await all_.ami.action(
            "Redirect",
            Channel=await all_.channel("pstn"),
            Context="from-internal",
            Exten="1002",
            Priority="1",
        )
        await all_.agent.wait("CALL_CLOSED")
        ended = await all_.events.wait("call.ended")
        assert ended["reason"] == "caller_hangup"
        await until_hears(all_.caller, COLLEAGUE_HZ)
        await until_hears(all_.colleague, CALLER_HZ)
        await all_.hang_up()


async def consult(all_: Floor) -> tuple[float, float]:
    """The agent asks a colleague through the PBX (Atxfer); seconds of conversation before, at least
    and at most."""
    await all_.connect()
    tapped = await all_.events.wait("tap.started")
    await until_hears(all_.agent, CALLER_HZ)
    talked_s = time.time() - tapped["ts"]
    await all_.ami.action(
        "Atxfer",
        Channel=await all_.channel("callshield"),
        Context="from-internal",
        Exten="1002",
    )
    asked_s = time.time() - tapped["ts"]
    await until_hears(all_.caller, HOLD_HZ)
    await until_hears(all_.agent, COLLEAGUE_HZ)
    await until_hears(all_.colleague, AGENT_HZ)
    assert len(all_.events.seen("call.started")) == 1  # the consultation does not come to us
    await asyncio.sleep(4)  # of consultation: nothing of it may be analysed
    return talked_s, asked_s


async def tapped_s(all_: Floor) -> float:
    """Seconds of the call that went to the detector."""
    assert all_.node is not None
    (closed,) = await all_.node.wait_for_log("media_closed")
    return float(closed["tapped"] + closed["tap_dropped"]) * 0.02


async def test_attended_transfer_by_ami(tmp_path: Path, asterisk_root: Path) -> None:
    """The agent consults, the caller hears hold music; the agent leaves, the others are joined.

    Asterisk names the colleague in an UPDATE: not a word of the colleague's is analysed.
    """
    async with floor(tmp_path, asterisk_root) as all_:
        _, talked_s = await consult(all_)
        await all_.agent.command("hangup")
        await until_hears(all_.caller, COLLEAGUE_HZ)
        await until_hears(all_.colleague, CALLER_HZ)
        await all_.events.wait("call.ended")
        assert await tapped_s(all_) < talked_s + 1
        await all_.hang_up()


async def test_consultation_over_and_the_caller_is_analysed_again(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with floor(tmp_path, asterisk_root) as all_:
        least_s, most_s = await consult(all_)
        over = time.time()
        await all_.colleague.command("hangup")
        await until_hears(all_.caller, AGENT_HZ)
        back = time.time()
        await asyncio.sleep(3)  # of conversation with the caller again
        again_s = time.time() - back
        await all_.hang_up()
        since_s = time.time() - over
        whole_s = await tapped_s(all_)
        assert least_s - 1 + again_s < whole_s < most_s + since_s + 1


async def test_a_pbx_that_does_not_say_who_is_there(tmp_path: Path, asterisk_root: Path) -> None:
    """The control: without send_pai Asterisk names nobody, and the colleague is taken for the
    caller. The shipped file has it on."""
    async with floor(tmp_path, asterisk_root, replace={"send_pai=yes": "send_pai=no"}) as all_:
        talked_s, _ = await consult(all_)
        await all_.agent.command("hangup")
        await all_.events.wait("call.ended")
        assert await tapped_s(all_) > talked_s + 3
        await all_.hang_up()
