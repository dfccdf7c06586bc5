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
from detectors.asr.load import default_model_dir

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
    # Where the speech model's packages are gone a machine is good without words.
    installed = (default_model_dir() / "model.bin").exists()
    words = "" if installed else "[transcriber]\nworkers = 0\n"
    done = callshield("doctor", "--config", str(write(tmp_path, words)))
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


def test_doctor_names_a_corrupt_speech_model(tmp_path: Path) -> None:
    from detectors.acoustic import CARD_FILE, MODEL_FILE, SHIPPED
    from detectors.silero import MODEL_FILE as SPEECH_FILE

    models = tmp_path / "models"
    models.mkdir()
    for name in (MODEL_FILE, CARD_FILE):
        (models / name).write_bytes((SHIPPED / name).read_bytes())
    path = write(tmp_path, f'[detector]\nmodel_dir = "{models}"\n')
    assert "Silero VAD at 8 kHz" in callshield("doctor", "--config", str(path)).stdout
    (models / SPEECH_FILE).write_bytes(b"torn")
    done = callshield("doctor", "--config", str(path))
    assert done.returncode == 1
    assert "speech model" in done.stdout
    assert "is not the one of this version" in " ".join(done.stdout.split())


@pytest.mark.parametrize("fits", [True, False])
def test_doctor_names_thresholds_that_were_found_for_another_model(
    tmp_path: Path, fits: bool
) -> None:
    from detectors.acoustic import CARD_FILE, SHIPPED, load_card

    ours = load_card(SHIPPED / CARD_FILE).sha256[:12]
    model = ours if fits else "0123456789ab"
    found = f'[detector.thresholds]\nserious = 0.9\nmodel = "{model}"\n'
    words = "[transcriber]\nworkers = 0\n"
    done = callshield("doctor", "--config", str(write(tmp_path, found + words)))
    said = " ".join(done.stdout.split())
    assert done.returncode == (0 if fits else 1), said
    assert ("thresholds of detector.thresholds were found for another" in said) is not fits
    assert ("run callshield calibrate anew" in said) is not fits


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


def test_a_supervisors_token_is_tied_to_somebody_configured(tmp_path: Path) -> None:
    path = str(write(tmp_path, '[supervisors.lee]\nuri = "sip:2001@192.0.2.31:5060"'))
    made = ("token", "create", "--role", "supervisor", "--name", "x", "--config", path)
    wrong = callshield(*made, "--supervisor", "kim")
    assert wrong.returncode == 2
    assert "configured supervisors (lee)" in wrong.stderr
    assert callshield(*made, "--supervisor", "lee").stdout.startswith("cs_")
    assert "lee" in callshield("token", "list", "--config", path).stdout


@pytest.mark.parametrize("torn", [True, False])
def test_analyze_says_what_it_works_without(tmp_path: Path, torn: bool) -> None:
    from detectors.acoustic import CARD_FILE, MODEL_FILE, SHIPPED
    from detectors.silero import MODEL_FILE as SPEECH_FILE

    for name in (MODEL_FILE, CARD_FILE):
        shutil.copy(SHIPPED / name, tmp_path / name)
    if torn:
        (tmp_path / SPEECH_FILE).write_bytes(b"torn")
    calm = Path(__file__).parent.parent / "callshield" / "demo_audio" / "calm_2.wav"
    done = callshield("analyze", str(calm), "--no-asr", "--json", "--model-dir", str(tmp_path))
    assert done.returncode == 0
    assert json.loads(done.stdout)["level"] == 0
    assert ("is not the one of this version" in done.stderr) is torn


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
