"""The ``callshield`` command."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

from callshield import __version__
from callshield.cluster_command import cluster_app
from callshield.edge_command import edge_app
from callshield.errors import CallshieldError
from callshield.evidence_command import evidence_app
from callshield.fairness_commands import add_to as add_fairness_to
from callshield.language_names import LanguageName
from callshield.law_command import compliance_app, law_app
from callshield.model_commands import eval_app, train_app
from callshield.pbx_command import pbx_app
from callshield.privacy_commands import privacy_app
from callshield.profiles_command import profiles_app
from callshield.prompts_command import prompts_app
from callshield.recordings import recordings_app
from callshield.settings import load_settings
from callshield.store_command import audit_app, backup, restore, retention_app
from callshield.webhooks_command import webhooks_app

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
app.add_typer(prompts_app, name="prompts")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(cluster_app, name="cluster")
app.add_typer(edge_app, name="edge")
app.add_typer(law_app, name="law")
app.add_typer(compliance_app, name="compliance")
app.add_typer(profiles_app, name="profiles")
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")
add_fairness_to(app)
app.add_typer(privacy_app, name="privacy")
app.add_typer(audit_app, name="audit")
app.add_typer(evidence_app, name="evidence")
app.add_typer(retention_app, name="retention")
app.command()(backup)
app.command()(restore)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
DEFAULT_CONFIG = Path("callshield.toml")


class RoleName(StrEnum):
    """Roles of a token."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"
    AUDITOR = "auditor"
    ADMIN = "admin"
    REPRESENTATIVE = "representative"


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
        LanguageName | None, typer.Option(help="Language of the words; found out if none.")
    ] = None,
    asr: Annotated[
        bool | None,
        typer.Option("--asr/--no-asr", help="Hear words; by default where a model is installed."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 1,
    model_dir: Annotated[Path | None, typer.Option(help="Another acoustic model.")] = None,
) -> None:
    """Run recordings through the same pipeline as a live call."""
    from detectors.analyze import analyze_paths, lacking
    from detectors.analyze_words import is_installed

    words = lang.value if lang else ""
    if asr is None and not is_installed():
        print("callshield: no speech model is installed: words are not heard", file=sys.stderr)
        asr = False
    asked = None if asr is False else words
    for sentence in lacking(model_dir, asked):
        print(f"callshield: {sentence}", file=sys.stderr)
    failed = False
    for result in analyze_paths(files, jobs=jobs, model_dir=model_dir, words=asked):
        failed = failed or "error" in result
        if as_json:
            print(json.dumps(result, ensure_ascii=False), flush=True)
        elif "error" in result:
            print(f"{result['file']}: {result['error']}", file=sys.stderr)
        else:
            print(
                f"{result['file']}: level {result['level']} "
                f"({', '.join(result['categories']) or '-'}), vocal effort "
                f"{result['acoustic']:.2f}, {result['duration_s']:.1f} s"
            )
    raise typer.Exit(1 if failed else 0)


@app.command()
def classify(
    lang: Annotated[LanguageName, typer.Option(help="Language of the lines.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a line.")] = False,
) -> None:
    """Judge lines of text from standard input (UTF-8) by lexicon and word model alone."""
    from detectors.words import Judge
    from detectors.words.classify import classify as answers
    from detectors.words.classify import lines_of

    said: TextIO | None = sys.stdin  # None where it is closed, whatever its type says
    lines = lines_of(said.buffer if said else None)
    judge = Judge.load((lang.value,))
    for sentence in judge.missing:
        print(f"callshield: {sentence}", file=sys.stderr)
    for answer in answers(lines, lang.value, judge):
        if as_json:
            print(json.dumps(answer), flush=True)
        else:
            kinds = ", ".join(answer["categories"]) or "-"
            print(f"{answer['score']:.2f} {kinds}", flush=True)


@app.command()
def calibrate(
    config: Config = DEFAULT_CONFIG,
    queue: Annotated[str, typer.Option(help="Only this group (agents.ID.group).")] = "",
    target: Annotated[
        float,
        typer.Option(
            "--target-false-alarms-per-hour",
            min=0.001,
            help="False alarms an hour of analysed call that are put up with.",
        ),
    ] = 0.1,
    days: Annotated[float, typer.Option(min=0.01, help="How far back.")] = 180.0,
    report: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
) -> None:
    """Propose thresholds from this site's confirmed and refuted alerts; changes nothing."""
    from callshield.calibrate_command import calibrate as run

    print(run(load_settings(config), queue, target, days, report), end="")


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


@bench_app.command("pipeline")
def bench_pipeline(
    calls: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    seconds: Annotated[float, typer.Option(min=5, max=3600)] = 60,
    asr: Annotated[bool, typer.Option("--asr", help="Words, too.")] = False,
    transcribers: Annotated[int, typer.Option(min=1, max=16, help="With --asr.")] = 1,
    speech_model: Annotated[
        Path | None, typer.Option(help="Folder of the model; absent: the one installed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Other callers.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how soon a shout or abusive words are told, and what that costs the relay."""
    from callshield.bench_pipeline import PipelineLoad
    from callshield.bench_pipeline_show import run

    load = PipelineLoad(calls, seconds, transcribers if asr else 0, speech_model, seed)
    raise typer.Exit(run(load, as_json=as_json))


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


@bench_app.command("consoles")
def bench_consoles(
    consoles: Annotated[int, typer.Option(min=1, max=5000)] = 500,
    alerts_per_s: Annotated[float, typer.Option("--alerts-per-s", min=0.1, max=1000)] = 50,
    seconds: Annotated[float, typer.Option(min=1, max=3600)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how soon an alert is on every console, beside a plain broadcast."""
    from callshield.bench_consoles import ConsoleLoad, run

    raise typer.Exit(run(ConsoleLoad(consoles, alerts_per_s, seconds), as_json=as_json))


@bench_app.command("phones")
def bench_phones(
    screens: Annotated[int, typer.Option(min=20, max=5000, help="Each way.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how soon a level is on a phone, by HTTP and by SIP, beside a plain POST."""
    from callshield.bench_phones import run

    raise typer.Exit(run(screens, as_json=as_json))


@token_app.command("create")
def token_create(
    role: Annotated[RoleName, typer.Option()],
    name: Annotated[str, typer.Option(help="Whose it is; kept in the store only.")],
    agent: Annotated[str, typer.Option(help="Agent id, for --role agent.")] = "",
    supervisor: Annotated[
        str,
        typer.Option(help="Supervisor id, for --role supervisor: asked in turn, sees own team."),
    ] = "",
    days: Annotated[float, typer.Option(min=0.01, max=3660, help="How long it is good.")] = 90.0,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print a new token; it is shown this once and stored as a hash."""
    from notifier.tokens import create_token

    settings, lifetime = load_settings(config), timedelta(days=days)
    tied = supervisor or None
    print(create_token(settings, role.value, name, agent or None, lifetime, supervisor_id=tied))


@token_app.command("list")
def token_list(config: Config = DEFAULT_CONFIG) -> None:
    """List all tokens, newest first, without their secrets."""
    from rich.table import Table

    from notifier.tokens import list_tokens

    table = Table("id", "role", "of", "name", "expires", "revoked")
    for row in list_tokens(load_settings(config)):
        expires = datetime.fromtimestamp(row["expires_ts"], UTC).strftime("%Y-%m-%d")
        revoked = "yes" if row.get("revoked_ts") else ""
        whose = row["agent_id"] or row["supervisor_id"]
        table.add_row(row["token_id"], row["role"], whose, row["name"], expires, revoked)
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
