"""Own ear and voice through a whole node: a telephone speaks, its agent's console is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets

from tests.peers.baresip import running_baresip
from tests.peers.node import Node, running_node
from tests.peers.sound import RATE, write_wav
from tests.speech_kit import sentences

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

CALLER, PHONE = "127.0.3.74", "127.0.3.75"
SIDES = ("127.0.3.72", "127.0.3.73")
#: Loud enough that a few seconds of speech are a day's dose: a headset that nobody would sell.
EXTRA = """
[ear]
levelling = false
calibration_db_spl_at_0dbfs = 160.0
[hearing]
dose_warnings_pct = [80.0]
voice_hint_after_s = 6
voice_pause_s = 15
[notice]
prompts = ["recording"]
"""


@asynccontextmanager
async def console(node: Node, who: str) -> AsyncIterator[list[dict[str, Any]]]:
    """All that a console is told, also what has no number."""
    got: list[dict[str, Any]] = []
    url = f"ws://127.0.0.1:{node.web_port}/api/v1/events"
    async with websockets.connect(url, proxy=None) as connection:
        await connection.send(json.dumps({"token": node.tokens[who]}))

        async def read() -> None:
            async for message in connection:
                got.append(json.loads(message))

        reader = asyncio.create_task(read())
        try:
            yield got
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def until(got: list[dict[str, Any]], kind: str, **fields: Any) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            for message in got:
                if message["type"] == kind and all(message[k] == v for k, v in fields.items()):
                    return message
            await asyncio.sleep(0.05)


async def test_a_talking_agent_is_hinted_to_rest_and_warned_of_a_dose_and_nobody_else_is(
    tmp_path: Path,
) -> None:
    once = np.concatenate([sentences()["calm_04m"].samples / 32768, np.zeros(RATE // 2)])
    speech = write_wav(tmp_path / "speech.wav", np.tile(once, 60))
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", speech) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01012345678", speech) as caller,
        running_node(
            tmp_path / "node", {"1001": agent.uri}, peer=CALLER, sides=SIDES, extra=EXTRA
        ) as node,
        console(node, "1001") as own,
        console(node, "supervisor") as watching,
    ):
        await caller.command("dial", node.uri("1001"))
        await until(own, "tap.started")
        hint = await until(own, "voice.talk", rest=True)
        assert "id" not in hint
        assert 6.0 <= hint["talked_s"] <= 12.0
        await agent.command("mute")
        paused = await until(own, "voice.talk", talked_s=0.0)
        assert not paused["rest"]
        assert paused["ts"] - hint["ts"] >= 15.0
        await caller.command("hangup")
        await until(own, "call.ended")
        dose = await until(own, "ear.dose", last_of_call=True)
        warning = await until(own, "ear.warning")
        assert dose["id"] > 0
        assert warning["threshold_pct"] == 80.0
        assert warning["dose_pct"] >= 80.0
        await until(watching, "call.ended")
        assert not {"ear.dose", "ear.warning", "voice.talk"} & {m["type"] for m in watching}
    for path in (tmp_path / "node").rglob("*"):
        if path.is_file():
            assert b"voice.talk" not in path.read_bytes(), path
