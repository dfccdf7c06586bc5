"""``[privacy]``: what is kept to find a caller's calls again, and what a caller is given."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from callshield.settings_base import SECTION


class PrivacySettings(BaseModel):
    """``[privacy]``: finding a caller's calls by number without keeping the number, and what he is
    given when he asks (docs/privacy.md)."""

    model_config = SECTION

    find_by_number: bool = True
    """Keep a keyed hash of the caller's number with each call, so that what is held on a caller can
    be given out or deleted when he names his number; off: only by the call's id."""
    key_file: Path | None = None
    """Keys of that hash, mode 0600, made at the first start; ``caller.keys`` in ``node.state_dir``
    when absent. They are in no backup of the store: keep a copy apart from it."""
    agent_channel: Literal["omit", "include"] = "omit"
    """What a caller is given of the agent's side of a recording: nothing, or the sound too, where
    the law gives him a right to it."""
