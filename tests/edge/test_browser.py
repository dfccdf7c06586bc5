"""An agent whose phone is a page: JsSIP in Chromium, registered at the edge's WebSocket, its
WebRTC turned into plain RTP by rtpengine; Callshield itself speaks none of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.free_ports import free_port
from callshield.heard import find, read_wav
from sipbridge.prompt_catalogue import SHIPPED
from tests.edge.floor import Floor, floor
from tests.edge.kit import EDGE, PBX, rtpengine_table, running_edge, running_rtpengine
from tests.pbx.browser_phone import BrowserPhone, browser_phone_at
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.prompts import Prompts
from tests.peers.sound import RATE, write_wav
from tests.test_peers_recording import export, recording_toml

pytestmark = [pytest.mark.edge, pytest.mark.browser, pytest.mark.timeout(240)]

#: Chromium's pages of these tests come from there, and their SIP from the loopback's own address.
BROWSERS = "127.0.0.1"


def words(folder: Path, name: str, language: str, prompt: str, level: float) -> Path:
    """Two seconds of somebody's speech, said over and over with pauses for three minutes."""
    whole = read_wav(SHIPPED / language / f"{prompt}.wav")
    begin = int(np.argmax(np.abs(whole) > 0.05))
    said = np.zeros(3 * RATE)
    said[: 2 * RATE] = whole[begin : begin + 2 * RATE] / np.max(np.abs(whole)) * level
    return write_wav(folder / f"{name}.wav", np.tile(said, 60))


@dataclass
class Scene:
    """A call centre one of whose agents works in a browser."""

    all_: Floor
    phone: BrowserPhone
    prompts: Prompts
    caller_words: NDArray[np.float32]
    agent_words: NDArray[np.float32]

    async def dial(self) -> Baresip:
        caller = await self.all_.stack.enter_async_context(_caller(self.all_))
        await caller.command("dial", self.all_.uri())
        return caller


@asynccontextmanager
async def _caller(all_: Floor) -> AsyncIterator[Baresip]:
    source = all_.folder / "caller-words.wav"
    async with running_baresip(
        all_.folder / "caller", PBX, "01012345678", source, jitter_buffer="0-0"
    ) as caller:
        yield caller


@asynccontextmanager
async def scene(folder: Path, jssip: Path, *, rtpengine: bool = True) -> AsyncIterator[Scene]:
    prompts = Prompts(folder / "prompts")
    caller = words(folder, "caller-words", "en", "closing", 0.1)
    agent = words(folder, "agent-words", "ja", "closing", 0.3)
    port = free_port(EDGE)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        all_ = await enter(
            floor(
                folder,
                node_options={"media_networks": ("127.0.0.1",)},
                each_node=lambda _: prompts.toml + recording_toml(folder, folder / "recordings"),
                keys=f'phones = ["{BROWSERS}"]\n',
                tables=f"[edge.websocket]\nport = {port}\ntls = false\n" + rtpengine_table(),
            )
        )
        if rtpengine:
            await enter(running_rtpengine(all_.edge))
        phone = await enter(
            browser_phone_at(
                f"ws://{EDGE}:{port}",
                all_.edge.place,
                "1001",
                all_.passwords["1001"],
                agent,
                jssip,
            )
        )
        yield Scene(all_, phone, prompts, read_wav(caller), read_wav(agent))


#: Of the half-seconds of somebody's words, so many are found in place (0.85 correlation each). A
#: browser on a busy machine drops a frame here and there; not one is found by chance.
SHARE = 0.5


def share(said: NDArray[np.float32], heard: NDArray[np.float32]) -> float:
    """How much of these words is in it, 0..1, where they are best to hear.

    They are said every three seconds, and the last time or the one before a hold may be cut short:
    so each five seconds, in which they are whole once, are looked at on their own.
    """
    parts = [heard[at : at + 5 * RATE] for at in range(0, max(1, len(heard) - 3 * RATE), 2 * RATE)]
    found = [find(said[: 2 * RATE], part) for part in parts]
    return max((each.share for each in found if each is not None), default=0.0)


def spoken(said: NDArray[np.float32], heard: NDArray[np.float32]) -> bool:
    """These words are in it."""
    return share(said, heard) >= SHARE


async def until_spoken(said: NDArray[np.float32], heard: Any, who: str) -> None:
    """Wait until somebody heard these words."""
    try:
        async with asyncio.timeout(40):
            # A recording tells nobody that it grew.
            while not spoken(said, await heard()):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    except TimeoutError:
        sound = await heard()
        raise AssertionError(
            f"{who} never heard the other's words: {share(said, sound)} of them in {len(sound)} "
            f"samples, {np.abs(sound).max(initial=0.0):.3f} the loudest"
        ) from None


async def test_agent_in_a_browser_is_protected_as_any_other(tmp_path: Path, jssip: Path) -> None:
    """Both hear each other's words, both ends and the node record them, the notice comes first."""
    async with scene(tmp_path, jssip) as all_:
        phone, node, console = all_.phone, all_.all_.nodes[0], all_.all_.consoles[0]
        contact = await all_.all_.edge.registered("1001")
        caller = await all_.dial()
        await phone.wait("ringing", timeout_s=40)
        await phone.do("answer")
        await phone.wait("confirmed", timeout_s=40)
        await console.wait("notice.finished")
        started = console.seen("call.started")[-1]

        async def caller_heard() -> NDArray[np.float32]:
            return caller.heard()

        await until_spoken(all_.agent_words, caller_heard, "the caller")
        await until_spoken(all_.caller_words, phone.heard, "the browser")
        travels = await phone.do("travels")
        # Hold and back: re-INVITEs of the browser, through rtpengine again.
        await phone.do("hold")
        await phone.wait("hold")
        async with asyncio.timeout(20):
            # Refused while the first re-INVITE is under way.
            while not await phone.do("unhold"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await phone.wait("unhold")
        before = len(await phone.heard())

        async def heard_since() -> NDArray[np.float32]:
            return (await phone.heard())[before:]

        await until_spoken(all_.caller_words, heard_since, "the browser, after its hold,")
        await phone.do("press", "*8#", "RFC2833")
        alert = await console.wait("alert.raised")
        await phone.do("press", "*9#", "RFC2833")
        ending = await console.wait("call.ending")
        await phone.wait("ended")
        await caller.wait("CALL_CLOSED")
        ended = await console.wait("call.ended")
        await console.wait("recording.changed", lambda event: event["state"] == "stopped")
        by_browser, by_caller = await phone.heard(), caller.heard()
        recorded, _ = await export(node, started["call_id"])

    assert "transport=ws" in contact["Address"]
    assert (travels["dtls"], travels["ice"]) == ("connected", "connected")
    assert travels["srtp"].startswith(("SRTP_", "AES_CM_", "AEAD_AES_")), travels["srtp"]
    assert travels["codec"] in ("audio/PCMA", "audio/PCMU")
    assert alert["kind"] == "help"
    assert ending["by"] == "agent:dtmf"
    assert ended["reason"] == "ended_with_announcement"
    # What each end recorded: the other's words, not its own; the caller the announcements too.
    assert spoken(all_.caller_words, by_browser)
    assert not spoken(all_.agent_words, by_browser)
    assert spoken(all_.agent_words, by_caller)
    assert not spoken(all_.caller_words, by_caller)
    assert spoken(all_.prompts.samples("recording"), by_caller)
    assert spoken(all_.prompts.samples("closing"), by_caller)
    assert not spoken(all_.prompts.samples("closing"), by_browser)
    # What the node recorded: each talker on the own channel.
    caller_channel, agent_channel = recorded[:, 0], recorded[:, 1]
    assert spoken(all_.caller_words, caller_channel)
    assert spoken(all_.agent_words, agent_channel)
    assert not spoken(all_.agent_words, caller_channel)
    assert not spoken(all_.caller_words, agent_channel)


async def test_without_rtpengine_the_browser_cannot_be_reached(tmp_path: Path, jssip: Path) -> None:
    """The control: plain RTP in the offer, which a browser does not take; no caller is kept."""
    async with scene(tmp_path, jssip, rtpengine=False) as all_:
        caller = await all_.dial()
        await all_.phone.wait("ringing", timeout_s=40)
        await all_.phone.do("answer")
        failed = await all_.phone.wait("failed")
        await caller.wait("CALL_CLOSED")
        assert not all_.all_.consoles[0].seen("call.answered")
    assert failed["detail"] == "WebRTC Error"


async def test_pages_from_elsewhere_and_wrong_passwords(tmp_path: Path, jssip: Path) -> None:
    microphone = words(tmp_path, "agent-words", "ja", "closing", 0.3)
    port = free_port(EDGE)
    async with running_edge(
        tmp_path / "edge",
        {"node-1": ("sip:127.0.53.9:5060", [])},
        ["1001"],
        keys=f'phones = ["{BROWSERS}"]\n',
        tables=f"[edge.websocket]\nport = {port}\ntls = false\n"
        + 'allowed_origins = ["https://desk.example.com"]\n',
    ) as (edge, passwords):
        page = (f"ws://{EDGE}:{port}", edge.place, "1001")
        async with browser_phone_at(
            *page, passwords["1001"], microphone, jssip, registers=False
        ) as phone:
            await phone.wait("disconnected", timeout_s=60)
            assert "registered" not in {event["name"] for event in await phone.events()}
        await edge.change(
            f'phones = ["{BROWSERS}"]\n', tables=f"[edge.websocket]\nport = {port}\ntls = false\n"
        )
        async with browser_phone_at(*page, "guessed", microphone, jssip, registers=False) as phone:
            failed = await phone.wait("registrationFailed", timeout_s=60)
            assert failed["detail"] == "Authentication Error"
        # The control.
        async with browser_phone_at(*page, passwords["1001"], microphone, jssip):
            assert "transport=ws" in (await edge.registered("1001"))["Address"]
