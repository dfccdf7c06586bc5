"""The agent's ear against a shouting caller: what a real telephone was given to hear."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import callshield.demo_audio
from callshield.heard import read_wav
from tests.peers.baresip import running_baresip
from tests.peers.node import running_node
from tests.peers.prompts import Prompts
from tests.peers.sound import RATE, write_tone, write_wav
from tests.peers.tap_copy import copying_tap
from tests.test_peers_recording import export, recording_toml

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE = "127.0.3.34", "127.0.3.35"
SIDES = ("127.0.3.32", "127.0.3.33")
#: Highest sample that the agent may hear (``ear.limit_peak_dbfs``), and what A-law adds to it.
CEILING = 10 ** (-6 / 20)
A_LAW_STEP = 1.04
PEAK = 0.9
PAUSE_S = 0.4


def shouting() -> NDArray[np.float64]:
    """One shouted sentence, its peaks at 0.9 of full scale, and a pause."""
    clip = read_wav(Path(callshield.demo_audio.__file__).parent / "shout_1.wav").astype(np.float64)
    clip = np.clip(clip / np.max(np.abs(clip)) * 2 * PEAK, -PEAK, PEAK)
    return np.concatenate([clip, np.zeros(int(PAUSE_S * RATE))])


def level_db(samples: NDArray[np.float32]) -> float:
    """Loudness of the louder half of a stretch, dB relative to full scale."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    power = np.sort(np.mean(frames.astype(np.float64) ** 2, axis=1))
    return float(10 * np.log10(np.mean(power[len(power) // 2 :]) + 1e-12))


async def test_shouting_is_limited_then_softened_and_kept_as_it_was(tmp_path: Path) -> None:
    """The risk level comes from the node's own detector; the agent switches softening off by key.

    That stretch is the control of softening, the recording and the tap that of the limiter.
    """
    prompts = Prompts(tmp_path / "prompts")
    sentence = shouting()
    voice = write_wav(tmp_path / "caller.wav", np.tile(sentence, 12))
    tone = write_tone(tmp_path / "agent.wav", 425, 60, 0.05)
    toml = recording_toml(tmp_path, tmp_path / "recordings")
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", tone) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", voice) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            sides=SIDES,
            extra=prompts.toml + toml,
        ) as node,
        copying_tap(node.settings.tap_path) as tap,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        await agent.wait("CALL_ESTABLISHED")
        began = time.time()
        started = await console.wait("call.started")
        opened = await console.wait("tap.started")
        risk = await console.wait("risk.changed", lambda event: event["level"] >= 2)
        softened = await console.wait("ear.changed")
        assert (softened["softening"], softened["levelling"]) == (True, False)
        await asyncio.sleep(5)  # softened shouting
        await agent.press("*5#")
        plain = await console.wait("ear.changed", count=2)
        assert plain["softening"] is False
        # At once: not when the caller has shouted for as long as what follows.
        assert 0 <= softened["ts"] - risk["ts"] < (plain["ts"] - softened["ts"]) / 8
        await asyncio.sleep(5)  # shouting that is only limited
        ended_at = time.time()
        await caller.command("hangup")
        await console.wait("call.ended")
        await console.wait("recording.changed", lambda event: event["state"] == "stopped")
        heard = agent.heard()
        recorded, _ = await export(node, started["call_id"])
        _, tapped = tap.sound(started["call_id"])

    # The one ceiling, whatever else is on.
    assert 0.8 * CEILING < float(np.max(np.abs(heard))) <= CEILING * A_LAW_STEP
    for original in (recorded[:, 0], tapped):
        assert 0.85 < float(np.max(np.abs(original))) < 1.0
        assert level_db(original) > level_db(heard) + 5

    def between(first: float, last: float) -> NDArray[np.float32]:
        """What the agent heard from one time of day to another, counted from the end."""
        return heard[int((first - ended_at) * RATE) : int((last - ended_at) * RATE)]

    before = level_db(between(max(began, opened["ts"]) + 0.5, softened["ts"]))
    soft = level_db(between(softened["ts"] + 1.0, plain["ts"] - 0.3))
    after = level_db(between(plain["ts"] + 1.0, ended_at - 0.3))
    assert soft < before - 3, (before, soft, after)
    assert soft < after - 3, (before, soft, after)
    assert abs(before - after) < 2, (before, soft, after)
