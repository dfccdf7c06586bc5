"""A worked plan for a site, from what was measured: nodes, cores, memory, disk, lines.

    python -m tests.load.plan [--agents 10000] [--calls-per-node 300] …

Every cost comes from ``measured/node.json`` (from ``./run load`` and ``./run soak``, with the day
and the load of the machine beside it); what is assumed of the site is an argument.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.load.erlang import servers_for_loss

MEASURED = Path(__file__).parent / "measured" / "node.json"
#: Of a core's time a process may be planned to take: the rest is for moments.
HEADROOM = 0.6
_KIB_PER_GIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Site:
    """What is assumed."""

    agents: int = 10_000
    """Logged in during the busy hour."""
    occupancy: float = 0.85
    """Share of their time in calls and their wrapping up."""
    talk_s: float = 240.0
    wrap_up_s: float = 60.0
    hours_a_day: float = 9.0
    """Busy hours whose traffic makes a day's."""
    recorded: float = 1.0
    """Share of the calls."""
    retention_days: int = 90
    """Of recordings."""
    refused: float = 1e-4
    """Share of calls that may find every place of every node taken."""
    calls_per_node: int = 300
    spare_nodes: int = 2
    """One that died and one that is being upgraded."""
    transcribers_per_node: int = 8

    @property
    def traffic(self) -> float:
        """Erlang: agents who talk at a time, in the mean."""
        return self.agents * self.occupancy * self.talk_s / (self.talk_s + self.wrap_up_s)


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured of one node."""

    base_core_pct: Mapping[str, float]
    core_pct_per_100_calls: Mapping[str, float]
    setup_core_ms: Mapping[str, float]
    """Of a call's beginning and end."""
    base_mib: Mapping[str, float]
    kib_per_call: Mapping[str, float]
    transcriber_mib: float
    store_kib_per_call: float
    log_kib_per_call: float
    recording_kib_per_minute: float
    sip_bytes_per_call: float
    mbit_s_each_way_per_100_calls: float

    def core_pct(self, part: str, calls: float, setups_per_s: float) -> float:
        """Of one process with so many calls."""
        return (
            self.base_core_pct.get(part, 0.0)
            + self.core_pct_per_100_calls.get(part, 0.0) * calls / 100
            + self.setup_core_ms.get(part, 0.0) * setups_per_s / 10
        )


def read_costs(path: Path = MEASURED) -> Costs:
    """What was measured."""
    return Costs(**json.loads(path.read_text())["costs"])


def plan(site: Site, costs: Costs) -> dict[str, Any]:
    """All of it.

    Raises:
        ValueError: a process of one thread would have no core that is fast enough.
    """
    places = min(site.agents, servers_for_loss(site.traffic, site.refused))
    nodes = math.ceil(places / site.calls_per_node)
    per_node = places / nodes
    setups_per_s = site.traffic / site.talk_s
    parts = {
        part: round(costs.core_pct(part, per_node, setups_per_s / nodes), 1)
        for part in costs.base_core_pct
    }
    full = {part: pct for part, pct in parts.items() if pct > 100 * HEADROOM}
    if full:
        raise ValueError(
            f"{', '.join(full)} would take {max(full.values()):.0f} % of a core of which "
            f"{100 * HEADROOM:.0f} are planned: fewer calls a node (--calls-per-node)"
        )
    cores = sum(parts.values()) / 100 / HEADROOM + site.transcribers_per_node
    memory_mib = (
        sum(costs.base_mib.values())
        + per_node * sum(costs.kib_per_call.values()) / 1024
        + site.transcribers_per_node * costs.transcriber_mib
    )
    calls_a_day = setups_per_s * 3600 * site.hours_a_day
    minutes_a_day = calls_a_day * site.talk_s / 60 * site.recorded
    recordings_gib_a_day = minutes_a_day * costs.recording_kib_per_minute / _KIB_PER_GIB
    return {
        "erlang": round(site.traffic, 1),
        "places": places,
        "nodes": nodes,
        "nodes_with_spare": nodes + site.spare_nodes,
        "calls_per_node": round(per_node, 1),
        "setups_per_s": round(setups_per_s, 2),
        "setups_per_s_per_node": round(setups_per_s / nodes, 2),
        "core_pct": parts,
        "cores_per_node": math.ceil(cores),
        "memory_gib_per_node": round(memory_mib / 1024, 2),
        "calls_a_day": round(calls_a_day),
        "store_gib_a_year": round(365 * calls_a_day * costs.store_kib_per_call / _KIB_PER_GIB, 1),
        "log_gib_a_day": round(calls_a_day * costs.log_kib_per_call / _KIB_PER_GIB, 2),
        "recordings_gib_a_day": round(recordings_gib_a_day),
        "recordings_tib": round(recordings_gib_a_day * site.retention_days / 1024, 1),
        "recordings_write_mib_s_per_node": round(
            per_node * site.recorded * costs.recording_kib_per_minute / 60 / 1024, 2
        ),
        "rtp_mbit_s_each_way_per_node": round(
            per_node * costs.mbit_s_each_way_per_100_calls / 100, 1
        ),
        "sip_kbit_s_per_node": round(setups_per_s / nodes * costs.sip_bytes_per_call * 8 / 1000, 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Plan a site from measured figures.")
    usual = Site()
    for name, value in ((name, getattr(usual, name)) for name in Site.__dataclass_fields__):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, metavar=f"{value:g}"
        )
    given = parser.parse_args()
    try:
        found = plan(Site(**vars(given)), read_costs())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
