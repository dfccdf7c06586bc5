"""What an evidence package says of itself: every file's SHA-256, signed.

``manifest.json`` is the first file of a package and ``manifest.sig`` the second: the Ed25519
signature over exactly the bytes of the first, so that a package can be checked without Callshield,
too (``openssl pkeyutl -verify``, ``sha256sum``: docs/evidence.md).
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from callshield.errors import EvidenceBroken, EvidenceError
from notifier.chain import Head, link
from notifier.evidence_container import (
    Source,
    Stored,
    check_crc,
    content,
    read_container,
    stored_content,
    write_container,
)
from notifier.evidence_key import SIGNATURE_BYTES, PublicKey, SigningKey
from notifier.sealed import COMMITMENT, commits_to

FORMAT = 1
MANIFEST, SIGNATURE, EVENTS = "manifest.json", "manifest.sig", "events.jsonl"
_MAX_MANIFEST_BYTES = 1 << 20
_AGE = b"age-encryption.org/v1"


class PackagedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a package."""

    name: str
    size: int
    sha256: str


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The node's hash chain at the moment of the export (docs/store.md)."""

    head_id: int
    head_hash: str
    events: int
    """Of the call, in ``events.jsonl``."""


class ChainedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``events.jsonl``: an event as the store holds it."""

    id: int
    ts: float
    type: str
    call_id: str
    agent_id: str | None
    body: str
    """Exactly the text that is in the chain; quotations are not in it but a hash of them."""
    words: str | None
    """The quotations, redacted, with their salt; None: there were none, or they were deleted."""
    hash: str
    previous: str
    """Hash of the event before it, of whichever call."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``."""

    callshield_evidence: int
    """Version of this format."""
    package_id: str
    version: str
    """Of Callshield."""
    node: str
    made_ts: float
    made_at: str
    """The same in UTC (ISO 8601)."""
    call_id: str
    pbx_call_id: str
    """By which the PBX knows the caller's number; none is kept here."""
    agent_id: str
    request_id: str
    requested_ts: float
    approved_ts: float
    approved_by: str
    """Token id."""
    exported_by: str
    """Token id."""
    exported_by_role: str
    unredacted: bool
    """A transcript with numbers and addresses in it is among the files."""
    chain: Chain
    key_id: str
    """SHA-256 of the public key that signs this."""
    files: list[PackagedFile]
    """All but this one and its signature, in their order."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A package that is as it was signed."""

    manifest: Manifest
    sha256: str
    """Of the whole package."""
    events: int
    """Whose place in the chain was recomputed."""


def describe(sources: Sequence[Source]) -> list[PackagedFile]:
    """What a manifest says of its files."""
    found = []
    for source in sources:
        digest, size = hashlib.sha256(), 0
        for block in content(source.file):
            digest.update(block)
            size += len(block)
        found.append(PackagedFile(name=source.name, size=size, sha256=digest.hexdigest()))
    return found


def write_package(
    out: IO[bytes], manifest: Manifest, sources: Sequence[Source], key: SigningKey
) -> str:
    """Sign and write a package.

    Args:
        out: empty.
        manifest: about ``sources``.
        sources: the files, as :func:`describe` took them.
        key: of the node.

    Returns:
        SHA-256 of the manifest.

    Raises:
        EvidenceError: it would be too large.
        OSError: ``out`` cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    head = [
        Source(MANIFEST, io.BytesIO(data)),
        Source(SIGNATURE, io.BytesIO(key.sign(data))),
    ]
    write_container(out, [*head, *sources])
    return hashlib.sha256(data).hexdigest()


def verify_package(path: Path, key: PublicKey) -> Checked:
    """Check every byte of a package; needs nothing but the file and the node's public key.

    In this order: the archive's own structure, the signature, each file by its SHA-256 in the
    archive's order, the links of the call's events.

    Raises:
        EvidenceBroken: the first thing that does not hold, in a sentence.
        EvidenceError: the file cannot be read, or is encrypted.
    """
    try:
        with path.open("rb") as file:
            return _verify(file, key)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}") from None


def _verify(file: IO[bytes], key: PublicKey) -> Checked:
    if file.read(len(_AGE)) == _AGE:
        raise EvidenceError(
            "the package is encrypted: open it first with `callshield evidence decrypt`, or with "
            "the program age"
        )
    stored = read_container(file)
    if [item.name for item in stored[:2]] != [MANIFEST, SIGNATURE]:
        raise EvidenceBroken(f"the package does not begin with {MANIFEST} and {SIGNATURE}")
    manifest = _check_signature(file, stored, key)
    _check_files(file, stored, manifest)
    events = _check_events(file, stored, manifest)
    whole = hashlib.sha256()
    for block in content(file):
        whole.update(block)
    return Checked(manifest, whole.hexdigest(), events)


def _check_signature(file: IO[bytes], stored: Sequence[Stored], key: PublicKey) -> Manifest:
    about, signed = stored[:2]
    if about.size > _MAX_MANIFEST_BYTES or signed.size != SIGNATURE_BYTES:
        raise EvidenceBroken(f"{MANIFEST} or {SIGNATURE} is not of the size that it must have")
    data = b"".join(stored_content(file, about))
    signature = b"".join(stored_content(file, signed))
    if not key.is_signature(signature, data):
        raise EvidenceBroken(_why_not(data, key))
    for item, found in ((about, data), (signed, signature)):
        check_crc(item, zlib.crc32(found))
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError:
        manifest = None
    if manifest is None or manifest.callshield_evidence != FORMAT:
        raise EvidenceBroken(
            f"the signature of {MANIFEST} holds, but this version of Callshield does not know its "
            "format: check the package with the version that made it"
        )
    return manifest


def _why_not(data: bytes, key: PublicKey) -> str:
    """Another node's key, or a manifest that was changed: as far as it can be told."""
    try:
        named = str(msgspec.json.decode(data, type=dict[str, object]).get("key_id", ""))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        named = ""
    if named and named != key.key_id:
        return (
            f"the package is not signed by this key: it says that the key {named[:16]}… signed it, "
            f"and the public key that was given is {key.key_id[:16]}…"
        )
    return f"{MANIFEST} or {SIGNATURE} was changed: the signature does not hold"


def _check_files(file: IO[bytes], stored: Sequence[Stored], manifest: Manifest) -> None:
    held = {item.name: item for item in stored[2:]}
    named = {item.name: item for item in manifest.files}
    for name in named:
        if name not in held:
            raise EvidenceBroken(f"{name} is missing from the package")
    for name in held:
        if name not in named:
            raise EvidenceBroken(f"{name} was put into the package after it was signed")
    for said, item in zip(manifest.files, stored[2:], strict=True):
        if said.name != item.name:
            raise EvidenceBroken(f"{item.name} stands where {said.name} stood: the order changed")
        digest, crc = hashlib.sha256(), 0
        for block in stored_content(file, item):
            digest.update(block)
            crc = zlib.crc32(block, crc)
        if item.size != said.size or digest.hexdigest() != said.sha256:
            raise EvidenceBroken(
                f"{item.name} is not the file that was signed: its SHA-256 or its size differs"
            )
        check_crc(item, crc)


def _check_events(file: IO[bytes], stored: Sequence[Stored], manifest: Manifest) -> int:
    """Every event's hash follows from itself and the hash before it; words fit what was chained."""
    item = next((item for item in stored if item.name == EVENTS), None)
    if item is None:
        return 0
    try:
        lines = b"".join(stored_content(file, item)).splitlines()
        rows = [msgspec.json.decode(line, type=ChainedEvent) for line in lines]
    except msgspec.MsgspecError:
        raise EvidenceBroken(f"{EVENTS} holds something else than events") from None
    last = Head(0, "")
    for row in rows:
        if row.id <= last.last_id:
            raise EvidenceBroken(f"event {row.id} in {EVENTS} is not in the order of the chain")
        fault = _fault_of(row, last)
        if fault:
            raise EvidenceBroken(f"event {row.id} in {EVENTS} {fault}")
        last = Head(row.id, row.hash)
    chain = manifest.chain
    if len(rows) != chain.events or last.last_id > chain.head_id:
        raise EvidenceBroken(f"{EVENTS} does not hold the events that {MANIFEST} names")
    if last.last_id == chain.head_id and last.hash != chain.head_hash:
        raise EvidenceBroken(f"event {last.last_id} in {EVENTS} is not the head of the chain")
    return len(rows)


def _fault_of(row: ChainedEvent, before: Head) -> str:
    if link(row.previous, msgspec.structs.asdict(row)) != row.hash:
        return "is not the one that the node chained"
    if before.last_id and row.id == before.last_id + 1 and row.previous != before.hash:
        return "does not follow on the one before it"
    if row.words is None:
        return ""
    commitment = msgspec.json.decode(row.body).get(COMMITMENT) if COMMITMENT in row.body else None
    if not isinstance(commitment, str) or not commits_to(commitment, row.words):
        return "has other words than the node chained"
    return ""
