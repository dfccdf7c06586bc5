"""Shared fixtures: what is at hand on this machine, and loud failures where it should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from callshield.settings import load_settings
from notifier.database import Place, migrate, place_of
from tests.cluster_kit import migrated
from tests.nats_server import MISSING as NO_NATS
from tests.nats_server import PROGRAM
from tests.notifier_kit import write_config
from tests.postgres import MISSING, Cluster, Database, programs

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
    if programs() is None and any(item.get_closest_marker("postgres") for item in items):
        raise pytest.UsageError(MISSING)
    if PROGRAM is None and any(item.get_closest_marker("nats") for item in items):
        raise pytest.UsageError(NO_NATS)
    if missing and any(item.get_closest_marker("peers") for item in items):
        raise pytest.UsageError(
            f"{', '.join(missing)} missing: `./run test` installs them (sip-tester, baresip-core, "
            'tshark); without them use `-m "not peers"`'
        )
    if shutil.which("linphonec") is None:
        no_linphone = os.environ.get("CALLSHIELD_LINPHONE_MISSING")
        wanted = [item for item in items if item.get_closest_marker("linphone")]
        if wanted and not no_linphone:
            raise pytest.UsageError(
                "linphonec is missing: `./run test` installs it (linphone-cli); without it use "
                '`-m "not linphone"`'
            )
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason=f"no linphonec: {no_linphone}"))
    if any(item.get_closest_marker("browser") for item in items):
        from tests.console_kit import CHROMIUM

        if CHROMIUM is None:
            raise pytest.UsageError(
                "Chromium is missing: `./run test` installs it (chromium); without it use "
                '`-m "not browser"`'
            )


@pytest.fixture(autouse=True)
def logs_of_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What configures the log in this process leaves no logger behind that writes, ever after, to
    the closed screen of one test, or to nobody."""
    configure = structlog.configure

    def afresh(**given: Any) -> None:
        configure(**given | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", afresh)
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the measuring data (``--data`` of the training scripts)."""
    return DATA


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A running PostgreSQL server of this test run."""
    cluster = Cluster()
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def cluster_template(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a database with the tables of two nodes."""
    return migrated(tmp_path_factory.mktemp("cluster"), postgres_cluster).name


@pytest.fixture
def cluster_database(postgres_cluster: Cluster, cluster_template: str) -> Database:
    """A database of two nodes without a past."""
    return postgres_cluster.database(cluster_template)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_toml(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """``[store]`` of a node, for each database that Callshield knows; empty for SQLite."""
    if request.param == "sqlite":
        return ""
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    return cluster.database().toml(tmp_path)


@pytest.fixture
def place(store_toml: str, tmp_path: Path) -> Place:
    """An empty database of each kind, with its tables made."""
    found = place_of(load_settings(write_config(tmp_path, 8080, store_toml)))
    migrate(found)
    return found
