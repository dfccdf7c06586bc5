"""Agents' softphones, real ones, configured by what ``callshield profiles render`` writes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.heard import find, read_growing_wav
from callshield.settings import Settings
from firmware_profiles.catalogue import shipped
from firmware_profiles.choosing import NoPlan, choose
from firmware_profiles.documents import execute_document, text_document
from firmware_profiles.matching import match
from firmware_profiles.schema import PushMethod
from firmware_profiles.screen_text import trial_words
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.linphone import Linphone
from tests.peers.node import Node, Watch, running_node
from tests.peers.prompts import Prompts
from tests.peers.sip_ua import Message, Ua, running_ua
from tests.peers.sound import RATE, blocks, tone_db, write_tone

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

CALLER, PHONE, STRANGER = "127.0.0.4", "127.0.0.5", "127.0.0.9"
CALLER_HZ, AGENT_HZ = 1000.0, 1600.0
QUIET = 0.05
#: A tone that is there at all is far above this, one that is not far below, dB full scale.
THERE_DB, ABSENT_DB = -35.0, -50.0
PROFILES = [pytest.param("linphone", marks=pytest.mark.linphone), "baresip"]
_numbers = count(1)


class Softphone(Protocol):
    """What an agent does with it."""

    @property
    def uri(self) -> str: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def answer(self) -> None: ...
    async def press(self, digits: str) -> object: ...
    async def hold(self) -> None: ...
    async def resume(self) -> None: ...
    async def over(self) -> None: ...
    def heard(self) -> NDArray[np.float32]: ...
    def user_agent(self) -> str: ...


class BaresipPhone(Baresip):
    """baresip in an agent's hands: ``accounts`` is as rendered, nothing is answered by itself."""

    flags = ("-v", "-s")

    async def answer(self) -> None:
        await self.wait("CALL_INCOMING")
        await self.command("accept")

    async def hold(self) -> None:
        await self.command("hold")

    async def resume(self) -> None:
        await self.command("resume")

    async def over(self) -> None:
        await self.wait("CALL_CLOSED")

    def heard(self) -> NDArray[np.float32]:
        return read_growing_wav(self.recording())

    def user_agent(self) -> str:
        log = (self.folder / "log").read_text(errors="replace")
        found = re.search(r"^(?:User-Agent|Server): (baresip.*?)\r?$", log, re.MULTILINE)
        assert found is not None
        return found[1]


async def rendered(node: Node, profile: str) -> str:
    """What the operator's command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "callshield.cli", "profiles", "render", profile),
        *("--agent", "1001", "--config", str(node.config)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


@dataclass
class Scene:
    """A call centre of one agent with a softphone."""

    node: Node
    phone: Softphone
    caller: Baresip
    console: Watch
    prompts: Prompts
    folder: Path

    async def connect(self) -> None:
        """A call, up to the end of the notice, and both hear each other."""
        await self.caller.command("dial", self.node.uri("1001"))
        await self.phone.answer()
        await self.console.wait("notice.finished")
        await until_hears(lambda: read_growing_wav(self.caller.recording()), AGENT_HZ)
        await until_hears(self.phone.heard, CALLER_HZ)


async def until_hears(
    heard: Callable[[], NDArray[np.float32]], hertz: float, timeout_s: float = 15
) -> None:
    """Wait until the last second of a recording is this tone and not the other one."""
    other = CALLER_HZ + AGENT_HZ - hertz
    found: list[tuple[float, float]] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                parts = blocks(heard()[-RATE:])
                found = [(tone_db(part, hertz), tone_db(part, other)) for part in parts]
                if len(found) == 5 and all(a > THERE_DB and b < ABSENT_DB for a, b in found):
                    return
                await asyncio.sleep(0.2)  # a recording tells nobody that it grew
    except TimeoutError:
        raise AssertionError(f"{hertz} is not heard: {found}") from None


@asynccontextmanager
async def scene(
    folder: Path, profile: str, change: tuple[str, str] | None = None
) -> AsyncIterator[Scene]:
    """Everybody runs; the phone's configuration is as rendered, or with one text changed."""
    prompts = Prompts(folder / "prompts")
    tone = write_tone(folder / "caller.wav", CALLER_HZ, 90, QUIET)
    voice = write_tone(folder / "agent.wav", AGENT_HZ, 90, 0.2)
    phone: Linphone | BaresipPhone
    if profile == "linphone":
        phone = Linphone(folder / "phone", "1001", voice)
    else:
        phone = BaresipPhone(folder / "phone", PHONE, "1001", voice)
    async with (
        running_baresip(folder / "caller", CALLER, "01000000000", tone) as caller,
        running_node(folder / "node", {"1001": phone.uri}, peer=CALLER, extra=prompts.toml) as node,
        node.watch("1001") as console,
    ):
        text = await rendered(node, profile)
        if change is not None:
            assert change[0] in text
            text = text.replace(*change)
        if isinstance(phone, Linphone):
            phone.configuration = text
        else:
            (phone.folder / "accounts").write_text(text, encoding="utf-8")
        try:
            await phone.start()
            yield Scene(node, phone, caller, console, prompts, folder)
        finally:
            await phone.stop()
        assert "Traceback" not in node.log_path.read_text()


def audio_codecs(trace: str) -> set[str]:
    """The codecs of every SDP in a log of SIP messages that Linphone wrote or read."""
    return set(re.findall(r"^a=rtpmap:\d+ ([A-Za-z0-9-]+)/", trace, re.MULTILINE))


@pytest.mark.parametrize("profile", PROFILES)
async def test_softphone_takes_a_protected_call_as_rendered(tmp_path: Path, profile: str) -> None:
    """Audio both ways, the notice before, hold, and the profile's way to help and end: digits."""
    async with scene(tmp_path, profile) as all_:
        phone, console = all_.phone, all_.console
        await all_.connect()
        await phone.hold()
        await console.wait("hold.changed", lambda event: event["held"])
        await phone.resume()
        await console.wait("hold.changed", lambda event: not event["held"])
        await until_hears(lambda: read_growing_wav(all_.caller.recording()), AGENT_HZ)
        await until_hears(phone.heard, CALLER_HZ)
        await phone.press("*8#")
        alert = await console.wait("alert.raised")
        await phone.press("*9#")
        ending = await console.wait("call.ending")
        await phone.over()
        await all_.caller.wait("CALL_CLOSED")
        ended = await console.wait("call.ended")
        agent = phone.user_agent()

    if isinstance(phone, Linphone):
        # The offer with which it holds is its own.
        assert audio_codecs(phone.trace) == {"PCMA", "PCMU", "telephone-event"}
    assert alert["kind"] == "help"
    assert ending["by"] == "agent:dtmf"
    assert ended["reason"] == "ended_with_announcement"
    assert match(shipped(), agent).profile.id == profile
    heard = all_.caller.heard()
    for name in ("recording", "closing"):
        found = find(all_.prompts.samples(name), heard)
        assert found is not None, name
        assert found.whole, name
    # Nothing of the agent before the gate opened.
    notice = find(all_.prompts.samples("recording"), heard)
    assert notice is not None
    before = blocks(heard[: int(notice.end_s * RATE)])
    assert max(tone_db(part, AGENT_HZ) for part in before) < THERE_DB


@pytest.mark.linphone
async def test_linphone_left_alone_offers_codecs_that_the_node_cannot_hear(tmp_path: Path) -> None:
    """Why the profile names codecs that it does not want: without them it offers them all."""
    async with scene(tmp_path, "linphone", ("[audio_codec_", "[unknown_")) as all_:
        await all_.connect()
        await all_.phone.hold()
        await all_.caller.command("hangup")
        await all_.phone.over()
        assert isinstance(all_.phone, Linphone)
        trace = all_.phone.trace
    assert {"speex", "opus"} <= audio_codecs(trace)


@pytest.mark.parametrize(
    ("profile", "change", "understood"),
    [
        pytest.param(
            *("linphone", ("use_rfc2833=1", "use_rfc2833=0"), False),
            id="linphone, sent as sound",
            marks=pytest.mark.linphone,
        ),
        pytest.param(
            *("baresip", ("dtmfmode=rtpevent", "dtmfmode=info"), True), id="baresip, by INFO"
        ),
    ],
)
async def test_digits_sent_another_way(
    tmp_path: Path, profile: str, change: tuple[str, str], understood: bool
) -> None:
    """The trap that the profile names is one, and what it allows besides works."""
    async with scene(tmp_path, profile, change) as all_:
        await all_.connect()
        await all_.phone.press("*8#")
        if understood:
            await all_.console.wait("alert.raised")
        else:
            with pytest.raises(AssertionError, match=r"no alert\.raised"):
                await all_.console.wait("alert.raised", timeout_s=4)
        await all_.caller.command("hangup")
        await all_.phone.over()


async def notify(ua: Ua, target: str, method: PushMethod) -> Message:
    """Push a document as the family's phones take it; the answer."""
    number = next(_numbers)
    host, _, port = target.partition("@")[2].partition(":")
    if method.document == "cisco_execute":
        body = execute_document(method, "http://192.0.2.10/screen").decode()
    else:
        body = text_document(method, trial_words("ko")).decode(method.encoding)
    ua.send(
        "\r\n".join(
            [
                f"NOTIFY {target} SIP/2.0",
                f"Via: SIP/2.0/UDP {ua.address}:{ua.port};branch=z9hG4bK{number};rport",
                "Max-Forwards: 70",
                f"From: <sip:callshield@{ua.address}>;tag=n{number}",
                f"To: <{target}>",
                f"Call-ID: notify{number}@{ua.address}",
                "CSeq: 1 NOTIFY",
                f"Contact: <{ua.uri}>",
                f"Event: {method.event or 'xml'}",
                "Subscription-State: terminated",
                f"Content-Type: {method.content_type}",
                f"Content-Length: {len(body.encode())}",
                "",
                body,
            ]
        ),
        (host, int(port)),
    )
    return await ua.expect(lambda m: m.status >= 200, f"an answer to {method.id}")


def pushing(settings: Settings) -> Settings:
    """The same node with screen pushes on, as they are by default."""
    return settings.model_copy(
        update={"phones": settings.phones.model_copy(update={"enabled": True})}
    )


def documents() -> Iterator[tuple[str, PushMethod]]:
    """Every document that is pushed by NOTIFY, by the profile that it is of."""
    for name, profile in shipped().phones.items():
        for method in profile.push:
            if method.transport == "sip_notify" and method.document:
                yield name, method


@pytest.mark.parametrize("profile", PROFILES)
async def test_nothing_is_pushed_to_a_softphone_and_a_push_would_harm_nothing(
    tmp_path: Path, profile: str
) -> None:
    """What it answers to every family's document, in a call that goes on."""
    async with scene(tmp_path, profile) as all_, running_ua(STRANGER, "node") as ua:
        await all_.connect()
        answers = {
            f"{name}/{method.id}": (await notify(ua, all_.phone.uri, method)).status
            for name, method in documents()
        }
        await until_hears(lambda: read_growing_wav(all_.caller.recording()), AGENT_HZ)
        await until_hears(all_.phone.heard, CALLER_HZ)
        await all_.caller.command("hangup")
        await all_.phone.over()
        agent = all_.phone.user_agent()
        plan = choose(shipped(), pushing(all_.node.settings), "1001", {"bridge": agent}, {})
    # Linphone says yes and shows nothing: its answer is no proof, and only the profile keeps us
    # from counting on it. baresip wants a subscription.
    assert len(answers) >= 4
    assert set(answers.values()) == {200 if profile == "linphone" else 481}
    assert isinstance(plan, NoPlan)
    assert plan.profile_id == profile
    assert plan.expected
    assert "the warning is in the console" in plan.reason
