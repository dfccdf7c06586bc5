"""A thousand INVITEs a second while calls run: from a stranger, and from the PBX's own address.

The running calls are the judge: packets lost, what the relay adds to each, before and during the
flood in one run; then memory, CPU, and whether a good call works. The node is a whole one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sipbridge.bench_worker import FarEnds, cpu_s, rss_mib
from tests.peers.node import Node, running_node
from tests.peers.signalling import End, Wire
from tests.test_peers_offer import said

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

SIDES = ("127.0.42.12", "127.0.42.13")
PBX, SECOND_PBX, PHONES, STRANGER = "127.0.42.14", "127.0.42.18", "127.0.42.15", "127.0.42.16"
CALLS, PER_S = 6, 1000
REFERENCE_S, FLOOD_S = 3.0, 3.0
#: As often at most the calls are looked at.
LOOKS = 3
#: What a flood of FLOOD_S may add to the bridge's memory.
BOUND_MIB = 20
SECOND_PEER = f'[[peers]]\nname = "second"\nnetworks = ["{SECOND_PBX}"]\nattests_notice = true\n'


@dataclass
class Flood:
    """One flood, as its sender and as the node saw it."""

    sent: int
    answers: dict[str, int]
    bytes_out_per_byte_in: float
    bridge_cpu_pct: float
    bridge_grew_mib: float
    from_ns: int
    to_ns: int


async def flood(node: Node, address: str, users: str, seconds: float = FLOOD_S) -> Flood:
    pid = node.pid_of("bridge")
    cpu, mib, clock, from_ns = cpu_s(pid), rss_mib(pid), time.monotonic(), time.time_ns()
    arguments = (address, SIDES[0], str(node.pbx_port), str(PER_S), str(seconds), users)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.peers.flood", *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    told: dict[str, Any] = json.loads(out)
    took = time.monotonic() - clock
    return Flood(
        sent=told["sent"],
        answers=told["answers"],
        bytes_out_per_byte_in=told["came_bytes"] / told["sent_bytes"],
        bridge_cpu_pct=100 * (cpu_s(pid) - cpu) / took,
        bridge_grew_mib=rss_mib(pid) - mib,
        from_ns=from_ns,
        to_ns=time.time_ns(),
    )


class Calls:
    """Running calls: SIP by hand, RTP by :mod:`sipbridge.bench_load`.

    Args:
        node: that carries them.
        phones: of the agents, by agent id.
    """

    def __init__(self, node: Node, phones: dict[str, End]) -> None:
        self.node, self.phones = node, phones
        self._pbx: list[End] = []
        ids = ",".join(f"{prompt};t=1" for prompt in node.settings.notice.prompts)
        self._played = f"{node.settings.notice.upstream_header}: {ids}\r\n"

    async def place(
        self, agent: str, rtp: tuple[tuple[str, int], tuple[str, int]], address: str = PBX
    ) -> tuple[tuple[str, int], tuple[str, int]]:
        """A call; returns where the caller and the agent send their RTP to."""
        pbx = End(await Wire.udp(address, (SIDES[0], self.node.pbx_port)), self.node.uri(agent))
        self._pbx.append(pbx)
        pbx.request("INVITE", said("0", address=rtp[0][0], port=rtp[0][1]), self._played)
        invite = await self.phones[agent].pick_up(said("0", address=rtp[1][0], port=rtp[1][1]))
        accepted = await pbx.final()
        assert accepted.status == 200, accepted.text
        pbx.ack()
        return tuple(  # type: ignore[return-value]
            (side, int(message.body.partition("m=audio ")[2].split()[0]))
            for side, message in zip(SIDES, (accepted, invite), strict=True)
        )

    async def hang_up(self) -> None:
        for pbx in self._pbx:
            pbx.request("BYE")
            assert (await pbx.final("BYE")).status == 200

    def close(self) -> None:
        for end in (*self._pbx, *self.phones.values()):
            end.close()


@asynccontextmanager
async def calls(folder: Path, **options: Any) -> AsyncIterator[Calls]:
    phones = {f"a{n}": End(await Wire.udp(PHONES)) for n in range(CALLS + 2)}
    uris = {name: f"sip:{name}@{PHONES}:{end.wire.port}" for name, end in phones.items()}
    async with running_node(
        folder,
        uris,
        sides=SIDES,
        peer=PBX,
        peer_options="attests_notice = true",
        calls=CALLS + 4,
        extra=SECOND_PEER + "[detector]\nenabled = false\n",
        **options,
    ) as node:
        running = Calls(node, phones)
        try:
            yield running
        finally:
            running.close()


async def refuse_all(phone: End) -> None:
    """A phone that is busy."""
    while True:
        invite = await phone.wire.inbox.get()
        if invite.method == "INVITE":
            phone.answer("486 Busy Here", to=invite)


async def until_only(node: Node, count: int) -> None:
    """Wait until so many calls are left."""
    headers = {"Authorization": f"Bearer {node.tokens['supervisor']}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client, asyncio.timeout(40):
        while True:
            calls = (await client.get(f"{node.base}/api/v1/calls")).json()["calls"]
            if len(calls) <= count:
                return
            await asyncio.sleep(0.1)  # nobody tells us: ask again


async def test_calls_do_not_notice_a_flood(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A flood that costs calls anything does so at each look; the machine's own delays, some
    milliseconds too, come and go. All else is asked of each look."""
    seen = []
    for number in range(LOOKS):
        p99_ms = await look(tmp_path / f"node-{number}", record_property)
        # Two cores shared with the flood's own sender: the relay's p99 stays within a frame's
        # eighth of what it was.
        if max(p99_ms["stranger"], p99_ms["known"]) < p99_ms["quiet"] + 2.5:
            return
        seen.append(p99_ms)
    raise AssertionError(f"p99 of each look, ms: {seen}")


async def look(folder: Path, record_property: Callable[[str, object], None]) -> dict[str, float]:
    """Calls in quiet and in two floods: p99 of what the relay adds in each, ms."""
    async with calls(folder) as running:
        node = running.node
        ends = await FarEnds.open(CALLS)
        try:
            targets = [
                await running.place(f"a{n}", rtp)
                for n, rtp in enumerate(zip(ends.callers, ends.agents, strict=True))
            ]
            await ends.talk(
                ([caller for caller, _ in targets], [agent for _, agent in targets]),
                warm_up_s=1.0,
                seconds=REFERENCE_S + 2 * FLOOD_S + 2.5,
            )
            await ends.hear()  # measuring
            quiet_from_ns = time.time_ns()
            pid = node.pid_of("bridge")
            cpu = cpu_s(pid)
            await asyncio.sleep(REFERENCE_S)
            quiet_to_ns, quiet_cpu_pct = time.time_ns(), 100 * (cpu_s(pid) - cpu) / REFERENCE_S
            media_mib = rss_mib(node.pid_of("media"))
            stranger = await flood(node, STRANGER, "9999,a0")
            # The PBX's address: half of it for nobody, half for an agent whose phone is busy.
            busy = asyncio.create_task(refuse_all(running.phones[f"a{CALLS}"]))
            known = await flood(node, PBX, f"9999,a{CALLS}")
            await ends.hear()  # measured
            whole = await ends.hear()
            figures = {
                "quiet": await ends.between(quiet_from_ns, quiet_to_ns),
                "stranger": await ends.between(stranger.from_ns, stranger.to_ns),
                "known": await ends.between(known.from_ns, known.to_ns),
            }
        finally:
            await ends.finish()
        for name, one in figures.items():
            print(name, one)
        print(f"bridge without a flood: {quiet_cpu_pct:.1f} % of a core")
        print("stranger", stranger)
        print("known", known)
        record_property("figures", json.dumps(figures))

        assert whole["sent"] - whole["received"] == 0
        for one in figures.values():
            assert one["sent"] == one["received"] > 0
        assert stranger.sent > 0.9 * PER_S * FLOOD_S
        assert set(stranger.answers) == {"403"}
        # Ten at once, and ten in each second of the time that it really took.
        assert stranger.answers["403"] <= 10 + 10 * (stranger.to_ns - stranger.from_ns) / 1e9
        assert stranger.bytes_out_per_byte_in < 0.05
        assert stranger.bridge_grew_mib < 1
        assert known.sent > 0.9 * PER_S * FLOOD_S
        assert known.answers["503"] > 0.7 * known.sent
        # What the limit let pass is bounded: 200 at once and 50 a second, each kept for 32 s.
        assert known.bridge_grew_mib < BOUND_MIB
        assert rss_mib(node.pid_of("media")) - media_mib < 2
        # No call is taken down by the end of another whose number it got (sipbridge.ended_legs).
        assert set(known.answers) <= {"100", "404", "486", "503"}
        assert not node.logs("step_failed")
        assert not node.logs("process_died")

        # Both PBXs are served again: the second one's share was never touched.
        await until_only(node, CALLS)
        busy.cancel()
        for agent, address in ((f"a{CALLS + 1}", SECOND_PBX), (f"a{CALLS}", PBX)):
            await running.place(agent, ((address, 4000), (PHONES, 5000)), address)
        await running.hang_up()
    return {name: one["added_ms"]["p99"] for name, one in figures.items()}


async def test_the_negative_control_without_the_limit_the_same_flood_costs_memory(
    tmp_path: Path,
) -> None:
    sip = "requests_per_s = 1e9\nrequest_burst = 1000000000\n"
    async with calls(tmp_path / "node", sip=sip) as running:
        known = await flood(running.node, PBX, "9999", seconds=1.5)
        print("without limit", known)
        assert "503" not in known.answers
        assert known.bridge_grew_mib / known.sent > BOUND_MIB / (PER_S * FLOOD_S)
