"""``callshield recordings``: the commands as an operator types them."""

from __future__ import annotations

import io
import json
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from callshield.cli import app, main
from callshield.doctor import examine
from callshield.findings import Finding
from callshield.messages_fairness import OpenRecording
from callshield.notifier_request import TOKEN_VARIABLE
from callshield.settings import load_settings
from sipbridge.recorder import Recorder
from sipbridge.recording_keys import KEY_VARIABLE
from tests.door_keeper import door_keeper
from tests.recording_kit import Changes, call_id, path_of, record, settings_in, stored


@dataclass(frozen=True)
class Result:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


class Node:
    """A configuration file and two recorded calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = settings_in(folder)
        self.config = folder / "callshield.toml"
        self.config.write_text(
            f"""
            [node]
            state_dir = "{folder / "state"}"
            runtime_dir = "{folder / "run"}"
            [[peers]]
            name = "pbx"
            networks = ["127.0.0.1"]
            [agents.1001]
            uri = "sip:1001@127.0.0.1"
            [recording]
            enabled = true
            min_free_mib = 1
            directory = "{self.settings.directory}"
            key_file = "{self.settings.key_file}"
            """
        )
        self.asked: list[OpenRecording] = []
        self.calls = [call_id(), call_id()]
        recorder = Recorder(self.settings, Changes())
        for call in self.calls:
            recorder.start(call)
            for n in range(50):
                recorder.feed(record(call, n % 2, timestamp=160 * (n // 2)))
            recorder.pause(call)
            recorder.resume(call)
            recorder.stop(call)
        recorder.close()

    def run(self, *arguments: str, **variables: str) -> Result:
        """As typed in the folder of the configuration; an export for a complaint, by somebody."""
        if arguments[0] == "export" and "--draw" not in arguments:
            arguments += ("--complaint", "C-1", "--reason", "the caller complained in writing")
        return self.run_as_is(*arguments, **{TOKEN_VARIABLE: "cs_somebody", **variables})

    def run_as_is(self, *arguments: str, **variables: str) -> Result:
        """As typed in the folder of the configuration."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(self.folder)
            patched.setattr(
                sys, "argv", ["callshield", "recordings", *arguments, "--config", str(self.config)]
            )
            for name, value in variables.items():
                patched.setenv(name, value)
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, out.getvalue(), err.getvalue())

    def lines(self, *arguments: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.run(*arguments, "--json").stdout.splitlines()]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    with door_keeper(load_settings(made.config).bus_path) as made.asked:
        yield made


def test_without_a_reason_a_token_or_a_node_no_recording_opens(tmp_path: Path) -> None:
    node, call = Node(tmp_path), ""
    call = node.calls[0]
    token = {TOKEN_VARIABLE: "cs_somebody"}
    why = ("--complaint", "C-1", "--reason", "the caller complained in writing")
    for arguments, variables, sentence in (
        ((), token, "opens through one of --draw ID"),
        (("--draw", "a", "--request", "b"), token, "opens through one of --draw ID"),
        (("--complaint", "C-1"), token, "--complaint with --reason"),
        (("--draw", "a", "--reason", "because"), token, "--reason goes with --complaint"),
        (why, {TOKEN_VARIABLE: ""}, "say who you are"),
        (why, token, "the notifier of this node does not answer"),
    ):
        result = node.run_as_is("export", call, *arguments, **variables)
        assert result.returncode == 2
        assert sentence in result.stderr
    bus = load_settings(node.config).bus_path
    with door_keeper(bus, "not_now", "this draw is void") as asked:
        refused = node.run("export", call, "--draw", "d" * 32)
        assert refused.returncode == 2
        assert "stays closed: this draw is void" in refused.stderr
    assert not list(node.folder.glob("*.wav"))
    with door_keeper(bus) as asked:
        assert node.run("export", call, "--draw", "d" * 32).returncode == 0
        (one,) = asked
        assert (one.call_id, one.why, one.ref, one.token) == (
            call,
            "draw",
            "d" * 32,
            "cs_somebody",
        )
    assert len(list(node.folder.glob("*.wav"))) == 1


def test_a_token_from_a_file_that_others_can_read_is_refused(node: Node) -> None:
    file = node.folder / "token"
    file.write_text("cs_of_a_file\n")
    file.chmod(0o644)
    shown = node.run("export", node.calls[0], "--token-file", str(file))
    assert "chmod 600" in shown.stderr
    file.chmod(0o600)
    assert node.run("export", node.calls[0], "--token-file", str(file)).returncode == 0
    assert [request.token for request in node.asked] == ["cs_of_a_file"]


def test_the_commands_are_there() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    recordings = groups["recordings"]
    assert recordings is not None
    names = {command.name for command in recordings.registered_commands}
    assert names == {"list", "export", "verify", "rotate-key", "purge", "new-key"}


def test_list_shows_whole_ids_times_and_pauses(node: Node) -> None:
    result = node.run("list")
    assert result.returncode == 0
    for call in node.calls:
        assert call in result.stdout
    for line, call in zip(node.lines("list"), sorted(node.calls), strict=True):
        assert (line["call_id"], line["state"], line["ended"]) == (call, "complete", "stopped")
        assert len(line["pauses"]) == 1  # type: ignore[arg-type]
    assert len(node.lines("list", node.calls[0])) == 1


def test_export_writes_a_wav_that_others_read(node: Node) -> None:
    call = node.calls[0]
    result = node.run("export", call)
    assert result.returncode == 0, result.stderr
    with wave.open(str(node.folder / f"{call}.wav"), "rb") as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
    assert json.loads((node.folder / f"{call}.wav.json").read_text())["call_id"] == call
    again = node.run("export", call)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert node.run("export", call, "--overwrite").returncode == 0


def test_faults_are_sentences(node: Node) -> None:
    for arguments, sentence in (
        (("export", "../x"), "a call id has 32 small hexadecimal digits"),
        (("export", call_id()), "there is no recording of call"),
        (("new-key",), "rotate-key"),
    ):
        result = node.run(*arguments)
        assert result.returncode == 2
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr
    wrong = node.run("export", node.calls[0], **{KEY_VARIABLE: "ab" * 32})
    assert wrong.returncode == 2
    assert "that opens this recording is not here" in wrong.stderr


def test_verify_finds_the_one_that_was_changed(node: Node) -> None:
    assert node.run("verify").returncode == 0
    item = stored(node.settings, node.calls[1])[0]
    path = path_of(node.settings, item)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = node.run("verify")
    assert result.returncode == 1
    states = {line["call_id"]: line["state"] for line in node.lines("verify")}
    assert states == {node.calls[0]: "complete", node.calls[1]: "damaged"}
    assert node.run("verify", node.calls[0]).returncode == 0


def test_rotate_keeps_everything_playable_and_forgets_when_told(node: Node) -> None:
    old_text = node.settings.key_file.read_text()
    old_keys = {str(line["keys"]) for line in node.lines("list")}
    result = node.run("rotate-key")
    assert result.returncode == 0, result.stderr
    assert "2 recordings brought to node key" in result.stdout
    assert node.run("verify").returncode == 0
    assert not old_keys & {str(line["keys"]) for line in node.lines("list")}
    result = node.run("rotate-key", "--forget-old")
    assert "2 old keys forgotten" in result.stdout
    assert node.run("verify").returncode == 0
    # The first key alone is worth nothing now.
    node.settings.key_file.write_text(old_text)
    assert node.run("verify").returncode == 1


def test_rotate_forgets_nothing_while_a_file_needs_it(node: Node) -> None:
    item = stored(node.settings)[0]
    path = path_of(node.settings, item)
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # in its key slot
    path.write_bytes(data)
    before = node.settings.key_file.read_text()
    result = node.run("rotate-key", "--forget-old")
    assert result.returncode == 2
    assert "1 recordings are as they were; all keys were kept" in result.stderr
    kept = node.settings.key_file.read_text()
    assert all(line in kept for line in before.splitlines() if line and not line.startswith("#"))


def test_keys_in_the_environment_are_rotated_there(node: Node) -> None:
    old = next(
        line.split()[0]
        for line in node.settings.key_file.read_text().splitlines()
        if not line.startswith("#")
    )
    fresh = "0123456789abcdef" * 4
    refused = node.run("rotate-key", **{KEY_VARIABLE: old})
    assert refused.returncode == 2
    assert "openssl rand -hex 32" in refused.stderr
    both = f"{fresh} {old}"
    assert node.run("rotate-key", "--rewrap-only", **{KEY_VARIABLE: both}).returncode == 0
    assert node.run("verify", **{KEY_VARIABLE: fresh}).returncode == 0
    assert node.run("verify", **{KEY_VARIABLE: old}).returncode == 1


def test_purge_deletes_what_is_too_old(node: Node) -> None:
    old = node.settings.directory / "2020-02-02"
    old.mkdir()
    (old / f"{call_id()}-1.csrec").write_bytes(b"")
    assert (
        "1 recordings older than 90 days would be deleted" in node.run("purge", "--dry-run").stdout
    )
    assert old.exists()
    assert "1 recordings older than 90 days deleted" in node.run("purge").stdout
    assert not old.exists()
    assert len(node.lines("list")) == 2


def test_doctor_says_what_recording_lacks(node: Node) -> None:
    def finding() -> Finding:
        return next(one for one in examine(load_settings(node.config)) if one.name == "recording")

    assert finding().ok
    assert "node key" in finding().detail
    node.settings.key_file.chmod(0o644)
    assert not finding().ok
    assert "chmod 600" in finding().detail
    node.settings.key_file.chmod(0o600)
    text = node.config.read_text()
    node.config.write_text(text.replace("min_free_mib = 1", "min_free_mib = 1000000000"))
    assert "recording.min_free_mib" in finding().detail
    node.config.write_text(text + '[notice]\nprompts = ["abuse_prevention"]\n')
    assert "no notice says so" in finding().detail
    node.config.write_text(text.replace("enabled = true", ""))
    assert (finding().ok, finding().detail) == (True, "off")


@pytest.mark.parametrize("codec", [9, 111])
def test_a_wide_band_call_is_exported_with_the_node_s_decoders(node: Node, codec: int) -> None:
    from callshield import audio_codecs
    from callshield.tap import TapCodec

    rate, seconds = 16000, 4
    spoken = np.rint(6000 * np.sin(2 * np.pi * 440 * np.arange(rate * seconds) / rate)).astype(
        np.int16
    )
    encoder = audio_codecs.encoder(TapCodec(codec), 20, rate)
    step = 960 if codec == 111 else 160
    call, changes = call_id(), Changes()
    recorder = Recorder(node.settings, changes)
    recorder.start(call)
    changes.expect(call, "recording")
    begin = time.time_ns()
    for n, payload in enumerate(encoder.encode(spoken)):
        recorder.feed(
            record(call, 0, payload, codec=codec, timestamp=n * step, at_ns=begin + n * 20_000_000)
        )
    recorder.stop(call)
    recorder.close()
    result = node.run("export", call)
    assert result.returncode == 0, result.stderr
    with wave.open(str(node.folder / f"{call}.wav"), "rb") as file:
        assert file.getframerate() == rate
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert abs(len(heard) - rate * seconds) < rate * 0.05
    middle = heard[rate : 3 * rate, 0].astype(float)
    peak = int(np.argmax(np.abs(np.fft.rfft(middle)))) * rate / len(middle)
    assert peak == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(6000 / np.sqrt(2), rel=0.1)
    assert not heard[:, 1].any()
