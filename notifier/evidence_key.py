"""The node's signing key for evidence packages: Ed25519 (RFC 8032).

The private half lies in one file of mode 0600 (PKCS #8, PEM). The public half
(SubjectPublicKeyInfo, PEM: RFC 8410) is what whoever checks a package must have got from this node
beforehand, on paper or through somebody whom he trusts: a key that comes with the package proves
nothing.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from callshield.errors import EvidenceError
from callshield.private_file import read_private

SIGNATURE_BYTES = 64
_MAX_PEM_BYTES = 4096


class PublicKey:
    """The half that checks.

    Args:
        key: of ``cryptography``.
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> str:
        """SHA-256 of the 32 bytes, hexadecimal: for comparing by eye or on paper."""
        return hashlib.sha256(self.raw).hexdigest()

    def pem(self) -> str:
        """As a file that openssl reads, too."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        """True when the other half signed exactly this."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """The half that signs.

    Args:
        key: of ``cryptography``.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)


def load_signing_key(path: Path) -> SigningKey:
    """The node's key.

    Raises:
        EvidenceError: there is none, it lies open to others, or it is no such key.
    """
    pem = read_private(
        path,
        "evidence.key_file",
        EvidenceError,
        missing=f"there is no signing key {path}: `callshield evidence key` makes one; "
        "give its public half to whoever will check packages",
        max_bytes=_MAX_PEM_BYTES,
    )
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise EvidenceError(
            f"{path} holds no Ed25519 key without a password: restore your copy of it, or name "
            "another evidence.key_file and let `callshield evidence key` make a new one"
        )
    return SigningKey(key)


def make_signing_key(path: Path) -> SigningKey:
    """A new key in a new file of mode 0600.

    Raises:
        EvidenceError: the file is there, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
        made = True
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise EvidenceError(f"{path} is there already: a signing key is never replaced") from None
    except OSError as error:
        if made:
            path.unlink(missing_ok=True)
        raise EvidenceError(f"{path} cannot be written: {error.strerror}") from None
    return SigningKey(key)


def load_public_key(path: Path) -> PublicKey:
    """A public key from a file that ``callshield evidence key --out`` wrote.

    Raises:
        EvidenceError: it cannot be read, or is no such key.
    """
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise EvidenceError(f"the public key {path} cannot be read: {error.strerror}") from None
    if b"PRIVATE KEY" in pem:
        raise EvidenceError(
            f"{path} is a private key, which nobody but the node should have: give the file that "
            "`callshield evidence key --out FILE` writes"
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise EvidenceError(
            f"{path} holds no Ed25519 public key: give the file that `callshield evidence key "
            "--out FILE` wrote on the node"
        )
    return PublicKey(key)
