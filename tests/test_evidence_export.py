"""From an agent's press to a package in somebody's hand, and everything that must stop it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from callshield.errors import CallshieldError, EvidenceBroken
from callshield.evidence_export import Wish, export_evidence
from callshield.messages_evidence import EvidenceAnswer, OpenEvidence
from callshield.notifier_request import TOKEN_VARIABLE, ask_bus
from detectors import transcript
from detectors.asr.protocol import Transcript
from notifier.audit import reads, verify
from notifier.database import place_of, transact
from notifier.evidence_key import PublicKey, load_public_key
from notifier.evidence_manifest import Manifest, verify_package
from notifier.evidence_seal import Seal
from notifier.schema import events
from tests.evidence_kit import (
    QUOTE,
    RATE,
    Case,
    case,
    command,
    evidence,
    get,
    post,
    record_call,
)
from tests.recording_kit import path_of, stored
from tests.speech_kit import character_errors, speech_model
from tests.test_aftercare_teams import TEAMS
from tests.test_recording_crash import mount_command

NUMBER = "010-1234-5678"
SAID = f"제 번호는 {NUMBER} 입니다"


def files_of(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_json(package: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files_of(package)[name])
    return found


def unseen_changes(package: Path, key: PublicKey) -> list[int]:
    """Of a hundred random one-byte changes those that ``verify`` lets pass, by their place."""
    whole, chance = package.read_bytes(), random.Random(8)
    changed, found = package.with_name("changed"), []
    for _ in range(100):
        data, at = bytearray(whole), chance.randrange(len(whole))
        data[at] ^= chance.randrange(1, 256)
        changed.write_bytes(data)
        with contextlib.suppress(EvidenceBroken):
            verify_package(changed, key)
            found.append(at)
    changed.unlink()
    return found


def run(*words: str) -> None:
    """Another program."""
    subprocess.run(words, check=True, capture_output=True)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def events_of(one: Case, kind: str) -> list[dict[str, Any]]:
    def read(connection: Any) -> list[dict[str, Any]]:
        query = events.select().where(events.c.type == kind).order_by(events.c.id)
        return [json.loads(row.body) for row in connection.execute(query)]

    return transact(place_of(one.desk.settings), read)


# --------------------------------------------------------------------------------- what is in it


async def test_the_whole_flow_to_a_verified_package(tmp_path: Path) -> None:
    async with case(tmp_path) as one:
        key = await one.public_key()
        await one.approve()
        package = await one.export("--no-transcript")
        files, pem = files_of(package), load_public_key(key)
        checked = await asyncio.to_thread(verify_package, package, pem)
        head = checked.manifest.chain
        told = await one.agent.until("evidence.exported")
        opened = await get(one.desk, "/me/opened")
        store = await asyncio.to_thread(verify, place_of(one.desk.settings))
        opened_events = events_of(one, "recording.opened")
        exported = events_of(one, "evidence.exported")
        read_by = await asyncio.to_thread(reads, place_of(one.desk.settings))

    # A real package, too: PDF, FLAC and all; the control is `checked`.
    assert await asyncio.to_thread(unseen_changes, package, pem) == []
    assert package.stat().st_mode & 0o777 == 0o600
    assert list(files) == [
        *("manifest.json", "manifest.sig", "readme.txt", "report.pdf", "recording.flac"),
        *("recording.json", "timeline.json", "notices.json", "actions.json", "events.jsonl"),
    ]
    # The recording is what was said, sample for sample at its level.
    samples, rate = soundfile.read(io.BytesIO(files["recording.flac"]), dtype="int16")
    assert (rate, samples.shape[1]) == (RATE, 2)
    # The recording began before the first frame came: as long before as it took until it ran.
    recorded_at = datetime.fromisoformat(json.loads(files["recording.json"])["started_at"])
    early = round((one.began_ts - recorded_at.timestamp()) * RATE)
    assert early >= 0
    for side, said in ((0, one.caller), (1, one.other)):
        wanted = said[: len(said) // 160 * 160].astype(np.float64)
        got = samples[:, side].astype(np.float64)
        found = np.correlate(got[: len(wanted) + early + 1600], wanted[:-1600], "valid")
        shift = int(np.argmax(found))
        # A frame is spoken in the twenty milliseconds before it comes.
        assert abs(shift - early) < 400
        got = got[shift : shift + len(wanted)]
        loss = np.abs(got - wanted[: len(got)])
        assert np.all(loss <= 0.035 * np.abs(wanted[: len(got)]) + 8), "µ-law's rounding alone"
    # Notices with stamps and the key that was pressed.
    notices = json.loads(files["notices.json"])["notices"]
    assert [item["prompt"] for item in notices] == ["recording", "abuse_prevention"]
    assert notices[0]["sha256"] == "0" * 64
    assert [item["key"] for item in notices] == ["", "1"]
    # What was done, and who was told.
    done = json.loads(files["actions.json"])
    assert {item["type"] for item in done["actions"]} == {"warning.played", "call.ending"}
    assert {item["type"] for item in done["told"]} >= {"alert.raised"}
    assert [item["type"] for item in done["opened"]] == ["recording.opened"]
    timeline = json.loads(files["timeline.json"])
    assert [item["level"] for item in timeline["levels"]] == [0, 1, 3]
    assert QUOTE in files["timeline.json"].decode()
    rows = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    kinds = {row["type"] for row in rows}
    assert "evidence.requested" in kinds
    assert not kinds & {"agent.said", "rest.changed", "call.marked", "call.judged"}
    # The chain: the opening is in it before the package, and the package's hash after.
    assert store.faults == []
    assert checked.events == len(rows)
    assert head.head_id >= rows[-1]["id"]
    (access,) = opened_events
    assert (access["what"], access["why"], access["ref"]) == ("evidence", "request", one.request_id)
    (made,) = exported
    assert made["package_sha256"] == checked.sha256 == told["package_sha256"]
    assert (made["unredacted"], made["whole"], made["encryption"]) == (False, True, "none")
    assert made["key_id"] == pem.key_id
    assert [row["what"] for row in read_by] == ["evidence"]
    assert opened["openings"][0]["by_name"] == "boss", "the agent sees who opened it"


async def test_handed_out_the_agent_reads_done_and_the_call_is_free_again(tmp_path: Path) -> None:
    async with case(tmp_path) as one:
        await one.public_key()
        assert one.bridge.held[-1].call_ids == [one.call_id]
        await one.approve()
        await one.export("--no-transcript")
        await post(one.desk, f"/requests/{one.request_id}/done", one.desk.supervisor)
        (said,) = (await get(one.desk, "/me/requests"))["requests"]
        assert said["state"] == "done"
        # A copy was lost: as long as the recording is there, another can be made.
        again = await one.export("--no-transcript", "--lang", "en", name="again.zip")
        assert b"Evidence of a call" in files_of(again)["report.pdf"], "its title"
        assert read_json(again, "timeline.json")["language"] == "en"


async def test_real_speech_is_written_down_from_the_callers_channel_alone(tmp_path: Path) -> None:
    speech_model()
    async with case(tmp_path) as one:
        await one.public_key()
        await one.approve()
        package = await one.export()
    found = read_json(package, "transcript_redacted.json")
    text = "".join(item["text"] for item in found["utterances"])
    wanted = "안내 말씀 드립니다. 원활한 상담을 위해 서로 존중하는 통화를 부탁드립니다. "
    wanted += "욕설과 폭언, 성희롱이 있으면 통화가 종료될 수 있습니다."
    errors, length = character_errors(wanted, text)
    assert errors / length < 0.2, text
    assert found["redacted"] is True
    assert "녹음" not in text, "what the agent said (the prompt about recording) is not in it"
    assert "transcript_unredacted.json" not in files_of(package)


class Hears:
    """A recogniser that hears one sentence, whatever is said; remembers how much it was given."""

    name = "double"

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def transcribe(self, samples: Any, language: str | None, expected: Any = None) -> Transcript:
        self.samples.append(samples)
        return Transcript(SAID, "ko", -0.1, 0.0)


async def test_an_unredacted_transcript_is_in_the_package_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Hears()
    monkeypatch.setattr(transcript, "load_recogniser", lambda *_: heard)
    monkeypatch.setattr(transcript, "is_installed", lambda *_: True)
    async with case(tmp_path) as one:
        await one.public_key()
        await one.approve()
        out = tmp_path / "plain.zip"

        def make(unredacted: bool, path: Path) -> None:
            wish = Wish(one.call_id, path, one.admin, Seal(), unredacted=unredacted)
            export_evidence(one.desk.settings, wish, lambda *_: None)

        await asyncio.to_thread(make, False, tmp_path / "redacted.zip")
        await asyncio.to_thread(make, True, out)
        (first, second) = events_of(one, "recording.opened")
        exported = events_of(one, "evidence.exported")
    assert len(heard.samples) >= 2
    redacted, whole = (files_of(tmp_path / name) for name in ("redacted.zip", "plain.zip"))
    assert NUMBER not in redacted["transcript_redacted.json"].decode()
    assert "[전화번호]" in redacted["transcript_redacted.json"].decode()
    assert "transcript_unredacted.json" not in redacted
    assert NUMBER in whole["transcript_unredacted.json"].decode()
    # In no other file of the package, of the node's folder, or of the log.
    for name, data in whole.items():
        assert (NUMBER.encode() in data) == (name == "transcript_unredacted.json"), name
    assert first["what"] == "evidence"
    assert second["what"] == "evidence_unredacted"
    assert [item["unredacted"] for item in exported] == [False, True]
    out.unlink()
    searched = files_below(tmp_path)
    assert any(path.name == "callshield.sqlite3" for path in searched)
    for path in searched:
        assert NUMBER.encode() not in path.read_bytes(), path
        assert SAID[:6].encode() not in path.read_bytes() or path.suffix == ".zip", path
    assert NUMBER not in caplog.text


async def test_without_a_model_there_is_no_transcript_and_the_report_says_why(
    tmp_path: Path,
) -> None:
    async with case(tmp_path, f'[transcriber]\nmodel_dir = "{tmp_path / "none"}"\n') as one:
        await one.public_key()
        await one.approve()
        refused = await one.run(
            "export", one.call_id, "-o", str(tmp_path / "u.zip"), "--unredacted"
        )
        package = await one.export()
    assert refused.returncode == 2
    assert "needs the speech model" in refused.stderr
    assert not (tmp_path / "u.zip").exists()
    assert "transcript_redacted.json" not in files_of(package)


# ------------------------------------------------------------------------------------ encryption


async def test_a_package_for_a_recipient_opens_with_age_and_for_nobody_else(tmp_path: Path) -> None:
    identity, other = tmp_path / "me.txt", tmp_path / "other.txt"
    for path in (identity, other):
        run("age-keygen", "-o", str(path))
    recipient = identity.read_text().splitlines()[1].split()[-1]
    async with case(tmp_path / "node") as one:
        key = await one.public_key()
        await one.approve()
        sealed = await one.export(
            "--no-transcript", "--encrypt-to", recipient, name="package.zip.age"
        )
        (made,) = events_of(one, "evidence.exported")
    assert made["encryption"] == "age"
    data = sealed.read_bytes()
    assert data.startswith(b"age-encryption.org/v1")
    assert b"PK\x03\x04" not in data
    told = evidence(None, "verify", str(sealed), "--public-key", str(key))
    assert told.returncode == 2
    assert "is encrypted" in told.stderr
    out = tmp_path / "opened.zip"
    # The usual program, not ours.
    run("age", "--decrypt", "-i", str(identity), "-o", str(out), str(sealed))
    checked = verify_package(out, load_public_key(key))
    assert checked.sha256 == made["package_sha256"]
    ours = tmp_path / "ours.zip"
    words = ["decrypt", str(sealed), "-o", str(ours), "--identity-file"]
    assert evidence(None, *words, str(identity)).returncode == 0
    assert ours.read_bytes() == out.read_bytes()
    refused = evidence(None, "decrypt", str(sealed), "-o", str(tmp_path / "no.zip"),
                       "--identity-file", str(other))  # fmt: skip
    assert refused.returncode == 2
    assert "does not open" in refused.stderr
    assert not (tmp_path / "no.zip").exists()


async def test_a_package_by_a_password(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    password.chmod(0o600)
    wrong = tmp_path / "wrong"
    wrong.write_text("correct horse batterie\n")
    wrong.chmod(0o600)
    async with case(tmp_path / "node") as one:
        key = await one.public_key()
        await one.approve()
        password.chmod(0o644)
        out = tmp_path / "node" / "p.zip.age"
        words = ("export", one.call_id, "-o", str(out), "--no-transcript", "--password-file")
        open_to_all = await one.run(*words, str(password))
        password.chmod(0o600)
        short = tmp_path / "short"
        short.write_text("geheim")
        short.chmod(0o600)
        too_short = await one.run(*words, str(short))
        both = await one.run(*words, str(password), "--encrypt-to", "age1x")
        nobody = await one.run(
            "export", one.call_id, "-o", str(out), "--encrypt-to", "kim@example.org"
        )
        assert not out.exists()
        done = await one.run(*words, str(password))
        assert done.returncode == 0, done.stderr
    for refused, sentence in (
        (open_to_all, "chmod 600"),
        (too_short, "fewer than 12 characters"),
        (both, "not both"),
        (nobody, "is no age recipient"),
    ):
        assert refused.returncode == 2
        assert sentence in refused.stderr
    assert b"-> scrypt " in out.read_bytes()[:60]
    opened = tmp_path / "opened.zip"
    opening = ("decrypt", str(out), "-o", str(opened), "--password-file")
    assert evidence(None, *opening, str(wrong)).returncode == 2
    assert not opened.exists()
    assert evidence(None, *opening, str(password)).returncode == 0
    assert evidence(None, "verify", str(opened), "--public-key", str(key)).returncode == 0
    data = bytearray(out.read_bytes())
    data[-9] ^= 1
    out.write_bytes(data)
    opened.unlink()
    assert evidence(None, *opening, str(password)).returncode == 2
    assert not opened.exists()


# -------------------------------------------------------------------------------- what stops it


def nothing_left(folder: Path, out: Path) -> None:
    assert not out.exists()
    assert [path.name for path in folder.iterdir() if path.name.endswith(".part")] == []


async def test_nothing_is_made_before_it_is_approved_and_never_of_what_was_not_asked(
    tmp_path: Path,
) -> None:
    async with case(tmp_path) as one:
        await one.public_key()
        out = tmp_path / "p.zip"
        words = ("export", one.call_id, "-o", str(out))
        waiting = await one.run(*words)
        path = f"/requests/{one.request_id}/refuse"
        await post(one.desk, path, one.desk.supervisor, reason="이 통화에는 폭언이 없습니다.")
        refused = await one.run(*words)
        no_token = await one.run(*words, token="")
        agent = await one.run(*words, token=one.desk.agent)
        stranger = await one.run(*words, token="cs_nobody")
        unknown = await one.run("export", "f" * 32, "-o", str(out), "--no-recording")
        none = events_of(one, "recording.opened") + events_of(one, "evidence.exported")
    assert none == [], "nothing was opened"
    for done, sentence in (
        (waiting, "was not approved: nobody has approved it yet"),
        (refused, "was not approved: it was refused"),
        (no_token, "say who you are"),
        (agent, "give the token of a supervisor"),
        (stranger, "give the token of a supervisor"),
        (unknown, "store does not know the call"),
    ):
        assert done.returncode == 2, done.stdout
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    nothing_left(tmp_path, out)


async def test_a_supervisor_makes_packages_of_the_own_teams_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLSHIELD_AGENTS__1001__TEAM", "north")
    monkeypatch.setenv("CALLSHIELD_AGENTS__1002__TEAM", "south")
    async with case(tmp_path, TEAMS) as one:
        await one.public_key()
        await one.approve()
        words = ("export", one.call_id, "-o", str(tmp_path / "p.zip"), "--no-recording")

        async def tied(name: str) -> str:
            made = await asyncio.to_thread(
                command,
                one.config,
                *("token", "create", "--role", "supervisor", "--name", f"desk {name}"),
                *("--supervisor", name),
            )
            return made.stdout.strip()

        theirs = await one.run(*words, token=await tied("d"))
        own = await one.run(*words, token=await tied("a"))
    assert theirs.returncode == 2
    assert "does not know the call" in theirs.stderr
    assert own.returncode == 0, own.stderr


async def test_a_call_that_nobody_asked_for(tmp_path: Path) -> None:
    async with case(tmp_path, ask=False) as one:
        await one.public_key()
        done = await one.run("export", one.call_id, "-o", str(tmp_path / "p.zip"))
    assert done.returncode == 2
    assert "its agent did not ask for the evidence of this call" in done.stderr


async def test_while_the_call_runs_no_package_is_made(tmp_path: Path) -> None:
    async with case(tmp_path, ask=False) as one:
        await one.public_key()
        live = one.bridge.start_call()
        await one.agent.until("call.answered", call_id=live)
        await asyncio.to_thread(record_call, one.recording, live, one.caller, one.other)
        asked = await post(one.desk, f"/calls/{live}/after", one.desk.agent, action="evidence")
        await post(one.desk, f"/requests/{asked['request_id']}/approve", one.desk.supervisor)
        out = tmp_path / "p.zip"
        for more in ((), ("--no-recording",)):
            done = await one.run("export", live, "-o", str(out), *more)
            assert done.returncode == 2
            assert "the call still runs" in done.stderr
            nothing_left(tmp_path, out)
        one.bridge.end_call(live)
        await one.agent.until("call.ended", call_id=live)
        # The control: the same command, when the call has ended.
        done = await one.run("export", live, "-o", str(out), "--no-transcript")
        assert done.returncode == 0, done.stderr


async def test_a_deleted_recording_and_one_that_never_was(tmp_path: Path) -> None:
    async with case(tmp_path) as one:
        await one.public_key()
        await one.approve()
        for item in stored(one.recording, one.call_id):
            path_of(one.recording, item).unlink()
        out = tmp_path / "p.zip"
        deleted = await one.run("export", one.call_id, "-o", str(out))
        nothing_left(tmp_path, out)
        never = await one.run("export", "e" * 32, "-o", str(out))
        shutil.rmtree(one.recording.directory)
        no_folder = await one.run("export", one.call_id, "-o", str(out))
        assert events_of(one, "recording.opened") == []
        rest = await one.export("--no-recording")
        both = await one.run(
            "export", one.call_id, "-o", str(out), "--no-recording", "--unredacted"
        )
        (made,) = events_of(one, "evidence.exported")
    for done, sentence in (
        (deleted, "it was deleted since"),
        (never, "it was never made"),
        (no_folder, "it was deleted since"),
        (both, "leave --no-recording out"),
    ):
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    assert made["whole"] is False
    assert {"recording.flac", "transcript_redacted.json"} & set(files_of(rest)) == set()


async def test_a_recording_that_was_changed_makes_no_package(tmp_path: Path) -> None:
    async with case(tmp_path) as one:
        await one.public_key()
        await one.approve()
        (item,) = stored(one.recording, one.call_id)
        path = path_of(one.recording, item)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        out = tmp_path / "p.zip"
        done = await one.run("export", one.call_id, "-o", str(out))
    assert done.returncode == 2
    assert "changed" in done.stderr
    nothing_left(tmp_path, out)


async def test_what_is_there_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    async with case(tmp_path) as one:
        await one.public_key()
        await one.approve()
        out = tmp_path / "p.zip"
        out.write_bytes(b"mine")
        words = ("export", one.call_id, "-o", str(out), "--no-recording")
        done = await one.run(*words)
        assert done.returncode == 2
        assert "is there already" in done.stderr
        assert out.read_bytes() == b"mine"
        assert events_of(one, "recording.opened") == []
        done = await one.run(*words, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert files_of(out)
        nowhere = await one.run("export", one.call_id, "-o", str(tmp_path / "no" / "p.zip"))
        assert nowhere.returncode == 2
        assert "cannot be written" in nowhere.stderr
    assert [path.name for path in files_below(tmp_path) if ".zip" in path.name] == ["p.zip"]


async def test_on_a_full_disk_nothing_half_written_stays(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    prefix = mount_command(small)
    if prefix is None:
        pytest.skip("neither root nor a user namespace may mount a tmpfs here")
    async with case(tmp_path / "node") as one:
        await one.public_key()
        await one.approve()

        def fill_and_export(spare_kib: int) -> subprocess.CompletedProcess[str]:
            script = (
                'dd if=/dev/zero of="$0/filler" bs=1k count="$1" 2>/dev/null; shift; '
                '"$@"; code=$?; ls -A "$0"; exit $code'
            )
            line = [sys.executable, "-m", "callshield.cli", "evidence", "export", one.call_id]
            line += ["-o", str(small / "p.zip"), "--no-transcript"]
            line += ["--config", str(one.config)]
            return subprocess.run(
                [*prefix, "sh", "-c", script, str(small), str(1024 - spare_kib), *line],
                capture_output=True,
                text=True,
                env={**os.environ, TOKEN_VARIABLE: one.admin},
            )

        for spare_kib in (8, 120, 250):
            done = await asyncio.to_thread(fill_and_export, spare_kib)
            assert done.returncode == 2, (spare_kib, done.stdout)
            assert "space" in done.stderr.lower()
            assert "Traceback" not in done.stderr
            assert done.stdout.split() == ["filler"], spare_kib
        # The control: the same place with room enough.
        room = await asyncio.to_thread(fill_and_export, 1020)
        assert room.returncode == 0, room.stderr
        assert "p.zip" in room.stdout
        assert len(events_of(one, "evidence.exported")) == 1, "what was not written is not told"


async def test_killed_in_the_middle_it_leaves_nothing(tmp_path: Path) -> None:
    async with case(tmp_path / "node") as one:
        await one.public_key()
        await one.approve()
        folder = tmp_path / "out"
        folder.mkdir()
        script = (
            "import os, signal, sys\n"
            "import notifier.evidence_manifest as m\n"
            "write = m.write_package\n"
            "def die(*a):\n"
            "    write(*a)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "m.write_package = die\n"
            "from callshield.cli import main\n"
            "main()\n"
        )
        words = ["evidence", "export", one.call_id, "-o", str(folder / "p.zip")]
        words += ["--no-transcript", "--config", str(one.config)]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", script, *words],
            env={**os.environ, TOKEN_VARIABLE: one.admin},
            check=False,
        )
        assert done.returncode == -9
        assert list(folder.iterdir()) == []
        assert events_of(one, "evidence.exported") == []


async def test_without_a_running_node_a_key_or_a_font_nothing_is_opened(tmp_path: Path) -> None:
    async with case(tmp_path) as one:
        await one.approve()
        out = tmp_path / "p.zip"
        words = ("export", one.call_id, "-o", str(out), "--no-recording")
        no_key = await one.run(*words)
        await one.public_key()
        no_font = await one.run(*words, CALLSHIELD_EVIDENCE__FONT=str(tmp_path / "none.ttc"))
        not_a_font = await one.run(*words, CALLSHIELD_EVIDENCE__FONT=str(one.config))
        lang = await one.run(*words, "--lang", "fr")
        config, admin, call_id = one.config, one.admin, one.call_id
        assert events_of(one, "recording.opened") == []
    off = evidence(config, "export", call_id, "-o", str(out), "--no-recording", token=admin)
    for done, sentence in (
        (no_key, "callshield evidence key"),
        (no_font, "there is no file"),
        (not_a_font, "font"),
        (lang, "one of ko, en, zh, ja"),
        (off, "start the node"),
    ):
        assert done.returncode == 2, done.stdout
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    nothing_left(tmp_path, out)


async def test_the_notifier_gives_no_package_out_that_it_could_not_record(tmp_path: Path) -> None:
    """It dies between opening and the end: the file has no name yet, and gets none."""
    async with case(tmp_path) as one:
        await one.public_key()
        await one.approve()
        out = tmp_path / "p.zip"
        wish = Wish(one.call_id, out, one.admin, Seal(), recording=False)
        asked: list[Any] = []

        async def once(path: Path, message: Any, kind: Any, within_s: float, silent: str) -> Any:
            asked.append(message)
            if isinstance(message, OpenEvidence):
                return await ask_bus(path, message, kind, within_s, silent)
            return EvidenceAnswer(request_id=message.request_id, refusal="the store is away")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("callshield.evidence_export.ask_bus", once)
            with pytest.raises(CallshieldError, match="the store is away"):
                await asyncio.to_thread(export_evidence, one.desk.settings, wish, lambda *_: None)
        assert len(asked) == 2
        nothing_left(tmp_path, out)


async def test_the_manifest_says_when_and_by_whom(tmp_path: Path) -> None:
    before = time.time()
    async with case(tmp_path) as one:
        key = await one.public_key()
        await one.approve()
        package = await one.export("--no-recording")
        about: Manifest = verify_package(package, load_public_key(key)).manifest
    assert before < about.requested_ts < about.approved_ts < about.made_ts < time.time()
    assert (about.exported_by_role, about.agent_id) == ("admin", "1001")
    assert about.request_id == one.request_id
    assert about.unredacted is False
