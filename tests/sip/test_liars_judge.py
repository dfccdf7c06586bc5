"""The judge of this folder is itself judged: each kind of leftover is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from callshield.messages import CallStarted
from tests.sip.half_node import HalfNode

pytestmark = [
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_an_honest_call_leaves_nothing(half: HalfNode, tmp_path: Path) -> None:
    await half.judge(tmp_path)


@pytest.mark.parametrize(
    ("leak", "mend", "shows"),
    [
        ("leak call", "mend call", "calls"),
        ("leak task", "mend", "tasks"),
        ("leak socket", "mend", "descriptors"),
        ("leak port", "mend port", "ports"),
    ],
)
async def test_the_judge_notices(half: HalfNode, leak: str, mend: str, shows: str) -> None:
    await half.ask(leak)
    try:
        # A port is opened by another process: it may take a moment to show.
        left: dict[str, object] = {}
        for _ in range(20):
            left = dict(await half.leftovers(patience_s=0.1))
            if left:
                break
        assert list(left) == [shows]
    finally:
        await half.ask(mend)
    assert not await half.leftovers()


async def test_the_judge_notices_a_dialog(half: HalfNode, tmp_path: Path) -> None:
    """A call that still rings is no clean state; its transactions and dialogs are seen."""
    agent = half.agent()
    async with half.phone(tmp_path, agent, "phone_rings"), half.pbx(tmp_path, agent, "pbx_cancels"):
        await half.event(CallStarted, lambda event: event.agent_id == agent)
        left = await half.leftovers(patience_s=0.1)
        assert {"calls", "dialogs", "transactions", "legs", "ports"} <= set(left)
