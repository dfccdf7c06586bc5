"""``[phones]``: what is shown on the agents' desk phones, and the listener that phones call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.private_file import placed
from callshield.settings_base import SECTION, Port, address

_PROFILE = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
#: No path behind it, and no user: what a phone is told is built by adding to it.
_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(:\d{1,5})?")

PushVia = Literal["auto", "bridge", "pbx", "http"]


class FamilySettings(BaseModel):
    """``[phones.families.PROFILE]``: how screens are pushed to one family of phones, by the id
    that `callshield profiles list` shows."""

    model_config = SECTION

    push: str = Field("", pattern=r"^[a-z0-9-]{0,48}$")
    """Id of the way (docs/phones.md); empty: the first that can work; ``off``: none."""
    via: PushVia = "auto"
    """Who sends it: ``bridge`` (SIP, from us), ``pbx`` (SIP, by the PBX where the phone is
    registered), ``http``; ``auto``: what fits the phone."""
    user: str = Field("", pattern=r'^[^\s":\\<>]{0,128}$')
    """Our name where the phone asks for one (HTTP basic or digest)."""
    password_file: Path | None = None
    """File with the password, or Grandstream's passcode, on one line, mode 0600; the environment
    variable ``CALLSHIELD_PHONES_PASSWORD_PROFILE`` (``-`` as ``_``) goes before it."""
    port: Port | None = None
    """Port of the phones' web server; 80, with ``tls`` 443, when absent."""
    tls: bool = False
    """HTTP over TLS."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the phones; the system's when absent."""
    verify: bool = True
    """Check the phones' certificates; many have one that nobody vouches for."""


class PhonesSettings(BaseModel):
    """``[phones]``: the warning on the desk phone's own screen (docs/screens.md)."""

    model_config = SECTION

    enabled: bool = True
    """Show warnings on phones whose family is known and can be pushed to."""
    from_level: int = Field(2, ge=1, le=3)
    """A screen appears when a call's level reaches this."""
    limit_s: float = Field(2.0, gt=0, le=30)
    """A phone that has not taken a screen by then has not taken it."""
    bind: str = "127.0.0.1"
    """Address of the listener for what phones send and fetch."""
    port: int = Field(0, ge=0, le=65535)
    """Its TCP port; 0: there is no listener."""
    url: str = ""
    """The listener as the phones reach it, e.g. ``http://192.0.2.5:8089``."""
    key_file: Path | None = None
    """Key from which each agent's address at the listener is made, mode 0600; when absent
    ``phones.key`` in ``node.state_dir``, made by itself."""
    certificate: Path | None = None
    """PEM file of the listener's certificate, with the chain behind it: phones then come by HTTPS,
    and nobody on the way reads their addresses at the listener."""
    private_key: Path | None = None
    """PEM file of its key, not encrypted, mode 0600."""
    keys_from: Literal["networks", "own_address"] = "networks"
    """Where a press of an agent's key may come from: anywhere in ``sip.phone.networks``, or only
    from the agent's own phone (``agents.ID.phone_address``, else the host of ``uri``)."""
    families: dict[str, FamilySettings] = {}
    """By profile."""

    @field_validator("bind")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return address(value)

    @field_validator("private_key")
    @classmethod
    def _as_placed(cls, value: Path | None) -> Path | None:
        return value and placed(value)

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not _URL.fullmatch(value):
            raise ValueError("an address like http://192.0.2.5:8089, without a path")
        return value

    @field_validator("families")
    @classmethod
    def _are_profiles(cls, value: dict[str, FamilySettings]) -> dict[str, FamilySettings]:
        for name in value:
            if not _PROFILE.fullmatch(name):
                raise ValueError(f"ids of `callshield profiles list`, not {name!r}")
        return value

    @model_validator(mode="after")
    def _can_be_reached(self) -> PhonesSettings:
        if self.port and not self.url:
            raise ValueError("url, as the phones reach the listener, beside port")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key, both or neither")
        if self.certificate is not None and not self.url.startswith("https:"):
            raise ValueError("an https url beside a certificate")
        return self
