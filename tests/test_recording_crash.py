"""Real processes, a real kill, a real full file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sipbridge.recording_export import export_call
from sipbridge.recording_reader import describe
from sipbridge.recording_store import RecordingStore
from tests.recording_kit import WAIT_S, call_id, frames, keys_of, settings_in, stored

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def child(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.recording_child", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def lines(process: subprocess.Popen[str], seconds: float = WAIT_S) -> Iterator[str]:
    assert process.stdout is not None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        line = process.stdout.readline()
        if not line:
            return
        yield line


def steady(fed: list[int]) -> bool:
    """Whether the process has kept time in its last 1.6 s: while the machine stands still nothing
    can be written, and what it was handed then says nothing."""
    gaps = [(after - before) / 1e9 for before, after in pairwise(fed[-80:])]
    return sum(max(gap - 0.04, 0) for gap in gaps) < 0.3


def seconds_lost(folder: Path, *options: str) -> tuple[float, float]:
    """Kill a recording process; how much of what it was handed is not in its file, and for how long
    was it handed something? In seconds."""
    call = call_id()
    config = settings_in(folder)
    fed: list[int] = []
    with child(str(folder), call, *options) as process:
        for line in lines(process):
            if line.startswith("fed"):
                fed.append(int(line.split()[1]))
            if len(fed) >= 110 and steady(fed):
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait(WAIT_S) == -signal.SIGKILL
    newest = fed[-1]
    (item,) = stored(config)
    kept = frames(config, item)
    last = max((at_ns for _, _, _, at_ns, _ in kept), default=newest - 10**12)
    info = describe(RecordingStore(config.directory), item, keys_of(config), whole=True)
    assert info.state == "ended_early"
    return (newest - last) / 1e9, (newest - fed[0]) / 1e9


def test_a_killed_process_loses_less_than_a_second_and_the_rest_is_exported(
    tmp_path: Path,
) -> None:
    lost_s, fed_s = seconds_lost(tmp_path)
    assert lost_s < 1.0
    config = settings_in(tmp_path)
    out = tmp_path / "call.wav"
    about = export_call(
        RecordingStore(config.directory), stored(config), keys_of(config), out
    ).sidecar
    assert about["parts"][0]["complete"] is False
    assert fed_s - 1.0 < about["length_s"] < fed_s + 0.5
    assert np.frombuffer(out.read_bytes()[44:], "<i2").any()


def test_the_measure_would_see_a_loss(tmp_path: Path) -> None:
    """Negative control: with chunks of 30 s the same kill loses more than a second."""
    lost_s, _ = seconds_lost(tmp_path, "--chunk-s", "30")
    assert lost_s > 1.0


def mount_command(folder: Path) -> tuple[str, ...] | None:
    """A command prefix that runs a program with a tmpfs of 1 MiB on ``folder``, or None."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("mount") is None:
        return None
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    prefix = (
        *(unshare, "--mount", *user, "sh", "-c"),
        'mount -t tmpfs -o size=1m,mode=700 tmpfs "$0" && exec "$@"',
        str(folder),
    )
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else None


def test_a_really_full_file_system_ends_the_recording_with_a_sentence(tmp_path: Path) -> None:
    config = settings_in(tmp_path)
    config.directory.mkdir(mode=0o700)
    prefix = mount_command(config.directory)
    if prefix is None:
        pytest.skip("neither root nor a user namespace may mount a tmpfs here")
    call = call_id()
    # min_free_mib is 1, as large as this disk: the space check must not come first.
    script = (
        "import sys, tests.recording_child as c, sipbridge.recorder as r;"
        "r._SPACE_CHECK_S = 1e9;"
        "r.Recorder._require_space = lambda *_: None;"
        "sys.argv[0:1] = ['child'];"
        "c.main()"
    )
    command = [*prefix, sys.executable, "-c", script, str(tmp_path), call, "--frames-at-once", "40"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    changes, fed_after = [], 0
    try:
        for line in lines(process):
            if line.startswith("change"):
                changes.append(line.split(maxsplit=3)[2:])
            elif len(changes) == 2:
                fed_after += 1
                if fed_after == 25:
                    break
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert [state for state, *_ in changes] == ["recording", "failed"]
    assert "is full: make space" in changes[1][1]
    assert fed_after == 25, "the process that feeds was held up"


@pytest.mark.parametrize("unhandled", [False, True])
def test_a_file_that_may_not_grow_ends_the_recording(tmp_path: Path, unhandled: bool) -> None:
    """RLIMIT_FSIZE needs no root; unhandled is the negative control: then nobody is told."""
    config, call = settings_in(tmp_path), call_id()
    options = ["--file-limit", "20000", *(["--unhandled"] if unhandled else [])]
    states = []
    with child(str(tmp_path), call, *options) as process:
        for number, line in enumerate(lines(process)):
            if line.startswith("change"):
                states.append(line.split()[2])
            if len(states) == 2 or (unhandled and number == 150):
                break
    assert states == (["recording"] if unhandled else ["recording", "failed"])
    if not unhandled:
        (item,) = stored(config)
        info = describe(RecordingStore(config.directory), item, keys_of(config), whole=True)
        assert info.state == "ended_early"
        assert len(frames(config, item)) > 10
