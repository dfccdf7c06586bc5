"""What every table of the configuration is made of."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1, le=65535)]


#: Of every table: an unknown key is an error, and nothing changes after it was read.
SECTION = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def address(value: str) -> str:
    """An IPv4 or IPv6 address in its usual form.

    Raises:
        ValueError: it is none.
    """
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address") from None


class DigestSettings(BaseModel):
    """Who we are to a far end that challenges our requests (401, 407; RFC 3261 section 22)."""

    model_config = SECTION

    username: str = Field("", pattern=r'^[^\s"\\<>]{0,128}$')
    """Our name where the far end asks for one (401, 407); empty: a challenge is a refusal."""
    password_file: Path | None = None
    """File with the password on one line, mode 0600; the environment variable
    ``CALLSHIELD_AGENT_PASSWORD_ID`` (or ``…_SUPERVISOR_…``, ``…_TRUNK_…``) goes before it."""
    realm: str = Field("*", pattern=r'^[^"\\\x00-\x1f]{1,128}$')
    """Answer challenges of this realm only; ``*``: of any."""
