"""What a node writes is its own user's, whatever umask it was started under."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from sipbridge.descriptors import allow_many_files
from tests.peers.node import running_node

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]


def open_to_others(folder: Path) -> list[str]:
    """Paths below a folder that somebody else may read, write or enter."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            continue  # the node's own: a journal, or what is renamed when it is whole
        if mode & 0o077:
            found.append(f"{path.relative_to(folder)} {mode:04o}")
    return found


async def test_no_socket_database_or_key_is_open_to_others(tmp_path: Path) -> None:
    usual = os.umask(0)
    try:
        async with running_node(
            tmp_path / "node",
            {"1001": "sip:1001@127.0.42.45:5999"},
            sides=("127.0.42.42", "127.0.42.43"),
            peer="127.0.42.44",
        ) as node:
            state, run = node.settings.node.state_dir, node.settings.node.runtime_dir
            found = {path.name for folder in (state, run) for path in folder.rglob("*")}
            assert len([name for name in found if name.endswith(".sock")]) >= 3, found
            assert [name for name in found if name.endswith(".sqlite3")], found
            assert open_to_others(run) == []
            assert open_to_others(state) == []
            assert not stat.S_IMODE(run.stat().st_mode) & 0o077
        # The negative control: what this test itself made under that umask.
        assert node.log_path.name in " ".join(open_to_others(tmp_path / "node"))
    finally:
        os.umask(usual)


def test_the_limit_of_files_is_raised_and_never_lowered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_many_files(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
        allow_many_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
