"""``callshield doctor`` beside a real rtpengine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.doctor_media import check_media_plane
from callshield.errors import CallshieldError
from callshield.free_ports import free_port
from callshield.settings import Settings
from sipbridge.rtpengine_plane import RtpenginePlane
from sipbridge.rtpengine_process import Rtpengine
from tests.ng.kit import engine_for, plane_settings
from tests.rtp_peer import free_range

ROOT = Path(__file__).parents[2]


@pytest.mark.ng
async def test_a_good_rtpengine_is_a_sentence(engine: Rtpengine, settings: Settings) -> None:
    said = await asyncio.to_thread(check_media_plane, settings)
    assert "plays our prompts, copies the caller and logs keys" in said
    assert (await engine.client.ask("list"))["calls"] == []


@pytest.mark.ng
async def test_beside_a_running_node_its_keys_are_left_alone(
    plane: RtpenginePlane, settings: Settings
) -> None:
    async with asyncio.timeout(20):
        while plane._bus is None:  # noqa: ASYNC110 nothing outside tells that it listens
            await asyncio.sleep(0.05)
    said = await asyncio.to_thread(check_media_plane, settings)
    assert "the running node listens to its keys" in said


def test_no_rtpengine_is_a_sentence(tmp_path: Path) -> None:
    settings = plane_settings(tmp_path, ("127.0.0.1", free_port("127.0.0.1")))
    with pytest.raises(CallshieldError, match="rtpengine's control port"):
        check_media_plane(settings)


def test_our_own_relay_needs_nothing() -> None:
    assert check_media_plane(Settings()) == "our own relay"


@pytest.mark.ng
async def test_the_configuration_that_we_ship_is_taken(tmp_path: Path) -> None:
    """``deploy/rtpengine/rtpengine.conf``, with this test's addresses and ports."""
    control = free_port("127.0.0.1")
    settings = plane_settings(tmp_path, ("127.0.0.1", control))
    text = (ROOT / "deploy/rtpengine/rtpengine.conf").read_text(encoding="utf-8")
    first, last = free_range(50)
    for ours, here in (
        ("pbx/192.0.2.1", "pbx/127.0.0.1"),
        ("phone/198.51.100.1", "phone/127.0.0.2"),
        ("127.0.0.1:2223", f"127.0.0.1:{control}"),
        ("127.0.0.1:2226", settings.media.rtpengine.dtmf_log),
        ("port-min = 30000", f"port-min = {first}"),
        ("port-max = 39999", f"port-max = {last}"),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, here)
    path = tmp_path / "rtpengine.conf"
    path.write_text(text, encoding="utf-8")
    engine = engine_for(tmp_path, settings.media.rtpengine.dtmf_log, control)
    engine.arguments = (f"--config-file={path}", "--foreground", "--log-stderr")
    async with engine:
        said = await asyncio.to_thread(check_media_plane, settings)
    assert "logs keys" in said
