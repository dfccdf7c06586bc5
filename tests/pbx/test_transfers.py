"""Transfers beside a real PBX: by the phone's REFER, and by the PBX itself over AMI."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import pytest

from tests.pbx.asterisk import PHONE_3
from tests.pbx.floor import AGENT_HZ, CALLER_HZ, COLLEAGUE_HZ, HOLD_HZ, floor, hears, until_hears
from tests.peers.sip_ua import running_ua

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
        hears(all_.colleague, CALLER_HZ)
        await all_.hang_up()
        rows = await all_.pbx.until_cdr(2)
        assert any(r.destination_channel.startswith("PJSIP/1002-") for r in rows), rows


async def test_blind_transfer_to_nobody_leaves_the_agent_with_the_caller(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The control: the PBX knows no such extension."""
    async with floor(tmp_path, asterisk_root) as all_:
        await all_.connect()
        await until_hears(all_.caller, AGENT_HZ)
        await all_.agent.command("transfer", all_.pbx.uri("1999"))
        await all_.agent.wait("TRANSFER_FAILED")
        await until_hears(all_.caller, AGENT_HZ)
        hears(all_.agent, CALLER_HZ)
        assert not all_.events.seen("call.ended")
        await all_.hang_up()


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
        hears(all_.colleague, CALLER_HZ)
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
        hears(all_.colleague, CALLER_HZ)
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
        hears(all_.colleague, CALLER_HZ)
        await all_.hang_up()


async def test_attended_transfer_by_ami(tmp_path: Path, asterisk_root: Path) -> None:
    """The agent consults a colleague through the PBX, while the caller hears its hold music."""
    async with floor(tmp_path, asterisk_root, capture=True) as all_:
        await all_.connect()
        await all_.events.wait("tap.started")
        await all_.ami.action(
            "Atxfer",
            Channel=await all_.channel("callshield"),
            Context="from-internal",
            Exten="1002",
        )
        await until_hears(all_.caller, HOLD_HZ)
        await until_hears(all_.agent, COLLEAGUE_HZ)
        hears(all_.colleague, AGENT_HZ)
        await all_.agent.command("hangup")
        await until_hears(all_.caller, COLLEAGUE_HZ)
        hears(all_.colleague, CALLER_HZ)
        await all_.events.wait("call.ended")
        await all_.hang_up()
