"""``callshield demo --headless --json``: exit status 0 only if every step really happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callshield.demo import STEPS, Report, StepResult

pytestmark = pytest.mark.timeout(240)


def demo(environment: dict[str, str] | None = None) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "callshield.cli", "demo", "--headless", "--json"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_step_of_the_demo_happens() -> None:
    status, report = demo()
    assert status == 0, report
    assert report["ok"] is True
    steps = report["steps"]
    assert isinstance(steps, list)
    assert [step["step"] for step in steps] == list(STEPS)


def test_a_node_that_analyses_nothing_fails_the_demo(tmp_path: Path) -> None:
    """Negative control: with the detector off the steps that need it must be seen to fail."""
    status, report = demo({"CALLSHIELD_DETECTOR__ENABLED": "false"})
    assert status == 1
    assert report["ok"] is False
    steps = report["steps"]
    assert isinstance(steps, list)
    failed = {step["step"] for step in steps if not step["ok"]}
    assert {"nothing_tapped_before_notice", "shouting_raises_alert"} <= failed
    assert "notice_heard" not in failed


def test_a_missing_step_is_not_success() -> None:
    report = Report([StepResult(step, True, 0.0, "") for step in STEPS])
    assert report.ok
    report.steps.pop()
    assert not report.ok
