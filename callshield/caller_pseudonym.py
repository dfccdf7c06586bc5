"""A caller's number as a pseudonym: calls are found again by number, and no number is stored.

HMAC-SHA256 (RFC 2104) of the number in E.164 form, under a key of 32 random bytes in a file beside
the database, not in it: GDPR art. 4(5) calls that a pseudonym (not read in the original; the
additional information is the key, kept apart). Who has both can try all numbers of a country in
minutes, because there are so few of them; docs/privacy.md says what that means for backups.

The marks of :mod:`callshield.caller_mark` are something else, made by another key in another file:
of callers who were ended by a person, told to the next agent, gone after weeks. Neither can be
found from the other.

A number that somebody promised to call back is encrypted (AES-256-GCM, NIST SP 800-38D) under a
key that is derived from the same one, and bound to its call.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from callshield.caller_mark import e164, is_never_marked
from callshield.errors import CallshieldError, SetupError
from callshield.key_lines import new_key, read_keys, write_keys
from callshield.settings import Settings

#: Keys in one file: the current one and those before it, by which older calls are found.
MAX_KEYS = 16
_WHAT = "privacy.key_file"
_HASH = b"callshield caller v1\0"
_NAME = b"callshield caller key\0"
_SEAL = b"callshield caller number v1\0"
_NONCE_BYTES = 12


def key_id(key: bytes) -> str:
    """Names a key without telling it: 8 hexadecimal digits."""
    return hashlib.sha256(_NAME + key).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class CallerKeys:
    """The keys of a node; the first one makes pseudonyms, all of them find some."""

    keys: tuple[bytes, ...]

    def pseudonym(self, number: str) -> tuple[str, str]:
        """Pseudonym (64 hexadecimal digits) and key id of a number in E.164 form."""
        return _hash(number, self.keys[0]), key_id(self.keys[0])

    def pseudonyms(self, number: str) -> list[str]:
        """Those that a number in E.164 form may have been given, newest key first."""
        return [_hash(number, key) for key in self.keys]

    def ids(self) -> list[str]:
        """Ids of the keys, newest first."""
        return [key_id(key) for key in self.keys]

    def seal(self, number: str, call_id: str) -> str:
        """Encrypt a number for whoever calls back; it opens for this call alone."""
        key, nonce = self.keys[0], os.urandom(_NONCE_BYTES)
        box = AESGCM(hmac.digest(key, _SEAL, "sha256"))
        sealed = nonce + box.encrypt(nonce, number.encode("ascii"), call_id.encode("ascii"))
        return f"{key_id(key)}.{base64.urlsafe_b64encode(sealed).decode('ascii')}"

    def open(self, sealed: str, call_id: str) -> str:
        """The number.

        Raises:
            CallshieldError: its key is gone, it is another call's, or it was changed.
        """
        name, _, text = sealed.partition(".")
        for key in self.keys:
            if key_id(key) != name:
                continue
            try:
                data = base64.urlsafe_b64decode(text)
                box = AESGCM(hmac.digest(key, _SEAL, "sha256"))
                plain = box.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], call_id.encode())
            except (InvalidTag, ValueError, binascii.Error):
                break
            return plain.decode("ascii")
        raise CallshieldError(
            "the number of this call-back cannot be read: its key is not in the key file any "
            "more, or it was changed; the PBX knows the number by its own id of the call"
        )


def _hash(number: str, key: bytes) -> str:
    return hmac.new(key, _HASH + number.encode("ascii"), hashlib.sha256).hexdigest()


def caller_number(shown: str, settings: Settings) -> str:
    """The number by which a caller is found again, in E.164 form; ``""`` where there is none:
    withheld, an extension, or the number of many (``ringback.never``, relay services).

    Args:
        shown: as the network showed it, or as a person wrote it.
        settings: the node's configuration.
    """
    number = e164(shown, settings.ringback)
    if not number or is_never_marked(number, settings.ringback):
        return ""
    shared = settings.ringback.model_copy(update={"never": settings.callers.relay_services})
    return "" if is_never_marked(number, shared) else number


def load_caller_keys(path: Path, *, make: bool = True) -> CallerKeys:
    """The node's keys; where there are none yet, they are made.

    Raises:
        SetupError: the file cannot be read or made, is open to others, or holds no keys.
    """
    if make and not os.path.lexists(path):
        write_keys(path, _WHAT, [new_key()], replace=False)
    missing = f"there is no {_WHAT} {path}: start the node once, which makes it"
    return CallerKeys(read_keys(path, _WHAT, MAX_KEYS, missing))


def rotate_caller_keys(path: Path) -> str:
    """Put a new key before those that are there; a running node uses it from the next call on.

    Returns:
        The new key's id.

    Raises:
        SetupError: the file cannot be used, or is full: forget old keys first.
    """
    old = load_caller_keys(path, make=False).keys
    if len(old) >= MAX_KEYS:
        raise SetupError(
            f"{path} holds {MAX_KEYS} keys already: --forget-unused takes those away that no "
            "stored call needs"
        )
    key = new_key()
    write_keys(path, _WHAT, [key, *old])
    return key_id(key)


def forget_caller_keys(path: Path, needed: frozenset[str]) -> list[str]:
    """Take keys away; the current one stays.

    Args:
        path: the key file.
        needed: ids of keys that stay.

    Returns:
        Ids of those that went: what they made is found by no number any more.
    """
    keys = load_caller_keys(path, make=False).keys
    kept = [keys[0], *(key for key in keys[1:] if key_id(key) in needed)]
    gone = [key_id(key) for key in keys if key not in kept]
    if gone:
        write_keys(path, _WHAT, kept)
    return gone
