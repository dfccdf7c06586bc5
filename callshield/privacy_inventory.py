"""The inventory of personal data: what each column, message field, file and log field holds.

Read from ``privacy_inventory.toml`` beside this module. docs/privacy.md is made of it, and what a
caller who asks is given follows it: what does not stand in it is given to nobody.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

Given = Literal["yes", "agent", "staff", "present", "nested", "no"]
_PATH = Path(__file__).with_name("privacy_inventory.toml")
#: Keys of a table or message that are no category.
_OWN = frozenset({"what", "kept", "read", "given"})


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of data."""

    name: str
    says: str
    about: tuple[str, ...]
    purpose: str
    given: Given
    """In what form a caller who asks is given it."""
    of: str = ""
    """With *nested*: name of the structure."""
    why: str = ""
    """With *no*: why not."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A table, a message, or the fields of log lines."""

    name: str
    fields: Mapping[str, Category]
    given: bool = False
    """Its rows or events are given to a caller who asks."""
    what: str = ""
    kept: str = ""
    """Key of :attr:`Inventory.kept`."""
    read: tuple[str, ...] = ()
    """Keys of :attr:`Inventory.readers`."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file."""

    name: str
    where: str
    what: str
    patterns: tuple[str, ...]
    """Names that such files have in the node's own folders (:mod:`fnmatch`)."""
    settings: tuple[str, ...]
    """Keys of the configuration that name it."""
    holds: tuple[str, ...]
    """Whom it says something about."""
    kept: str
    read: tuple[str, ...]
    written_by: tuple[str, ...]
    """Modules, as paths in the repository."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All of it."""

    categories: Mapping[str, Category]
    kept: Mapping[str, str]
    readers: Mapping[str, str]
    tables: Mapping[str, Holding]
    messages: Mapping[str, Holding]
    """By tag; structures within messages by the name of their class."""
    logs: Holding
    files: tuple[FileKind, ...]


@cache
def inventory() -> Inventory:
    """The inventory of this version.

    Raises:
        ValueError: it names a category, a time or a reader that it does not have, or a field twice.
    """
    return parse(_PATH.read_text(encoding="utf-8"))


def parse(text: str) -> Inventory:
    """Read an inventory; see :func:`inventory`."""
    data = tomllib.loads(text)
    categories = {name: _category(name, values) for name, values in data.pop("categories").items()}
    kept = {name: str(values["says"]) for name, values in data.pop("kept").items()}
    readers = {name: str(says) for name, says in data.pop("readers").items()}
    tables = {name: _holding(name, v, categories) for name, v in data.pop("tables").items()}
    messages = {name: _holding(name, v, categories) for name, v in data.pop("messages").items()}
    logs = _holding("logs", data.pop("logs"), categories)
    files = tuple(_file(values) for values in data.pop("files"))
    if data:
        raise ValueError(f"the inventory has {', '.join(data)}, which means nothing")
    said = [(item.name, item.kept, item.read) for item in tables.values()]
    for name, how_long, who in [*said, *((item.name, item.kept, item.read) for item in files)]:
        if how_long not in kept:
            raise ValueError(f"{name}: kept = {how_long!r} stands nowhere")
        for reader in who:
            if reader not in readers:
                raise ValueError(f"{name}: reader {reader!r} stands nowhere")
    for category in categories.values():
        if category.given == "nested" and category.of not in messages:
            raise ValueError(f"category {category.name}: there is no structure {category.of!r}")
    return Inventory(categories, kept, readers, tables, messages, logs, files)


def _category(name: str, values: Mapping[str, Any]) -> Category:
    if values["given"] not in get_args(Given):
        raise ValueError(f"category {name}: given = {values['given']!r}")
    if (values["given"] == "no") != bool(values.get("why")):
        raise ValueError(f"category {name}: why it is not given, or that it is")
    return Category(name, **{**values, "about": tuple(values["about"])})


def _holding(name: str, values: Mapping[str, Any], categories: Mapping[str, Category]) -> Holding:
    fields: dict[str, Category] = {}
    for key, names in values.items():
        if key in _OWN:
            continue
        if key not in categories:
            raise ValueError(f"{name}: there is no category {key!r}")
        for field in names:
            if field in fields:
                raise ValueError(f"{name}.{field} stands in two categories")
            fields[field] = categories[key]
    return Holding(
        name,
        fields,
        bool(values.get("given", False)),
        str(values.get("what", "")),
        str(values.get("kept", "")),
        tuple(values.get("read", ())),
    )


def _file(values: Mapping[str, Any]) -> FileKind:
    lists = ("patterns", "settings", "holds", "read", "written_by")
    fields: dict[str, Any] = {**values, **{key: tuple(values.get(key, ())) for key in lists}}
    return FileKind(**fields)
