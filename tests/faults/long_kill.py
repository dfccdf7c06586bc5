"""``kill -9`` of each process of a node while calls run: what is heard, what is lost, how long.

Ten calls here; ``./run test-faults`` takes a hundred and keeps the figures.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from tests.faults.figures import CALLS, measured
from tests.faults.floor import Floor, Heard, Kill, kill, load_average, ready, running_floor
from tests.peers.scene import ATTESTED

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

#: Watched after a process works again.
AFTER_S = 2.0
#: Long enough for all kills on a busy machine.
TALK_S = 40.0 if CALLS <= 10 else 90.0
PARTS = ("phones", "transcriber-1", "notifier", "detector", "bridge")
ALL_PARTS = "[phones]\n[transcriber]\nworkers = 1\n"
NOBODY = "[phones]\nenabled = false\n"


def whole(heard: Heard) -> None:
    """Every packet that was said was heard, and enough was said to know."""
    assert heard.sent > 0.8 * heard.seconds * 50 * 2 * CALLS, heard
    assert heard.lost == 0, heard


async def test_no_packet_is_lost_with_any_process_but_the_media_worker(tmp_path: Path) -> None:
    async with running_floor(tmp_path, CALLS, extra=ALL_PARTS) as floor:
        floor.answer()
        load = load_average()
        await floor.talk(TALK_S)
        killed: list[Kill] = []
        for part in PARTS:
            killed.append(await kill(floor, part))
            await asyncio.sleep(AFTER_S)  # the time that is watched
        # While everybody speaks: the calls are there for whoever looks.
        board = await calls_on_the_board(floor)
        await floor.silence()
        for one in killed:
            heard = await floor.heard(one.from_ns, one.until_ns + int(AFTER_S * 1e9))
            measured(f"kill {one.part}", again_s=one.again_s, load_before=load, **asdict(heard))
            whole(heard)
        assert board == CALLS
        await hang_up(floor)
        reasons = [event["reason"] for event in floor.supervisor.seen("call.ended")]
        assert sorted(set(reasons)) in (["agent_hangup", "caller_hangup"], [])


async def calls_on_the_board(floor: Floor) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        answer = await client.get(
            f"{floor.node.base}/api/v1/calls",
            headers={"Authorization": f"Bearer {floor.node.tokens['supervisor']}"},
        )
    assert answer.status_code == 200, answer.text
    return len(answer.json()["calls"])


async def hang_up(floor: Floor, after: str = "the bridge died") -> None:
    """Half of the callers, and half of the agents; every other side gets its BYE."""
    before = time.monotonic()
    for number, pair in enumerate(floor.pairs):
        one = pair.caller if number % 2 else pair.agent
        assert (await one.ask("BYE")).status == 200
    await floor.until_ended(len(floor.pairs))
    ended = [at - before for pair in floor.pairs for at in pair.ended_at.values()]
    measured(f"hang up after {after}", byes=len(ended), last_s=round(max(ended), 2))
    for number, pair in enumerate(floor.pairs):
        assert set(pair.ended_at) == ({"agent"} if number % 2 else {"caller"})


async def test_calls_end_with_the_media_worker_and_new_ones_come_soon(tmp_path: Path) -> None:
    async with running_floor(tmp_path, CALLS, extra=NOBODY) as floor:
        floor.answer()
        await floor.talk(10.0)
        await asyncio.sleep(2.0)  # of a conversation
        before = time.monotonic()
        again = await kill(floor, "media")
        await floor.until_ended(2 * CALLS)
        ended = [at - before for pair in floor.pairs for at in pair.ended_at.values()]
        await floor.supervisor.wait("call.ended", count=CALLS)
        reasons = {event["reason"] for event in floor.supervisor.seen("call.ended")}
        assert reasons == {"media_lost"}
        # A new call is one like any other.
        caller = floor.pbx.begin(
            floor.node.uri("1001"), floor.node.pbx_address, floor.node.pbx_port
        )
        answering = asyncio.create_task(caller.invite(headers=ATTESTED))
        floor.phones.accept(await floor.phones.request("INVITE"))
        assert (await answering).status == 200
        measured(
            "kill media",
            again_s=again.again_s,
            first_bye_s=round(min(ended), 2),
            last_bye_s=round(max(ended), 2),
            new_call_s=round(time.monotonic() - before, 2),
        )
        assert max(ended) < 10


async def test_running_calls_outlive_the_supervisor_for_the_time_that_is_set(
    tmp_path: Path,
) -> None:
    """No new ones are taken, and what is left is ended in order."""
    patience_s = 6.0
    async with running_floor(tmp_path, CALLS, extra=NOBODY, stop_timeout_s=patience_s) as floor:
        floor.answer()
        await floor.talk(4.0)
        await asyncio.sleep(1.0)  # of a conversation
        before, from_ns = time.monotonic(), time.time_ns()
        floor.node.signal(signal.SIGKILL)
        await floor.node.wait_for_log("bridge_draining")
        refused = floor.pbx.begin(
            floor.node.uri("1001"), floor.node.pbx_address, floor.node.pbx_port
        )
        cseq = refused.send("INVITE", body=floor.pbx.sdp(), headers=ATTESTED)
        assert (await refused.response(cseq, "INVITE")).status == 503
        await floor.silence()
        whole(await floor.heard(from_ns, from_ns + 3_000_000_000 - int(0.5e9)))
        await floor.until_ended(2 * CALLS)
        ended = [at - before for pair in floor.pairs for at in pair.ended_at.values()]
        measured(
            "kill supervisor",
            stop_timeout_s=patience_s,
            first_bye_s=round(min(ended), 2),
            last_bye_s=round(max(ended), 2),
        )
        assert patience_s - 0.5 < min(ended)
        await floor.node.wait_for_log("bridge_stopped")
        await floor.node.start()
        await ready(floor.node)
