"""A row that is stored with an event, in the same transaction: both are there, or neither."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One row of one table, all its columns: put in the place of one with the same key."""

    table: str
    values: dict[str, Any]
    delete: bool = False
    """Take the row with these values away instead."""
