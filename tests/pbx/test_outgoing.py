"""An agent's phone dials outside: Asterisk → Callshield → Asterisk's trunk to the provider."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.heard import find, read_growing_wav
from tests.pbx.asterisk import ADDRESS
from tests.pbx.floor import AGENT_HZ, CALLER_HZ, NUMBER, floor, until_hears

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]

PEER = 'outgoing = true\ntrunk = "pstn"\n'
OUTGOING = f"""
[outbound]
patterns = ["010[0-9]{{8}}"]
[trunks.pstn]
host = "{ADDRESS}"
port = @PBX_PORT@
"""
#: The operator lets the agents' calls out.
OPEN = {";include => from-callshield-trunk": "include => from-callshield-trunk"}
#: Matches the dialplan's pattern and none of Callshield's.
FORBIDDEN = "0609123456"


async def test_outgoing_call_is_protected_and_the_called_party_hears_the_notice(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with floor(
        tmp_path, asterisk_root, extra=OUTGOING, peer_options=PEER, replace=OPEN
    ) as all_:
        await all_.dial(NUMBER, who=all_.agent)
        started = await all_.events.wait("call.started")
        assert started["direction"] == "outbound"
        assert started["agent_id"] == "1001"
        await all_.events.wait("notice.finished")
        await all_.events.wait("tap.started")
        await until_hears(all_.caller, AGENT_HZ)
        await until_hears(all_.agent, CALLER_HZ)
        await all_.caller.command("hangup")
        await all_.events.wait("call.ended")
        await all_.agent.wait("CALL_CLOSED")
        await all_.no_channels()
        rows = await all_.pbx.until_cdr(2)
        notice = find(all_.prompts.samples("recording"), read_growing_wav(all_.caller.recording()))
    assert notice is not None
    assert notice.whole
    # Two calls for Asterisk: phone → Callshield, and Callshield → provider.
    ends = {(r.channel.split("-")[0], r.destination_channel.split("-")[0]) for r in rows}
    assert ends == {("PJSIP/1001", "PJSIP/callshield"), ("PJSIP/callshield", "PJSIP/pstn")}
    assert {r.disposition for r in rows} == {"ANSWERED"}


async def test_forbidden_number_is_not_dialled_behind_callshields_back(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with floor(tmp_path, asterisk_root, extra=OUTGOING, peer_options=PEER) as all_:
        assert all_.node is not None
        await all_.dial(FORBIDDEN, who=all_.agent)
        await all_.agent.wait("CALL_CLOSED")
        (refused,) = all_.node.logs("invite_refused")
        assert (refused["status"], refused["reason"]) == (403, "number_not_allowed")
        await all_.no_channels()
        rows = await all_.pbx.until_cdr(1)
        assert not [r for r in rows if r.destination_channel.startswith("PJSIP/pstn-")]


async def test_who_keeps_callshield_busy_dials_nothing_behind_its_back(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """503 is no way round the rules: a phone that floods could dial anything by it."""
    # Once, and not again while this test lasts, however slow the machine is.
    sip = "requests_per_s = 0.01\nrequest_burst = 1\n"
    async with floor(
        tmp_path, asterisk_root, extra=OUTGOING, peer_options=PEER, replace=OPEN, sip=sip
    ) as all_:
        assert all_.node is not None
        for number in (1, 2):
            await all_.dial(FORBIDDEN, who=all_.agent)
            await all_.agent.wait("CALL_CLOSED", count=number)
        assert len(all_.node.logs("invite_refused")) == 1  # the other was not even looked at
        await all_.no_channels()
        rows = await all_.pbx.until_cdr(2)
        assert not [r for r in rows if r.destination_channel.startswith("PJSIP/pstn-")]
        assert not all_.caller.of_calls


@pytest.mark.parametrize("opened", [False, True])
async def test_the_trunk_is_open_to_us_only_where_the_operator_opens_it(
    tmp_path: Path, asterisk_root: Path, *, opened: bool
) -> None:
    """Else a number that we call for an agent's transfer would reach the provider."""
    async with floor(
        tmp_path, asterisk_root, callshield=False, replace=OPEN if opened else None
    ) as all_:
        shown = await all_.pbx.cli(f"dialplan show {FORBIDDEN}@from-callshield", check=False)
        assert ("pstn" in shown) is opened


async def test_with_callshield_down_the_call_leaves_directly(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with floor(tmp_path, asterisk_root, callshield=False) as all_:
        await all_.pbx.until_cli("pjsip show aor callshield", "Unavail")
        await all_.dial(NUMBER, who=all_.agent)
        await all_.caller.wait("CALL_ESTABLISHED")
        await until_hears(all_.caller, AGENT_HZ)
        await until_hears(all_.agent, CALLER_HZ)
        await all_.hang_up()


async def test_a_peer_that_may_not_place_calls_places_none(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The control: without `outgoing = true` the same dialplan is refused."""
    extra = OUTGOING
    async with floor(tmp_path, asterisk_root, extra=extra) as all_:
        assert all_.node is not None
        await all_.dial(NUMBER, who=all_.agent)
        await all_.agent.wait("CALL_CLOSED")
        (refused,) = all_.node.logs("invite_refused")
        assert (refused["status"], refused["reason"]) == (403, "outgoing_not_allowed")
        await asyncio.sleep(0.5)  # a fallback would have dialled by now
        assert not all_.caller.of_calls
        await all_.no_channels()
