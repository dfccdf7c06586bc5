"""Nothing is kept, passed on, written or logged that is not in the inventory."""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import re
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from pydantic import BaseModel
from sqlalchemy import Column, MetaData, String, Table

import detectors.text_pipeline
import detectors.words_link
from callshield import messages, messages_cluster, messages_media, messages_privacy
from callshield.message_base import Message
from callshield.privacy_inventory import Inventory, inventory, parse
from callshield.privacy_page import page
from callshield.settings import Settings
from notifier.erasure import KEPT_EVENTS
from notifier.schema import metadata

ROOT = Path(__file__).parent.parent
ROOMS = ("callshield", "sipbridge", "detectors", "notifier", "firmware_profiles")
#: Modules whose structures travel or are stored.
SCHEMA = re.compile(r"callshield\.messages\w*|detectors\.(words_link|text_pipeline)")
#: Programs of developers, and measurements: they write no data of a call.
DEVELOPERS = re.compile(
    r"(detectors/(train|evaluate|report|calls_report|card|compare|examples|silero_build"
    r"|asr/(report|install)|words/(train|build|report|export))"
    r"|sipbridge/(ear_report|bench|recording_bench|rtpengine_process|pjsua2_build/|prompts/)"
    r"|callshield/(bench|demo|softphone)|notifier/console)"
)
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def compare(what: str, there: Iterable[str], listed: Iterable[str]) -> list[str]:
    """What is there and not listed, and what is listed and not there; a sentence each."""
    found, named = set(there), set(listed)
    return [
        *(f"{what} {name} is not in callshield/privacy_inventory.toml" for name in found - named),
        *(f"{what} {name} is in the inventory and nowhere else" for name in named - found),
    ]


# -------------------------------------------------------------------------------------- tables


def table_faults(schema: MetaData, known: Inventory) -> list[str]:
    faults = compare("table", schema.tables, known.tables)
    for name in schema.tables.keys() & known.tables.keys():
        columns = [f"{name}.{column.name}" for column in schema.tables[name].c]
        listed = [f"{name}.{field}" for field in known.tables[name].fields]
        faults += compare("column", columns, listed)
    return sorted(faults)


def test_every_column_is_in_the_inventory() -> None:
    assert table_faults(metadata, inventory()) == []


def test_a_new_table_or_column_is_seen() -> None:
    """Negative control."""
    schema = MetaData()
    for table in metadata.tables.values():
        table.to_metadata(schema)
    Table("addresses", schema, Column("email", String(64), primary_key=True))
    schema.tables["calls"].append_column(Column("caller_name", String(64)))
    (of_column, of_table) = table_faults(schema, inventory())
    assert of_column.startswith("column calls.caller_name is not")
    assert of_table.startswith("table addresses is not")


# ------------------------------------------------------------------------------------ messages


def structures(of: type = msgspec.Struct) -> Iterator[type[msgspec.Struct]]:
    found: type[msgspec.Struct]
    for found in of.__subclasses__():
        if found is not Message and SCHEMA.fullmatch(found.__module__):
            yield found
        yield from structures(found)


def name_of(structure: type[msgspec.Struct]) -> str:
    tag = structure.__struct_config__.tag
    return str(tag) if tag else structure.__name__


def message_faults(found: Iterable[type[msgspec.Struct]], known: Inventory) -> list[str]:
    by_name = {name_of(item): item for item in found}
    faults = compare("message", by_name, known.messages)
    for name in by_name.keys() & known.messages.keys():
        fields = [f"{name}.{field}" for field in by_name[name].__struct_fields__]
        listed = [f"{name}.{field}" for field in known.messages[name].fields]
        faults += compare("field", fields, listed)
    return sorted(faults)


def test_every_field_of_every_message_is_in_the_inventory() -> None:
    found = list(structures())
    assert {messages.CallStarted, messages_media.LegUpdate, messages.Reason} <= set(found)
    assert messages_cluster.Batch in found
    assert {detectors.words_link.Transcribed, detectors.text_pipeline.WordHit} <= set(found)
    assert message_faults(found, inventory()) == []


def test_a_new_message_or_field_is_seen() -> None:
    """Negative control."""
    more = msgspec.defstruct(
        "CallStarted", [("caller_name", str)], bases=(messages.CallStarted,), tag="call.started",
        frozen=True, kw_only=True,
    )  # fmt: skip
    new = msgspec.defstruct("CallerLocated", [("place", str)], tag="caller.located")
    rest = [item for item in structures() if item is not messages.CallStarted]
    faults = message_faults([*rest, more, new], inventory())
    assert [fault.split(" is ")[0] for fault in faults] == [
        "field call.started.caller_name",
        "message caller.located",
    ]


def test_nothing_of_an_agents_ear_or_voice_is_given_to_a_caller() -> None:
    known = inventory()
    own = {"ear.changed", "ear.dose", "ear.warning", "voice.talk", "dose", "spoke"}
    assert not [name for name in own if known.messages[name].given]
    for name in ("hearing", "voice"):
        assert known.categories[name].given == "no"
        assert known.categories[name].about == ("agent",)
    # A field of the ear that was put under another category would be given with a message.
    free = {"ts", "call_id", "agent_id", "soften", "levelling"}
    for name in own:
        fields = known.messages[name].fields
        assert {one.given for field, one in fields.items() if field not in free} == {"no"}, name


def test_what_was_asked_and_decided_is_not_given_but_what_was_handed_out_is() -> None:
    known = inventory()
    assert not known.messages["evidence.requested"].given
    assert not known.messages["evidence.changed"].given
    assert not known.tables["evidence_decisions"].given
    assert not known.tables["said"].given
    out = {name for name, one in known.messages["evidence.exported"].fields.items()
           if one.given != "no"}  # fmt: skip
    assert out == {
        "ts", "call_id", "agent_id", "unredacted", "whole", "encryption", "by_role", "by",
    }  # fmt: skip
    # What was put aside is an event like any other, with the same fields in the same form.
    aside, events = known.tables["held_events"], known.tables["events"]
    assert aside.given
    assert {**events.fields, "previous": known.categories["secret"]} == dict(aside.fields)


def test_no_two_structures_have_one_name() -> None:
    names = [name_of(item) for item in structures()]
    assert len(names) == len(set(names))


def test_events_that_stay_after_an_erasure_are_not_given_as_the_callers() -> None:
    """What stays is the agent's own, or says who read or took what: nothing else is left of a
    caller."""
    messages_ = inventory().messages
    given = {name for name in KEPT_EVENTS if messages_[name].given}
    assert given == {"evidence.exported", "record.read"}
    for name in given:
        agents = [one.given for field, one in messages_[name].fields.items() if field == "agent_id"]
        assert agents == ["agent"], "and the agent is not named in it"
    known = {name_of(item) for item in typing.get_args(messages.Event)}
    assert KEPT_EVENTS.keys() <= known
    assert {name_of(item) for item in messages_privacy.PRIVACY_EVENTS} <= known


# ---------------------------------------------------------------------------------------- logs


def log_fields(source: str) -> set[str]:
    """Names of the fields that a module's log lines have."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        base = node.func.value
        name = getattr(base, "id", "") or getattr(base, "attr", "")
        if node.func.attr in LEVELS and name in ("log", "_log", "logger"):
            found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


def test_every_field_of_a_log_line_is_in_the_inventory_and_none_is_about_a_caller() -> None:
    found = {
        field
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for field in log_fields(path.read_text(encoding="utf-8"))
    } - {"exc_info"}
    assert len(found) > 50, "the walk has something to walk"
    assert compare("log field", found, inventory().logs.fields.keys() - {"exc_info"}) == []
    personal = {"words", "number", "pseudonym", "sound", "key", "digits", "staff_text", "screen"}
    assert not {one.name for one in inventory().logs.fields.values()} & personal
    # Negative control: a new field is seen.
    assert log_fields('log.info("x", caller_name=name)') == {"caller_name"}


# --------------------------------------------------------------------------------------- files


def writes(source: str) -> bool:
    """Whether a module makes files."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
            return True
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = getattr(called, "id", "") or getattr(called, "attr", "")
        if name in ("write_text", "write_bytes", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
            return True
        # Of ``open(path, mode)`` the second, of ``path.open(mode)`` the first.
        first = 0 if isinstance(called, ast.Attribute) else 1
        modes = [*node.args[first:], *(keyword.value for keyword in node.keywords)]
        if name in ("open", "ZipFile", "GzipFile") and any(
            isinstance(mode, ast.Constant)
            and isinstance(mode.value, str)
            and re.fullmatch(r"[wxa]b?\+?|r\+b?", mode.value)
            for mode in modes
        ):
            return True
    return False


def test_every_module_that_writes_files_is_in_the_inventory() -> None:
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not DEVELOPERS.match(name) and writes(path.read_text(encoding="utf-8")):
                found.add(name)
    listed = {name for kind in inventory().files for name in kind.written_by}
    sockets = {"callshield/bus.py"}  # it binds them
    kernel = {"detectors/transcriber.py"}  # of its own process, in /proc
    assert compare("module that writes files", (found | sockets) - kernel, listed) == []
    # Negative control: a new one is seen, whichever way it opens them.
    assert writes("from pathlib import Path\nPath('x').write_text('y')")
    assert writes("import os\nos.open('x', os.O_WRONLY | os.O_CREAT)")
    assert writes("with open('x', 'w') as file: pass")
    assert not writes("with open('x', 'rb') as file: pass")


def test_every_file_that_the_configuration_names_is_in_the_inventory() -> None:
    found = set(paths_of(Settings))
    assert {"recording.directory", "node.state_dir", "agents.password_file"} <= found
    listed = {key for kind in inventory().files for key in kind.settings}
    assert compare("setting", found, listed) == []

    class More(Settings):
        transcripts: Path = Path("/var/lib/transcripts")

    # Negative control: a new one is seen.
    assert set(paths_of(More)) - found == {"transcripts"}


def paths_of(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Keys of the configuration that are paths."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        kinds += [inner for kind in kinds for inner in typing.get_args(kind)]
        if Path in kinds:
            yield f"{before}{name}"
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from paths_of(kind, f"{before}{name}.")


_OWN_FILES = re.compile(r"(?:state_dir|runtime_dir)\s*/\s*[(]?\s*f?\"([^\"{]+)\"")


def test_every_file_in_the_nodes_own_folders_is_in_the_inventory() -> None:
    found = {
        name
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for name in _OWN_FILES.findall(path.read_text(encoding="utf-8"))
        if not DEVELOPERS.match(path.relative_to(ROOT).as_posix())
    }
    assert "hearing_dose.json" in found
    assert [name for name in sorted(found) if not is_known(name)] == []
    assert not is_known("transcripts.json"), "negative control"


def is_known(name: str) -> bool:
    """Whether a file of the node's own folders is of a kind that is listed."""
    patterns = [pattern for kind in inventory().files for pattern in kind.patterns]
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


# ------------------------------------------------------------------------------- the file itself


SMALL = """
[categories.call]
says = "x"
about = ["caller"]
purpose = "y"
given = "yes"
[kept.calls]
says = "z"
[readers]
agent = "a"
[tables.calls]
kept = "calls"
read = ["agent"]
call = ["call_id"]
[messages]
[logs]
call = ["call_id"]
[[files]]
name = "f"
where = "w"
what = "v"
kept = "calls"
read = ["agent"]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('call = ["call_id"]\n[messages]', 'cal = ["call_id"]\n[messages]', "no category 'cal'"),
        ('kept = "calls"\nread = ["agent"]\ncall', 'kept = "x"\nread = ["agent"]\ncall', "kept"),
        ('read = ["agent"]\ncall', 'read = ["boss"]\ncall', "reader 'boss'"),
        ('given = "yes"', 'given = "perhaps"', "given = 'perhaps'"),
        ('given = "yes"', 'given = "no"', "why it is not given"),
        ('given = "yes"', 'given = "nested"\nof = "X"', "no structure 'X'"),
        ("[messages]", "[messages]\n[more]\nx = 1", "more"),
    ],
)
def test_an_inventory_that_contradicts_itself_is_refused(old: str, new: str, said: str) -> None:
    assert parse(SMALL).tables["calls"].fields["call_id"].purpose == "y"
    changed = SMALL.replace(old, new, 1)
    assert changed != SMALL
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(changed)


def test_every_category_time_and_reader_is_used() -> None:
    known = inventory()
    holdings = [*known.tables.values(), *known.messages.values(), known.logs]
    used = {one.name for holding in holdings for one in holding.fields.values()}
    assert used == set(known.categories)
    kept = {table.kept for table in known.tables.values()} | {file.kept for file in known.files}
    assert set(known.kept) - kept <= {"words", "logs"}, "those two are said of columns and lines"
    assert dataclasses.is_dataclass(known)


def test_the_page_is_as_generated() -> None:
    assert (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8") == page(), (
        "run: .venv/bin/python -m callshield.privacy_page > docs/privacy.md"
    )


def test_the_page_names_every_table_message_and_file() -> None:
    text = page()
    known = inventory()
    for name in (*known.tables, *known.messages):
        assert f"`{name}`" in text, name
    for kind in known.files:
        assert f"| {kind.name} |" in text, kind.name
