"""A real call, found again by a number that nobody stored: given to its caller, then erased."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import subprocess
import sys
import wave
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from callshield.caller_pseudonym import load_caller_keys
from notifier.tokens import create_token
from tests.peers.conversation import AGENT_HZ, Call, Scene, scene
from tests.peers.node import Node
from tests.peers.sound import RATE, tone_db
from tests.test_peers_recording import recording_toml, say

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

CALLER, PHONE = "127.0.53.24", "127.0.53.25"
SIDES = ("127.0.53.22", "127.0.53.23")
TALK_HZ = 1000.0
SHOWN, E164 = "01098765432", "+821098765432"
MANIFEST = '[[prompt]]\nid = "recording"\nlanguage = "ko"\npurposes = ["protection"]\n'


def command(node: Node, token: str, *words: str, typed: str = "") -> tuple[int, str]:
    """``callshield …`` as a person types it: exit status, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "callshield.cli", *words, "--config", str(node.config)],
        capture_output=True,
        text=True,
        input=typed,
        timeout=120,
        env={**os.environ, "CALLSHIELD_TOKEN": token},
    )
    return done.returncode, done.stdout + done.stderr


async def call_of(talk: Scene, number: str) -> Call:
    """A call that shows this number, up to its answer."""
    dialog = talk.pbx.begin(talk.node.uri("1001"), SIDES[0], talk.node.pbx_port, number)
    before = len(talk.console.seen("call.started"))
    answer = await dialog.invite(body=talk.pbx.sdp(port=talk.talker.port))
    assert answer.status == 200, answer.text
    started = await talk.console.wait("call.started", count=before + 1)
    talk.talker.to = (answer.media_address, answer.media_port)
    return Call(talk, dialog, started["call_id"], talk.talker.to)


def stored(node: Node) -> str:
    """All that is in the database, as text."""
    with closing(sqlite3.connect(node.settings.database_path)) as database:
        return "\n".join(database.iterdump())


async def test_a_caller_is_found_by_his_number_given_his_calls_and_erased(tmp_path: Path) -> None:
    sound = tmp_path / "recordings"
    toml = recording_toml(tmp_path, sound)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "manifest.toml").write_text(MANIFEST)
    async with scene(tmp_path, caller=CALLER, phone=PHONE, sides=SIDES, extra=toml) as talk:
        node = talk.node
        admin = await asyncio.to_thread(create_token, node.settings, "admin", "김민수")

        async def run(*words: str, typed: str = "") -> tuple[int, str]:
            return await asyncio.to_thread(command, node, admin, *words, typed=typed)

        call = await call_of(talk, SHOWN)
        await call.wait("notice.finished")
        await say(talk, TALK_HZ, 2.0)
        out = tmp_path / "answer.zip"
        code, said = await run(
            "privacy", "access", "--number", SHOWN, "-o", str(out), "--ref", "R-0"
        )
        assert (code, "still runs" in said) == (2, True), said
        assert not out.exists(), "a live call is overheard by nobody"
        await call.hang_up()
        await call.wait("recording.changed", state="stopped")
        other = await call_of(talk, "0212345678")
        await other.wait("notice.finished")
        await say(talk, TALK_HZ, 1.0)
        await other.hang_up()
        await other.wait("recording.changed", state="stopped")
        pseudonym = load_caller_keys(node.settings.caller_keys_path, make=False).pseudonym(E164)[0]
        kept = stored(node)
        assert pseudonym in kept
        assert "98765432" not in kept

        # Given: the number is typed, not an argument.
        code, said = await run(
            "privacy", "access", "--number", "-", "-o", str(out), "--ref", "R-1",
            typed="010-9876-5432\n",
        )  # fmt: skip
        assert code == 0, said
        with zipfile.ZipFile(out) as packed:
            held = json.loads(packed.read("data.json"))
            texts = [packed.read(name).decode() for name in packed.namelist() if ".wav" not in name]
            with wave.open(
                io.BytesIO(packed.read(f"calls/{call.call_id}/caller.wav")), "rb"
            ) as audio:
                assert (audio.getnchannels(), audio.getframerate()) == (1, RATE)
                samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2") / 32768
        assert [one["call_id"] for one in held["calls"]] == [call.call_id]
        for hidden in ("1001", "김민수", "98765432", pseudonym):
            assert not any(hidden in text for text in texts), hidden
        (notice,) = [e for e in held["calls"][0]["events"] if e["type"] == "notice.finished"]
        assert [one["purposes"] for one in notice["prompts"]] == [["protection"]]
        spoken = samples[: int(1.5 * RATE)].astype(np.float32)
        assert tone_db(spoken, TALK_HZ) > -30
        assert tone_db(spoken, AGENT_HZ) < tone_db(spoken, TALK_HZ) - 30, "his own side alone"
        read = await talk.console.wait("record.read", lambda e: e["call_id"] == call.call_id)
        assert (read["what"], read["why"]) == ("access", "R-1"), "the agent sees it"

        # Erased, as soon as its last words have had their time.
        code, said = await run("privacy", "erase", "--number", SHOWN, "--yes", "--ref", "R-2")
        assert (code, "it is erased soon after" in said) == (1, True), said
        assert len(list(sound.rglob("*.csrec"))) == 2
        async with asyncio.timeout(90):
            while (await run("privacy", "waiting"))[1].strip():  # noqa: ASYNC110 (it is asked)
                await asyncio.sleep(1)
        assert [path.name[:32] for path in sound.rglob("*.csrec")] == [other.call_id]
        kept = stored(node)
        assert pseudonym not in kept
        assert other.call_id in kept
        code, said = await run("audit", "verify")
        assert code == 0, said
        assert " 0 erased" not in said
        again = tmp_path / "again.zip"
        code, said = await run(
            "privacy", "access", "--number", SHOWN, "-o", str(again), "--ref", "R-3"
        )
        assert (code, "no call of this number is held" in said) == (2, True), said
        assert not again.exists()
        log = node.log_path.read_text(encoding="utf-8")
        assert "Traceback" not in log
        assert "98765432" not in log
        assert pseudonym not in log
