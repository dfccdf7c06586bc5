"""``callshield webhooks``: letters to webhooks and by mail that could not be delivered."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from callshield.errors import CallshieldError
from callshield.settings import Settings, load_settings

webhooks_app = typer.Typer(
    help="Letters to webhooks and by mail: what waits, what was put aside.", no_args_is_help=True
)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
Letter = Annotated[str, typer.Argument(help="The id that `webhooks list` shows; or --all.")]
All = Annotated[bool, typer.Option("--all", help="Every letter that was put aside.")]
OfChannel = Annotated[
    str, typer.Option("--channel", help="With --all: of this one alone (webhook:NAME, mail).")
]
DEFAULT_CONFIG = Path("callshield.toml")


@webhooks_app.command("list")
def webhooks_list(
    config: Config = DEFAULT_CONFIG,
    waiting: Annotated[bool, typer.Option("--waiting", help="What is under way instead.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a letter.")] = False,
) -> None:
    """List letters that were put aside, newest first."""
    from notifier.outbox_store import DEAD, WAITING, listing

    rows = _rows(load_settings(config), listing(WAITING if waiting else DEAD, limit))
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "channel", "event", "type", "time (UTC)", "attempts", "why")
    for row in rows:
        when = datetime.fromtimestamp(row["ts"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            row["letter_id"],
            row["channel"],
            str(row["event_id"]),
            row["type"],
            when,
            str(row["attempts"]),
            row["failure"],
        )
    Console().print(table)


@webhooks_app.command("retry")
def webhooks_retry(
    letter: Letter = "",
    everything: All = False,
    channel: OfChannel = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Send letters that were put aside again; a running node does so within seconds."""
    from notifier.outbox_store import retrying

    count = _change(load_settings(config), retrying(*_chosen(letter, everything, channel)))
    print(f"{count} to be sent again")


@webhooks_app.command("drop")
def webhooks_drop(
    letter: Letter = "",
    everything: All = False,
    channel: OfChannel = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Delete letters that were put aside."""
    from notifier.outbox_store import dropping

    count = _change(load_settings(config), dropping(*_chosen(letter, everything, channel)))
    print(f"{count} deleted")


def _chosen(letter: str, everything: bool, channel: str) -> tuple[str, str]:
    if bool(letter) == everything or (channel and not everything):
        raise CallshieldError("name one letter, or --all (with --channel NAME if you like)")
    return letter, channel


def _rows(settings: Settings, query: Any) -> list[dict[str, Any]]:
    from notifier.database import migrate, place_of, transact

    place = place_of(settings)
    migrate(place)
    return transact(place, lambda made: [dict(row) for row in made.execute(query).mappings()])


def _change(settings: Settings, statement: Any) -> int:
    from notifier.database import migrate, place_of, transact

    place = place_of(settings)
    migrate(place)
    count = transact(place, lambda made: int(made.execute(statement).rowcount))
    if not count:
        raise CallshieldError("no such letter was put aside: see `callshield webhooks list`")
    return count
