"""Configuration files of phones, written in each vendor's own format: deterministic, escaped.

A value with a control character is refused: in a file of lines it would begin a setting of
somebody's choice, and XML has no way to say it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from callshield.errors import SetupError
from firmware_profiles.schema import Format

_SEGMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P<tests>(\[[A-Za-z]+=[^\]/]*\])*)")
_TEST = re.compile(r"\[([A-Za-z]+)=([^\]]*)\]")
#: What XML 1.0 (section 2.2) has no character reference for, and lone surrogates.
_NOT_XML = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting to be written.

    Attributes:
        key: vendor's name, or a path in a tree.
        value: text; ``None`` where a secret is left out.
        attributes: of its element, where the format has them.
    """

    key: str
    value: str | None
    attributes: Mapping[str, str] = field(default_factory=dict)


def write(format_: Format, root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    """The file, ending in a line break.

    Args:
        format_: how.
        root: element at the top of a tree.
        entries: in their order; in a tree, elements stand where their first child came.
        remarks: comments at the top.

    Raises:
        SetupError: a value cannot be written.
    """
    for entry in entries:
        for text in (entry.value or "", *entry.attributes.values()):
            if _NOT_XML.search(text):
                raise SetupError(
                    f"the value of {entry.key} holds a control character: no phone's "
                    "configuration can carry it"
                )
    return _WRITERS[format_](root, entries, [_NOT_XML.sub(" ", remark) for remark in remarks])


def _missing(entry: Entry) -> str:
    return f"{entry.key}: a secret, left out (docs/phones.md)"


def _lines(remarks: Sequence[str], mark: str) -> list[str]:
    return [f"{mark} {remark}" for remark in remarks]


def _cfg(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = _lines(remarks, "#")
    for entry in entries:
        if entry.value is None:
            lines.append(f"# {_missing(entry)}")
        else:
            lines.append(f"{entry.key} = {entry.value}")
    return "\n".join(lines) + "\n"


def _colon(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = _lines(remarks, "#")
    for entry in entries:
        if entry.value is None:
            lines.append(f"# {_missing(entry)}")
        elif '"' in entry.value:
            raise SetupError(f'the value of {entry.key} holds a ", which this format cannot carry')
        else:
            # A number sign begins a comment unless it is quoted.
            quoted = "#" in entry.value or entry.value != entry.value.strip()
            lines.append(
                f'{entry.key}: "{entry.value}"' if quoted else f"{entry.key}: {entry.value}"
            )
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str = "") -> str:
    return f"{indent}<!-- {text.replace('--', '- -')} -->"


def _attributes(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = ['<?xml version="1.0" encoding="UTF-8" standalone="yes"?>']
    lines += [_comment(remark) for remark in remarks]
    lines += [_comment(_missing(entry)) for entry in entries if entry.value is None]
    lines += [f"<{root}>", "  <callshield"]
    lines += [
        f"    {entry.key}={quoteattr(entry.value)}" for entry in entries if entry.value is not None
    ]
    lines[-1] += " />"
    return "\n".join([*lines, f"</{root}>"]) + "\n"


def _flat_profile(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *(_comment(text) for text in remarks)]
    lines.append("<flat-profile>")
    for entry in entries:
        if entry.value is None:
            lines.append(_comment(_missing(entry), "  "))
        else:
            lines.append(f'  <{entry.key} ua="na">{escape(entry.value)}</{entry.key}>')
    return "\n".join([*lines, "</flat-profile>"]) + "\n"


def _p_values(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *(_comment(text) for text in remarks)]
    lines += ['<gs_provision version="1">', '  <config version="1">']
    for entry in entries:
        if entry.value is None:
            lines.append(_comment(_missing(entry), "    "))
        else:
            lines.append(f"    <{entry.key}>{escape(entry.value)}</{entry.key}>")
    return "\n".join([*lines, "  </config>", "</gs_provision>"]) + "\n"


@dataclass(slots=True)
class _Node:
    name: str
    attributes: dict[str, str]
    text: str | None = None
    missing: str = ""
    children: list[_Node] = field(default_factory=list)


def segments(key: str) -> list[tuple[str, dict[str, str]]]:
    """``a/b[index=1]`` as names and attributes.

    Raises:
        ValueError: it is no such path.
    """
    found = []
    for part in key.split("/"):
        match = _SEGMENT.fullmatch(part)
        if match is None:
            raise ValueError(f"a path like a/b[index=1], not {key!r}")
        found.append((match["name"], dict(_TEST.findall(match["tests"]))))
    return found


def _tree(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    top = _Node(root, {})
    for entry in entries:
        node = top
        for name, tests in segments(entry.key):
            same = [
                child
                for child in node.children
                if child.name == name and tests.items() <= child.attributes.items()
            ]
            if not same:
                same = [_Node(name, dict(tests))]
                node.children += same
            node = same[0]
        node.attributes |= entry.attributes
        if entry.value is None:
            node.missing = _missing(entry)
        else:
            node.text = entry.value
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *(_comment(text) for text in remarks)]
    return "\n".join([*lines, *_drawn(top, "")]) + "\n"


def _drawn(node: _Node, indent: str) -> list[str]:
    if node.missing:
        return [_comment(node.missing, indent)]
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in node.attributes.items())
    if not node.children:
        return [f"{indent}<{node.name}{attributes}>{escape(node.text or '')}</{node.name}>"]
    inside = [line for child in node.children for line in _drawn(child, indent + "  ")]
    return [f"{indent}<{node.name}{attributes}>", *inside, f"{indent}</{node.name}>"]


def _ini(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = _lines(remarks, "#")
    sections: dict[str, list[str]] = {}
    for entry in entries:
        name, _, key = entry.key.rpartition("/")
        inside = sections.setdefault(name, [])
        inside.append(f"# {_missing(entry)}" if entry.value is None else f"{key}={entry.value}")
    for name, inside in sections.items():
        lines += ["", f"[{name}]", *inside]
    return "\n".join(lines) + "\n"


def _account(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    """baresip's accounts: one line, ``<sip:…>;name=value;…``."""
    lines = _lines(remarks, "#")
    lines += [f"# {_missing(entry)}" for entry in entries if entry.value is None]
    address = next(entry.value or "" for entry in entries if entry.key == "address")
    if re.search(r'[<>"\s]', address):
        raise SetupError("the account's address holds a < > \" or space: refused")
    parameters = []
    for entry in entries:
        if entry.key == "address" or entry.value is None:
            continue
        if re.search(r'[;"<>\s]', entry.value):
            raise SetupError(f'the value of {entry.key} holds a ; " < > or space: refused')
        parameters.append(f";{entry.key}={entry.value}")
    return "\n".join([*lines, f"<{address}>{''.join(parameters)}"]) + "\n"


def _by_hand(root: str, entries: Sequence[Entry], remarks: Sequence[str]) -> str:
    lines = _lines(remarks, "#")
    for entry in entries:
        shown = "(a secret, left out)" if entry.value is None else entry.value
        lines.append(f"{entry.key} = {shown}")
    return "\n".join(lines) + "\n"


_WRITERS: dict[Format, Callable[[str, Sequence[Entry], Sequence[str]], str]] = {
    "cfg": _cfg,
    "colon": _colon,
    "attributes": _attributes,
    "cnf_xml": _tree,
    "flat_profile": _flat_profile,
    "p_values": _p_values,
    "snom": _tree,
    "fanvil": _tree,
    "ini": _ini,
    "account": _account,
    "by_hand": _by_hand,
}
