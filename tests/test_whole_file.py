"""A file that is there whole or not at all, on file systems of both kinds."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from callshield.errors import EvidenceError
from callshield.whole_file import WholeFile


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose file system has nameless files, or has not."""
    really = os.open

    def without(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return really(path, flags, *more, **named)

    if not request.param:
        monkeypatch.setattr(os, "open", without)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_has_its_name_when_it_is_kept_and_not_before(folder: Path) -> None:
    path = folder / "whole"
    with WholeFile(path, EvidenceError) as made:
        made.file.write(b"all of it")
        assert not path.exists()
        made.keep()
        assert path.read_bytes() == b"all of it"
    assert names(folder) == ["whole"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_being_kept_nothing_stays(folder: Path) -> None:
    with WholeFile(folder / "half", EvidenceError) as made:
        made.file.write(b"half of")
    with contextlib.suppress(RuntimeError), WholeFile(folder / "half", EvidenceError) as made:
        made.file.write(b"half of")
        raise RuntimeError
    assert names(folder) == []


def test_what_is_there_stays_unless_told_otherwise(folder: Path) -> None:
    path = folder / "there"
    path.write_bytes(b"old")
    with (
        pytest.raises(EvidenceError, match="is there already"),
        WholeFile(path, EvidenceError),
    ):
        raise AssertionError
    with WholeFile(path, EvidenceError, overwrite=True) as made:
        made.file.write(b"new")
        made.keep()
    assert path.read_bytes() == b"new"
    # Somebody was faster.
    other = folder / "other"
    with WholeFile(other, EvidenceError) as made:
        made.file.write(b"mine")
        other.write_bytes(b"theirs")
        with pytest.raises(EvidenceError, match="is there already"):
            made.keep()
    assert other.read_bytes() == b"theirs"
    assert names(folder) == ["other", "there"]


def test_a_link_is_not_followed(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "elsewhere")
    with (
        pytest.raises(EvidenceError, match="is there already"),
        WholeFile(folder / "link", EvidenceError),
    ):
        raise AssertionError
    assert names(folder) == ["link"]


def test_a_folder_that_is_none_is_a_sentence(folder: Path) -> None:
    with (
        pytest.raises(EvidenceError, match="cannot be written"),
        WholeFile(folder / "no" / "x", EvidenceError),
    ):
        raise AssertionError
