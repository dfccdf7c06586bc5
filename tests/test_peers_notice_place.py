"""Where the notice is heard (``notice.place``): before the agent's phone rings, in a call that we
answer for it or as early media; by telephones that do as told, and a relay that is listened to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.g711 import PCMA, decode
from callshield.heard import find
from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua
from tests.peers.sound import blocks, tone_db
from tests.peers.tap_copy import TapCopy, copying_tap

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

PBX, PHONE = "127.0.8.104", "127.0.8.105"
SIDES = ("127.0.8.102", "127.0.8.103")
CALLER, AGENT = 0xD4, 0x33
#: The tone of a phone that rings, ITU-T E.180.
RINGING_HZ = (440.0, 480.0)


@dataclass
class Scene:
    """A node, the PBX, an agent's phone, and what went to the detector."""

    node: Node
    pbx: Ua
    phone: Ua
    console: Watch
    tap: TapCopy
    prompts: Prompts

    def dial(self, *headers: str) -> tuple[Dialog, int]:
        caller = self.pbx.begin(self.node.uri("1001"), SIDES[0], self.node.pbx_port)
        return caller, caller.send("INVITE", body=self.pbx.sdp(), headers=headers)

    def heard(self) -> NDArray[np.float32]:
        """What the caller was sent until now."""
        voice = b"".join(part for part in self.pbx.audio.payloads if len(part) == 160)
        return np.asarray(decode(voice, PCMA) / 32768, np.float32)

    async def heard_notice(self) -> bool:
        """Whether the whole of it has come by now."""
        await self.pbx.audio.drain()
        found = find(self.prompts.samples("recording"), self.heard())
        return found is not None and found.whole

    async def event(self, kind: str, **values: object) -> dict[str, Any]:
        return await self.console.wait(
            kind, lambda one: all(one[name] == value for name, value in values.items())
        )

    async def talk(self, ours: tuple[str, int], theirs: tuple[str, int]) -> None:
        """Both sides speak for half a second."""
        await asyncio.gather(
            self.pbx.audio.speak(CALLER, ours), self.phone.audio.speak(AGENT, theirs)
        )
        # The last ones may still be on their way.
        await self.pbx.audio.hear_of(AGENT, 16)
        await self.phone.audio.hear_of(CALLER, 16)


@asynccontextmanager
async def scene(folder: Path, place: str, more: str = "") -> AsyncIterator[Scene]:
    prompts = Prompts(folder / "prompts")
    async with (
        running_ua(PBX, "pbx") as pbx,
        running_ua(PHONE, "1001") as phone,
        running_node(
            folder / "node",
            {"1001": phone.uri},
            peer=PBX,
            sides=SIDES,
            extra=f'{prompts.toml}place = "{place}"\n{more}',
        ) as node,
        copying_tap(node.settings.tap_path) as tap,
        node.watch("1001") as console,
    ):
        yield Scene(node, pbx, phone, console, tap, prompts)
        assert "Traceback" not in node.log_path.read_text()


async def confirmed(caller: Dialog, cseq: int) -> Message:
    """The 200 to the caller's INVITE, and its ACK."""
    answer = await caller.response(cseq, "INVITE")
    assert answer.status == 200, answer.text
    caller.learn(answer)
    caller.send("ACK", cseq=cseq)
    return answer


async def acknowledged(caller: Dialog, cseq: int) -> Message:
    """The reliable 183, and its PRACK."""
    progress = await caller.response(cseq, "INVITE", least=183)
    assert progress.status == 183, progress.text
    caller.learn(progress)
    rack = f"RAck: {progress['RSeq']} {progress['CSeq']}"
    assert (await caller.ask("PRACK", headers=(rack,))).status == 200
    return progress


async def over(of: Scene, caller: Dialog) -> None:
    assert (await caller.ask("BYE")).status == 200
    of.phone.reply(await of.phone.request("BYE"), 200)
    await of.event("call.ended", reason="caller_hangup")


async def conversation(of: Scene, answer: Message, invite: Message) -> None:
    """The caller was told, the phone rang: what follows is a call like any other, and tapped."""
    ours = (answer.media_address, answer.media_port)
    before = len(of.pbx.audio.heard)
    finished = await of.event("notice.finished")
    assert (finished["source"], finished["tapped"]) == ("played", True)
    (stamp,) = finished["prompts"]
    assert stamp["complete"]
    answered = await of.event("call.answered")
    assert stamp["finished_ts"] < answered["ts"]
    await of.talk(ours, (invite.media_address, invite.media_port))
    assert of.pbx.audio.heard[before:].count(AGENT) > 15
    assert of.phone.audio.heard.count(CALLER) > 15
    (frames,) = of.tap.frames.values()
    assert {byte for frame in frames for byte in frame.payload} == {CALLER}


async def test_before_ringing_the_caller_is_answered_told_and_hears_the_phone_ring(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "before_ringing") as of:
        caller, cseq = of.dial()
        answer = await confirmed(caller, cseq)
        await of.event("notice.started")
        ours = (answer.media_address, answer.media_port)
        await of.pbx.audio.speak(CALLER, ours, 50)  # while the notice plays
        assert not of.phone.waiting("INVITE"), "no phone rings yet"
        invite = await of.phone.request("INVITE")
        assert await of.heard_notice()
        of.phone.reply(invite, 180, tag="p")
        told = len(of.heard())
        await of.pbx.audio.hear(len(of.pbx.audio.payloads) + 40)  # most of a ringing tone
        ringing = of.heard()[told:]
        for hertz in RINGING_HZ:
            assert max(tone_db(block, hertz) for block in blocks(ringing)) > -40
        assert of.tap.frames == {}
        of.phone.accept(invite, tag="p")
        await of.phone.request("ACK")
        await conversation(of, answer, invite)
        # The tone is over; nothing is said a second time.
        rest = of.heard()[-15 * 160 :]  # of what the caller heard of the agent
        assert max(tone_db(block, RINGING_HZ[0]) for block in blocks(rest)) < -40
        assert not of.console.seen("prompt.played")
        await over(of, caller)


async def test_as_early_media_the_caller_is_told_before_anybody_answers(tmp_path: Path) -> None:
    async with scene(tmp_path, "early_media") as of:
        caller, cseq = of.dial("Supported: 100rel")
        progress = await acknowledged(caller, cseq)
        await of.event("notice.started")
        invite = await of.phone.request("INVITE")
        assert await of.heard_notice()
        assert not of.console.seen("call.answered")
        of.phone.reply(invite, 180, tag="p")
        of.phone.accept(invite, tag="p")
        await of.phone.request("ACK")
        final = await confirmed(caller, cseq)
        assert final.body == "", "our description went out in the 183"
        await conversation(of, progress, invite)
        await over(of, caller)


async def test_nothing_is_said_before_the_caller_can_hear_it(tmp_path: Path) -> None:
    """Until the PRACK comes our 183 may be lost, and the first words with it."""
    async with scene(tmp_path, "early_media") as of:
        caller, cseq = of.dial("Supported: 100rel")
        progress = await caller.response(cseq, "INVITE", least=183)
        await asyncio.sleep(0.8)  # a node that did not wait would have begun
        assert not of.console.seen("notice.started")
        assert of.pbx.audio.payloads == []
        caller.learn(progress)
        await caller.ask("PRACK", headers=(f"RAck: {progress['RSeq']} {progress['CSeq']}",))
        await of.event("notice.started")
        await of.pbx.audio.hear(1)  # of what nobody heard there is no stamp
        caller.send("CANCEL", cseq=cseq)
        await of.event("call.ended", reason="cancelled")
        # The caller was gone before the end, and no phone ever rang.
        assert not of.phone.waiting("INVITE")
        played = await of.event("prompt.played")
        stamp = played["stamp"]
        assert (stamp["complete"], stamp["stopped_by"]) == (False, "hangup")


async def test_a_pbx_without_reliable_responses_has_the_notice_on_answer(tmp_path: Path) -> None:
    async with scene(tmp_path, "early_media") as of:
        caller, cseq = of.dial()
        invite = await of.phone.request("INVITE")
        assert of.pbx.audio.payloads == []
        of.phone.accept(invite, tag="p")
        await of.phone.request("ACK")
        await confirmed(caller, cseq)
        finished = await of.event("notice.finished")
        assert finished["source"] == "played"
        assert await of.heard_notice()
        (said,) = of.node.logs("notice_on_answer")
        assert said["reason"] == "no_100rel"
        await over(of, caller)


@pytest.mark.parametrize("place", ["before_ringing", "early_media"])
async def test_a_phone_that_is_busy_is_told_to_the_pbx(tmp_path: Path, place: str) -> None:
    async with scene(tmp_path, place) as of:
        caller, cseq = of.dial("Supported: 100rel")
        if place == "early_media":
            await acknowledged(caller, cseq)
        else:
            await confirmed(caller, cseq)
        invite = await of.phone.request("INVITE")
        of.phone.reply(invite, 486, tag="p")
        await of.phone.request("ACK")
        if place == "early_media":
            assert (await caller.response(cseq, "INVITE")).status == 486
            caller.send("ACK", cseq=cseq)
        else:
            bye = await of.pbx.request("BYE")
            assert bye["Reason"] == "SIP;cause=486"
            of.pbx.reply(bye, 200)
        await of.event("call.ended", reason="busy")
        # What the caller heard is on record although nobody came.
        played = await of.event("prompt.played")
        assert played["stamp"]["complete"]
        assert of.tap.frames == {}


async def test_the_agent_skips_it_before_the_phone_rings(tmp_path: Path) -> None:
    async with scene(tmp_path, "before_ringing") as of:
        caller, cseq = of.dial()
        answer = await confirmed(caller, cseq)
        started = await of.event("notice.started")
        path = f"/calls/{started['call_id']}/actions"
        pressed = await of.node.post(path, "1001", {"action": "skip_notice"})
        assert pressed.status_code == 200, pressed.text
        invite = await of.phone.request("INVITE")
        of.phone.accept(invite, tag="p")
        await of.phone.request("ACK")
        finished = await of.event("notice.finished")
        assert (finished["source"], finished["tapped"]) == ("skipped", False)
        ours = (answer.media_address, answer.media_port)
        await of.talk(ours, (invite.media_address, invite.media_port))
        assert of.phone.audio.heard.count(CALLER) > 15
        assert of.tap.frames == {}
        await over(of, caller)


async def test_an_objection_while_the_phone_rings_counts(tmp_path: Path) -> None:
    async with scene(tmp_path, "before_ringing", 'objection_key = "9"\nkey_window_s = 1\n') as of:
        caller, cseq = of.dial()
        await confirmed(caller, cseq)
        invite = await of.phone.request("INVITE")
        body = "Signal=9\r\nDuration=160\r\n"
        info = await caller.ask("INFO", content_type="application/dtmf-relay", body=body)
        assert info.status == 200
        await asyncio.sleep(0.3)  # from the relay to the bridge
        of.phone.accept(invite, tag="p")
        await of.phone.request("ACK")
        finished = await of.event("notice.finished")
        assert (finished["source"], finished["key"]) == ("objected", "9")
        accepted = await of.event("prompt.played")
        assert accepted["stamp"]["prompt_id"] == "objection_accepted"
        assert of.tap.frames == {}
        await over(of, caller)


async def test_a_hold_in_it_begins_it_anew(tmp_path: Path) -> None:
    async with scene(tmp_path, "before_ringing") as of:
        caller, cseq = of.dial()
        await confirmed(caller, cseq)
        await of.event("notice.started")
        await of.pbx.audio.hear(20)  # the beginning
        assert (await caller.invite(body=of.pbx.sdp("sendonly"))).status == 200
        cut = await of.event("prompt.played")
        assert cut["stamp"]["stopped_by"] == "hold"
        before = len(of.heard())
        assert not of.phone.waiting("INVITE")
        assert (await caller.invite(body=of.pbx.sdp())).status == 200
        invite = await of.phone.request("INVITE")
        found = find(of.prompts.samples("recording"), of.heard()[before:])
        assert found is not None
        assert found.whole
        of.phone.accept(invite, tag="p")
        await of.phone.request("ACK")
        finished = await of.event("notice.finished")
        assert (finished["source"], finished["tapped"]) == ("played", True)
        await over(of, caller)
