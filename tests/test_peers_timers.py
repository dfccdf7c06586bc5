"""Session timers (RFC 4028): three refreshes from each side on each leg, and one that never comes.

The shortest interval that the RFC allows is 90 s and refreshes come half way, so this takes two
and a half minutes; the calls run at the same time. Longer ones: ``./run soak sessions``.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.peers.node import running_node
from tests.peers.session import Session
from tests.peers.sip_ua import running_ua

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

PBX, PHONES = "127.0.0.4", ("127.0.0.5", "127.0.0.6", "127.0.0.7")
EXPIRES_S = 90


async def test_three_refreshes_from_each_side_and_a_bye_when_none_comes(tmp_path: Path) -> None:
    async with (
        running_ua(PBX, "pbx") as pbx,
        running_ua(PHONES[0], "1001") as one,
        running_ua(PHONES[1], "1002") as two,
        running_ua(PHONES[2], "1003") as three,
        running_node(
            tmp_path / "node",
            {"1001": one.uri, "1002": two.uri, "1003": three.uri},
            peer=PBX,
            sip=f"session_expires_s = {EXPIRES_S}\nmin_se_s = 90\nrtp_timeout_s = 600\n",
        ) as node,
        node.watch("supervisor") as console,
    ):
        theirs = Session(node, pbx, one, "1001", pbx_refreshes=True, phone_refreshes=True)
        ours = Session(node, pbx, two, "1002", pbx_refreshes=False, phone_refreshes=False)
        # The control: this one promises to refresh, and never does.
        lazy = Session(node, pbx, three, "1003", pbx_refreshes=True, phone_refreshes=False)
        sessions = (theirs, ours, lazy)
        try:
            for session in sessions:
                await session.start()
            lazy._tasks[0].cancel()
            begun = time.monotonic()
            async with asyncio.timeout(EXPIRES_S + 15):
                await lazy.ended.wait()
            # RFC 4028 section 10: BYE at least min(32 s, a third) before the session expires.
            assert EXPIRES_S - 32 - 5 < time.monotonic() - begun < EXPIRES_S
            await asyncio.sleep(begun + 3 * EXPIRES_S / 2 + 6 - time.monotonic())
            for session in (theirs, ours):
                session.check()
                assert not session.ended.is_set()
            assert len(theirs.by_them) == 6  # three on each leg
            assert theirs.by_us == []
            assert len(ours.by_us) == 6
            assert ours.by_them == []
            for session in (theirs, ours):
                await session.hang_up()
            reasons = [event["reason"] for event in console.seen("call.ended")]
            assert len(reasons) >= 1
        finally:
            for session in sessions:
                await session.stop()
    assert "Traceback" not in node.log_path.read_text()
