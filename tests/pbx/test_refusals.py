"""The agent's phone refuses, or Callshield does: who rings then, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pbx.asterisk import PHONE_3
from tests.pbx.floor import BOTH, Topology, floor
from tests.peers.sip_ua import Ua, running_ua

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]

AOR = "max_contacts=1\n[1003]\n"
#: What the dialplan asks before it rings a phone without Callshield.
DECLINED = ' same => n,GotoIf($["${SAID:4:3}" = "603"]?over)\n'
URIS = {"direct": "{phone}", "through": "sip:phone-1003@@PBX@"}


def at_the_pbx(phone: Ua) -> dict[str, str]:
    """The same phone is 1003's at Asterisk."""
    return {AOR: f"contact={phone.uri}\n{AOR}"}


@pytest.mark.parametrize("status", [603, 486, 480])
@pytest.mark.parametrize("topology", BOTH)
async def test_an_agent_who_declines_is_rung_once(
    tmp_path: Path, asterisk_root: Path, topology: Topology, status: int
) -> None:
    async with (
        running_ua(PHONE_3, "1003") as phone,
        floor(
            tmp_path,
            asterisk_root,
            more_agents={"1003": URIS[topology].format(phone=phone.uri)},
            replace=at_the_pbx(phone),
        ) as all_,
    ):
        assert all_.node is not None
        await all_.dial("605")
        phone.reply(await phone.request("INVITE"), status)
        await all_.caller.wait("CALL_CLOSED")
        await all_.no_channels()
        assert phone.waiting("INVITE") == []
        assert len(await all_.node.wait_for_log("call_ended")) == 1


async def test_without_the_question_a_declined_call_rings_again(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The control: Asterisk takes 603 for a trunk that is away."""
    async with (
        running_ua(PHONE_3, "1003") as phone,
        floor(
            tmp_path,
            asterisk_root,
            more_agents={"1003": phone.uri},
            replace={**at_the_pbx(phone), DECLINED: ""},
        ) as all_,
    ):
        await all_.dial("605")
        phone.reply(await phone.request("INVITE"), 603)
        phone.reply(await phone.request("INVITE"), 603)
        await all_.caller.wait("CALL_CLOSED")
        await all_.no_channels()


async def test_an_agent_unknown_to_callshield_is_rung_and_asterisk_warns(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with (
        running_ua(PHONE_3, "1003") as phone,
        floor(tmp_path, asterisk_root, replace=at_the_pbx(phone)) as all_,
    ):
        assert all_.node is not None
        await all_.dial("605")
        phone.reply(await phone.request("INVITE"), 486)
        await all_.caller.wait("CALL_CLOSED")
        await all_.no_channels()
        (refused,) = all_.node.logs("invite_refused")
        assert refused["reason"] == "unknown_agent"
        assert "Callshield refuses agent 1003 (SIP 404" in all_.pbx.log()
