"""The bridge is killed in the middle of calls: the audio goes on, and who hangs up is heard."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from callshield.bus import BusClient
from callshield.heard import find
from callshield.messages_media import FetchKept, KeptEnd, MediaMessage
from tests.peers.impairment import Network
from tests.peers.prompts import Prompts
from tests.peers.scene import ATTESTED, PBX, PHONE, Scene, running_scene
from tests.peers.sip_ua import Dialog, Message, Ua, running_ua
from tests.peers.talker import Talker, talking

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]


async def kill_bridge(scene: Scene) -> None:
    """``kill -9``, and wait until its follower has the calls."""
    before = len(scene.node.logs("bridge_ready"))
    scene.node.kill("bridge")
    await scene.node.wait_for_log("bridge_ready", count=before + 1)
    await scene.node.until_ready()


def within(dialog: Dialog, method: str) -> Callable[[Message], bool]:
    """Requests of a method inside a dialog."""
    return lambda m: not m.status and m.method == method and m["Call-ID"] == dialog.call_id


async def gets_bye(dialog: Dialog, timeout_s: float = 20.0) -> Message:
    bye = await dialog.ua.expect(within(dialog, "BYE"), "our BYE", timeout_s)
    # RFC 3261 section 12.2.1.1: the dialog's own names.
    assert bye["To"].endswith(f";tag={dialog.local_tag}")
    assert bye["From"].endswith(f";tag={dialog.remote_tag}")
    dialog.ua.reply(bye, 200)
    return bye


async def gone(dialog: Dialog) -> None:
    """Answer as a far end that knows of no such dialog."""
    while True:
        request = await dialog.ua.expect(
            lambda m: not m.status and m["Call-ID"] == dialog.call_id, "anything", 1e6
        )
        if request.method != "ACK":
            dialog.ua.reply(request, 481)


@contextlib.asynccontextmanager
async def doing(work: object) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_either_side_hangs_up_after_the_bridge_died(tmp_path: Path) -> None:
    async with running_scene(tmp_path) as scene:
        for number, name in enumerate(("caller", "agent"), start=1):
            caller, agent = await scene.call()
            await kill_bridge(scene)
            one, other = (caller, agent) if name == "caller" else (agent, caller)
            assert (await one.ask("BYE")).status == 200
            await gets_bye(other)
            assert await scene.over(number) == f"{name}_hangup"
        # Nobody was told that the calls were lost, and nothing is left of them.
        assert {e["reason"] for e in scene.console.seen("call.ended")} == {
            "caller_hangup",
            "agent_hangup",
        }
        assert len(await scene.node.wait_for_log("media_closed", count=2)) == 2
        # The next call is one like any other.
        caller, agent = await scene.call()
        assert (await caller.ask("BYE")).status == 200
        await gets_bye(agent)
        assert await scene.over(3) == "caller_hangup"


async def test_a_dispatcher_is_told_that_calls_are_taken(tmp_path: Path) -> None:
    """OPTIONS outside a dialog (RFC 3261, 11.2), at the first bridge and at each that follows."""
    async with running_scene(tmp_path) as scene:
        node = scene.node
        for bridge in range(2):
            if bridge:
                await kill_bridge(scene)
            probe = scene.pbx.begin(node.uri("1001"), node.pbx_address, node.pbx_port)
            assert (await probe.ask("OPTIONS")).status == 200
        node.kill("media")
        await node.wait_for_log("process_started", count=len(node.logs("process_started")) + 1)
        await node.until_ready()
        probe = scene.pbx.begin(node.uri("1001"), node.pbx_address, node.pbx_port)
        assert (await probe.ask("OPTIONS")).status == 200


async def test_bridge_that_dies_twice_in_a_call(tmp_path: Path) -> None:
    """What the second one did in the dialogs is kept for the third."""
    async with running_scene(tmp_path) as scene:
        caller, agent = await scene.call()
        await kill_bridge(scene)
        offer = scene.phone.sdp()
        assert (await agent.ask("INVITE", body=offer)).status == 200
        agent.send("ACK", cseq=agent.cseq)
        await kill_bridge(scene)
        assert (await agent.ask("OPTIONS")).status == 200  # its CSeq is beyond the re-INVITE's
        assert (await caller.ask("BYE")).status == 200
        await gets_bye(agent)
        assert await scene.over() == "caller_hangup"


async def test_without_what_is_kept_the_other_side_hears_nothing(tmp_path: Path) -> None:
    """The control: somebody else fetches it first."""

    async def fetch(path: Path) -> None:
        done = asyncio.Event()

        async def take(message: MediaMessage) -> None:
            if isinstance(message, KeptEnd):
                done.set()

        thief: BusClient[MediaMessage] = BusClient(path, MediaMessage, take, lambda: [FetchKept()])
        thief.start()
        try:
            await done.wait()
            scene.node.signal(signal.SIGCONT)
            await scene.node.wait_for_log("bridge_ready", count=2)
        finally:
            await thief.close()

    async with running_scene(tmp_path) as scene:
        caller, _agent = await scene.call()
        scene.node.signal(signal.SIGSTOP)  # until somebody else has them, no other bridge begins
        try:
            scene.node.kill("bridge")
            await scene.node.wait_for_log("bridge_gone")
            await fetch(scene.node.settings.media_path)
        finally:
            scene.node.signal(signal.SIGCONT)
        await scene.node.until_ready()
        assert (await caller.ask("BYE")).status == 481
        assert await scene.over() == "lost"
        assert not scene.phone.waiting("BYE")
        assert not scene.node.logs("calls_kept")


@pytest.mark.parametrize("who", ["caller", "agent"])
async def test_who_hung_up_while_nobody_listened_is_missed_by_the_silence(
    tmp_path: Path, who: str
) -> None:
    """Its BYE was lost with the bridge, and is not repeated: the far end gave up."""
    async with (
        running_scene(tmp_path) as scene,
        talking(PBX) as caller_voice,
        talking(PHONE) as agent_voice,
    ):
        caller, agent = await talk(scene, caller_voice, agent_voice)
        one, other = (caller, agent) if who == "caller" else (agent, caller)
        voice = caller_voice if who == "caller" else agent_voice
        scene.node.kill("bridge")
        one.send("BYE")
        voice.talking = False
        async with doing(gone(one)):
            await scene.node.wait_for_log("bridge_ready", count=2)
            await gets_bye(other)
            assert await scene.over() == f"{who}_hangup"
        (kept,) = [e for e in scene.node.logs("kept_answer") if e["method"] == "OPTIONS"]
        assert (kept["leg"], kept["status"]) == (who, 481)


async def talk(
    scene: Scene,
    caller_voice: Talker,
    agent_voice: Talker,
    networks: tuple[Network, Network] | None = None,
) -> tuple[Dialog, Dialog]:
    """A connected call in which both speak.

    Args:
        scene: where.
        caller_voice: the caller's.
        agent_voice: the agent's.
        networks: through which theirs go to the node; by SDP that is where they are.
    """
    ports = [network.outer_port for network in networks or ()] or [0, 0]
    caller = scene.pbx.begin(scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port)
    before = len(scene.console.seen("notice.finished"))
    answering = asyncio.create_task(
        caller.invite(headers=ATTESTED, body=scene.pbx.sdp(port=ports[0] or caller_voice.port))
    )
    invite = await scene.phone.request("INVITE")
    agent = scene.phone.accept(invite, body=scene.phone.sdp(port=ports[1] or agent_voice.port))
    await scene.phone.request("ACK")
    answer = await answering
    caller_voice.to = (answer.media_address, answer.media_port)
    agent_voice.to = (invite.media_address, invite.media_port)
    for network, voice in zip(networks or (), (caller_voice, agent_voice), strict=False):
        network.far_end = voice.to
        voice.to = (voice.address, network.inner_port)
    await scene.console.wait("notice.finished", count=before + 1)
    caller_voice.talking = agent_voice.talking = True  # what is said before reaches nobody
    await scene.console.wait("tap.started")
    return caller, agent


async def until_came(voice: Talker, packets: int) -> None:
    """Until a talker was sent so many packets."""
    try:
        async with asyncio.timeout(20):
            # Packets tell nobody that they came.
            while len(voice.packets) < packets:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{len(voice.packets)} of {packets} packets came") from None


async def test_audio_and_analysis_go_on_and_the_agent_ends_it_with_announcement(
    tmp_path: Path,
) -> None:
    prompts = Prompts(tmp_path / "prompts")
    async with (
        running_scene(tmp_path, extra=prompts.toml) as scene,
        talking(PBX) as caller_voice,
        talking(PHONE) as agent_voice,
    ):
        caller, agent = await talk(scene, caller_voice, agent_voice)
        tapped_from = caller_voice.sent
        started = scene.console.seen("call.started")[0]
        await kill_bridge(scene)
        # Not one packet was lost: each gets there that was sent, and meanwhile no other is.
        caller_voice.talking = agent_voice.talking = False
        for voice, other in ((caller_voice, agent_voice), (agent_voice, caller_voice)):
            await until_came(other, voice.sent - 5)
        spoken = caller_voice.sent
        caller_voice.talking = agent_voice.talking = True
        path = f"/calls/{started['call_id']}/actions"
        refused = await scene.node.post(path, "1001", {"action": "warn"})
        assert refused.status_code == 409
        assert "only be ended" in refused.text
        before = len(caller_voice.packets)
        answer = await scene.node.post(path, "1001", {"action": "end"})
        assert answer.status_code == 200, answer.text
        await gets_bye(agent)
        bye = await gets_bye(caller)
        assert bye["X-Callshield-Call-Id"] == started["call_id"]
        assert await scene.over() == "ended_with_announcement"
        del caller_voice.packets[:before]
        found = find(prompts.samples("closing"), caller_voice.heard())
        assert found is not None
        assert found.share > 0.9
        figures = (await scene.node.wait_for_log("media_closed"))[0]
        assert figures["caller_leg"]["lost"] == figures["agent_leg"]["lost"] == 0
        # The analysis missed nothing of what was said until the announcement.
        assert figures["tapped"] >= spoken - tapped_from - 5, figures


async def test_refresh_hold_and_resume_of_a_kept_call(tmp_path: Path) -> None:
    async with running_scene(tmp_path) as scene:
        caller, agent = await scene.call()
        await kill_bridge(scene)
        timer = ("Supported: timer", "Session-Expires: 90;refresher=uac")
        refreshed = await caller.ask("UPDATE", headers=timer)
        assert refreshed.status == 200
        assert refreshed["Session-Expires"] == "90;refresher=uac"
        offer = scene.phone.sdp("sendonly")
        held = await agent.ask("INVITE", body=offer)
        agent.send("ACK", cseq=agent.cseq)
        assert held.status == 200
        assert "a=recvonly" in held.body
        assert held["Contact"]
        await scene.console.wait("hold.changed", lambda e: e["held"])
        resumed = await agent.ask("INVITE", body=scene.phone.sdp())
        agent.send("ACK", cseq=agent.cseq)
        assert resumed.status == 200
        assert (resumed.media_address, resumed.media_port) == (held.media_address, held.media_port)
        await scene.console.wait("hold.changed", lambda e: not e["held"])
        moved = await agent.ask("INVITE", body=scene.phone.sdp(port=scene.phone.media_port + 2))
        assert moved.status == 488
        agent.send("ACK", cseq=agent.cseq)
        assert (await agent.ask("REFER", headers=("Refer-To: <sip:2@127.0.0.4>",))).status == 603
        # The 200 of a re-INVITE is acknowledged: it is not repeated (RFC 3261 13.3.1.4).
        copies = [line for line in scene.phone.log if line.startswith("< SIP/2.0 200")]
        await asyncio.sleep(1.2)  # more than twice T1
        assert len(copies) == len([x for x in scene.phone.log if x.startswith("< SIP/2.0 200")])
        assert (await agent.ask("BYE")).status == 200
        await gets_bye(caller)


@pytest.mark.parametrize("route", ["loose", "strict"])
async def test_our_bye_goes_by_the_route_that_the_dialog_had(tmp_path: Path, route: str) -> None:
    """RFC 3261 section 12.2.1.1: a proxy between us and the phone stays in the dialog."""
    lr = ";lr" if route == "loose" else ""
    async with running_scene(tmp_path) as scene, running_ua(PHONE, "proxy") as proxy:
        through = f"sip:{PHONE}:{proxy.port}{lr}"
        caller, agent = await call_through(scene, proxy, through)
        await kill_bridge(scene)
        assert (await caller.ask("BYE")).status == 200
        bye = await proxy.request("BYE")
        assert bye["Call-ID"] == agent.call_id
        if lr:
            assert bye.start == f"BYE {scene.phone.uri} SIP/2.0"
            assert bye["Route"] == f"<{through}>"
        else:
            assert bye.start == f"BYE {through} SIP/2.0"
            assert bye["Route"] == f"<{scene.phone.uri}>"
        proxy.reply(bye, 200)
        assert not scene.phone.waiting("BYE")


async def call_through(scene: Scene, proxy: Ua, through: str) -> tuple[Dialog, Dialog]:
    """A connected call whose phone is behind a proxy that stays in the dialog."""
    caller = scene.pbx.begin(scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port)
    answering = asyncio.create_task(caller.invite(headers=ATTESTED))
    invite = await scene.phone.request("INVITE")
    agent = scene.phone.accept(invite, headers=(f"Record-Route: <{through}>",))
    await proxy.request("ACK")
    assert (await answering).status == 200
    await scene.console.wait("notice.finished")
    return caller, agent


async def test_bye_that_is_challenged_is_said_again_with_the_password(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret of a phone\n")
    password.chmod(0o600)
    options = f'username = "us"\npassword_file = "{password}"\n'
    async with running_scene(tmp_path, agent_options=options) as scene:
        caller, agent = await scene.call()
        await kill_bridge(scene)
        assert (await caller.ask("BYE")).status == 200
        bye = await scene.phone.request("BYE")
        assert not bye["Authorization"]
        challenge = 'WWW-Authenticate: Digest realm="phone", nonce="abc", algorithm=MD5'
        scene.phone.reply(bye, 401, headers=(challenge,))
        again = await gets_bye(agent)
        assert 'username="us"' in again["Authorization"]
        assert int(again["CSeq"].split()[0]) == int(bye["CSeq"].split()[0]) + 1


async def test_notice_that_played_when_the_bridge_died(tmp_path: Path) -> None:
    """Nobody hears its end: caller and agent are put through, nothing is analysed, people know."""
    prompts = Prompts(tmp_path / "prompts")
    async with (
        running_scene(tmp_path, extra=prompts.toml) as scene,
        talking(PBX) as caller_voice,
        talking(PHONE) as agent_voice,
        scene.node.watch("supervisor") as supervisor,
    ):
        caller = scene.pbx.begin(
            scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port
        )
        answering = asyncio.create_task(caller.invite(body=scene.pbx.sdp(port=caller_voice.port)))
        invite = await scene.phone.request("INVITE")
        agent = scene.phone.accept(invite, body=scene.phone.sdp(port=agent_voice.port))
        answer = await answering
        caller_voice.to = (answer.media_address, answer.media_port)
        agent_voice.to = (invite.media_address, invite.media_port)
        caller_voice.talking = agent_voice.talking = True
        await scene.console.wait("notice.started")
        await kill_bridge(scene)
        finished = await scene.console.wait("notice.finished")
        assert (finished["source"], finished["tapped"]) == ("failed", False)
        alert = await supervisor.wait("alert.raised")
        assert alert["kind"] == "notice_failed"
        await until_came(caller_voice, len(caller_voice.packets) + 50)
        assert (await caller.ask("BYE")).status == 200
        await gets_bye(agent)
        assert await scene.over() == "caller_hangup"
        assert (await scene.node.wait_for_log("media_closed"))[0]["tapped"] == 0


async def test_call_that_was_being_set_up_is_called_off_on_both_sides(tmp_path: Path) -> None:
    """The PBX may try elsewhere at once, and the telephone rings for nobody no more."""
    async with running_scene(tmp_path) as scene:
        caller = scene.pbx.begin(
            scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port
        )
        cseq = caller.send("INVITE", body=scene.pbx.sdp(), headers=ATTESTED)
        invite = await scene.phone.request("INVITE")
        scene.phone.reply(invite, 180, tag="ringing")
        await caller.response(cseq, "INVITE", least=180)
        probe = scene.pbx.begin(scene.node.uri("1001"), scene.node.pbx_address, scene.node.pbx_port)
        # It has done since what it does after passing on the 180. One that stood still since then
        # may answer the first in one go with it.
        for _ in range(3):
            assert (await probe.ask("OPTIONS")).status == 200
        await kill_bridge(scene)
        refused = await caller.response(cseq, "INVITE")
        assert refused.status == 503
        assert refused["Retry-After"]
        cancel = await scene.phone.request("CANCEL")
        assert cancel["Via"] == invite["Via"]
        assert cancel["CSeq"] == invite["CSeq"].replace("INVITE", "CANCEL")
        assert cancel.start == invite.start.replace("INVITE", "CANCEL")
        scene.phone.reply(cancel, 200)
        scene.phone.reply(invite, 487, tag="ringing")
        ack = await scene.phone.request("ACK")
        assert ack["Via"] == invite["Via"]
        assert ack["To"].endswith(";tag=ringing")
        assert await scene.over() == "bridge_lost"
        assert len(await scene.node.wait_for_log("media_closed")) == 1
        # The next one is one like any other.
        again, agent = await scene.call()
        assert (await again.ask("BYE")).status == 200
        await gets_bye(agent)
