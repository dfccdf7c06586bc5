"""Callshield is down, or goes down: the PBX rings the agents all the same."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.pbx.floor import AGENT_HZ, CALLER_HZ, NUMBER, floor, hears, until_hears

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]

FALLBACK = """ same => n,GotoIf($["${DIALSTATUS}" = "CHANUNAVAIL"]?phone)
 same => n,GotoIf($["${DIALSTATUS}" = "CONGESTION"]?phone)
"""


async def test_callshield_is_down_and_the_phone_rings_directly(
    tmp_path: Path, asterisk_root: Path
) -> None:
    async with floor(tmp_path, asterisk_root, callshield=False) as all_:
        await all_.pbx.until_cli("pjsip show aor callshield", "Unavail")
        before = time.monotonic()
        await all_.dial("600")
        await all_.agent.wait("CALL_ESTABLISHED")
        assert time.monotonic() - before < 5
        await until_hears(all_.caller, AGENT_HZ)
        hears(all_.agent, CALLER_HZ)
        incoming = await all_.agent.wait("CALL_ESTABLISHED")
        assert NUMBER in incoming["peeruri"]  # the phone shows the caller's number
        await all_.hang_up()
        channels = {row.destination_channel for row in await all_.pbx.until_cdr(1)}
        assert any(c.startswith("PJSIP/1001-") for c in channels), channels


async def test_without_the_fallback_nobody_is_rung(tmp_path: Path, asterisk_root: Path) -> None:
    """The control: those two lines of the dialplan are what does it."""
    async with floor(tmp_path, asterisk_root, callshield=False, replace={FALLBACK: ""}) as all_:
        await all_.pbx.until_cli("pjsip show aor callshield", "Unavail")
        await all_.dial("603")
        await all_.caller.wait("CALL_CLOSED")
        assert not all_.agent.events


async def test_callshield_stops_and_starts_while_the_pbx_runs(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """A queue's agent is reached before, meanwhile and afterwards; only meanwhile unprotected."""
    async with floor(tmp_path, asterisk_root) as all_:
        assert all_.node is not None
        await all_.connect()
        await all_.hang_up()
        await all_.node.stop()
        await all_.pbx.until_cli("pjsip show aor callshield", "Unavail")
        await all_.dial("600")
        await all_.caller.wait("CALL_ESTABLISHED", count=2)
        await all_.agent.wait("CALL_ESTABLISHED", count=2)
        await until_hears(all_.caller, AGENT_HZ)
        await all_.caller.command("hangup")
        await all_.no_channels()
        await all_.node.start()
        await all_.pbx.until_cli("pjsip show aor callshield", "Avail")
        async with all_.node.watch("1001") as console:
            await all_.dial("600")
            await console.wait("notice.finished")
            await all_.caller.command("hangup")
            await console.wait("call.ended")


#: Callshield reached over TCP: a dead process refuses the connection.
TCP = {"contact=sip:192.0.2.10:5060": "contact=sip:192.0.2.10:5060\\;transport=tcp"}


@pytest.mark.parametrize(("replace", "within_s"), [({}, 25), (TCP, 5)], ids=["udp", "tcp"])
async def test_all_of_it_dies_and_the_next_call_is_not_lost(
    tmp_path: Path, asterisk_root: Path, replace: dict[str, str], within_s: float
) -> None:
    """Before Asterisk has noticed. Over UDP nobody answers, and the queue tries again."""
    async with floor(tmp_path, asterisk_root, replace=replace) as all_:
        assert all_.node is not None
        await all_.connect()
        await all_.hang_up()
        all_.node.signal(signal.SIGKILL)
        all_.node.kill("bridge")
        before = time.monotonic()
        await all_.dial("600")
        await all_.agent.wait("CALL_ESTABLISHED", count=2)
        assert time.monotonic() - before < within_s
        await until_hears(all_.caller, AGENT_HZ)
        await all_.caller.command("hangup")
        await all_.no_channels()


async def test_the_bridge_dies_and_the_next_call_is_protected(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """It is started again within the time in which Asterisk sends its INVITE again."""
    async with floor(tmp_path, asterisk_root) as all_:
        assert all_.node is not None
        all_.node.kill("bridge")
        await all_.dial("600")
        await all_.events.wait("notice.finished")
        await until_hears(all_.caller, AGENT_HZ)
        await all_.hang_up()


async def test_an_agent_behind_the_pbx_is_free_again_after_callshield_died_in_the_call(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """While the other leg of the dead call still stands, and DEVICE_STATE says "in use" of us."""
    async with floor(tmp_path, asterisk_root, "through") as all_:
        assert all_.node is not None
        await all_.connect()
        device = "DEVICE_STATE(Custom:agent1001)"
        await all_.ami.action("Setvar", Variable=device, Value="INUSE")  # as our AMI client does
        all_.node.signal(signal.SIGKILL)
        for part in ("bridge", "media"):
            all_.node.kill(part)
        await all_.pbx.until_cli("pjsip show aor callshield", "Unavail")
        await all_.caller.command("hangup")
        await all_.caller.wait("CALL_CLOSED")
        await all_.pbx.until_cli("devstate list", "State: 'NOT_INUSE'")
        await all_.agent.command("hangup")
        await all_.no_channels()
