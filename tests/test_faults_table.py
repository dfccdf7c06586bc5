"""Every row of docs/faults.md names a test that exists."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "faults.md"


def named(page: str) -> list[tuple[str, str]]:
    """``(file, test)`` of each reference."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)


def missing(references: list[tuple[str, str]]) -> list[str]:
    lost = []
    for file, test in references:
        path = ROOT / file
        found = path.exists() and any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == test
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
        if not found:
            lost.append(f"{file}::{test}")
    return lost


def test_every_row_names_a_test_that_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    table = [row for row in rows if row.count("|") == 6]
    assert len(table) > 15
    assert [row for row in table if not named(row)] == []
    assert missing(named(page)) == []


def test_every_test_of_faults_has_a_row() -> None:
    files = {file for file, _ in named(PAGE.read_text(encoding="utf-8"))}
    there = {
        f"tests/faults/{path.name}"
        for pattern in ("test_*.py", "long_*.py")
        for path in (ROOT / "tests" / "faults").glob(pattern)
    }
    assert there <= files


def collected(arguments: str) -> set[str]:
    """Test files that pytest finds for a shell's words."""
    command = f"{shlex.quote(sys.executable)} -m pytest -q --collect-only {arguments}"
    out = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True).stdout
    return {line.partition("::")[0] for line in out.splitlines() if "::" in line}


def test_the_command_runs_every_test_of_faults() -> None:
    """``./run test-faults``; pytest leaves out a file that a folder before it already covers."""
    script = (ROOT / "run").read_text(encoding="utf-8")
    arguments = re.search(r'-m pytest (tests/faults[^"]*) "\$@"', script)
    assert arguments is not None
    there = {
        str(path.relative_to(ROOT))
        for pattern in ("test_*.py", "long_*.py")
        for path in (ROOT / "tests" / "faults").glob(pattern)
    }
    assert collected(arguments[1]) == there
    assert collected("tests/faults tests/faults/long_*.py") != there, "the control"


def test_control_a_test_that_is_gone_is_seen() -> None:
    gone = [("tests/faults/test_network.py", "test_nothing"), ("tests/test_nothing.py", "test_x")]
    assert missing(gone) == [f"{file}::{test}" for file, test in gone]
