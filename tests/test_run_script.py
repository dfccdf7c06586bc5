"""The `run` script where things are missing: a sentence that says what to do, and exit status 1.

That it sets up a fresh machine is seen by everybody who runs these tests through it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What the script may use of the machine; apt, sudo and the compiler are not among it.
PROGRAMS = (
    *("basename", "cat", "cut", "date", "dirname", "env", "flock"),
    *("grep", "head", "mkdir", "sed", "sha256sum", "sh", "tail"),
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with white space in its path, and none of what a set-up makes."""
    folder = tmp_path / "a fresh clone"
    for name in ("run", "pyproject.toml"):
        folder.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    for package in ("callshield", "sipbridge", "sipbridge/pjsua2_build"):
        (folder / package).mkdir()
        for file in (ROOT / package).iterdir():
            if file.is_file():
                shutil.copy2(file, folder / package / file.name)
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH, to which a test adds programs of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def add_program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(
    checkout: Path, *arguments: str, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path) if path else os.environ["PATH"], **variables}
    return subprocess.run(
        [str(checkout / "run"), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command(checkout: Path) -> None:
    result = run(checkout, "help")
    assert result.returncode == 0
    for command in ("setup", "demo", "test", "bench", "lint", "doctor", "serve"):
        assert command in result.stdout
    assert run(checkout).stdout == result.stdout


def test_unknown_command_and_option_are_named(checkout: Path) -> None:
    result = run(checkout, "frobnicate")
    assert result.returncode == 1
    assert "there is no command 'frobnicate'" in result.stderr
    result = run(checkout, "setup", "--fast")
    assert result.returncode == 1
    assert "setup does not know '--fast'" in result.stderr
    result = run(checkout, "setup", "--pjproject", "/no/such/file")
    assert result.returncode == 1
    assert "There is no pjproject source at /no/such/file" in result.stderr


def test_neither_root_nor_sudo_names_the_packages(checkout: Path, programs: Path) -> None:
    add_program(programs, "id", "echo 1000")
    add_program(programs, "dpkg-query", "exit 1")
    result = run(checkout, "setup", path=programs)
    assert result.returncode == 1
    assert "neither root nor sudo" in result.stderr
    assert "apt-get install --no-install-recommends ca-certificates python3 python3-venv" in (
        result.stderr
    )
    # HOME was not set either: the log is in the checkout.
    assert (checkout / ".cache" / "callshield" / "setup.log").exists()


def test_sudo_that_wants_a_password_nobody_can_type_is_a_sentence(
    checkout: Path, programs: Path
) -> None:
    add_program(programs, "id", "echo 1000")
    add_program(programs, "dpkg-query", "exit 1")
    add_program(programs, "sudo", "exit 1")
    result = run(checkout, "setup", path=programs)
    assert result.returncode == 1
    assert "sudo wants a password" in result.stderr


def test_apt_that_cannot_reach_its_mirror_is_a_sentence(checkout: Path, programs: Path) -> None:
    add_program(programs, "id", "echo 0")
    add_program(programs, "dpkg-query", "exit 1")
    add_program(programs, "apt-get", 'echo "E: could not resolve mirror.example"; exit 100')
    result = run(checkout, "setup", path=programs)
    assert result.returncode == 1
    assert "E: could not resolve mirror.example" in result.stderr
    assert "apt-get update failed: is the network up" in result.stderr


def test_only_missing_packages_are_installed(checkout: Path, programs: Path) -> None:
    add_program(programs, "id", "echo 0")
    add_program(
        programs, "dpkg-query", 'case "$3" in python3-venv) exit 1 ;; *) printf installed ;; esac'
    )
    add_program(programs, "apt-get", 'echo "$@"; exit 100')
    result = run(checkout, "setup", path=programs)
    assert "install --no-install-recommends python3-venv\n" in result.stderr


def test_old_python_is_named(checkout: Path, programs: Path) -> None:
    python = add_program(
        programs, "python3.9", 'case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac'
    )
    result = run(checkout, "setup", path=programs, CALLSHIELD_PYTHON=str(python))
    assert result.returncode == 1
    assert f"Callshield needs Python 3.11 or newer; {python} is Python 3.9.2" in result.stderr
    result = run(checkout, "setup", path=programs, CALLSHIELD_PYTHON="/no/python")
    assert result.returncode == 1
    assert "There is no Python at /no/python" in result.stderr


def test_cache_that_cannot_be_made_is_a_sentence(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run(checkout, "setup", CALLSHIELD_CACHE=str(tmp_path / "file" / "cache"))
    assert result.returncode == 1
    assert "cannot be written to: set CALLSHIELD_CACHE" in result.stderr
