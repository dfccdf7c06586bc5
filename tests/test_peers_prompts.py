"""Which announcement a real telephone is played: the one that names the key, in its own band."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import soxr

from callshield.heard import find, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.node import running_node
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE = "127.0.3.14", "127.0.3.15"
SIDES = ("127.0.3.12", "127.0.3.13")
G722, A_LAW = "g722/16000/1", "pcma/8000/1"


def above_4_khz(telephone: Baresip) -> float:
    """Share of what it heard that no telephone band carries, as its decoder gave it."""
    raw = telephone.recording().read_bytes()
    channels, rate = struct.unpack_from("<HI", raw, raw.find(b"fmt ") + 10)
    body = raw[raw.find(b"data") + 8 :]
    heard = np.frombuffer(body[: len(body) // 2 * 2], "<i2")[::channels].astype(float)
    power = np.abs(np.fft.rfft(heard)) ** 2
    return float(power[np.fft.rfftfreq(len(heard), 1 / rate) > 4100].sum() / power.sum())


@pytest.mark.parametrize(
    ("key", "codecs", "said"),
    [
        ('objection_key = "9"', G722, "abuse_prevention_objection"),
        ('consent_key = "1"', A_LAW, "abuse_prevention_consent"),
    ],
)
async def test_a_caller_hears_the_key_before_anything_begins(
    tmp_path: Path, key: str, codecs: str, said: str
) -> None:
    quiet = write_tone(tmp_path / "quiet.wav", 700.0, 60, 0.001)
    # A key that must be pressed may be pressed late; one that nobody presses is waited for in full.
    window_s = 30.0 if "consent" in key else 0.5
    notice = f'[notice]\nlanguage = "en"\n{key}\nkey_window_s = {window_s}\n'
    if "objection" in key:
        notice += 'prompts = ["abuse_prevention"]\n'  # the consent covers recording by itself
    async with (
        running_baresip(tmp_path / "agent", PHONE, "1001", quiet, codecs=codecs) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01000000000", quiet, codecs=codecs) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            sides=SIDES,
            extra=notice,
            agent_options="hearing_protection = false",  # G.722 passes through only then
        ) as node,
        node.watch("1001") as console,
    ):
        await caller.command("dial", node.uri("1001"))
        finished = await console.wait("notice.finished", timeout_s=45)
        if "consent" in key:
            assert finished["waits"]
            await caller.press("1")
        await console.wait("tap.started")
        await caller.command("hangup")
        await console.wait("call.ended")
    (stamp,) = finished["prompts"]
    assert (stamp["prompt_id"], stamp["language"], stamp["version"]) == (said, "en", "1")
    wide = codecs == G722
    file = SHIPPED / "en" / f"{said}{'.16k' if wide else ''}.wav"
    assert stamp["sha256"] == sha256(file)
    assert {"analysis", "recording"} <= set(stamp["names"])
    played = read_wav(file)
    narrow = soxr.resample(played, 16000, 8000) if wide else played
    found = find(np.asarray(narrow, np.float32), caller.heard())
    assert found is not None
    assert found.whole, found
    assert (above_4_khz(caller) > 0.001) is wide


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
