"""rtpengine killed, restarted, silent, or set up differently: what the media worker makes of it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from callshield.errors import SetupError
from callshield.free_ports import free_port
from callshield.messages import LegName, NodeDegraded
from callshield.messages_media import (
    MediaTimeout,
    PlayFinished,
    SessionClosed,
    SessionOpened,
)
from callshield.settings import Settings
from sipbridge.prompt_catalogue import SHIPPED
from sipbridge.rtpengine_plane import RtpenginePlane
from sipbridge.rtpengine_process import Rtpengine
from tests.ng.kit import engine_for, plane_settings, running_plane
from tests.rtp_peer import Bridge, Call, tone, write_wav

pytestmark = pytest.mark.ng


def connected(bridge: Bridge) -> asyncio.Event:
    return bridge._client.connected


async def until(event: asyncio.Event, *, is_set: bool) -> None:
    async with asyncio.timeout(30):
        # The client sets and clears its event; nobody tells of the clearing.
        while event.is_set() is not is_set:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_rtpengine_killed_ends_the_connection_with_an_alarm_and_comes_back(
    call: Call, engine: Rtpengine, tmp_path: Path
) -> None:
    bridge = call.bridge
    prompt = write_wav(tmp_path / "prompt.wav", tone(700, 30.0))
    call.play(1, LegName.CALLER, [prompt])
    await call.caller.hear(5)
    await engine.kill()
    alarm = await bridge.expect(NodeDegraded, component="rtpengine", degraded=True)
    assert "does not answer" in alarm.reason
    # What was playing was not heard to its end: no notice.
    assert not (await bridge.expect(PlayFinished)).complete
    await until(connected(bridge), is_set=False)
    await engine.start()
    await until(connected(bridge), is_set=True)
    over = await bridge.expect(NodeDegraded, component="rtpengine", degraded=False)
    assert over.reason == ""
    again = await Call.set_up(bridge)
    await again.flow()
    again.hang_up()


async def test_rtpengine_that_stands_still_is_gone_after_a_while(
    call: Call, engine: Rtpengine
) -> None:
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        await until(connected(call.bridge), is_set=False)
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    await until(connected(call.bridge), is_set=True)
    # The call of before is not left behind in an rtpengine that was there all the time.
    assert (await engine.client.ask("list"))["calls"] == []


async def test_a_call_that_rtpengine_has_lost_ends_by_its_media_timeout(
    call: Call, engine: Rtpengine
) -> None:
    other = await Call.set_up(call.bridge)
    names = (await engine.client.ask("list"))["calls"]
    mine = next(name for name in names if name.endswith(call.call_id))
    await engine.client.ask("delete", {"call-id": mine, "from-tag": "caller", "delete delay": 0})
    told = await call.bridge.expect(MediaTimeout)
    assert told.call_id == call.call_id
    alarm = await call.bridge.expect(NodeDegraded, component="rtpengine", degraded=True)
    assert alarm.call_id == call.call_id
    assert not [m for m in call.bridge.messages if isinstance(m, SessionClosed)]
    await asyncio.sleep(3)
    assert not [m for m in call.bridge.messages if isinstance(m, MediaTimeout)]
    other.hang_up()


async def test_a_worker_that_died_leaves_no_calls_in_rtpengine(
    settings: Settings, engine: Rtpengine
) -> None:
    client = engine.client
    for number in range(3):
        await client.ask(
            "offer",
            {
                "call-id": f"callshield:node-1:{number:032x}",
                "from-tag": "caller",
                "sdp": "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                "m=audio 9 RTP/AVP 0\r\n",
            },
        )
    stranger = {"call-id": "callshield:node-1-b:1", "from-tag": "x"}
    sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    await client.ask("offer", {**stranger, "sdp": sdp + "m=audio 9 RTP/AVP 0\r\n"})
    async with running_plane(settings):
        bridge = Bridge(settings)
        await until(connected(bridge), is_set=True)
        assert (await client.ask("list"))["calls"] == ["callshield:node-1-b:1"]
        await bridge.close()


async def test_the_worker_waits_for_an_rtpengine_that_comes_later(
    settings: Settings, tmp_path: Path
) -> None:
    media = settings.media.rtpengine
    bridge = Bridge(settings)
    async with running_plane(settings):
        await asyncio.sleep(1)
        assert not connected(bridge).is_set()
        engine = engine_for(tmp_path, media.dtmf_log, int(media.control.rpartition(":")[2]))
        await engine.start()
        await until(connected(bridge), is_set=True)
        await bridge.close()
    await engine.stop()


async def test_a_bridge_that_comes_back_is_told_what_lives(call: Call, settings: Settings) -> None:
    again = Bridge(settings)
    found = await again.expect(SessionOpened, request_id=0)
    assert (found.call_id, found.caller_port) == (call.call_id, call.opened.caller_port)
    await again.close()


@pytest.mark.parametrize(
    ("interfaces", "said"),
    [
        (("pbx/127.0.0.7", "phone/127.0.0.2"), "sip.pbx says 127.0.0.1"),
        (("pbx/127.0.0.1", "phone/127.0.0.8"), "sip.phone says 127.0.0.2"),
    ],
)
async def test_rtpengine_at_other_addresses_is_a_sentence(
    tmp_path: Path, interfaces: tuple[str, str], said: str
) -> None:
    engine = engine_for(tmp_path, "127.0.0.1:9", interfaces=interfaces)
    async with engine:
        settings = plane_settings(tmp_path, engine.control)
        with pytest.raises(SetupError, match=said):
            await RtpenginePlane(settings).run(asyncio.Event())


async def test_rtpengine_that_logs_keys_elsewhere_is_a_sentence(tmp_path: Path) -> None:
    """A caller's objection would go unseen."""
    engine = engine_for(tmp_path, f"127.0.0.1:{free_port('127.0.0.1')}")
    async with engine:
        settings = plane_settings(tmp_path, engine.control)
        with pytest.raises(SetupError, match=r"logs no key to .* dtmf-log-dest"):
            await RtpenginePlane(settings).run(asyncio.Event())


@pytest.mark.skipif(os.geteuid() != 0, reason="hides the prompts in a mount namespace: root")
async def test_rtpengine_that_cannot_read_the_prompts_is_a_sentence(tmp_path: Path) -> None:
    """It runs on another machine, or as a user who may not."""
    settings = plane_settings(tmp_path, ("127.0.0.1", free_port("127.0.0.1")))
    media = settings.media.rtpengine
    engine = engine_for(tmp_path, media.dtmf_log, int(media.control.rpartition(":")[2]))
    engine.prefix = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")
    async with engine:
        with pytest.raises(SetupError, match=r"cannot play .*closing\.wav"):
            await RtpenginePlane(settings).run(asyncio.Event())


#: An empty folder over the prompts, for one process alone.
_HIDE = f'mount -t tmpfs none "{SHIPPED}" && exec "$@"'
