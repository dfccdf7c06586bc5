"""``docs/privacy.md``: the inventory of personal data, generated so that it cannot be wrong.

``python -m callshield.privacy_page > docs/privacy.md``; a test holds the two together. What stands
before and after the tables is ``privacy_page.md`` beside this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec

from callshield import messages_cluster, messages_media
from callshield.messages import Event
from callshield.privacy_inventory import Category, Holding, Inventory, inventory
from callshield.settings_store import PRESETS
from detectors import text_pipeline, words_link
from notifier.erasure import ERASED_TABLES, KEPT_EVENTS, KEPT_TABLES, OF_ALERTS
from notifier.outside import MACHINE_TYPES, may_be_told
from notifier.views import SUPERVISOR_TYPES

#: Where structures are that nothing above brings with it.
_LOADED = (messages_cluster, messages_media, text_pipeline, words_link)
#: Stands where the tables go.
_MARK = "<!-- inventory -->"
_GIVEN = {
    "yes": "as it is",
    "agent": "as a neutral word",
    "staff": "as a neutral word",
    "present": "that it is kept",
    "nested": "as its fields",
    "no": "no",
}


def page() -> str:
    """The whole page."""
    known = inventory()
    parts = (
        _categories(known),
        _retention(),
        _tables(known),
        _messages(known),
        _files(known),
        _logs(known),
    )
    text = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    assert text.count(_MARK) == 1
    return text.replace(_MARK, "\n\n".join("\n".join(part) for part in parts))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _categories(known: Inventory) -> Iterator[str]:
    yield "## Categories"
    yield ""
    yield _row("category", "what", "about", "purpose", "given to the caller")
    yield "|---|---|---|---|---|"
    for one in known.categories.values():
        given = _GIVEN[one.given]
        yield _row(
            f"`{one.name}`",
            one.says,
            ", ".join(one.about),
            one.purpose,
            f"no: {one.why}" if one.why else given,
        )


def _retention() -> Iterator[str]:
    yield "## How long"
    yield ""
    yield "`callshield privacy retention` shows what is in force on a node. Days by preset:"
    yield ""
    yield _row("kind", *PRESETS)
    yield "|---|" + "---|" * len(PRESETS)
    for kind in next(iter(PRESETS.values())):
        yield _row(f"`{kind}`", *(str(days[kind]) for days in PRESETS.values()))


def _fields(fields: Mapping[str, Category]) -> str:
    """``category: field, field; …`` in the order of the inventory."""
    by_name: dict[str, list[str]] = {}
    for name, category in fields.items():
        by_name.setdefault(category.name, []).append(f"`{name}`")
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in by_name.items())


def _readers(names: Iterable[str], known: Inventory) -> str:
    return "; ".join(known.readers[name] for name in names)


def _erased(name: str) -> str:
    if name in (*ERASED_TABLES, *OF_ALERTS):
        return "goes"
    if name in KEPT_TABLES:
        return f"stays: {KEPT_TABLES[name]}" if name != "events" else KEPT_TABLES[name]
    return "speaks of no call"


def _tables(known: Inventory) -> Iterator[str]:
    yield "## Tables"
    yield ""
    yield (
        "In the store: the SQLite file `callshield.sqlite3` in `node.state_dir`, or the PostgreSQL "
        "of `[store] url`."
    )
    for name, table in sorted(known.tables.items()):
        yield ""
        yield f"### `{name}`"
        yield ""
        yield table.what
        yield ""
        yield f"- columns: {_fields(table.fields)}"
        yield f"- kept: {known.kept[table.kept]}"
        if name == "events":
            yield f"- kept, column `words`: {known.kept['words']}"
        yield f"- read by: {_readers(table.read, known)}"
        yield f"- when a call is erased: {_erased(name)}"


def _about(structure: type[msgspec.Struct]) -> str:
    """First sentence of a structure's description."""
    text = " ".join((structure.__doc__ or "").split())
    return text.partition(". ")[0].partition(": ")[0].rstrip(".")


def _named() -> dict[str, type[msgspec.Struct]]:
    found: dict[str, type[msgspec.Struct]] = {}
    waiting = [msgspec.Struct]
    while waiting:
        for one in waiting.pop().__subclasses__():
            waiting.append(one)
            found[str(one.__struct_config__.tag or one.__name__)] = one
    return found


def _message(name: str, holding: Holding, stored: bool, known: Inventory) -> Iterator[str]:
    structure = _named().get(name)
    yield f"- `{name}`" + (f" {_about(structure)}." if structure else "")
    yield f"  - {_fields(holding.fields)}"
    if not stored:
        return
    seen = [
        *(["supervisors' screens"] if name in SUPERVISOR_TYPES else []),
        *(["webhooks"] if may_be_told(name) or name in MACHINE_TYPES else []),
    ]
    erased = f"stays: {KEPT_EVENTS[name]}" if name in KEPT_EVENTS else "emptied"
    given = "given" if holding.given else "not given"
    also = f"; also to {' and '.join(seen)}" if seen else ""
    yield f"  - {given} to the caller; when its call is erased: {erased}{also}"


def _messages(known: Inventory) -> Iterator[str]:
    events = {str(one.__struct_config__.tag) for one in get_args(Event)}
    yield "## Messages"
    yield ""
    yield (
        "Stored as events (table `events`), where one says so; an agent's screen is sent those of "
        "his own calls. Quotations stand in the column `words`, apart from the event."
    )
    yield ""
    for name, holding in sorted(known.messages.items()):
        if name in events and name != "call.snapshot":
            yield from _message(name, holding, True, known)
    yield ""
    yield "Between the node's processes, over Unix sockets; kept by nobody in this form:"
    yield ""
    for name, holding in sorted(known.messages.items()):
        if name not in events or name == "call.snapshot":
            yield from _message(name, holding, False, known)


def _files(known: Inventory) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield _row("file", "where", "what", "about", "kept", "read by")
    yield "|---|---|---|---|---|---|"
    for one in known.files:
        yield _row(
            one.name,
            one.where,
            one.what,
            ", ".join(one.holds) or "nobody",
            known.kept[one.kept],
            _readers(one.read, known),
        )


def _logs(known: Inventory) -> Iterator[str]:
    yield "## Logs"
    yield ""
    yield f"Standard error, one event a line; kept: {known.kept['logs']}. Fields:"
    yield ""
    yield _row("category", "fields")
    yield "|---|---|"
    by_name: dict[str, list[str]] = {}
    for name, category in known.logs.fields.items():
        by_name.setdefault(category.name, []).append(f"`{name}`")
    for category_name, names in by_name.items():
        yield _row(f"`{category_name}`", ", ".join(names))


if __name__ == "__main__":
    print(page(), end="")
