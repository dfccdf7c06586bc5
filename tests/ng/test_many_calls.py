"""Many calls through one rtpengine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.ng.kit import (
    ATTESTED,
    CALLER,
    PHONE,
    running_engine_node,
)
from tests.peers.sipp import running_sipp
from tests.test_peers_call import alaw_tone

pytestmark = [pytest.mark.ng, pytest.mark.peers, pytest.mark.timeout(180)]


async def test_twenty_calls_at_once(tmp_path: Path) -> None:
    async with (
        running_sipp(tmp_path / "phone", PHONE, "uas_echo", calls=20, echo=True) as phone,
        running_engine_node(
            tmp_path / "node",
            {"1001": phone.uri},
            peer=CALLER,
            peer_options="attests_notice = true",
            calls=30,
        ) as (node, engine),
        running_sipp(
            tmp_path / "pbx",
            CALLER,
            "uac_talk",
            values={
                "headers": ATTESTED,
                "audio": str(alaw_tone(tmp_path)),
                "talk_ms": "8000",
            },
            target=f"127.0.0.2:{node.pbx_port}",
            calls=20,
        ) as pbx,
    ):
        async with asyncio.timeout(60):
            # All at the same time; rtpengine tells nobody, it has to be asked.
            while len((await engine.client.ask("list"))["calls"]) < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await pbx.finish() == 0, pbx.messages()[-3000:]
        closed = await node.wait_for_log("media_closed", count=20)
        assert (await engine.client.ask("list"))["calls"] == []
    for one in closed:
        assert one["caller_received"] > 300
        # The phone sends back what it hears: all of it came there, and back.
        assert one["agent_received"] > 0.95 * one["caller_received"]
        assert one["tapped"] > 0.9 * one["caller_received"]
        assert one["tap_dropped"] == 0
