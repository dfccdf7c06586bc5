"""The units of deploy/systemd, judged by systemd's own tools; ``./run test-ops`` runs them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from callshield.settings import NodeSettings

UNITS = Path(__file__).parent.parent / "deploy" / "systemd"
#: How exposed each service may be, as `systemd-analyze security` scores it (0 best, 10 worst).
EXPOSURE = {"callshield.service": 1.5, "callshield-backup.service": 1.3}
SCORE = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")


@pytest.fixture(autouse=True)
def _systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is missing: `./run test` installs it (systemd)")


def verify(folder: Path, *changes: tuple[str, str]) -> str:
    """What ``systemd-analyze verify`` says of the units, installed in a folder; empty: nothing."""
    place = folder / "etc/systemd/system"
    place.mkdir(parents=True, exist_ok=True)
    for path in (*UNITS.glob("*.service"), *UNITS.glob("*.timer")):
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            text = text.replace(old, new)
        (place / path.name).write_text(text, encoding="utf-8")
    for program in ("opt/callshield/current/.venv/bin/callshield", "bin/sh"):
        path = folder / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    done = subprocess.run(
        [
            *("systemd-analyze", "verify", f"--root={folder}", "--recursive-errors=no"),
            *("callshield.service", "callshield-backup.service", "callshield-backup.timer"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr + ("" if done.returncode == 0 else f"status {done.returncode}")


def exposure(path: Path) -> float:
    """The score of ``systemd-analyze security``."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = SCORE.search(done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


def lines(name: str) -> dict[str, list[str]]:
    """Keys of a unit's [Service] or [Timer], each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_systemd_has_nothing_against_the_units(tmp_path: Path) -> None:
    assert verify(tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("NoNewPrivileges", "NoNewPrivilegez"), "Unknown key 'NoNewPrivilegez'"),
        (("ProtectSystem=strict", "ProtectSystem=strickt"), "Failed to parse"),
        (("SystemCallFilter=@system-service", "SystemCallFilter=@nothing"), "@nothing"),
        (("OnCalendar=*-*-* 03:17:00", "OnCalendar=nightly"), "Failed to parse calendar"),
    ],
)
def test_a_fault_in_a_unit_is_found(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    """Negative control: systemd itself would only ignore such a line, and all it protects."""
    assert said in verify(tmp_path, change)


@pytest.mark.parametrize("name", EXPOSURE)
def test_the_services_stay_locked_down(name: str, tmp_path: Path) -> None:
    assert exposure(UNITS / name) <= EXPOSURE[name]
    # Negative control: what a line less costs, and none at all.
    loose = tmp_path / name
    text = (UNITS / name).read_text(encoding="utf-8")
    loose.write_text(re.sub(r"^CapabilityBoundingSet=\n", "", text, flags=re.MULTILINE))
    assert exposure(loose) > EXPOSURE[name]
    loose.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(loose) > 9


def test_what_a_node_needs_is_granted_and_no_more() -> None:
    unit = lines("callshield.service")
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["RestrictRealtime"] == ["no"]
    assert int(unit["LimitRTPRIO"][0]) >= 10  # sipbridge.media_worker.REALTIME_PRIORITY
    assert int(unit["LimitNOFILE"][0]) >= 4 * 1200
    # Without it the kernel's killing of the transcriber ends the node, and with it every call.
    assert unit["OOMPolicy"] == ["continue"]
    assert unit["LimitCORE"] == ["0"]


def test_systemd_waits_long_enough_for_what_the_supervisor_mends_by_itself() -> None:
    """A watchdog shorter than the supervisor's own patience would end calls for nothing."""
    unit = lines("callshield.service")
    assert unit["Type"] == ["notify"]
    assert unit["KillMode"] == ["control-group"]
    assert _seconds(unit["WatchdogSec"][0]) > NodeSettings().hang_timeout_s
    assert _seconds(unit["TimeoutStopSec"][0]) > NodeSettings().stop_timeout_s + 5
    assert unit["WatchdogSignal"] == ["SIGTERM"]


def _seconds(value: str) -> float:
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
    found = re.fullmatch(r"([0-9.]+)(ms|s|min|h)", value)
    assert found is not None
    return float(found[1]) * units[found[2]]


def test_the_drop_in_for_low_ports_grants_one_capability() -> None:
    drop_in = configparser.ConfigParser(strict=False)
    drop_in.read(UNITS / "low-ports.conf")
    service = drop_in["Service"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"]
    assert service["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"


def test_the_wrapper_has_the_services_rights_and_secrets() -> None:
    text = (UNITS / "callshieldctl").read_text(encoding="utf-8")
    assert (
        "--property=" + "LoadCredential=" + lines("callshield.service")["LoadCredential"][0] in text
    )
    assert "--uid=callshield" in text
    subprocess.run(["sh", "-n", str(UNITS / "callshieldctl")], check=True)
