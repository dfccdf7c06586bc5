"""`callshield bench phones`: from a level on the bus to a phone having the whole document.

A whole node (`callshield serve` without analysis), phones on loopback, and a client of the bus
that says what a detector would say. One change at a time, each on its way when the one before has
arrived. In the same run, before and after, the same documents are posted by the same client
straight to the same phone: what is left is the node's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from callshield.bench_phones_peer import Arrivals, HttpPhone, SipPhone
from callshield.bus import BusClient
from callshield.errors import SetupError
from callshield.free_ports import free_port, free_range
from callshield.logs import configure_logs
from callshield.messages import CallEnded, CallStarted, Hello, NodeMessage, RiskChanged
from callshield.serve import Supervisor
from callshield.settings import Settings, load_settings

_PBX_SIDE, _PHONE_SIDE, _PHONE = "127.0.0.12", "127.0.0.13", "127.0.0.14"
_READY_S = 60.0
_WITHIN_S = 5.0
#: Between an arrival and the next change: the answer is back by then.
_APART_S = 0.03
_WARM_UP = 10
#: From a level on the bus to the whole document at the phone.
GOAL_MS = 300.0


@dataclass(frozen=True, slots=True)
class Way:
    """One phone and how it is told."""

    name: str
    agent_id: str
    model: str
    arrivals: Arrivals


def _write_config(
    folder: Path, plain: HttpPhone, digest: HttpPhone, sip_port: int, listener_port: int
) -> Path:
    password = folder / "password"
    password.write_text("bench", encoding="utf-8")
    password.chmod(0o600)
    pbx, phone = free_range(_PBX_SIDE, 60), free_range(_PHONE_SIDE, 60)
    path = folder / "callshield.toml"
    path.write_text(
        f"""\
[node]
name = "bench"
state_dir = "{folder / "state"}"
runtime_dir = "{folder / "run"}"
log_level = "error"
stop_timeout_s = 1
[sip]
admission_limit = 10
[sip.pbx]
bind = "{_PBX_SIDE}"
port = {free_port(_PBX_SIDE)}
rtp_ports = [{pbx[0]}, {pbx[1]}]
[sip.phone]
bind = "{_PHONE_SIDE}"
port = {free_port(_PHONE_SIDE)}
rtp_ports = [{phone[0]}, {phone[1]}]
networks = ["{_PHONE}/32"]
[[peers]]
name = "bench"
networks = ["127.0.0.15"]
[agents.http]
uri = "sip:http@{_PHONE}:5060"
phone_model = "mitel-6800"
[agents.digest]
uri = "sip:digest@{_PHONE}:5060"
phone_model = "poly-vvx"
[agents.sip]
uri = "sip:sip@{_PHONE}:{sip_port}"
phone_model = "yealink-t"
[phones]
port = {listener_port}
url = "http://127.0.0.1:{listener_port}"
[phones.families.mitel-6800]
push = "xml-post"
port = {plain.port}
[phones.families.poly-vvx]
user = "bench"
password_file = "{password}"
port = {digest.port}
[phones.families.yealink-t]
push = "xml-notify"
[detector]
enabled = false
[web]
port = {free_port("127.0.0.1")}
""",
        encoding="utf-8",
    )
    return path


@contextlib.asynccontextmanager
async def _node(config: Path, settings: Settings) -> AsyncIterator[None]:
    supervisor = Supervisor(settings, config)
    running = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(supervisor.ready.wait())
    try:
        await asyncio.wait((running, ready), timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        if not supervisor.ready.is_set():
            raise SetupError("the node did not get ready: its log is on standard error above")
        yield
    finally:
        ready.cancel()
        supervisor.request_stop()
        await asyncio.gather(running, ready, return_exceptions=True)


class _Source:
    """Says on the bus what a detector would."""

    def __init__(self, settings: Settings) -> None:
        self._client: BusClient[NodeMessage] = BusClient(
            settings.bus_path,
            NodeMessage,
            self._ignore,
            lambda: [Hello(role="bench", pid=os.getpid())],
        )
        self.calls: dict[str, str] = {}

    async def _ignore(self, message: NodeMessage) -> None:
        return

    async def start(self) -> None:
        self._client.start()
        async with asyncio.timeout(_READY_S):
            await self._client.connected.wait()

    async def close(self) -> None:
        await self._client.close()

    def begin(self, agent_id: str) -> None:
        call_id = self.calls[agent_id] = uuid.uuid4().hex
        self._client.send(
            CallStarted(ts=time.time(), call_id=call_id, agent_id=agent_id, pbx_call_id="bench")
        )

    def end(self, agent_id: str) -> None:
        call_id = self.calls.pop(agent_id)
        ended = CallEnded(
            ts=time.time(), call_id=call_id, agent_id=agent_id, reason="caller_hangup"
        )
        self._client.send(ended)

    def level(self, agent_id: str, number: int) -> float:
        """Send a level unlike the one before; when, on the counter of the arrivals."""
        level = 2 + number % 2
        message = RiskChanged(
            ts=time.time(),
            call_id=self.calls[agent_id],
            level=level,
            previous=5 - level,
            categories=["threat", "profanity"],
            score=0.8,
        )
        sent = time.perf_counter()
        self._client.send(message)
        return sent


async def _through_node(source: _Source, way: Way, count: int) -> list[float]:
    """Delays, ms."""
    source.begin(way.agent_id)
    took = []
    try:
        for number in range(count + _WARM_UP):
            sent = source.level(way.agent_id, number)
            came, _ = await way.arrivals.next(_WITHIN_S)
            if number >= _WARM_UP:
                took.append(1000 * (came - sent))
            await asyncio.sleep(_APART_S)
    except TimeoutError:
        raise SetupError(
            f"no screen came by {way.name} within {_WITHIN_S:g} s: is the machine overloaded?"
        ) from None
    source.end(way.agent_id)
    with contextlib.suppress(TimeoutError):
        await way.arrivals.next(_WITHIN_S)
    return took


async def _straight(phone: HttpPhone, count: int) -> list[float]:
    """The reference: the same client, the same phone, a document of that size, no node."""
    body = b"x" * 500
    took = []
    async with httpx.AsyncClient(trust_env=False) as client:
        for number in range(count + _WARM_UP):
            sent = time.perf_counter()
            await client.post(f"http://{_PHONE}:{phone.port}/", content=body)
            came, _ = await phone.arrivals.next(_WITHIN_S)
            if number >= _WARM_UP:
                took.append(1000 * (came - sent))
            await asyncio.sleep(_APART_S)
    return took


def _figures(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)

    def at(part: float) -> float:
        return round(ordered[min(int(part * len(ordered)), len(ordered) - 1)], 2)

    return {"p50": at(0.5), "p95": at(0.95), "max": round(ordered[-1], 2)}


async def measure(screens: int) -> dict[str, Any]:
    """Run the whole benchmark.

    Args:
        screens: changes of level for each way.

    Raises:
        SetupError: the node did not start, or a screen did not come.
    """
    load_average = os.getloadavg()[0]
    plain, digest, sip = HttpPhone(digest=False), HttpPhone(digest=True), SipPhone()
    sip_port, listener_port = free_port(_PHONE), free_port("127.0.0.1")
    await plain.start(_PHONE)
    await digest.start(_PHONE)
    await sip.start(_PHONE, sip_port)
    ways = [
        Way("http", "http", "mitel-6800", plain.arrivals),
        Way("http_digest", "digest", "poly-vvx", digest.arrivals),
        Way("sip", "sip", "yealink-t", sip.arrivals),
    ]
    result: dict[str, Any] = {"screens": screens, "goal_ms": GOAL_MS}
    try:
        before = _figures(await _straight(plain, screens // 2))
        with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
            config = _write_config(Path(name), plain, digest, sip_port, listener_port)
            settings = load_settings(config)
            async with _node(config, settings):
                source = _Source(settings)
                await source.start()
                await _phones_ready(source, ways[0])
                for way in ways:
                    result[f"{way.name}_ms"] = _figures(await _through_node(source, way, screens))
                await source.close()
        after = _figures(await _straight(plain, screens // 2))
    finally:
        await plain.close()
        await digest.close()
        sip.close()
    result["reference_ms"] = {"before": before, "after": after}
    result["load_average"] = round(load_average, 2)
    return result


async def _phones_ready(source: _Source, way: Way) -> None:
    """Wait until the phones' process is on the bus: it is told of calls that began before."""
    source.begin(way.agent_id)
    source.level(way.agent_id, 0)
    try:
        await way.arrivals.next(_READY_S)
    except TimeoutError:
        raise SetupError("the process that writes on phones did not get ready") from None
    source.end(way.agent_id)
    await way.arrivals.next(_WITHIN_S)


def run(screens: int, *, as_json: bool) -> int:
    """The command `callshield bench phones`; prints, and returns the exit status: 1 when a p95 is
    above the goal.

    Raises:
        SetupError: the node did not start, or a screen did not come.
    """
    configure_logs("supervisor", level="critical")
    result = asyncio.run(measure(screens))
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(result)) + "\n")
    late = [name for name in _WAYS if result[f"{name}_ms"]["p95"] > GOAL_MS]
    return 1 if late else 0


_WAYS = {
    "http": "HTTP",
    "http_digest": "HTTP, digest",
    "sip": "SIP NOTIFY by the bridge",
}


def _lines(result: dict[str, Any]) -> list[str]:
    def told(one: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in one.items()) + " ms"

    reference = result["reference_ms"]
    return [
        f"{result['screens']} screens each way, from the bus to the phone; load average before "
        f"{result['load_average']}; goal: p95 at most {result['goal_ms']:g} ms",
        *(f"  {title:<26}{told(result[f'{name}_ms'])}" for name, title in _WAYS.items()),
        f"  {'straight POST, before':<26}{told(reference['before'])}",
        f"  {'straight POST, after':<26}{told(reference['after'])}",
    ]
