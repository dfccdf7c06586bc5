"""``callshield edge``: Kamailio in front of several nodes, set up and looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from callshield import edge_rpc
from callshield.edge_files import (
    RTPENGINE,
    SCRIPT,
    SITE,
    EdgeError,
    edge_files,
    require_edge,
    rtpengine_file,
)
from callshield.edge_users import (
    KAMAILIO_USER,
    change_user,
    give_to_kamailio,
    make_location_database,
    new_password,
    read_users,
    write_users,
)
from callshield.private_file import read_private
from callshield.settings import Settings, load_settings

edge_app = typer.Typer(
    help="Kamailio and rtpengine in front of several nodes.", no_args_is_help=True
)
Config = Annotated[Path, typer.Option(help="The configuration that has the table [edge] (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")
#: Who wrote a file: anything else is kept aside before it is replaced.
_OURS = ("callshield edge render",)
#: Seconds that Kamailio may take to read its own configuration.
_CHECK_S = 30


@edge_app.command("render")
def edge_render(
    config: Config = DEFAULT_CONFIG,
    into: Annotated[Path, typer.Option(help="Kamailio's folder.")] = Path("/etc/kamailio"),
    rtpengine_into: Annotated[
        Path, typer.Option(help="rtpengine's folder; used where [edge.websocket] is on.")
    ] = Path("/etc/rtpengine"),
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Let Kamailio itself read it first.")
    ] = True,
) -> None:
    """Write Kamailio's and rtpengine's files; nothing is changed unless Kamailio can read them."""
    settings = load_settings(config)
    edge = require_edge(settings)
    users = read_users(edge)
    if check:
        check_files(settings)
    changed = write_files(edge_files(settings, into), into)
    if edge.uses_rtpengine:
        media = {RTPENGINE: rtpengine_file(settings)}
        changed += write_files(media, rtpengine_into, private=False)
    write_users(edge, users)
    make_location_database(edge)
    print(f"{into}: {', '.join(changed) if changed else 'nothing changed'}; {len(users)} users")
    if any(name in changed for name in (SCRIPT, SITE)):
        print("now: systemctl restart kamailio   (phones register again, calls go on)")
    elif changed:
        print("now: callshield edge reload   (calls go on)")
    if RTPENGINE in changed:
        print(
            "and: systemctl restart rtpengine-daemon   (calls of browser phones lose their sound)"
        )


@edge_app.command("reload")
def edge_reload(config: Config = DEFAULT_CONFIG) -> None:
    """Let a running Kamailio read nodes, addresses and certificates again."""
    edge = require_edge(load_settings(config))
    print(f"done: {', '.join(edge_rpc.reload(edge))}")


@edge_app.command("status")
def edge_status(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show which nodes take calls, and how many phones are registered; status 1 if no node does."""
    edge = require_edge(load_settings(config))
    nodes, phones = edge_rpc.node_states(edge), edge_rpc.registered(edge)
    if as_json:
        print(json.dumps({"nodes": [asdict(node) for node in nodes], "registered": phones}))
    else:
        for node in nodes:
            word = "takes calls" if node.takes_calls else "takes none (draining, or gone)"
            print(f"{node.name}  {node.uri}  {word}  {node.latency_ms:.1f} ms")
        print(f"{phones} phones registered")
    raise typer.Exit(0 if any(node.takes_calls for node in nodes) else 1)


@edge_app.command("password")
def edge_password(
    user: Annotated[str, typer.Argument(help="User of the phone: the agent's id.")],
    config: Config = DEFAULT_CONFIG,
    password_file: Annotated[
        Path | None, typer.Option(help="Take this one (a line, mode 0600), print none.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let that phone in no more.")] = False,
) -> None:
    """Give a phone a password, and print it this once."""
    edge = require_edge(load_settings(config))
    if remove:
        change_user(edge, user, None)
        print(f"{user} has no password any more")
        return
    if password_file is not None:
        given = read_private(password_file, "--password-file", EdgeError).strip("\r\n")
        if not given or "\n" in given:
            raise EdgeError(f"{password_file}: the password on one line")
        change_user(edge, user, given)
        print(f"{user} has the password of {password_file}")
        return
    password = new_password()
    change_user(edge, user, password)
    print(password)


def check_files(settings: Settings) -> None:
    """Let Kamailio read what would be rendered (``kamailio -c``).

    Raises:
        EdgeError: there is no Kamailio, or it cannot read it; with what it says.
    """
    kamailio = shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin")
    if kamailio is None:
        raise EdgeError(
            "there is no kamailio to check the files with: install kamailio, kamailio-tls-modules, "
            "kamailio-websocket-modules and kamailio-sqlite-modules, or say --no-check"
        )
    with tempfile.TemporaryDirectory(prefix="callshield-edge-") as name:
        folder = Path(name)
        for file, text in edge_files(settings, folder).items():
            (folder / file).write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [kamailio, "-c", "-E", "-f", str(folder / SCRIPT)],
                capture_output=True,
                text=True,
                timeout=_CHECK_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EdgeError(f"kamailio -c took longer than {_CHECK_S} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line or "CRITICAL" in line]
        raise EdgeError("Kamailio cannot read its files: " + "; ".join(said[:5] or ["(no reason)"]))


def write_files(files: dict[str, str], folder: Path, *, private: bool = True) -> list[str]:
    """Write what differs, each file whole or not at all; the names of those.

    Raises:
        EdgeError: the folder cannot be written.
    """
    changed = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
            if before == text:
                continue
            if before is not None and not any(mark in before for mark in _OURS):
                path.replace(path.with_name(f"{name}.before-callshield"))
            new = path.with_name(f".{name}.{os.getpid()}")
            new.write_text(text, encoding="utf-8")
            new.chmod(0o640 if private else 0o644)
            if private:
                give_to_kamailio(new)
            new.replace(path)
            changed.append(name)
    except OSError as error:
        raise EdgeError(
            f"{folder} cannot be written ({error.strerror}): run this as root, or name a folder of "
            f"{KAMAILIO_USER} with --into"
        ) from None
    return changed
