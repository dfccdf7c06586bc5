"""These tests need the Debian that ``./run test-ops`` and ``./run test-image`` lay out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: Set by those commands: the folder of the Debian, and the network in which there are mirrors.
ROOT, NETWORK = "CALLSHIELD_ROOT", "CALLSHIELD_NETWORK"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped where nobody asked for them: they take a quarter of an hour, root and namespaces."""
    if os.environ.get(ROOT):
        return
    for item in items:
        if "/tests/ops/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="./run test-ops and ./run test-image"))


@pytest.fixture(scope="session")
def debian() -> Path:
    """Folder of the Debian."""
    return Path(os.environ[ROOT])
