"""The load: sipp (Debian) as PBX and as phones, for many calls at once, with speech both ways.

A kind of call has two sipp processes of its own, one that calls and one that is called, each at an
address of its own: the node counts requests by address, and so does a reader of a capture. sipp
sends RTP from threads of its own (``rtp_stream``); it does not judge what it hears, which
:mod:`tests.load.probe` does.
"""

from __future__ import annotations

import asyncio
import csv
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from callshield.bench_speech import ROUNDS_PER_S, script, shipped_clips
from callshield.free_ports import free_port
from sipbridge.bench_load import answered, spoken
from tests.load.scenarios import Kind, caller, phone

#: Callers (of whom one in ten shouts) and agents in the tracks.
TRACKS = 10
#: Third bytes of the addresses of callers and phones; the fourth is the flow's number.
CALLERS, PHONES = 41, 42
#: The first of sipp's RTP ports; each address has them all to itself.
_RTP_PORT = 12000


def write_tracks(
    folder: Path, *, words: bool, seconds: float = 60.0, seed: int = 1
) -> tuple[list[str], list[str]]:
    """Files of raw µ-law for callers and their agents: what ships with the product, in turns.

    Args:
        folder: where to.
        words: abusive sentences among them.
        seconds: of speech in a track; a call that lasts longer hears it again. Whoever shouts does
            so in its first half.
        seed: the same one makes the same tracks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounds = round(seconds * ROUNDS_PER_S)
    clips = shipped_clips()
    scripts = [script(clips, n, 0, rounds, words=words, seed=seed) for n in range(TRACKS)]
    paths = sorted({str(one.clip.path) for said in scripts for one in said})
    numbers = {path: number for number, path in enumerate(paths)}
    said = [[[numbers[str(one.clip.path)], one.at] for one in row] for row in scripts]
    lengths = {str(clip.path): clip.length for clip in clips}
    sides = {
        "caller": spoken(paths, said, rounds),
        "agent": answered([lengths[path] for path in paths], said, rounds),
    }
    found: dict[str, list[str]] = {"caller": [], "agent": []}
    for side, rows in sides.items():
        for number, row in enumerate(rows):
            path = folder / f"{side}-{number}.ulaw"
            path.write_bytes(b"".join(row))
            found[side].append(str(path))
    return found["caller"], found["agent"]


@dataclass(frozen=True, slots=True)
class Flow:
    """Calls of one kind."""

    kind: Kind
    live: int
    """At most so many at once; a new one begins when one ends."""
    rate: float
    """At most so many are begun a second."""
    hold_s: tuple[float, float] = (20.0, 100.0)
    """Of each call, evenly distributed: see :func:`tests.load.scenarios.caller`."""
    total: int = 0
    """The end is after so many; 0: when told."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the sipp of a flow's callers counted."""

    begun: int
    succeeded: int
    failed: int
    live: int
    retransmitted: int
    """Requests and responses that it sent again, for want of an answer within half a second."""


class Generator:
    """Both sipps of one flow.

    Args:
        folder: their files.
        flow: what to do.
        tracks: of callers and of agents.
        target: ``address:port`` of the node's side towards the PBX.
        agents: ids of the agents whom this flow calls, in turn; more than may be busy at once.
        callers: address of its callers.
        phones: address and SIP port of its phones.
    """

    def __init__(
        self,
        folder: Path,
        flow: Flow,
        tracks: tuple[Sequence[str], Sequence[str]],
        target: str,
        agents: Sequence[str],
        *,
        callers: str,
        phones: tuple[str, int],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.flow, self.folder, self.agents = flow, folder, agents
        self._target = target
        self.caller_address = callers
        self.phone_address, self.phone_port = phones
        (folder / "callers.csv").write_text(
            "SEQUENTIAL\n" + "".join(f"{agent};\n" for agent in agents)
        )
        (folder / "caller.xml").write_text(caller(flow.kind, tracks[0], flow.hold_s))
        (folder / "phone.xml").write_text(phone(flow.kind, tracks[1], flow.hold_s))
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Of those that run, by role."""
        return {
            f"sipp-{self.flow.kind}-{role}": process.pid
            for role, process in self._processes.items()
            if process.returncode is None
        }

    async def _run(self, role: str, address: str, port: int, *arguments: str) -> None:
        with (self.folder / f"{role}.out").open("wb") as out:
            self._processes[role] = await asyncio.create_subprocess_exec(
                "sipp",
                *arguments,
                *("-sf", str(self.folder / f"{role}.xml")),
                *("-i", address, "-p", str(port), "-mi", address, "-ci", address),
                *("-mp", str(_RTP_PORT)),
                *("-nostdin", "-trace_err", "-error_file", str(self.folder / f"{role}.errors")),
                *("-trace_stat", "-stf", str(self.folder / f"{role}.csv"), "-fd", "1"),
                cwd=self.folder,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=out,
            )

    async def answer(self) -> None:
        """Let the phones be there."""
        # A telephone ignores what it has seen before: an INVITE that its answer crossed.
        behaviour = ("-default_behaviors", "all,-abortunexp")
        await self._run("phone", self.phone_address, self.phone_port, *behaviour)

    async def call(self) -> None:
        """Begin to call."""
        flow = self.flow
        # sipp counts calls a period: a rate below one a second is one call a longer period.
        period_ms = 1000 if flow.rate >= 1 else round(1000 / flow.rate)
        rate = flow.rate if flow.rate >= 1 else 1
        await self._run(
            "caller",
            self.caller_address,
            free_port(self.caller_address),
            self._target,
            *("-inf", str(self.folder / "callers.csv")),
            *("-r", f"{rate:g}", "-rp", str(period_ms), "-l", str(flow.live)),
            *(("-m", str(flow.total)) if flow.total else ()),
            *("-trace_rtt", "-rtt_freq", "1"),
            *("-trace_logs", "-log_file", str(self.folder / "calls.log")),
        )

    def stop_calling(self) -> None:
        """Begin no more calls; those that run go on to their end."""
        process = self._processes.get("caller")
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGUSR1)

    async def finished(self, timeout_s: float) -> int:
        """Wait for the callers' end; 0 when every call went as written.

        Raises:
            TimeoutError: it does not come.
        """
        async with asyncio.timeout(timeout_s):
            return await self._processes["caller"].wait()

    async def close(self) -> None:
        """End both now."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()

    # -------------------------------------------------------------------------- what came of it

    def calls(self) -> dict[str, set[str]]:
        """SIP Call-IDs by ``begun`` and ``done``."""
        found: dict[str, set[str]] = {"begun": set(), "done": set()}
        path = self.folder / "calls.log"
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                word, _, rest = line.partition(" ")
                if word in found:
                    found[word].add(rest.split()[-1])
        return found

    def counts(self) -> Counts:
        """Totals so far, at most a second old."""
        rows = self._rows("caller")
        last = rows[-1] if rows else {}
        phones = self._rows("phone")
        return Counts(
            begun=int(last.get("TotalCallCreated", 0)),
            succeeded=int(last.get("SuccessfulCall(C)", 0)),
            failed=int(last.get("FailedCall(C)", 0)),
            live=int(last.get("CurrentCall", 0)),
            retransmitted=int(last.get("Retransmissions(C)", 0))
            + int(phones[-1].get("Retransmissions(C)", 0) if phones else 0),
        )

    def _rows(self, role: str) -> list[dict[str, str]]:
        path = self.folder / f"{role}.csv"
        if not path.exists():
            return []
        whole = path.read_text(errors="replace").rpartition("\n")[0]
        return list(csv.DictReader(whole.splitlines(), delimiter=";"))

    def setup_ms(self, since: int = 0) -> list[float]:
        """Set-up times in the order in which calls were answered, from the ``since``-th on."""
        found = []
        for path in self.folder.glob("*_rtt.csv"):
            rows = path.read_text(errors="replace").rpartition("\n")[0].splitlines()[1:]
            for row in rows[since:]:
                fields = row.split(";")
                if len(fields) >= 3:
                    found.append(float(fields[1]))
        return found

    def errors(self) -> str:
        """What both sipps found wrong, the beginning of it."""
        texts = []
        for role in ("caller", "phone"):
            for name in (f"{role}.errors", f"{role}.out"):
                path = self.folder / name
                if path.exists() and (text := path.read_text(errors="replace").strip()):
                    texts.append(f"{role}: {text[:1500]}")
        return "\n".join(texts)


@dataclass(slots=True)
class Crowd:
    """All flows of a run."""

    generators: list[Generator] = field(default_factory=list)

    @property
    def pids(self) -> dict[str, int]:
        """Of every sipp that runs."""
        return {name: pid for one in self.generators for name, pid in one.pids.items()}

    def counts(self) -> Counts:
        """Totals of all flows."""
        each = [one.counts() for one in self.generators]
        return Counts(
            *(
                sum(getattr(one, name) for one in each)
                for name in ("begun", "succeeded", "failed", "live", "retransmitted")
            )
        )

    async def close(self) -> None:
        """End every sipp."""
        for one in self.generators:
            await one.close()


def quantiles_ms(values: Sequence[float]) -> dict[str, float | None]:
    """Percentiles of times, ms; None without any."""
    if not len(values):
        return {"p50": None, "p95": None, "p99": None, "max": None}
    found = np.quantile(np.asarray(values), [0.5, 0.95, 0.99, 1.0])
    return {
        name: round(float(one), 3)
        for name, one in zip(("p50", "p95", "p99", "max"), found, strict=True)
    }
