"""Transfers on a whole node, between a PBX and telephones that say exactly what the test says."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.peers.baresip import running_baresip
from tests.peers.node import PBX_SIDE, running_node
from tests.peers.scene import ATTESTED, PBX, PHONE, Scene, phone_media, running_scene
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

ELSEWHERE = "127.0.0.66"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_scene(tmp_path) as made:
        yield made


def fragment(notify: Message) -> str:
    assert notify["Content-Type"].startswith("message/sipfrag")
    return notify.body.strip()


async def notified(ua: Ua, *statuses: int) -> list[Message]:
    """NOTIFYs that tell of these results in this order; the last one ends the subscription."""
    seen = []
    for status in statuses:
        notify = await ua.request("NOTIFY")
        ua.reply(notify, 200)
        assert fragment(notify).startswith(f"SIP/2.0 {status} "), notify.text
        assert notify["Event"].startswith("refer")
        ends = notify["Subscription-State"].startswith("terminated")
        assert ends == (status is statuses[-1] and status >= 200), notify.text
        seen.append(notify)
    return seen


def tell(dialog: Dialog, line: str, *, final: bool = False) -> int:
    state = "terminated;reason=noresource" if final else "active;expires=60"
    return dialog.send(
        "NOTIFY",
        headers=("Event: refer", f"Subscription-State: {state}"),
        content_type="message/sipfrag",
        body=line + "\r\n",
    )


async def test_blind_transfer_is_passed_on_to_the_pbx_and_its_news_back(scene: Scene) -> None:
    caller, agent = await scene.call()
    asked = await agent.ask("REFER", headers=(f"Refer-To: <sip:1002@{PBX}:5060>",))
    assert asked.status == 202
    assert asked["Contact"]
    await notified(scene.phone, 100)
    refer = await scene.pbx.request("REFER")
    assert refer["Refer-To"] == f"<sip:1002@{PBX}:5060>"
    assert refer["Referred-By"].startswith(f"<sip:1001@{PBX_SIDE}:")
    scene.pbx.reply(refer, 202)
    tell(caller, "SIP/2.0 180 Ringing")
    await notified(scene.phone, 180)
    tell(caller, "SIP/2.0 200 OK", final=True)
    await notified(scene.phone, 200)
    # The phone leaves, and so do we; the PBX keeps the caller.
    assert (await agent.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "transferred"


async def test_target_at_our_own_address_becomes_one_of_the_pbx(scene: Scene) -> None:
    """A phone knows no PBX: it names the target at the address that called it, or by number."""
    caller, agent = await scene.call()
    for refer_to in (f"<sip:1002@127.0.0.3:{scene.node.phone_port}>", "<tel:+82-2-123-4567>"):
        asked = await agent.ask("REFER", headers=(f"Refer-To: {refer_to}",))
        assert asked.status == 202
        refer = await scene.pbx.request("REFER")
        user = "1002" if "1002" in refer_to else "+8221234567"
        assert refer["Refer-To"] == f"<sip:{user}@{PBX}:{scene.pbx.port}>"
        scene.pbx.reply(refer, 202)
        tell(caller, "SIP/2.0 486 Busy Here", final=True)
        await notified(scene.phone, 100, 486)
    # Both failed: agent and caller still speak with each other.
    assert (await agent.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "agent_hangup"


async def test_phone_may_hang_up_before_the_pbx_has_finished(scene: Scene) -> None:
    """Many do as soon as they see 202; the caller must not be cut off by that."""
    caller, agent = await scene.call()
    assert (await agent.ask("REFER", headers=("Refer-To: <sip:1002@127.0.0.4>",))).status == 202
    refer = await scene.pbx.request("REFER")
    assert (await agent.ask("BYE")).status == 200
    scene.pbx.reply(refer, 202)
    tell(caller, "SIP/2.0 180 Ringing")
    await caller.response(caller.cseq, "NOTIFY")
    assert not scene.pbx.waiting("BYE")
    assert not scene.console.seen("call.ended")
    # Asterisk hangs up on us when the target answered, before or after its last NOTIFY.
    assert (await caller.ask("BYE")).status == 200
    assert await scene.over() == "transferred"


async def test_we_call_the_target_where_the_pbx_takes_no_refer(scene: Scene) -> None:
    caller, agent = await scene.call()
    await scene.console.wait("notice.finished")
    assert (await agent.ask("REFER", headers=(f"Refer-To: <sip:1002@{PBX}>",))).status == 202
    refer = await scene.pbx.request("REFER")
    scene.pbx.reply(refer, 405)
    invite = await scene.pbx.request("INVITE")
    assert invite.start.startswith(f"INVITE sip:1002@{PBX}:{scene.pbx.port} ")
    assert "01012345678" in invite["From"]
    assert invite["Max-Forwards"] == "69"
    scene.pbx.reply(invite, 180, tag="target")
    await notified(scene.phone, 100, 180)
    async with running_ua(PBX, "1002") as target:
        scene.pbx.accept(invite, tag="target", body=target.sdp())
        await scene.pbx.request("ACK")
        await notified(scene.phone, 200)
        assert await scene.over() == "transferred"
        assert (await agent.ask("BYE")).status == 200
        # Caller and target hear each other through us, and no frame of it is tapped.
        ours = (invite.media_address, invite.media_port)
        towards_caller = await media_of(scene, caller)
        for _ in range(3):
            await asyncio.gather(
                target.audio.speak(0x11, ours), scene.pbx.audio.speak(0xD4, towards_caller)
            )
        assert scene.pbx.audio.heard.count(0x11) > 25
        assert target.audio.heard.count(0xD4) > 25
    assert (await caller.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    (closed,) = await scene.node.wait_for_log("media_closed")
    assert closed["tapped"] + closed["tap_dropped"] == 0


async def test_what_the_pbx_refuses_and_no_agent_may_dial_is_not_dialled_by_us(
    tmp_path: Path,
) -> None:
    """Where agents call out through us, the PBX takes our INVITE for a call that was let out."""
    async with running_scene(
        tmp_path,
        peer_options='outgoing = true\ntrunk = "pbx"\n',
        extra=f'[trunks.pbx]\nhost = "{PBX}"\n[outbound]\npatterns = ["02[0-9]{{8}}"]\n',
    ) as scene:
        _, agent = await scene.call()
        await scene.console.wait("notice.finished")
        target = f"Refer-To: <sip:09001234567@{PBX}>"
        assert (await agent.ask("REFER", headers=(target,))).status == 202
        scene.pbx.reply(await scene.pbx.request("REFER"), 403)
        await notified(scene.phone, 100, 403)
        assert scene.pbx.waiting("INVITE") == []
        # Agent and caller have each other, and another transfer is taken.
        target = f"Refer-To: <sip:0212345678@{PBX}>"
        assert (await agent.ask("REFER", headers=(target,))).status == 202
        scene.pbx.reply(await scene.pbx.request("REFER"), 405)
        invite = await scene.pbx.request("INVITE")
        assert invite.start.startswith(f"INVITE sip:0212345678@{PBX}:")


async def media_of(scene: Scene, caller: Dialog) -> tuple[str, int]:
    """Where the PBX sends the caller's audio, by a session refresh that changes nothing."""
    response = await caller.invite()
    assert response.status == 200
    return response.media_address, response.media_port


@pytest.mark.parametrize(
    ("refer_to", "status"),
    [
        (("Refer-To: <sip:1002@203.0.113.9>",), 403),
        (("Refer-To: <sip:1002@evil.example>",), 403),
        (("Refer-To: <sips:1002@127.0.0.4>",), 416),
        (("Refer-To: <http://127.0.0.4/>",), 416),
        (("Refer-To: <sip:1002@127.0.0.4;method=BYE>",), 403),
        (("Refer-To: nonsense",), 400),
        (("Refer-To: <sip:1@127.0.0.4>", "Refer-To: <sip:2@127.0.0.4>"), 400),
        ((), 400),
        (
            ("Refer-To: <sip:2@127.0.0.4?Replaces=a%0d%0aX-Evil%3a1%3bto-tag%3d1%3bfrom-tag%3d2>",),
            400,
        ),
    ],
)
async def test_what_nobody_may_be_sent_to_is_refused_and_nothing_is_sent(
    scene: Scene, refer_to: tuple[str, ...], status: int
) -> None:
    """The control to the tests above."""
    caller, agent = await scene.call()
    assert (await agent.ask("REFER", headers=refer_to)).status == status
    assert (await caller.ask("REFER", headers=refer_to)).status == status
    assert (await agent.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "agent_hangup"
    assert not scene.pbx.waiting("REFER")
    assert not scene.pbx.waiting("INVITE")
    assert not scene.phone.waiting("NOTIFY")


async def test_one_transfer_at_a_time_and_no_notify_that_nobody_asked_for(scene: Scene) -> None:
    caller, agent = await scene.call()
    refer_to = ("Refer-To: <sip:1002@127.0.0.4>",)
    assert (await agent.ask("REFER", headers=refer_to)).status == 202
    assert (await agent.ask("REFER", headers=refer_to)).status == 491
    assert (await caller.ask("REFER", headers=refer_to)).status == 491
    # A NOTIFY about something that nobody asked for does not end the call.
    odd = await agent.ask("NOTIFY", headers=("Event: dialog", "Subscription-State: active"))
    assert odd.status == 489
    scene.pbx.reply(await scene.pbx.request("REFER"), 202)
    tell(caller, "SIP/2.0 603 Decline", final=True)
    await notified(scene.phone, 100, 603)
    await agent.ask("BYE")
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)


async def test_refer_sub_false_gets_no_notify(scene: Scene) -> None:
    """RFC 4488."""
    caller, agent = await scene.call()
    asked = await agent.ask("REFER", headers=("Refer-To: <sip:1002@127.0.0.4>", "Refer-Sub: false"))
    assert asked.status == 202
    assert asked["Refer-Sub"] == "false"
    scene.pbx.reply(await scene.pbx.request("REFER"), 202)
    tell(caller, "SIP/2.0 200 OK", final=True)
    assert (await caller.ask("BYE")).status == 200
    scene.phone.reply(await scene.phone.request("BYE"), 200)
    assert await scene.over() == "transferred"
    assert not scene.phone.waiting("NOTIFY")


async def test_attended_transfer_names_the_dialogs_that_the_pbx_knows(scene: Scene) -> None:
    """The phone joins its two calls; both are ours, so the PBX hears its own two dialogs."""
    first, agent_first = await scene.call()
    second, agent_second = await scene.call()
    replaces = (
        f"{agent_second.call_id};to-tag={agent_second.remote_tag};from-tag={agent_second.local_tag}"
    )
    refer_to = f"<sip:01012345678@127.0.0.3?Replaces={urllib.parse.quote(replaces, safe='')}>"
    asked = await agent_first.ask("REFER", headers=(f"Refer-To: {refer_to}",))
    assert asked.status == 202
    refer = await scene.pbx.request("REFER")
    assert refer["Call-ID"] == first.call_id
    uri, _, query = refer["Refer-To"].strip("<>").partition("?Replaces=")
    assert uri == scene.pbx.uri
    assert urllib.parse.unquote(query) == (
        # RFC 3891: to-tag is the tag of who receives the INVITE, and that is the PBX.
        f"{second.call_id};to-tag={second.local_tag};from-tag={second.remote_tag}"
    )
    scene.pbx.reply(refer, 202)
    assert (await second.ask("BYE")).status == 200
    tell(first, "SIP/2.0 200 OK", final=True)
    await notified(scene.phone, 100, 200)
    scene.phone.reply(await scene.phone.request("BYE"), 200)
    assert (await agent_first.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "transferred"
    assert await scene.over(count=2) == "transferred"


async def test_attended_transfer_to_a_call_that_is_not_ours_is_passed_on_as_it_is(
    scene: Scene,
) -> None:
    _, agent = await scene.call()
    replaces = "theirs@phone;to-tag=pbx1;from-tag=phone1"
    refer_to = f"<sip:1002@{PBX}?Replaces={urllib.parse.quote(replaces, safe='')}>"
    assert (await agent.ask("REFER", headers=(f"Refer-To: {refer_to}",))).status == 202
    refer = await scene.pbx.request("REFER")
    query = refer["Refer-To"].strip("<>").partition("?Replaces=")[2]
    assert urllib.parse.unquote(query) == replaces
    # And where the PBX takes no REFER, our own INVITE carries it.
    scene.pbx.reply(refer, 501)
    invite = await scene.pbx.request("INVITE")
    assert invite["Replaces"] == replaces
    assert invite["Require"] == "replaces"
    scene.pbx.reply(invite, 481, tag="x")
    await scene.pbx.request("ACK")
    await notified(scene.phone, 100, 481)
    assert (await agent.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "agent_hangup"


async def test_pbx_sends_us_to_somebody_else_and_the_tap_closes(scene: Scene) -> None:
    """A REFER on the caller's leg: a new far end, that has not heard the notice."""
    caller, agent = await scene.call()
    ours = await media_of(scene, caller)
    for _ in range(2):
        await asyncio.gather(
            scene.pbx.audio.speak(0xD4, ours),
            scene.phone.audio.speak(0x33, await phone_media(agent)),
        )
    await scene.console.wait("tap.started")
    asked = await caller.ask("REFER", headers=(f"Refer-To: <sip:01099990000@{PBX}>",))
    assert asked.status == 202
    await notified(scene.pbx, 100)
    invite = await scene.pbx.request("INVITE")
    async with running_ua(PBX, "new") as new:
        scene.pbx.accept(invite, tag="new", body=new.sdp())
        await scene.pbx.request("ACK")
        await notified(scene.pbx, 200)
        assert (await caller.ask("BYE")).status == 200
        tapped = int((await scene.node.wait_for_log("transfer_over"))[0]["succeeded"])
        assert tapped == 1
        before = len(scene.phone.audio.heard)
        theirs = (invite.media_address, invite.media_port)
        for _ in range(3):
            await asyncio.gather(
                new.audio.speak(0xD7, theirs),
                scene.phone.audio.speak(0x33, await phone_media(agent)),
            )
        assert scene.phone.audio.heard[before:].count(0xD7) > 25
        assert new.audio.heard.count(0x33) > 25
    assert (await agent.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)
    assert await scene.over() == "agent_hangup"
    (closed,) = await scene.node.wait_for_log("media_closed")
    # What was tapped came before the change: 50 packets of the old far end, not 75 of the new.
    assert 0 < closed["tapped"] + closed["tap_dropped"] <= 50


async def test_invite_with_replaces_takes_the_callers_place(scene: Scene) -> None:
    caller, _ = await scene.call()
    taker = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port, user="1003")
    replaces = f"{caller.call_id};to-tag={caller.remote_tag};from-tag={caller.local_tag}"
    answer = await taker.invite(headers=(f"Replaces: {replaces}", "Require: replaces"))
    assert answer.status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)  # the old leg
    await scene.node.wait_for_log("caller_replaced")
    assert not scene.console.seen("call.ended")
    assert len(scene.console.seen("call.started")) == 1
    assert (await taker.ask("BYE")).status == 200
    scene.phone.reply(await scene.phone.request("BYE"), 200)
    assert await scene.over() == "caller_hangup"


async def test_invite_with_replaces_for_an_unknown_dialog_goes_to_the_phone_or_is_481(
    scene: Scene,
) -> None:
    replaces = ("Replaces: theirs@pbx;to-tag=phone1;from-tag=pbx1", "Require: replaces")
    unknown = scene.pbx.begin(f"sip:nobody@{PBX_SIDE}", PBX_SIDE, scene.node.pbx_port)
    assert (await unknown.invite(headers=replaces)).status == 481
    known = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
    asking = asyncio.create_task(known.invite(headers=replaces))
    invite = await scene.phone.request("INVITE")
    assert invite["Replaces"] == "theirs@pbx;to-tag=phone1;from-tag=pbx1"
    scene.phone.reply(invite, 481, tag="p")
    assert (await asking).status == 481
    twice = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
    assert (await twice.invite(headers=(replaces[0], replaces[0]))).status == 400


async def test_attended_transfer_that_the_pbx_will_not_do_is_done_by_an_invite_of_ours(
    scene: Scene,
) -> None:
    first, agent_first = await scene.call()
    second, agent_second = await scene.call()
    replaces = (
        f"{agent_second.call_id};to-tag={agent_second.remote_tag};from-tag={agent_second.local_tag}"
    )
    refer_to = f"<sip:01012345678@127.0.0.3?Replaces={urllib.parse.quote(replaces, safe='')}>"
    assert (await agent_first.ask("REFER", headers=(f"Refer-To: {refer_to}",))).status == 202
    scene.pbx.reply(await scene.pbx.request("REFER"), 405)
    invite = await scene.pbx.request("INVITE")
    assert invite["Replaces"] == (
        f"{second.call_id};to-tag={second.local_tag};from-tag={second.remote_tag}"
    )
    # The PBX puts our new leg in the place of the second call's: the two callers are joined.
    scene.pbx.accept(invite)
    await scene.pbx.request("ACK")
    assert (await second.ask("BYE")).status == 200
    await notified(scene.phone, 100, 200)
    assert await scene.over() == "transferred"
    assert await scene.over(count=2) == "transferred"
    assert (await first.ask("BYE")).status == 200
    scene.pbx.reply(await scene.pbx.request("BYE"), 200)


async def test_a_real_phone_transfers_its_caller(tmp_path: Path) -> None:
    """baresip as the agent's phone: its own REFER, its own reading of our NOTIFYs."""
    tone = write_tone(tmp_path / "agent.wav", 1600.0, 60)
    async with (
        running_ua(PBX, "pbx") as pbx,
        running_baresip(tmp_path / "agent", PHONE, "1001", tone) as agent,
        running_node(
            tmp_path / "node",
            {"1001": agent.uri},
            peer=PBX,
            peer_options="attests_notice = true\n",
        ) as node,
        node.watch("1001") as console,
    ):
        caller = pbx.begin(node.uri("1001"), PBX_SIDE, node.pbx_port)
        assert (await caller.invite(headers=ATTESTED)).status == 200
        await console.wait("notice.finished")
        await agent.command("transfer", f"sip:1002@{PBX}")
        refer = await pbx.request("REFER")
        assert refer["Refer-To"] == f"<sip:1002@{PBX}:{pbx.port}>"  # where this PBX listens
        pbx.reply(refer, 202)
        tell(caller, "SIP/2.0 200 OK", final=True)
        await agent.wait("CALL_CLOSED")  # baresip hangs up when it reads of the success
        pbx.reply(await pbx.request("BYE"), 200)
        ended = await console.wait("call.ended")
        assert ended["reason"] == "transferred"


async def test_nobody_is_transferred_while_the_notice_plays(scene: Scene) -> None:
    caller = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
    asking = asyncio.create_task(caller.invite())
    agent = scene.phone.accept(await scene.phone.request("INVITE"))
    await scene.phone.request("ACK")
    assert (await asking).status == 200
    await scene.console.wait("notice.started")
    refer_to = (f"Refer-To: <sip:1002@{PBX}>",)
    assert (await agent.ask("REFER", headers=refer_to)).status == 491
    assert (await caller.ask("REFER", headers=refer_to)).status == 491
    assert not scene.console.seen("notice.finished")
    await caller.ask("BYE")
    scene.phone.reply(await scene.phone.request("BYE"), 200)
    assert not scene.pbx.waiting("REFER")
