"""A call that is recorded while the bridge dies: the recording has every second of it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.faults.figures import measured
from tests.peers.conversation import AGENT_HZ, scene
from tests.test_peers_recording import TALK_HZ, command, export, gaps, loud, recording_toml, runs

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE = "127.0.4.34", "127.0.4.35"
SIDES = ("127.0.4.32", "127.0.4.33")


async def test_recording_goes_on_and_is_closed_whole(tmp_path: Path) -> None:
    toml = recording_toml(tmp_path, tmp_path / "recordings")
    async with scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=toml) as talk:
        call = await talk.dial()
        talk.talker.hertz, talk.talker.talking = TALK_HZ, True
        began = await call.wait("recording.changed", state="recording")
        await asyncio.sleep(2)  # what is recorded
        talk.node.kill("bridge")
        await talk.node.wait_for_log("bridge_ready", count=2)
        await asyncio.sleep(2)  # what is recorded, too
        hung_up = time.time()
        assert (await call.dialog.ask("BYE")).status == 200
        ended = await call.wait("call.ended")
        await call.wait("recording.changed", state="stopped")
        await talk.agent.wait("CALL_CLOSED")
        talk.talker.talking = False
        heard_by_agent = talk.agent.heard()
        samples, about = await export(talk.node, call.call_id)
        listed = await asyncio.to_thread(command, talk.node.config, "list", "--json")

    assert ended["reason"] == "caller_hangup"
    spoken_s = hung_up - began["ts"]
    left, right = loud(samples[:, 0], TALK_HZ), loud(samples[:, 1], AGENT_HZ)
    measured("recording over a killed bridge", spoken_s=round(spoken_s, 1), gaps=len(gaps(left)))
    # One stretch of each side, without a hole, from the beginning to the end.
    for talks in (left, right):
        assert runs(talks) == pytest.approx([spoken_s], abs=0.4)
    # The agent heard all of it, too.
    assert gaps(loud(heard_by_agent, TALK_HZ)) == []
    assert np.nonzero(loud(heard_by_agent, TALK_HZ))[0].size >= 10 * spoken_s - 5
    (part,) = about["parts"]
    assert part["complete"]
    (row,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert row["state"] == "complete"
