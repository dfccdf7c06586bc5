"""The media worker as the process that it is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from callshield.messages_media import MediaStats, SessionOpened
from callshield.settings import Settings
from tests.rtp_peer import (
    WAIT_S,
    Bridge,
    Call,
    Detector,
    decoded,
    node_values,
    payloads,
    strength,
    tone,
)


def write_config(folder: Path) -> tuple[Path, Settings]:
    """A TOML file and what it says."""
    values = node_values(folder)
    node, sip = values["node"], values["sip"]
    lines = ["[node]", *(f'{key} = "{value}"' for key, value in node.items())]
    for side in ("pbx", "phone"):
        first, last = sip[side]["rtp_ports"]
        lines += [
            f"[sip.{side}]",
            f'bind = "{sip[side]["bind"]}"',
            f"rtp_ports = [{first}, {last}]",
        ]
    config = folder / "callshield.toml"
    config.write_text("\n".join(lines) + "\n")
    return config, Settings(**values)


async def start(config: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sipbridge.media_worker",
        "--config",
        str(config),
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Settings]]:
    config, settings = write_config(tmp_path)
    process = await start(config)
    yield process, settings
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_tones_both_ways_through_the_process_and_the_caller_on_the_tap(
    node: tuple[asyncio.subprocess.Process, Settings],
) -> None:
    process, settings = node
    detector = Detector(settings.tap_path)
    bridge = Bridge(settings)
    call = await Call.set_up(bridge)
    await call.flow(tap=True)
    for from_caller, from_agent in zip(
        payloads(tone(440, 1.0)), payloads(tone(1000, 1.0)), strict=True
    ):
        call.caller.say(from_caller)
        call.agent.say(from_agent)
        await asyncio.sleep(0.002)
    assert strength(decoded(await call.agent.hear(50)), 440) > 0.95
    assert strength(decoded(await call.caller.hear(50)), 1000) > 0.95
    frames = await detector.until(lambda frames: len(frames) == 50)
    # Fifty packets in a tenth of a second are a few batches, not fifty datagrams.
    assert detector.batches < 50
    assert b"".join(frame.payload for frame in frames) == b"".join(payloads(tone(440, 1.0)))
    # kill -9 of the bridge costs no packet.
    await bridge.close()
    heard = len(call.agent.heard)
    for frame in payloads(tone(440, 0.2)):
        call.caller.say(frame)
    await call.agent.hear(heard + 10)
    again = Bridge(settings)
    known = await again.expect(SessionOpened, request_id=0)
    assert known.call_id == call.call_id
    stats = await again.expect(MediaStats)
    assert stats.sessions == 1
    assert stats.packets == 110
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(WAIT_S):
        await process.wait()
    assert process.returncode == 0
    await again.close()
    detector.close()
    call.hang_up()


async def test_a_worker_that_stood_still_goes_on(
    node: tuple[asyncio.subprocess.Process, Settings],
) -> None:
    process, settings = node
    bridge = Bridge(settings)
    call = await Call.set_up(bridge)
    await call.flow()
    call.caller.say(b"\x11" * 160)
    await call.agent.hear(1)
    os.kill(process.pid, signal.SIGSTOP)
    for _ in range(20):
        call.caller.say(b"\x12" * 160)
    await asyncio.sleep(0.2)
    os.kill(process.pid, signal.SIGCONT)
    heard = await call.agent.hear(21)
    steps = [(after.sequence - before.sequence) & 0xFFFF for before, after in pairwise(heard)]
    assert steps == [1] * 20
    await bridge.close()
    call.hang_up()


async def test_a_wrong_configuration_ends_it_with_a_line(tmp_path: Path) -> None:
    config = tmp_path / "callshield.toml"
    config.write_text("[sip.pbx]\nrtp_ports = [20000]\n")
    process = await start(config)
    _, said = await process.communicate()
    assert process.returncode == 2  # serve then stops the node and says why
    assert b"sip.pbx.rtp_ports" in said
    assert b"Traceback" not in said
