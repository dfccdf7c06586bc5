"""A dialplan that sends Callshield's own calls back to it: refused at once, no storm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.pbx.floor import AGENT_HZ, CALLER_HZ, floor, until_hears

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180)]

#: Breaks [from-callshield]: `phone-1001` goes back to the agents' context, not to the phone.
BACK = {
    " same => n,Dial(PJSIP/${EXTEN:6},60)\n": " same => n,Goto(callshield-agents,${EXTEN:6},1)\n"
}
#: Breaks the first line of [callshield-agents], which would ring the phone.
NO_GUARD = {'GotoIf($["${CALLSHIELD_CALL_ID}" != ""]?phone)': "NoOp()"}
#: Breaks the line that hands our header on.
NO_HEADER = {
    ' same => n(loop),GotoIf($["${CALLSHIELD_CALL_ID}" = ""]?done)\n': " same => n(loop),Return()\n"
}


async def test_a_call_that_came_from_callshield_rings_the_phone(
    tmp_path: Path, asterisk_root: Path
) -> None:
    """The dialplan's own guard, where another part of it (a forwarding) sends the call back."""
    async with floor(tmp_path, asterisk_root, "through", replace=BACK) as all_:
        await all_.connect()
        await until_hears(all_.caller, AGENT_HZ)
        await until_hears(all_.agent, CALLER_HZ)
        assert len(all_.events.seen("call.started")) == 1
        await all_.hang_up()


@pytest.mark.parametrize(
    ("broken", "by"),
    [(BACK | NO_GUARD, "header"), (BACK | NO_GUARD | NO_HEADER, "number")],
    ids=["header", "number"],
)
async def test_a_loop_ends_at_once(
    tmp_path: Path, asterisk_root: Path, broken: dict[str, str], by: str
) -> None:
    """By our header that the dialplan hands on; without it, by agent, peer and number."""
    async with floor(tmp_path, asterisk_root, "through", replace=broken) as all_:
        assert all_.node is not None
        before = time.monotonic()
        await all_.dial("603")
        # Refused, so [callshield-agents] rings the phone: even a broken dialplan loses no call.
        await all_.events.wait("notice.finished")
        assert time.monotonic() - before < 6
        await until_hears(all_.caller, AGENT_HZ)
        refused = [r for r in all_.node.logs("invite_refused") if r["status"] == 482]
        assert len(refused) == 1, refused
        assert refused[0]["reason"] == "loop"
        assert len(all_.events.seen("call.started")) == 1
        await all_.hang_up()
        await all_.events.wait("call.ended")
