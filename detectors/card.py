"""Writing the model card: a TOML file that people read and :mod:`detectors.acoustic` checks."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from detectors.acoustic import CARD_FILE

_INTRODUCTION = """\
# Model card of vocal_effort.onnx, written by detectors.train (everything but [figures]) and
# detectors.report ([figures]). The program reads [model] and [thresholds].
"""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if value != int(value) else f"{value:.1f}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _table(name: str, table: dict[str, Any]) -> list[str]:
    lines = ["", f"[{name}]"]
    lines += [f"{key} = {_value(v)}" for key, v in table.items() if not isinstance(v, dict)]
    for key, v in table.items():
        if isinstance(v, dict):
            lines += _table(f"{name}.{key}", v)
    return lines


def write_card(folder: Path, card: dict[str, dict[str, Any]]) -> None:
    """Write ``vocal_effort.toml``: tables of texts, numbers, lists and tables of them."""
    lines = [_INTRODUCTION.rstrip()]
    for name, table in card.items():
        lines += _table(name, table)
    (folder / CARD_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, dict[str, Any]]:
    """The card as nested tables, to be changed and written again."""
    return tomllib.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
