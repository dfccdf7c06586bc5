"""Packages that only their recipient can open: age (age-encryption.org/v1).

To a recipient's public key (X25519, or an ssh key), or by a password, which age stretches with
scrypt (RFC 7914) at a cost of about a second and a gibibyte. The standard program ``age`` opens
both; so does ``callshield evidence decrypt``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import pyrage

from callshield.errors import EvidenceError

#: A password that is guessed in an afternoon protects nothing.
MIN_PASSWORD = 12


@dataclass(frozen=True, slots=True)
class Seal:
    """How a package is encrypted."""

    recipients: Sequence[Any] = ()
    password: str = ""

    @property
    def kind(self) -> Literal["none", "age", "password"]:
        """For the record."""
        if self.password:
            return "password"
        return "age" if self.recipients else "none"


def seal_to(recipients: Sequence[str]) -> Seal:
    """A seal that each of these opens.

    Raises:
        EvidenceError: one is no recipient.
    """
    found: list[Any] = []
    for text in recipients:
        kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
        try:
            found.append(kind.Recipient.from_str(text))
        except pyrage.RecipientError:
            raise EvidenceError(
                f"{text[:20]}… is no age recipient: it begins with age1 (`age-keygen -y` shows it) "
                "or is an ssh-ed25519 or ssh-rsa public key"
            ) from None
    return Seal(found)


def seal_by(password: str) -> Seal:
    """A seal that a password opens.

    Raises:
        EvidenceError: the password is too short.
    """
    if len(password) < MIN_PASSWORD:
        raise EvidenceError(
            f"the password has fewer than {MIN_PASSWORD} characters: take some random words"
        )
    return Seal(password=password)


def encrypt(plain: IO[bytes], out: IO[bytes], seal: Seal) -> None:
    """Encrypt a whole file.

    Raises:
        OSError: ``out`` cannot be written.
    """
    plain.seek(0)
    if seal.password:
        out.write(pyrage.passphrase.encrypt(plain.read(), seal.password))
        return
    pyrage.encrypt_io(plain, out, list(seal.recipients))


def decrypt(data: bytes, *, identities: Sequence[str] = (), password: str = "") -> bytes:
    """Open a sealed package.

    Args:
        data: the whole file.
        identities: ``AGE-SECRET-KEY-1…``, or the text of a private ssh key.
        password: in place of identities.

    Raises:
        EvidenceError: it does not open by these, or is no such file.
    """
    try:
        if password:
            return bytes(pyrage.passphrase.decrypt(data, password))
        found = [_identity(text) for text in identities]
        return bytes(pyrage.decrypt(data, found))
    except (pyrage.DecryptError, ValueError):
        raise EvidenceError(
            "the file does not open: another key or password sealed it, or it was changed, or it "
            "is not encrypted"
        ) from None


def _identity(text: str) -> Any:
    try:
        if text.startswith("AGE-SECRET-KEY-"):
            return pyrage.x25519.Identity.from_str(text)
        return pyrage.ssh.Identity.from_buffer(text.encode())
    except (pyrage.IdentityError, ValueError):
        raise EvidenceError(
            "the identity file holds no age identity (AGE-SECRET-KEY-1…) and no private ssh key "
            "without a password"
        ) from None
