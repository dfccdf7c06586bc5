"""``callshield recordings``: list, verify, export and purge recordings, and care for their keys."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callshield.errors import CallshieldError, RecordingError
from callshield.settings import RecordingSettings, Settings, load_settings

if TYPE_CHECKING:
    from sipbridge.recording_keys import KeyRing
    from sipbridge.recording_reader import RecordingInfo

recordings_app = typer.Typer(help="Recorded calls and their keys.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
_TABLE_WIDTH = 120
DEFAULT_CONFIG = Path("callshield.toml")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line a recording.")]


def _settings(config: Path) -> RecordingSettings:
    return load_settings(config).recording


def _keys_if_any(settings: RecordingSettings) -> KeyRing | None:
    from sipbridge.recording_keys import load_keys

    try:
        return load_keys(settings.key_file)
    except RecordingError as error:
        print(f"callshield: {error}", file=typer.get_text_stream("stderr"))
        return None


@recordings_app.command("list")
def recordings_list(
    call_id: Annotated[str, typer.Argument(help="Only this call's.")] = "",
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List recordings, oldest first: ids, times and sizes, nothing personal."""
    _show(config, [call_id] if call_id else [], as_json, whole=False)


@recordings_app.command("verify")
def recordings_verify(
    call_ids: Annotated[list[str] | None, typer.Argument(help="Calls; all without any.")] = None,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Check every byte of recordings; exit status 1 if one is not as it was written."""
    counts = _show(config, call_ids or [], as_json, whole=True)
    raise typer.Exit(1 if counts["damaged"] or counts["locked"] else 0)


def _show(config: Path, call_ids: list[str], as_json: bool, *, whole: bool) -> Counter[str]:
    from rich.console import Console
    from rich.table import Table

    from sipbridge.recording_reader import describe
    from sipbridge.recording_store import RecordingStore, check_call_id

    settings = _settings(config)
    wanted: list[str | None] = [check_call_id(call_id) for call_id in call_ids]
    store = RecordingStore(settings.directory)
    keys = _keys_if_any(settings)
    counts: Counter[str] = Counter()
    table = Table(box=None, pad_edge=False)
    for column in ("call", "part", "began (UTC)", "length", "KiB", "state", "pauses"):
        table.add_column(column, no_wrap=column not in ("state", "pauses"), overflow="fold")
    for call_id in wanted or [None]:
        found = list(store.stored(call_id))
        if call_id and not found:
            raise RecordingError(f"there is no recording of call {call_id}")
        for stored in found:
            info = describe(store, stored, keys, whole=whole)
            counts[info.state] += 1
            if as_json:
                print(json.dumps(info.as_json()), flush=True)
            else:
                table.add_row(*_row(info))
    store.close()
    if not as_json:
        console = Console(highlight=False)
        # Ids are for copying: never cut off, also where nobody said how wide the output is.
        console.print(table, width=max(console.width, _TABLE_WIDTH), crop=False)
    return counts


def _row(info: RecordingInfo) -> list[str]:
    began = datetime.fromtimestamp(info.started_at_ns / 1e9, UTC)
    state = info.state.replace("_", " ")
    if info.ended not in ("", "stopped"):
        state += f" ({info.ended})"
    if info.lost:
        state += f", {info.lost} x lost"
    if info.problem:
        state += f": {info.problem}"
    return [
        info.stored.call_id,
        str(info.stored.part),
        began.strftime("%Y-%m-%d %H:%M:%S") if info.started_at_ns else "",
        f"{int(info.length_s) // 60}:{info.length_s % 60:04.1f}" if info.length_s else "",
        str(-(-info.size_bytes // 1024)),
        state,
        " ".join(
            f"{begin:.1f}-{end:.1f}" if end is not None else f"{begin:.1f}-"
            for begin, end in info.pauses
        ),
    ]


@recordings_app.command("export")
def recordings_export(
    call_id: Annotated[str, typer.Argument(help="As `recordings list` shows it.")],
    out: Annotated[Path | None, typer.Option(help="WAV file; CALL_ID.wav here.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    draw: Annotated[str, typer.Option(help="Opened because of this quality draw.")] = "",
    request: Annotated[str, typer.Option(help="Opened on this request of the agent.")] = "",
    complaint: Annotated[str, typer.Option(help="Opened for the complaint of this name.")] = "",
    reason: Annotated[str, typer.Option(help="With --complaint: why, in a sentence.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="Your token, mode 0600; else $CALLSHIELD_TOKEN.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write a call as a stereo WAV file (left caller, right agent), and a JSON file about it.

    A recording opens only through a draw, on the agent's request, or for a named complaint with a
    written reason; the agent sees who opened it and why.
    """
    from rich.console import Console
    from rich.progress import Progress

    from sipbridge.recording_export import export_call
    from sipbridge.recording_keys import load_keys
    from sipbridge.recording_store import RecordingStore, check_call_id

    node = load_settings(config)
    settings = node.recording
    check_call_id(call_id)
    store = RecordingStore(settings.directory)
    found = list(store.stored(call_id))
    if not found:
        raise RecordingError(f"there is no recording of call {call_id}")
    target = out or Path(f"{call_id}.wav")
    if target.exists() and not overwrite:
        raise RecordingError(f"{target} is there already: name another --out, or give --overwrite")
    keys = load_keys(settings.key_file)
    _open(node, call_id, _why(draw, request, complaint, reason), token_file)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("exporting", total=1.0)
        export = export_call(
            store,
            found,
            keys,
            target,
            progress=lambda done: bar.update(task, completed=done),
            overwrite=overwrite,
        )
    store.close()
    about = export.sidecar
    print(f"{target}: {about['length_s']:.1f} s, {about['sample_rate_hz']} Hz, {target}.json")
    early = [part["part"] for part in about["parts"] if not part["complete"]]
    if early:
        print(f"part {', '.join(map(str, early))} ended early: the recorder was killed there")


def _why(draw: str, request: str, complaint: str, reason: str) -> tuple[str, str, str]:
    """Why a recording is opened: kind, id or name, and what was written.

    Raises:
        RecordingError: none was given, several, or a complaint without a reason.
    """
    given = [
        (kind, ref)
        for kind, ref in (("draw", draw), ("request", request), ("complaint", complaint))
        if ref
    ]
    if len(given) != 1:
        raise RecordingError(
            "a recording opens through one of --draw ID, --request ID (of the agent), or "
            "--complaint NAME --reason TEXT"
        )
    (kind, ref) = given[0]
    if bool(reason) != (kind == "complaint"):
        raise RecordingError("--reason goes with --complaint, and --complaint with --reason")
    return kind, ref, reason


def _open(
    settings: Settings, call_id: str, why: tuple[str, str, str], token_file: Path | None
) -> None:
    """Have it kept, and told to the agent, that somebody opens this recording.

    Raises:
        RecordingError: the notifier refuses.
        SetupError: there is no token, or the notifier does not answer: then nothing is opened.
    """
    import msgspec

    from callshield.messages_fairness import OpenRecording
    from callshield.notifier_request import ask_notifier, own_token, request_id

    kind, ref, reason = why
    request = msgspec.convert(
        {
            "type": "recording.open",
            "request_id": request_id(),
            "call_id": call_id,
            "token": own_token(token_file),
            "why": kind,
            "ref": ref,
            "reason": reason,
        },
        OpenRecording,
    )
    answer = ask_notifier(settings, request)
    if answer.status != "done":
        raise RecordingError(f"the recording stays closed: {answer.detail}")


@recordings_app.command("new-key")
def recordings_new_key(config: Config = DEFAULT_CONFIG) -> None:
    """Write a key file with one new node key."""
    from sipbridge.recording_keys import new_key_file

    settings = _settings(config)
    keys = new_key_file(settings.key_file)
    print(f"{settings.key_file}: node key {keys.ids()[0]}. Keep a copy apart from the recordings:")
    print("without this key nobody can play them, and nobody can make it again.")


@recordings_app.command("rotate-key")
def recordings_rotate_key(
    rewrap_only: Annotated[
        bool, typer.Option(help="No new key: bring old recordings to the current one.")
    ] = False,
    forget_old: Annotated[
        bool, typer.Option(help="Then take the old keys out of the key file.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Make a new node key and wrap all recordings' keys by it; the audio is not touched."""
    from sipbridge import recording_keys

    settings = _settings(config)
    in_environment = recording_keys.from_environment()
    if in_environment and (forget_old or not rewrap_only):
        raise RecordingError(
            f"the keys are in {recording_keys.KEY_VARIABLE}: put a new one (openssl rand -hex 32) "
            "before the old one there, restart Callshield, and run this with --rewrap-only"
        )
    with recording_keys.key_file_lock(settings.directory if in_environment else settings.key_file):
        keys = recording_keys.load_keys(settings.key_file)
        if not rewrap_only:
            # Before the first recording is wrapped by it, the new key lies safe beside the old.
            keys = recording_keys.replace_keys(
                settings.key_file, [recording_keys.new_key(), *keys.keys]
            )
            print(f"new node key {keys.ids()[0]}: keep a copy of {settings.key_file}")
        rewrapped, problems = _rewrap_all(settings, keys)
        print(f"{rewrapped} recordings brought to node key {keys.ids()[0]}")
        for problem in problems:
            print(problem)
        if problems:
            raise RecordingError(f"{len(problems)} recordings are as they were; all keys were kept")
        if forget_old and len(keys.keys) > 1:
            recording_keys.replace_keys(settings.key_file, [keys.current])
            print(f"{len(keys.keys) - 1} old keys forgotten")


def _rewrap_all(settings: RecordingSettings, keys: KeyRing) -> tuple[int, list[str]]:
    from sipbridge.recording_store import RecordingStore, rewrap

    if not settings.directory.exists():
        return 0, []
    store = RecordingStore(settings.directory)
    rewrapped, problems = 0, []
    for stored in store.stored():
        try:
            with store.open(stored, write=True) as file:
                rewrapped += rewrap(file, keys)
        except (CallshieldError, OSError) as error:
            problems.append(f"{stored.day}{os.sep}{stored.name}: {error}")
    store.close()
    return rewrapped, problems


@recordings_app.command("purge")
def recordings_purge(
    dry_run: Annotated[bool, typer.Option(help="Only say how many would go.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Delete recordings older than recording.retention_days; a running node does so by itself.

    Those stay whose agent asked for the evidence, until a supervisor says that it is handed out.
    """
    from notifier.database import place_of
    from notifier.evidence_holds import held_calls
    from sipbridge.recording_store import RecordingStore

    node = load_settings(config)
    settings, place = node.recording, place_of(node)
    # What the bridge was told may be behind: the store is asked wherever there is one.
    stored = held_calls(place) if place.path is None or place.path.is_file() else frozenset()
    store = RecordingStore(settings.directory)
    held = len(store.held() | stored)
    today = datetime.now(UTC).date()
    count = store.purge(today, settings.retention_days, dry_run=dry_run, also_held=stored)
    store.close()
    verb = "would be deleted" if dry_run else "deleted"
    print(f"{count} recordings older than {settings.retention_days} days {verb}")
    if held:
        print(f"{held} calls are held, for somebody asked for the evidence")
