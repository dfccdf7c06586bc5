"""A call centre: Asterisk, Callshield, two desk phones registered at Asterisk, and the provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from callshield.heard import read_growing_wav
from tests.pbx.ami import Ami
from tests.pbx.asterisk import CALLSHIELD, HOLD_HZ, PHONE_1, PHONE_2, PSTN, Asterisk
from tests.peers.baresip import Baresip
from tests.peers.capture import Capture, capturing
from tests.peers.node import Node, Watch
from tests.peers.prompts import Prompts
from tests.peers.sound import blocks, tone_db, write_tone

Topology = Literal["direct", "through"]
BOTH: tuple[Topology, ...] = ("direct", "through")
#: Who speaks at which frequency. Whom the agent hears is quiet: its shock guard leaves it alone.
CALLER_HZ, AGENT_HZ, COLLEAGUE_HZ = 1000.0, 1600.0, 2300.0
QUIET = 0.05
NUMBER = "01012345678"
#: A tone that is there at all is far above this, one that is not far below, dB full scale.
THERE_DB, ABSENT_DB = -35.0, -50.0


@dataclass
class Floor:
    """Everybody who takes part."""

    pbx: Asterisk
    node: Node | None
    agent: Baresip
    """1001"""
    colleague: Baresip
    """1002"""
    caller: Baresip
    """At the provider."""
    console: Watch | None
    """The console of 1001."""
    capture: Capture | None
    ami: Ami
    prompts: Prompts
    folder: Path
    _seen: dict[str, int] = field(default_factory=dict)

    @property
    def events(self) -> Watch:
        assert self.console is not None
        return self.console

    async def dial(self, extension: str, *, who: Baresip | None = None) -> None:
        """A call to an extension of the PBX; by the caller unless told."""
        await (who or self.caller).command("dial", self.pbx.uri(extension))

    async def connect(self, extension: str = "600") -> dict[str, Any]:
        """A call to the queue, up to the end of the notice; its ``call.started``."""
        before = len(self.events.seen("notice.finished"))
        await self.dial(extension)
        await self.events.wait("notice.finished", count=before + 1)
        return self.events.seen("call.started")[-1]

    async def channel(self, endpoint: str) -> str:
        """Name of an endpoint's newest channel."""
        text = await self.pbx.cli("core show channels concise")
        names = [line.split("!")[0] for line in text.splitlines()]
        return next(name for name in names if name.startswith(f"PJSIP/{endpoint}-"))

    async def no_channels(self) -> None:
        """Every channel of Asterisk is gone."""
        await self.pbx.until_cli("core show channels count", "0 active channels")

    async def hang_up(self) -> None:
        """The caller hangs up, and nothing is left of the call."""
        await self.caller.command("hangup")
        await self.caller.wait("CALL_CLOSED")
        await self.no_channels()


def heard(phone: Baresip, last_s: float = 1.0, *, cut_s: float = 0.3) -> NDArray[np.float32]:
    """The end of what a phone heard up to now, less what is still under way."""
    samples = read_growing_wav(phone.recording())
    end = len(samples) - int(cut_s * 8000)
    part: NDArray[np.float32] = samples[max(0, end - int(last_s * 8000)) : end]
    return part


def levels(samples: NDArray[np.float32]) -> dict[float, float]:
    """Median level of each speaker's tone, dB full scale."""
    parts = blocks(samples)
    assert parts, "nothing was heard"
    return {
        hertz: float(np.median([tone_db(part, hertz) for part in parts]))
        for hertz in (CALLER_HZ, AGENT_HZ, COLLEAGUE_HZ, HOLD_HZ)
    }


def hears(phone: Baresip, *tones: float, last_s: float = 1.0, there_db: float = THERE_DB) -> None:
    """At the end of what it heard are these tones and none of the others."""
    found = levels(heard(phone, last_s))
    for hertz, level in found.items():
        if hertz in tones:
            assert level > there_db, f"{phone.user} misses {hertz}: {found}"
        else:
            assert level < ABSENT_DB, f"{phone.user} hears {hertz}: {found}"


async def until_hears(
    phone: Baresip, *tones: float, timeout_s: float = 15, there_db: float = THERE_DB
) -> None:
    """Wait until a phone hears these tones and none of the others, for a second."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    hears(phone, *tones, there_db=there_db)
                    return
                except AssertionError:
                    await asyncio.sleep(0.3)  # a recording tells nobody that it grew
    except TimeoutError:
        hears(phone, *tones, there_db=there_db)


async def until_longer(recording: Path, samples: int, timeout_s: float = 15) -> None:
    """Wait until a recording that is being written is longer than ``samples``."""
    try:
        async with asyncio.timeout(timeout_s):
            # A recording tells nobody that it grew.
            while len(read_growing_wav(recording)) <= samples:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{recording} stopped at {len(read_growing_wav(recording))}") from None


@asynccontextmanager
async def floor(
    folder: Path,
    root: Path,
    topology: Topology = "direct",
    *,
    callshield: bool = True,
    capture: bool = False,
    extra: str | Callable[[Asterisk], str] = "",
    dialplan: str = "",
    replace: dict[str, str] | None = None,
    peer_options: str = "",
    auto_answer: bool = True,
    sip: str = "ring_timeout_s = 20\n",
    more_agents: dict[str, str] | None = None,
    ice: Sequence[str] = (),
    caller_sound: Path | None = None,
) -> AsyncIterator[Floor]:
    """A call centre for as long as the block lasts.

    Args:
        folder: everybody's files.
        root: of Asterisk's chroot.
        topology: ``direct``: Callshield calls the phones; ``through``: it calls
            ``phone-1001`` at the PBX, which rings them.
        callshield: it runs; else nobody is at its address.
        capture: tshark watches Callshield's address.
        extra: more of Callshield's configuration (``@PBX_PORT@`` is Asterisk's SIP port), or what
            makes it when Asterisk's ports are known.
        dialplan: more of Asterisk's.
        replace: see :class:`Asterisk`.
        peer_options: more keys of the peer in Callshield's configuration.
        auto_answer: the desk phones pick up by themselves.
        sip: keys of ``[sip]``.
        more_agents: further agents of Callshield, id → URI (``@PBX@`` is Asterisk's address and
            SIP port).
        ice: see :class:`Asterisk`.
        caller_sound: WAV file that the caller speaks instead of the tone.
    """
    prompts = Prompts(folder / "prompts")
    # Without jitter buffers: Asterisk changes the SSRC when it bridges anew (see Baresip).
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        sound = caller_sound or write_tone(folder / "c.wav", CALLER_HZ, 90, QUIET)
        caller = Baresip(folder / "caller", PSTN, NUMBER, sound, jitter_buffer="0-0")
        pbx = Asterisk(
            folder / "pbx",
            root,
            pstn=f"{PSTN}:{caller.port}",
            dialplan=dialplan,
            replace=replace,
            ice=ice,
        )
        home = f"{pbx.address}:{pbx.port}"
        agent = Baresip(
            folder / "agent",
            PHONE_1,
            "1001",
            write_tone(folder / "a.wav", AGENT_HZ, 90, 0.2),
            registrar=home,
            options=";auth_user=1001;auth_pass=pw1001",
            jitter_buffer="0-0",
            auto_answer=auto_answer,
        )
        colleague = Baresip(
            folder / "colleague",
            PHONE_2,
            "1002",
            write_tone(folder / "b.wav", COLLEAGUE_HZ, 90, QUIET),
            registrar=home,
            options=";auth_user=1002;auth_pass=pw1002",
            jitter_buffer="0-0",
            auto_answer=auto_answer,
        )
        direct = {phone.user: phone.uri for phone in (agent, colleague)}
        through = {user: pbx.uri(f"phone-{user}") for user in direct}
        more = {name: uri.replace("@PBX@", home) for name, uri in (more_agents or {}).items()}
        node = Node(
            folder / "node",
            {**(direct if topology == "direct" else through), **more},
            peer=pbx.address,
            peer_options=peer_options,
            sides=(CALLSHIELD, CALLSHIELD),
            sip=sip,
            extra=prompts.toml
            + (extra if isinstance(extra, str) else extra(pbx)).replace(
                "@PBX_PORT@", str(pbx.port)
            ),
        )
        pbx.callshield = f"{CALLSHIELD}:{node.pbx_port}"
        stack.push_async_callback(pbx.stop)
        await pbx.start()
        ami = await enter(pbx.ami())
        watcher = await enter(capturing(folder / "wire.pcap", CALLSHIELD)) if capture else None
        console = None
        if callshield:
            stack.push_async_callback(node.stop)
            await node.start()
            console = await enter(node.watch("1001"))
            await pbx.until_cli("pjsip show aor callshield", "Avail")
        for phone in (agent, colleague, caller):
            stack.push_async_callback(phone.stop)
            await phone.start()
        for phone in (agent, colleague):
            await pbx.until_cli("pjsip show contacts", f"{phone.user}/sip:{phone.user}")
        # Whoever calls the queue reaches 1001.
        await ami.action("QueuePause", Interface="Local/1002@callshield-agents/n", Paused="true")
        yield Floor(
            pbx=pbx,
            node=node if callshield else None,
            agent=agent,
            colleague=colleague,
            caller=caller,
            console=console,
            capture=watcher,
            ami=ami,
            prompts=prompts,
            folder=folder,
        )
        if callshield:
            assert "Traceback" not in node.log_path.read_text()
