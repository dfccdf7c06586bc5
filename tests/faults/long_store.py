"""The store's disk is full, or its server is gone, while calls run: nobody in a call notices, and
nothing that happened is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from notifier.database import place_of, transact
from tests.faults.figures import CALLS, measured
from tests.faults.floor import Floor, running_floor
from tests.faults.long_kill import hang_up, whole
from tests.postgres import Cluster
from tests.test_peers_recording import fill, small_disk

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

#: How long the store is away while everybody speaks.
AWAY_S = 4.0


async def hurt(
    floor: Floor, name: str, break_it: Callable[[], None], mend: Callable[[], None]
) -> None:
    """Break the store under calls, hang all up meanwhile, mend it; judge what became of it."""
    node = floor.node
    floor.answer()
    await floor.talk(AWAY_S + 6)
    await asyncio.sleep(1)  # of a conversation
    from_ns = time.time_ns()
    await asyncio.to_thread(break_it)
    await asyncio.sleep(AWAY_S)  # what is watched
    until_ns = time.time_ns()
    await floor.silence()
    heard = await floor.heard(from_ns, until_ns)
    await hang_up(floor, name)  # what is told of it cannot be stored yet
    await node.wait_for_log("store_failing")
    assert len(floor.supervisor.seen("call.ended")) < CALLS
    mended = time.monotonic()
    await asyncio.to_thread(mend)
    (again,) = await node.wait_for_log("store_working_again")
    await floor.supervisor.wait("call.ended", count=CALLS)
    measured(name, told_after_s=round(time.monotonic() - mended, 2), **asdict(heard))
    whole(heard)
    assert again["dropped"] == 0
    await node.until_ready()
    rows = transact(
        place_of(node.settings),
        lambda c: c.exec_driver_sql("SELECT id, type FROM events ORDER BY id").all(),
    )
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert [row[1] for row in rows].count("call.ended") == CALLS


async def test_a_full_disk_under_the_store_keeps_nobody_from_talking(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        (tmp_path / "node").mkdir()
        (tmp_path / "node" / "state").symlink_to(disk)
        async with running_floor(tmp_path, CALLS) as floor:
            await hurt(
                floor,
                "store's disk full",
                lambda: fill(disk / "filler"),
                lambda: (disk / "filler").unlink(),
            )


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of this test's own, which it may stop."""
    made = Cluster()
    try:
        yield made
    finally:
        made.remove()


@asynccontextmanager
async def floor_on_postgres(folder: Path) -> AsyncIterator[tuple[Floor, Cluster]]:
    with cluster() as server:
        await asyncio.to_thread(server.start)
        toml = await asyncio.to_thread(lambda: server.database().toml(folder))
        async with running_floor(folder, CALLS, extra=toml) as floor:
            yield floor, server


@pytest.mark.postgres
async def test_a_database_that_is_gone_keeps_nobody_from_talking(tmp_path: Path) -> None:
    async with floor_on_postgres(tmp_path) as (floor, server):
        await hurt(floor, "PostgreSQL gone", server.stop, server.start)
