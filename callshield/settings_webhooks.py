"""``[webhooks.NAME]``, ``[mail]`` and ``[limits]``: who is told outside, and how much is taken."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION, Port

#: ``call.ended``, or ``alert.*`` for all of a family.
_EVENT = re.compile(r"[a-z_]{1,24}\.(?:[a-z_]{1,24}|\*)")
#: One mailbox (RFC 5321 section 4.1.2, without quoted local parts): no second one, no header line.
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")


def is_loopback(host: str) -> bool:
    """True for a host that is this machine, by its name or number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def mailbox(value: str) -> str:
    """An address like ``duty@example.com``.

    Raises:
        ValueError: it is none.
    """
    if not _MAILBOX.fullmatch(value):
        raise ValueError("a mail address like duty@example.com")
    return value


class WebhookSettings(BaseModel):
    """``[webhooks.NAME]``: an address that is told of events, signed (docs/delivery.md)."""

    model_config = SECTION

    url: str
    """Where each event is sent by POST; https, or http on loopback."""
    secret_file: Path
    """One line, mode 0600: ``whsec_`` and at least 24 bytes in base64 (`openssl rand -base64 32`).
    Two lines while a secret is being changed: both sign."""
    events: list[str] = ["alert.raised", "alert.escalated", "alert.unanswered"]
    """Types of events; ``alert.*`` for a family."""
    allow_http: bool = False
    """Send over http to another machine too: everybody on the way can read it."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the server; the system's when absent."""
    timeout_s: float = Field(5.0, gt=0, le=60)
    """A request without an answer by then failed."""
    parallel: int = Field(4, ge=1, le=32)
    """Requests at once."""
    queue_limit: int = Field(1000, ge=1, le=100_000)
    """Letters under way; the next ones wait in the record of events."""
    give_up_after_h: float = Field(24.0, gt=0, le=720)
    """A letter that could not be delivered by then is put aside (`callshield webhooks list`)."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        expected = "an address like https://crm.example.com/callshield, without user or fragment"
        if not re.fullmatch(r"[\x21-\x7e]{1,2000}", value):
            raise ValueError(expected)
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError(expected) from None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise ValueError(expected)
        if parts.fragment:
            raise ValueError(expected)
        return value

    @field_validator("events")
    @classmethod
    def _are_types(cls, value: list[str]) -> list[str]:
        if not value or any(not _EVENT.fullmatch(item) for item in value):
            raise ValueError('types of events like "alert.raised" or "alert.*"')
        return value

    @model_validator(mode="after")
    def _is_private(self) -> WebhookSettings:
        parts = urlsplit(self.url)
        open_way = parts.scheme == "http" and not is_loopback(parts.hostname or "")
        if open_way and not self.allow_http:
            raise ValueError("an https address, or allow_http = true")
        return self


MailedAlert = Literal["risk", "help", "crisis", "notice_failed", "node"]


class MailSettings(BaseModel):
    """``[mail]``: alerts by e-mail, ids and level only; off without ``host`` (docs/delivery.md)."""

    model_config = SECTION

    host: str = Field("", pattern=r"^[A-Za-z0-9.:-]{0,253}$")
    """Mail server that takes our mail (SMTP submission); with it this is switched on."""
    port: Port = 587
    """Its TCP port; 465 is usual with ``security = "tls"``."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """``none`` only on loopback, or with ``allow_plain``."""
    allow_plain: bool = False
    """Let mail and password go unencrypted to another machine."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the server; the system's when absent."""
    username: str = Field("", pattern=r"^[^\x00-\x1f]{0,128}$")
    """Our name at the mail server; empty: without login."""
    password_file: Path | None = None
    """File with the password on one line, mode 0600."""
    sender: str = ""
    """From: of our mail."""
    to: list[str] = []
    """Mail addresses that get every mail, such as the manager on duty."""
    people: dict[str, str] = {}
    """Mail addresses by ID of ``[supervisors.ID]``: they get the escalations to that person."""
    alerts: list[MailedAlert] = ["help", "crisis"]
    """Kinds of alerts that are mailed when they are raised."""
    escalations: list[Literal["person", "all", "manager", "nobody"]] = ["manager", "nobody"]
    """Stages of an unanswered alert that are mailed."""
    spacing_s: float = Field(20.0, ge=0, le=3600)
    """At least so long between two mails; what comes meanwhile goes into one."""
    timeout_s: float = Field(30.0, gt=0, le=300)
    """A mail that the server has not taken by then failed."""
    queue_limit: int = Field(1000, ge=1, le=100_000)
    """Letters under way; the next ones wait in the record of events."""
    give_up_after_h: float = Field(24.0, gt=0, le=720)
    """A letter that could not be delivered by then is put aside (`callshield webhooks list`)."""

    @property
    def enabled(self) -> bool:
        return bool(self.host)

    @field_validator("to")
    @classmethod
    def _are_mailboxes(cls, value: list[str]) -> list[str]:
        return [mailbox(item) for item in value]

    @field_validator("people")
    @classmethod
    def _have_mailboxes(cls, value: dict[str, str]) -> dict[str, str]:
        return {person: mailbox(item) for person, item in value.items()}

    @model_validator(mode="after")
    def _is_whole(self) -> MailSettings:
        if not self.enabled:
            return self
        mailbox(self.sender)
        if not self.to and not self.people:
            raise ValueError("to = [addresses], or addresses in [mail.people]")
        if self.security == "none" and not (is_loopback(self.host) or self.allow_plain):
            raise ValueError('security = "starttls" or "tls", or allow_plain = true')
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username and password_file, both or none")
        return self


class LimitSettings(BaseModel):
    """``[limits]``: how much one token, and one address, may ask of the web server; beyond it 429.

    Actions on calls are counted apart; *end* and *help* are not counted.
    """

    model_config = SECTION

    token_per_s: float = Field(20.0, gt=0, le=10_000)
    """Requests a second with one token."""
    token_burst: int = Field(100, ge=1, le=100_000)
    """Requests at once with one token after a pause."""
    address_per_s: float = Field(300.0, gt=0, le=100_000)
    """Requests a second from one address (IPv6: one /64); many consoles may sit behind one."""
    address_burst: int = Field(3000, ge=1, le=1_000_000)
    """Requests at once from one address after a pause."""
    consoles_per_token: int = Field(20, ge=1, le=10_000)
    """WebSockets open at once with one token."""
    trusted_proxies: list[str] = ["127.0.0.1", "::1"]
    """Addresses of proxies whose ``X-Forwarded-For`` names the address that is counted."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        try:
            return [str(ipaddress.ip_network(item, strict=False)) for item in value]
        except ValueError:
            raise ValueError("addresses or networks like 192.0.2.10 or 192.0.2.0/24") from None
