"""No silent listening, by behaviour: a whole node with a real call, and everybody at every door.

Two baresip telephones speak through it; the caller's speech is transcribed (the recogniser is
played, and hears marker words). While they talk, every route, console, command, socket and file is
read by every role, and searched for their sound and for the words. The control is the same walk
through a notifier with holes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.messages import Action
from notifier.evidence_key import make_signing_key
from tests.leaking_notifier import HOLES
from tests.listening_doors import COMMANDS, HTTP, SOCKETS
from tests.listening_leaks import LeakFinder
from tests.listening_transcriber import CALM, QUOTED
from tests.listening_walk import MOST_BYTES_S, Finding, ListeningNode, Walk
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.node import PBX_SIDE, Watch
from tests.peers.scene import ATTESTED, running_scene
from tests.peers.sound import RATE, write_wav
from tests.peers.tap_copy import TapCopy, copying_tap
from tests.receiver import Receiver
from tests.speech_kit import sentences
from tests.test_peers_recording import recording_toml

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

CALLER, PHONE, HELPER = "127.0.3.64", "127.0.3.65", "127.0.3.66"
SIDES = ("127.0.3.62", "127.0.3.63")
#: Who may read quotations of a call: its own agent, and supervisors once he asked for help.
QUOTES = ("GET /api/v1/calls", "WS /api/v1/events")


def voice(name: str) -> NDArray[np.int16]:
    return sentences()[name].samples


def speaking(path: Path, name: str, seconds: float = 600.0) -> Path:
    """One sentence again and again, a pause after each; for as long as a test may take."""
    once = np.concatenate([voice(name) / 32768, np.zeros(int(1.2 * RATE))])
    return write_wav(path, np.tile(once, int(seconds * RATE / len(once)) + 1))


@dataclass
class Scene:
    """A call in which both talk."""

    node: ListeningNode
    caller: Baresip
    agent: Baresip
    helper: Baresip
    own: Watch
    supervisor: Watch
    tap: TapCopy
    outside: Receiver
    call_id: str
    walk: Walk

    @property
    def folders(self) -> dict[str, Path]:
        return {
            "run": self.node.settings.node.runtime_dir,
            "state": self.node.settings.node.state_dir,
            "recordings": self.node.settings.recording.directory,
        }

    async def act(self, who: str, action: str, **more: str) -> Any:
        body = {"action": action, **more}
        return await self.node.post(f"/calls/{self.call_id}/actions", who, body)

    def helper_rang(self) -> bool:
        return any(event.get("type") == "CALL_INCOMING" for event in self.helper.events)


@asynccontextmanager
async def talking(folder: Path, *, leaking: bool = False) -> AsyncIterator[Scene]:
    """Until the caller's words have raised a level; nobody has asked for help."""
    outside = Receiver()
    await outside.start()
    secret = folder / "webhook.secret"
    secret.write_text("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    secret.chmod(0o600)
    make_signing_key(folder / "evidence.key")
    finder = LeakFinder(
        {"caller": voice("calm_01f"), "agent": voice("calm_04m")}, {"quoted": QUOTED, "calm": CALM}
    )
    async with (
        running_baresip(
            folder / "agent", PHONE, "1001", speaking(folder / "agent.wav", "calm_04m")
        ) as agent,
        running_baresip(
            folder / "caller", CALLER, "01012345678", speaking(folder / "caller.wav", "calm_01f")
        ) as caller,
        running_baresip(
            folder / "helper", HELPER, "2000", speaking(folder / "helper.wav", "calm_09m")
        ) as helper,
    ):
        extra = (
            recording_toml(folder, folder / "recordings")
            # Who asks everywhere at once is no flood here.
            + "[limits]\ntoken_per_s = 1000\ntoken_burst = 10000\n"
            + '[notice]\nprompts = ["recording"]\n[transcriber]\nworkers = 1\n'
            + f'[supervisors.lee]\nuri = "{helper.uri}"\n'
            + f'[webhooks.crm]\nurl = "http://127.0.0.1:{outside.port}/in"\n'
            + f'secret_file = "{secret}"\nevents = ["alert.*", "call.*", "risk.changed"]\n'
            + f'[evidence]\nkey_file = "{folder / "evidence.key"}"\n'
        )
        agents = {"1001": agent.uri, "1002": f"sip:1002@{PHONE}:9"}
        node = ListeningNode(folder / "node", agents, peer=CALLER, sides=SIDES, extra=extra)
        node.leaking = leaking
        try:
            await node.start()
            await node.wait_for_log("transcriber_ready")
            async with (
                copying_tap(node.settings.tap_path) as tap,
                node.watch("1001") as own,
                node.watch("supervisor") as supervisor,
            ):
                await caller.command("dial", node.uri("1001"))
                await own.wait("tap.started")
                level = await own.wait("risk.changed", lambda event: event["level"] >= 2)
                call_id = level["call_id"]
                assert QUOTED in json.dumps(level, ensure_ascii=False), "the agent reads why"
                await supervisor.wait("alert.raised", lambda event: event["kind"] == "risk")
                walk = Walk(node, finder, call_id)
                yield Scene(
                    node, caller, agent, helper, own, supervisor, tap, outside, call_id, walk
                )
        finally:
            await node.stop()
            await outside.stop()


async def round_of(scene: Scene, out: Path) -> dict[str, tuple[int, str]]:
    """Everything, once; what the commands said."""
    walk = scene.walk
    async with walk.screens() as got:
        await walk.http()
        await walk.sockets()
        said = await walk.commands(out)
        # Not in this loop: the telephones' tap must be read meanwhile.
        await asyncio.to_thread(walk.files, scene.folders)
        await asyncio.to_thread(walk.log)
        for letter in scene.outside.got:
            walk.look("webhook", "another system", letter.body)
        await walk.news()
    await asyncio.to_thread(walk.said, got)
    assert {"1001", "1002", "supervisor", "admin"} <= got.keys()
    assert not {"auditor", "representative"} & got.keys(), "no live screen for them"
    return said


def allowed(finding: Finding, *, asked: bool) -> bool:
    """Quotations for the call's own agent, and for who watches once he asked; and for the node's
    own user, whose files they lie in. Sound for nobody, calm words for nobody."""
    if finding.what != "word:quoted":
        return False
    if finding.place in QUOTES:
        return finding.reader == "1001" or (asked and finding.reader in ("supervisor", "admin"))
    database = finding.place.startswith("file state/callshield.sqlite3")
    return (database and finding.reader == "owner") or finding.place == "callshield backup"


def refused(found: set[Finding], *, asked: bool = False) -> list[Finding]:
    return sorted(one for one in found if not allowed(one, asked=asked))


async def test_nobody_hears_or_reads_a_live_call_at_any_door(tmp_path: Path) -> None:
    async with talking(tmp_path) as scene:
        walk = scene.walk
        # The walk can see: what the tap carries is this caller's voice, and only this caller's.
        frames = scene.tap.frames[bytes.fromhex(scene.call_id)]
        heard = b"".join(frame.payload for frame in frames)
        assert walk.finder.look(heard) == {"sound:caller"}
        said = await round_of(scene, tmp_path / "out")

        assert refused(walk.found) == []
        assert walk.unknown == [], "a door or message that nobody classed"
        # It went everywhere, and what may be read was found there.
        gets = {door for door in HTTP if door.startswith("GET ")}
        assert gets - walk.doors == set()
        assert {
            f"socket {part} {kind}" for part, kind, _ in SOCKETS if part != "phones"
        } <= walk.doors
        runnable = {f"callshield {name}" for name, one in COMMANDS.items() if one.run is not None}
        assert runnable <= walk.doors
        for place in QUOTES:
            assert Finding(place, "1001", "word:quoted") in walk.found
        # No door tells news as fast as any codec needs.
        too_fast = {door: rate for door, rate in walk.fastest.items() if rate > MOST_BYTES_S}
        assert too_fast == {}
        print({door: round(rate, 1) for door, rate in walk.fastest.items() if rate > 1})
        # A recording of a call that runs is closed, and what lies on the disk is sealed.
        assert said["recordings export"][0] == 2
        assert "the call still runs" in said["recordings export"][1]
        # Nor is it given to its caller, or made a package of, while it runs.
        assert said["privacy access"][0] != 0
        assert "still runs" in said["privacy access"][1], said["privacy access"]
        assert said["evidence export"][0] != 0
        assert "still runs" in said["evidence export"][1], said["evidence export"]
        assert any(path.is_file() for path in scene.folders["recordings"].rglob("*"))
        assert len(scene.outside.got) > 3, "the webhook was told something"
        assert not scene.helper_rang()


async def test_control_a_notifier_with_holes_is_found_out(tmp_path: Path) -> None:
    async with talking(tmp_path, leaking=True) as scene:
        await round_of(scene, tmp_path / "out")
        found = refused(scene.walk.found)
        assert {one.place for one in found} >= HOLES
        assert Finding("file run/leak.raw", "group and others", "may read it") in found
        assert Finding("WS /api/v1/events", "supervisor", "word:quoted") in found
        assert Finding("GET /api/v1/leak/sound", "nobody", "sound:caller") in found
        assert any("leak" in door for door in scene.walk.unknown)
        assert any(door.startswith("socket notifier tcp") for door in scene.walk.unknown)


async def test_nobody_comes_in_before_the_agent_asked_and_then_everybody_is_told(
    tmp_path: Path,
) -> None:
    async with talking(tmp_path) as scene:
        alert = scene.supervisor.seen("alert.raised")[0]["alert_id"]
        for who in ("supervisor", "admin", "1002", "auditor", "representative"):
            for action in Action:
                answer = await scene.act(who, action.value)
                assert answer.status_code in (403, 404, 409), (who, action, answer.text)
            for how in ("join", "take_over"):
                answer = await scene.node.post(f"/alerts/{alert}/accept", who, {"how": how})
                assert answer.status_code in (403, 404, 409), (who, how, answer.text)
        assert (await scene.act("1001", "join")).status_code == 403, "nor does the agent join"
        assert not scene.helper_rang()
        assert not scene.own.seen("helper.changed")

        # The agent asks: who watches reads why, and may come, and that is on record.
        assert (await scene.act("1001", "help")).status_code == 200
        await scene.supervisor.wait("alert.raised", lambda event: event["kind"] == "help")
        again = Walk(scene.node, scene.walk.finder, scene.call_id)
        async with again.screens() as got:
            await again.http()
            await asyncio.sleep(1)  # what a screen is told by itself meanwhile
        again.said(got)
        assert refused(again.found, asked=True) == []
        assert refused(again.found) != [], "the control: before that, it was not allowed"
        assert Finding("GET /api/v1/calls", "supervisor", "word:quoted") in again.found
        assert not [one for one in again.found if one.reader in ("auditor", "representative")]
        assert (await scene.act("supervisor", "join")).status_code == 200
        joined = await scene.own.wait("helper.changed", lambda e: e["state"] == "joined")
        [asked] = [e for e in scene.own.seen("alert.raised") if e["kind"] == "help"]
        assert asked["ts"] - 1 < joined["asked_ts"] < joined["ts"]
        said = await again.commands(tmp_path / "out")
        status, lines = said["audit joins"]
        [line] = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
        assert (status, line["call_id"], line["asked"]) == (0, scene.call_id, True)
        assert scene.call_id in said["audit reads"][1], "and who read the words"
        await scene.caller.command("hangup")
        await scene.own.wait("call.ended")


async def test_no_sip_request_joins_a_dialog_of_somebody_elses(tmp_path: Path) -> None:
    """RFC 3911 (Join) and RFC 4235 (who is in which dialog), from the PBX itself, which knows
    everything about the call; Replaces and REFER have tests of their own."""
    async with running_scene(tmp_path) as scene:
        caller, phone = await scene.call()
        tags = f"from-tag={caller.local_tag};to-tag={caller.remote_tag}"
        join = f"Join: {caller.call_id};{tags}"
        third = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
        answer = await third.invite(headers=("Require: join", join, *ATTESTED))
        assert (answer.status, "join" in answer["Unsupported"]) == (420, True), answer.text
        asked = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
        refused_ = await asked.ask("SUBSCRIBE", headers=("Event: dialog", "Expires: 60"))
        assert refused_.status == 405, refused_.text
        # Without Require it is what any second call is: the phone's own matter, and another call.
        plain = scene.pbx.begin(scene.node.uri("1001"), PBX_SIDE, scene.node.pbx_port)
        asking = asyncio.create_task(plain.invite(headers=(join, *ATTESTED)))
        second = await scene.phone.request("INVITE")
        assert second["Call-ID"] != phone.call_id
        scene.phone.reply(second, 486)
        assert (await asking).status == 486
        # The control: the call that was to be joined goes on as it was.
        assert (await caller.ask("BYE")).status == 200
