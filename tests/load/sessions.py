"""``./run soak sessions``: calls that stay up past 15 and 30 minutes, with session timers.

What only shows with time: a session timer (RFC 4028) of the usual half hour is refreshed after 15
minutes and would run out after 30; NAT, timers and counters wrap; memory grows. Four kinds of call
run at once on one node: each side refreshing each leg, at 90 s and at 1800 s. A line a minute says
how they are; the last line is JSON, and the exit status is 1 when anything ended or was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.peers.node import Node, running_node
from tests.peers.session import Session
from tests.peers.sip_ua import running_ua

PBX = "127.0.0.4"
#: Session-Expires (seconds), and whether the far ends refresh (else we do).
KINDS = ((90, True), (90, False), (1800, True), (1800, False))


def _memory_mib(node: Node, part: str) -> float:
    status = Path(f"/proc/{node.pid_of(part)}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


async def soak(minutes: float) -> dict[str, Any]:
    """Run the calls for this long; what became of them."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        # The node asks for one Session-Expires on the phones' legs: a node for each.
        sessions: list[Session] = []
        nodes: list[Node] = []
        for expires_s in (90, 1800):
            pbx = await stack.enter_async_context(running_ua(PBX, "pbx"))
            kinds = [far for seconds, far in KINDS if seconds == expires_s]
            phones = [
                await stack.enter_async_context(running_ua(f"127.0.0.{5 + n}", f"100{n}"))
                for n in range(len(kinds))
            ]
            node = await stack.enter_async_context(
                running_node(
                    folder / str(expires_s),
                    {phone.user: phone.uri for phone in phones},
                    peer=PBX,
                    sip=f"session_expires_s = {expires_s}\n",
                )
            )
            nodes.append(node)
            for phone, far in zip(phones, kinds, strict=True):
                session = Session(node, pbx, phone, phone.user, far, far, expires_s)
                await session.start()
                sessions.append(session)
        talking = [asyncio.create_task(session.talk()) for session in sessions]
        memory = [_memory_mib(node, "bridge") for node in nodes]
        begun = time.monotonic()
        try:
            while (elapsed_s := time.monotonic() - begun) < minutes * 60:
                await asyncio.sleep(min(60.0, minutes * 60 - elapsed_s))
                up = sum(not session.ended.is_set() for session in sessions)
                refreshed = sum(len(s.by_us) + len(s.by_them) for s in sessions)
                sys.stderr.write(
                    f"soak: {(time.monotonic() - begun) / 60:.0f} of {minutes:g} min, "
                    f"{up} of {len(sessions)} calls up, {refreshed} refreshes\n"
                )
                for session in sessions:
                    session.check()
                if up < len(sessions):
                    break
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
        result = {
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "calls": len(sessions),
            "up": sum(not session.ended.is_set() for session in sessions),
            "refreshes_by_us": sum(len(session.by_us) for session in sessions),
            "refreshes_by_far_ends": sum(len(session.by_them) for session in sessions),
            "silence_s": round(sum(session.silence_s for session in sessions), 1),
            "bridge_mib_begin": memory,
            "bridge_mib_end": [_memory_mib(node, "bridge") for node in nodes],
        }
        for session in sessions:
            if not session.ended.is_set():
                await session.hang_up()
            await session.stop()
        return result


def main() -> int:
    """Run the program; its exit status."""
    parser = argparse.ArgumentParser(prog="./run soak sessions", description=__doc__)
    parser.add_argument("--minutes", type=float, default=31.0)
    result = asyncio.run(soak(parser.parse_args().minutes))
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["up"] == result["calls"] and result["silence_s"] < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
