"""The ``callshield`` command."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from callshield import __version__
from callshield.errors import CallshieldError
from callshield.pbx_command import pbx_app
from callshield.recordings import recordings_app
from callshield.settings import load_settings

app = typer.Typer(
    help="Protects call-centre agents from abusive callers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Measure this machine.", no_args_is_help=True)
token_app = typer.Typer(help="Access to the consoles and the API.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(token_app, name="token")
app.add_typer(recordings_app, name="recordings")
app.add_typer(pbx_app, name="pbx")

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")


class RoleName(StrEnum):
    """Roles of a token."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"
    ADMIN = "admin"


class LanguageName(StrEnum):
    """Languages of prompts, consoles and words."""

    KO = "ko"
    EN = "en"
    ZH = "zh"
    JA = "ja"


def _version(value: bool) -> None:
    if value:
        print(f"callshield {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    return


@app.command()
def serve(config: Config = DEFAULT_CONFIG) -> None:
    """Run a node until SIGTERM; a second SIGTERM ends it at once."""
    import uvloop

    from callshield.logs import configure_logs
    from callshield.serve import serve as run

    settings = load_settings(config)
    configure_logs("supervisor", level=settings.node.log_level)
    uvloop.run(run(settings, config))


@app.command()
def demo(
    headless: Annotated[
        bool, typer.Option(help="Run the script once and exit; status 0 if all of it happened.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    language: Annotated[LanguageName, typer.Option(help="Of notice and consoles.")] = (
        LanguageName.KO
    ),
) -> None:
    """Watch one real call being protected, on this machine alone."""
    from callshield.demo import run_demo

    raise typer.Exit(run_demo(headless=headless, as_json=as_json, language=language.value))


@app.command()
def doctor(
    config: Config = DEFAULT_CONFIG,
    pbx: Annotated[
        bool, typer.Option("--pbx", help="Ask each PBX instead, and call its echo extension.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check configuration, ports, model, prompts and pjsua2; exit status 1 if anything is wrong."""
    from callshield.doctor_report import Report

    settings = load_settings(config)
    report = Report(as_json=as_json)
    if pbx:
        from callshield.doctor_pbx import examine_pbx
        from callshield.logs import configure_logs

        # What matters comes as a finding; standard output is the report's alone.
        configure_logs("doctor", level="error")
        examine_pbx(settings, report.show)
    else:
        from callshield.doctor import examine

        for finding in examine(settings):
            report.show(finding)
    raise typer.Exit(report.finish())


@app.command()
def analyze(
    files: Annotated[list[Path], typer.Argument(help="WAV or FLAC files, any rate.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a file.")] = False,
    lang: Annotated[
        LanguageName | None, typer.Option(help="Language of the words (unused without ASR).")
    ] = None,
    asr: Annotated[bool, typer.Option("--asr/--no-asr", help="Transcribe words.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 1,
    model_dir: Annotated[Path | None, typer.Option(help="Another acoustic model.")] = None,
) -> None:
    """Run recordings through the same pipeline as a live call."""
    from detectors.analyze import analyze_paths

    if asr:
        raise CallshieldError("this version has no transcriber yet: leave out --asr")
    failed = False
    for result in analyze_paths(files, jobs=jobs, model_dir=model_dir):
        failed = failed or "error" in result
        if as_json:
            print(json.dumps(result, ensure_ascii=False), flush=True)
        elif "error" in result:
            print(f"{result['file']}: {result['error']}", file=sys.stderr)
        else:
            print(
                f"{result['file']}: level {result['level']}, vocal effort "
                f"{result['acoustic']:.2f}, {result['duration_s']:.1f} s"
            )
    raise typer.Exit(1 if failed else 0)


@bench_app.command("relay")
def bench_relay(
    calls: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    seconds: Annotated[float, typer.Option(min=1, max=3600)] = 20,
    tap: Annotated[bool, typer.Option("--tap/--no-tap", help="With a real tap reader.")] = True,
    record: Annotated[bool, typer.Option("--record", help="With the recorder on.")] = False,
    srtp: Annotated[bool, typer.Option("--srtp", help="SRTP on the agents' legs.")] = False,
    ear: Annotated[
        bool, typer.Option("--ear", help="Softening and levelling, besides the limiter.")
    ] = False,
    histogram: Annotated[
        Path | None, typer.Option(help="Draw the latencies (.png), or write them (.json).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the media worker, and rtpengine beside it where that is installed."""
    from sipbridge.bench_relay import Load
    from sipbridge.bench_show import run

    load = Load(calls, seconds, tap, record, srtp, ear, histogram is not None)
    raise typer.Exit(run(load, as_json=as_json, histogram=histogram))


@bench_app.command("table")
def bench_table(
    calls: Annotated[
        list[int] | None, typer.Option(min=1, max=1000, help="Several; 100, 300, 600 if none.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600)] = 10,
    out: Annotated[Path | None, typer.Option(help="A file for the table.")] = None,
) -> None:
    """Measure with tap and recorder on and off, as a table in Markdown; about six minutes."""
    from sipbridge.bench_show import run_table

    raise typer.Exit(run_table(calls or [100, 300, 600], seconds, out))


@bench_app.command("stall")
def bench_stall(
    calls: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    seconds: Annotated[float, typer.Option(min=0.5, max=60)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let the media worker's Python stand still under load, and see what the calls notice."""
    from sipbridge.bench_stall import run

    raise typer.Exit(run(calls, seconds, as_json=as_json))


@bench_app.command("faults")
def bench_faults(
    calls: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Before, and after.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Kill detector and notifier of a whole node under load, and see what the calls notice."""
    from callshield.bench_faults import run

    raise typer.Exit(run(calls, seconds, as_json=as_json))


@token_app.command("create")
def token_create(
    role: Annotated[RoleName, typer.Option()],
    name: Annotated[str, typer.Option(help="Whose it is; kept in the store only.")],
    agent: Annotated[str, typer.Option(help="Agent id, for --role agent.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print a new token; it is shown this once and stored as a hash."""
    from notifier.tokens import create_token

    print(create_token(load_settings(config), role.value, name, agent or None))


@token_app.command("list")
def token_list(config: Config = DEFAULT_CONFIG) -> None:
    """List all tokens, newest first, without their secrets."""
    from rich.table import Table

    from notifier.tokens import list_tokens

    table = Table("id", "role", "agent", "name", "expires", "revoked")
    for row in list_tokens(load_settings(config)):
        expires = datetime.fromtimestamp(row["expires_ts"], UTC).strftime("%Y-%m-%d")
        revoked = "yes" if row.get("revoked_ts") else ""
        table.add_row(row["token_id"], row["role"], row["agent_id"], row["name"], expires, revoked)
    Console().print(table)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(help="The id that `token list` shows.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Make a token useless from now on."""
    from notifier.tokens import revoke_token

    if not revoke_token(load_settings(config), token_id):
        raise CallshieldError(f"there is no token {token_id}: see `callshield token list`")
    print(f"{token_id} is revoked")


def main() -> None:
    """Entry point: errors of ours are sentences on stderr and exit status 2."""
    try:
        app()
    except CallshieldError as error:
        print(f"callshield: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
