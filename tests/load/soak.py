"""``./run soak``: a whole node for hours, with churn; nothing may grow, and nothing be lost.

sipp is PBX and phones (callers who hang up, phones that hang up, agents who end a call with
announcement, callers who give up, busy phones), with speech both ways; consoles come and go and
have missed events replayed; a supervisor takes every alert. Afterwards every event of every call is
looked for in the store and on each console, and the memory and descriptors of each process are
judged (:mod:`tests.load.trend`). The last line is JSON, the exit status 1 when anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.load.call_centre import CallCentre, Plan, running
from tests.load.generator import Flow
from tests.load.ledger import Verdict
from tests.load.plots import draw_soak, need_pyplot
from tests.load.probe import Heard
from tests.load.processes import Sample, core_pct, descriptor_kinds, foreign_cores
from tests.load.trend import Trend, trend

#: From this length on calls are of ordinary length, and what a process remembers of ended calls
#: (2000 of them) is full before anything is judged.
_LONG_MINUTES = 15.0
#: Growth is judged after this share of the time: caches and pools have filled.
_SETTLED = 0.25
#: What may be left open at rest that was not before the first call: what is opened when it is first
#: needed (the database's connections, a log), never one a call.
_SPARE_DESCRIPTORS = 8
#: When the last call is over, until descriptors are counted, seconds.
_REST_S = 6.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too much growth; with 95 % confidence it must be less."""

    kib_per_call: float
    mib_per_hour: float | None
    """None: too short to say."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run."""

    minutes: float
    calls: int
    transcribers: int = 0
    fault: str = ""
    lane: int = 0
    seed: int = 1
    hold: tuple[float, float] | None = None
    """Shortest and longest call, seconds; None: by the run's length."""

    @property
    def long(self) -> bool:
        return self.minutes >= _LONG_MINUTES

    @property
    def limits(self) -> Limits:
        """By length: three minutes show a leak of tens of KiB a call, two hours one of one."""
        if self.minutes >= 60:
            return Limits(kib_per_call=2.0, mib_per_hour=10.0)
        return Limits(8.0, None) if self.long else Limits(40.0, None)

    def plan(self) -> Plan:
        """Who calls whom."""
        hold_s = self.hold or ((20.0, 100.0) if self.long else (6.0, 14.0))
        begins = max(1.0, self.calls / 10)
        hangup, ended = max(1, self.calls * 8 // 100), max(1, self.calls * 6 // 100)
        probes = 2
        talk = max(1, self.calls - hangup - ended - probes - 2)
        return Plan(
            flows=(
                Flow("talk", talk, begins, hold_s),
                Flow("hangup", hangup, begins, hold_s),
                # Of these the time from the notice's end to the button.
                Flow("ended", ended, begins, (hold_s[0] / 2, hold_s[1] / 2)),
                Flow("cancel", 1, self.calls / 400, (0.5, 3.0)),
                Flow("busy", 1, self.calls / 400),
            ),
            probes=probes,
            probe_s=30.0 if self.long else 8.0,
            transcribers=self.transcribers,
            track_s=60.0 if self.long else 16.0,
            short_notice=not self.long,
            stays_s=(10.0, 60.0) if self.long else (5.0, 20.0),
            consoles=2,
            fault=self.fault,
            lane=self.lane,
            seed=self.seed,
        )


def growth(samples: Sequence[Sample], part: str) -> tuple[Trend, Trend]:
    """Of a process' memory that is no file's: MiB an hour, and KiB a call."""
    found = [one for one in samples if part in one.parts]
    mib = [one.parts[part].anon_mib for one in found]
    hours = [(one.at_s - found[0].at_s) / 3600 for one in found]
    calls = [float(one.calls - found[0].calls) for one in found]
    return trend(hours, mib), trend(calls, [1024 * one for one in mib])


@dataclass(slots=True)
class Seen:
    """What a run saw; everything that is judged."""

    order: Order
    samples: list[Sample]
    rest_before: Mapping[str, int]
    """Descriptors by process before the first call."""
    rest_after: Mapping[str, int]
    opened: Mapping[str, Mapping[str, int]]
    """By process what is open now of what was not before."""
    parts: Sequence[str]
    verdict: Verdict
    heard: Heard
    restarts: Sequence[str]
    stuck: Sequence[str]
    """Kinds of calls that did not end when they should."""
    never: Sequence[str]
    """Kinds of calls of which none was made."""
    failed: int
    errors: str
    metrics: Mapping[str, float]
    disk: Mapping[str, int]
    """Bytes of the store and of the log."""
    consoles: Mapping[str, int]
    """How often they connected, and events that they had replayed."""
    complaints: Sequence[str]
    log_faults: Sequence[str]


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Those from which growth is judged."""
    began_s, ended_s = samples[0].at_s, samples[-1].at_s
    return [one for one in samples if one.at_s >= began_s + _SETTLED * (ended_s - began_s)]


def problems(seen: Seen) -> list[str]:
    """Every sentence is a reason to fail."""
    found = list(seen.verdict.faults)
    limits = seen.order.limits
    steady = settled(seen.samples)
    for part in seen.parts:
        by_hour, by_call = growth(steady, part)
        if not by_call.grows_less_than(limits.kib_per_call):
            found.append(
                f"{part} grows by {by_call.slope:.2f} KiB a call ({by_call.low:.2f} to "
                f"{by_call.high:.2f}); it must be shown to be less than {limits.kib_per_call:g}"
            )
        if limits.mib_per_hour is not None and not by_hour.grows_less_than(limits.mib_per_hour):
            found.append(
                f"{part} grows by {by_hour.slope:.2f} MiB an hour ({by_hour.low:.2f} to "
                f"{by_hour.high:.2f}); it must be shown to be less than {limits.mib_per_hour:g}"
            )
        more = seen.rest_after.get(part, 0) - seen.rest_before.get(part, 0)
        if more > _SPARE_DESCRIPTORS:
            found.append(
                f"{part} has {more} more descriptors open at rest than before the first call: "
                f"{dict(seen.opened.get(part, {}))}"
            )
    found += [f"calls of kind {kind} did not end" for kind in seen.stuck]
    found += [f"no call of kind {kind} went as written" for kind in seen.never]
    if seen.failed:
        found.append(f"{seen.failed} calls did not go as written: {seen.errors[:600]}")
    found += [f"a timed call failed: {sentence}" for sentence in seen.heard.failed[:3]]
    if seen.heard.lost:
        found.append(f"{seen.heard.lost} of {seen.heard.sent} timed packets were lost")
    found += [f"{part} died and was started again" for part in seen.restarts]
    for name in ("callshield_journal_dropped", "callshield_consoles_dropped"):
        if seen.metrics.get(name):
            found.append(f"{name} is {seen.metrics[name]:g}")
    found += [f"the API refused {sentence}" for sentence in seen.complaints[:3]]
    found += [f"in the log: {line}" for line in seen.log_faults[:3]]
    return found


def report(seen: Seen) -> dict[str, Any]:
    """For the last line."""
    steady = settled(seen.samples)
    first, last = seen.samples[0], seen.samples[-1]
    cpu = core_pct(steady[0], steady[-1], first.parts)
    parts = {}
    for part in seen.parts:
        by_hour, by_call = growth(steady, part)
        parts[part] = {
            "mib": round(by_hour.last, 1),
            "mib_per_hour": _rounded(by_hour),
            "kib_per_call": _rounded(by_call),
            "descriptors": [
                seen.rest_before.get(part),
                max(one.parts[part].descriptors for one in steady if part in one.parts),
                seen.rest_after.get(part),
            ],
            "cpu_core_pct": cpu.get(part),
        }
    found = problems(seen)
    return {
        "minutes": round((last.at_s - first.at_s) / 60, 1),
        "live": seen.order.calls,
        "calls": seen.verdict.calls,
        "cut_short": seen.verdict.cut_short,
        "failed": seen.failed,
        "events": seen.verdict.events,
        "events_lost": seen.verdict.lost,
        "alerts": seen.verdict.alerts,
        "kib_per_call": {
            name: round(size / 1024 / max(1, seen.verdict.calls), 2)
            for name, size in seen.disk.items()
        },
        "consoles": dict(seen.consoles),
        "probe": seen.heard.result(),
        "load_average": round(os.getloadavg()[0], 2),
        "foreign_cores": foreign_cores(steady[0], steady[-1]),
        "generator_core_pct": round(
            sum(pct for name, pct in cpu.items() if name.startswith(("sipp", "bench"))), 1
        ),
        "parts": parts,
        "problems": found,
        "ok": not found,
    }


def _rounded(one: Trend) -> list[float]:
    return [round(one.slope, 3), round(one.low, 3), round(one.high, 3)]


Say = Callable[[str], None]


async def soak(
    order: Order, folder: Path, say: Say = lambda _: None
) -> tuple[Seen, dict[str, Any]]:
    """Run it; what was seen, and the report. ``samples.jsonl`` grows in the folder meanwhile."""
    async with running(folder, order.plan()) as centre:
        await asyncio.sleep(1.0)
        at_rest = {part: descriptor_kinds(pid) for part, pid in _parts(centre).items()}
        for one in centre.crowd.generators:
            await one.call()
        for probe in centre.probes:
            probe.start()
        heard = [Heard()]
        samples = await _watch(order, centre, folder / "samples.jsonl", say)
        say("no new calls; waiting for the last ones to end")
        stuck = await centre.drain(timeout_s=150.0)
        heard.append(centre.probed())
        await asyncio.sleep(_REST_S)
        now = {part: descriptor_kinds(pid) for part, pid in _parts(centre).items()}
        failed = sum(one.counts().failed for one in centre.crowd.generators)
        started = [entry["part"] for entry in centre.node.logs("process_started")]
        seen = Seen(
            order=order,
            samples=samples,
            rest_before={part: kinds.total() for part, kinds in at_rest.items()},
            rest_after={part: kinds.total() for part, kinds in now.items()},
            opened={part: dict(now[part] - at_rest[part]) for part in now if part in at_rest},
            parts=centre.parts,
            verdict=await centre.verdict(),
            heard=heard[-1],
            restarts=sorted({part for part in started if started.count(part) > 1}),
            stuck=stuck,
            never=[one.flow.kind for one in centre.crowd.generators if not one.calls()["done"]],
            failed=failed,
            errors="\n".join(filter(None, (one.errors() for one in centre.crowd.generators))),
            metrics=await centre.metrics(),
            disk=centre.disk(),
            consoles={
                "connections": sum(one.connections for one in centre.consoles),
                "replayed": sum(one.replayed for one in centre.consoles),
            },
            complaints=centre.complaints,
            log_faults=centre.log_faults(),
        )
    result = report(seen)
    (folder / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    return seen, result


def _parts(centre: CallCentre) -> dict[str, int]:
    return {part: pid for part, pid in centre.pids.items() if part in centre.parts}


async def _watch(order: Order, centre: CallCentre, path: Path, say: Say) -> list[Sample]:
    every_s = max(1.0, order.minutes * 60 / 720)
    samples: list[Sample] = []
    pids = centre.pids
    ends_s = time.monotonic() + order.minutes * 60
    next_word_s = time.monotonic() + 60
    with path.open("a") as out:
        while (now_s := time.monotonic()) < ends_s:
            one = await asyncio.to_thread(centre.sample, pids)
            samples.append(one)
            out.write(json.dumps(asdict(one)) + "\n")
            out.flush()
            if now_s >= next_word_s:
                next_word_s += 60
                pids = centre.pids  # a part that was started again has another
                say(_line(order, samples))
            await asyncio.sleep(max(0.0, every_s - (time.monotonic() - now_s)))
    return samples


def _line(order: Order, samples: Sequence[Sample]) -> str:
    first, last = samples[0], samples[-1]
    parts = ", ".join(
        f"{name} {use.anon_mib:.0f} MiB {use.descriptors} fd"
        for name, use in last.parts.items()
        if not name.startswith(("sipp", "bench"))
    )
    return (
        f"{(last.at_s - first.at_s) / 60:.0f} of {order.minutes:g} min, {last.live} calls up, "
        f"{last.calls} begun; {parts}"
    )


def main() -> int:
    """Run the program; its exit status."""
    parser = argparse.ArgumentParser(prog="./run soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--calls", type=int, default=100, help="at once")
    parser.add_argument("--transcribers", type=int, default=1, help="0: no words")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="folder for all files")
    parser.add_argument("--fault", choices=("leak", "lose"), default="", help="negative control")
    parser.add_argument("--plot", type=Path, help="a .png, drawn by matplotlib")
    parser.add_argument("--hold", help="shortest,longest call in seconds")
    given = parser.parse_args()
    need_pyplot(given.plot)
    hold = tuple(map(float, given.hold.split(","))) if given.hold else None
    order = Order(given.minutes, given.calls, given.transcribers, given.fault, hold=hold)
    say: Say = lambda text: print(f"soak: {text}", file=sys.stderr, flush=True)  # noqa: E731
    seen, result = asyncio.run(soak(order, given.out.resolve(), say))
    if given.plot is not None:
        draw_soak(seen.samples, seen.parts, given.plot, result)
    for sentence in result["problems"]:
        say(sentence)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
