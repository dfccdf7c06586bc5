"""The kit itself: what needs no Asterisk, and what is said where there can be none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pbx.asterisk import DEPLOY, DOC_CALLSHIELD, DOC_PBX
from tests.pbx.asterisk_root import (
    READY,
    Maker,
    Mirror,
    NoAsteriskError,
    quiet_settings,
    read_mirrors,
)
from tests.pbx.jssip_packages import LOCK, NoJssipError, fetch, is_whole, packages, place
from tests.pbx.judges import read_cdr, read_channel_stats

ROOT = Path(__file__).resolve().parents[2]

TARGETS = """\
http://mirror.example/debian/|bookworm|bookworm|main|$(TRUSTED)
http://mirror.example/debian/|bookworm|bookworm|contrib|$(TRUSTED)
http://mirror.example/debian-security/|bookworm-security|bookworm-security|main|$(TRUSTED)
https://third.example/|other|other|main|yes
file:/srv/mirror/|bookworm|bookworm|main|yes
nonsense
"""

CHANNEL_STATS = """\

                                             ...........Receive......... .........Transmit..........
 BridgeId ChannelId ........ UpTime.. Codec.   Count    Lost Pct  Jitter   Count    Lost Pct  Jitter RTT....
 ===========================================================================================================

 0e2fb2a9 callshield-0000000 00:00:04 alaw       235       0    0   0.000    236       0    0   0.000   0.000
          pstn-00000000      00:00:04 alaw       12K       3    1   0.002    241       1    0   0.000   0.010
          1002-00000002      not valid

Objects found: 3
"""  # noqa: E501

CDR = (
    '"","01012345678","600","from-pstn","""a"" <01012345678>","PJSIP/pstn-00000000",'
    '"PJSIP/callshield-00000001","Queue","support,t,,,60","2026-11-22 05:59:49",'
    '"2026-11-22 05:59:50","2026-11-22 05:59:55",6,5,"ANSWERED","DOCUMENTATION",'
    '"test-1795327973.0",""\n'
)


def test_mirrors_are_those_of_this_machines_own_release() -> None:
    assert read_mirrors(TARGETS, "bookworm") == [
        Mirror("http://mirror.example/debian/"),
        Mirror("file:/srv/mirror/", trusted=True),
    ]
    assert read_mirrors(TARGETS, "trixie") == []


def test_settings_that_travel_are_those_of_fetching() -> None:
    dump = 'Acquire::http::Proxy "http://proxy.example:3142";\nDpkg::Lock "0";\n'
    assert quiet_settings(dump) == ['Acquire::http::Proxy "http://proxy.example:3142";']


def test_judges_read_what_asterisk_prints() -> None:
    ours, pstn = read_channel_stats(CHANNEL_STATS)
    assert (ours.channel, ours.codec, ours.received, ours.sent) == (
        *("callshield-0000000", "alaw"),
        *(235, 236),
    )
    assert (pstn.received, pstn.received_lost, pstn.sent_lost) == (12000, 3, 1)
    (row,) = read_cdr(CDR)
    assert (row.source, row.destination, row.disposition) == ("01012345678", "600", "ANSWERED")
    assert (row.duration_s, row.answered_s, row.unique_id) == (6, 5, "test-1795327973.0")


def test_files_to_copy_hold_no_address_but_the_documentations() -> None:
    found = set()
    for path in DEPLOY.glob("*.conf"):
        found |= set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", path.read_text(encoding="utf-8")))
    assert {DOC_PBX, DOC_CALLSHIELD} <= found
    assert found <= {DOC_PBX, DOC_CALLSHIELD, "0.0.0.0", "255.255.255.255"}


def test_page_names_every_file_and_every_suite() -> None:
    page = (ROOT / "docs/pbx/asterisk.md").read_text(encoding="utf-8")
    for path in DEPLOY.glob("*.conf"):
        assert path.name in page, path.name
    named = set(re.findall(r"`(test_\w+)`", page))
    for name in named:
        assert (Path(__file__).parent / f"{name}.py").exists(), name


# ------------------------------------------------------------------------------ the root


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs in front of the machine's own: root, with a mirror."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(folder, "apt-get", 'echo "http://mirror.example/debian/|any|any|main|"')
    program(folder, "apt-config", "true")
    # unshare --mount PROGRAM ...: no namespace here, just the program.
    program(folder, "unshare", 'shift; exec "$@"')
    monkeypatch.setattr("tests.pbx.asterisk_root.this_codename", lambda: "any")
    return folder


def maker(tmp_path: Path, said: list[str] | None = None) -> Maker:
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    return Maker(cache, cache / "log", (said if said is not None else []).append)


def test_a_root_that_is_ready_is_taken_and_nothing_is_run(tmp_path: Path) -> None:
    ready = tmp_path / "cache/asterisk-sid"
    ready.mkdir(parents=True)
    (ready / READY).write_text("sid Asterisk 22\n", encoding="utf-8")
    assert maker(tmp_path).root(("bullseye", "sid")) == ready


def test_half_made_root_is_neither_taken_nor_left(tmp_path: Path, machine: Path) -> None:
    """debootstrap gets half way and fails; so does the next suite."""
    program(machine, "debootstrap", 'for w; do f=$p; p=$w; done; mkdir -p "$f/usr/sbin"; exit 1')
    said: list[str] = []
    with pytest.raises(NoAsteriskError, match=r"bullseye: no mirror .* sid: no mirror"):
        maker(tmp_path, said).root(("bullseye", "sid"))
    assert not list((tmp_path / "cache").glob("asterisk-*"))
    assert any("Debian bullseye" in line for line in said)
    assert "http://mirror.example/debian/" in (tmp_path / "cache/log").read_text()


def test_left_over_of_a_killed_setup_is_removed(tmp_path: Path, machine: Path) -> None:
    program(machine, "debootstrap", "exit 1")
    old = tmp_path / "cache/asterisk-sid.part-1"
    old.mkdir(parents=True)
    with pytest.raises(NoAsteriskError):
        maker(tmp_path).root(("sid",))
    assert not old.exists()


@pytest.mark.parametrize(
    ("user", "unshare", "sentence"),
    [(1000, "exit 0", "only root"), (0, "exit 1", "mount namespaces")],
)
def test_no_rights_are_a_sentence(
    tmp_path: Path,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    unshare: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    program(machine, "unshare", unshare)
    with pytest.raises(NoAsteriskError, match=sentence):
        maker(tmp_path).root()


@pytest.mark.parametrize(
    ("variables", "status", "text"),
    [
        ({}, 0, "./run test-pbx"),
        ({"CALLSHIELD_ASTERISK_MISSING": "no mirror"}, 1, "no Asterisk: no mirror"),
        (
            {"CALLSHIELD_ASTERISK_MISSING": "no mirror", "CALLSHIELD_ASTERISK_ALLOW_MISSING": "1"},
            0,
            "no Asterisk: no mirror",
        ),
    ],
    ids=["not asked for", "asked for", "allowed to be missing"],
)
def test_what_cannot_run_says_why_and_is_counted(
    variables: dict[str, str], status: int, text: str, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CALLSHIELD_ASTERISK")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "tests/pbx/test_notice.py",
            f"--basetemp={tmp_path / 'b'}",
        ],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert text in done.stdout
    assert ("3 skipped" in done.stdout) == (status == 0)


# ------------------------------------------------------------------------------ the browser phone


def installed(folder: Path, **other: str) -> None:
    """What npm leaves behind: each package in its version, or in another one."""
    for name, version in {**packages(), **other}.items():
        about = folder / "node_modules" / name / "package.json"
        about.parent.mkdir(parents=True)
        about.write_text(json.dumps({"version": version}), encoding="utf-8")


def test_every_package_is_pinned_by_hash_and_by_no_address() -> None:
    text = LOCK.read_text(encoding="utf-8")
    entries = {path: e for path, e in json.loads(text)["packages"].items() if path}
    assert "node_modules/jssip" in entries
    assert all(entry["integrity"].startswith("sha512-") for entry in entries.values())
    assert "resolved" not in text
    assert "://" not in text
    assert "://" not in LOCK.with_name("npm.lock").read_text(encoding="utf-8")


def test_what_npm_fetched_is_kept_and_another_version_is_not_taken(tmp_path: Path) -> None:
    kept = place(tmp_path)
    installed(kept)
    assert fetch(tmp_path, tmp_path / "log") == kept
    assert not (tmp_path / "log").exists()
    installed(tmp_path / "other", jssip="3.13.7")
    assert not is_whole(tmp_path / "other")


@pytest.mark.parametrize(
    ("npm", "sentence"),
    [("exit 1", "registry"), ("mkdir node_modules", "something else")],
    ids=["fails", "installs something else"],
)
def test_npm_that_fetches_nothing_is_a_sentence_and_nothing_half_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: str, sentence: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "npm", npm)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    with pytest.raises(NoJssipError, match=sentence):
        fetch(cache, tmp_path / "log")
    assert not list(cache.iterdir())
