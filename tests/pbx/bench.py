"""CPU of a call: Asterisk's own bridge beside our relay, under the same load in the same run.

``./run bench asterisk`` prints a table. Each relay carries the same calls in turn, several rounds:

* ours: the media worker with limiter and tap, as ``callshield bench relay --tap``;
* Asterisk, two plain legs: its native RTP bridge, which hands packets on without looking;
* Asterisk as in a queue with a feature code (``t``): every frame goes through its core.

CPU is user and system time of the whole process over the packets that came through.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sipbridge.bench_relay import Load, Measurement, measure_worker, under_load
from sipbridge.bench_worker import Ends, FarEnds
from tests.pbx.asterisk import PHONE_3, PSTN, Asterisk
from tests.pbx.conftest import MISSING, ROOT
from tests.peers.sip_ua import Dialog, Ua, running_ua

#: Extension prefix of each way of bridging: Dial's options, and Asterisk's name for the bridge.
WAYS = {"62": ("", "native_rtp"), "63": ("t", "simple_bridge")}


def sdp(end: tuple[str, int]) -> str:
    """µ-law and nothing else, at one of the load's sockets."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {end[0]}\r\ns=-\r\nc=IN IP4 {end[0]}\r\nt=0 0\r\n"
        f"m=audio {end[1]} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
    )


async def connect(
    asterisk: Asterisk, caller: Ua, phone: Ua, prefix: str, far_ends: FarEnds
) -> tuple[list[Dialog], tuple[Ends, Ends]]:
    """One call after the other; our dialogs, and where the load's packets go."""
    dialogs: list[Dialog] = []
    targets: tuple[Ends, Ends] = ([], [])
    for number, (a, b) in enumerate(zip(far_ends.callers, far_ends.agents, strict=True)):
        dialog = caller.begin(asterisk.uri(f"{prefix}{number:03}"), asterisk.address, asterisk.port)
        answering = asyncio.create_task(dialog.invite(body=sdp(a)))
        invite = await phone.request("INVITE")
        phone.accept(invite, body=sdp(b))
        await phone.request("ACK")
        answer = await answering
        assert answer.status == 200, answer.text
        dialogs.append(dialog)
        targets[0].append((answer.media_address, answer.media_port))
        targets[1].append((invite.media_address, invite.media_port))
    return dialogs, targets


async def measure_asterisk(root: Path, prefix: str, load: Load) -> Measurement:
    """The load through one Asterisk of its own."""
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        async with running_ua(PSTN, "load") as caller, running_ua(PHONE_3, "1003") as phone:
            dialplan = "\n[from-pstn](+)\n" + "".join(
                f"exten => _{way}XXX,1,Dial(PJSIP/1003/{phone.uri},60,{options})\n"
                for way, (options, _) in WAYS.items()
            )
            asterisk = Asterisk(
                Path(name),
                root,
                pstn=f"{PSTN}:{caller.port}",
                dialplan=dialplan,
                calls=load.calls + 10,
            )
            far_ends = await FarEnds.open(load.calls)
            try:
                await asterisk.start()
                dialogs, targets = await connect(asterisk, caller, phone, prefix, far_ends)
                bridges = await asterisk.cli("bridge show all")
                assert bridges.count(WAYS[prefix][1]) == load.calls, bridges
                measured = await under_load("Asterisk", far_ends, targets, (asterisk.pid,), load)
                for dialog in dialogs:
                    dialog.send("BYE")
                return measured
            finally:
                await far_ends.finish()
                await asterisk.stop()


async def rounds(root: Path, load: Load, count: int) -> dict[str, list[Measurement]]:
    """Everybody in turn, so that the machine's moods fall on all of them."""

    async def ours() -> Measurement:
        return await measure_worker(load)

    ways: dict[str, Callable[[], object]] = {
        "Callshield: relay, limiter, tap": ours,
        "Asterisk: native RTP bridge": lambda: measure_asterisk(root, "62", load),
        "Asterisk: with a feature code (t)": lambda: measure_asterisk(root, "63", load),
    }
    found: dict[str, list[Measurement]] = {name: [] for name in ways}
    for number in range(count):
        for name, way in ways.items():
            sys.stderr.write(f"  round {number + 1} of {count}: {name} ...\n")
            found[name].append(await way())  # type: ignore[misc]
    return found


def table(found: dict[str, list[Measurement]], load: Load) -> str:
    """Markdown: medians over the rounds."""
    lines = [
        f"{load.calls} calls of G.711 for {load.seconds:.0f} s, median of "
        f"{len(next(iter(found.values())))} rounds",
        "",
        "| | % of a core a call | µs a packet | added p50 · p99 (ms) | lost |",
        "|---|---|---|---|---|",
    ]
    for name, all_ in found.items():

        def middle(pick: Callable[[Measurement], float], of: list[Measurement] = all_) -> float:
            return statistics.median(pick(one) for one in of)

        lines.append(
            f"| {name} | {middle(lambda m: m.cpu_core_pct / m.calls):.3f} "
            f"| {middle(lambda m: m.us_per_packet):.1f} "
            f"| {middle(lambda m: m.added_latency_ms['p50']):.2f} · "
            f"{middle(lambda m: m.added_latency_ms['p99']):.2f} "
            f"| {sum(m.lost for m in all_)} of {sum(m.sent for m in all_)} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="./run bench asterisk", description=__doc__)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    root = os.environ.get(ROOT)
    if not root:
        sys.stderr.write(f"There is no Asterisk to measure beside: {os.environ.get(MISSING)}\n")
        return 1
    load = Load(given.calls, given.seconds)
    print(table(asyncio.run(rounds(Path(root), load, given.rounds)), load))
    return 0


if __name__ == "__main__":
    sys.exit(main())
