"""``python -m tests.lanes [PYTEST ARGUMENT...]``."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.lanes.controller import OPTIONS, Controller

if __name__ == "__main__":
    # What a shell starts in the background ignores SIGINT, and could not be told to tidy up.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = sys.argv[1:]
    sys.exit(int(pytest.main([*OPTIONS, *given], plugins=[Controller(given)])))
