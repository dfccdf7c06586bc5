"""Configuration files of phones, read: as exported from a phone, or as somebody wrote them.

What comes from outside is bounded in size and depth; a document type with entities is refused
before anything of it is expanded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from callshield.errors import SetupError
from firmware_profiles.schema import Format

#: An exported configuration of a large phone has some 500 kB.
LARGEST_BYTES = 4 * 1024 * 1024
_DEEPEST = 32
_MOST_KEYS = 50_000
#: Attributes by which elements of one name differ.
_TELLING = ("index", "idx", "button", "priority")
_DTD = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def read(format_: Format, raw: bytes) -> dict[str, str]:
    """Every setting of a file; a key that comes again keeps its last value, as on the phones.

    Raises:
        SetupError: it is too large, no text, or not of this format.
    """
    if len(raw) > LARGEST_BYTES:
        raise SetupError(f"the file has more than {LARGEST_BYTES // 1024} KiB: no configuration")
    found = _READERS[format_](raw)
    if len(found) > _MOST_KEYS:
        raise SetupError(f"the file has more than {_MOST_KEYS} settings: no configuration")
    return found


def formats_of(raw: bytes) -> list[Format]:
    """The formats that these bytes could be of, from their beginning."""
    head = raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:65536]
    if head.startswith((b"<sip:", b"<sips:")):
        return ["account"]
    if not head.startswith(b"<"):
        return ["cfg", "colon", "ini", "p_values", "by_hand", "account"]
    marks: list[tuple[bytes, Format]] = [
        (b"<gs_provision", "p_values"),
        (b"<flat-profile", "flat_profile"),
        (b"<device", "cnf_xml"),
        (b"<settings", "snom"),
        (b"<phone-settings", "snom"),
        (b"<sysConf", "fanvil"),
    ]
    named: list[Format] = [format_ for mark, format_ in marks if mark in head]
    return named or ["attributes"]


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("iso-8859-1")
    if "\x00" in text:
        raise SetupError("the file is no text: is it encrypted, or a firmware?")
    return text


def _pairs(raw: bytes, sign: str, comments: str) -> dict[str, str]:
    found = {}
    for line in _text(raw).splitlines():
        line = line.strip()
        if not line or line[0] in comments:
            continue
        key, middle, value = line.partition(sign)
        if middle:
            found[key.strip()] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def _cfg(raw: bytes) -> dict[str, str]:
    return _pairs(raw, "=", "#;[")


def _colon(raw: bytes) -> dict[str, str]:
    found = {}
    for key, value in _pairs(raw, ":", "#").items():
        # What is not quoted ends where a comment begins.
        found[key.lower()] = value if value.startswith('"') else re.split(r"\s#", value)[0].strip()
    return found


def _ini(raw: bytes) -> dict[str, str]:
    found = {}
    section = ""
    for line in _text(raw).splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and line[0] not in "#;":
            key, middle, value = line.partition("=")
            if middle:
                found[f"{section}/{key.strip()}" if section else key.strip()] = _unquoted(value)
    return found


def _account(raw: bytes) -> dict[str, str]:
    for line in _text(raw).splitlines():
        match = re.fullmatch(r'\s*(?:"[^"]*"\s*)?<([^>]+)>(.*)', line)
        if match:
            found = {"address": match[1]}
            for part in match[2].split(";"):
                key, middle, value = part.partition("=")
                if middle:
                    found[key.strip()] = _unquoted(value)
            return found
    return {}


def _xml(raw: bytes) -> Element:
    if _DTD.search(raw):
        raise SetupError(
            "the file has a document type of its own: refused, as it may hide entities"
        )
    parser = XMLParser(target=TreeBuilder())
    try:
        parser.feed(raw)
        found: Element = parser.close()
    except (ParseError, ValueError) as error:
        raise SetupError(f"the file is no well-formed XML: {error}") from None
    return found


def _attributes(raw: bytes) -> dict[str, str]:
    """Every attribute of every element, whatever it is nested in."""
    return {key: value for element in _xml(raw).iter() for key, value in element.attrib.items()}


def _flat(raw: bytes) -> dict[str, str]:
    return {element.tag: (element.text or "").strip() for element in _xml(raw)}


def _p_values(raw: bytes) -> dict[str, str]:
    if not raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        found = _pairs(raw, "=", "#;")
        # ``P57 = 0   # choice 1``
        return {key: re.split(r"\s#", value)[0].strip() for key, value in found.items()}
    return {
        element.tag: (element.text or "").strip()
        for element in _xml(raw).iter()
        if re.fullmatch(r"P\d+", element.tag)
    }


def _tree(raw: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = [("", element, 1) for element in reversed(list(_xml(raw)))]
    while waiting:
        path, element, depth = waiting.pop()
        if depth > _DEEPEST:
            raise SetupError(f"the file is nested deeper than {_DEEPEST} elements")
        tests = "".join(
            f"[{name}={element.attrib[name]}]" for name in _TELLING if name in element.attrib
        )
        here = f"{path}/{element.tag}{tests}" if path else f"{element.tag}{tests}"
        if len(element) == 0:
            found[here] = (element.text or "").strip()
        waiting += [(here, child, depth + 1) for child in reversed(list(element))]
    return found


def _snom(raw: bytes) -> dict[str, str]:
    """``<settings>`` with sections inside, or the section alone."""
    found = _tree(raw)
    root = _xml(raw).tag
    return found if root == "settings" else {f"{root}/{key}": value for key, value in found.items()}


_READERS: Mapping[Format, Callable[[bytes], dict[str, str]]] = {
    "cfg": _cfg,
    "colon": _colon,
    "attributes": _attributes,
    "cnf_xml": _tree,
    "flat_profile": _flat,
    "p_values": _p_values,
    "snom": _snom,
    "fanvil": _tree,
    "ini": _ini,
    "account": _account,
    "by_hand": _cfg,
}
