"""``callshield doctor``: whether the chosen media plane is there, and set up as it must be."""

from __future__ import annotations

import asyncio

from callshield.errors import SetupError
from callshield.settings import Settings
from callshield.settings_media import host_port


def check_media_plane(settings: Settings) -> str:
    """One sentence.

    Raises:
        CallshieldError: what is wrong, and what to do.
    """
    if settings.media.plane == "relay":
        return "our own relay"
    return asyncio.run(_try_rtpengine(settings))


async def _try_rtpengine(settings: Settings) -> str:
    from sipbridge.ng_client import NgClient
    from sipbridge.rtpengine_dtmf import DtmfLog
    from sipbridge.rtpengine_probe import probe

    control = host_port(settings.media.rtpengine.control)
    logged = host_port(settings.media.rtpengine.dtmf_log)
    try:
        keys: DtmfLog | None = await DtmfLog.open(
            logged, frozenset({control[0], logged[0]}), lambda event: None
        )
    except SetupError:
        keys = None  # a node that runs
    client = await NgClient.open(control)
    try:
        return await probe(client, settings, keys)
    finally:
        client.close()
        if keys is not None:
            keys.close()
