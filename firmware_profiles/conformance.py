"""What in a phone's configuration would fail silently, and what to do about it.

Offline, against an exported or a written configuration file; pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace

from callshield.errors import SetupError
from callshield.findings import Finding, note, ok, problem
from firmware_profiles.catalogue import Catalogue
from firmware_profiles.reading import formats_of, read
from firmware_profiles.rendering import Values, settings_of
from firmware_profiles.schema import Format, Profile, Setting
from firmware_profiles.token_check import calls_us, without_tokens
from firmware_profiles.writing import Entry

#: What a site decides: without its configuration there is nothing to compare with.
_SITE = re.compile(
    r"\{(us|proxy|proxy_in_uri|proxy_port|user|agent|transport|transport_word|srtp|srtp_word"
    r"|end_code|help_code|end_url|help_url|register|register_word|register_true|register_s)\}"
)
#: In a list of addresses these mean everybody.
_EVERYBODY = {"any", "*", "0.0.0.0", "*.*.*.*", "all", "0.0.0.0/0"}


def recognise(catalogue: Catalogue, raw: bytes) -> Profile:
    """The family whose keys a file has the most of.

    Raises:
        SetupError: it has none, or two families' as many; name the model.
    """
    scores: dict[str, int] = {}
    fits: set[Format] = set(formats_of(raw))
    for profile in catalogue.phones.values():
        if profile.provisioning.format not in fits or profile.kind == "generic":
            continue
        try:
            found = read(profile.provisioning.format, raw)
        except SetupError:
            continue
        # Settings of a family have few names in common with others' but many among themselves.
        patterns = [_loose(setting) for setting in profile.setting]
        scores[profile.id] = sum(
            any(pattern.fullmatch(key) for key in found) for pattern in patterns
        )
    best = max(scores.values(), default=0)
    leaders = sorted(name for name, score in scores.items() if score == best)
    if best == 0:
        raise SetupError(
            "the file is of no phone known here (encrypted, perhaps?): name the model by --model"
        )
    if len(leaders) > 1:
        raise SetupError(f"the file could be of {' or '.join(leaders)}: name one by --model")
    return catalogue.phones[leaders[0]]


def check_file(profile: Profile, values: Values | None, raw: bytes) -> list[Finding]:
    """Every trap of the family against one file.

    Args:
        profile: the phone's family.
        values: of the agent's phone; ``None``: what only holds for one address is not compared.
        raw: the file.

    Raises:
        SetupError: the file cannot be read.
    """
    return check(profile, values, read(profile.provisioning.format, raw))


def check(profile: Profile, values: Values | None, found: Mapping[str, str]) -> list[Finding]:
    """Every trap of the family against its settings."""
    guess = values or Values(agent="", user="", proxy="", proxy_port=5060, us="")
    if not guess.authentication_url:
        # What is only written when it is known is looked for all the same.
        guess = replace(guess, authentication_url="http://callshield.invalid/")
    # A key may send the code or call us: which of the two is seen.
    by_url = calls_us(found)
    if by_url and values is None:
        guess = replace(guess, end_url="http://callshield.invalid/", help_url="http://x.invalid/")
    guess = replace(guess, keys="url" if by_url else "dtmf")
    if profile.provisioning.format == "colon":
        found = {key.lower(): value for key, value in found.items()}
    findings = [
        _judge(setting, entry, values, found)
        for setting, entry in settings_of(profile, guess)
        if setting.trap
    ]
    findings += [
        note(
            hand.where,
            "no key of it is known, so a file cannot show it",
            f"look there that it is {_shown(hand.value, values)}: otherwise {hand.trap}",
        )
        for hand in profile.by_hand
    ]
    return findings


def _shown(template: str, values: Values | None) -> str:
    return template.replace("{us}", values.us if values else "Callshield's address")


def _judge(
    setting: Setting, entry: Entry, values: Values | None, found: Mapping[str, str]
) -> Finding:
    key = entry.key
    value = found.get(key)
    if value is None:
        return _absent(setting, entry, values)
    shown = "(a secret)" if setting.secret else repr(without_tokens(value)[:60])
    wrong = _wrong(setting, entry, values, value)
    if wrong:
        return problem(key, f"{shown}: {setting.trap}", wrong)
    if setting.rule == "lists_us" and set(_items(value)) & _EVERYBODY:
        return note(key, f"{shown} lets everybody in", "name Callshield's address instead")
    return ok(key, shown)


def _absent(setting: Setting, entry: Entry, values: Values | None) -> Finding:
    if setting.absent == "fine" or setting.rule == "empty":
        return ok(entry.key, "not in the file; the phone's default is right")
    wanted = _wanted(setting, entry, values)
    if setting.absent == "unknown":
        return note(
            entry.key,
            f"not in the file, and defaults differ: perhaps {setting.trap}",
            f"write {wanted}",
        )
    return problem(entry.key, f"not in the file: {setting.trap}", f"write {wanted}")


def _wanted(setting: Setting, entry: Entry, values: Values | None) -> str:
    if setting.secret or setting.rule == "filled":
        return f"a value for {entry.key}"
    if setting.rule == "one_of":
        return f"{entry.key} = {' or '.join(setting.allowed)}"
    if setting.rule == "empty":
        return f"nothing into {entry.key}"
    if setting.rule == "lists_us" or _SITE.search(setting.value):
        place = "what `callshield profiles render` writes" if values is None else entry.value
        return f"{entry.key} = {place}"
    if setting.when == "key_url":
        return f"what `callshield profiles render` writes into {entry.key}"
    return f"{entry.key} = {entry.value}"


def _wrong(setting: Setting, entry: Entry, values: Values | None, value: str) -> str:
    """What to do; empty when the value is right."""
    wanted = f"write {_wanted(setting, entry, values)}"
    match setting.rule:
        case "filled":
            return "" if value else wanted
        case "empty":
            return wanted if value else ""
        case "one_of":
            return "" if value.lower() in (text.lower() for text in setting.allowed) else wanted
        case "lists_us":
            return "" if _lists(value, values.us if values else "") else wanted
        case _:
            if values is None and _SITE.search(setting.value):
                return "" if value else wanted
            return "" if _plain(value) == _plain(entry.value or "") else wanted


def _plain(value: str) -> str:
    return re.sub(r"\s*([,;])\s*", r"\1", value.strip()).lower()


def _items(value: str) -> list[str]:
    return [item for item in re.split(r"[\s,;]+", value.lower()) if item]


def _lists(value: str, us: str) -> bool:
    items = _items(value)
    if not us:
        return bool(items)
    for item in items:
        if item in _EVERYBODY or item == us.lower():
            return True
        # Yealink writes 10.10.*.* for a network.
        parts = item.split(".")
        ours = us.split(".")
        if len(parts) == len(ours) == 4 and all(
            part in ("*", our) for part, our in zip(parts, ours, strict=True)
        ):
            return True
        try:
            if ipaddress.ip_address(us) in ipaddress.ip_network(item, strict=False):
                return True
        except ValueError:
            continue
    return False


def _loose(setting: Setting) -> re.Pattern[str]:
    """The key with any codec and place in it, and any of its slots."""
    if setting.slots:
        return re.compile("|".join(re.escape(slot) for slot in setting.slots))
    parts = re.split(r"\{[a-z_]+\}", setting.key)
    return re.compile("[A-Za-z0-9_.-]+".join(re.escape(part) for part in parts))
