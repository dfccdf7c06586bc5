"""The connection to the NATS servers: who we are there, and the stream that keeps the events.

One connection lives as long as it works; whatever breaks it, a new one is made and everything
that hangs on it is set up anew (:mod:`notifier.cluster.node_link`). The library's own reconnecting
is not used: it would go on with subscriptions whose consumer the server has forgotten meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from callshield.errors import BusError, SetupError
from callshield.messages_cluster import MAX_BYTES
from callshield.private_file import read_private
from callshield.settings_cluster import ClusterSettings

log = structlog.get_logger()

#: Goes before ``cluster.secret_file``.
SECRET_VARIABLE = "CALLSHIELD_CLUSTER_SECRET"  # noqa: S105 # the variable's name
CONNECT_TIMEOUT_S = 3.0
#: A server that does not answer pings is given up after three of these.
_PING_S = 4.0
#: How long JetStream may take to answer.
ANSWER_TIMEOUT_S = 4.0
#: The server recognises a message that is sent a second time for so long.
DUPLICATE_WINDOW_S = 120.0
_MIB = 1 << 20


class BusAway(BusError):
    """The bus cannot be reached, or does not answer."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """How we show who we are."""

    password: str = ""
    token: str = ""
    credentials: str = ""
    """Content of a ``.creds`` file."""

    def __repr__(self) -> str:
        return "Secrets(...)"


def load_secrets(settings: ClusterSettings) -> Secrets:
    """Read what the table names.

    Raises:
        SetupError: it cannot be read, or others can read it.
    """
    if settings.credentials_file is not None:
        text = read_private(
            settings.credentials_file, "cluster.credentials_file", SetupError, max_bytes=16384
        )
        return Secrets(credentials=text)
    secret = os.environ.get(SECRET_VARIABLE, "")
    if not secret and settings.secret_file is not None:
        secret = read_private(settings.secret_file, "cluster.secret_file", SetupError)
    secret = secret.strip()
    if settings.user and not secret:
        raise SetupError(
            f"cluster.user without a password: write it into cluster.secret_file with mode 0600, "
            f"or set {SECRET_VARIABLE}"
        )
    return Secrets(password=secret) if settings.user else Secrets(token=secret)


def tls_context(settings: ClusterSettings) -> ssl.SSLContext | None:
    """Of servers that are reached by ``tls://``; their certificate and name are checked.

    Raises:
        SetupError: a certificate cannot be used.
    """
    if not any(url.startswith("tls://") for url in settings.servers):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file is not None and settings.key_file is not None:
            read_private(settings.key_file, "cluster.key_file", SetupError, max_bytes=65536)
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        raise SetupError(f"a certificate of [cluster] cannot be used: {error}") from None
    return context


class Link:
    """One connection.

    Args:
        client: connected.
        settings: ``[cluster]``.
        closed: set when it is no more.
    """

    def __init__(self, client: Client, settings: ClusterSettings, closed: asyncio.Event) -> None:
        self.client = client
        self.closed = closed
        self.prefix = settings.name
        self.stream = f"{settings.name}_events"
        self._settings = settings
        self.js: JetStreamContext = client.jetstream(timeout=ANSWER_TIMEOUT_S)

    # Subjects. The last token says who speaks: the server's permissions hold each node to its own.

    def events_of(self, node: str) -> str:
        return f"{self.prefix}.events.{node}"

    def beat_of(self, node: str) -> str:
        return f"{self.prefix}.beat.{node}"

    def ask_of(self, to: str, node: str) -> str:
        return f"{self.prefix}.ask.{to}.{node}"

    async def ensure_stream(self) -> StreamInfo:
        """The stream, made when there is none yet.

        Raises:
            BusAway: JetStream does not answer, or is not switched on.
        """
        wanted = self.stream_config()
        try:
            try:
                return await self.js.stream_info(self.stream)
            except NotFoundError:
                return await self.js.add_stream(wanted)
        except JetStreamError as error:
            raise BusAway(f"JetStream does not serve the stream {self.stream} ({error})") from None

    def stream_config(self) -> StreamConfig:
        """The stream as the configuration wants it."""
        settings = self._settings
        age_s = settings.stream_hours * 3600.0
        return StreamConfig(
            name=self.stream,
            subjects=[self.events_of("*")],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_age=age_s,
            max_bytes=settings.stream_mib * _MIB,
            max_msg_size=MAX_BYTES,
            num_replicas=settings.stream_replicas,
            duplicate_window=min(DUPLICATE_WINDOW_S, age_s),
        )

    async def close(self) -> None:
        try:
            async with asyncio.timeout(2.0):
                await self.client.close()
        except (TimeoutError, OSError, nats.errors.Error):
            log.debug("bus_not_closed_cleanly")


async def connect(
    settings: ClusterSettings,
    secrets: Secrets,
    name: str,
    on_error: Callable[[Exception], Awaitable[None]],
) -> Link:
    """Connect to one of the servers.

    Args:
        settings: ``[cluster]``.
        secrets: of :func:`load_secrets`.
        name: by which the server's operator knows this connection.
        on_error: told of what goes wrong later without ending the connection.

    Raises:
        BusAway: no server can be reached, or it does not let us in.
        SetupError: a certificate cannot be used.
    """
    tls = tls_context(settings)
    reasons = []
    for url in settings.servers:
        closed = asyncio.Event()
        failures: list[Exception] = []
        up = asyncio.Event()

        async def on_closed(closed: asyncio.Event = closed) -> None:
            closed.set()

        async def while_connecting(
            error: Exception,
            failures: list[Exception] = failures,
            up: asyncio.Event = up,
        ) -> None:
            if up.is_set():
                await on_error(error)
            else:
                failures.append(error)

        client = Client()
        options: dict[str, Any] = {
            "servers": [url],
            "name": f"callshield {name}",
            "allow_reconnect": False,
            # Two attempts at one server; the next one is ours to choose.
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "ping_interval": _PING_S,
            "max_outstanding_pings": 2,
            "no_echo": True,
            # Of our own: the server's permissions keep others from reading our answers.
            "inbox_prefix": f"_INBOX_{settings.name}_{name}",
            "closed_cb": on_closed,
            "error_cb": while_connecting,
            "pending_size": 4 * MAX_BYTES,
        }
        if tls is not None and url.startswith("tls://"):
            options["tls"] = tls
        if secrets.credentials:
            from nats.aio.client import RawCredentials

            options["user_credentials"] = RawCredentials(secrets.credentials)
        elif settings.user:
            options |= {"user": settings.user, "password": secrets.password}
        elif secrets.token:
            options["token"] = secrets.token
        try:
            async with asyncio.timeout(3 * CONNECT_TIMEOUT_S):
                await client.connect(**options)
            up.set()
            return Link(client, settings, closed)
        except (OSError, nats.errors.Error, ValueError) as error:
            reasons.append(f"{url}: {_reason(failures[-1] if failures else error)}")
            try:
                async with asyncio.timeout(1.0):
                    await client.close()
            except (TimeoutError, OSError, nats.errors.Error):
                pass
    raise BusAway(f"no NATS server can be used ({'; '.join(reasons)})")


def _reason(error: Exception) -> str:
    return str(error).removeprefix("nats: ").replace("'", "") or type(error).__name__
