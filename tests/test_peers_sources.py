"""``a=ssrc`` (RFC 5576) in a description: the relay's business, and no reason to end a call.

PJSIP's media takes its ``cname`` for a token. Browsers draw theirs from base 64, so that one in 64
begins with a slash, and rtpengine passes it on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.scene import ATTESTED, Scene, running_scene
from tests.peers.sip_ua import Dialog, Ua

pytestmark = pytest.mark.peers

#: Chromium's, one of which ended the call with 488 as soon as it was answered.
SOURCES = (
    "a=ssrc:939435867 cname:/eeBIwEvh+ZGFxck",
    "a=ssrc:939435867 cname:FeeBIwEvh+ZGFxck",
    "a=ssrc:939435867 msid:- /8a786bdf",
    "a=ssrc:x",
    "a=ssrc:",
)


def described(of: Ua, source: str) -> str:
    return f"{of.sdp()}{source}\r\n"


async def talks(scene: Scene, source: str) -> Dialog:
    """The call is set up, and goes on."""
    caller = scene.pbx.begin(scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port)
    cseq = caller.send("INVITE", body=described(scene.pbx, source), headers=ATTESTED)
    invite = await scene.phone.request("INVITE")
    scene.phone.accept(invite, body=described(scene.phone, source))
    await scene.phone.request("ACK")
    answer = await caller.response(cseq, "INVITE")
    assert answer.status == 200, answer.text
    caller.learn(answer)
    caller.send("ACK", cseq=cseq)
    await scene.console.wait("notice.finished")
    return caller


@pytest.mark.parametrize("source", SOURCES)
async def test_a_source_of_whatever_name_ends_no_call(tmp_path: Path, source: str) -> None:
    async with running_scene(tmp_path) as scene:
        caller = await talks(scene, source)
        # Again in a description within the call.
        assert (await caller.invite(body=described(scene.pbx, source))).status == 200
        assert (await caller.ask("BYE")).status == 200
        bye = await scene.phone.request("BYE")
        scene.phone.reply(bye, 200)
        assert await scene.over() == "caller_hangup"
