"""Calls that agents begin: a scripted PBX dials, a scripted line answers, a whole node between.

The agent's PBX, the carrier's line and a colleague's phone are exact SIP by hand
(:mod:`tests.peers.sip_ua`); what each of them hears is counted packet by packet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callshield.g711 import PCMA, decode
from callshield.heard import Heard, find, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua
from tests.peers.tap_copy import TapCopy, copying_tap

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

PBX_SIDE, PHONE_SIDE = "127.0.43.2", "127.0.43.3"
PBX, LINE, PHONE, OTHER_PBX = "127.0.43.4", "127.0.43.5", "127.0.43.6", "127.0.43.7"
NUMBER = "0212345678"
#: One byte of A-law each: who speaks is seen in every packet. What the agent hears is next to
#: silence: nothing of it is limited.
CUSTOMER, AGENT, EARLY = 0xD4, 0x33, 0xD7


@dataclass
class Scene:
    """A node, the agent's PBX, the line and a direct phone."""

    node: Node
    pbx: Ua
    line: Ua
    phone: Ua
    console: Watch
    tap: TapCopy

    def dial(
        self, *headers: str, to: str = NUMBER, agent: str = "1001", body: str | None = None
    ) -> tuple[Dialog, int]:
        """An INVITE of the agent's PBX; the dialog and its CSeq."""
        dialog = self.pbx.begin(self.node.uri(to), PBX_SIDE, self.node.pbx_port, user=agent)
        named = (f"X-Callshield-Agent: {agent}",) if agent else ()
        body = self.pbx.sdp() if body is None else body
        return dialog, dialog.send("INVITE", body=body, headers=(*named, *headers))

    async def refused(self, *headers: str, **options: Any) -> int:
        """The status of a call that does not come about; nothing reaches the line."""
        dialog, cseq = self.dial(*headers, **options)
        response = await dialog.response(cseq, "INVITE")
        dialog.send("ACK", cseq=cseq)
        assert self.line.waiting("INVITE") == []
        assert self.phone.waiting("INVITE") == []
        return response.status

    async def answered(self, *headers: str, **options: Any) -> Call:
        """A call that the customer took."""
        begun = len(self.console.seen("call.started"))
        dialog, cseq = self.dial(*headers, **options)
        invite = await self.line.request("INVITE")
        customer = self.line.accept(invite, tag="customer")
        await self.line.request("ACK")
        final = await dialog.response(cseq, "INVITE")
        assert final.status == 200, final.text
        dialog.learn(final)
        dialog.send("ACK", cseq=cseq)
        started = await self.console.wait("call.started", count=begun + 1)
        return Call(self, dialog, customer, invite, final, started["call_id"])


@dataclass
class Call:
    """A call that an agent began."""

    scene: Scene
    agent: Dialog
    """The PBX's dialog with us."""
    customer: Dialog
    """The line's dialog with us."""
    invite: Message
    """What the line got of us."""
    final: Message
    """What the PBX got of us."""
    call_id: str

    @property
    def to_customer_leg(self) -> tuple[str, int]:
        return self.invite.media_address, self.invite.media_port

    @property
    def to_agent_leg(self) -> tuple[str, int]:
        return self.final.media_address, self.final.media_port

    async def wait(self, kind: str) -> dict[str, Any]:
        return await self.scene.console.wait(kind, lambda e: e["call_id"] == self.call_id)

    async def act(self, action: str) -> dict[str, Any]:
        path = f"/calls/{self.call_id}/actions"
        answer = await self.scene.node.post(path, "1001", {"action": action})
        return {"http": answer.status_code, **answer.json()}

    async def talk(self, packets: int = 30) -> None:
        """Both speak at once."""
        await asyncio.gather(
            self.scene.line.audio.speak(CUSTOMER, self.to_customer_leg, packets),
            self.scene.pbx.audio.speak(AGENT, self.to_agent_leg, packets),
        )

    async def closed(self) -> dict[str, Any]:
        await self.wait("call.ended")
        async with asyncio.timeout(20):
            while True:
                for entry in self.scene.node.logs("media_closed"):
                    if entry["call_id"] == self.call_id:
                        return entry
                await asyncio.sleep(0.05)  # a file tells nobody that it grew


OUTGOING = 'outgoing = true\ntrunk = "line"\ntrunks = ["second"]\nattests_notice = true\n'


@asynccontextmanager
async def running(folder: Path, **options: Any) -> AsyncIterator[Scene]:
    """Everybody runs; nothing of the node may have failed in the end."""
    prompts = Prompts(folder / "prompts")
    for name in ("joined", "handing_over", "handed_over", "hold_on"):
        (folder / "prompts/ko" / f"{name}.wav").symlink_to(SHIPPED / "ko" / f"{name}.wav")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pbx, line = await enter(running_ua(PBX, "pbx")), await enter(running_ua(LINE, "line"))
        phone = await enter(running_ua(PHONE, "ext2"))
        trunks = "".join(
            f'[trunks.{name}]\nhost = "{LINE}"\nport = {line.port}\ncaller_id = "{number}"\n'
            for name, number in (("line", "0215550100"), ("second", "0215550199"), ("third", "1"))
        )
        outbound = '[outbound]\npatterns = ["0[0-9]{8,10}", "[*]21#"]\ndeny = ["060[0-9]+"]\n'
        helper = f'[supervisors.lead]\nuri = "sip:lead@{PHONE}:{phone.port}"\n'
        peers = f'[[peers]]\nname = "other"\nnetworks = ["{OTHER_PBX}"]\n'
        node = await enter(
            running_node(
                folder / "node",
                {"1001": pbx.uri.replace("pbx@", "phone-1001@"), "1002": phone.uri},
                peer=PBX,
                peer_options=options.pop("peer_options", OUTGOING) + peers,
                sip="ring_timeout_s = 10\n",
                sides=(PBX_SIDE, PHONE_SIDE),
                extra=prompts.toml + trunks + outbound + helper + options.pop("extra", ""),
                **options,
            )
        )
        tap = await enter(copying_tap(node.settings.tap_path))
        console = await enter(node.watch("1001"))
        yield Scene(node, pbx, line, phone, console, tap)
        assert "Traceback" not in node.log_path.read_text()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running(tmp_path) as made:
        yield made


def heard_notice(ua: Ua, name: str, folder: Path) -> Heard | None:
    """How much of an announcement a user agent was sent."""
    voice = b"".join(payload for payload in ua.audio.payloads if len(payload) == 160)
    sound = np.asarray(decode(voice, PCMA) / 32768, dtype=np.float32)
    return find(read_wav(folder / "prompts" / "ko" / f"{name}.wav"), sound)


async def test_called_party_hears_the_whole_notice_before_one_frame_of_it_is_tapped(
    scene: Scene, tmp_path: Path
) -> None:
    call = await scene.answered("X-Callshield-Channel: PJSIP/phone-1001-0000002a")
    started = await call.wait("call.started")
    assert started["direction"] == "outbound"
    assert started["agent_id"] == "1001"
    assert started["pbx_channel"] == "PJSIP/phone-1001-0000002a"
    await call.wait("notice.started")
    # The agent hears the customer and the tone under it; the customer hears the notice alone.
    await call.talk(20)
    assert scene.tap.frames == {}
    assert AGENT not in scene.line.audio.heard
    finished = await call.wait("notice.finished")
    assert (finished["source"], finished["tapped"]) == ("played", True)
    notice = heard_notice(scene.line, "recording", tmp_path)
    assert notice is not None
    assert notice.whole
    assert heard_notice(scene.pbx, "recording", tmp_path) is None  # the agent hears a tone
    tone = sum(sign not in (CUSTOMER, -1) for sign in scene.pbx.audio.heard)
    assert tone < len(scene.pbx.audio.heard)

    await call.talk(40)
    assert scene.line.audio.heard.count(AGENT) > 25
    assert scene.pbx.audio.heard.count(CUSTOMER) > 25
    (stamp,) = finished["prompts"]
    assert (await call.wait("tap.started"))["ts"] >= stamp["finished_ts"]
    assert tapped(scene, call.call_id) == {CUSTOMER}  # never the agent
    assert (await call.agent.ask("BYE")).status == 200
    scene.line.reply(await scene.line.request("BYE"), 200)
    assert (await call.wait("call.ended"))["reason"] == "agent_hangup"
    assert (await call.closed())["tapped"] > 25


def tapped(scene: Scene, call_id: str) -> set[int]:
    """Which bytes the detector was given of a call."""
    frames = scene.tap.frames[bytes.fromhex(call_id)]
    return {byte for frame in frames for byte in frame.payload}


async def test_judge_sees_swapped_legs(scene: Scene) -> None:
    """Negative control: with customer and agent the other way round the same judge objects."""
    call = await scene.answered("X-Callshield-Notice: recording")
    await call.wait("notice.finished")
    await asyncio.gather(
        scene.line.audio.speak(AGENT, call.to_customer_leg),
        scene.pbx.audio.speak(CUSTOMER, call.to_agent_leg),
    )
    assert tapped(scene, call.call_id) == {AGENT}


async def test_what_the_line_gets_is_ours_and_says_nothing_of_the_pbx(scene: Scene) -> None:
    call = await scene.answered(
        "X-Callshield-Trunk: second",
        "X-Internal-Name: secret",
        "P-Asserted-Identity: <sip:1001@pbx.example>",
    )
    assert call.invite.start == f"INVITE sip:{NUMBER}@{LINE}:{scene.line.port} SIP/2.0"
    assert f"sip:0215550199@{PBX_SIDE}" in call.invite["From"]  # the second line's caller id
    assert call.invite["Max-Forwards"] == "69"
    assert call.invite.all("Max-Forwards") == ["69"]
    for name in ("X-Callshield-Agent", "X-Callshield-Trunk", "X-Internal-Name"):
        assert call.invite[name] == ""
    assert call.invite["P-Asserted-Identity"] == ""
    assert call.invite["X-Callshield-Call-ID"] == call.call_id
    assert PBX not in call.invite.text
    assert call.invite.media_address == PBX_SIDE  # the caller's leg is the PBX side's
    assert call.final.media_address == PHONE_SIDE  # the agent's leg is the phone side's
    call.customer.send("BYE")
    await call.customer.ua.expect(lambda m: m.status == 200 and m.method == "BYE", "200 to BYE")
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert (await call.wait("call.ended"))["reason"] == "caller_hangup"


async def test_agent_hears_the_network_before_the_answer_and_is_not_heard(scene: Scene) -> None:
    dialog, cseq = scene.dial()
    invite = await scene.line.request("INVITE")
    scene.line.reply(invite, 183, tag="customer", body=scene.line.sdp())
    progress = await dialog.response(cseq, "INVITE", least=183)
    assert progress.status == 183
    assert progress.media_address == PHONE_SIDE
    theirs = (invite.media_address, invite.media_port)
    ours = (progress.media_address, progress.media_port)
    await asyncio.gather(scene.line.audio.speak(EARLY, theirs), scene.pbx.audio.speak(AGENT, ours))
    assert scene.pbx.audio.heard.count(EARLY) > 15
    assert scene.line.audio.heard == []
    assert scene.tap.frames == {}
    scene.line.accept(invite, tag="customer")
    await scene.line.request("ACK")
    final = await dialog.response(cseq, "INVITE")
    assert (final.status, final.media_port) == (200, ours[1])
    dialog.learn(final)
    dialog.send("ACK", cseq=cseq)
    await scene.console.wait("notice.started")


async def test_ringing_then_the_agent_gives_up(scene: Scene) -> None:
    dialog, cseq = scene.dial()
    invite = await scene.line.request("INVITE")
    scene.line.reply(invite, 180, tag="customer")
    assert (await dialog.response(cseq, "INVITE", least=180)).status == 180
    dialog.send("CANCEL", cseq=cseq)
    assert (await dialog.response(cseq, "CANCEL")).status == 200
    assert (await dialog.response(cseq, "INVITE")).status == 487
    dialog.send("ACK", cseq=cseq)
    cancel = await scene.line.request("CANCEL")
    scene.line.reply(cancel, 200, tag="customer")
    scene.line.reply(invite, 487, tag="customer")
    await scene.line.request("ACK")
    assert (await scene.console.wait("call.ended"))["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("status", "told", "reason"),
    [(486, 486, "busy"), (404, 404, "refused"), (603, 603, "refused"), (503, 502, "refused")],
)
async def test_the_agents_pbx_is_told_why_the_customer_was_not_reached(
    scene: Scene, status: int, told: int, reason: str
) -> None:
    dialog, cseq = scene.dial()
    invite = await scene.line.request("INVITE")
    scene.line.reply(invite, status, tag="customer")
    await scene.line.request("ACK")
    assert (await dialog.response(cseq, "INVITE")).status == told
    dialog.send("ACK", cseq=cseq)
    assert (await scene.console.wait("call.ended"))["reason"] == reason


async def test_agents_pbx_that_makes_no_offer_gets_one_when_the_customer_answered(
    scene: Scene,
) -> None:
    dialog, cseq = scene.dial(body="")
    invite = await scene.line.request("INVITE")
    assert invite.media_port
    scene.line.accept(invite, tag="customer")
    await scene.line.request("ACK")
    final = await dialog.response(cseq, "INVITE")
    assert (final.status, final.media_address) == (200, PHONE_SIDE)
    dialog.learn(final)
    dialog.send("ACK", cseq=cseq, body=scene.pbx.sdp())
    await scene.console.wait("notice.finished", lambda e: e["source"] == "played")
    theirs, ours = (invite.media_address, invite.media_port), (PHONE_SIDE, final.media_port)
    await asyncio.gather(
        scene.line.audio.speak(CUSTOMER, theirs), scene.pbx.audio.speak(AGENT, ours)
    )
    assert scene.pbx.audio.heard.count(CUSTOMER) > 15
    assert scene.line.audio.heard.count(AGENT) > 15


async def test_end_button_frees_the_agent_and_the_customer_hears_the_closing(
    scene: Scene, tmp_path: Path
) -> None:
    call = await scene.answered("X-Callshield-Notice: recording")
    await call.wait("notice.finished")
    await call.talk(5)
    assert (await call.act("warn"))["status"] == "done"
    await call.wait("warning.played")
    assert (await call.act("end"))["status"] == "done"
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert scene.line.waiting("BYE") == []
    scene.line.reply(await scene.line.request("BYE"), 200)
    assert (await call.wait("call.ended"))["reason"] == "ended_with_announcement"
    for name in ("warning_1", "closing"):
        found = heard_notice(scene.line, name, tmp_path)
        assert found is not None, name
        assert found.whole, name


async def test_codes_keyed_on_the_agents_leg_work_and_on_the_customers_do_not(
    scene: Scene,
) -> None:
    call = await scene.answered("X-Callshield-Notice: recording")
    await call.wait("notice.finished")
    relay = "application/dtmf-relay"
    for digit in "*9#":
        answer = await call.customer.ask("INFO", body=f"Signal={digit}\r\n", content_type=relay)
        assert answer.status == 200
    for digit in "*7#":
        answer = await call.agent.ask("INFO", body=f"Signal={digit}\r\n", content_type=relay)
        assert answer.status == 200
    (pressed,) = await scene.node.wait_for_log("agent_code")
    assert pressed["action"] == "pause_recording"
    before = tapped(scene, call.call_id)
    await call.talk(15)
    assert tapped(scene, call.call_id) == before == set()
    assert not scene.console.seen("call.ending")


async def test_on_hold_by_the_agents_pbx_nothing_is_tapped(scene: Scene) -> None:
    call = await scene.answered("X-Callshield-Notice: recording")
    await call.wait("notice.finished")
    await call.talk(10)
    assert (await call.agent.invite(body=scene.pbx.sdp("sendonly"))).status == 200
    await asyncio.sleep(0.1)  # the relay is told by another socket
    before = len(scene.tap.frames[bytes.fromhex(call.call_id)])
    await call.talk(15)
    assert len(scene.tap.frames[bytes.fromhex(call.call_id)]) == before
    assert (await call.agent.invite()).status == 200
    await call.talk(15)
    assert len(scene.tap.frames[bytes.fromhex(call.call_id)]) > before
