"""Two nodes' notifiers on one PostgreSQL and one NATS server, all of them real."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from callshield.settings import Settings, load_settings
from notifier.cluster.views import may_travel, read_event
from notifier.database import lock, migrate, place_of
from notifier.process import bind, run
from tests.nats_server import NatsServer
from tests.notifier_kit import WITHIN_S, Desk, _answers, free_port, write_config
from tests.postgres import Cluster, Database
from tests.store_kit import rows as rows_of

NODES = ("node-a", "node-b")
#: Seconds: short enough for a test, long enough for a machine that has other work.
FAST = "heartbeat_s = 0.3\ndead_after_s = 4\n"


def cluster_toml(servers: Iterable[str], more: str = FAST, nodes: Iterable[str] = NODES) -> str:
    """``[cluster]``."""
    urls = ", ".join(f'"{url}"' for url in servers)
    names = ", ".join(f'"{name}"' for name in nodes)
    return f"[cluster]\nservers = [{urls}]\nnodes = [{names}]\n{more}"


def lines(where: Path, database: Database, server: NatsServer, more: str = FAST) -> str:
    """``[store]`` and ``[cluster]`` for :class:`tests.peers.node.Node`."""
    where.mkdir(exist_ok=True)
    return database.toml(where) + cluster_toml([server.url], more)


def write_node(
    folder: Path, name: str, database: Database, cluster: str, extra: str = "", agents: str = ""
) -> Path:
    """One node's configuration file."""
    folder.mkdir(exist_ok=True)
    more = database.toml(folder) + cluster + extra
    path = write_config(folder, free_port(), more, agents)
    path.write_text(path.read_text().replace("[node]\n", f'[node]\nname = "{name}"\n', 1))
    return path


def migrated(folder: Path, cluster: Cluster) -> Database:
    """A database with the tables of both nodes, to be copied."""
    database = cluster.database()
    for name in NODES:
        config = write_node(folder, name, database, cluster_toml(["nats://127.0.0.1:4222"]))
        migrate(place_of(load_settings(config)))
    return database


@contextlib.asynccontextmanager
async def desk_of(config: Path) -> AsyncIterator[Desk]:
    """A node's notifier in this process: the real server on a real port."""
    settings: Settings = load_settings(config)
    place = place_of(settings)
    await asyncio.to_thread(migrate, place)
    held = lock(place)
    desk = Desk(settings)
    stop = asyncio.Event()
    serving = asyncio.create_task(run(settings, bind(settings), stop))
    try:
        await _answers(desk, serving)
        yield desk
    finally:
        stop.set()
        await serving
        os.close(held)


@contextlib.asynccontextmanager
async def two_desks(
    folder: Path, database: Database, server: NatsServer, more: str = FAST, extra: str = ""
) -> AsyncIterator[tuple[Desk, Desk]]:
    """Nodes a and b."""
    cluster = cluster_toml([server.url], more)
    configs = [write_node(folder / name, name, database, cluster, extra) for name in NODES]
    async with desk_of(configs[0]) as one, desk_of(configs[1]) as other:
        yield one, other


async def until(check: Callable[[], Awaitable[bool]], within_s: float = WITHIN_S) -> None:
    """Ask again and again until the answer is yes: a database and an API tell nobody."""
    async with asyncio.timeout(within_s):
        while not await check():  # noqa: ASYNC110 # nothing tells us: ask again
            await asyncio.sleep(0.1)


async def until_joined(*desks: Desk) -> None:
    """Until these nodes are on the bus."""
    for desk in desks:

        async def joined(desk: Desk = desk) -> bool:
            async with desk.http() as http:
                return "callshield_cluster_connected 1.0" in (await http.get("/metrics")).text

        await until(joined)


async def until_listed(
    desk: Desk, path: str, key: str, count: int, token: str = ""
) -> list[dict[str, Any]]:
    """Entries of a list, once there are so many."""
    async with asyncio.timeout(WITHIN_S), desk.http(token or desk.supervisor) as http:
        while True:
            answer = await http.get(f"/api/v1/{path}")
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()[key]
            if len(found) == count:
                return found
            await asyncio.sleep(0.05)


def own_events(desk: Desk) -> list[tuple[str, str, float]]:
    """Type, call and time of a node's own events that travel, in order."""
    rows = rows_of(place_of(desk.settings))
    return [
        (row["type"], row["call_id"], row["ts"])
        for row in rows
        if (event := read_event(row["body"])) is not None
        and not row["type"].startswith("@")
        and may_travel(event)
    ]


def heard_events(desk: Desk) -> list[tuple[str, str, float]]:
    """The same of the other node's events in a node's record."""
    rows = rows_of(place_of(desk.settings))
    return [
        (row["type"][1:], row["call_id"], row["ts"]) for row in rows if row["type"].startswith("@")
    ]


async def until_heard(desk: Desk, other: Desk, *, calls: int = 1, alerts: int = 0) -> None:
    """Until a node has as many events of the other as that one has made.

    Args:
        desk: who hears.
        other: whose events.
        calls: so many that were answered are among them: what the bridge has just said may not be
            stored yet.
        alerts: likewise, that were raised.
    """

    async def heard() -> bool:
        own = own_events(other)
        types = [kind for kind, _, _ in own]
        return (
            types.count("call.answered") >= calls
            and types.count("alert.raised") >= alerts
            and len(heard_events(desk)) >= len(own)
        )

    await until(heard)


def all_heard(desk: Desk, other: Desk) -> bool:
    """Whether a node has all of the other's events: none lost, none double, in their order.

    What goes on by itself (who is told of an alert, and told again) makes more of them at any time:
    a node has at least what the other had before it was looked at, and at most what that has after.
    """
    before = own_events(other)
    heard = heard_events(desk)
    return len(heard) >= len(before) and heard == own_events(other)[: len(heard)]
