"""What the kernel says of each process of a node: memory, descriptors, processor time, waiting.

The node's processes are known by the pids that the node itself logs, the load generators by
theirs: what one costs is never taken for the other's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment; proc(5)."""

    rss_mib: float
    """Resident, pages of files (libraries, the database's map) included."""
    anon_mib: float
    """Resident and of no file: heap and stacks. What leaks is here."""
    descriptors: int
    threads: int
    cpu_s: float
    """User and system time so far, of threads that ended, too."""
    waited_s: float
    """Time so far for which its living threads could have run and had no core."""


def usage(pid: int) -> Usage:
    """A process now.

    Raises:
        OSError: it is gone.
    """
    root = Path(f"/proc/{pid}")
    fields = dict(
        line.split(":", 1) for line in (root / "status").read_text().splitlines() if ":" in line
    )
    # The command's name may hold blanks and brackets: the fields are those behind the last one.
    stat = (root / "stat").read_text().rpartition(")")[2].split()
    waited_ns = 0
    for task in (root / "task").iterdir():
        with contextlib.suppress(OSError):
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return Usage(
        rss_mib=_kib(fields["VmRSS"]) / 1024,
        anon_mib=_kib(fields["RssAnon"]) / 1024,
        descriptors=len(list((root / "fd").iterdir())),
        threads=int(fields["Threads"]),
        cpu_s=(int(stat[11]) + int(stat[12])) * _TICK_S,
        waited_s=waited_ns / 1e9,
    )


def _kib(value: str) -> int:
    return int(value.split()[0])


def descriptor_kinds(pid: int) -> Counter[str]:
    """Open descriptors by what they are: ``socket``, ``pipe``, ``anon_inode``, or a file's path."""
    kinds: Counter[str] = Counter()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(one)
            kinds[target.partition(":")[0] if ":" in target else target] += 1
    return kinds


@dataclass(frozen=True, slots=True)
class Machine:
    """All cores at one moment; proc(5)."""

    busy_s: float
    """Time so far in which a core did anything, virtual neighbours' stolen time included."""
    stolen_s: float
    total_s: float


def machine() -> Machine:
    """The machine now."""
    line = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, idle, iowait, irq, softirq, stolen = (int(one) * _TICK_S for one in line)
    busy = user + nice + system + irq + softirq + stolen
    return Machine(busy, stolen, busy + idle + iowait)


def datagrams_lost(pids: Iterable[int]) -> dict[str, int]:
    """Datagrams that the kernel threw away because a socket of these processes was full, by the
    socket's inode: of those that are open. (sipp reads no RTP: the machine's own count says
    nothing.)"""
    ours = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for one in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    ours.add(os.readlink(one).removeprefix("socket:[").rstrip("]"))
    found = {}
    for name in ("udp", "udp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in ours:
                    found[fields[9]] = int(fields[-1])
    return found


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything at one moment."""

    at_s: float
    """Monotonic."""
    machine: Machine
    parts: Mapping[str, Usage]
    """By name; a process that is gone is missing."""
    calls: int = 0
    """Calls that were begun so far."""
    live: int = 0
    """Calls that are up."""


def sample(pids: Mapping[str, int], *, calls: int = 0, live: int = 0) -> Sample:
    """Look at several processes at once."""
    parts = {}
    for name, pid in pids.items():
        with contextlib.suppress(OSError, KeyError):
            parts[name] = usage(pid)
    return Sample(time.monotonic(), machine(), parts, calls, live)


def core_pct(before: Sample, after: Sample, names: Iterable[str]) -> dict[str, float]:
    """Processor time of each between two moments, % of a core; nothing of one that was replaced."""
    took_s = after.at_s - before.at_s
    return {
        name: round(100 * (after.parts[name].cpu_s - before.parts[name].cpu_s) / took_s, 2)
        for name in names
        if name in before.parts and name in after.parts
    }


def starved_pct(before: Sample, after: Sample, names: Iterable[str]) -> dict[str, float]:
    """Share of the time for which threads of each waited for a core, % of one thread."""
    took_s = after.at_s - before.at_s
    return {
        name: round(
            100 * max(0.0, after.parts[name].waited_s - before.parts[name].waited_s) / took_s, 2
        )
        for name in names
        if name in before.parts and name in after.parts
    }


def foreign_cores(before: Sample, after: Sample) -> float:
    """Cores that were busy with none of the sampled processes."""
    took_s = after.at_s - before.at_s
    ours_s = sum(
        after.parts[name].cpu_s - before.parts[name].cpu_s
        for name in before.parts
        if name in after.parts
    )
    return round(max(0.0, (after.machine.busy_s - before.machine.busy_s - ours_s) / took_s), 2)
