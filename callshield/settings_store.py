"""``[store]`` and ``[retention]``: where what happened is kept, and for how long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from callshield.settings_base import SECTION

_URL = re.compile(
    r"postgresql://(?P<user>[^:@/?#\s]+)(?P<password>:[^@/?#\s]*)?@"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*)(?::\d{1,5})?/[A-Za-z0-9_.-]+"
    r"(?:\?host=/[^&\s]+)?"
)


class StoreSettings(BaseModel):
    """``[store]``: the database (docs/store.md)."""

    model_config = SECTION

    url: str = ""
    """``postgresql://USER@HOST:PORT/DATABASE``, or ``postgresql://USER@/DATABASE?host=/FOLDER``
    for a Unix socket; empty: the SQLite file ``callshield.sqlite3`` in ``node.state_dir``. The
    password never stands here."""
    password_file: Path | None = None
    """File with the database user's password on one line, mode 0600; the environment variable
    ``CALLSHIELD_STORE_PASSWORD`` goes before it."""
    tls: Literal["auto", "verify", "off"] = "auto"
    """To PostgreSQL: *verify* checks the server's certificate and name; *auto* does so unless the
    server is on this machine."""
    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the server; the system's when absent."""

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if not value:
            return value
        match = _URL.fullmatch(value)
        if match is None:
            raise ValueError("a URL like postgresql://callshield@db.example:5432/callshield")
        if match["password"] is not None:
            raise ValueError(
                "no password in the URL: put it into store.password_file or the environment "
                "variable CALLSHIELD_STORE_PASSWORD"
            )
        return value


#: Days by preset. *public*: a Korean public body's complaint desk, where contested measures may
#: be looked into for long; *short*: as little as the product can work with.
PRESETS: dict[str, dict[str, int]] = {
    "standard": {"words": 30, "events": 365, "alerts": 365, "calls": 365, "dead_letters": 30},
    "public": {"words": 90, "events": 1095, "alerts": 1095, "calls": 1095, "dead_letters": 30},
    "short": {"words": 7, "events": 90, "alerts": 90, "calls": 90, "dead_letters": 7},
}
Days = int | None


class RetentionSettings(BaseModel):
    """``[retention]``: when what is stored is deleted; each deletion is itself recorded."""

    model_config = SECTION

    enabled: bool = True
    """The running node deletes in the background; off: only ``callshield retention run`` does."""
    preset: Literal["standard", "public", "short"] = "standard"
    """Days for every kind below that has none of its own (docs/store.md)."""
    words_days: Days = Field(None, ge=0, le=36500)
    """Quotations of what callers said: taken out of events and calls, which stay."""
    events_days: Days = Field(None, ge=1, le=36500)
    """What happened, event by event; the hash chain stays verifiable."""
    alerts_days: Days = Field(None, ge=1, le=36500)
    """Alerts and what was said of them."""
    calls_days: Days = Field(None, ge=1, le=36500)
    """Calls that ended, and the figures of their analysis."""
    tokens_days: int = Field(30, ge=1, le=36500)
    """Tokens that expired or were revoked."""
    dead_letters_days: Days = Field(None, ge=1, le=36500)
    """What could not be delivered."""

    def days(self, kind: str) -> int:
        """Days for which ``kind`` is kept."""
        own: int | None = getattr(self, f"{kind}_days")
        return PRESETS[self.preset][kind] if own is None else own
