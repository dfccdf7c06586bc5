"""Angry and calm speech of one speaker through a whole node: an alert for one, none for the other.

The speech is acted German emotion of speakers that the model was not trained on (EmoDB, dev split).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from tests.peers.baresip import running_baresip
from tests.peers.node import running_node
from tests.peers.sound import RATE, write_tone, write_wav

pytestmark = [pytest.mark.peers, pytest.mark.data, pytest.mark.timeout(180)]

CALLER, PHONE = "127.0.0.4", "127.0.0.5"
#: Silence before the speech: longer than ringing and the one notice that is played here.
LEAD_S = 9.0


def speech(data: Path, speaker: str, emotion: str, seconds: float) -> np.ndarray:
    """Clips of one dev speaker in the order of the manifest, 0.3 s apart, at 8 kHz."""
    parts: list[np.ndarray] = []
    with (data / "audio" / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if (row["corpus"], row["speaker"], row["emotion"], row["split"]) != (
                "emodb",
                speaker,
                emotion,
                "dev",
            ):
                continue
            samples, rate = soundfile.read(data / "audio" / row["path"], dtype="float32")
            parts += [soxr.resample(samples, rate, RATE) * 0.7, np.zeros(int(0.3 * RATE))]
            if sum(map(len, parts)) > seconds * RATE:
                break
    assert parts, f"no {emotion} clips of {speaker}"
    return np.concatenate(parts)


def a_dev_speaker(data: Path) -> str:
    with (data / "audio" / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if r["corpus"] == "emodb"]
    return sorted({r["speaker"] for r in rows if r["split"] == "dev"})[0]


@pytest.mark.parametrize(("emotion", "alarms"), [("anger", True), ("neutral", False)])
async def test_anger_raises_an_alert_and_calm_speech_of_the_same_speaker_does_not(
    tmp_path: Path, data_dir: Path, emotion: str, alarms: bool
) -> None:
    said = speech(data_dir, a_dev_speaker(data_dir), emotion, 15)
    lead = np.zeros(int(LEAD_S * RATE))
    caller_voice = write_wav(tmp_path / "caller.wav", np.concatenate([lead, said, lead]))
    agent_voice = write_tone(tmp_path / "agent.wav", 425, 60, 0.05)
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", agent_voice) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", caller_voice) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            extra='[notice]\nprompts = ["recording"]\n',
        ) as node,
        node.watch("supervisor") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        started = await console.wait("call.started")
        await console.wait("tap.started")
        if alarms:
            alert = await console.wait("alert.raised", timeout_s=90)
            assert (alert["call_id"], alert["kind"], alert["level"]) == (
                started["call_id"],
                "risk",
                2,
            )
        else:
            # Half as long again as all there is to hear.
            heard_s = (LEAD_S + len(said) / RATE) * 1.5
            with pytest.raises(AssertionError, match=r"no alert\.raised"):
                await console.wait("alert.raised", timeout_s=heard_s)
            # Not because nobody listened: the speech did reach the detector.
            await caller.command("hangup")
            (closed,) = await node.wait_for_log("media_closed")
            assert closed["tapped"] * 0.02 > len(said) / RATE
            assert not [e for e in console.seen("risk.changed") if e["level"] >= 2]
