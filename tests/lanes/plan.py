"""Which lane runs which tests when. Knows neither pytest nor processes."""

from __future__ import annotations

import tomllib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

Kind = Literal["free", "heavy", "alone"]
#: Of a file that nobody has measured, where nothing else is measured either.
UNKNOWN_S = 1.0


def file_of(test: str) -> str:
    """``tests/test_x.py`` of ``tests/test_x.py::test_y[1]``."""
    return test.split("::", 1)[0]


def name_of(test: str) -> str:
    """``tests/test_x.py::test_y`` of ``tests/test_x.py::test_y[1]``."""
    return test.split("[", 1)[0]


@dataclass(frozen=True)
class Neighbours:
    """Tests that cannot have every neighbour, by file or ``file::test``, each with its reason."""

    alone: Mapping[str, str] = field(default_factory=dict)
    heavy: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Neighbours:
        """From ``neighbours.toml``.

        Raises:
            ValueError: another table, a key in both, or no reason.
        """
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := tables.keys() - {"alone", "heavy"}:
            raise ValueError(f"{path.name} has the tables [alone] and [heavy], not {unknown}")
        alone, heavy = tables.get("alone", {}), tables.get("heavy", {})
        if both := alone.keys() & heavy.keys():
            raise ValueError(f"{path.name}: {both} cannot be both alone and heavy")
        for name, reason in (alone | heavy).items():
            if not isinstance(reason, str) or not reason.strip():
                raise ValueError(f"{path.name}: say why {name} cannot have every neighbour")
        return cls(alone, heavy)

    def kind(self, test: str) -> Kind:
        """How a test stands to others; a word about the test goes before one about its file."""
        for name in (name_of(test), file_of(test)):
            if name in self.alone:
                return "alone"
            if name in self.heavy:
                return "heavy"
        return "free"


@dataclass(frozen=True)
class Job:
    """Tests of one file that a lane runs in a row."""

    file: str
    kind: Kind
    tests: tuple[str, ...]
    seconds: float
    """As far as one can know."""


def jobs_of(
    tests: Iterable[str], neighbours: Neighbours, seconds: Mapping[str, float]
) -> list[Job]:
    """The tests of each file, apart by kind, in the order of the tests.

    Args:
        tests: node ids.
        neighbours: who cannot be beside whom.
        seconds: measured, by file; the tests of a file count alike.
    """
    parts: dict[tuple[str, Kind], list[str]] = {}
    in_file: dict[str, int] = {}
    for test in tests:
        parts.setdefault((file_of(test), neighbours.kind(test)), []).append(test)
        in_file[file_of(test)] = in_file.get(file_of(test), 0) + 1
    usual = median(seconds.values()) if seconds else UNKNOWN_S
    return [
        Job(file, kind, tuple(part), seconds.get(file, usual) * len(part) / in_file[file])
        for (file, kind), part in parts.items()
    ]


class Plan:
    """Hands jobs out.

    The longest go first, so that the lanes end at about the same time. All heavy jobs go to one
    lane, which starts with them: so no two are ever at once, and no lane waits for another. Those
    that run alone are a plan of their own, for one lane, when the lanes of this one have ended.

    Args:
        jobs: free and heavy.
        heavy_lane: the lane of the heavy ones.
    """

    def __init__(self, jobs: Sequence[Job], heavy_lane: int) -> None:
        first = sorted(jobs, key=lambda job: -job.seconds)  # stable: else in the order of the tests
        self._heavy = deque(job for job in first if job.kind == "heavy")
        self._others = deque(job for job in first if job.kind != "heavy")
        self._heavy_lane = heavy_lane

    def next(self, lane: int) -> Job | None:
        """What a lane does next; None: nothing is left for it."""
        if lane == self._heavy_lane and self._heavy:
            return self._heavy.popleft()
        return self._others.popleft() if self._others else None

    def again(self, job: Job) -> None:
        """Takes back what a lane left undone when it died; it comes next."""
        (self._heavy if job.kind == "heavy" else self._others).appendleft(job)

    def left(self) -> list[Job]:
        """What nobody has been given yet."""
        return [*self._heavy, *self._others]


class Ledger:
    """Which of the collected tests have ended, and how often: each must once.

    Args:
        tests: node ids of all that were collected.
    """

    def __init__(self, tests: Iterable[str]) -> None:
        self._ended: dict[str, int] = dict.fromkeys(tests, 0)
        self._strangers: list[str] = []

    def ended(self, test: str) -> None:
        """A test has been torn down, or was in a lane when that died."""
        if test in self._ended:
            self._ended[test] += 1
        else:
            self._strangers.append(test)

    def wrong(self) -> dict[str, str]:
        """Test → what is wrong with how often it was run; empty where all is well."""
        found = {}
        for test, times in self._ended.items():
            if times == 0:
                found[test] = "no lane has run this test"
            elif times > 1:
                found[test] = f"this test was run {times} times"
        return found | dict.fromkeys(
            self._strangers, "a lane ran this test, which nobody collected"
        )


def read_seconds(path: Path) -> dict[str, float]:
    """Measured seconds by file (``seconds.toml``); empty where nobody measured."""
    if not path.exists():
        return {}
    table = tomllib.loads(path.read_text(encoding="utf-8"))["seconds"]
    return {file: float(value) for file, value in table.items()}


def write_seconds(path: Path, measured: Mapping[str, float], root: Path) -> None:
    """Put what was measured over what was measured before.

    Args:
        path: ``seconds.toml``.
        measured: by file.
        root: of the files; those that are gone are left out.
    """
    known = read_seconds(path) | dict(measured)
    lines = [
        f'"{file}" = {value:.1f}' for file, value in sorted(known.items()) if (root / file).exists()
    ]
    path.write_text(
        "# Seconds of each file, measured by `python -m tests.lanes --record-seconds`: the longest "
        "are\n# begun first. A file that is not here counts as the median.\n[seconds]\n"
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )
