"""A call centre under one preset of law: a whole node, telephones, and what they heard.

Calls of several centres are made at the same time, so that all of them together last as long as the
longest one; one capture has every packet that a caller was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from callshield.g711 import PCMA, decode
from callshield.heard import Heard, find, read_wav
from callshield.settings import Settings
from sipbridge.prompt_catalogue import SHIPPED
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.capture import Capture, Packet, capturing
from tests.peers.node import Node, Watch, running_node
from tests.peers.sip_ua import Ua, running_ua
from tests.peers.sound import RATE
from tests.peers.tap_copy import SOUND, TapCopy, copying_tap

CALLERS, PHONES, MANAGERS = "127.0.8.4", "127.0.8.5", "127.0.8.6"
#: baresip binds its RTP sockets to no address, so that it is sent to this one.
BARESIP_MEDIA = "127.0.0.1"
#: Longer than any notice, and than what a busy machine adds.
NOTICE_S = 60.0


@dataclass
class Played:
    """What is left of a call when it is over."""

    floor: str
    language: str
    call_id: str
    events: list[dict[str, Any]]
    """Of the call, as its agent's console got them."""
    heard: NDArray[np.float32]
    """By the caller's telephone, shape ``(n,)``, 8 kHz."""
    media_at: tuple[str, int, int]
    """Where the caller's telephone took it: an address, and ports of it from first to last."""
    tapped_ts: list[float]
    """When each tapped frame came to the node, seconds since the epoch."""
    pressed: dict[str, int] = field(default_factory=dict)
    """Buttons of the agent's console, and what the node answered: 200, 409, …"""
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The call as the API showed it to its agent at some moments."""
    cut_between: tuple[float, float] = (0.0, 0.0)
    """Before somebody cut the notice off, and when that had been told: seconds since the epoch."""

    def seen(self, kind: str) -> list[dict[str, Any]]:
        """Its events of one type."""
        return [event for event in self.events if event["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        """Its only event of a type."""
        (event,) = self.seen(kind)
        return event

    def stamps(self) -> list[dict[str, Any]]:
        """Everything that the record says the caller heard, or a part of it, in that order."""
        found = [stamp for event in self.seen("notice.finished") for stamp in event["prompts"]]
        found += [event["stamp"] for event in self.seen("prompt.played")]
        return sorted(found, key=lambda stamp: float(stamp["started_ts"]))


@dataclass
class Floor:
    """One node and those who call it."""

    name: str
    node: Node
    tap: TapCopy
    folder: Path
    stack: AsyncExitStack
    voices: Mapping[str, Path]
    """WAV files by what is said in them."""
    phones: Mapping[str, Baresip]
    """By agent."""

    @property
    def settings(self) -> Settings:
        return self.node.settings

    async def caller(self, user: str, *, says: str = "little") -> Baresip:
        """A new caller's telephone.

        Args:
            user: the number.
            says: a key of :attr:`voices`.
        """
        folder = self.folder / f"caller-{user}"
        source = self.voices[says]
        return await self.stack.enter_async_context(running_baresip(folder, CALLERS, user, source))

    async def scripted(self, user: str) -> Ua:
        """A caller who says nothing, and any header that a test wants."""
        return await self.stack.enter_async_context(running_ua(CALLERS, user))


@asynccontextmanager
async def running_floor(
    folder: Path,
    name: str,
    number: int,
    toml: str,
    voices: Mapping[str, Path],
    *,
    agents: Sequence[str] = ("1001",),
    peer_options: str = "",
    agent_options: str = "",
) -> AsyncIterator[Floor]:
    """A floor for as long as the block lasts; nothing of its node may have failed in the end.

    Args:
        folder: for its files; made here.
        name: of the floor, for sentences.
        number: its own, from 0: see :func:`sides`.
        toml: tables of the configuration. ``{manager}`` is the URI of a telephone that answers.
        voices: see :class:`Floor`.
        agents: ids; each has a telephone that answers, and speaks ``agent``.
        peer_options: more keys of the PBX.
        agent_options: more keys of each agent.
    """
    folder.mkdir()  # noqa: ASYNC240
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        phones = {
            agent: await enter(
                running_baresip(folder / f"phone-{agent}", PHONES, agent, voices["agent"])
            )
            for agent in agents
        }
        manager = await enter(
            running_baresip(folder / "manager", MANAGERS, "2000", voices["agent"])
        )
        node = await enter(
            running_node(
                folder / "node",
                {agent: phone.uri for agent, phone in phones.items()},
                peer=CALLERS,
                peer_options=peer_options,
                agent_options=agent_options,
                sides=sides(number),
                extra=toml.replace("{manager}", manager.uri),
            )
        )
        tap = await enter(copying_tap(node.settings.tap_path))
        yield Floor(name, node, tap, folder, stack, voices, phones)
        assert "Traceback" not in node.log_path.read_text()


class Line:
    """One call, while it lasts.

    Args:
        floor: where.
        agent: whom it is for.
        caller: who calls.
        console: the agent's.
    """

    def __init__(self, floor: Floor, agent: str, caller: Baresip | Ua, console: Watch) -> None:
        self.floor, self.agent, self.caller, self.console = floor, agent, caller, console
        self.phone = floor.phones[agent]
        self.call_id = ""
        self.pressed: dict[str, int] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.cut_between = (0.0, 0.0)

    @property
    def telephone(self) -> Baresip:
        """The caller's, who is no scripted one."""
        assert isinstance(self.caller, Baresip)
        return self.caller

    async def dial(self, *headers: str) -> None:
        """Call the agent; returns when the node has taken the call.

        Args:
            headers: more of the INVITE, from a scripted caller.
        """
        before, node = len(self.console.seen("call.started")), self.floor.node
        if isinstance(self.caller, Ua):
            dialog = self.caller.begin(
                node.uri(self.agent), node.pbx_address, node.pbx_port, self.caller.user
            )
            assert (await dialog.invite(headers=headers)).status == 200
        else:
            await self.caller.command("dial", node.uri(self.agent))
        started = await self.console.wait("call.started", count=before + 1)
        self.call_id = started["call_id"]

    async def wait(
        self, kind: str, *, count: int = 1, timeout_s: float = NOTICE_S, **values: object
    ) -> dict[str, Any]:
        """The ``count``-th event of this call that has these values."""
        return await self.console.wait(
            kind,
            lambda event: (
                event["call_id"] == self.call_id
                and all(event[name] == value for name, value in values.items())
            ),
            count=count,
            timeout_s=timeout_s,
        )

    async def told(self, prompt_id: str) -> None:
        """Wait until the record says what the caller heard of a later announcement."""
        await self.console.wait(
            "prompt.played",
            lambda event: (
                event["call_id"] == self.call_id and event["stamp"]["prompt_id"] == prompt_id
            ),
            timeout_s=NOTICE_S,
        )

    async def press(self, action: str) -> int:
        """A button of the agent's console; the answer's status."""
        path = f"/calls/{self.call_id}/actions"
        answer = await self.floor.node.post(path, self.agent, {"action": action})
        self.pressed[action] = answer.status_code
        return answer.status_code

    async def look(self, moment: str) -> dict[str, Any]:
        """What the API shows the agent of the call now; kept under this name."""
        token = self.floor.node.tokens[self.agent]
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.get(
                f"{self.floor.node.base}/api/v1/calls",
                headers={"Authorization": f"Bearer {token}"},
            )
        (self.views[moment],) = [
            one for one in answer.json()["calls"] if one["call_id"] == self.call_id
        ]
        return self.views[moment]

    async def over(self) -> Played:
        """Wait for the end, and gather what is left."""
        if isinstance(self.caller, Ua):
            self.caller.reply(await self.caller.request("BYE", NOTICE_S), 200)
            await self.wait("call.ended")
            heard = _payloads(self.caller.audio.payloads)
            media_at = (self.caller.address, self.caller.media_port, self.caller.media_port)
        else:
            await self.wait("call.ended")
            await self.caller.wait("CALL_CLOSED")
            heard, media_at = self.caller.heard(), (BARESIP_MEDIA, *self.caller.media_ports)
        async with asyncio.timeout(20):
            while not any(one["call_id"] == self.call_id for one in self._closed()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a file tells nobody that it grew
        # What is told of a call after its end.
        if self.pressed.get("end") == 200:
            await self.told("closing")
        if any(one["call_id"] == self.call_id for one in self.console.seen("recording.changed")):
            await self.wait("recording.changed", state="stopped")
        await asyncio.sleep(0.5)  # and what should not be
        frames = self.floor.tap.frames[bytes.fromhex(self.call_id)]
        mine = [event for event in self.console.events if event.get("call_id") == self.call_id]
        return Played(
            floor=self.floor.name,
            language=self.floor.settings.notice.language,
            call_id=self.call_id,
            events=mine,
            heard=heard,
            media_at=media_at,
            tapped_ts=[_wall(frame.arrived_ms) for frame in frames if frame.kind is SOUND],
            pressed=self.pressed,
            views=self.views,
            cut_between=self.cut_between,
        )

    def _closed(self) -> list[dict[str, Any]]:
        return self.floor.node.logs("media_closed")


def _payloads(payloads: Sequence[bytes]) -> NDArray[np.float32]:
    """What packets of 20 ms A-law carried."""
    voice = b"".join(one for one in payloads if len(one) == RATE // 50)
    return np.asarray(decode(voice, PCMA) / 32768, np.float32)


def _wall(arrived_ms: int) -> float:
    """Seconds since the epoch of a tapped frame's monotonic milliseconds."""
    ago_ms = (int(time.monotonic() * 1000) - arrived_ms) % 2**32
    return time.time() - ago_ms / 1000


# ------------------------------------------------------------------------------------- judging


def clip(language: str, prompt_id: str) -> NDArray[np.float32]:
    """A shipped announcement, 8 kHz."""
    return read_wav(SHIPPED / language / f"{prompt_id}.wav")


def in_order(
    recording: NDArray[np.float32], language: str, prompt_ids: Sequence[str]
) -> list[Heard]:
    """Where each of these was heard whole, one after the other.

    Raises:
        AssertionError: one is missing, is not whole, or comes before the one that it should follow.
    """
    found: list[Heard] = []
    position = 0.0
    for prompt_id in prompt_ids:
        heard = find(clip(language, prompt_id), recording, after_s=position)
        assert heard is not None, f"{prompt_id} was not heard after {position:.2f} s"
        assert heard.whole, f"of {prompt_id} a share of {heard.share:.2f} was heard: {heard}"
        found.append(heard)
        # The silence at its end is no part of what must be over before the next one.
        position = heard.end_s - 0.5
    return found


def heard_again(
    recording: NDArray[np.float32], language: str, prompt_ids: Sequence[str], after_s: float
) -> list[str]:
    """Which of these were heard, or a good part of them, behind a point of the recording."""
    again = []
    for prompt_id in prompt_ids:
        heard = find(clip(language, prompt_id), recording, after_s=after_s)
        if heard is not None and heard.share > 0.3:
            again.append(prompt_id)
    return again


def sound_of(packets: Sequence[Packet]) -> NDArray[np.float32]:
    """What packets carry, one after the other, shape ``(n,)``, 8 kHz."""
    voice = [decode(one.payload, PCMA) for one in packets if one.payload_type == PCMA]
    return np.asarray(np.concatenate(voice) / 32768, np.float32)


def last_packet_ts(packets: Sequence[Packet], language: str, prompt_ids: Sequence[str]) -> float:
    """When the last packet of announcements was on the wire, by the capture alone.

    Args:
        packets: all that a caller's telephone was sent, in order.
        language: of the announcements.
        prompt_ids: one after the other; the last one's end is meant.

    Raises:
        AssertionError: they were not sent whole, in this order.
    """
    voice = [packet for packet in packets if packet.payload_type == PCMA]
    last = in_order(sound_of(voice), language, prompt_ids)[-1]
    ends = np.cumsum([len(packet.payload) for packet in voice])
    return voice[min(int(np.searchsorted(ends, int(last.end_s * RATE))), len(voice) - 1)].at_s


def sides(number: int) -> tuple[str, str]:
    """The addresses of the node of a floor: towards the PBX, and towards the phones."""
    return f"127.0.8.{10 + 2 * number}", f"127.0.8.{11 + 2 * number}"


@asynccontextmanager
async def capturing_callers(path: Path, floors: int) -> AsyncIterator[Capture]:
    """A capture of all that so many floors send to callers. baresip is sent to `BARESIP_MEDIA`
    on every floor: only the node's own address tells the floor."""
    sources = " or ".join(f"src host {sides(number)[0]}" for number in range(floors))
    async with capturing(path, "", f"udp and ({sources})") as capture:
        yield capture


async def sent_to_callers(capture: Capture) -> list[tuple[tuple[str, int], Packet]]:
    """Every RTP packet that a caller's telephone was sent, with where to, in order."""
    lines = await capture.fields(
        "udp.payload[0]==80 && !(udp.dstport & 1)",
        *("frame.time_epoch", "ip.dst", "udp.dstport", "udp.payload"),
    )
    parts = [line.split("\t") for line in lines]
    return [
        ((address, int(port)), Packet(float(at), bytes.fromhex(data.replace(":", ""))))
        for at, address, port, data in parts
    ]
