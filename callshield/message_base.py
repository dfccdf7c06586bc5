"""What every message is made of (:mod:`callshield.messages`)."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages; subclasses carry their tag."""
