"""Which family a User-Agent means: the most specific pattern wins, and it is said why."""

from __future__ import annotations

import re
from dataclasses import dataclass

from firmware_profiles.catalogue import Catalogue
from firmware_profiles.patterns import compile_pattern
from firmware_profiles.schema import Profile, version

_NUMBERS = re.compile(r"(?<![0-9A-Za-z])[vV]?(\d+(?:\.\d+){1,5})(?![0-9])")
#: A User-Agent is no longer than this here.
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Match:
    """What was found.

    Attributes:
        model: the family's name of the model; empty when it does not say.
        firmware: as the phone wrote it; empty when it did not.
        reason: a sentence.
    """

    profile: Profile
    model: str
    firmware: str
    reason: str


def match(catalogue: Catalogue, text: str) -> Match:
    """The family of a User-Agent, or of a model's name as an operator writes it.

    Never fails: what nobody claims is the generic profile.
    """
    text = "".join(character for character in text if character.isprintable())[:_LONGEST].strip()
    if not text:
        return Match(catalogue.generic, "", "", "nothing is known of the phone")
    claims = sorted(
        (
            (pattern.specificity, agent.kind == "sip", profile, pattern.text)
            for profile in catalogue.phones.values()
            for agent in profile.user_agent
            if (pattern := compile_pattern(agent.pattern)).matches(text)
        ),
        key=lambda claim: (claim[0], claim[1], claim[2].id),
        reverse=True,
    )
    refused = ""
    for _, _, profile, pattern_text in claims:
        firmware = _firmware(text)
        outside = _outside(profile, firmware)
        if outside:
            refused = refused or outside
            continue
        rest = len({claim[2].id for claim in claims} - {profile.id})
        reason = f"the User-Agent matches {pattern_text!r}"
        if rest:
            reason += f", the most specific of {rest + 1} families that claim it"
        return Match(profile, _model(profile, text), firmware, reason)
    if refused:
        return Match(catalogue.generic, "", _firmware(text), refused)
    return _by_name(catalogue, text)


def _by_name(catalogue: Catalogue, text: str) -> Match:
    """``agents.ID.phone_model`` may be just a model: ``T46S``, ``VVX 450``, ``yealink-t4x``."""
    plain = _plain(text)
    if text.lower() in catalogue.phones:
        return Match(catalogue.phones[text.lower()], "", "", "the name is the profile's id")
    found = {
        (profile.id, model)
        for profile in catalogue.phones.values()
        for model in profile.models
        if plain in (_plain(model), _plain(f"{profile.vendor} {model}"))
    }
    if len({profile_id for profile_id, _ in found}) == 1:
        profile_id, model = min(found)
        profile = catalogue.phones[profile_id]
        return Match(profile, model, "", f"{model} is a model of {profile.name}")
    if found:
        names = ", ".join(sorted(profile_id for profile_id, _ in found))
        return Match(catalogue.generic, "", "", f"several families have that model: {names}")
    return Match(
        catalogue.generic, "", _firmware(text), "no profile's pattern or model fits this text"
    )


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _model(profile: Profile, text: str) -> str:
    plain = _plain(text)
    named = [model for model in profile.models if _plain(model) in plain]
    return max(named, key=lambda model: (len(_plain(model)), model), default="")


def _firmware(text: str) -> str:
    found = _NUMBERS.search(text)
    return found[1] if found else ""


def _outside(profile: Profile, firmware: str) -> str:
    """Why this firmware is none of the profile's; empty when it is, or is not told."""
    if not firmware:
        return ""
    numbers = version(firmware)[profile.firmware.skip :]
    if not numbers or profile.firmware.holds(numbers):
        return ""
    shown = ".".join(str(number) for number in numbers)
    wanted = f"{profile.firmware.min or 'any'} to {profile.firmware.max or 'any'}"
    return f"{profile.name} would fit, but its firmware {shown} is outside {wanted}"
