"""``[oidc]``: signing in with the house's own accounts (docs/security.md)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from callshield.settings_base import SECTION

#: Where a browser comes back to.
CALLBACK_PATH = "/api/v1/oidc/callback"
RoleName = Literal["agent", "supervisor", "auditor", "admin", "representative"]


def is_safe(url: str) -> bool:
    """https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return True
    try:
        return parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


class OidcSettings(BaseModel):
    """``[oidc]``: OpenID Connect, authorization code with PKCE; off without ``issuer``.

    Who signs in gets a token of ours for one shift. Tokens of ``callshield token create`` go on
    working beside it.
    """

    model_config = SECTION

    issuer: str = ""
    """The provider's issuer URL, exactly as it calls itself; with it this is switched on."""
    client_id: str = Field("", pattern=r"^[!-~]{0,256}$")
    """Our id there; a confidential client with the flow *authorization code*."""
    secret_file: Path = Path("/etc/callshield/oidc.secret")
    """One line, mode 0600; the environment variable ``CALLSHIELD_OIDC_SECRET`` goes first."""
    redirect_url: str = ""
    """Where browsers come back to: ``https://DESK/api/v1/oidc/callback``, as registered there."""
    scopes: list[str] = ["openid"]
    """What is asked for; add the one that brings the claims below."""
    role_claim: str = Field("roles", pattern=r"^[A-Za-z0-9_:/.-]{1,128}$")
    """Claim of the ID token with the person's roles or groups, a text or a list; dots lead into
    objects (``realm_access.roles``)."""
    roles: dict[str, RoleName] = {}
    """What the provider calls a role → ours; the first line that fits counts."""
    agent_claim: str = Field("callshield_agent", pattern=r"^[A-Za-z0-9_:/.-]{1,128}$")
    """Claim with the ID of ``[agents.ID]``, for role *agent*."""
    supervisor_claim: str = Field("callshield_supervisor", pattern=r"^[A-Za-z0-9_:/.-]{1,128}$")
    """Claim with the ID of ``[supervisors.ID]``, for role *supervisor*: who is then asked in turn
    and sees the own teams. An account without this claim sees every team, as a token does that is
    tied to nobody."""
    session_s: float = Field(8 * 3600.0, ge=60, le=86400)
    """How long a sign-in is good."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the provider; the system's when absent."""

    @property
    def enabled(self) -> bool:
        return bool(self.issuer)

    @field_validator("issuer")
    @classmethod
    def _issuer_is_safe(cls, value: str) -> str:
        if value and not is_safe(value):
            raise ValueError("an https URL (http only on this machine's loopback)")
        return value

    @field_validator("redirect_url")
    @classmethod
    def _comes_back_to_us(cls, value: str) -> str:
        if value and not (is_safe(value) and urlsplit(value).path == CALLBACK_PATH):
            raise ValueError(f"an https URL that ends in {CALLBACK_PATH}")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> OidcSettings:
        if self.issuer and not (self.client_id and self.redirect_url and self.roles):
            raise ValueError("client_id, redirect_url and [oidc.roles] beside issuer")
        if "openid" not in self.scopes:
            raise ValueError('"openid" among the scopes')
        return self
