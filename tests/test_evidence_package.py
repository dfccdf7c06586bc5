"""A package is as it was signed, or ``verify`` says what is not: byte by byte, file by file."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callshield.errors import EvidenceBroken, EvidenceError
from notifier import evidence_manifest
from notifier.chain import GENESIS, link
from notifier.evidence_container import Source, read_container, stored_content, write_container
from notifier.evidence_key import (
    PublicKey,
    SigningKey,
    load_public_key,
    load_signing_key,
    make_signing_key,
)
from notifier.evidence_manifest import (
    EVENTS,
    FORMAT,
    MANIFEST,
    Chain,
    ChainedEvent,
    Manifest,
    describe,
    verify_package,
    write_package,
)
from notifier.sealed import seal
from tests.evidence_kit import evidence

CALL = "a" * 32
FILES = {
    "readme.txt": b"read report.pdf first\n",
    "report.pdf": b"%PDF-1.4 not a real one, but bytes " * 400,
    "recording.flac": bytes(range(256)) * 300,
    "transcript_redacted.json": '{"text": "제 번호는 [전화번호]입니다"}'.encode(),
}


def chained(count: int = 4) -> list[ChainedEvent]:
    """Events of one call, every second one with words, others between them."""
    found, previous = [], GENESIS
    for number in range(1, 2 * count, 2):
        body: dict[str, Any] = {"type": "risk.changed", "ts": 1.5 * number, "call_id": CALL}
        if number % 4 == 1:
            body["words"] = ["죽여버린다"]
        kept, words = seal(body)
        row: dict[str, Any] = {
            "id": number,
            "ts": body["ts"],
            "type": "risk.changed",
            "call_id": CALL,
            "agent_id": "1001",
            "body": msgspec.json.encode(kept).decode(),
        }
        row["hash"] = link(previous, row)
        found.append(ChainedEvent(**row, words=words, previous=previous))
        previous = link(row["hash"], {**row, "id": number + 1})
    return found


def made(
    folder: Path,
    key: SigningKey,
    files: dict[str, bytes] | None = None,
    events: list[ChainedEvent] | None = None,
    **changes: Any,
) -> Path:
    """A package."""
    rows = chained() if events is None else events
    told = dict(FILES if files is None else files)
    told[EVENTS] = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    sources = [Source(name, io.BytesIO(data)) for name, data in told.items()]
    manifest = Manifest(
        callshield_evidence=FORMAT,
        package_id="p" * 32,
        version="0.1.0",
        node="node-1",
        made_ts=1.0,
        made_at="1970-01-01T00:00:01.000+00:00",
        call_id=CALL,
        pbx_call_id="1763.7",
        agent_id="1001",
        request_id="r" * 32,
        requested_ts=0.5,
        approved_ts=0.7,
        approved_by="1a2b3c4d",
        exported_by="5e6f7a8b",
        exported_by_role="admin",
        unredacted=False,
        chain=Chain(head_id=99, head_hash="f" * 64, events=len(rows)),
        key_id=key.public.key_id,
        files=describe(sources),
    )
    out = folder / "package.zip"
    with out.open("wb") as file:
        write_package(file, msgspec.structs.replace(manifest, **changes), sources, key)
    return out


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return make_signing_key(tmp_path_factory.mktemp("keys") / "evidence.key")


@pytest.fixture
def package(tmp_path: Path, keys: SigningKey) -> Path:
    return made(tmp_path, keys)


def fault(path: Path, key: PublicKey) -> str:
    """What ``verify`` says, ``""`` when the package is whole."""
    try:
        verify_package(path, key)
    except EvidenceBroken as broken:
        return str(broken)
    return ""


# --------------------------------------------------------------------------------- the control


def test_a_package_is_whole_and_any_zip_program_opens_it(package: Path, keys: SigningKey) -> None:
    """The control of everything below: the same file, unchanged, passes."""
    checked = verify_package(package, keys.public)
    assert (checked.manifest.call_id, checked.events) == (CALL, 4)
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[:2] == [MANIFEST, "manifest.sig"]
        assert all(archive.read(name) == data for name, data in FILES.items())
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100600}
    assert subprocess.run(["unzip", "-tqq", package], check=False).returncode == 0


def test_the_same_files_make_the_same_bytes(tmp_path: Path, keys: SigningKey) -> None:
    one = made(tmp_path, keys, events=[]).read_bytes()
    assert made(tmp_path, keys, events=[]).read_bytes() == one


def test_openssl_and_sha256sum_check_it_without_callshield(
    package: Path, keys: SigningKey, tmp_path: Path
) -> None:
    pem = tmp_path / "node.pem"
    pem.write_text(keys.public.pem())
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path / "out")
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(pem), "-rawin"]
    words += ["-in", str(tmp_path / "out" / MANIFEST)]
    words += ["-sigfile", str(tmp_path / "out" / "manifest.sig")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    listed = json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]
    sums = "".join(f"{item['sha256']}  {item['name']}\n" for item in listed)
    done = subprocess.run(
        ["sha256sum", "-c", "--strict"], input=sums, text=True, cwd=tmp_path / "out", check=False
    )
    assert done.returncode == 0


# ------------------------------------------------------------------------------------ one byte


def test_a_hundred_random_one_byte_changes_are_all_found(
    package: Path, keys: SigningKey, tmp_path: Path
) -> None:
    whole, chance = package.read_bytes(), random.Random(20261122)
    changed = tmp_path / "changed.zip"
    said: dict[str, int] = {}
    for _ in range(100):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        changed.write_bytes(data)
        found = fault(changed, keys.public)
        assert found, "a change that nobody saw"
        said[found] = said.get(found, 0) + 1
    assert any("recording.flac is not the file that was signed" in sentence for sentence in said)
    changed.write_bytes(whole)
    assert fault(changed, keys.public) == "", "the control: the bytes as they were"


def test_every_byte_of_the_structure_the_manifest_and_the_signature_counts(
    package: Path, keys: SigningKey, tmp_path: Path
) -> None:
    """Not by chance: each byte that is not inside one of the large files, and both its edges."""
    whole = package.read_bytes()
    with package.open("rb") as file:
        stored = read_container(file)
    inside: set[int] = set()
    for item in stored:
        if item.name in ("report.pdf", "recording.flac"):
            inside |= set(range(item.offset + 2, item.offset + item.size - 2))
    changed = tmp_path / "changed.zip"
    places = [at for at in range(len(whole)) if at not in inside]
    assert len(places) > 3000
    for at in places:
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        changed.write_bytes(data)
        assert fault(changed, keys.public), at


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("report.pdf", "report.pdf is not the file that was signed"),
        (MANIFEST, "manifest.json or manifest.sig was changed"),
        ("manifest.sig", "manifest.json or manifest.sig was changed"),
        (EVENTS, "events.jsonl is not the file that was signed"),
    ],
)
def test_the_first_thing_that_does_not_hold_is_named(
    package: Path, keys: SigningKey, tmp_path: Path, where: str, sentence: str
) -> None:
    with package.open("rb") as file:
        item = next(item for item in read_container(file) if item.name == where)
    data = bytearray(package.read_bytes())
    data[item.offset + item.size // 2] ^= 1
    package.write_bytes(data)
    assert sentence in fault(package, keys.public)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_mixture_of_bytes_passes_or_breaks_the_checker(data: st.DataObject) -> None:
    """Cut, doubled, zeroed, exchanged: a fault in a sentence, never another exception."""
    folder = _here()
    key = load_signing_key(folder / "k")
    whole = (folder / "package.zip").read_bytes()
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    how = data.draw(st.sampled_from(["cut", "double", "zero", "reverse"]))
    piece = whole[first:second]
    new = {"cut": b"", "double": piece * 2, "zero": bytes(len(piece)), "reverse": piece[::-1]}[how]
    mixed = whole[:first] + new + whole[second:]
    path = folder / "mixed.zip"
    path.write_bytes(mixed)
    assert bool(fault(path, key.public)) == (mixed != whole)


_FOLDER: list[Path] = []


def _here() -> Path:
    """One package for all examples."""
    if not _FOLDER:
        import tempfile

        folder = Path(tempfile.mkdtemp())
        made(folder, make_signing_key(folder / "k"), {"readme.txt": b"x" * 200})
        _FOLDER.append(folder)
    return _FOLDER[0]


@pytest.fixture(scope="module", autouse=True)
def _sweep() -> Any:
    yield
    for folder in _FOLDER:
        shutil.rmtree(folder)


# ---------------------------------------------------------------------------------- whole files


def rezip(package: Path, method: int) -> None:
    with zipfile.ZipFile(package) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(package, "w", method) as archive:
        for name, data in found.items():
            archive.writestr(name, data)


def with_zip(package: Path) -> None:
    """Unpacked and packed again by the usual program, without compression, in order."""
    folder = package.parent / "again"
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
        archive.extractall(folder)
    package.unlink()
    subprocess.run(["zip", "-0Xq", package, *names], cwd=folder, check=True)


def rebuild(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Path], None]:
    """The same kind of container round other files."""

    def work(package: Path) -> None:
        with package.open("rb") as file:
            found = {
                item.name: b"".join(stored_content(file, item)) for item in read_container(file)
            }
        with package.open("wb") as out:
            sources = [Source(name, io.BytesIO(data)) for name, data in change(found).items()]
            write_container(out, sources)

    return work


def swapped(files: dict[str, bytes]) -> dict[str, bytes]:
    one, other = files["report.pdf"], files["recording.flac"]
    return {**files, "report.pdf": other, "recording.flac": one}


def without(name: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def comment(package: Path) -> None:
    with zipfile.ZipFile(package, "a") as archive:
        archive.comment = b"hello"


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        (rebuild(swapped), "report.pdf is not the file that was signed"),
        (
            rebuild(lambda files: {**files, "recording.flac": b"another call"}),
            "recording.flac is not the file that was signed",
        ),
        (rebuild(without("recording.flac")), "recording.flac is missing"),
        (
            rebuild(lambda files: {**files, "more.txt": b"and this"}),
            "more.txt was put into the package after it was signed",
        ),
        (
            rebuild(lambda files: dict([*list(files.items())[:2], *list(files.items())[:1:-1]])),
            "the order changed",
        ),
        (rebuild(without("manifest.sig")), "does not begin with"),
        (lambda package: rezip(package, zipfile.ZIP_STORED), "the archive is not as"),
        (lambda package: rezip(package, zipfile.ZIP_DEFLATED), "the archive is not as"),
        (with_zip, "the archive is not as"),
        (comment, "the archive is not as"),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "it goes on after its end"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "the archive is not as"),
        (lambda p: p.write_bytes(p.read_bytes()[:40]), "the archive is not as"),
        (lambda p: p.write_bytes(b""), "it breaks off at its beginning"),
        (lambda p: p.write_bytes(b"\x89PNG not a package at all" * 9), "the archive is not as"),
    ],
)
def test_a_package_that_was_put_together_anew_is_found(
    package: Path, keys: SigningKey, attack: Callable[[Path], object], sentence: str
) -> None:
    attack(package)
    assert sentence in fault(package, keys.public)


def test_another_nodes_key_is_found_whatever_the_package_says_of_itself(
    tmp_path: Path, keys: SigningKey
) -> None:
    other = make_signing_key(tmp_path / "other.key")
    theirs = made(tmp_path, other)
    assert fault(theirs, other.public) == ""
    said = fault(theirs, keys.public)
    assert "not signed by this key" in said
    assert other.public.key_id[:16] in said
    # A forger who names the honest key, but has only his own.
    forged = made(tmp_path, other, key_id=keys.public.key_id)
    assert "the signature does not hold" in fault(forged, keys.public)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda row: msgspec.structs.replace(row, agent_id="1002"), "event 3 in events.jsonl is"),
        (lambda row: msgspec.structs.replace(row, previous="0" * 64), "not the one that the node"),
        (lambda row: msgspec.structs.replace(row, ts=row.ts + 1), "not the one that the node"),
        (lambda row: msgspec.structs.replace(row, id=1), "not in the order of the chain"),
        (
            lambda row: msgspec.structs.replace(row, words='{"salt":"","values":[]}'),
            "has other words than the node chained",
        ),
    ],
)
def test_events_that_do_not_hang_in_the_chain_are_found_even_signed(
    tmp_path: Path,
    keys: SigningKey,
    change: Callable[[ChainedEvent], ChainedEvent],
    sentence: str,
) -> None:
    """Somebody with the signing key, but without the chain."""
    rows = chained()
    rows[1] = change(rows[1])
    assert sentence in fault(made(tmp_path, keys, events=rows), keys.public)


def test_an_event_less_than_the_manifest_counts_is_found(tmp_path: Path, keys: SigningKey) -> None:
    chain = Chain(head_id=99, head_hash="f" * 64, events=5)
    assert "does not hold the events" in fault(made(tmp_path, keys, chain=chain), keys.public)
    late = Chain(head_id=3, head_hash="f" * 64, events=4)
    assert "does not hold the events" in fault(made(tmp_path, keys, chain=late), keys.public)


# --------------------------------------------------------------------------- container and keys


def test_a_container_refuses_names_and_sizes_that_it_cannot_hold(tmp_path: Path) -> None:
    for names in (["a", "a"], ["../x"], ["A"], ["a b"], [""], ["x" * 65]):
        with pytest.raises(ValueError, match="each name once"):
            write_container(io.BytesIO(), [Source(name, io.BytesIO()) for name in names])


def test_a_directory_that_lies_about_an_offset_is_found(package: Path, keys: SigningKey) -> None:
    data = bytearray(package.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 42
    (offset,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, offset + 1)
    package.write_bytes(data)
    assert "its directory" in fault(package, keys.public)


def test_keys_are_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "evidence.key"
    key = make_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_signing_key(path).public.key_id == key.public.key_id
    with pytest.raises(EvidenceError, match="is there already"):
        make_signing_key(path)
    path.chmod(0o644)
    with pytest.raises(EvidenceError, match="chmod 600"):
        load_signing_key(path)
    path.chmod(0o600)
    with pytest.raises(EvidenceError, match="is a private key"):
        load_public_key(path)
    path.write_text("nothing")
    with pytest.raises(EvidenceError, match="holds no Ed25519 key"):
        load_signing_key(path)
    with pytest.raises(EvidenceError, match="holds no Ed25519 public key"):
        load_public_key(path)
    with pytest.raises(EvidenceError, match="evidence key"):
        load_signing_key(tmp_path / "none")


def test_rsa_is_no_ed25519(tmp_path: Path) -> None:
    path = tmp_path / "rsa.pem"
    words = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]
    subprocess.run([*words, "-out", str(path)], check=True, capture_output=True)
    path.chmod(0o600)
    with pytest.raises(EvidenceError, match="holds no Ed25519 key"):
        load_signing_key(path)
    public = tmp_path / "rsa.pub"
    subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-out", public], check=True)
    with pytest.raises(EvidenceError, match="holds no Ed25519 public key"):
        load_public_key(public)


def test_the_command_says_it_in_a_sentence_and_a_status(
    package: Path, keys: SigningKey, tmp_path: Path
) -> None:
    pem = tmp_path / "node.pem"
    pem.write_text(keys.public.pem())
    words = ("verify", str(package), "--public-key", str(pem))
    good = evidence(None, *words)
    assert (good.returncode, good.stderr) == (0, "")
    assert "as it was signed" in good.stdout
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 4
    package.write_bytes(data)
    bad = evidence(None, *words)
    assert bad.returncode == 1
    assert "NOT as it was signed: recording.flac is not" in bad.stdout
    told = json.loads(evidence(None, *words, "--json").stdout)
    assert told["ok"] is False
    assert "recording.flac" in told["fault"]
    gone = evidence(None, "verify", str(tmp_path / "none.zip"), "--public-key", str(pem))
    assert gone.returncode == 2
    assert "cannot be read" in gone.stderr


def test_the_checks_are_what_finds_it(
    package: Path, keys: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with the comparison of SHA-256 out of the way the change is not seen."""
    data = bytearray(package.read_bytes())
    with package.open("rb") as file:
        item = next(item for item in read_container(file) if item.name == "recording.flac")
    data[item.offset + 9] ^= 1
    package.write_bytes(data)
    assert fault(package, keys.public)
    monkeypatch.setattr(evidence_manifest, "_check_files", lambda *_: None)
    assert fault(package, keys.public) == ""
