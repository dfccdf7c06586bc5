"""A real rtpengine, and a media worker that commands it, for as long as a block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from callshield.free_ports import free_port
from callshield.settings import Settings
from sipbridge.rtpengine_plane import RtpenginePlane
from sipbridge.rtpengine_process import Rtpengine, rtpengine_binary
from tests.peers.node import PBX_SIDE, PHONE_SIDE, Node, running_node
from tests.rtp_peer import free_range, node_values

#: Telephones of whole calls, and what they say.
CALLER, PHONE = "127.0.0.4", "127.0.0.5"
CALLER_HZ, AGENT_HZ = 1000.0, 1600.0
QUIET = 0.05
SHORT = 'prompts = ["recording"]\n'
ATTESTED = "X-Callshield-Notice: abuse_prevention, recording\n"
#: baresip 1.0 drops a new SSRC as too late now and then, and rtpengine's prompts have their own.
NO_BUFFER = {"jitter_buffer": "0-0"}
#: What a configuration must say so that nothing is asked for that rtpengine cannot give.
WITHOUT: dict[str, Any] = {
    "ear": {"limiter": False, "levelling": False, "soften_from_level": 4},
    "hearing": {"dose_warnings_pct": [], "voice_hint_after_s": 0},
    "notice": {"agent_hears": "nothing"},
}


def plane_settings(
    folder: Path, control: tuple[str, int], *, learn: bool = False, **more: Any
) -> Settings:
    """A node on loopback whose media worker commands the rtpengine at ``control``."""
    values = node_values(folder, **more.pop("sip", {}))
    (folder / "run").mkdir(exist_ok=True)
    return Settings(
        **values,
        **{**WITHOUT, **more},
        media={
            "plane": "rtpengine",
            "rtpengine": {
                "control": f"{control[0]}:{control[1]}",
                "dtmf_log": f"127.0.0.1:{free_port('127.0.0.1')}",
                "learn_addresses": learn,
            },
        },
    )


def engine_for(
    folder: Path,
    dtmf_log: str,
    control_port: int = 0,
    *,
    interfaces: tuple[str, ...] = ("pbx/127.0.0.1", "phone/127.0.0.2"),
) -> Rtpengine:
    """An rtpengine with the interfaces of :func:`plane_settings`, not started yet."""
    binary = rtpengine_binary()
    assert binary is not None, "rtpengine is missing: apt-get install rtpengine-daemon"
    return Rtpengine(
        binary,
        interfaces=interfaces,
        ports=free_range(120),
        options=("--timeout=3600", f"--dtmf-log-dest={dtmf_log}"),
        log=folder / "rtpengine.log",
        control_port=control_port or free_port(interfaces[0].partition("/")[2]),
    )


@asynccontextmanager
async def running_plane(settings: Settings) -> AsyncIterator[RtpenginePlane]:
    """The media worker's work, in this process, in a thread with the worker's own event loop."""
    plane = RtpenginePlane(settings)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    made: asyncio.Future[asyncio.AbstractEventLoop] = loop.create_future()

    async def work() -> None:
        loop.call_soon_threadsafe(made.set_result, asyncio.get_running_loop())
        await plane.run(stop)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())

    ended = loop.run_in_executor(None, run)
    its_loop = await made
    try:
        yield plane
    finally:
        if not ended.done():
            its_loop.call_soon_threadsafe(stop.set)
        async with asyncio.timeout(20):
            await ended


#: The same as :data:`WITHOUT` as TOML, for whole nodes.
WITHOUT_TOML = """
[ear]
limiter = false
levelling = false
soften_from_level = 4
[hearing]
dose_warnings_pct = []
voice_hint_after_s = 0
"""


@asynccontextmanager
async def running_engine_node(
    folder: Path,
    agents: dict[str, str],
    *,
    notice: str = "",
    engine_options: tuple[str, ...] = (),
    extra: str = "",
    **options: Any,
) -> AsyncIterator[tuple[Node, Rtpengine]]:
    """A whole node beside an rtpengine of its own.

    Args:
        folder: of the node's files.
        agents: agent id → SIP URI of the phone.
        notice: more keys of ``[notice]``.
        engine_options: more of rtpengine's command line.
        extra: more tables.
        options: of :class:`tests.peers.node.Node`.
    """
    pbx, phone = options.setdefault("sides", (PBX_SIDE, PHONE_SIDE))
    dtmf_log = f"127.0.0.1:{free_port('127.0.0.1')}"
    binary = rtpengine_binary()
    assert binary is not None, "rtpengine is missing: apt-get install rtpengine-daemon"
    engine = Rtpengine(
        binary,
        interfaces=(f"pbx/{pbx}", f"phone/{phone}"),
        ports=free_range(200),
        options=("--timeout=3600", f"--dtmf-log-dest={dtmf_log}", *engine_options),
        log=folder.with_name("rtpengine.log"),
        control_port=free_port(pbx),
    )
    media = (
        f'[media]\nplane = "rtpengine"\n[media.rtpengine]\ncontrol = "{pbx}:{engine.control[1]}"\n'
        # baresip sends from another address than its SDP names: see Node's media_networks.
        f'dtmf_log = "{dtmf_log}"\nlearn_addresses = true\n'
    )
    tables = f'{WITHOUT_TOML}{media}[notice]\nagent_hears = "nothing"\n{notice}{extra}'
    async with engine, running_node(folder, agents, extra=tables, **options) as node:
        yield node, engine
