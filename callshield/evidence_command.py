"""``callshield evidence``: packages for court, police or a grievance body, and what checks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callshield.errors import EvidenceBroken, EvidenceError
from callshield.settings import load_settings

if TYPE_CHECKING:
    from notifier.evidence_manifest import Chain
    from notifier.evidence_seal import Seal

evidence_app = typer.Typer(help="Evidence packages of calls.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_MAX_SECRET_BYTES = 64 * 1024
#: A package as it may be opened in memory; larger ones are for the program age.
_MAX_SEALED_BYTES = 4 << 30


@evidence_app.command("key")
def evidence_key(
    out: Annotated[Path | None, typer.Option(help="Write the public key (PEM) here.")] = None,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Show the node's signing key, and make one where there is none.

    Whoever will check packages needs its public half from you, not from a package: give it away on
    paper or in person, or compare its id.
    """
    from notifier.evidence_key import load_signing_key, make_signing_key

    path = load_settings(config).evidence.key_file
    made = not path.exists()
    public = (make_signing_key(path) if made else load_signing_key(path)).public
    if out is not None:
        try:
            out.write_text(public.pem(), encoding="ascii")
        except OSError as error:
            raise EvidenceError(f"{out} cannot be written: {error.strerror}") from None
    if as_json:
        print(json.dumps({"key_id": public.key_id, "public_key": public.pem(), "made": made}))
        return
    print(f"{path}: {'made. Keep a copy elsewhere' if made else 'the signing key'}")
    print(f"key id {public.key_id}")
    print(public.pem(), end="")


@evidence_app.command("export")
def evidence_export(
    call_id: Annotated[str, typer.Argument(help="Whose evidence its agent asked for.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The package (.zip, or .zip.age).")],
    unredacted: Annotated[
        bool, typer.Option("--unredacted", help="With a transcript that keeps numbers, too.")
    ] = False,
    encrypt_to: Annotated[
        list[str] | None,
        typer.Option(help="age recipient (age1…) or ssh public key who opens it; several."),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password that opens it, mode 0600.")
    ] = None,
    recording: Annotated[
        bool, typer.Option("--recording/--no-recording", help="Without: the rest alone.")
    ] = True,
    transcript: Annotated[
        bool, typer.Option("--transcript/--no-transcript", help="Without: sooner made.")
    ] = True,
    lang: Annotated[str, typer.Option(help="Of the report: ko, en, zh or ja.")] = "",
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Your token, mode 0600; else $CALLSHIELD_TOKEN.")
    ] = None,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Make the package of a call whose agent asked for it, once somebody approved that.

    The call must have ended and the node must run: it records who opened the call and which package
    was made, and tells the agent.
    """
    from rich.console import Console
    from rich.progress import Progress

    from callshield.evidence_export import Wish, export_evidence
    from callshield.notifier_request import own_token
    from notifier.evidence_texts import LANGUAGES

    if lang and lang not in LANGUAGES:
        raise EvidenceError(f"--lang: one of {', '.join(LANGUAGES)}, not {lang!r}")
    settings = load_settings(config)
    wish = Wish(
        call_id=call_id,
        out=out,
        token=own_token(token_file),
        seal=_seal(encrypt_to or [], password_file),
        unredacted=unredacted,
        recording=recording,
        transcript=transcript,
        language=lang,
        overwrite=overwrite,
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("opening", total=1.0)

        def told(phase: str, done: float) -> None:
            bar.update(task, description=phase, completed=done)

        made = export_evidence(settings, wish, told)
    if as_json:
        about = {"package_id": made.package_id, "sha256": made.sha256, "key_id": made.key_id}
        print(json.dumps({"file": str(out), **about, "files": made.files}))
        return
    print(f"{out}: {', '.join(made.files)}")
    print(f"package {made.package_id}, sha256 {made.sha256}")
    print(f"signed by key {made.key_id}")
    if made.why_no_transcript == "no_model":
        print("without a transcript: there is no speech model on this node (./run setup)")
    if wish.seal.kind != "none":
        print("encrypted: `callshield evidence decrypt`, or the program age, opens it")


def _seal(recipients: list[str], password_file: Path | None) -> Seal:
    from callshield.private_file import read_private
    from notifier.evidence_seal import Seal, seal_by, seal_to

    if recipients and password_file is not None:
        raise EvidenceError("encrypt to recipients or by a password, not both")
    if password_file is not None:
        password = read_private(password_file, "the password file", EvidenceError)
        return seal_by(password.rstrip("\r\n"))
    return seal_to(recipients) if recipients else Seal()


@evidence_app.command("verify")
def evidence_verify(
    file: Annotated[Path, typer.Argument(help="The package.")],
    public_key: Annotated[
        Path, typer.Option(help="The node's public key, as `evidence key --out` wrote it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check every byte of a package; needs no node, no configuration and no network.

    Exit status 1, and the first thing that does not hold, when it is not as it was signed.
    """
    from notifier.evidence_key import load_public_key
    from notifier.evidence_manifest import verify_package

    key = load_public_key(public_key)
    try:
        checked = verify_package(file, key)
    except EvidenceBroken as fault:
        if as_json:
            print(json.dumps({"ok": False, "fault": str(fault)}, ensure_ascii=False))
        else:
            print(f"{file}: NOT as it was signed: {fault}")
        raise typer.Exit(1) from None
    about = checked.manifest
    if as_json:
        found = {"ok": True, "package_id": about.package_id, "sha256": checked.sha256}
        more = {"call_id": about.call_id, "key_id": about.key_id, "made_at": about.made_at}
        print(json.dumps({**found, **more, "chain_head": _head(about.chain)}))
        return
    print(f"{file}: as it was signed, every byte of {len(about.files) + 2} files")
    print(f"package {about.package_id} of call {about.call_id}, made at {about.made_at}")
    print(f"signed by key {key.key_id}")
    print(
        f"{checked.events} events, each with its place in the node's chain, whose head was "
        f"{_head(about.chain)}: `callshield audit verify --head` on the node checks that"
    )


def _head(chain: Chain) -> str:
    return f"{chain.head_id}:{chain.head_hash}"


@evidence_app.command("decrypt")
def evidence_decrypt(
    file: Annotated[Path, typer.Argument(help="An encrypted package.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The package (.zip).")],
    identity_file: Annotated[
        Path | None, typer.Option(help="Your age identity or private ssh key, mode 0600.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password, mode 0600.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Open an encrypted package; the program age does the same."""
    from callshield.private_file import read_private
    from callshield.whole_file import WholeFile
    from notifier.evidence_seal import decrypt

    if (identity_file is None) == (password_file is None):
        raise EvidenceError("give --identity-file or --password-file")
    secret = read_private(
        identity_file or password_file or Path(),
        "the identity file" if identity_file else "the password file",
        EvidenceError,
        max_bytes=_MAX_SECRET_BYTES,
    )
    try:
        with file.open("rb") as sealed:
            data = sealed.read(_MAX_SEALED_BYTES)
    except OSError as error:
        raise EvidenceError(f"{file} cannot be read: {error.strerror}") from None
    plain = (
        decrypt(data, identities=_identities(secret))
        if identity_file
        else decrypt(data, password=secret.rstrip("\r\n"))
    )
    with WholeFile(out, EvidenceError, overwrite=overwrite) as target:
        try:
            target.file.write(plain)
        except OSError as failure:
            raise target.failed(failure) from None
        target.keep()
    print(f"{out}: opened; `callshield evidence verify` checks it")


def _identities(text: str) -> list[str]:
    """One a line as age writes them, with comments; or one ssh key of many lines."""
    if "PRIVATE KEY" in text:
        return [text]
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
