"""Calls that agents begin: a scripted PBX dials, a scripted line answers, a whole node between.

The agent's PBX, the carrier's line and a colleague's phone are exact SIP by hand
(:mod:`tests.peers.sip_ua`); what each of them hears is counted packet by packet.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from callshield.g711 import PCMA, decode, encode
from callshield.heard import Heard, find, read_growing_wav, read_wav
from callshield.tap import TapKind
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import running_baresip
from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua
from tests.peers.sipp import running_sipp
from tests.peers.sound import blocks, purity, tone_db, write_tone
from tests.peers.tap_copy import TapCopy, copying_tap

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

PBX_SIDE, PHONE_SIDE = "127.0.43.2", "127.0.43.3"
PBX, LINE, PHONE, OTHER_PBX = "127.0.43.4", "127.0.43.5", "127.0.43.6", "127.0.43.7"
NUMBER = "0212345678"
#: One byte of A-law each: who speaks is seen in every packet. What the agent hears is next to
#: silence: nothing of it is limited.
CUSTOMER, AGENT, EARLY = 0xD4, 0x33, 0xD7
#: The relay is told by another socket than the one that we hear from, and so is the detector.
AFTER_S = 1.0
#: Tones of the real telephones; the customer's is one that the agent's shock guard lets pass.
CUSTOMER_HZ, AGENT_HZ, QUIET = 1000.0, 1600.0, 0.05


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
        self,
        *headers: str,
        to: str = NUMBER,
        agent: str = "1001",
        caller: str = "",
        body: str | None = None,
        ua: Ua | None = None,
    ) -> tuple[Dialog, int]:
        """An INVITE of the agent's PBX, for an agent where none is named; dialog and CSeq."""
        user = caller or agent
        dialog = (ua or self.pbx).begin(self.node.uri(to), PBX_SIDE, self.node.pbx_port, user)
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


async def heard_notice(ua: Ua, name: str, folder: Path) -> Heard | None:
    """How much of an announcement a user agent was sent."""
    await ua.audio.drain()
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
    notice = await heard_notice(scene.line, "recording", tmp_path)
    assert notice is not None
    assert notice.whole
    assert await heard_notice(scene.pbx, "recording", tmp_path) is None  # the agent hears a tone
    tone = sum(sign not in (CUSTOMER, -1) for sign in scene.pbx.audio.heard)
    assert tone < len(scene.pbx.audio.heard)

    heard = scene.pbx.audio.heard.count(CUSTOMER)
    await call.talk(60)
    await scene.line.audio.hear_of(AGENT, 26)
    await scene.pbx.audio.hear_of(CUSTOMER, heard + 26)
    (stamp,) = finished["prompts"]
    assert (await call.wait("tap.started"))["ts"] >= stamp["finished_ts"]
    assert await whose(scene, call.call_id) == {CUSTOMER}  # never the agent
    assert (await call.agent.ask("BYE")).status == 200
    scene.line.reply(await scene.line.request("BYE"), 200)
    assert (await call.wait("call.ended"))["reason"] == "agent_hangup"
    assert (await call.closed())["tapped"] > 25


def tapped(scene: Scene, call_id: str) -> set[int]:
    """Which bytes the detector was given of a call."""
    frames = scene.tap.frames[bytes.fromhex(call_id)]
    return {byte for frame in frames for byte in frame.payload}


async def whose(scene: Scene, call_id: str) -> set[int]:
    """The same of a call of which something is tapped, once it has come."""
    async with asyncio.timeout(20):
        # Frames tell nobody that they came.
        while not (found := tapped(scene, call_id)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def test_judge_sees_swapped_legs(scene: Scene) -> None:
    """Negative control: with customer and agent the other way round the same judge objects."""
    call = await scene.answered()
    await call.wait("notice.finished")
    await asyncio.gather(
        scene.line.audio.speak(AGENT, call.to_customer_leg, 50),
        scene.pbx.audio.speak(CUSTOMER, call.to_agent_leg, 50),
    )
    assert await whose(scene, call.call_id) == {AGENT}


async def test_nobody_can_have_played_the_notice_to_whom_an_agent_is_yet_to_call(
    scene: Scene,
) -> None:
    """The peer's word is believed of a call that comes in, and not of one that goes out."""
    call = await scene.answered("X-Callshield-Notice: recording")
    assert (await call.wait("notice.finished"))["source"] == "played"
    (ignored,) = scene.node.logs("notice_attestation_ignored")
    assert ignored["peer"] == "pbx"


async def test_supervisor_joins_an_outgoing_call_and_sees_the_customers_number(
    scene: Scene,
) -> None:
    call = await scene.answered()
    await call.wait("notice.finished")
    assert (await call.act("help"))["http"] == 200
    path = f"/calls/{call.call_id}/actions"
    joined = await scene.node.post(path, "supervisor", {"action": "join", "target": "lead"})
    assert joined.status_code == 200, joined.text
    invite = await scene.phone.request("INVITE")
    assert f"<sip:{NUMBER}@{PHONE_SIDE}" in invite["From"]
    scene.phone.accept(invite, tag="lead")
    await scene.phone.request("ACK")
    changed = await scene.console.wait("helper.changed", lambda e: e["state"] == "joined")
    assert changed["call_id"] == call.call_id
    theirs = (invite.media_address, invite.media_port)
    await asyncio.gather(scene.phone.audio.speak(EARLY, theirs, 50), call.talk(50))
    await scene.phone.audio.hear(16)  # the sum of both
    assert await whose(scene, call.call_id) == {CUSTOMER}


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
    await asyncio.gather(
        scene.line.audio.speak(EARLY, theirs, 50), scene.pbx.audio.speak(AGENT, ours, 50)
    )
    await scene.pbx.audio.hear_of(EARLY, 16)
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


async def test_a_customer_who_answers_while_the_agent_gives_up_is_not_left_alone(
    scene: Scene,
) -> None:
    """CANCEL and 200 cross (RFC 3261 section 9.1): the 200 is acknowledged and ended by BYE."""
    dialog, cseq = scene.dial()
    invite = await scene.line.request("INVITE")
    scene.line.reply(invite, 180, tag="customer")
    await dialog.response(cseq, "INVITE", least=180)
    dialog.send("CANCEL", cseq=cseq)
    assert (await dialog.response(cseq, "INVITE")).status == 487
    dialog.send("ACK", cseq=cseq)
    cancel = await scene.line.request("CANCEL")
    scene.line.accept(invite, tag="customer")
    scene.line.reply(cancel, 200, tag="customer")
    await scene.line.request("ACK")
    scene.line.reply(await scene.line.request("BYE"), 200)
    ended = await scene.console.wait("call.ended")
    assert (ended["reason"], ended["duration_s"]) == ("cancelled", 0)
    assert not scene.console.seen("notice.started")
    assert scene.tap.frames == {}


async def test_the_agents_pbx_is_told_why_the_customer_was_not_reached(scene: Scene) -> None:
    said = [(486, 486, "busy"), (404, 404, "refused"), (603, 603, "refused"), (503, 502, "refused")]
    for number, (status, told, reason) in enumerate(said, 1):
        dialog, cseq = scene.dial()
        invite = await scene.line.request("INVITE")
        scene.line.reply(invite, status, tag=f"customer{number}")
        await scene.line.request("ACK")
        assert (await dialog.response(cseq, "INVITE")).status == told
        dialog.send("ACK", cseq=cseq)
        ended = await scene.console.wait("call.ended", count=number)
        assert (ended["reason"], ended["sip_status"]) == (reason, status)


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
        scene.line.audio.speak(CUSTOMER, theirs, 50), scene.pbx.audio.speak(AGENT, ours, 50)
    )
    await scene.pbx.audio.hear_of(CUSTOMER, 16)
    await scene.line.audio.hear_of(AGENT, 16)


async def test_end_button_frees_the_agent_and_the_customer_hears_the_closing(
    scene: Scene, tmp_path: Path
) -> None:
    call = await scene.answered()
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
        found = await heard_notice(scene.line, name, tmp_path)
        assert found is not None, name
        assert found.whole, name


async def test_codes_keyed_on_the_agents_leg_work_and_on_the_customers_do_not(
    scene: Scene,
) -> None:
    call = await scene.answered()
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
    await asyncio.sleep(AFTER_S)
    before = tapped(scene, call.call_id)
    await call.talk(15)
    assert tapped(scene, call.call_id) == before == set()
    assert not scene.console.seen("call.ending")


async def test_on_hold_by_the_agents_pbx_nothing_is_tapped(scene: Scene) -> None:
    call = await scene.answered()
    await call.wait("notice.finished")
    await call.talk(10)
    assert (await call.agent.invite(body=scene.pbx.sdp("sendonly"))).status == 200
    await asyncio.sleep(AFTER_S)
    before = len(scene.tap.frames[bytes.fromhex(call.call_id)])
    await call.talk(15)
    assert len(scene.tap.frames[bytes.fromhex(call.call_id)]) == before
    assert (await call.agent.invite()).status == 200
    async with asyncio.timeout(20):
        while len(scene.tap.frames[bytes.fromhex(call.call_id)]) == before:
            await call.talk(15)


async def reach(scene: Scene, dialog: Dialog, cseq: int, phone: Ua) -> tuple[Dialog, Message]:
    """A phone of ours takes a call; its dialog, and what the PBX got."""
    invite = await phone.request("INVITE")
    phones = phone.accept(invite)
    await phone.request("ACK")
    final = await dialog.response(cseq, "INVITE")
    assert final.status == 200, final.text
    dialog.learn(final)
    dialog.send("ACK", cseq=cseq)
    return phones, final


async def test_calls_between_colleagues_are_bridged_and_never_tapped(scene: Scene) -> None:
    marked = ("X-Callshield-Internal: yes",)
    await colleagues(scene, marked, to="1002", agent="", caller="01012345678")
    await colleagues(scene, (), to="1002", agent="", caller="1001")  # a colleague's number
    await colleagues(scene, (), to="1002", agent="1001")  # an agent dials a colleague
    await colleagues(scene, (), to="lead", agent="1001")  # ... or a supervisor
    closed = await scene.node.wait_for_log("media_closed", count=4)
    assert {(line["tapped"], line["tap_dropped"]) for line in closed} == {(0, 0)}
    assert scene.tap.frames == {}


async def colleagues(scene: Scene, headers: tuple[str, ...], *, to: str, **who: str) -> None:
    """One call between colleagues, from its INVITE to its end."""
    whose = "1001" if to == "lead" else "1002"
    async with scene.node.watch(whose) as console:
        dialog, cseq = scene.dial(*headers, to=to, **who)
        phone, final = await reach(scene, dialog, cseq, scene.phone)
        started = await console.wait("call.started")
        assert (started["direction"], started["agent_id"]) == ("internal", whose)
        finished = await console.wait("notice.finished")
        assert (finished["source"], finished["tapped"]) == ("internal", False)
        response = await phone.invite()
        scene.phone.audio.heard.clear()
        scene.pbx.audio.heard.clear()
        await asyncio.gather(
            scene.pbx.audio.speak(CUSTOMER, (final.media_address, final.media_port), 50),
            scene.phone.audio.speak(EARLY, (response.media_address, response.media_port), 50),
        )
        await scene.phone.audio.hear_of(CUSTOMER, 16)
        await scene.pbx.audio.hear_of(EARLY, 16)
        assert -1 not in scene.pbx.audio.heard  # no announcement, no tone
        path = f"/calls/{started['call_id']}/actions"
        answer = await scene.node.post(path, whose, {"action": "warn"})
        assert answer.status_code == 409
        assert "between colleagues" in answer.text
        assert (await dialog.ask("BYE")).status == 200
        scene.phone.reply(await scene.phone.request("BYE"), 200)
        await console.wait("call.ended")


async def test_nothing_is_dialled_that_may_not_be(scene: Scene) -> None:
    """Toll fraud over the wire; every trick by itself is in test_routing.py."""
    assert await scene.refused(to="0601234567") == 403  # denied
    assert await scene.refused(to="00441234567890") == 403  # no pattern
    assert await scene.refused(to="119") == 403
    assert await scene.refused(to="0212345678;phone-context=evil") == 403
    assert await scene.refused(to="%30212345678") == 403
    assert await scene.refused(agent="9999") == 403
    assert await scene.refused("X-Callshield-Trunk: third") == 403
    assert await scene.refused("X-Callshield-Agent: 1002") == 400  # two agents
    assert await scene.refused(agent="", caller="1001") == 404  # nobody named
    reasons = [line["reason"] for line in scene.node.logs("invite_refused")]
    assert reasons.count("number_not_allowed") == 3
    assert NUMBER not in scene.node.log_path.read_text()  # no number in the log
    assert not scene.console.seen("call.started")
    call = await scene.answered()  # negative control: what is allowed goes out
    assert (await call.wait("call.started"))["direction"] == "outbound"


async def test_one_agent_has_two_outgoing_calls_at_once_and_no_more(scene: Scene) -> None:
    first = await scene.answered()
    await scene.answered(to="0212345679")
    assert await scene.refused(to="0212345670") == 403
    (line,) = await scene.node.wait_for_log("invite_refused")
    assert (line["reason"], line["detail"]) == ("too_many_outgoing", "1001")
    assert (await first.agent.ask("BYE")).status == 200
    scene.line.reply(await scene.line.request("BYE"), 200)
    await first.wait("call.ended")
    await scene.answered(to="0212345670")


async def test_a_peer_without_the_right_calls_nobody(scene: Scene) -> None:
    async with running_ua(OTHER_PBX, "other") as other:
        assert await scene.refused(ua=other) == 403
    (line,) = await scene.node.wait_for_log("invite_refused")
    assert line["reason"] == "outgoing_not_allowed"


async def test_loops_end_with_482_and_call_waiting_does_not(scene: Scene) -> None:
    """The PBX rings its own extension for 1001, and sends what it gets back to us."""
    first, cseq = scene.dial(to="1001", agent="", caller="01012345678")
    invite = await scene.pbx.request("INVITE")
    assert invite.all("Max-Forwards") == ["69"]
    assert invite.start.startswith("INVITE sip:phone-1001@")
    ours = invite["X-Callshield-Call-ID"]

    async def status(*headers: str, caller: str) -> int:
        dialog, cseq = scene.dial(*headers, to="1001", agent="", caller=caller)
        response = await dialog.response(cseq, "INVITE")
        dialog.send("ACK", cseq=cseq)
        return response.status

    # A B2BUA: a new dialog that shows nothing of ours but the caller and the agent.
    assert await status(caller="01012345678") == 482
    # Handed on by the dial plan.
    assert await status(f"X-Callshield-Call-ID: {ours}", caller="01011111111") == 482
    # A proxy: our Via stands below its own.
    assert await status(f"Via: {invite['Via']}", caller="01022222222") == 482
    # Somebody else calls the same agent: a second call.
    second, second_cseq = scene.dial(to="1001", agent="", caller="01099999999")
    waiting = await scene.pbx.request("INVITE")
    for dialog, number, request in ((first, cseq, invite), (second, second_cseq, waiting)):
        scene.pbx.reply(request, 486, tag=f"p{dialog.local_tag}")
        assert (await dialog.response(number, "INVITE")).status == 486
        dialog.send("ACK", cseq=number)
    # When it no longer rings, the same caller may call again.
    third, cseq = scene.dial(to="1001", agent="", caller="01012345678")
    again = await scene.pbx.request("INVITE")
    scene.pbx.reply(again, 486, tag="again")
    assert (await third.response(cseq, "INVITE")).status == 486
    details = [line["detail"] for line in scene.node.logs("invite_refused")]
    assert details[:3] == ["same_call_rings", "call_id", "via"]


async def test_two_calls_of_one_agent_are_two_calls(scene: Scene) -> None:
    """A customer waits on hold while the agent calls another: codes and buttons find their call."""
    attested = "X-Callshield-Notice: recording"
    incoming, cseq = scene.dial(attested, to="1001", agent="", caller="01012345678")
    phone, _ = await reach(scene, incoming, cseq, scene.pbx)
    first = (await scene.console.wait("call.started"))["call_id"]
    assert (await phone.invite(body=scene.pbx.sdp("sendonly"))).status == 200
    second = await scene.answered()
    await second.wait("notice.finished")
    calls = {call["call_id"]: call for call in await live_calls(scene)}
    assert set(calls) == {first, second.call_id}
    assert {c: calls[c]["direction"] for c in calls} == {
        first: "inbound",
        second.call_id: "outbound",
    }
    await second.talk(50)
    assert await whose(scene, second.call_id) == {CUSTOMER}
    assert tapped(scene, first) == set()  # on hold
    relay = "application/dtmf-relay"
    for digit in "*9#":  # keyed in the second call: ends that one
        assert (
            await second.agent.ask("INFO", body=f"Signal={digit}\r\n", content_type=relay)
        ).status == 200
    assert (await second.wait("call.ending"))["by"] == "agent:dtmf"
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    scene.line.reply(await scene.line.request("BYE"), 200)
    await second.wait("call.ended")
    assert [call["call_id"] for call in await live_calls(scene)] == [first]
    assert (await phone.invite()).status == 200  # the first one goes on
    assert (await incoming.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    await scene.console.wait("call.ended", lambda e: e["call_id"] == first)


async def live_calls(scene: Scene) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(
            f"{scene.node.base}/api/v1/calls",
            headers={"Authorization": f"Bearer {scene.node.tokens['1001']}"},
        )
    calls: list[dict[str, Any]] = answer.json()["calls"]
    return calls


async def test_agents_pbx_refers_the_customer_to_a_colleague(scene: Scene) -> None:
    """REFER on the agent's leg: we call the target at that PBX; the line hears of nothing."""
    call = await scene.answered()
    await call.wait("notice.finished")
    await call.talk(10)
    accepted = await call.agent.ask(
        "REFER", headers=(f"Refer-To: <sip:1002@{PBX}:{scene.pbx.port}>",)
    )
    assert accepted.status == 202
    scene.pbx.reply(await scene.pbx.request("NOTIFY"), 200)
    invite = await scene.pbx.request("INVITE")
    assert invite.start.startswith("INVITE sip:1002@")
    assert f"<sip:{NUMBER}@{PBX_SIDE}" in invite["From"]  # the colleague sees the customer
    target = scene.pbx.accept(invite, tag="target")
    await scene.pbx.request("ACK")
    notify = await scene.pbx.request("NOTIFY")
    scene.pbx.reply(notify, 200)
    while "200" not in notify.body:
        notify = await scene.pbx.request("NOTIFY")
        scene.pbx.reply(notify, 200)
    assert (await call.agent.ask("BYE")).status == 200
    assert (await call.wait("call.ended"))["reason"] == "transferred"
    assert scene.line.waiting("REFER") == scene.line.waiting("BYE") == []
    await asyncio.sleep(AFTER_S)
    before = len(scene.tap.frames[bytes.fromhex(call.call_id)])
    theirs = (invite.media_address, invite.media_port)
    heard = scene.line.audio.heard.count(EARLY)
    await asyncio.gather(
        scene.line.audio.speak(CUSTOMER, call.to_customer_leg),
        scene.pbx.audio.speak(EARLY, theirs),
    )
    await scene.line.audio.hear_of(EARLY, heard + 16)
    assert len(scene.tap.frames[bytes.fromhex(call.call_id)]) == before
    assert (await target.ask("BYE")).status == 200
    scene.line.reply(await scene.line.request("BYE"), 200)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_somebody_else_in_the_customers_place_is_not_tapped(
    scene: Scene, method: str
) -> None:
    """The line puts a colleague there, who has heard no notice, and the customer back."""
    call = await scene.answered()
    await call.wait("notice.finished")

    async def named(number: str) -> None:
        headers = (f"P-Asserted-Identity: <sip:{number}@{LINE}>",)
        if method == "INVITE":
            assert (await call.customer.invite(headers=headers)).status == 200
        else:
            assert (await call.customer.ask("UPDATE", headers=headers)).status == 200
        await asyncio.sleep(AFTER_S)  # the relay is told by another socket

    def frames() -> int:
        taken = scene.tap.frames[bytes.fromhex(call.call_id)]
        return sum(frame.kind is TapKind.AUDIO for frame in taken)

    await named(NUMBER)  # a mere refresh
    await call.talk()
    await asyncio.sleep(AFTER_S)
    before = frames()
    assert before > 0
    await named("1002")
    heard = scene.pbx.audio.heard.count(CUSTOMER)
    await call.talk()
    await asyncio.sleep(AFTER_S)
    assert frames() == before
    await scene.pbx.audio.hear_of(CUSTOMER, heard + 1)  # they hear each other all the same
    await named(NUMBER)
    await call.talk()
    await asyncio.sleep(AFTER_S)
    assert frames() > before


async def test_no_transfer_dials_what_the_agent_may_not(scene: Scene) -> None:
    """REFER would be a way round [outbound]: the PBX takes our call to the target for one that
    was let out."""
    call = await scene.answered()
    await call.wait("notice.finished")
    unknown = "?Replaces=x%3Bto-tag%3Da%3Bfrom-tag%3Db"
    for user in ("060123456", "00818012345678", "%30601234567", "119"):
        for dialog in ("", unknown):
            target = f"Refer-To: <sip:{user}@{PBX}:{scene.pbx.port}{dialog}>"
            assert (await call.agent.ask("REFER", headers=(target,))).status == 403
    assert scene.pbx.waiting("INVITE") == []
    await call.talk(50)  # agent and customer go on
    assert await whose(scene, call.call_id) == {CUSTOMER}


async def test_whom_an_agent_called_over_a_line_sends_us_nowhere(scene: Scene) -> None:
    call = await scene.answered()
    await call.wait("notice.finished")
    answer = await call.customer.ask("REFER", headers=(f"Refer-To: <sip:0900@{PBX}>",))
    assert answer.status == 603
    assert scene.pbx.waiting("INVITE") == []
    await call.talk(50)
    assert await whose(scene, call.call_id) == {CUSTOMER}


async def test_a_line_that_asks_for_a_password_gets_it_and_the_pbx_never_sees_the_question(
    tmp_path: Path,
) -> None:
    password = tmp_path / "line.password"
    password.write_text("pass word\n")
    password.chmod(0o600)
    async with running_ua(LINE, "carrier") as carrier:
        trunk = (
            f'[trunks.carrier]\nhost = "{LINE}"\nport = {carrier.port}\nusername = "desk"\n'
            f'password_file = "{password}"\ncaller_id = "0215550100"\n'
            'caller_id_in = "p_asserted_identity"\n'
        )
        options = 'outgoing = true\ntrunk = "carrier"\n'
        async with running(tmp_path, peer_options=options, extra=trunk) as scene:
            dialog, cseq = scene.dial()
            asked = await carrier.request("INVITE")
            assert f"sip:desk@{PBX_SIDE}" in asked["From"]
            assert f"sip:0215550100@{PBX_SIDE}" in asked["P-Asserted-Identity"]
            assert asked["Authorization"] == ""
            challenge = 'WWW-Authenticate: Digest realm="carrier", nonce="abc", algorithm=MD5'
            carrier.reply(asked, 401, tag="a", headers=(challenge,))
            await carrier.request("ACK")
            again = await carrier.request("INVITE")
            given = dict(re.findall(r'(\w+)="([^"]*)"', again["Authorization"]))
            assert given["response"] == digest(
                digest("desk:carrier:pass word"), "abc", digest(f"INVITE:{given['uri']}")
            )
            carrier.accept(again, tag="b")
            assert (await dialog.response(cseq, "INVITE")).status == 200


def digest(*parts: str) -> str:
    """RFC 2617 section 3.2.2, without qop."""
    return hashlib.md5(":".join(parts).encode()).hexdigest()


async def test_a_real_telephone_is_called_hears_the_whole_notice_and_is_the_one_tapped(
    tmp_path: Path,
) -> None:
    """sipp is the agent's PBX, baresip the customer's telephone: judged by what it recorded."""
    said = write_tone(tmp_path / "customer.wav", CUSTOMER_HZ, 60, QUIET)
    prompts = Prompts(tmp_path / "prompts")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        customer = await enter(running_baresip(tmp_path / "customer", LINE, NUMBER, said))
        line = f'[trunks.line]\nhost = "{LINE}"\nport = {customer.port}\n'
        node = await enter(
            running_node(
                tmp_path / "node",
                {"1001": f"sip:1001@{PBX}:5099"},
                peer=PBX,
                peer_options='outgoing = true\ntrunk = "line"\n',
                sides=(PBX_SIDE, PHONE_SIDE),
                extra=prompts.toml + line + '[outbound]\npatterns = ["0[0-9]{8,10}"]\n',
            )
        )
        tap = await enter(copying_tap(node.settings.tap_path))
        console = await enter(node.watch("1001"))
        pbx = await enter(
            running_sipp(
                tmp_path / "pbx",
                PBX,
                "uac_talk",
                values={
                    "headers": "X-Callshield-Agent: 1001\n",
                    "audio": str(alaw_tone(tmp_path)),
                    "talk_ms": "6000",
                },
                target=f"{PBX_SIDE}:{node.pbx_port}",
                service=NUMBER,
            )
        )
        finished = await console.wait("notice.finished")
        began = await console.wait("tap.started")
        assert await pbx.finish() == 0
        ended = await console.wait("call.ended")
        assert ended["reason"] == "agent_hangup"
    (stamp,) = finished["prompts"]
    assert began["ts"] >= stamp["finished_ts"]
    heard = read_growing_wav(customer.recording())
    notice = find(prompts.samples("recording"), heard)
    assert notice is not None
    assert notice.whole
    before, after = heard[: int(notice.end_s * 8000)], heard[int((notice.end_s + 0.6) * 8000) :]
    assert max(tone_db(block, AGENT_HZ) for block in blocks(before)) < -40  # nobody but the notice
    assert min(purity(block, AGENT_HZ) for block in blocks(after[:-4800])) > 0.95
    _, sound = tap.sound(ended["call_id"])
    assert min(purity(block, CUSTOMER_HZ) for block in blocks(sound)) > 0.95
    assert max(tone_db(block, AGENT_HZ) for block in blocks(sound)) < -40


def alaw_tone(folder: Path) -> Path:
    """The agent's tone as sipp streams it: raw A-law, whole periods, so that it can be looped."""
    time = np.arange(8000) / 8000
    tone = (0.3 * 32767 * np.sin(2 * np.pi * AGENT_HZ * time)).astype(np.int16)
    path = folder / "tone.al"
    path.write_bytes(encode(tone, PCMA))
    return path
