"""``callshield cluster``: the nodes, how far each is behind, and what waits."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from callshield.errors import CallshieldError, SetupError
from callshield.settings import Settings, load_settings

cluster_app = typer.Typer(
    help="Several nodes: who is there, and how far behind.", no_args_is_help=True
)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")


@dataclass
class NodeRow:
    """One node as it is heard on the bus."""

    node: str
    state: str
    version: str = ""
    calls: int = 0
    alerts: int = 0
    outbox: int = 0
    dropped: int = 0
    lag: int = 0
    """Messages of the stream that it has not stored yet."""
    refused: int = 0
    consoles: int = 0
    clock_offset_s: float = 0.0
    same_config: bool = True


@dataclass
class Status:
    """What ``cluster status`` found."""

    stream: str
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    replicas: int = 1
    nodes: list[NodeRow] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """Sentences; empty when all is well."""


async def look(settings: Settings) -> Status:
    """Listen for a few heartbeats, and ask the stream.

    Raises:
        BusAway: no NATS server or JetStream can be used.
        SetupError: ``[cluster]`` is off, or a secret of it cannot be read.
    """
    import msgspec
    from nats.aio.msg import Msg

    from callshield.messages_cluster import Beat, decode_beat
    from notifier.cluster.floor import CLOCKS_S
    from notifier.cluster.link import connect, load_secrets

    cluster = settings.cluster
    if not cluster.enabled:
        raise SetupError("[cluster] is off: this node is alone (set cluster.servers)")
    beats: dict[str, tuple[Beat, float]] = {}
    strange: set[str] = set()
    all_heard = asyncio.Event()

    async def heard(message: Msg) -> None:
        sender = message.subject.rpartition(".")[2]
        try:
            beat = decode_beat(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            strange.add("a heartbeat that cannot be read came from the bus")
            return
        if beat.node != sender or sender not in cluster.nodes:
            strange.add("a heartbeat of a node that is not in cluster.nodes came from the bus")
            return
        beats[sender] = (beat, beat.ts - time.time())
        if len(beats) == len(cluster.nodes):
            all_heard.set()

    async def ignore(_error: Exception) -> None:
        return

    link = await connect(cluster, load_secrets(cluster), settings.node.name, ignore)
    try:
        await link.client.subscribe(link.beat_of("*"), cb=heard)
        stream = await link.ensure_stream()
        try:
            async with asyncio.timeout(2.0 + 2 * cluster.heartbeat_s):
                await all_heard.wait()
        except TimeoutError:
            pass
        stream = await link.ensure_stream()
        wanted = link.stream_config()
    finally:
        await link.close()

    status = Status(
        stream=link.stream,
        messages=stream.state.messages,
        bytes=stream.state.bytes,
        first_seq=stream.state.first_seq,
        last_seq=stream.state.last_seq,
        replicas=stream.config.num_replicas or 1,
        troubles=sorted(strange),
    )
    for name in ("max_age", "max_bytes", "num_replicas"):
        there, here = getattr(stream.config, name), getattr(wanted, name)
        if there != here:
            status.troubles.append(
                f"the stream was made with {name} = {there:g}, this node's configuration says "
                f"{here:g}: change it with `nats stream edit {link.stream}`"
            )
    configs = {beat.config for beat, _ in beats.values()}
    for name in cluster.nodes:
        found = beats.get(name)
        if found is None:
            status.nodes.append(NodeRow(name, "not heard"))
            status.troubles.append(f"node {name} is not heard")
            continue
        beat, offset_s = found
        row = NodeRow(
            name,
            beat.state,
            beat.version,
            beat.calls,
            beat.alerts,
            beat.outbox,
            beat.dropped,
            max(0, stream.state.last_seq - beat.position),
            beat.refused,
            len(beat.supervisors),
            round(offset_s, 2),
        )
        status.nodes.append(row)
        if abs(offset_s) > CLOCKS_S:
            status.troubles.append(
                f"the clock of node {name} differs by {offset_s:.1f} s from this machine's: "
                "keep both with NTP"
            )
    if len(configs) > 1:
        for row in status.nodes:
            row.same_config = False
        status.troubles.append(
            "the nodes have different agents, supervisors, teams, shadow groups or cluster.nodes: "
            "give them the same and restart them"
        )
    return status


@cluster_app.command("status")
def cluster_status(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show every node as the bus hears it: state, calls, outbox, lag. Exit status 1 when a node is
    not heard or something must be put right."""
    status = asyncio.run(look(load_settings(config)))
    if as_json:
        print(json.dumps(asdict(status)))
    else:
        _show(status)
    if status.troubles:
        raise typer.Exit(1)


def _show(status: Status) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("node", "state", "version", "calls", "alerts", "consoles", "outbox", "lag")
    table = Table(*columns, "refused", "clock")
    for row in status.nodes:
        values: list[Any] = [row.node, row.state, row.version]
        if row.state == "not heard":
            values += ["", "", "", "", "", "", ""]
        else:
            outbox = f"{row.outbox}" + (f" ({row.dropped} left out)" if row.dropped else "")
            values += [row.calls, row.alerts, row.consoles, outbox, row.lag, row.refused]
            values.append(f"{row.clock_offset_s:+.2f} s")
        table.add_row(*map(str, values))
    console = Console()
    console.print(table)
    console.print(
        f"stream {status.stream}: {status.messages} messages, {status.bytes / 1048576:.1f} MiB, "
        f"sequence {status.first_seq} to {status.last_seq}, {status.replicas} "
        f"cop{'y' if status.replicas == 1 else 'ies'}"
    )
    for trouble in status.troubles:
        console.print(f"! {trouble}")


def examine_cluster(settings: Settings) -> str:
    """A sentence about ``[cluster]``, for doctor; a node that is not heard may not run yet.

    Raises:
        CallshieldError: no server can be used, or something must be put right.
    """
    if not settings.cluster.enabled:
        return "off: this node is alone"
    status = asyncio.run(look(settings))
    wrong = [one for one in status.troubles if not one.endswith("is not heard")]
    if wrong:
        raise CallshieldError("; ".join(wrong))
    heard = [row.node for row in status.nodes if row.state != "not heard"]
    return (
        f"stream {status.stream} with {status.messages} messages; heard of "
        f"{len(status.nodes)} nodes: {', '.join(heard) or 'none'}"
    )
