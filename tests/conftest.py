"""Shared fixtures: what is at hand on this machine, and loud failures where it should be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: no test hangs on an absolute time.
settings.register_profile("callshield", deadline=None)
settings.load_profile("callshield")

DATA = Path(os.environ.get("CALLSHIELD_DATA", Path(__file__).parent.parent / "../shared/data"))
PEERS = ("sipp", "baresip", "tshark")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests on data are skipped where it is absent; peers that are absent are a failure."""
    no_data = pytest.mark.skip(reason=f"no data at {DATA}: these tests measure on it")
    missing = [peer for peer in PEERS if shutil.which(peer) is None]
    for item in items:
        if item.get_closest_marker("data") and not (DATA / "audio" / "manifest.tsv").exists():
            item.add_marker(no_data)
    if missing and any(item.get_closest_marker("peers") for item in items):
        raise pytest.UsageError(
            f"{', '.join(missing)} missing: `./run test` installs them (sip-tester, baresip-core, "
            'tshark); without them use `-m "not peers"`'
        )


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the measuring data (``--data`` of the training scripts)."""
    return DATA
