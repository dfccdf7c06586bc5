"""``python -m tests.lanes [PYTEST ARGUMENT...]``."""

from __future__ import annotations

import sys

import pytest

from tests.lanes.controller import OPTIONS, Controller

if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(int(pytest.main([*OPTIONS, *given], plugins=[Controller(given)])))
