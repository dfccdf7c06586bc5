"""The notifier's process: ``python -m notifier.process --config FILE``.

Exit status: 0 after SIGTERM or SIGINT, 2 when something must be put right first (configuration,
port, database), 1 when a part of it died. The event ``ready`` on standard error says that the
web port and the bus accept connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
import uvicorn
import uvloop

from callshield import heartbeat, lifeline
from callshield.errors import CallshieldError
from callshield.listening import listen
from callshield.logs import configure_logs
from callshield.settings import Settings, load_settings
from notifier.ami_secret import load_secret
from notifier.app import build_app
from notifier.channels import channels
from notifier.cut import ConsoleProtocol
from notifier.database import lock, migrate, place_of
from notifier.node import Node
from notifier.oidc_secret import load_oidc_secret

log = structlog.get_logger()

#: A browser that does not let go holds a stop up for this long at most.
STOP_WITHIN_S = 3
_PING_S = 20.0


def bind(settings: Settings) -> socket.socket:
    """Take the web port before anything else is begun.

    Raises:
        SetupError: the port is taken, or the address is not this machine's.
    """
    return listen(settings.web.bind, settings.web.port, table="web", who="the consoles")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: this process stops as a whole, in its own order."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: Settings, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set.

    Args:
        settings: the node's configuration; its database is migrated and locked already.
        listener: a listening socket.
        stop: set it to stop cleanly.

    Raises:
        SetupError: a secret of ``[ami]``, ``[oidc]``, ``[webhooks.NAME]`` or ``[mail]`` cannot be
            had.
        BusError: the bus socket cannot be made.
        RuntimeError: a part of the notifier died.
    """
    node = Node(
        settings,
        ami_secret=load_secret(settings.ami) if settings.ami.enabled else "",
        oidc_secret=load_oidc_secret(settings.oidc) if settings.oidc.enabled else "",
        channels=channels(settings),
    )
    await node.start()
    config = uvicorn.Config(
        build_app(node),
        http="h11",
        ws=ConsoleProtocol,
        ws_max_size=64 * 1024,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
        ws_per_message_deflate=False,
        lifespan="off",
        # A request line may hold what somebody put there by mistake: none is logged.
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=list(settings.limits.trusted_proxies),
        timeout_graceful_shutdown=STOP_WITHIN_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    up = asyncio.create_task(server.up.wait())
    cause: BaseException | None = None
    try:
        await asyncio.wait({up, serving}, return_when=asyncio.FIRST_COMPLETED)
        host, port = listener.getsockname()[:2]
        log.info("ready", host=host, port=port, node=settings.node.name)
        parts = {serving, node.writing}
        await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
        died = not stop.is_set()
        cause = next((part.exception() for part in parts if part.done()), None)
    finally:
        server.should_exit = True
        stopping.cancel()
        up.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await node.stop()
    if died:
        raise RuntimeError("a part of the notifier died") from cause
    log.info("stopped")


async def _main(settings: Settings, listener: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    lifeline.watch(loop, stop.set)
    heartbeat.beat(loop)
    await run(settings, listener, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="notifier.process", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the node")
    options = parser.parse_args(arguments)
    # Database, lock and socket are for the node's user alone.
    os.umask(0o077)
    try:
        settings = load_settings(options.config)
        configure_logs("notifier", level=settings.node.log_level)
        listener = bind(settings)
        place = place_of(settings)
        migrate(place)
        held = lock(place)
        uvloop.run(_main(settings, listener))
    except CallshieldError as error:
        print(error, file=sys.stderr)
        return 2
    except RuntimeError:
        log.exception("notifier_died")
        return 1
    os.close(held)
    return 0


if __name__ == "__main__":
    sys.exit(main())
