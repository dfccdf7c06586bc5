"""Where a secret may stand, for every secret of the node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callshield.errors import RecordingKeyError, SetupError
from callshield.private_file import placed, read_private
from callshield.settings_sip import TlsSettings


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


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``LoadCredential=secrets:/etc/callshield/secrets`` makes of ``store.password``."""
    folder = tmp_path / "credentials" / "callshield.service"
    folder.mkdir(parents=True)
    copy = folder / "secrets_store.password"
    copy.write_text("from systemd\n", encoding="utf-8")
    copy.chmod(0o440)  # the mask of an access control list
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


def test_a_services_own_copy_is_read_in_the_place_of_the_file(
    tmp_path: Path, credentials: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    # Not even there, or not readable, for the service's user.
    assert read_private(folder / "store.password", "x", SetupError) == "from systemd\n"
    assert placed(folder / "store.password") == credentials / "secrets_store.password"
    other = folder / "ami.secret"
    other.write_text("from the file\n", encoding="utf-8")
    other.chmod(0o600)
    assert read_private(other, "x", SetupError) == "from the file\n"
    # Keys that change while a node runs lie elsewhere, and are never a copy.
    assert placed(tmp_path / "store.password") == tmp_path / "store.password"


def test_a_copy_that_all_may_read_is_refused_and_so_is_the_same_mode_elsewhere(
    tmp_path: Path, credentials: Path
) -> None:
    (credentials / "secrets_store.password").chmod(0o444)
    with pytest.raises(SetupError, match="has mode 0444"):
        read_private(tmp_path / "secrets" / "store.password", "x", SetupError)
    elsewhere = tmp_path / "secrets_store.password"
    elsewhere.write_text("x", encoding="utf-8")
    elsewhere.chmod(0o440)
    with pytest.raises(SetupError, match="has mode 0440"):
        read_private(elsewhere, "x", SetupError)


def test_a_private_key_of_tls_may_be_a_copy_too(credentials: Path, tmp_path: Path) -> None:
    (credentials / "secrets_sip.key").write_text("-", encoding="utf-8")
    tls = TlsSettings(
        certificate=tmp_path / "sip.pem",
        private_key=tmp_path / "secrets" / "sip.key",
        verify_server=False,
    )
    assert tls.private_key == credentials / "secrets_sip.key"
