"""Options of ``python -m tests.lanes`` and of each of its lanes."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lanes", "lanes beside each other (tests/lanes)")
    group.addoption(
        "--lanes",
        type=int,
        metavar="N",
        help="run the tests in N lanes; 1: plain pytest. Unless told 4 (2 on one core), but 1 "
        "where test files, -k, --collect-only or --pdb are given",
    )
    group.addoption(
        "--lane-network",
        choices=("auto", "namespace", "ports"),
        default="auto",
        help="a lane's network: a namespace of its own, or a part of the ports (default: auto)",
    )
    group.addoption(
        "--neighbours",
        type=Path,
        default=HERE / "neighbours.toml",
        metavar="FILE",
        help="tests that cannot have every neighbour (default: tests/lanes/neighbours.toml)",
    )
    group.addoption(
        "--seconds",
        type=Path,
        default=HERE / "seconds.toml",
        metavar="FILE",
        help="measured seconds of each file (default: tests/lanes/seconds.toml)",
    )
    group.addoption(
        "--lane-silence",
        type=float,
        default=900.0,
        metavar="S",
        help="end a lane that has said nothing for so many seconds, which must be more than any "
        "test may take (default: 900)",
    )
    group.addoption(
        "--record-seconds", action="store_true", help="write the seconds of this run to that file"
    )
