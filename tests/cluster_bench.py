"""The figures of docs/cluster.md: ``python -m tests.cluster_bench``.

Two notifiers in processes of their own, a real nats-server and a real PostgreSQL, all on this
machine; a bridge double at node b tells of calls.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from callshield.settings import load_settings
from tests.cluster_kit import NODES, cluster_toml, heard_events, migrated, own_events, write_node
from tests.nats_server import NatsServer
from tests.notifier_kit import Bridge, Console, Desk, _answers
from tests.postgres import Cluster, run_beside


class Notifier:
    """One node's notifier in a process of its own."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.desk = Desk(load_settings(config))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "notifier.process", "--config", str(self.config)),
            stderr=asyncio.subprocess.DEVNULL,
        )
        await _answers(self.desk)

    async def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            os.kill(self.process.pid, number)
            await self.process.wait()

    async def figure(self, name: str) -> float:
        async with self.desk.http() as http:
            page = (await http.get("/metrics")).text
        return next(float(x.split()[1]) for x in page.splitlines() if x.startswith(name + " "))

    def rss_mib(self) -> float:
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 2**20


async def latency(here: Console, there: Console, bridge: Bridge, count: int) -> None:
    """From the bridge's word at node b to a screen at node b, and at node a."""
    call_id = bridge.start_call("1001")
    await here.until("call.started", call_id=call_id)
    await there.until("call.started", call_id=call_id)
    own, other = [], []

    async def arrives(console: Console, began: float, level: int) -> float:
        await console.until("risk.changed", level=level)
        return time.monotonic() - began

    for number in range(count):
        level = 1 + number % 2
        began = time.monotonic()
        bridge.risk(call_id, level)
        both = await asyncio.gather(arrives(here, began, level), arrives(there, began, level))
        own.append(both[0])
        other.append(both[1])
        await asyncio.sleep(0.05)  # one at a time: this is not the throughput
    for name, values in (("own node", own), ("other node", other)):
        cut = statistics.quantiles(values, n=100)
        p50_ms, p99_ms = cut[49] * 1e3, cut[98] * 1e3
        print(f"event on a screen of the {name}: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms")


async def caught_up(one: Notifier, other: Notifier, least: int = 0, within_s: float = 300) -> int:
    """Until one has heard all, and at least so many events, of the other; how many."""
    async with asyncio.timeout(within_s):
        while True:
            own = await asyncio.to_thread(own_events, other.desk)
            heard = await asyncio.to_thread(heard_events, one.desk)
            if len(heard) >= len(own) >= least:
                assert heard == own, "lost, double or out of order"
                return len(own)
            await asyncio.sleep(0.1)


async def measure(folder: Path, database: object, bus: NatsServer, events: int) -> None:
    cluster = cluster_toml([bus.url], "")
    a, b = (
        Notifier(write_node(folder / name, name, database, cluster))  # type: ignore[arg-type]
        for name in NODES
    )
    await a.start()
    await b.start()
    try:
        async with (
            b.desk.bridge() as bridge,
            a.desk.console(a.desk.supervisor) as there,
            b.desk.console(b.desk.supervisor) as here,
        ):
            await latency(here, there, bridge, 200)
        async with b.desk.bridge() as bridge:
            before = await caught_up(a, b)
            cpu = [await x.figure("process_cpu_seconds_total") for x in (a, b)]
            began = time.monotonic()
            calls = events // 10
            for _ in range(calls):
                call_id = bridge.start_call("1001")
                bridge.notice(call_id)
                bridge.risk(call_id, 1)
                bridge.risk(call_id, 0, 1)
                bridge.end_call(call_id)
                await asyncio.sleep(0)
            # Each call begins, has a notice, two levels and an end.
            total = await caught_up(a, b, before + 5 * calls) - before
            took_s = time.monotonic() - began
            used = [await x.figure("process_cpu_seconds_total") for x in (a, b)]
            print(f"{total} events of {calls} calls at node b, all at node a after {took_s:.1f} s")
            for name, x, y in zip(("a (hears)", "b (has the calls)"), cpu, used, strict=True):
                print(f"  CPU of node {name}: {(y - x) / total * 1e6:.0f} µs an event")
            await asyncio.to_thread(bus.stop)
            for _ in range(calls):
                call_id = bridge.start_call("1001")
                bridge.notice(call_id)
                bridge.risk(call_id, 1)
                bridge.risk(call_id, 0, 1)
                bridge.end_call(call_id)
                await asyncio.sleep(0)
            while await b.figure("callshield_journal_waiting"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            waiting = await b.figure("callshield_cluster_outbox_events")
            await asyncio.to_thread(bus.start)
            began = time.monotonic()
            while not await a.figure("callshield_cluster_connected"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            found_s = time.monotonic() - began
            await caught_up(a, b)
            print(
                f"{waiting:.0f} events waited while the bus was away; it was found {found_s:.1f} s "
                f"and all was caught up {time.monotonic() - began:.1f} s after it came back"
            )
        print(f"memory: node a {a.rss_mib():.0f} MiB, node b {b.rss_mib():.0f} MiB")
        async with a.desk.console(a.desk.supervisor) as there:
            began = time.monotonic()
            await b.end(signal.SIGKILL)
            await there.until("alert.raised", reason="node_away:node-b")
            print(f"kill -9 of node b: alert at node a after {time.monotonic() - began:.1f} s")
    finally:
        await a.end(signal.SIGTERM)
        await b.end(signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    database, bus = Cluster(), NatsServer()
    database.start()
    bus.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = migrated(Path(folder), database)
            run_beside(measure(Path(folder), made, bus, options.events))
    finally:
        bus.remove()
        database.remove()
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
