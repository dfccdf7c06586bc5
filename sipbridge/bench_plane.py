"""What a call costs on each media plane: ``python -m sipbridge.bench_plane [--calls N]``.

Three relays carry the same load one after the other, on the same machine, in the same run: our own
media worker with the tap open, rtpengine by itself (nothing is tapped), and rtpengine commanded by
the plane's process with the tap open (:mod:`sipbridge.rtpengine_plane`). CPU is user and system
time of all processes that a plane needs, over the packets that came through.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from callshield.errors import CallshieldError, SetupError
from sipbridge.bench_relay import (
    Load,
    Measurement,
    measure_rtpengine,
    measure_worker,
    under_load,
)
from sipbridge.bench_worker import (
    PBX_SIDE,
    PHONE_SIDE,
    FarEnds,
    Helper,
    StandIn,
    WorkerProcess,
    cpu_s,
    rss_mib,
)
from sipbridge.rtpengine_process import Rtpengine, free_udp_port, rtpengine_binary

_TABLES = """
[ear]
limiter = false
levelling = false
soften_from_level = 4
[hearing]
dose_warnings_pct = []
voice_hint_after_s = 0
[notice]
agent_hears = "nothing"
[media]
plane = "rtpengine"
[media.rtpengine]
control = "{control}"
dtmf_log = "{dtmf_log}"
"""


async def measure_plane(binary: str, load: Load) -> tuple[Measurement, float]:
    """rtpengine and the process that commands it, with the tap open.

    Returns:
        both together, and the command process's share of a core in per cent.

    Raises:
        SetupError: one of them did not start, or died.
    """
    dtmf_log = f"127.0.0.1:{free_udp_port('127.0.0.1')}"
    engine = Rtpengine(
        binary,
        interfaces=(f"pbx/{PBX_SIDE}", f"phone/{PHONE_SIDE}"),
        ports=(22000, 22400 + 8 * load.calls),
        options=(f"--dtmf-log-dest={dtmf_log}", "--timeout=3600"),
    )
    control = f"{engine.control[0]}:{engine.control[1]}"
    helpers: list[Helper] = []
    with tempfile.TemporaryDirectory(prefix="callshield-bench-") as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        worker = WorkerProcess(
            folder,
            load.calls,
            module="sipbridge.rtpengine_plane",
            extra=_TABLES.format(control=control, dtmf_log=dtmf_log),
        )
        bridge = StandIn(worker.media_path, PBX_SIDE, PHONE_SIDE)
        async with engine:  # ended last: the plane would call its end a fault
            try:
                await worker.start()
                await bridge.connect()
                idle_mib = rss_mib(engine.pid) + rss_mib(worker.pid)
                reader = await Helper.start("sipbridge.bench_load", "tap", str(worker.tap_path))
                helpers.append(reader)
                await reader.hear()
                far_ends = await FarEnds.open(load.calls)
                helpers.append(far_ends)
                targets = await bridge.set_up(far_ends.callers, far_ends.agents, tap=True)
                before = cpu_s(worker.pid)
                began = asyncio.get_running_loop().time()
                measured = await under_load(
                    "rtpengine", far_ends, targets, (engine.pid, worker.pid), load
                )
                took_s = asyncio.get_running_loop().time() - began
                share = 100 * (cpu_s(worker.pid) - before) / took_s
                accepted = await bridge.close_calls()
                reader.end_input()
                frames = int((await reader.hear())["frames"])
                return (
                    replace(
                        measured,
                        rss_idle_mib=round(idle_mib, 1),
                        tap_delivered_pct=round(100.0 * frames / max(accepted, 1), 3),
                    ),
                    round(share, 1),
                )
            finally:
                for helper in helpers:
                    await helper.finish()
                await bridge.close()
                await worker.stop()


async def measure(load: Load) -> dict[str, Any]:
    """All three, one after the other.

    Raises:
        SetupError: rtpengine is not installed, or a process did not start.
    """
    binary = rtpengine_binary()
    if binary is None:
        raise SetupError("rtpengine is not installed: apt-get install rtpengine-daemon")
    worker = await measure_worker(load)
    alone = await measure_rtpengine(binary, replace(load, tap=False))
    plane, share = await measure_plane(binary, load)
    return {
        "relay": worker.as_json(),
        "rtpengine_alone": alone.as_json(),
        "rtpengine_plane": {**plane.as_json(), "command_process_core_pct": share},
    }


def _row(name: str, figures: dict[str, Any]) -> str:
    added = figures["added_latency_ms"]
    tapped = figures["tap_delivered_pct"]
    cells = (
        name,
        figures["calls"],
        figures["load_average"],
        figures["cpu_core_pct"],
        round(figures["cpu_core_pct"] / figures["calls"], 3),
        figures["us_per_packet"],
        added["p50"],
        added["p99"],
        added["max"],
        f"{figures['lost']} of {figures['sent']}",
        "-" if tapped is None else tapped,
        figures["mib_per_call"],
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(prog="sipbridge.bench_plane", description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        result = asyncio.run(measure(Load(given.calls, given.seconds, tap=True)))
    except CallshieldError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if given.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    lines = [
        "| plane | calls | load average | CPU, % of a core | of it a call | µs a packet "
        "| added p50 ms | p99 ms | max ms | lost | tap delivered % | MiB a call |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        _row("relay, tap on", result["relay"]),
        _row("rtpengine alone, no tap", result["rtpengine_alone"]),
        _row("rtpengine plane, tap on", result["rtpengine_plane"]),
        "",
        f"Of the last the command process: {result['rtpengine_plane']['command_process_core_pct']} "
        "% of a core.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
