"""Fixtures of the tests beside a real rtpengine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callshield.free_ports import free_port
from callshield.settings import Settings
from sipbridge.rtpengine_plane import RtpenginePlane
from sipbridge.rtpengine_process import Rtpengine
from tests.ng.kit import engine_for, plane_settings, running_plane
from tests.rtp_peer import Bridge, Call, Detector

#: Set by ``./run test-ng``: that there is an rtpengine, or the sentence why there is none.
ASKED, MISSING = "CALLSHIELD_RTPENGINE", "CALLSHIELD_RTPENGINE_MISSING"
#: Set when ``./run test-ng --allow-missing`` was told that this machine cannot.
ALLOWED = "CALLSHIELD_RTPENGINE_ALLOW_MISSING"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped where nobody asked for rtpengine; where one was asked for and cannot be, failed."""
    missing = os.environ.get(MISSING)
    if os.environ.get(ASKED) or (missing and not os.environ.get(ALLOWED)):
        return  # without one the fixture below fails, and says why
    reason = f"no rtpengine: {missing}" if missing else "beside a real rtpengine: ./run test-ng"
    for item in items:
        if item.get_closest_marker("ng"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _rtpengine_is_there(request: pytest.FixtureRequest) -> None:
    missing = os.environ.get(MISSING)
    if missing and request.node.get_closest_marker("ng"):
        pytest.fail(f"no rtpengine: {missing}", pytrace=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return plane_settings(tmp_path, ("127.0.0.1", free_port("127.0.0.1")))


@pytest.fixture
async def engine(settings: Settings, tmp_path: Path) -> AsyncIterator[Rtpengine]:
    media = settings.media.rtpengine
    made = engine_for(tmp_path, media.dtmf_log, int(media.control.rpartition(":")[2]))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def plane(settings: Settings, engine: Rtpengine) -> AsyncIterator[RtpenginePlane]:
    async with running_plane(settings) as made:
        yield made


@pytest.fixture
async def bridge(settings: Settings, plane: RtpenginePlane) -> AsyncIterator[Bridge]:
    made = Bridge(settings)
    yield made
    await made.close()


@pytest.fixture
async def call(bridge: Bridge) -> AsyncIterator[Call]:
    made = await Call.set_up(bridge)
    yield made
    made.hang_up()


@pytest.fixture
async def detector(settings: Settings) -> AsyncIterator[Detector]:
    made = Detector(settings.tap_path)
    yield made
    made.close()
