"""All profiles, read and checked as a whole: a fault names file, key, found and expected."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from callshield.errors import ConfigurationError
from firmware_profiles.patterns import both_match, compile_pattern
from firmware_profiles.schema import HeadsetProfile, Profile

#: A profile is a page or two.
_LARGEST_BYTES = 200_000
_Kind = TypeVar("_Kind", bound=BaseModel)
_Fault = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every family, by id."""

    phones: Mapping[str, Profile]
    headsets: Mapping[str, HeadsetProfile]

    @property
    def generic(self) -> Profile:
        """For a phone that nothing else fits."""
        return next(profile for profile in self.phones.values() if profile.kind == "generic")


@cache
def shipped() -> Catalogue:
    """The profiles that come with Callshield.

    Raises:
        ConfigurationError: one of them is broken.
    """
    return load(files("firmware_profiles"))


def load(folder: Traversable | Path) -> Catalogue:
    """Read ``folder/*.toml`` and ``folder/headsets/*.toml``.

    Raises:
        ConfigurationError: every fault of every file.
    """
    faults: list[_Fault] = []
    phones = _read(folder, Profile, faults)
    headsets = _read(folder / "headsets", HeadsetProfile, faults)
    if not faults:
        faults = [*_same_ids(phones), *_same_ids(headsets), *_overlaps(phones)]
    generic = [name for name, profile in phones if profile.kind == "generic"]
    if not faults and len(generic) != 1:
        found = ", ".join(generic) or "none"
        faults = [(str(folder), "kind", found, 'one profile with kind = "generic"')]
    if faults:
        raise ConfigurationError(faults)
    return Catalogue(
        {profile.id: profile for _, profile in phones},
        {profile.id: profile for _, profile in headsets},
    )


def _read(folder: Traversable, model: type[_Kind], faults: list[_Fault]) -> list[tuple[str, _Kind]]:
    found: list[tuple[str, _Kind]] = []
    if not folder.is_dir():
        return found
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if not file.name.endswith(".toml"):
            continue
        try:
            raw = file.read_bytes()
            if len(raw) > _LARGEST_BYTES:
                raise ValueError(f"more than {_LARGEST_BYTES} bytes")
            values: dict[str, Any] = tomllib.loads(raw.decode("utf-8"))
        except (OSError, ValueError) as error:
            faults.append((file.name, "(file)", str(error), "a profile in TOML, UTF-8"))
            continue
        try:
            found.append((file.name, model.model_validate(values)))
        except ValidationError as error:
            faults += [_fault(file.name, dict(item)) for item in error.errors(include_url=False)]
    return found


def _fault(file: str, item: dict[str, Any]) -> _Fault:
    key = ".".join(str(part) for part in item["loc"]) or "(file)"
    kind = str(item["type"])
    if kind == "missing":
        return file, key, "nothing", "a value"
    found = "a table" if isinstance(item["input"], dict | BaseModel) else repr(item["input"])[:80]
    if kind == "extra_forbidden":
        return file, key, found, "a known key (firmware_profiles/schema.py lists them)"
    if kind == "value_error":
        return file, key, found, str((item.get("ctx") or {}).get("error", item["msg"]))
    return file, key, found, str(item["msg"]).removeprefix("Input should be ")


def _same_ids(profiles: list[tuple[str, Any]]) -> list[_Fault]:
    seen: dict[str, str] = {}
    faults = []
    for file, profile in profiles:
        if profile.id in seen:
            faults.append(
                (file, "id", repr(profile.id), f"an id unlike that of {seen[profile.id]}")
            )
        seen[profile.id] = file
    return faults


def _overlaps(profiles: list[tuple[str, Profile]]) -> list[_Fault]:
    """Two families that would both claim a User-Agent, neither more specific than the other."""
    faults = []
    known = [
        (file, place, profile, compile_pattern(agent.pattern))
        for file, profile in profiles
        for place, agent in enumerate(profile.user_agent)
    ]
    for index, (file, place, profile, pattern) in enumerate(known):
        for other_file, other_place, other, other_pattern in known[:index]:
            if profile is other:
                clash = pattern.tokens == other_pattern.tokens
            else:
                clash = (
                    pattern.specificity == other_pattern.specificity
                    and profile.firmware.overlaps(other.firmware)
                    and both_match(pattern, other_pattern)
                )
            if clash:
                faults.append(
                    (
                        file,
                        f"user_agent.{place}.pattern",
                        repr(pattern.text),
                        f"a pattern that does not overlap user_agent.{other_place} "
                        f"{other_pattern.text!r} of {other_file}",
                    )
                )
    return faults
