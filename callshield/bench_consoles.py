"""``callshield bench consoles``: how soon an alert is on every screen.

A real notifier process; a stand-in for the bridge on its bus sends risen levels, each of another
call, so that each makes one alert; real WebSocket clients in processes of their own see all of
them, as supervisors do (the most that a console can get). The delay runs from the moment at which
the level goes onto the bus, before it is appended to the store, until the client has the alert:
bus, board, commit to disk, fan-out and the client's own reading are in it. websockets'
``broadcast`` of the same messages to as many clients, before and after, shows what the machine
does at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

from callshield.bench_consoles_clients import STEP_MS
from callshield.bench_processes import Part
from callshield.bus import BusClient
from callshield.errors import SetupError
from callshield.free_ports import free_port
from callshield.messages import CallSnapshot, CallStarted, Hello, NodeMessage, Reason, RiskChanged
from callshield.settings import Settings, load_settings
from notifier.tokens import create_token
from sipbridge.bench_worker import Helper, rss_mib

#: Processes that the clients are spread over.
_CLIENT_PROCESSES = 2
_WARM_UP_S = 2.0
_READY_S = 60.0
#: Time for the last messages to arrive.
_LAST_S = 15.0
#: Each of the two parts of the reference.
_REFERENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class ConsoleLoad:
    """What is asked for."""

    consoles: int
    alerts_per_s: float
    seconds: float

    @property
    def alerts(self) -> int:
        return round(self.alerts_per_s * self.seconds)


def quantile_ms(delays: Counter[int], share: float) -> float | None:
    """The upper end of the step in which a quantile of the delays lies; ``None`` without any."""
    rank, seen = share * sum(delays.values()), 0
    for step in sorted(delays):
        seen += delays[step]
        if seen >= rank:
            return round((step + 1) * STEP_MS, 1)
    return None


def _figures(delays: Counter[int]) -> dict[str, float | None]:
    return {
        "p50": quantile_ms(delays, 0.5),
        "p99": quantile_ms(delays, 0.99),
        "max": quantile_ms(delays, 1.0),
    }


class _Clients:
    """Consoles in several processes."""

    def __init__(self, processes: list[Helper]) -> None:
        self._processes = processes

    @classmethod
    async def start(cls) -> _Clients:
        module = "callshield.bench_consoles_clients"
        return cls([await Helper.start(module) for _ in range(_CLIENT_PROCESSES)])

    async def connect(self, count: int, port: int, path: str, token: str) -> None:
        parts = len(self._processes)
        shares = [count // parts + (number < count % parts) for number in range(parts)]
        for process, share in zip(self._processes, shares, strict=True):
            await process.say(port=port, path=path, token=token, count=share)
        async with asyncio.timeout(_READY_S):
            for process in self._processes:
                await process.hear()

    async def begin(self) -> None:
        for process in self._processes:
            await process.say(do="begin")
        for process in self._processes:
            await process.hear()

    async def report(self) -> dict[str, Any]:
        for process in self._processes:
            await process.say(do="report")
        reports = [await process.hear() for process in self._processes]
        delays: Counter[int] = Counter()
        for one in reports:
            delays.update({int(step): count for step, count in one["delays"].items()})
        return {
            "timed": [count for one in reports for count in one["timed"]],
            "delays": delays,
            **{key: sum(one[key] for one in reports) for key in ("again", "messages", "bytes")},
            "closed": [code for one in reports for code in one["closed"]],
        }

    async def until_all(self, alerts: int) -> dict[str, Any]:
        """The report when every console has all alerts, or when time is up."""
        end = time.monotonic() + _LAST_S
        while True:
            found = await self.report()
            if all(count >= alerts for count in found["timed"]) or time.monotonic() > end:
                return found
            await asyncio.sleep(0.5)

    async def finish(self) -> None:
        for process in self._processes:
            await process.finish()


async def _at_rate(per_s: float, count: int, act: Callable[[], Awaitable[None]]) -> float:
    """Do something so often; returns by how much the latest one was late, in ms."""
    loop = asyncio.get_running_loop()
    began, latest = loop.time(), 0.0
    for number in range(count):
        due = began + number / per_s
        await asyncio.sleep(max(0.0, due - loop.time()))
        latest = max(latest, loop.time() - due)
        await act()
    return round(1e3 * latest, 1)


class _Bridge:
    """Stands in for the bridge: calls that live, whose levels rise."""

    def __init__(self, settings: Settings, calls: int) -> None:
        self._calls = [
            CallStarted(
                ts=time.time(),
                call_id=uuid.uuid4().hex,
                agent_id="1001",
                pbx_call_id=f"bench.{number}",
                pbx="bench",
            )
            for number in range(calls)
        ]
        self._next = iter(self._calls)
        self._client: BusClient[NodeMessage] = BusClient(
            settings.bus_path, NodeMessage, self._on_message, self._on_connect
        )

    def _on_connect(self) -> list[NodeMessage]:
        answered = [call.call_id for call in self._calls]
        snapshot = CallSnapshot(ts=time.time(), calls=self._calls, answered=answered)
        return [Hello(role="bridge", pid=os.getpid()), snapshot]

    async def _on_message(self, message: NodeMessage) -> None:
        """Nothing is expected."""

    async def start(self) -> None:
        self._client.start()
        async with asyncio.timeout(_READY_S):
            await self._client.connected.wait()

    async def rise(self) -> None:
        """The next call gets loud."""
        self._client.send(
            RiskChanged(
                ts=time.time(),
                call_id=next(self._next).call_id,
                level=3,
                previous=0,
                categories=["shouting", "insult"],
                score=0.9,
                reasons=[Reason(kind="vocal_effort", score=0.9, rule="sustained_effort")],
            )
        )

    async def close(self) -> None:
        await self._client.close()


def _write_config(folder: Path, consoles: int) -> Path:
    path = folder / "callshield.toml"
    path.write_text(
        f"""\
[node]
name = "bench"
state_dir = "{folder / "state"}"
runtime_dir = "{folder / "run"}"
log_level = "error"
[agents.1001]
uri = "sip:1001@127.0.0.15:5060"
[web]
port = {free_port("127.0.0.1")}
[limits]
consoles_per_token = {consoles}
address_burst = {10 * consoles + 1000}
""",
        encoding="utf-8",
    )
    return path


@contextlib.asynccontextmanager
async def _notifier(folder: Path, config: Path) -> AsyncIterator[Part]:
    notifier = Part("notifier.process", folder / "notifier.log")
    watched, held = os.pipe()
    await notifier.start(watched, "--config", str(config))
    try:
        yield notifier
    finally:
        os.close(held)
        os.close(watched)
        await notifier.stop()


async def _until(notifier: Part, http: httpx.AsyncClient, path: str, line: str) -> None:
    """Wait until a page of the notifier holds ``line``."""
    async with asyncio.timeout(_READY_S):
        while True:
            notifier.check()
            with contextlib.suppress(httpx.TransportError):
                if line in (await http.get(path)).text:
                    return
            await asyncio.sleep(0.1)


async def _commits(http: httpx.AsyncClient) -> tuple[float, float]:
    """Seconds in commits so far, and how many they were."""
    found = dict.fromkeys(("sum", "count"), 0.0)
    for line in (await http.get("/metrics")).text.splitlines():
        name, _, value = line.partition(" ")
        if name.startswith("callshield_store_commit_seconds_"):
            found[name.rpartition("_")[2]] = float(value) if "{" not in name else 0.0
    return found["sum"], found["count"]


async def _reference(load: ConsoleLoad, seconds: float) -> dict[str, float | None]:
    """The same messages by websockets' ``broadcast``."""
    echo = await Helper.start("callshield.bench_consoles_echo")
    clients = await _Clients.start()
    numbers = itertools.count(1)
    try:
        port = (await echo.hear())["port"]
        await clients.connect(load.consoles, port, "/", "")
        await clients.begin()
        base = {"call_id": "0" * 32, "agent_id": "1001", "pbx_call_id": "bench.1"}

        async def tell() -> None:
            risk = {"type": "risk.changed", "level": 3, "previous": 0, "may_trigger": False}
            alert = {"type": "alert.raised", "alert_id": "0" * 32, "kind": "risk", "level": 3}
            for body in (risk, alert):
                # The order of the fields is that of the notifier's messages.
                told = {"id": next(numbers), "type": body["type"], "ts": time.time()}
                await echo.say(**{**told, **body, **base, "categories": ["shouting", "insult"]})

        count = round(load.alerts_per_s * seconds)
        await _at_rate(load.alerts_per_s, count, tell)
        return _figures((await clients.until_all(count))["delays"])
    finally:
        await clients.finish()
        await echo.finish()


async def measure(load: ConsoleLoad) -> dict[str, Any]:
    """Run the whole benchmark.

    Raises:
        SetupError: a process did not start or died.
    """
    load_average = os.getloadavg()[0]
    reference_s = min(_REFERENCE_S, load.seconds)
    before = await _reference(load, reference_s)
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        folder = Path(name)
        result = await _measured(load, folder)
    after = await _reference(load, reference_s)
    return {
        "consoles": load.consoles,
        "alerts_per_s": load.alerts_per_s,
        "seconds": load.seconds,
        **result,
        "reference_ms": {"before": before, "after": after},
        "load_average": round(load_average, 2),
    }


async def _measured(load: ConsoleLoad, folder: Path) -> dict[str, Any]:
    config = _write_config(folder, load.consoles)
    settings = load_settings(config)
    token = create_token(settings, "supervisor", "bench")
    warm_up = round(load.alerts_per_s * _WARM_UP_S)
    bridge = _Bridge(settings, load.alerts + warm_up)
    clients = await _Clients.start()
    address = f"http://127.0.0.1:{settings.web.port}"
    async with (
        _notifier(folder, config) as notifier,
        httpx.AsyncClient(base_url=address, trust_env=False) as http,
    ):
        try:
            await _until(notifier, http, "/healthz", "ok")
            await bridge.start()
            calls = float(load.alerts + warm_up)
            await _until(notifier, http, "/metrics", f"callshield_live_calls {calls}\n")
            await _until(notifier, http, "/metrics", "callshield_journal_waiting 0.0\n")
            alone_mib = rss_mib(notifier.pid)
            await clients.connect(load.consoles, settings.web.port, "/api/v1/events", token)
            idle_mib = rss_mib(notifier.pid)
            await _at_rate(load.alerts_per_s, warm_up, bridge.rise)
            await clients.until_all(warm_up)
            await clients.begin()
            before_s, before = await _commits(http)
            notifier.begin()
            began = time.monotonic()
            late_ms = await _at_rate(load.alerts_per_s, load.alerts, bridge.rise)
            took_s = time.monotonic() - began
            cost = notifier.cost(took_s)
            after_s, after = await _commits(http)
            found = await clients.until_all(load.alerts)
        except TimeoutError:
            notifier.check()
            raise SetupError("the notifier or the clients were not ready in time") from None
        finally:
            await clients.finish()
            await bridge.close()
    timed = found["timed"]
    return {
        "alerts": load.alerts,
        "delivered": sum(timed),
        "missed": sum(max(0, load.alerts - count) for count in timed),
        "twice": found["again"] + sum(max(0, count - load.alerts) for count in timed),
        "closed": len(found["closed"]),
        "messages": found["messages"],
        "delivery_ms": _figures(found["delays"]),
        "sender_late_ms": late_ms,
        "commits": round(after - before),
        "commit_mean_ms": round(1e3 * (after_s - before_s) / max(after - before, 1), 1),
        "notifier": {
            **cost,
            "rss_without_consoles_mib": round(alone_mib, 1),
            "rss_idle_mib": round(idle_mib, 1),
        },
    }


def run(load: ConsoleLoad, *, as_json: bool) -> int:
    """The command `callshield bench consoles`; prints, and returns the exit status: 1 when a
    console missed an alert or got one twice.

    Raises:
        SetupError: a process did not start or died.
    """
    result = uvloop.run(measure(load))
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(result)) + "\n")
    return 1 if result["missed"] or result["twice"] else 0


def _lines(result: dict[str, Any]) -> list[str]:
    def told(one: dict[str, float | None]) -> str:
        return ", ".join(f"{name} {value}" for name, value in one.items()) + " ms"

    cost, reference = result["notifier"], result["reference_ms"]
    return [
        f"{result['consoles']} consoles, {result['alerts_per_s']:g} alerts/s for "
        f"{result['seconds']:g} s; load average before {result['load_average']}",
        f"  delivery          {told(result['delivery_ms'])}",
        f"  reference before  {told(reference['before'])}",
        f"  reference after   {told(reference['after'])}",
        f"  {result['commits']} commits of {result['commit_mean_ms']} ms in the mean",
        f"  {result['delivered']} alerts delivered, {result['missed']} missed, "
        f"{result['twice']} twice, {result['closed']} consoles closed",
        f"  notifier {cost['rss_mib']} MiB (at most {cost['peak_mib']}; without consoles "
        f"{cost['rss_without_consoles_mib']}, consoles idle {cost['rss_idle_mib']}), "
        f"{cost['cpu_core_pct']} % of a core",
    ]
