"""``docs/configuration.md``, generated from the settings themselves so that it cannot be wrong.

``python -m callshield.configuration_page > docs/configuration.md``; a test holds the two together.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from callshield.outbound_settings import TrunkSettings
from callshield.settings import Settings
from callshield.settings_edge import EdgeNodeSettings, EdgePbxSettings
from callshield.settings_headsets import HeadsetSettings
from callshield.settings_phones import FamilySettings, PhonesSettings
from callshield.settings_sip import AgentSettings, PeerSettings, SupervisorSettings
from callshield.settings_teams import ShiftSettings, TeamSettings
from callshield.settings_webhooks import WebhookSettings

_HEAD = """\
# Configuration

One TOML file, checked as a whole before anything starts; `callshield doctor` checks the rest of the
machine against it. An unknown key is an error. An environment variable overrides a key:
`CALLSHIELD_WEB__PORT=9000` is `web.port = 9000`. `deploy/callshield.example.toml` is a start.

This page is generated: `python -m callshield.configuration_page > docs/configuration.md`.
"""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, Path):
        value = str(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _limits(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    parts = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    choices = [repr(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    return ", ".join(parts or choices)


def _text(text: str | None) -> str:
    """A docstring as one table cell: no reStructuredText, no line breaks."""
    plain = re.sub(r":\w+:`([^`]+)`", lambda m: f"`{m[1].rpartition('.')[2]}`", text or "")
    return re.sub(r"\s+", " ", plain.replace("``", "`")).replace("|", "\\|").strip()


def _section(title: str, model: type[BaseModel]) -> list[str]:
    about = _text((model.__doc__ or "").partition(":")[2])
    lines = ["", f"## `{title}`", "", about[:1].upper() + about[1:], ""]
    lines += ["| key | default | limits | meaning |", "|---|---|---|---|"]
    nested: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            nested += _section(f"[{title.strip('[]')}.{name}]", kind)
            continue
        lines.append(
            f"| `{name}` | {_default(field)} | {_limits(field)} | {_text(field.description)} |"
        )
    return [*lines, *nested]


def page() -> str:
    """The whole page."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        kind: Any = field.annotation
        if name == "peers":
            lines += _section("[[peers]]", PeerSettings)
        elif name == "agents":
            lines += _section("[agents.ID]", AgentSettings)
        elif name == "supervisors":
            lines += _section("[supervisors.ID]", SupervisorSettings)
        elif name == "teams":
            lines += _section("[teams.NAME]", TeamSettings)
            lines += _section("[[teams.NAME.shifts]]", ShiftSettings)
        elif name == "headsets":
            lines += _section("[headsets.NAME]", HeadsetSettings)
        elif name == "trunks":
            lines += _section("[trunks.NAME]", TrunkSettings)
        elif name == "webhooks":
            lines += _section("[webhooks.NAME]", WebhookSettings)
        elif name == "phones":
            lines += _section("[phones]", PhonesSettings)
            lines += _section("[phones.families.PROFILE]", FamilySettings)
        elif get_origin(kind) is None:
            lines += _section(f"[{name}]", kind)
        if name == "edge":
            lines += _section("[[edge.nodes]]", EdgeNodeSettings)
            lines += _section("[[edge.pbx]]", EdgePbxSettings)
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
