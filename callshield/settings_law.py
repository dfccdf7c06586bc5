"""``[law]``: the preset in force, and how it enters the configuration.

A preset's defaults are the lowest source but one of all values: the environment goes before the
file, the file before the preset, the preset before what the program itself holds for usual. What it
forbids is looked for in the finished configuration, wherever a value came from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import PydanticBaseSettingsSource

from callshield.law_presets import Fault, Preset, broken_limits, load_preset, preset_ids
from callshield.settings_base import SECTION

PresetId = Literal[
    "", "kr-private", "kr-public", "kr-finance", "jp", "cn", "us-all-party", "us-one-party", "eu"
]
#: Marks the errors of :func:`keep_to_the_law` among those of a configuration.
BROKEN = "law"


class LawSettings(BaseModel):
    """``[law]``: which law the node is set up for (docs/compliance.md); no legal advice."""

    model_config = SECTION

    preset: PresetId = ""
    """Sets defaults for keys that this file does not set, and refuses what it forbids; empty:
    none, and nothing but the product's own principles is looked after."""
    version: str = Field("", pattern=r"^[0-9]{0,4}$")
    """Version of the preset that was looked at when this file was written; with another one
    nothing starts. Empty: any."""
    grievance_contact: str = Field("", pattern=r'^[^"\\<>\x00-\x1f]{0,200}$')
    """Who hears agents' grievances, and how to reach them (Korea: 고충처리위원): shown to an agent
    whose request for evidence was refused, beside the reason; in the papers for the works council.
    Set it: a refusal that nobody reviews is no procedure."""
    privacy_contact: str = Field("", pattern=r'^[^"\\<>\x00-\x1f]{0,200}$')
    """Who answers for personal data, and how to reach them."""
    risk_file: Path | None = None
    """The operator's own risk file of the acoustic model, made from docs/eu-risk-file.md; has to
    name the model's SHA-256."""

    @property
    def chosen(self) -> Preset | None:
        """The preset in force; ``None`` without one."""
        return load_preset(self.preset) if self.preset else None


class LawDefaults(PydanticBaseSettingsSource):
    """What the preset sets where neither the environment nor the file does.

    A table that a program (no file) gives as an object is complete, and stays as it is.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Part of the interface; nothing is looked up field by field."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        state = self.current_state
        law = state.get("law")
        name = law.get("preset") if isinstance(law, dict) else getattr(law, "preset", "")
        if not isinstance(name, str) or name not in preset_ids():
            return {}
        values: dict[str, Any] = {}
        for key, value in load_preset(name).defaults.items():
            _put(values, state, key.split("."), value)
        return values


def _put(values: dict[str, Any], state: Any, parts: list[str], value: Any) -> None:
    """Enter one default; ``*`` is every entry that the operator's table has."""
    first, rest = parts[0], parts[1:]
    if first == "*":
        for name in list(state) if isinstance(state, dict) else []:
            _put(values, state, [name, *rest], value)
        return
    if not rest:
        values[first] = value
        return
    below = state.get(first) if isinstance(state, dict) else None
    inner = values.setdefault(first, {})
    _put(inner, below, rest, value)
    if not inner:
        del values[first]


def keep_to_the_law(settings: Any) -> None:
    """Refuse a finished configuration that its preset forbids.

    Raises:
        PydanticCustomError: of type :data:`BROKEN`, with every fault in ``ctx["faults"]``.
    """
    law: LawSettings = settings.law
    preset = law.chosen
    faults: list[Fault] = []
    if preset is not None and law.version and law.version != preset.version:
        faults.append(
            (
                "law.version",
                repr(law.version),
                f"{preset.version!r}, the version of the preset {preset.id} that is installed: "
                f"read what changed (callshield law show {preset.id}), then name it here",
            )
        )
    elif preset is None and law.version:
        faults.append(("law.version", repr(law.version), "a law.preset that it is the version of"))
    if preset is not None:
        faults += broken_limits(preset, settings)
    if faults:
        key, _, expected = faults[0]
        raise PydanticCustomError(
            BROKEN, "{sentence}", {"sentence": f"{key}: {expected}", "faults": faults}
        )
