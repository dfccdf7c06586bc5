"""What `./run test-ng` says where there is no rtpengine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("variables", "status", "text"),
    [
        ({}, 0, "./run test-ng"),
        ({"CALLSHIELD_RTPENGINE_MISSING": "no mirror"}, 1, "no rtpengine: no mirror"),
        (
            {
                "CALLSHIELD_RTPENGINE_MISSING": "no mirror",
                "CALLSHIELD_RTPENGINE_ALLOW_MISSING": "1",
            },
            0,
            "no rtpengine: no mirror",
        ),
    ],
    ids=["not asked for", "asked for", "allowed to be missing"],
)
def test_what_cannot_run_says_why_and_is_counted(
    variables: dict[str, str], status: int, text: str, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CALLSHIELD_RTPENGINE")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "tests/ng/test_doctor.py",
            "-m",
            "ng",
            f"--basetemp={tmp_path / 'b'}",
        ],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert text in done.stdout
    assert ("3 skipped" in done.stdout) == (status == 0)
