"""Where a secret may stand, for every secret of the node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callshield.errors import RecordingKeyError, SetupError
from callshield.private_file import read_private


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("geheim, 비밀\n", encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    assert read_private(secret, "x", SetupError) == "geheim, 비밀\n"
    assert read_private(secret, "x", SetupError, max_bytes=6) == "geheim"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_what_others_may_touch_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(SetupError, match=rf"^x .* has mode {mode:04o}.*chmod 600"):
        read_private(secret, "x", SetupError)


def test_no_link_pipe_or_folder_is_read(secret: Path, tmp_path: Path) -> None:
    link, pipe, folder = tmp_path / "link", tmp_path / "pipe", tmp_path / "folder"
    link.symlink_to(secret)
    os.mkfifo(pipe, 0o600)
    folder.mkdir(0o700)
    with pytest.raises(SetupError, match="cannot be read"):
        read_private(link, "x", SetupError)
    for path in (pipe, folder):
        with pytest.raises(SetupError, match="is not a plain file"):
            read_private(path, "x", SetupError)


def test_somebody_elses_file_is_refused(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = secret.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:  # root's are anybody's to use; then it must be a third one's
        os.chown(secret, 12345, -1)
    with pytest.raises(SetupError, match="belongs to user"):
        read_private(secret, "x", SetupError)


def test_a_missing_file_is_told_in_the_callers_words(tmp_path: Path) -> None:
    with pytest.raises(RecordingKeyError, match=r"^make one$"):
        read_private(tmp_path / "no", "x", RecordingKeyError, missing="make one")
    with pytest.raises(SetupError, match=r"^x .* cannot be read: No such file"):
        read_private(tmp_path / "no", "x", SetupError)


def test_no_message_quotes_the_file(secret: Path) -> None:
    secret.write_bytes(b"geheim \xff")
    with pytest.raises(SetupError, match="no text in UTF-8") as caught:
        read_private(secret, "x", SetupError)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None
