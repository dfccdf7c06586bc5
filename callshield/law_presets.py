"""Presets of law: what a country or a trade demands of a node, as data (``callshield/law/*.toml``).

Documentation, not legal advice. A preset has *rules* (what is demanded, by which text, when that
was looked up, what enforces it here), *defaults* for keys that the operator did not set, *limits*
that no key may break, and *asks*: what the operator has to name because no default can know it.
Everything here is pure; :mod:`callshield.settings_law` applies it.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from callshield.errors import CallshieldError
from callshield.settings_base import SECTION

#: Where the presets lie.
FOLDER = Path(__file__).parent / "law"

_Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
#: Dotted; ``*`` stands for every entry of a table or a list.
_Key = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.([a-z0-9_]+|\*))*$")]
#: What a notice can tell the caller (``names`` of a prompt folder's ``manifest.toml``).
Named = Literal["analysis", "voice", "recording", "details"]


class _Part(BaseModel):
    model_config = SECTION


class Rule(_Part):
    """One rule, in a sentence, with its source and what holds it."""

    id: _Id
    kind: Literal["demands", "permits", "forbids", "chosen"]
    """``chosen``: no law says so, the product does."""
    says: str
    """The rule in one plain sentence."""
    source: str
    """Statute and article, or where else it comes from."""
    checked: datetime.date
    """When somebody looked it up."""
    read_in_original: bool
    """Whether that was the text itself rather than what others write of it."""
    looked_up: str
    """What was read."""
    settings: list[_Key] = []
    """Keys that the rule is about."""
    places: list[str] = []
    """Files that enforce it."""
    tests: list[str] = []
    """``file::test`` that would fail if it were not enforced."""
    operator: str = ""
    """What no software can do: the employer's own part."""

    @model_validator(mode="after")
    def _is_held(self) -> Rule:
        if bool(self.places) != bool(self.tests):
            raise ValueError(f"rule {self.id}: places and tests, both or none")
        if not (self.places or self.operator):
            raise ValueError(f"rule {self.id}: what enforces it, or what the operator has to do")
        return self


class Limit(_Part):
    """What a key may not be under the preset; exactly one of the conditions."""

    rule: _Id
    key: _Key
    why: str
    """Goes into the sentence that refuses the configuration."""
    equals: bool | str | None = None
    """A key that is left to something else (``None``) is in order, too."""
    empty: bool = False
    not_empty: bool = False
    not_one_of: list[str] = []
    at_least: float | None = None
    above: _Key | None = None
    """More than another key's value."""
    some: dict[str, str] = {}
    """At least one entry of the table has these values."""
    unless_off: _Key | None = None
    """The limit counts only while this switch is on."""

    @model_validator(mode="after")
    def _has_one_condition(self) -> Limit:
        given = [
            self.equals is not None,
            self.empty,
            self.not_empty,
            bool(self.not_one_of),
            self.at_least is not None,
            self.above is not None,
            bool(self.some),
        ]
        if sum(given) != 1:
            raise ValueError(f"the limit of {self.key}: exactly one condition")
        return self


class Ask(_Part):
    """What the operator has to name; ``callshield doctor`` complains while it is empty."""

    rule: _Id
    key: _Key
    what: str
    """What to write there."""
    unless_off: _Key | None = None


class Notice(_Part):
    """What the caller has to be told before anything is analysed."""

    rule: _Id
    names: list[Named] = ["analysis"]
    """What the notice names in every call that is analysed; always also what that is for."""
    details: bool = False
    """It says where to read more."""
    voice: bool = False
    """It says that the voice is judged, where ``detector.acoustic`` is on."""
    versions: dict[str, list[str]]
    """Shipped prompts that may make it up, with the versions whose texts were checked."""


class Preset(_Part):
    """One preset: a file of ``callshield/law/``."""

    id: _Id
    version: Annotated[str, Field(pattern=r"^[0-9]{1,4}$")]
    """Raised with every change of a rule, a default or a limit."""
    title: str
    country: Annotated[str, Field(pattern=r"^([A-Z]{2}|EU)$")]
    about: str
    notice: Notice
    defaults: dict[_Key, Any] = {}
    rules: Annotated[list[Rule], Field(min_length=1)]
    limits: list[Limit] = []
    asks: list[Ask] = []

    @model_validator(mode="after")
    def _fits_together(self) -> Preset:
        ids = [rule.id for rule in self.rules]
        if len(set(ids)) != len(ids):
            raise ValueError(f"{self.id}: each rule's id once")
        parts: list[Limit | Ask | Notice] = [self.notice, *self.limits, *self.asks]
        for named in [part.rule for part in parts]:
            if named not in ids:
                raise ValueError(f"{self.id}: there is no rule {named}")
        return self

    def rule(self, rule_id: str) -> Rule:
        """The rule of that id, which exists."""
        return next(rule for rule in self.rules if rule.id == rule_id)

    @property
    def checked(self) -> datetime.date:
        """The day on which the rule that was looked up longest ago was looked up."""
        return min(rule.checked for rule in self.rules)


def preset_ids() -> list[str]:
    """Ids of the presets that ship; a file whose name begins with ``_`` is a base of several."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.toml"))


@lru_cache
def load_preset(preset_id: str) -> Preset:
    """A preset by its id.

    Raises:
        CallshieldError: there is none of that name, or its file is damaged.
    """
    path = FOLDER / f"{preset_id}.toml"
    if preset_id not in preset_ids():
        raise CallshieldError(
            f"there is no preset {preset_id}: choose one of {', '.join(preset_ids())}"
        )
    try:
        found = Preset.model_validate(_read(path))
    except (OSError, ValueError) as error:
        raise CallshieldError(f"{path} cannot be used ({error}): install Callshield anew") from None
    if found.id != preset_id:
        raise CallshieldError(f"{path} holds the preset {found.id}: install Callshield anew")
    return found


def _read(path: Path) -> dict[str, Any]:
    """A file with what its ``base`` holds put before its own."""
    own = tomllib.loads(path.read_text(encoding="utf-8"))
    base = own.pop("base", None)
    if base is None:
        return own
    below = _read(path.parent / f"{base}.toml")
    for name, value in own.items():
        if isinstance(value, list):
            below[name] = [*below.get(name, []), *value]
        elif isinstance(value, dict):
            below[name] = {**below.get(name, {}), **value}
        else:
            below[name] = value
    return below


def values_of(settings: object, key: str) -> Iterator[tuple[str, Any]]:
    """Every value that a key with ``*`` stands for, as ``(key without *, value)``.

    Args:
        settings: the configuration, or a part of it.
        key: dotted; a table or list that is empty gives nothing.
    """
    yield from _values(settings, key.split("."), ())


def _values(found: Any, parts: list[str], before: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield ".".join(before), found
        return
    first, rest = parts[0], parts[1:]
    if first == "*":
        items = found.items() if isinstance(found, dict) else enumerate(found)
        for name, item in items:
            yield from _values(item, rest, (*before, str(name)))
        return
    yield from _values(getattr(found, first), rest, (*before, first))


def value_of(settings: object, key: str) -> Any:
    """The value of a key without ``*``."""
    return next(values_of(settings, key))[1]


#: Key, what was found there, and what the preset expects: a line of ``ConfigurationError``.
Fault = tuple[str, str, str]


def broken_limits(preset: Preset, settings: object) -> list[Fault]:
    """Where a configuration is what its preset forbids.

    Args:
        preset: in force.
        settings: the whole configuration, complete.
    """
    faults = []
    for limit in preset.limits:
        if limit.unless_off is not None and not value_of(settings, limit.unless_off):
            continue
        for key, value in values_of(settings, limit.key):
            expected = _expected(limit, value, settings)
            if expected:
                reason = f"under the preset {preset.id}: {limit.why} (rule {limit.rule})"
                faults.append((key, shown(value), f"{expected} {reason}"))
    return faults


def _expected(limit: Limit, value: Any, settings: object) -> str:
    """What was expected; empty where the value is within the limit."""
    if limit.equals is not None:
        return "" if value in (limit.equals, None) else shown(limit.equals)
    if limit.empty:
        return "nothing" if value else ""
    if limit.not_empty:
        return "" if value else "a value"
    if limit.not_one_of:
        return f"anything but {shown(value)}" if value in limit.not_one_of else ""
    if limit.at_least is not None:
        return "" if value >= limit.at_least else f"at least {limit.at_least:g}"
    if limit.above is not None:
        other = value_of(settings, limit.above)
        return "" if value > other else f"more than {limit.above} ({other:g})"
    for entry in value.values():
        if all(getattr(entry, name) == wanted for name, wanted in limit.some.items()):
            return ""
    wanted = " and ".join(f"{name} = {shown(one)}" for name, one in limit.some.items())
    return f"an entry with {wanted}"


def shown(value: Any) -> str:
    """A value as it would stand in the configuration."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return f"a table of {len(value)}" if value else "nothing"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return repr(value) if isinstance(value, str) else str(value)


def unanswered(preset: Preset, settings: object) -> list[Ask]:
    """What the operator still has to name."""
    return [
        ask
        for ask in preset.asks
        if not (ask.unless_off is not None and not value_of(settings, ask.unless_off))
        and not value_of(settings, ask.key)
    ]
