"""Calls of the queue through Callshield to an agent's phone, in both topologies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.heard import find, read_growing_wav
from tests.pbx.asterisk import CALLSHIELD
from tests.pbx.floor import AGENT_HZ, BOTH, CALLER_HZ, Topology, floor, until_hears

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]


@pytest.mark.parametrize("topology", BOTH)
async def test_queue_call_reaches_the_agent_through_callshield(
    tmp_path: Path, asterisk_root: Path, topology: Topology
) -> None:
    """Judged by the phones' recordings, tshark, Asterisk's CDR and its channels' figures."""
    async with floor(tmp_path, asterisk_root, topology, capture=True) as all_:
        started = await all_.connect()
        await all_.events.wait("tap.started")
        await until_hears(all_.caller, AGENT_HZ)
        await until_hears(all_.agent, CALLER_HZ)
        stats = {s.channel.split("-")[0]: s for s in await all_.pbx.channel_stats()}
        asterisk_channel = await all_.channel("pstn")
        await asyncio.sleep(1)
        await all_.hang_up()
        ended = await all_.events.wait("call.ended")
        cdr = await all_.pbx.until_cdr(1)
        assert all_.capture is not None
        assert all_.node is not None
        settings = all_.node.settings.sip
        ports = [
            port
            for side in (settings.pbx, settings.phone)
            for port in range(side.rtp_ports[0], side.rtp_ports[1] + 1, 2)
        ]
        streams = await all_.capture.streams(*ports)

    assert ended["reason"] == "caller_hangup"
    # The dialplan's headers: Callshield's events carry Asterisk's own id of the call.
    assert started["pbx_call_id"] in {row.unique_id for row in cdr}
    assert asterisk_channel in {row.channel for row in cdr}
    assert any(row.disposition == "ANSWERED" and row.answered_s >= 1 for row in cdr), cdr
    # Callshield is in the middle: four streams at its address, none of them disturbed.
    to_us = {s.source for s in streams if s.destination[0] == CALLSHIELD}
    from_us = {s.source for s in streams if s.source[0] == CALLSHIELD}
    assert len(to_us) == 2, streams
    assert len(from_us) == 2, streams
    assert all(s.lost == 0 and not s.problems for s in streams if s.source[0] == CALLSHIELD)
    assert stats["callshield"].received > 50
    assert stats["callshield"].received_lost == 0
    assert stats["pstn"].received > 50
    notice = find(all_.prompts.samples("recording"), read_growing_wav(all_.caller.recording()))
    assert notice is not None
    assert notice.whole


async def test_agent_who_did_not_answer_is_called_again(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """app_queue forgets a member whose state interface never changes; the shipped one does."""
    async with floor(
        tmp_path, asterisk_root, auto_answer=False, replace={"timeout=20": "timeout=2"}
    ) as all_:
        await all_.dial("600")
        await all_.agent.wait("CALL_INCOMING", count=3, timeout_s=60)
        await all_.agent.command("accept")
        await all_.events.wait("notice.finished")
        await until_hears(all_.caller, AGENT_HZ)
        await all_.hang_up()


async def test_with_a_state_interface_that_nobody_sets_it_is_not(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The control, and why queues_callshield.conf warns of it."""
    replace = {"timeout=20": "timeout=2", "hint:1001@callshield-hints": "Custom:agent1001"}
    async with floor(tmp_path, asterisk_root, auto_answer=False, replace=replace) as all_:
        await all_.dial("600")
        await all_.agent.wait("CALL_CLOSED")
        await asyncio.sleep(6)  # three tries' time
        assert len([e for e in all_.agent.events if e["type"] == "CALL_INCOMING"]) == 1
