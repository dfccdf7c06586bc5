"""The relay in C under the compiler's sanitizers; what they say is in the failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
def test_no_sanitizer_has_anything_to_report_and_the_controls_are_noticed() -> None:
    script = Path(__file__).parent / "sanitize.sh"
    ran = subprocess.run(
        [script, sys.executable], capture_output=True, text=True, timeout=590, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stdout.splitlines()
    assert sum("nothing to report" in line for line in told) == 3, ran.stdout
    assert sum("as there should be" in line for line in told) == 2, ran.stdout
