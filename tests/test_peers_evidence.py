"""A call of two real telephones through a whole node, up to a package that a stranger checks."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callshield.heard import find, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.evidence_kit import command, evidence
from tests.peers.baresip import running_baresip
from tests.peers.node import running_node
from tests.peers.prompts import Prompts
from tests.peers.sound import RATE, tone_db, write_tone, write_wav
from tests.test_evidence_report import text_of
from tests.test_peers_recording import recording_toml

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

CALLER, PHONE = "127.0.3.64", "127.0.3.65"
SIDES = ("127.0.3.62", "127.0.3.63")
AGENT_HZ = 1600.0
#: Silence before the caller speaks: longer than ringing and the notice.
LEAD_S = 6.0


async def test_a_bad_call_becomes_a_package_that_a_stranger_can_check(tmp_path: Path) -> None:
    said = read_wav(SHIPPED / "ko" / "warning_2.wav")
    lead = np.zeros(int(LEAD_S * RATE), np.float32)
    voice = write_wav(tmp_path / "caller.wav", np.concatenate([lead, said, lead]))
    prompts = Prompts(tmp_path / "prompts")
    directory = tmp_path / "recordings"
    toml = recording_toml(tmp_path, directory)
    toml += f'[evidence]\nkey_file = "{tmp_path / "evidence.key"}"\n'
    async with (
        running_baresip(
            tmp_path / "agent", PHONE, "1001", write_tone(tmp_path / "a.wav", AGENT_HZ, 60)
        ) as agent,
        running_baresip(tmp_path / "caller", CALLER, "01012345678", voice) as caller,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=CALLER,
            sides=SIDES,
            extra=prompts.toml + toml,
        ) as node,
        node.watch("1001") as console,
    ):
        made = await asyncio.to_thread(
            command, node.config, "token", "create", "--role", "admin", "--name", "boss"
        )
        node.tokens["boss"] = made.stdout.strip()
        key = tmp_path / "away" / "node.pem"
        key.parent.mkdir()
        shown = await asyncio.to_thread(evidence, node.config, "key", "--out", str(key))
        assert shown.returncode == 0, shown.stderr

        await caller.command("dial", node.uri("1001"))
        call_id = (await console.wait("call.started"))["call_id"]
        await console.wait("recording.changed", lambda event: event["state"] == "recording")
        heard_from = asyncio.get_running_loop().time()
        asked = await node.post(f"/calls/{call_id}/after", "1001", {"action": "evidence"})
        request_id = asked.json()["request_id"]
        async with asyncio.timeout(20):
            while not (directory / "held").is_file():  # noqa: ASYNC110 (a file tells nobody)
                await asyncio.sleep(0.05)
        assert (directory / "held").read_text() == f"{call_id}\n", "held while the call runs"
        refused = await node.post(f"/requests/{request_id}/approve", "supervisor")
        assert refused.status_code == 403, "the test's tokens all bear the agent's name"
        approved = await node.post(f"/requests/{request_id}/approve", "boss")
        assert approved.json() == {"status": "done"}
        package = tmp_path / "away" / "package.zip"
        words = ("export", call_id, "-o", str(package))
        live = await asyncio.to_thread(evidence, node.config, *words, token=node.tokens["boss"])
        assert live.returncode == 2
        assert "the call still runs" in live.stderr
        assert not package.exists()

        # Until the caller has said it all; then the agent warns and ends the call.
        left_s = LEAD_S + len(said) / RATE - (asyncio.get_running_loop().time() - heard_from)
        await asyncio.sleep(max(left_s, 0.0))
        await node.post(f"/calls/{call_id}/actions", "1001", {"action": "warn"})
        await console.wait("warning.played")
        await node.post(f"/calls/{call_id}/actions", "1001", {"action": "end"})
        await console.wait("call.ended")
        await console.wait("recording.changed", lambda event: event["state"] == "stopped")
        done = await asyncio.to_thread(
            evidence, node.config, *words, "--no-transcript", token=node.tokens["boss"]
        )
        assert done.returncode == 0, done.stderr
        exported = await console.wait("evidence.exported")
        settled = await node.post(f"/requests/{request_id}/done", "boss")
        assert settled.json() == {"status": "done"}
        async with asyncio.timeout(20):
            while (directory / "held").read_text():  # noqa: ASYNC110 (a file tells nobody)
                await asyncio.sleep(0.05)
        audit = await asyncio.to_thread(command, node.config, "audit", "verify", "--json")
        assert audit.returncode == 0, audit.stdout
        log = node.log_path.read_text()

    # Somebody else, elsewhere, with the file and the public key alone.
    told = await asyncio.to_thread(
        evidence, None, "verify", str(package), "--public-key", str(key), "--json"
    )
    assert told.returncode == 0, told.stdout + told.stderr
    checked = json.loads(told.stdout)
    assert checked["sha256"] == exported["package_sha256"]
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    samples, rate = soundfile.read(io.BytesIO(files["recording.flac"]), dtype="float32")
    assert rate == RATE
    # The caller's words, on the caller's side alone, at the level at which they were said.
    match, other = find(said, samples[:, 0]), find(said, samples[:, 1])
    assert match is not None
    # On a busy machine the telephone's own clock tears pieces apart; all of it is the rule.
    assert match.share >= 0.4
    assert other is None or other.share < 0.3
    assert tone_db(samples[RATE : 2 * RATE, 1], AGENT_HZ) > -40
    loud = np.sqrt(np.mean(samples[:, 0].astype(np.float64)[np.abs(samples[:, 0]) > 0.02] ** 2))
    want = np.sqrt(np.mean(said.astype(np.float64)[np.abs(said) > 0.02] ** 2))
    assert 20 * np.log10(loud / want) == pytest.approx(0.0, abs=0.5)
    # The notice that the real caller heard stands in it with its hash, and what was done.
    stamps = json.loads(files["notices.json"])["notices"]
    assert [(one["prompt"], one["complete"], len(one["sha256"])) for one in stamps] == [
        (prompt, True, 64) for prompt in ("recording", "warning_1", "closing")
    ]
    actions = json.loads(files["actions.json"])["actions"]
    assert [item["type"] for item in actions] == ["warning.played", "call.ending"]
    text = text_of(files["report.pdf"])
    assert call_id in text
    assert "경고 1차를 고객에게 들려줌" in text
    # The caller's number is in none of it, nor in the log.
    assert b"01012345678" not in b"".join(files.values())
    assert "01012345678" not in text
    assert "01012345678" not in log
