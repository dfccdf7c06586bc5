"""``./run load``: many calls on a whole node, step by step, until something gives.

    ./run load ramp  [--steps 50,100,…] [--rate 10] [--seconds 20]   calls at once
    ./run load rates [--steps 5,10,20,…] [--seconds 15]              calls set up a second
    ./run load cost  [--steps 1,10,…] [--relay 1,10,…] [--plot FILE] a call's cost, beside rtpengine
    ./run load generator [--steps …]                                 sipp alone, no node

One JSON line a step, and a last one that says what gave first. sipp is PBX and phones, with
speech both ways; a few timed calls among them are the judge of the audio (:mod:`tests.load.probe`).
The node's processes are counted by their own pids, so that the load on the same cores is not taken
for theirs; whether the node had the cores that it wanted is said by the time that its threads
waited for one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from callshield.free_ports import free_port
from tests.load.call_centre import CallCentre, Plan, running
from tests.load.generator import CALLERS, PHONES, Crowd, Flow, Generator, quantiles_ms, write_tracks
from tests.load.plots import draw_cost, need_pyplot
from tests.load.processes import (
    Sample,
    core_pct,
    datagrams_lost,
    foreign_cores,
    sample,
    starved_pct,
)

#: Calls of a ramp last so long, seconds: three minutes in the mean.
_HOLD_S = (120.0, 240.0)
#: A step that has not reached its calls within this time beyond the set-ups' own has given.
_PATIENCE_S = 25.0
_SETTLE_S = 4.0
#: From so many calls on some of them are timed.
_PROBED_FROM = 10
#: A process that waited longer for a core, % of the time, did less than it had to: what it took
#: says nothing of what it needs.
_STARVED_PCT = 25.0
#: Work of which the time tells how fast the machine is at the moment.
_SPIN = 400_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where a figure is a sign that something gives."""

    setup_p95_ms: float = 500.0
    """T1 of RFC 3261: the PBX begins to repeat its INVITE."""
    rtp_p99_ms: float = 10.0
    """Half a packet."""
    core_pct: float = 90.0
    """Of a process whose work one thread does."""
    machine_pct: float = 97.0
    aroused_heard_pct: float = 90.0
    dropped_pct: float = 1.0
    """Of the callers' audio, before it was judged."""


def calibrate() -> float:
    """Milliseconds of processor time that a fixed piece of Python takes now; the best of three.

    Neighbours on the same machine, clock and caches move it as they move everything measured.
    """
    best = float("inf")
    for _ in range(3):
        began_s, total = time.process_time(), 0
        for number in range(_SPIN):
            total += number & 7
        best = min(best, time.process_time() - began_s)
    return round(1000 * best, 2)


# ------------------------------------------------------------------------------------- one step


class _Watcher:
    """What is measured of one step after another."""

    def __init__(self, centre: CallCentre) -> None:
        self._centre = centre
        self._answered = [0] * len(centre.crowd.generators)
        self._retransmitted = self._failed = 0

    def begin(self) -> None:
        """Forget what was before."""
        self.setups()
        self._centre.probed()
        counts = self._centre.crowd.counts()
        self._retransmitted, self._failed = counts.retransmitted, counts.failed

    def setups(self) -> list[float]:
        """Set-up times since the last time."""
        found = []
        generators = self._centre.crowd.generators
        self._answered += [0] * (len(generators) - len(self._answered))
        for number, one in enumerate(generators):
            new = one.setup_ms(self._answered[number])
            self._answered[number] += len(new)
            found += new
        return found

    async def over(self, seconds: float) -> dict[str, Any]:
        """Measure for so long."""
        centre = self._centre
        pids, began_ts = centre.pids, time.time()
        ours = [pid for part, pid in pids.items() if part in centre.parts]
        before = await asyncio.to_thread(centre.sample, pids)
        lost_before = await asyncio.to_thread(datagrams_lost, ours)
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(centre.sample, pids)
        lost = await asyncio.to_thread(datagrams_lost, ours)
        counts = centre.crowd.counts()
        heard = centre.probed()
        setup_ms = self.setups()
        row = {
            **usage_row(before, after, centre.parts),
            "live": after.live,
            "setups_per_s": round(len(setup_ms) / (after.at_s - before.at_s), 2),
            "setup_ms": quantiles_ms(setup_ms),
            "retransmitted": counts.retransmitted - self._retransmitted,
            "failed": counts.failed - self._failed,
            "probe": heard.result(),
            "udp_lost": sum(n - lost_before.get(inode, 0) for inode, n in lost.items()),
            "analysis": analysis(centre, began_ts),
        }
        self._retransmitted, self._failed = counts.retransmitted, counts.failed
        return row


def usage_row(before: Sample, after: Sample, parts: Sequence[str]) -> dict[str, Any]:
    """Of the machine and of each process between two moments."""
    took_s = after.at_s - before.at_s
    everybody = core_pct(before, after, before.parts)
    cores = os.cpu_count() or 1
    busy_s = after.machine.busy_s - before.machine.busy_s
    return {
        "core_pct": {part: everybody[part] for part in parts if part in everybody},
        "node_core_pct": round(sum(everybody.get(part, 0.0) for part in parts), 1),
        "waited_pct": starved_pct(before, after, parts),
        "generator_core_pct": round(
            sum(pct for name, pct in everybody.items() if name.startswith("sipp")), 1
        ),
        "bench_core_pct": everybody.get("bench", 0.0),
        "machine_pct": round(100 * busy_s / (took_s * cores), 1),
        "foreign_cores": foreign_cores(before, after),
        "rss_mib": {
            part: round(after.parts[part].rss_mib, 1) for part in parts if part in after.parts
        },
        "anon_mib": {
            part: round(after.parts[part].anon_mib, 1) for part in parts if part in after.parts
        },
        "load_average": round(os.getloadavg()[0], 2),
        "calibration_ms": calibrate(),
    }


def analysis(centre: CallCentre, since_ts: float) -> dict[str, float]:
    """What the detector said of itself since then (it does once a minute); empty: nothing yet."""
    found: dict[str, float] = {}
    loads = centre.node.logs("detector_load")
    if len(loads) > 1 and _ts(loads[-1]) >= since_ts:
        last, before = loads[-1], loads[-2]
        frames = last["frames"] - before["frames"]
        dropped = (last["dropped_ms"] - before["dropped_ms"]) / 20
        found["dropped_pct"] = round(100 * dropped / max(1, frames), 2)
    if any(_ts(entry) >= since_ts for entry in centre.node.logs("tap_losing_frames")):
        # What the detector never saw it cannot have dropped.
        found["lost_before_detector"] = 1.0
    words = centre.node.logs("transcription_load")
    if words and _ts(words[-1]) >= since_ts and words[-1]["transcribers"]:
        last = words[-1]
        for name in ("aroused", "all"):
            found[f"{name}_heard_pct"] = last["heard_pct"][name]
    return found


def _ts(entry: Mapping[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(entry["timestamp"]).timestamp()


def signs(row: Mapping[str, Any], bounds: Bounds = Bounds()) -> list[str]:
    """What of a step is a sign that something gives; pure."""
    found = []
    if (p95 := row["setup_ms"]["p95"]) is not None and p95 > bounds.setup_p95_ms:
        found.append(f"set-up p95 is {p95:.0f} ms")
    if row["retransmitted"]:
        found.append(f"{row['retransmitted']} SIP messages were sent again")
    if row["failed"]:
        found.append(f"{row['failed']} calls failed")
    if not row.get("reached", True):
        found.append(f"only {row['live']} calls came to be")
    probe = row["probe"]
    if probe["sent"] and (p99 := probe["rtp_ms"]["p99"]) is not None and p99 > bounds.rtp_p99_ms:
        found.append(f"RTP is {p99:.1f} ms late (p99)")
    if probe["lost"]:
        found.append(f"{probe['lost']} of {probe['sent']} timed packets were lost")
    if probe["failed"]:
        found.append(f"timed calls failed: {probe['failed'][0]}")
    if row["udp_lost"]:
        found.append(f"the kernel threw {row['udp_lost']} datagrams away")
    said = row["analysis"]
    if said.get("lost_before_detector"):
        found.append("the callers' audio reached the detector with holes")
    if said.get("dropped_pct", 0.0) > bounds.dropped_pct:
        found.append(f"{said['dropped_pct']} % of the callers' audio was not judged")
    if said.get("aroused_heard_pct", 100.0) < bounds.aroused_heard_pct:
        found.append(
            f"{said['aroused_heard_pct']} % of the aroused callers' speech was written down"
        )
    for part, pct in row["core_pct"].items():
        if pct > bounds.core_pct and not part.startswith("transcriber"):
            found.append(f"{part} takes {pct:.0f} % of a core")
    return found


def culprit(row: Mapping[str, Any], bounds: Bounds = Bounds()) -> str:
    """Which process and resource a sign points at; pure."""
    waited = max(row["waited_pct"], key=lambda part: row["waited_pct"][part], default="")
    busiest = max(row["core_pct"], key=lambda part: row["core_pct"][part], default="")
    if row["core_pct"].get(busiest, 0.0) > bounds.core_pct:
        return f"{busiest}: its one thread has no more of a core to take"
    if row["machine_pct"] > bounds.machine_pct:
        node, load = row["node_core_pct"], row["generator_core_pct"]
        return (
            f"the machine: {row['machine_pct']} % busy (node {node:.0f}, sipp {load:.0f}, others "
            f"{100 * row['foreign_cores'] - load - row['bench_core_pct']:.0f} % of a core); "
            f"{waited} waited most"
        )
    return f"neither a core nor the machine is full; {waited} waited most"


def per_call(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each process what it takes for itself and for each call, and with how many calls its one
    thread would fill a core: a line through the steps at which it was not starved; pure."""
    found = {}
    parts = list(dict.fromkeys(part for row in rows for part in row["core_pct"]))
    for part in parts:
        own = [
            row
            for row in rows
            if part in row["core_pct"] and row["waited_pct"].get(part, 0.0) <= _STARVED_PCT
        ]
        if len(own) < 2 or len({row["live"] for row in own}) < 2:
            continue
        live = np.array([row["live"] for row in own], float)
        pct = np.array([row["core_pct"][part] for row in own], float)
        slope, base = np.polyfit(live, pct, 1)
        memory = np.polyfit(live, [row["anon_mib"].get(part, 0.0) for row in own], 1)
        found[part] = {
            "base_core_pct": round(float(base), 2),
            "core_pct_per_100_calls": round(100 * float(slope), 2),
            "calls_at_one_core": round((100 - base) / slope) if slope > 1e-4 else 0,
            "base_mib": round(float(memory[1]), 1),
            "kib_per_call": round(1024 * float(memory[0]), 1),
        }
    return found


# -------------------------------------------------------------------------------------- the runs

Emit = Callable[[dict[str, Any]], None]


async def ramp(
    steps: Sequence[int],
    rate: float,
    seconds: float,
    folder: Path,
    emit: Emit,
    *,
    transcribers: int = 0,
    record: bool = False,
    stop_at_sign: bool = True,
    probes: int = 2,
) -> list[dict[str, Any]]:
    """More and more calls on one node; each step adds a flow that keeps its calls up."""
    # A timed call among so few would be most of what is measured.
    targets = [live - probes if live >= _PROBED_FROM else live for live in steps]
    flows = tuple(
        Flow("talk", after - before, rate, _HOLD_S) for before, after in pairwise([0, *targets])
    )
    plan = Plan(
        flows=flows,
        probes=probes,
        probe_s=8.0,
        transcribers=transcribers,
        record=record,
        consoles=1,
        agent_consoles=0,
        limit=800,
    )
    rows = []
    async with running(folder, plan) as centre:
        watcher, probed = _Watcher(centre), False
        for live, target, generator in zip(steps, targets, centre.crowd.generators, strict=True):
            if live >= _PROBED_FROM and not probed:
                probed = True
                for probe in centre.probes:
                    probe.start()
            watcher.begin()
            await generator.call()
            added = generator.flow.live
            filling = asyncio.create_task(_filled(centre, target, added / rate + _PATIENCE_S))
            fill_s = max(3.0, added / rate - 1)
            setting_up = await watcher.over(fill_s)
            reached = await filling
            await asyncio.sleep(_SETTLE_S)
            late = watcher.setups()
            row = await watcher.over(seconds)
            row["reached"] = reached
            row["setting_up"] = {
                name: setting_up[name]
                for name in ("core_pct", "setups_per_s", "setup_ms", "retransmitted", "failed")
            }
            # Most calls of a step are set up before it is measured.
            row["setup_ms"] = quantiles_ms([*late, *watcher.setups()]) if late else row["setup_ms"]
            row["setup_ms"] = setting_up["setup_ms"] if not late else row["setup_ms"]
            row["retransmitted"] += setting_up["retransmitted"]
            row["failed"] += setting_up["failed"]
            row["signs"] = signs(row)
            row["culprit"] = culprit(row) if row["signs"] else ""
            rows.append(row)
            emit(row)
            if row["signs"] and stop_at_sign:
                break
        for probe in centre.probes:
            probe.finish()
    return rows


async def _filled(centre: CallCentre, target: int, timeout_s: float) -> bool:
    ends_s = time.monotonic() + timeout_s
    while time.monotonic() < ends_s:
        # sipp writes its counts once a second and tells nobody.
        if (await asyncio.to_thread(centre.crowd.counts)).live >= target:
            return True
        await asyncio.sleep(0.5)
    return False


async def rates(
    steps: Sequence[float], seconds: float, folder: Path, emit: Emit
) -> list[dict[str, Any]]:
    """Faster and faster set-ups of short calls; a node of its own for each rate."""
    rows = []
    for step in steps:
        hold_s = (3.0, 5.0)
        # The notice, two seconds, comes before the hold's time is over.
        live = int(step * (sum(hold_s) / 2 + 1.5)) + 5
        plan = Plan(
            flows=(Flow("talk", live, step, hold_s),),
            probes=2,
            probe_s=5.0,
            short_notice=True,
            consoles=1,
            agent_consoles=0,
            limit=800,
        )
        async with running(folder / f"{step:g}", plan) as centre:
            watcher = _Watcher(centre)
            for probe in centre.probes:
                probe.start()
            await centre.crowd.generators[0].call()
            await asyncio.sleep(6.0)
            watcher.begin()
            row = await watcher.over(seconds)
            row["rate"] = step
            row["reached"] = row["setups_per_s"] >= 0.95 * step
            row["signs"] = signs(row)
            row["culprit"] = culprit(row) if row["signs"] else ""
            rows.append(row)
            emit(row)
            for probe in centre.probes:
                probe.finish()
        if row["signs"]:
            break
    return rows


async def generator(steps: Sequence[int], seconds: float, folder: Path, emit: Emit) -> None:
    """sipp calls sipp, nobody between: what the load itself takes, and where it gives."""
    tracks = write_tracks(folder / "tracks", words=False)
    async with AsyncExitStack() as stack:
        crowd = Crowd()
        stack.push_async_callback(crowd.close)
        before_live = 0
        for number, live in enumerate(steps, 1):
            callers, phones = f"127.0.{CALLERS}.{number}", f"127.0.{PHONES}.{number}"
            port = free_port(phones)
            one = Generator(
                folder / str(number),
                Flow("talk", live - before_live, 10.0, _HOLD_S),
                tracks,
                f"{phones}:{port}",
                [f"{k:04d}" for k in range(20)],
                callers=callers,
                phones=(phones, port),
            )
            crowd.generators.append(one)
            await one.answer()
            await one.call()
            await asyncio.sleep((live - before_live) / 10 + _SETTLE_S)
            before_live = live
            before = sample(crowd.pids)
            await asyncio.sleep(seconds)
            after = sample(crowd.pids)
            counts = crowd.counts()
            emit(
                {
                    "live": counts.live,
                    "setup_ms": quantiles_ms(one.setup_ms()),
                    "retransmitted": counts.retransmitted,
                    "failed": counts.failed,
                    **{
                        key: value
                        for key, value in usage_row(before, after, []).items()
                        if key
                        in ("generator_core_pct", "machine_pct", "foreign_cores", "load_average")
                    },
                }
            )


async def relay_costs(
    steps: Sequence[int], rounds: int, seconds: float, emit: Emit
) -> list[dict[str, Any]]:
    """The relay and rtpengine under the same load, one right after the other; medians of rounds
    that go up and down, so that a machine that gets busier does not make a slope."""
    from sipbridge.bench_relay import Load, measure

    found: dict[int, list[dict[str, Any]]] = {live: [] for live in steps}
    for number in range(rounds):
        for live in steps if number % 2 == 0 else list(reversed(steps)):
            bench = await measure(Load(live, seconds))
            reference = bench.reference
            row = {
                "calls": live,
                "us_per_packet": bench.worker.us_per_packet,
                "reference_us_per_packet": reference.us_per_packet if reference else None,
                "lost": bench.worker.lost,
                "load_average": round(os.getloadavg()[0], 2),
                "calibration_ms": calibrate(),
            }
            found[live].append(row)
            emit(row)
    return [
        {
            "calls": live,
            **{
                key: round(float(np.median(values)), 2)
                if (values := [row[key] for row in rows if row[key] is not None])
                else None
                for key in ("us_per_packet", "reference_us_per_packet", "calibration_ms")
            },
            "lost": sum(row["lost"] for row in rows),
        }
        for live, rows in found.items()
    ]


async def _nothing() -> list[dict[str, Any]]:
    return []


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> int:
    """Run the program; its exit status: 1 where calls or packets were lost at the first step."""
    parser = argparse.ArgumentParser(prog="./run load", description=__doc__)
    parser.add_argument("what", choices=("ramp", "rates", "cost", "generator"))
    parser.add_argument("--steps", default="", help="none: with cost, the relay alone")
    parser.add_argument("--rate", type=float, default=10.0, help="set-ups a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured at each step")
    parser.add_argument("--transcribers", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--relay", default="1,10,50,100,200,300,450,600")
    parser.add_argument("--rounds", type=int, default=3, help="of the relay alone")
    parser.add_argument("--on", action="store_true", help="go on after the first sign")
    parser.add_argument("--out", type=Path, help="folder for all files; else they are removed")
    parser.add_argument("--plot", type=Path, help="a .png of the cost, drawn by matplotlib")
    given = parser.parse_args()
    need_pyplot(given.plot)

    def emit(row: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="load-") as temporary:
        folder = (given.out or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if given.what == "generator":
            steps = _numbers(given.steps or "50,100,200,300,450")
            asyncio.run(generator(steps, given.seconds, folder, emit))
            return 0
        if given.what == "rates":
            steps = _numbers(given.steps or "5,10,20,30,40,60")
            rows = asyncio.run(rates(steps, given.seconds, folder, emit))
        else:
            costs = given.what == "cost"
            default = "1,10,50,100,200,300,450" if costs else "50,100,150,200,250,300,350,400,450"
            relay: list[dict[str, Any]] = []
            if costs and given.relay:
                relay = asyncio.run(
                    relay_costs(_numbers(given.relay), given.rounds, given.seconds / 4, emit)
                )
            rows = asyncio.run(
                ramp(
                    _numbers(given.steps or default),
                    given.rate,
                    given.seconds,
                    folder,
                    emit,
                    transcribers=given.transcribers,
                    record=given.record,
                    stop_at_sign=not (costs or given.on),
                )
                if given.steps != "none"
                else _nothing()
            )
            if given.plot is not None:
                draw_cost(rows, relay, given.plot)
            if relay:
                emit({"relay": relay})
    gave = next((row for row in rows if row["signs"]), None)
    emit(
        {
            "per_call": per_call(rows) if given.what != "rates" else {},
            "gave_first": gave
            and {
                "live": gave["live"],
                "rate": gave.get("rate"),
                "signs": gave["signs"],
                "culprit": gave["culprit"],
            },
        }
    )
    return 1 if rows and rows[0]["signs"] else 0


if __name__ == "__main__":
    sys.exit(main())
