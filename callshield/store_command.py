"""``callshield audit``, ``retention``, ``backup`` and ``restore``: the store, from the outside."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callshield.errors import SetupError
from callshield.settings import load_settings

if TYPE_CHECKING:
    from notifier.chain import Head

audit_app = typer.Typer(help="What happened, and whether it was changed since.")
retention_app = typer.Typer(help="Deleting what is old enough.")

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG = Path("callshield.toml")


@audit_app.callback()
@retention_app.callback()
def _group() -> None:
    return


def _head(text: str) -> Head:
    from notifier.chain import Head

    number, _, noted = text.partition(":")
    if not number.isdigit() or len(noted) != 64:
        raise SetupError("--head takes ID:HASH, as the log line chain_head has them")
    return Head(int(number), noted.lower())


@audit_app.command("verify")
def audit_verify(
    head: Annotated[
        list[str] | None, typer.Option(help="ID:HASH that somebody else noted; several.")
    ] = None,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Check the hash chain of all events; exit status 1 when one was changed, removed, inserted or
    reordered."""
    from notifier.audit import verify
    from notifier.database import place_of

    place = place_of(load_settings(config))
    found = verify(place, [_head(text) for text in head or []])
    if as_json:
        print(
            json.dumps(
                {
                    "events": found.events,
                    "first_id": found.first_id,
                    "last_id": found.head.last_id,
                    "hash": found.head.hash,
                    "words_deleted": found.redacted,
                    "erased": found.erased,
                    "head_noted": found.noted is not None,
                    "faults": [
                        {"kind": f.kind, "event_id": f.event_id, "sentence": f.sentence}
                        for f in found.faults
                    ],
                }
            )
        )
    else:
        for fault in found.faults:
            print(fault.sentence)
        if found.noted is None:
            print(
                f"no head was noted in {place.head_path}: whether the newest events were removed "
                "cannot be told"
            )
        state = "not as they were written" if found.faults else "as they were written"
        print(
            f"{found.events} events, {found.first_id} to {found.head.last_id}, {state}; "
            f"words deleted in {found.redacted}, {found.erased} erased; "
            f"head {found.head.last_id}:{found.head.hash}"
        )
    raise typer.Exit(1 if found.faults else 0)


@audit_app.command("reads")
def audit_reads(as_json: AsJson = False, config: Config = DEFAULT_CONFIG) -> None:
    """List who read words or opened a recording, when and why; ids and roles, no names."""
    from notifier.audit import reads
    from notifier.database import place_of

    for row in reads(place_of(load_settings(config))):
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            at = _clock(row["ts"])
            why = " ".join(filter(None, (row["why"], row.get("ref"), row.get("reason"))))
            print(f"{at} {row['what']} {row['call_id']} {row['by_role']} {row['by']} {why}")


@audit_app.command("joins")
def audit_joins(as_json: AsJson = False, config: Config = DEFAULT_CONFIG) -> None:
    """List who came into calls, when, and when the agent asked; exit status 1 when the log has no
    request of the call's agent before somebody came."""
    from notifier.audit import who_joined
    from notifier.database import place_of

    found, wrong = who_joined(place_of(load_settings(config)))
    for one in found:
        asked = one.event_id not in wrong
        if as_json:
            print(json.dumps({**one.as_json(), "asked": asked}))
        else:
            until = f" until {_clock(one.left_ts)}" if one.left_ts is not None else ""
            on = f"asked {_clock(one.asked_ts)}" if one.asked_ts else "asked"
            print(
                f"{_clock(one.ts)}{until} {one.how} {one.call_id} agent {one.agent_id} "
                f"{one.role} {one.helper_id} {one.by} {on if asked else 'NOBODY ASKED'}"
            )
    raise typer.Exit(1 if wrong else 0)


def _clock(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S")


@retention_app.command("run")
def retention_run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Delete what [retention] says is due, or count it; a running node deletes by itself."""
    from notifier.retention_run import count_due, delete_due

    settings = load_settings(config)
    counts = count_due(settings) if dry_run else delete_due(settings)
    if as_json:
        print(json.dumps({"dry_run": dry_run, **counts}))
        return
    for kind, count in counts.items():
        print(f"{kind}: {count} {'due' if dry_run else 'deleted'}")


def backup(
    file: Annotated[Path, typer.Argument(help="Written with mode 0600; keep it elsewhere.")],
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write the whole store to one file, while the node runs; SQLite and PostgreSQL alike."""
    from notifier.backup import write_backup
    from notifier.database import place_of

    done = write_backup(place_of(load_settings(config)), file, overwrite=overwrite)
    print(f"{file}: {sum(done.rows.values())} rows, {done.rows['events']} of them events")
    print(f"sha256 {done.sha256}")


def restore(
    file: Annotated[Path, typer.Argument(help="As `callshield backup` wrote it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a store that has data.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Put a backup into the store, and check its hash chain; the node must not be running."""
    from notifier.audit import verify
    from notifier.backup import read_backup
    from notifier.database import lock, migrate, place_of
    from notifier.restored import erase_again, record_restore

    place = place_of(load_settings(config))
    migrate(place)
    held = lock(place)
    try:
        done = read_backup(place, file, force=force)
        before, head = record_restore(place, done)
        back = erase_again(place)
    finally:
        os.close(held)
    found = verify(place)
    print(f"{sum(done.rows.values())} rows, {done.rows['events']} of them events")
    if before is not None:
        print(f"head before {before.last_id}:{before.hash}")
    print(f"head now {head.last_id}:{head.hash}")
    if back:
        print(f"{back} calls of it were erased since: the node erases them again when it starts")
    for fault in found.faults:
        print(fault.sentence)
    raise typer.Exit(1 if found.faults else 0)
