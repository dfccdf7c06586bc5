"""A caller's number as a keyed hash: what may be kept of somebody who was ended, and for how long
is :mod:`notifier.ringback`'s to say. Pure but for reading the key file.

The number is brought to its E.164 form first, so that ``010-1234-5678`` and ``+82 10 1234 5678``
are one caller. What is no subscriber's number is no mark: withheld, anonymous, an extension, or on
the configured list (relay services, switchboards).

Mark: HMAC-SHA256 (RFC 2104) under a key of 32 random bytes. Without the key a mark says nothing;
with it anybody can try all numbers of a country in minutes, because there are so few
(docs/ringback.md).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from callshield.errors import SetupError
from callshield.key_lines import new_key, read_keys, write_keys
from callshield.settings_fairness import RingbackSettings

#: Keys in one file: the current one and those before it.
MAX_KEYS = 4
_CONTEXT = b"callshield ringback v1\0"
_SEPARATORS = re.compile(r"[ ().\-]")
_NUMBER = re.compile(r"\+?[0-9]{3,32}")
_E164 = re.compile(r"\+[1-9][0-9]{7,14}")


def e164(number: str, settings: RingbackSettings) -> str:
    """A number in E.164 form (``+`` and 8 to 15 digits), or ``""`` where it is none.

    Args:
        number: as the network showed it.
        settings: country code and prefixes.
    """
    plain = _SEPARATORS.sub("", number)
    if not _NUMBER.fullmatch(plain):
        return ""
    country, national = settings.country_code, settings.national_prefix
    if not plain.startswith("+"):
        plain = _with_country(plain, settings)
    if national and plain.startswith(f"+{country}{national}"):
        # "+82 010 …": the prefix is not part of an international number, but is often left in.
        plain = f"+{country}" + plain[1 + len(country) + len(national) :]
    return plain if _E164.fullmatch(plain) else ""


def _with_country(plain: str, settings: RingbackSettings) -> str:
    country, national = settings.country_code, settings.national_prefix
    for prefix in sorted(settings.international_prefixes, key=len, reverse=True):
        if plain.startswith(prefix):
            return "+" + plain[len(prefix) :]
    if national and plain.startswith(national):
        return f"+{country}" + plain[len(national) :]
    if plain.startswith(country) and len(plain) >= 11:
        return "+" + plain  # some trunks leave the plus away
    return "" if national else f"+{country}{plain}"


def is_never_marked(number: str, settings: RingbackSettings) -> bool:
    """True for a number in E.164 form that ``ringback.never`` names."""
    for entry in settings.never:
        wanted = _SEPARATORS.sub("", entry)
        begins = wanted.endswith("*")
        wanted = wanted.removesuffix("*")
        if not wanted.startswith("+"):
            wanted = _with_country(wanted, settings)
        if wanted and (number.startswith(wanted) if begins else number == wanted):
            return True
    return False


def mark_of(number: str, key: bytes) -> str:
    """The mark of a number in E.164 form, 64 hexadecimal digits."""
    return hmac.new(key, _CONTEXT + number.encode("ascii"), hashlib.sha256).hexdigest()


def key_id(key: bytes) -> str:
    """Names a key without telling it: 8 hexadecimal digits."""
    return hashlib.sha256(b"callshield ringback key\0" + key).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class MarkKeys:
    """The keys of a node; the first one makes marks, all of them find some."""

    keys: tuple[bytes, ...]

    def mark(self, number: str) -> tuple[str, str]:
        """Mark and key id of a number in E.164 form, by the current key."""
        return mark_of(number, self.keys[0]), key_id(self.keys[0])

    def marks(self, number: str) -> list[str]:
        """The marks that a number in E.164 form may have been given, newest key first."""
        return [mark_of(number, key) for key in self.keys]


def load_mark_keys(path: Path) -> MarkKeys:
    """Read the key file.

    Raises:
        SetupError: it is missing, open to others, or holds no keys; the message does not quote it.
    """
    missing = f"there is no ringback.key_file {path}: `callshield ringback new-key` writes it"
    return MarkKeys(read_keys(path, "ringback.key_file", MAX_KEYS, missing))


def write_new_key(path: Path, *, keep_old: bool) -> str:
    """Put a new key first into the key file; all or nothing.

    Args:
        path: the key file.
        keep_old: the file is there: its keys stay behind the new one, so that marks made by them
            are found until they expire.

    Returns:
        The new key's id.

    Raises:
        SetupError: the file is there and should not be, the other way round, or cannot be written.
    """
    if path.exists() and not keep_old:
        raise SetupError(
            f"{path} is there already: add --rotate to put a new key before the old ones"
        )
    old = load_mark_keys(path).keys if keep_old else ()
    key = new_key()
    write_keys(path, "ringback.key_file", (key, *old)[:MAX_KEYS])
    return key_id(key)
