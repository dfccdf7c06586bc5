"""Tests marked ``edge`` need the Kamailio and rtpengine that ``./run test-edge`` installs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.pbx.jssip_packages import NoJssipError, given

#: Set by ``./run test-edge``: that there is a Kamailio, or the sentence why there is none.
ASKED, MISSING = "CALLSHIELD_KAMAILIO", "CALLSHIELD_KAMAILIO_MISSING"
#: Set when ``./run test-edge --allow-missing`` was told that this machine cannot.
ALLOWED = "CALLSHIELD_KAMAILIO_ALLOW_MISSING"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped where nobody asked for an edge; where one was asked for and cannot be, failed."""
    missing = os.environ.get(MISSING)
    if os.environ.get(ASKED) or (missing and not os.environ.get(ALLOWED)):
        return  # without one the fixture below fails, and says why
    reason = f"no Kamailio: {missing}" if missing else "behind a real Kamailio: ./run test-edge"
    for item in items:
        if item.get_closest_marker("edge"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _kamailio_is_there(request: pytest.FixtureRequest) -> None:
    missing = os.environ.get(MISSING)
    if missing and request.node.get_closest_marker("edge"):
        pytest.fail(f"no Kamailio: {missing}", pytrace=False)


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
