"""Recordings of real calls, as ``callshield recordings export`` gives them back."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.heard import find
from tests.peers.conversation import AGENT_HZ, Scene, scene
from tests.peers.node import Node
from tests.peers.sound import RATE, blocks, purity, tone_db

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE = "127.0.3.24", "127.0.3.25"
SIDES = ("127.0.3.22", "127.0.3.23")
#: What the caller says in talk, and in each stretch that must not be recorded.
TALK_HZ, BEFORE_HZ, PAUSED_HZ, HELD_HZ, AFTER_HZ = 1000.0, 700.0, 2300.0, 1900.0, 2800.0
SECRET = (BEFORE_HZ, PAUSED_HZ, HELD_HZ, AFTER_HZ)


WHY = ("--complaint", "T-1", "--reason", "the test listens to its own tones")


def command(config: Path, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """``callshield recordings ...`` as a person runs it."""
    arguments = [sys.executable, "-m", "callshield.cli", "recordings", *words]
    return subprocess.run(
        [*arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "CALLSHIELD_TOKEN": token},
    )


def recording_toml(folder: Path, directory: Path, more: str = "") -> str:
    """A configuration that records, its key made by the command."""
    toml = (
        f'[recording]\nenabled = true\ndirectory = "{directory}"\n'
        f'key_file = "{folder / "recording.keys"}"\n{more}'
    )
    (folder / "key.toml").write_text(toml, encoding="utf-8")
    made = command(folder / "key.toml", "new-key")
    assert made.returncode == 0, made.stderr
    # Neither the ear nor levelling touches what is recorded; off, the phone hears tones as said.
    return toml + "[ear]\nlevelling = false\n"


async def export(node: Node, call_id: str) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Both channels of a call, shape ``(n, 2)``, full scale ±1; and what is said about them."""
    out = node.folder / f"{call_id}.wav"
    words = ("export", call_id, "--out", str(out), *WHY)
    done = await asyncio.to_thread(command, node.config, *words, token=node.tokens["supervisor"])
    assert done.returncode == 0, done.stderr
    with wave.open(str(out), "rb") as audio:
        assert (audio.getnchannels(), audio.getframerate()) == (2, RATE)
        data = audio.readframes(audio.getnframes())
    samples = np.frombuffer(data, "<i2").reshape(-1, 2) / 32768
    about = json.loads(out.with_name(out.name + ".json").read_text(encoding="utf-8"))
    return np.asarray(samples, dtype=np.float32), about


def loud(samples: NDArray[np.float32], hertz: float, level_db: float = -50) -> NDArray[np.bool_]:
    """Of each tenth of a second: does it hold this tone?"""
    return np.array([tone_db(block, hertz) > level_db for block in blocks(samples, 0.1)])


async def say(of: Scene, hertz: float, seconds: float) -> None:
    """The caller says one tone for a while."""
    of.talker.hertz, of.talker.talking = hertz, True
    await asyncio.sleep(seconds)  # the length of what is said


async def test_a_recording_holds_what_was_heard_and_nothing_else(tmp_path: Path) -> None:
    """Notice, talk, card data, talk, hold, talk, a warning, talk, the end by code."""
    toml = recording_toml(tmp_path, tmp_path / "recordings")
    async with scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=toml) as talk:
        call = await talk.dial()
        talk.talker.hertz, talk.talker.talking = BEFORE_HZ, True
        await call.wait("notice.started")
        await asyncio.sleep(1.3)  # more than half of the notice: the gate is not open yet
        talk.talker.hertz = TALK_HZ
        said_before = time.time()
        await call.wait("notice.finished")
        await say(talk, TALK_HZ, 1.5)
        await talk.agent.press("*7#")
        paused = await call.wait("recording.changed", state="paused")
        await say(talk, PAUSED_HZ, 1.2)
        live = ("export", call.call_id, "--out", str(tmp_path / "live.wav"), *WHY)
        running = await asyncio.to_thread(
            command, talk.node.config, *live, token=talk.node.tokens["supervisor"]
        )
        talk.talker.hertz = TALK_HZ
        await asyncio.sleep(0.3)  # what was said before is over before recording goes on
        await talk.agent.press("*7#")
        resumed = await call.wait("recording.changed", state="recording", count=2)
        await say(talk, TALK_HZ, 1.0)
        await talk.agent.command("hold")
        held = await call.wait("hold.changed", held=True)
        await asyncio.sleep(0.3)  # until the media worker knows too
        await say(talk, HELD_HZ, 1.0)
        talk.talker.hertz = TALK_HZ
        await asyncio.sleep(0.3)  # what was said before is over before the hold is
        await talk.agent.command("resume")
        unheld = await call.wait("hold.changed", held=False)
        await say(talk, TALK_HZ, 1.0)
        await call.act("warn")
        warned = await call.wait("warning.played")
        await say(talk, TALK_HZ, 0.8)
        await talk.agent.press("*9#")
        ending = await call.wait("call.ending")
        await say(talk, AFTER_HZ, 1.0)
        await call.wait("call.ended")
        await call.wait("recording.changed", state="stopped")
        samples, about = await export(talk.node, call.call_id)
        verified = await asyncio.to_thread(command, talk.node.config, "verify", call.call_id)
        finished = await call.wait("notice.finished")
        heard_by_agent = talk.agent.heard()
        stored = list((tmp_path / "recordings").rglob("*.csrec"))

    # A live call cannot be listened to in secret.
    assert running.returncode != 0
    assert not (tmp_path / "live.wav").exists()
    assert "the call still runs" in running.stderr
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert len(stored) == 1
    left, right = samples[:, 0], samples[:, 1]
    # The controls: the agent heard what the recording lacks, and the judge finds it there.
    assert loud(heard_by_agent, PAUSED_HZ).sum() >= 8
    assert loud(heard_by_agent, BEFORE_HZ).sum() >= 10
    # Where the machine was so busy that the notice was over first, until then.
    begun_ts = max(finished["ts"], said_before)
    late = int(np.ceil((begun_ts - finished["ts"]) * 10 + 1)) if begun_ts > finished["ts"] else 0
    assert not loud(left, BEFORE_HZ)[late:].any()
    assert not loud(right, BEFORE_HZ).any()
    for hertz in SECRET[1:]:
        assert not loud(left, hertz).any(), hertz
        assert not loud(right, hertz).any(), hertz
    # Each talker in the own channel only.
    caller_talks, agent_talks = loud(left, TALK_HZ), loud(right, AGENT_HZ)
    assert not loud(left, AGENT_HZ).any()
    assert not loud(right, TALK_HZ).any()
    spoken = [b for b, talks in zip(blocks(left, 0.1), caller_talks, strict=True) if talks]
    assert np.median([purity(block, TALK_HZ) for block in spoken]) > 0.95

    # The order of things: nothing missing, nothing more.
    stretches = [
        paused["ts"] - begun_ts,
        held["ts"] - resumed["ts"],
        ending["ts"] - unheld["ts"],
    ]
    assert runs(caller_talks) == pytest.approx(stretches, abs=0.3)
    # While the warning played the agent was not heard by the caller.
    warning_at = warned["ts"] - unheld["ts"]
    assert runs(agent_talks) == pytest.approx(
        [*stretches[:2], warning_at - 2.0, stretches[2] - warning_at], abs=0.4
    )
    warning_gap = gaps(agent_talks)[-1]
    assert warning_gap == pytest.approx(2.0, abs=0.3)
    for talks in (caller_talks, agent_talks):
        last_s = float(np.nonzero(talks)[0][-1] + 1) / 10
        assert last_s == pytest.approx(ending["ts"] - finished["ts"], abs=0.25)
    ((begin_s, end_s),) = about["pauses"]
    assert end_s - begin_s == pytest.approx(resumed["ts"] - paused["ts"], abs=0.2)
    prompt = find(talk.prompts.samples("warning_1"), left)
    assert prompt is None or prompt.share < 0.3


def _lengths(flags: NDArray[np.bool_], wanted: bool) -> list[float]:
    found: list[float] = []
    before = None
    for flag in flags:
        if flag == wanted:
            if before != wanted:
                found.append(0.0)
            found[-1] = round(found[-1] + 0.1, 1)
        before = flag
    return found


def runs(flags: NDArray[np.bool_]) -> list[float]:
    """Lengths in seconds of the stretches that are true; single tenths are edges."""
    return [length for length in _lengths(flags, True) if length > 0.15]


def gaps(flags: NDArray[np.bool_]) -> list[float]:
    """Lengths in seconds of the stretches between them."""
    inner = np.nonzero(flags)[0]
    return [one for one in _lengths(flags[inner[0] : inner[-1]], False) if one > 0.15]


async def test_a_crash_loses_a_second_and_a_skipped_notice_records_nothing(tmp_path: Path) -> None:
    toml = recording_toml(tmp_path, tmp_path / "recordings")
    async with scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=toml) as talk:
        # Control and subject in one: this call is recorded, and its worker killed.
        call = await talk.dial()
        talk.talker.hertz, talk.talker.talking = TALK_HZ, True
        began = await call.wait("recording.changed", state="recording")
        await asyncio.sleep(3)  # what is recorded
        worker = talk.node.pid_of("media")
        killed_after = time.time()
        os.kill(worker, signal.SIGKILL)
        killed_before = time.time()
        ended = await call.wait("call.ended")
        talk.talker.talking = False
        samples, about = await export(talk.node, call.call_id)
        await talk.agent.wait("CALL_CLOSED")

        await talk.node.wait_for_log("media_ready", count=2)
        await talk.node.until_ready()
        skipped = await talk.dial()
        talk.talker.talking = True
        await skipped.wait("notice.started")
        await skipped.act("skip_notice")
        await skipped.wait("notice.finished", source="skipped")
        await asyncio.sleep(1.2)  # a conversation that may not be kept
        await skipped.hang_up()
        listed = await asyncio.to_thread(command, talk.node.config, "list", "--json")
        events = list(talk.console.seen("recording.changed"))

    assert ended["reason"] == "media_lost"
    kept_s = float(np.nonzero(loud(samples[:, 0], TALK_HZ))[0][-1] + 1) / 10
    assert kept_s > killed_after - began["ts"] - 1.0
    assert kept_s < killed_before - began["ts"] + 0.3
    assert loud(samples[:, 1], AGENT_HZ).sum() > 15
    (part,) = about["parts"]
    assert not part["complete"]
    assert listed.returncode == 0, listed.stderr
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(row["call_id"], row["state"]) for row in rows] == [(call.call_id, "ended_early")]
    assert {event["call_id"] for event in events} == {call.call_id}


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of this size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full to its last block."""
    with path.open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


async def test_a_full_disk_ends_the_recording_and_never_the_call(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 3) as disk:
        toml = recording_toml(tmp_path, disk, "min_free_mib = 1\n")
        async with (
            scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=toml) as talk,
            talk.node.watch("supervisor") as supervisor,
        ):
            call = await talk.dial()
            talk.talker.hertz, talk.talker.talking = TALK_HZ, True
            await call.wait("recording.changed", state="recording")
            await asyncio.sleep(2.5)  # the last second may not be on the disk yet
            fill(disk / "filler")
            failed = await call.wait("recording.changed", state="failed")
            alarm = await supervisor.wait(
                "node.degraded", lambda event: event["component"] == "recording"
            )
            # Nobody in the call notices.
            await say(talk, PAUSED_HZ, 1.5)
            before = len(talk.talker.packets)
            async with asyncio.timeout(20):
                # A busy machine's second may have fewer; that none is lost is judged below.
                while len(talk.talker.packets) - before <= 45:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await call.hang_up()
            await talk.agent.wait("CALL_CLOSED")
            heard = talk.agent.heard()
            (port,) = await talk.capture.media_ports()
            streams = await talk.capture.streams(port)
            (disk / "filler").unlink()
            samples, _ = await export(talk.node, call.call_id)

    assert alarm["degraded"]
    assert "free" in failed["reason"] or "space" in failed["reason"], failed
    assert call.call_id not in failed["reason"]
    assert loud(heard, PAUSED_HZ).sum() >= 20
    assert {stream.lost for stream in streams} == {0}
    # What was written before is there; what came after is not.
    assert loud(samples[:, 0], TALK_HZ).sum() >= 12
    assert not loud(samples[:, 0], PAUSED_HZ).any()


def test_the_judges_of_stretches() -> None:
    flags = np.array([False, True, True, False, False, False, True, True, True, False, True])
    assert runs(flags) == [0.2, 0.3]
    assert gaps(flags) == [0.3]
