"""Before the answer and within the call: early media, 100rel, UPDATE, INFO and music on hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.node import PBX_SIDE, running_node
from tests.peers.scene import PBX, PHONE, Scene, phone_media, running_scene
from tests.peers.sip_ua import Dialog, Message, running_ua
from tests.peers.sipp import running_sipp

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

# The caller's and the music's are next to silence: nothing of them is limited for the agent.
EARLY, CALLER, AGENT, MUSIC = 0x11, 0xD4, 0x33, 0xD7

#: The relay is told by another socket than the one that brings the 200: a few milliseconds, or
#: as long as a busy machine holds the media worker up. Nothing says when it has been.
RELAY_TOLD_S = 1.0


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_scene(tmp_path) as made:
        yield made


def dial(scene: Scene, *headers: str) -> tuple[Dialog, int]:
    caller = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
    return caller, caller.send("INVITE", body=scene.pbx.sdp(), headers=headers)


async def answered(caller: Dialog, cseq: int) -> Message:
    response = await caller.response(cseq, "INVITE")
    assert response.status == 200
    caller.learn(response)
    caller.send("ACK", cseq=cseq)
    return response


async def ended(scene: Scene, caller: Dialog) -> dict[str, int]:
    """Hang up from the caller's side; the media worker's last line."""
    assert (await caller.ask("BYE")).status == 200
    scene.phone.reply(await scene.phone.request("BYE"), 200)
    (closed,) = await scene.node.wait_for_log("media_closed")
    return {key: value for key, value in closed.items() if isinstance(value, int)}


async def test_caller_hears_the_phones_side_before_the_answer_and_nobody_hears_the_caller(
    scene: Scene,
) -> None:
    caller, cseq = dial(scene)
    invite = await scene.phone.request("INVITE")
    theirs = (invite.media_address, invite.media_port)
    scene.phone.reply(invite, 183, tag="p", body=scene.phone.sdp())
    progress = await caller.response(cseq, "INVITE", least=183)
    assert progress.status == 183
    ours = (progress.media_address, progress.media_port)
    assert ours[0] == PBX_SIDE  # our media, never the phone's
    await asyncio.sleep(RELAY_TOLD_S)
    await asyncio.gather(
        scene.phone.audio.speak(EARLY, theirs, 40), scene.pbx.audio.speak(CALLER, ours, 40)
    )
    assert scene.pbx.audio.heard.count(EARLY) > 25
    assert scene.phone.audio.heard == []
    assert not scene.console.seen("notice.started")

    # 180 after 183 goes on to the PBX; the same 183 again is no news.
    scene.phone.reply(invite, 183, tag="p", body=scene.phone.sdp())
    scene.phone.reply(invite, 180, tag="p")
    assert (await caller.response(cseq, "INVITE", least=180)).status == 180

    # The 200 names another port: what counts is the newest, and what we said to the PBX stays.
    async with running_ua(PHONE, "other") as other:
        scene.phone.accept(invite, tag="p", body=other.sdp())
        await scene.phone.request("ACK")
        final = await answered(caller, cseq)
        assert (final.media_address, final.media_port) == ours
        await scene.console.wait("notice.started")
        await asyncio.sleep(RELAY_TOLD_S)
        heard = len(scene.pbx.audio.heard)
        await asyncio.gather(other.audio.speak(AGENT, theirs), scene.pbx.audio.speak(CALLER, ours))
        assert other.audio.heard.count(CALLER) > 10  # the agent hears the caller at once
        # ... and the caller hears the notice, not the agent, and no early media any more.
        assert AGENT not in scene.pbx.audio.heard[heard:]
        assert EARLY not in scene.pbx.audio.heard[heard:]
    assert (await ended(scene, caller))["tapped"] == 0


async def test_a_call_that_only_rang_with_early_media_ends_cleanly(scene: Scene) -> None:
    caller, cseq = dial(scene)
    invite = await scene.phone.request("INVITE")
    scene.phone.reply(invite, 183, tag="p", body=scene.phone.sdp())
    await caller.response(cseq, "INVITE", least=183)
    scene.phone.reply(invite, 486, tag="p")
    await scene.phone.request("ACK")
    assert (await caller.response(cseq, "INVITE")).status == 486
    caller.send("ACK", cseq=cseq)
    assert (await scene.console.wait("call.ended"))["reason"] == "busy"


async def test_reliable_provisional_responses_on_both_legs(scene: Scene) -> None:
    """RFC 3262: the PBX requires 100rel of us, and the phone of us as well."""
    caller, cseq = dial(scene, "Require: 100rel", "Supported: 100rel")
    invite = await scene.phone.request("INVITE")
    assert "100rel" in invite["Supported"]
    scene.phone.reply(
        invite,
        183,
        tag="p",
        body=scene.phone.sdp(),
        headers=("Require: 100rel", "RSeq: 7"),
    )
    prack = await scene.phone.request("PRACK")
    assert prack["RAck"] == f"7 {invite['CSeq']}"
    scene.phone.reply(prack, 200)
    progress = await caller.response(cseq, "INVITE", least=183)
    assert "100rel" in progress["Require"]
    caller.learn(progress)
    # It is sent again until the PRACK comes: that is what makes it reliable.
    again = progress.text
    async with asyncio.timeout(30):
        while scene.pbx.log.count(f"< {again}") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a retransmission is no news to the agent's inbox
    acknowledged = await caller.ask(
        "PRACK", headers=(f"RAck: {progress['RSeq']} {progress['CSeq']}",)
    )
    assert acknowledged.status == 200
    # UPDATE in the early dialog (RFC 3311): the PBX moves its media; we answer with ours.
    moved = await caller.ask("UPDATE", body=scene.pbx.sdp(port=scene.pbx.media_port + 2))
    assert moved.status == 200
    assert moved.media_port == progress.media_port
    # The description went out in a reliable 183: the 200s have none (RFC 6337 section 2.2).
    scene.phone.reply(invite, 200, tag="p")
    ack = await scene.phone.request("ACK")
    assert ack["To"].endswith("tag=p")
    final = await caller.response(cseq, "INVITE")
    assert (final.status, final.body) == (200, "")
    caller.send("ACK", cseq=cseq)
    await scene.console.wait("notice.started")
    await ended(scene, caller)


async def test_update_holds_moves_and_refreshes_within_the_call(scene: Scene) -> None:
    caller, agent = await scene.call()
    refreshed = await caller.ask("UPDATE")
    assert (refreshed.status, refreshed.body) == (200, "")
    held = await caller.ask("UPDATE", body=scene.pbx.sdp("sendonly"))
    assert held.status == 200
    assert "a=recvonly" in held.body
    resumed = await caller.ask("UPDATE", body=scene.pbx.sdp())
    assert "a=sendrecv" in resumed.body
    # The phone moves to another port: what the caller says follows.
    async with running_ua(PHONE, "other") as other:
        moved = await agent.ask("UPDATE", body=other.sdp())
        assert moved.status == 200
        await asyncio.sleep(RELAY_TOLD_S)
        await scene.pbx.audio.speak(CALLER, (resumed.media_address, resumed.media_port))
        assert other.audio.heard.count(CALLER) > 10
        assert CALLER not in scene.phone.audio.heard
    # Nothing in this one can be carried: refused, and the call goes on as it was.
    alien = scene.pbx.sdp().replace("RTP/AVP 8 101", "RTP/AVP 18").replace("8 PCMA", "18 G729")
    assert (await caller.ask("UPDATE", body=alien)).status == 488
    assert (await caller.ask("UPDATE", body=scene.pbx.sdp())).status == 200
    await ended(scene, caller)


async def test_music_of_a_hold_is_never_tapped_and_reaches_who_waits(scene: Scene) -> None:
    caller, agent = await scene.call()
    theirs = await phone_media(agent)
    held = await caller.invite(body=scene.pbx.sdp("sendonly"))
    ours = (held.media_address, held.media_port)
    await asyncio.sleep(RELAY_TOLD_S)
    await scene.pbx.audio.speak(MUSIC, ours, 40)
    resumed = await caller.invite(body=scene.pbx.sdp())
    assert "a=sendrecv" in resumed.body

    # The phone holds: its music reaches the caller, and what the caller says is not analysed.
    answer = await agent.invite(body=scene.phone.sdp("sendonly"))
    assert "a=recvonly" in answer.body
    await asyncio.sleep(RELAY_TOLD_S)
    await asyncio.gather(
        scene.phone.audio.speak(MUSIC, theirs, 40), scene.pbx.audio.speak(CALLER, ours, 40)
    )
    assert scene.pbx.audio.heard.count(MUSIC) > 25
    assert not scene.console.seen("tap.started")
    # The control: off hold the same audio is tapped.
    await agent.invite(body=scene.phone.sdp())
    await asyncio.sleep(RELAY_TOLD_S)
    await scene.pbx.audio.speak(CALLER, ours, 40)
    await scene.console.wait("tap.started")
    closed = await ended(scene, caller)
    assert 20 < closed["tapped"] + closed["tap_dropped"] <= 40


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", 200),
        ("application/dtmf", "5", 200),
        ("application/dtmf", "11", 200),
        ("application/dtmf", "hello", 415),
        ("application/media_control+xml", "<media_control/>", 415),
        ("", "", 200),
    ],
)
async def test_info_of_either_side(scene: Scene, content_type: str, body: str, status: int) -> None:
    caller, agent = await scene.call()
    for dialog in (caller, agent):
        answer = await dialog.ask("INFO", content_type=content_type, body=body)
        assert answer.status == status
        if status == 415:
            assert "application/dtmf-relay" in answer["Accept"]
    await ended(scene, caller)


async def test_feature_code_by_info_ends_the_call(scene: Scene) -> None:
    caller, agent = await scene.call()
    for digit in "*9#":
        body = f"Signal={digit}\r\nDuration=160\r\n"
        answer = await agent.ask("INFO", content_type="application/dtmf-relay", body=body)
        assert answer.status == 200
    scene.phone.reply(await scene.phone.request("BYE"), 200)
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "ended_with_announcement"
    assert caller.call_id


async def test_prack_between_two_sipps(tmp_path: Path) -> None:
    """The same by another implementation's hand: sipp judges every message of both legs."""
    async with (
        running_sipp(tmp_path / "phone", PHONE, "uas_reliable") as desk,
        running_node(tmp_path / "node", {"1001": desk.uri}, peer=PBX) as node,
        running_sipp(
            tmp_path / "pbx",
            PBX,
            "uac_reliable",
            target=f"127.0.0.2:{node.pbx_port}",
        ) as pbx,
    ):
        assert await pbx.finish() == 0, pbx.messages()
        assert await desk.finish() == 0, desk.messages()
