"""Callshield is down, or goes down: the PBX rings the agents all the same."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.faults.figures import measured
from tests.pbx.floor import AGENT_HZ, CALLER_HZ, NUMBER, Topology, floor, until_hears

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
        assert all_.agent.of_calls  # what the next test looks for
        await until_hears(all_.caller, AGENT_HZ)
        await until_hears(all_.agent, CALLER_HZ)
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
        assert not all_.agent.of_calls


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


#: A probe is sent again until the next bridge answers it: this Asterisk keeps on calling us.
PATIENT = {"qualify_timeout=1": "qualify_timeout=10"}


@pytest.mark.parametrize("topology", ["direct", "through"])
async def test_the_bridge_dies_in_a_call_and_who_hangs_up_is_heard(
    tmp_path: Path, asterisk_root: Path, topology: Topology
) -> None:
    """The audio goes on, and Asterisk's BYE and the phone's find the dialogs that were kept."""
    async with floor(tmp_path, asterisk_root, topology, replace=PATIENT) as all_:
        assert all_.node is not None
        for turn, hangs_up in enumerate((all_.caller, all_.agent), start=1):
            await all_.connect()
            before = len(all_.node.logs("bridge_ready"))
            all_.node.kill("bridge")
            await all_.node.wait_for_log("bridge_ready", count=before + 1)
            await until_hears(all_.caller, AGENT_HZ)
            await until_hears(all_.agent, CALLER_HZ)
            await hangs_up.command("hangup")
            await all_.caller.wait("CALL_CLOSED", count=turn)
            await all_.agent.wait("CALL_CLOSED", count=turn)
            ended = await all_.events.wait("call.ended", count=turn)
            who = "caller" if hangs_up is all_.caller else "agent"
            assert ended["reason"] == f"{who}_hangup"
            await all_.no_channels()


async def test_the_pbx_is_killed_in_a_call_and_the_agent_is_free_in_seconds(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """Asterisk comes back and knows of no call; without being asked it would never say so."""
    async with floor(tmp_path, asterisk_root) as all_:
        await all_.connect()
        killed = time.monotonic()
        await all_.pbx.kill()
        await all_.pbx.start()
        booted = time.monotonic() - killed
        await all_.agent.wait("CALL_CLOSED")
        ended = await all_.events.wait("call.ended")
        took_s = time.monotonic() - killed
        assert ended["reason"] == "caller_hangup"
        measured("Asterisk killed", booted_s=round(booted, 1), agent_free_s=round(took_s, 1))
        # 10 s of silence, or its first answer after that.
        assert took_s < max(booted + 3, 10) + 6


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
