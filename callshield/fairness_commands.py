"""``callshield quality``, ``callshield report`` and ``callshield ringback``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from callshield.errors import CallshieldError, SetupError
from callshield.settings import Settings, load_settings

if TYPE_CHECKING:
    from notifier.fairness_store import FairnessStore

quality_app = typer.Typer(help="The monthly draw of calls.", no_args_is_help=True)
report_app = typer.Typer(help="Figures by group; never of fewer than five.", no_args_is_help=True)
ringback_app = typer.Typer(help="Callers who were ended, and ring back.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DEFAULT_CONFIG = Path("callshield.toml")
T = TypeVar("T")


def add_to(app: typer.Typer) -> None:
    """Join these commands to ``callshield``."""
    app.add_typer(quality_app, name="quality")
    app.add_typer(report_app, name="report")
    app.add_typer(ringback_app, name="ringback")


def _read(settings: Settings, look: Callable[[FairnessStore], Awaitable[T]]) -> T:
    """Look something up in the database, in use or not; nothing is changed.

    Raises:
        SetupError: there is none, or it cannot be read.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from notifier.database import place_of
    from notifier.fairness_store import FairnessStore
    from notifier.store import Store

    place = place_of(settings)
    if place.path is not None and not place.path.is_file():
        raise SetupError(
            f"there is no database {place.path}: start the node once, or give its --config"
        )

    async def run() -> T:
        store = Store(place)
        try:
            return await look(FairnessStore(store.rows))
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        raise SetupError(
            f"{place} cannot be read ({reason}): start the node once with this "
            "version, which brings its tables up to date"
        ) from None


# --------------------------------------------------------------------------------------- quality


@quality_app.command("verify")
def quality_verify(
    month: Annotated[str, typer.Argument(help="Such as 2026-11.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Do a month's draw again from what the log says; exit status 1 if anything differs."""
    from notifier import quality

    if not quality.MONTH.fullmatch(month):
        raise SetupError(f"give a month like 2026-11, not {month!r}")
    answer = _read(load_settings(config), lambda store: _verify(store, month))
    if as_json:
        print(json.dumps(answer))
    elif answer["state"] == "drawn" and not answer["problems"]:
        print(
            f"{month}: {answer['drawn']} of {answer['calls']} calls, drawn as the seed says; "
            f"{answer['kept']} of those calls are still known and were looked at again. "
            "`callshield audit verify` looks after the log itself."
        )
    elif answer["state"] == "seeded":
        print(f"{month}: not drawn yet; the seed is fixed as {answer['commitment']}")
    for problem in () if as_json else answer["problems"]:
        print(f"{month}: {problem}", file=sys.stderr)
    raise typer.Exit(1 if answer["problems"] else 0)


async def _verify(store: FairnessStore, month: str) -> dict[str, Any]:
    from notifier import quality

    told = await store.told(month)
    seeded, closed = told["quality.seeded"], told["quality.closed"]
    too_late = CallshieldError(
        f"retention has deleted calls of {month}: its draw cannot be done again any more; "
        "verify a draw within retention.calls_days: it is too late"
    )
    if not seeded:
        # The seed is the first event of a month, and what the rules were stood in it.
        begins_ts = quality.bounds(month, "UTC")[0] - quality.AHEAD_S
        if await store.deleted_before("calls", "draws", "events") > begins_ts:
            raise too_late
    if not seeded and not closed:
        raise CallshieldError(f"nothing was drawn in {month}: no seed was fixed for it")
    if len(seeded) == 1 and not closed:
        commitment = seeded[0]["commitment"]
        row = await store.month(month)
        problems = []
        if row is None and await store.deleted_before("draws") > float(seeded[0]["end_ts"]):
            raise too_late
        if row is None:
            problems = ["the seed itself is gone"]
        elif quality.commitment(month, bytes.fromhex(row["secret"])) != commitment:
            problems = ["the secret is not the one whose hash was told beforehand"]
        return {"month": month, "state": "seeded", "commitment": commitment, "problems": problems}
    pool = await store.pool(month)
    finished = {}
    if seeded and closed:
        rules = quality.rules_of(seeded[0])
        if await store.deleted_before("calls", "draws") > rules.begin_ts:
            raise too_late
        calls = await store.finished(rules.begin_ts, rules.end_ts, float(closed[0]["ts"]))
        finished = {call.call_id: call for call in calls}
    problems = quality.check(
        month,
        quality.Told(seeded, closed, told["quality.drawn"]),
        pool,
        await store.picks(month),
        finished,
    )
    return {
        "month": month,
        "state": "drawn",
        "calls": len(pool),
        "drawn": len(told["quality.drawn"]),
        "kept": sum(call_id in finished for call_id, _ in pool),
        "problems": problems,
    }


# --------------------------------------------------------------------------------------- reports


def _week(settings: Settings, week: str | None) -> dict[str, Any]:
    from notifier.weekly import WEEK, parts

    if week is not None and not WEEK.fullmatch(week):
        raise SetupError(f"give a week like 2026-W47, not {week!r}")
    row = _read(settings, lambda store: store.report(week))
    if row is None:
        raise CallshieldError(
            "there is no report of such a week: the running node makes it a day after the week "
            "is over ([reports] weekly)"
        )
    return parts(row["body"])[0]


@report_app.command("weekly")
def report_weekly(
    week: Annotated[str | None, typer.Option(help="Such as 2026-W47; the newest if none.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
) -> None:
    """Show a week by group: calls, hours, rest, how soon help came."""
    from notifier.weekly_page import page, text

    settings = load_settings(config)
    body = _week(settings, week)
    if html is not None:
        try:
            html.write_text(page(body, settings.node.language), encoding="utf-8")
        except OSError as error:
            raise SetupError(f"{html} cannot be written ({error.strerror})") from None
        print(html)
    elif as_json:
        print(json.dumps(body, ensure_ascii=False))
    else:
        print(text(body, settings.node.language), end="")


@report_app.command("hearing")
def report_hearing(
    weeks: Annotated[int, typer.Option(min=1, max=520, help="How many, the newest first.")] = 12,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show what headsets gave to ears, by week and group: for whoever answers for safety."""
    from notifier.hearing_page import text
    from notifier.weekly import parts

    settings = load_settings(config)
    rows = _read(settings, lambda store: store.reports(weeks))
    found = [part for row in rows if (part := parts(row["body"])[1]) is not None]
    if as_json:
        print(json.dumps({"weeks": found}, ensure_ascii=False))
    else:
        print(text(found, settings.node.language), end="")


@report_app.command("shadow")
def report_shadow(
    week: Annotated[str | None, typer.Option(help="Such as 2026-W47; the newest if none.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show how many alerts a day shadow mode kept back, by rule and category."""
    from notifier.weekly_page import shadow_text

    settings = load_settings(config)
    if not settings.shadow.groups:
        raise SetupError("no group is in shadow mode: name some in [shadow] groups")
    body = _week(settings, week)
    shown = [
        {"group": row["group"], "agents": row["agents"], "calls": row["calls"], **row["shadow"]}
        for row in body["rows"]
        if "shadow" in row
    ]
    if as_json:
        print(json.dumps({"week": body["week"], "rows": shown}, ensure_ascii=False))
    else:
        print(shadow_text(body["week"], shown), end="")


# -------------------------------------------------------------------------------------- ringback


@ringback_app.command("new-key")
def ringback_new_key(
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Put it before the keys that are there.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write ringback.key_file with a new key; a running node uses it from the next call on."""
    from callshield.caller_mark import write_new_key

    path = load_settings(config).ringback.key_file
    print(f"{path}: key {write_new_key(path, keep_old=rotate)}")


@ringback_app.command("list")
def ringback_list(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the marks there are, newest first: ids, categories and days; no number is known."""
    marks = _read(load_settings(config), lambda store: store.marks())
    newest = sorted(marks, key=lambda mark: -mark.ended_ts)
    if as_json:
        fields = ("mark_id", "key_id", "category", "ended_ts", "until_ts")
        found = [{name: getattr(mark, name) for name in fields} for mark in newest]
        print(json.dumps({"marks": found}))
        return
    for mark in newest:
        print(f"{mark.mark_id}  {mark.category:17}  {_day(mark.ended_ts)} - {_day(mark.until_ts)}")


def _day(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d")


@ringback_app.command("remove")
def ringback_remove(
    mark_id: Annotated[str, typer.Argument(help="As `ringback list` shows it.")] = "",
    number: Annotated[
        bool, typer.Option("--number", help="Ask for the caller's number; it is hashed here.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Take a mark away on review."""
    from callshield.caller_mark import e164, load_mark_keys
    from callshield.messages_fairness import RemoveMark
    from callshield.notifier_request import ask_notifier, request_id

    settings = load_settings(config)
    if bool(mark_id) == number:
        raise SetupError("give the id of a mark, or --number")
    marks: list[str] = []
    if number:
        # Not an argument: those stand in the shell's history and in the list of processes.
        typed = typer.prompt("number", hide_input=sys.stdin.isatty(), err=True)
        caller = e164(typed, settings.ringback)
        if not caller:
            raise SetupError("that is no number that could have been marked")
        marks = load_mark_keys(settings.ringback.key_file).marks(caller)
    request = RemoveMark(request_id=request_id(), mark_id=mark_id, marks=marks)
    answer = ask_notifier(settings, request)
    if answer.status != "done":
        raise CallshieldError("there is no such mark: see `callshield ringback list`")
    print("removed")
