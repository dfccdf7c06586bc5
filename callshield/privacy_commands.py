"""``callshield privacy``: what is held on a caller, given to him or erased; keys and retention."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from callshield.errors import CallshieldError, SetupError
from callshield.language_names import LanguageName
from callshield.settings import Settings, load_settings

if TYPE_CHECKING:
    from callshield.messages_privacy import FileGiven, PrivacyAnswer, PrivacyRequest
    from callshield.privacy_access import Answer
    from notifier.privacy import Wanted

privacy_app = typer.Typer(
    help="What is held on a caller: give it to him, erase it.", no_args_is_help=True
)

Config = Annotated[Path, typer.Option(help="The node's configuration (TOML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CallOption = Annotated[str, typer.Option("--call", help="One call, by its id.")]
NumberOption = Annotated[
    str,
    typer.Option("--number", help="All calls of a number; '-' asks for it, unseen by others."),
]
RefOption = Annotated[
    str, typer.Option(help="What the request is called in your files; no name, no number.")
]
TokenOption = Annotated[
    Path | None,
    typer.Option(help="An administrator's token, mode 0600; else $CALLSHIELD_TOKEN."),
]
DEFAULT_CONFIG = Path("callshield.toml")
_TABLE_WIDTH = 150
#: How long the node may take for a request: it deletes files, call by call.
WITHIN_S = 600.0
_SILENT = (
    "the notifier of this node does not answer, and it is what keeps the record of this: start the "
    "node (callshield serve) and try again as its user"
)


@privacy_app.command("access")
def privacy_access(
    out: Annotated[Path, typer.Option("--out", "-o", help="The zip for the caller.")],
    call: CallOption = "",
    number: NumberOption = "",
    ref: RefOption = "",
    language: Annotated[
        LanguageName | None, typer.Option(help="Of the text; the node's if none.")
    ] = None,
    agent_text: Annotated[
        Path | None,
        typer.Option(help="With --call: what the agent said, as a person wrote it down (UTF-8)."),
    ] = None,
    without_recordings: Annotated[
        bool, typer.Option("--without-recordings", help="Leave the sound out.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    token_file: TokenOption = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write what is held on a caller to a zip for him: JSON, text, and his side of recordings.

    No name and no id of an agent is in it. See first that it is he who asks: a number is not a
    person. Each call's agent is told that it was given out, through whom and for which request.
    """
    from callshield.messages_privacy import FileGiven
    from callshield.notifier_request import own_token, request_id
    from callshield.privacy_access import AccessError, write_answer
    from notifier.privacy import NO_NAME, named

    settings = load_settings(config)
    if not named(ref):
        raise SetupError(f"give --ref: {NO_NAME}")
    if agent_text is not None and not call:
        raise AccessError("--agent-text goes with --call: it is of one call")
    written = _text(agent_text) if agent_text is not None else ""
    if os.path.lexists(out) and not overwrite:
        raise AccessError(f"{out} is there already: name another file, or give --overwrite")
    wanted, token = _wanted(settings, call, number), own_token(token_file)
    answer = _request(settings, wanted, "access", token, ref)
    given = [one.call_id for one in answer.calls if one.outcome == "given"]
    if not given and not wanted.ringback_marks:
        raise CallshieldError(_why_nothing(answer, settings))
    running = sum(one.outcome == "waits" for one in answer.calls)

    def told(done: Answer) -> None:
        """Stored before the file has its name: what is given is known, or it is not given."""
        file = FileGiven(
            request_id=request_id(),
            token=token,
            ref=ref,
            scope=wanted.scope,
            calls=done.calls,
            running=running,
            sha256=done.sha256,
        )
        _ask(settings, file)

    done = write_answer(
        settings,
        out,
        given,
        given=told,
        marks=wanted.ringback_marks,
        ref=ref,
        language=language.value if language else "",
        agent_text=written,
        sound=not without_recordings,
        overwrite=overwrite,
    )
    print(f"{out}: {done.calls} calls, {done.recordings} recordings; sha256 {done.sha256}")
    for one in answer.calls:
        if one.outcome == "waits":
            print(f"{one.call_id}: {one.sentence}")
    _name_others(settings, wanted)


def _name_others(settings: Settings, wanted: Wanted) -> None:
    """By a number each node finds its own calls, by its own keys."""
    others = settings.cluster.others(settings.node.name)
    if others and not wanted.call_id:
        print(f"of this node's calls alone: ask {', '.join(others)} for theirs", file=sys.stderr)


def _why_nothing(answer: PrivacyAnswer, settings: Settings) -> str:
    said = [one.sentence for one in answer.calls if one.sentence]
    return said[0] if said else _none_of_number(settings)


def _none_of_number(settings: Settings) -> str:
    """That nothing was found by a number, and whether something may be held all the same."""
    from callshield.doctor_fairness import kept_beyond_calls

    longer = kept_beyond_calls(settings)
    return "no call of this number is held" + (f"; {longer}" if longer else "")


def _text(path: Path) -> str:
    from callshield.privacy_access import AccessError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{path} cannot be read as UTF-8 text ({error})") from None


@privacy_app.command("erase")
def privacy_erase(
    call: CallOption = "",
    number: NumberOption = "",
    ref: RefOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    token_file: TokenOption = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Erase a call, or all that is held of a number: rows, words, recording. It cannot be undone.

    What is held as evidence waits, and is erased when that is settled. The event log says that a
    call was erased, and stays verifiable. Exit status 1 when something waits.
    """
    from callshield.notifier_request import own_token

    settings = load_settings(config)
    wanted, token = _wanted(settings, call, number), own_token(token_file)
    what = f"call {call}" if call else "all calls of this number"
    if not yes and not typer.confirm(f"erase {what}, for good?", err=True):
        raise CallshieldError("nothing was erased")
    answer = _request(settings, wanted, "erase", token, ref)
    if as_json:
        calls = [
            {"call_id": one.call_id, "outcome": one.outcome, "sentence": one.sentence}
            for one in answer.calls
        ]
        print(json.dumps({"calls": calls, "marks": answer.marks}))
    else:
        for one in answer.calls:
            print(f"{one.call_id}: {one.outcome}" + (f": {one.sentence}" if one.sentence else ""))
        if answer.marks:
            print(f"{answer.marks} marks of the number erased")
        if not answer.calls and not answer.marks:
            print(_none_of_number(settings))
    _name_others(settings, wanted)
    raise typer.Exit(1 if any(one.outcome == "waits" for one in answer.calls) else 0)


@privacy_app.command("waiting")
def privacy_waiting(as_json: AsJson = False, config: Config = DEFAULT_CONFIG) -> None:
    """List erasures that were asked for and wait."""
    from sqlalchemy import select

    from notifier.audit import read
    from notifier.database import place_of
    from notifier.schema_privacy import erasures

    place = place_of(load_settings(config))
    query = select(erasures).order_by(erasures.c.asked_ts)
    for row in read(place, lambda c: [dict(r) for r in c.execute(query).mappings()]):
        if as_json:
            print(json.dumps(row))
        else:
            at = datetime.fromtimestamp(row["asked_ts"], UTC).strftime("%Y-%m-%d %H:%M:%S")
            print(f"{at} {row['call_id']} {row['waits'] or '-'} {row['ref'] or '-'}")


@privacy_app.command("retention")
def privacy_retention(as_json: AsJson = False, config: Config = DEFAULT_CONFIG) -> None:
    """Show what is kept for how long, and which rule says so."""
    from rich.console import Console
    from rich.table import Table

    from notifier.retention_table import table

    settings = load_settings(config)
    rows = table(settings)
    if as_json:
        enabled = settings.retention.enabled
        print(json.dumps({"enabled": enabled, "kinds": [row.as_json() for row in rows]}))
        return
    shown = Table(box=None, pad_edge=False)
    for column in ("kind", "days", "rule", "what", "where"):
        shown.add_column(column, overflow="fold", no_wrap=column in ("kind", "days", "rule"))
    for row in rows:
        days = "-" if row.days is None else str(row.days)
        shown.add_row(row.kind, days, row.rule, row.what, row.where)
    wide = max(Console().width, _TABLE_WIDTH)
    Console(highlight=False, markup=False, width=wide).print(shown)
    if not settings.retention.enabled:
        print("retention.enabled is off: only `callshield retention run` deletes")


@privacy_app.command("keys")
def privacy_keys(as_json: AsJson = False, config: Config = DEFAULT_CONFIG) -> None:
    """List the keys of pseudonyms, the current one first, and how many stored calls need each."""
    from callshield.caller_pseudonym import load_caller_keys

    settings = load_settings(config)
    keys = load_caller_keys(settings.caller_keys_path, make=False)
    needed = _needed(settings)
    for key_id in keys.ids():
        if as_json:
            print(json.dumps({"key_id": key_id, "calls": needed[key_id]}))
        else:
            print(f"{key_id}  {needed[key_id]} calls")
    for key_id in sorted(needed.keys() - set(keys.ids())):
        print(f"{key_id}  {needed[key_id]} calls, and no such key: found by no number")


@privacy_app.command("rotate-key")
def privacy_rotate_key(
    forget_unused: Annotated[
        bool, typer.Option("--forget-unused", help="Take away keys that no stored call needs.")
    ] = False,
    forget_old: Annotated[
        bool,
        typer.Option(
            "--forget-old", help="Take all old keys away: older calls are found by no number."
        ),
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Make a new key of pseudonyms; a running node uses it from the next call on.

    Calls of the old keys are still found: these stay in the file until no stored call needs them.
    """
    from callshield.caller_pseudonym import forget_caller_keys, rotate_caller_keys

    settings = load_settings(config)
    path = settings.caller_keys_path
    gone = []
    if forget_unused or forget_old:
        needed = frozenset() if forget_old else frozenset(_needed(settings))
        gone = forget_caller_keys(path, needed | _current(path))
    print(f"{path}: new key {rotate_caller_keys(path)}")
    if forget_old:
        gone += forget_caller_keys(path, frozenset())
    for key_id in gone:
        print(f"{key_id} forgotten")


def _current(path: Path) -> frozenset[str]:
    from callshield.caller_pseudonym import load_caller_keys

    return frozenset(load_caller_keys(path, make=False).ids()[:1])


def _needed(settings: Settings) -> Counter[str]:
    """How many stored calls, and open call-backs, need each key."""
    from sqlalchemy import func, select

    from notifier.audit import read
    from notifier.database import place_of
    from notifier.schema import calls
    from notifier.schema_care import callbacks

    by_key = select(calls.c.caller_key_id, func.count()).group_by(calls.c.caller_key_id)
    sealed = select(callbacks.c.sealed_number).where(callbacks.c.sealed_number != "")

    def count(connection: object) -> Counter[str]:
        found: Counter[str] = Counter()
        for key_id, number in connection.execute(by_key):  # type: ignore[attr-defined]
            found[key_id] += number
        for (text,) in connection.execute(sealed):  # type: ignore[attr-defined]
            found[text.partition(".")[0]] += 1
        found.pop("", None)
        return found

    return read(place_of(settings), count)


# ---------------------------------------------------------------------------- asking the node


def _wanted(settings: Settings, call: str, number: str) -> Wanted:
    from notifier.privacy import PrivacyRefused, Wanted, wanted_by_number

    if bool(call) == bool(number):
        raise SetupError("give --call ID or --number N, one of them")
    if call:
        return Wanted(call)
    if number == "-":
        # Not an argument: those stand in the shell's history and in the list of processes.
        number = typer.prompt("number", hide_input=sys.stdin.isatty(), err=True)
    try:
        return wanted_by_number(settings, number)
    except PrivacyRefused as refused:
        raise SetupError(str(refused)) from None


def _request(
    settings: Settings, wanted: Wanted, kind: Literal["access", "erase"], token: str, ref: str
) -> PrivacyAnswer:
    from callshield.messages_privacy import PrivacyRequest
    from callshield.notifier_request import request_id

    request = PrivacyRequest(
        request_id=request_id(),
        kind=kind,
        token=token,
        ref=ref,
        call_id=wanted.call_id,
        pseudonyms=list(wanted.pseudonyms),
        ringback_marks=list(wanted.ringback_marks),
    )
    return _ask(settings, request)


def _ask(settings: Settings, request: PrivacyRequest | FileGiven) -> PrivacyAnswer:
    from callshield.messages_privacy import PrivacyAnswer
    from callshield.notifier_request import ask_bus

    answer = asyncio.run(ask_bus(settings.bus_path, request, PrivacyAnswer, WITHIN_S, _SILENT))
    if not answer.ok:
        raise CallshieldError(answer.sentence)
    return answer
