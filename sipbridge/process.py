"""``python -m sipbridge.process --config FILE``: the bridge as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import structlog
import uvloop

from callshield import heartbeat, lifeline
from callshield.errors import CallshieldError
from callshield.logs import configure_logs
from callshield.settings import Settings, load_settings
from sipbridge.bridge import Bridge
from sipbridge.descriptors import allow_many_files
from sipbridge.kept_prompts import in_force

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then let calls finish.

    Raises:
        SetupError: a port, a prompt or pjsua2 is not as it should be.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    announcements = in_force(settings)
    if announcements.refused:
        log.error("announcements_refused", error=announcements.refused)
    bridge = Bridge(settings, announcements.prompts, announcements.refused)
    # The kernel's signal at the supervisor's death comes once, and one that comes amid the imports
    # may be lost in a callback of theirs: a broken pipe says the same, and goes on saying it.
    heartbeat.beat(loop, lambda: len(bridge.calls), stop.set)
    starting = asyncio.create_task(bridge.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await stopping
    else:
        # Still waiting for the media worker: there is no call to finish.
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    log.info("bridge_draining", calls=len(bridge.calls))
    await bridge.drain(settings.node.stop_timeout_s)
    await bridge.stop()
    log.info("bridge_stopped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.config)
        configure_logs("bridge", level=settings.node.log_level)
        allow_many_files()
        uvloop.run(serve(settings))
    except CallshieldError as error:
        print(f"callshield bridge: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
