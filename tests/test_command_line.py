"""What a person meets on the command line: sentences, exit statuses, no traceback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from callshield.free_ports import free_port

CONFIG = """
[node]
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[sip.pbx]
port = {pbx}
rtp_ports = [20000, 24999]
[sip.phone]
port = {phone}
rtp_ports = [25000, 29999]
[[peers]]
name = "pbx"
networks = ["127.0.0.4"]
[agents.1001]
uri = "sip:1001@127.0.0.5"
[web]
port = {web}
{extra}
"""


def write(folder: Path, extra: str = "", **ports: int) -> Path:
    numbers = {name: free_port("127.0.0.1") for name in ("pbx", "phone", "web")} | ports
    path = folder / "callshield.toml"
    path.write_text(CONFIG.format(folder=folder, extra=extra, **numbers), encoding="utf-8")
    return path


def callshield(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "callshield.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_wrong_configuration_is_one_line_a_fault_and_nothing_starts(tmp_path: Path) -> None:
    path = write(tmp_path, '[notice]\nlanguage = "de"\n')
    for command in ("serve", "doctor"):
        done = callshield(command, "--config", str(path))
        assert done.returncode == 2
        assert f"{path}: notice.language: found 'de', expected one of" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_doctor_finds_nothing_wrong_with_a_good_machine(tmp_path: Path) -> None:
    done = callshield("doctor", "--config", str(write(tmp_path)))
    assert done.returncode == 0, done.stdout
    assert "call legs" in done.stdout
    assert "OpenSSL 3" in done.stdout
    assert "FAIL" not in done.stdout


def test_doctor_names_a_taken_port_and_a_missing_prompt(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        path = write(tmp_path, f'[notice]\nprompt_dir = "{tmp_path}/none"\n', pbx=port)
        done = callshield("doctor", "--config", str(path))
    assert done.returncode == 1
    assert f"127.0.0.1 port {port} cannot be opened" in done.stdout
    assert "none/ko/abuse_prevention.wav is missing: put the file there" in done.stdout


@pytest.mark.parametrize("fault", ["prompt", "port", "model", "folder"])
def test_serve_that_cannot_work_says_why_and_stops(tmp_path: Path, fault: str) -> None:
    ports: dict[str, int] = {}
    extra, expected = "", ""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", 0))
    match fault:
        case "prompt":
            extra = f'[notice]\nprompt_dir = "{tmp_path}/none"\n'
            expected = "is missing: put the file there"
        case "port":
            ports["pbx"] = taken.getsockname()[1]
            expected = "cannot be opened"
        case "model":
            (tmp_path / "model").mkdir()
            extra = f'[detector]\nmodel_dir = "{tmp_path}/model"\n'
            expected = "vocal_effort"
        case "folder":
            (tmp_path / "run").write_text("a file where a folder should be")
            expected = "cannot be made"
    path = write(tmp_path, extra, **ports)
    if fault == "model":
        # The node works without a model: it says so instead of stopping.
        done = callshield("doctor", "--config", str(path))
        assert done.returncode == 1
        assert expected in done.stdout
    else:
        done = callshield("serve", "--config", str(path))
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
    taken.close()


def test_analyze_does_the_others_when_one_file_cannot_be_read(tmp_path: Path) -> None:
    demo = Path(__file__).parent.parent / "callshield" / "demo_audio"
    good = shutil.copy(demo / "calm_2.wav", tmp_path / "calm.wav")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF nonsense")
    done = callshield("analyze", str(bad), str(good), "--no-asr", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [sorted(line) for line in lines] == [
        ["error", "file"],
        ["acoustic", "categories", "duration_s", "events", "file", "level"],
    ]
    assert lines[1]["level"] == 0


def test_token_needs_a_known_agent(tmp_path: Path) -> None:
    path = str(write(tmp_path))
    done = callshield("token", "create", "--role", "agent", "--name", "x", "--config", path)
    assert done.returncode == 2
    assert "1001" in done.stderr
    done = callshield(
        *("token", "create", "--role", "agent", "--agent", "1001", "--name", "x"),
        *("--config", path),
    )
    assert done.returncode == 0
    assert done.stdout.startswith("cs_")
