"""A floor of real dialogs under load: a whole node, a PBX and telephones, RTP in every call.

SIP is led by two scripted user agents (:mod:`tests.peers.sip_ua`), the PBX and all telephones;
RTP comes from a process of its own (:mod:`sipbridge.bench_load`), which notes every packet that it
sends and every one that arrives: what a far end did not hear is known to the packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from sipbridge.bench_worker import FarEnds
from tests.peers.node import Node, Watch, running_node
from tests.peers.scene import ATTESTED
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua

PBX, PHONES = "127.0.4.4", "127.0.4.5"
SIDES = ("127.0.4.2", "127.0.4.3")
#: Where the load's sockets are (:mod:`sipbridge.bench_load`).
MEDIA = ("127.0.0.1", "127.0.0.2")
WARM_UP_S = 2.0


@dataclass(frozen=True)
class Heard:
    """What the far ends heard of what was said in an interval."""

    seconds: float
    sent: int
    lost: int
    longest_gap_ms: float
    p99_ms: float


@dataclass
class Pair:
    """One call: the PBX's dialog with us, the phone's dialog with us."""

    caller: Dialog
    agent: Dialog
    ended_at: dict[str, float] = field(default_factory=dict)
    """When a BYE of ours came, by side; monotonic."""


class Floor:
    """Calls that run.

    Args:
        node: the node.
        pbx, phones: who lead the dialogs.
        ends: who talk.
        supervisor: a console.
    """

    def __init__(self, node: Node, pbx: Ua, phones: Ua, ends: FarEnds, supervisor: Watch) -> None:
        self.node, self.pbx, self.phones, self.ends = node, pbx, phones, ends
        self.supervisor = supervisor
        self.pairs: list[Pair] = []
        self._answering: list[asyncio.Task[None]] = []

    async def set_up(self) -> None:
        """Connect all calls; RTP does not flow yet."""
        targets: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
        for number, (caller_end, agent_end) in enumerate(
            zip(self.ends.callers, self.ends.agents, strict=True)
        ):
            agent_id = str(1001 + number)
            caller = self.pbx.begin(
                self.node.uri(agent_id), self.node.pbx_address, self.node.pbx_port
            )
            answering = asyncio.create_task(
                caller.invite(headers=ATTESTED, body=description(*caller_end))
            )
            invite = await self.phones.expect(
                lambda m, to=f"sip:{agent_id}@": m.method == "INVITE" and to in m.start,  # type: ignore[misc]
                f"the INVITE for {agent_id}",
            )
            agent = self.phones.accept(invite, body=description(*agent_end))
            answer = await answering
            assert answer.status == 200, answer.text
            self.pairs.append(Pair(caller, agent))
            targets[0].append((answer.media_address, answer.media_port))
            targets[1].append((invite.media_address, invite.media_port))
        self._targets = targets

    async def talk(self, seconds: float) -> None:
        """Everybody talks for so long from now on, after a short warm-up."""
        await self.ends.talk(self._targets, warm_up_s=WARM_UP_S, seconds=seconds)
        await self.ends.hear()

    async def silence(self) -> None:
        """Wait until everybody has said everything; then :meth:`heard` can be asked."""
        await self.ends.hear()
        await self.ends.hear()

    async def heard(self, from_ns: int, to_ns: int) -> Heard:
        """What came of what was sent in an interval of wall clock."""
        got = await self.ends.between(from_ns, to_ns)
        return Heard(
            seconds=round((to_ns - from_ns) / 1e9, 1),
            sent=got["sent"],
            lost=got["sent"] - got["received"],
            longest_gap_ms=20.0 * got["longest_gap_packets"],
            p99_ms=got["added_ms"]["p99"],
        )

    def answer(self) -> None:
        """From now on both far ends answer BYE and OPTIONS, and note when a BYE came."""
        by_call = {pair.caller.call_id: (pair, "caller") for pair in self.pairs}
        by_call |= {pair.agent.call_id: (pair, "agent") for pair in self.pairs}

        async def serve(ua: Ua) -> None:
            while True:
                request = await ua.expect(
                    lambda m: not m.status and m.method in ("BYE", "OPTIONS"), "BYE", 1e6
                )
                if request.method == "BYE":
                    pair, side = by_call[request["Call-ID"]]
                    pair.ended_at[side] = time.monotonic()
                ua.reply(request, 200)

        self._answering += [asyncio.create_task(serve(ua)) for ua in (self.pbx, self.phones)]

    async def until_ended(self, count: int, timeout_s: float = 60.0) -> None:
        """Until so many BYEs of ours came."""
        async with asyncio.timeout(timeout_s):
            while sum(len(pair.ended_at) for pair in self.pairs) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # what is counted tells nobody

    async def close(self) -> None:
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


def description(address: str, port: int) -> str:
    """A session description of the load's: µ-law."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\n"
    )


@contextlib.asynccontextmanager
async def running_floor(
    folder: Path, calls: int, *, extra: str = "", stop_timeout_s: float = 2, **options: Any
) -> AsyncIterator[Floor]:
    """So many connected calls for as long as the block lasts."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pbx, phones = await enter(running_ua(PBX, "pbx")), await enter(running_ua(PHONES, "phone"))
        agents = {
            str(1001 + number): f"sip:{1001 + number}@{PHONES}:{phones.port}"
            for number in range(calls)
        }
        node = await enter(
            running_node(
                folder / "node",
                agents,
                peer=PBX,
                peer_options="attests_notice = true\n",
                sides=SIDES,
                sip="requests_per_s = 1000\nrequest_burst = 1000\n",
                calls=calls,
                media_networks=MEDIA,
                extra=extra,
                stop_timeout_s=stop_timeout_s,
                **options,
            )
        )
        supervisor = await enter(node.watch("supervisor"))
        ends = await FarEnds.open(calls)
        stack.push_async_callback(ends.finish)
        floor = Floor(node, pbx, phones, ends, supervisor)
        stack.push_async_callback(floor.close)
        await floor.set_up()
        yield floor


# ------------------------------------------------------------------------------- what is killed


def at(line: dict[str, Any]) -> float:
    """Wall clock of a log line."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@dataclass(frozen=True)
class Kill:
    """One process that was killed, and came back."""

    part: str
    from_ns: int
    again_s: float
    """From the kill until its work goes on."""
    until_ns: int


async def kill(floor: Floor, part: str) -> Kill:
    """``kill -9``, and wait until the part's work goes on."""
    node = floor.node
    sign = SIGNS[part.split("-")[0]]
    event, where = sign
    before = len([line for line in node.logs(event) if where.items() <= line.items()])
    from_ns = time.time_ns()
    node.kill(part)
    async with asyncio.timeout(60):
        # A file tells nobody that it grew.
        while True:
            lines = [line for line in node.logs(event) if where.items() <= line.items()]
            if len(lines) > before:
                break
            await asyncio.sleep(0.02)
        await ready(node)
    again_s = round(max(at(lines[-1]) - from_ns / 1e9, 0.0), 2)
    return Kill(part, from_ns, again_s, time.time_ns())


#: The log line that says that a part works again.
SIGNS: dict[str, tuple[str, dict[str, Any]]] = {
    "detector": ("bus_peer_connected", {"role": "detector"}),
    "notifier": ("ready", {"process": "notifier"}),
    "phones": ("bus_peer_connected", {"role": "phones"}),
    "transcriber": ("transcriber_ready", {}),
    "media": ("media_ready", {}),
    "bridge": ("bridge_ready", {}),
}


async def ready(node: Node) -> None:
    """Until /readyz says yes."""
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{node.base}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


def load_average() -> float:
    return round(os.getloadavg()[0], 1)


def within(dialog: Dialog, method: str) -> Any:
    """Requests of a method inside a dialog."""

    def fits(message: Message) -> bool:
        return (
            not message.status and message.method == method and message["Call-ID"] == dialog.call_id
        )

    return fits
