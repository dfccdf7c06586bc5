"""Tests marked ``asterisk`` need the root that ``./run test-pbx`` makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.pbx.jssip_packages import NoJssipError, given

#: Set by ``./run test-pbx``: the root of the chroot, or the sentence why there is none.
ROOT = "CALLSHIELD_ASTERISK_ROOT"
MISSING = "CALLSHIELD_ASTERISK_MISSING"
#: ``skip`` when ``./run test-pbx --allow-missing`` was told that this machine cannot.
ALLOWED = "CALLSHIELD_ASTERISK_ALLOW_MISSING"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped where nobody asked for a PBX; where one was asked for and cannot be, failed."""
    if os.environ.get(ROOT):
        return
    missing = os.environ.get(MISSING)
    reason = f"no Asterisk: {missing}" if missing else "beside a real Asterisk: ./run test-pbx"
    if missing and not os.environ.get(ALLOWED):
        return  # the fixture fails, and says why
    for item in items:
        if item.get_closest_marker("asterisk"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def asterisk_root() -> Path:
    """Folder of the root with Asterisk in it."""
    root = os.environ.get(ROOT)
    if not root:
        pytest.fail(f"no Asterisk: {os.environ.get(MISSING)}", pytrace=False)
    return Path(root)


@pytest.fixture(scope="session")
def jssip() -> Path:
    """Folder in which npm put JsSIP."""
    try:
        return given()
    except NoJssipError as error:
        sentence = f"no JsSIP for a browser phone: {error}"
        if os.environ.get(ALLOWED):
            pytest.skip(sentence)
        pytest.fail(sentence, pytrace=False)
