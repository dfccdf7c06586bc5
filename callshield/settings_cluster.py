"""``[cluster]``: the other nodes, and the bus between them (docs/cluster.md)."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION
from callshield.settings_webhooks import is_loopback

#: A token of a NATS subject and a name in PostgreSQL: no dot, and room for what stands before it.
NODE_NAME = r"[A-Za-z0-9_-]{1,32}"


class ClusterSettings(BaseModel):
    """``[cluster]``: several nodes, whose supervisors see and handle each other's calls; off
    without ``servers`` (docs/cluster.md). The store must be a PostgreSQL that all of them share."""

    model_config = SECTION

    servers: list[str] = []
    """NATS servers with JetStream, ``nats://HOST:4222`` or ``tls://HOST:4222``; with them this is
    switched on. No user or password stands in them."""
    nodes: list[str] = []
    """``node.name`` of every node, this one among them; who is not in the list is not listened
    to."""
    name: str = Field("callshield", pattern=rf"^{NODE_NAME}$")
    """First part of every subject: clusters that share a NATS server need different ones."""
    user: str = Field("", pattern=r"^[^\s\x00-\x1f]{0,128}$")
    """Our user at the NATS server, best one for each node; with an empty one the secret is a
    token."""
    secret_file: Path | None = None
    """File with our password or token on one line, mode 0600; the environment variable
    ``CALLSHIELD_CLUSTER_SECRET`` goes before it."""
    credentials_file: Path | None = None
    """NATS ``.creds`` file (JWT and nkey seed), mode 0600, in the place of user and secret."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the NATS server; the system's when absent."""
    cert_file: Path | None = None
    """Our own certificate, where the NATS server asks for one."""
    key_file: Path | None = None
    """Its key, mode 0600."""
    allow_plain: bool = False
    """Go to another machine without TLS: everybody on the way can read levels and words."""
    heartbeat_s: float = Field(1.0, ge=0.2, le=10)
    """How often each node says that it lives."""
    dead_after_s: float = Field(8.0, ge=1, le=300)
    """A node that was not heard for so long is an alert; more than a restart of its notifier
    takes."""
    stopped_after_s: float = Field(900.0, ge=10, le=86400)
    """A node that said goodbye (a clean stop) is an alert when it is not back by then."""
    outbox_limit: int = Field(20_000, ge=100, le=1_000_000)
    """Events that wait here for a bus that is away; beyond it the oldest that are no alerts are not
    sent any more, counted and said."""
    stream_hours: float = Field(24.0, ge=0.1, le=720)
    """For so long the bus keeps events: what a node that was away longer has missed it is told as
    a gap."""
    stream_mib: int = Field(256, ge=1, le=1_048_576)
    """So much of them at most, the oldest go first."""
    stream_replicas: int = Field(1, ge=1, le=5)
    """Copies in a cluster of NATS servers: 3 of 3 outlive the loss of one."""

    @property
    def enabled(self) -> bool:
        return bool(self.servers)

    def others(self, node: str) -> list[str]:
        """Names of the other nodes; none where this is switched off."""
        return [name for name in self.nodes if name != node] if self.enabled else []

    @field_validator("servers")
    @classmethod
    def _are_servers(cls, value: list[str]) -> list[str]:
        for url in value:
            expected = "addresses like nats://bus.example:4222, without user or password"
            try:
                parts = urlsplit(url)
                host, _ = parts.hostname, parts.port
            except ValueError:
                raise ValueError(expected) from None
            if parts.scheme not in ("nats", "tls") or not host or "@" in parts.netloc:
                raise ValueError(expected)
            if parts.path or parts.query or parts.fragment:
                raise ValueError(expected)
        return value

    @field_validator("nodes")
    @classmethod
    def _are_names(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value) or len(value) > 64:
            raise ValueError("each node once, 64 at most")
        if any(not re.fullmatch(NODE_NAME, name) for name in value):
            raise ValueError("names of up to 32 letters, digits, '_' and '-'")
        return value

    @model_validator(mode="after")
    def _fits(self) -> ClusterSettings:
        for url in self.servers:
            parts = urlsplit(url)
            plain = parts.scheme != "tls" and not is_loopback(parts.hostname or "")
            if plain and not self.allow_plain:
                raise ValueError("tls:// for a server on another machine, or allow_plain = true")
        if self.credentials_file is not None and (self.user or self.secret_file is not None):
            raise ValueError("credentials_file, or user and secret_file, not both")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file together")
        if self.dead_after_s < 3 * self.heartbeat_s:
            raise ValueError("dead_after_s of at least three times heartbeat_s")
        return self


def check_cluster(cluster: ClusterSettings, node: str, store_url: str) -> None:
    """What the table needs of the others.

    Raises:
        ValueError: the sentence says what is missing.
    """
    if not cluster.enabled:
        return
    if node not in cluster.nodes:
        raise ValueError(f"cluster.nodes: the names of all nodes, this one ({node}) among them")
    if not store_url:
        raise ValueError(
            "store.url: a PostgreSQL that all nodes of [cluster] share; they check each other's "
            "requests by the tokens there"
        )
