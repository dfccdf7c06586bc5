"""The documents that phones understand: one function a ``document`` kind of ``[[push]]``. Pure.

Sources stand in the profiles. Text is escaped, cut to the display and to the largest document;
what is made is always well-formed XML. A screen that hides the phone's own soft keys brings its
own where a listener takes them (``keys``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode
from xml.sax.saxutils import escape, quoteattr

from firmware_profiles.schema import PushMethod
from firmware_profiles.screen_text import Words, answer_words, clean, cut, fitted

#: A screen that goes by itself is shown so long; it is sent again while it is still needed.
HOLD_S = 60
#: A label is no longer; phones cut it further, each in its own way.
_LABEL_CELLS = 20
#: The screen that replaces it at the end.
_GONE_S = 2


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A soft key of a screen. The address holds an agent's token: not for a log.

    Attributes:
        url: what it fetches; empty: it closes the screen.
    """

    label: str
    url: str = ""

    def __repr__(self) -> str:
        return f"Key({self.label!r})"


Maker = Callable[[Sequence[str], Sequence[Key], int], str]


def text_document(
    method: PushMethod, said: Words, keys: Sequence[Key] = (), *, hold_s: int = HOLD_S
) -> bytes:
    """A document that shows words.

    Args:
        method: how it is pushed; its ``document`` is not ``cisco_execute``, which shows nothing.
        said: the important lines first; the last ones go where there is no room.
        keys: soft keys; they go before lines do.
        hold_s: after so long it goes by itself, where the phone can do that.

    Raises:
        ValueError: this kind shows no text.
    """
    make = _MAKERS.get(method.document)
    if make is None:
        raise ValueError(f"{method.document or 'no document'} shows no text")
    lines = fitted(said, method.lines, method.characters)
    keys = _plain(keys)
    while True:
        body = _encoded(method, make(lines, keys, hold_s))
        if len(body) <= method.max_bytes:
            return body
        if keys:
            keys = []
        elif len(lines) > 1:
            lines = lines[:-1]
        elif lines and lines[0]:
            lines = [lines[0][:-1]]
        else:
            return body


def clear_document(method: PushMethod, said: Words) -> bytes:
    """A document that takes the screen away.

    Args:
        method: how it was pushed.
        said: shown for a moment where a screen can only be replaced.
    """
    match method.document, method.clears_by:
        case ("poly_xhtml", "key"):
            return _encoded(method, _poly(escape(method.clear_key or "")))
        case ("snom_text", "exit_command"):
            return _encoded(
                method,
                f'{_HEAD}<IPPhoneSilent document_id="callshield">\n'
                '<fetch mil="10">phone://mb_exit</fetch>\n</IPPhoneSilent>\n',
            )
        case ("cisco_execute", "exit_command"):
            return execute_document(method, "Init:Services")
        case (_, "empty_text"):
            return text_document(method, Words(" "), hold_s=_GONE_S)
        case _:
            return text_document(method, said, hold_s=_GONE_S)


def execute_document(method: PushMethod, url: str) -> bytes:
    """Cisco: the phone is told to fetch a screen, or to do something itself.

    Args:
        method: how it is pushed.
        url: an address of ours, or an internal URI (``Init:Services``).
    """
    return _encoded(
        method,
        "<CiscoIPPhoneExecute>\n"
        f'<ExecuteItem Priority="0" URL={quoteattr(url)}/>\n'
        "</CiscoIPPhoneExecute>\n",
    )


def cisco_page(method: PushMethod, said: Words, keys: Sequence[Key] = ()) -> bytes:
    """The screen that an ``Execute`` makes a Cisco phone fetch."""
    lines = fitted(said, method.lines, method.characters)
    return _cisco(lines, _plain(keys), HOLD_S).encode("utf-8")


def answer_document(method: PushMethod, text: str) -> tuple[bytes, str] | None:
    """A sentence as the answer to a key that fetched one of our addresses.

    Returns:
        Document and content type; ``None``: this phone shows nothing, plain text will do.
    """
    said = answer_words(text)
    match method.document:
        case "cisco_execute" | "cisco_text":
            return cisco_page(method, said), "text/xml; charset=utf-8"
        case "poly_xhtml":
            lines = fitted(said, method.lines + 1, method.characters)[1:]
            inner = "<br/>".join(escape(line) for line in lines)
            page = f"<html><head><title>Callshield</title></head><body>{inner}</body></html>"
            return page.encode(), "text/html; charset=utf-8"
        case "yealink_text" | "aastra_text" | "snom_text" | "fanvil_text":
            return text_document(method, said), f"text/xml; charset={method.encoding}"
        case _:
            return None


def posted(method: PushMethod, body: bytes) -> bytes:
    """A document as it is posted: as it is, in a form, or behind the field's name.

    Some phones call it ``text/xml`` and want ``xml=`` before it all the same, not URL-encoded.
    """
    if not method.form_field:
        return body
    if method.content_type == "application/x-www-form-urlencoded":
        return urlencode({method.form_field: body}).encode()
    return method.form_field.encode() + b"=" + body


def _plain(keys: Sequence[Key]) -> list[Key]:
    return [Key(cut(clean(key.label), _LABEL_CELLS), key.url) for key in keys]


def _encoded(method: PushMethod, text: str) -> bytes:
    if method.encoding == "utf-8":
        return text.encode()
    # Some documents have no prolog that could name the encoding: ASCII is right in all of them.
    text = text.replace(' encoding="UTF-8"', f' encoding="{method.encoding.upper()}"', 1)
    return text.encode("ascii", "xmlcharrefreplace")


_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def _split(lines: Sequence[str]) -> tuple[str, list[str]]:
    title = lines[0] if lines else ""
    # A screen without text is refused by some: the title alone is shown twice then.
    return escape(title), [escape(line) for line in lines[1:]] or [escape(title)]


def _yealink(lines: Sequence[str], keys: Sequence[Key], hold_s: int) -> str:
    title, rest = _split(lines)
    return (
        f'{_HEAD}<YealinkIPPhoneTextScreen Beep="no" Timeout="{hold_s}" LockIn="no">\n'
        f"<Title>{title}</Title>\n<Text>{_NEWLINE.join(rest)}</Text>\n{_soft_keys(keys)}"
        "</YealinkIPPhoneTextScreen>\n"
    )


def _aastra(lines: Sequence[str], keys: Sequence[Key], hold_s: int) -> str:
    title, rest = _split(lines)
    # allowDTMF: digits typed under the screen go into the call, where they are our codes.
    return (
        f'{_HEAD}<AastraIPPhoneTextScreen destroyOnExit="yes" Beep="no" Timeout="{hold_s}" '
        'LockIn="no" allowDTMF="yes">\n'
        f"<Title>{title}</Title>\n<Text>{_NEWLINE.join(rest)}</Text>\n{_soft_keys(keys)}"
        "</AastraIPPhoneTextScreen>\n"
    )


def _soft_keys(keys: Sequence[Key]) -> str:
    return "".join(
        f'<SoftKey index="{number}">\n<Label>{escape(key.label)}</Label>\n'
        f"<URI>{escape(key.url or 'SoftKey:Exit')}</URI>\n</SoftKey>\n"
        for number, key in enumerate(keys, 1)
    )


def _fanvil(lines: Sequence[str], keys: Sequence[Key], hold_s: int) -> str:
    title, rest = _split(lines)
    return (
        f'{_HEAD}<FanvilIPPhoneText beep="no">\n'
        f"<Title>{title}</Title>\n<Text>{_NEWLINE.join(rest)}</Text>\n</FanvilIPPhoneText>\n"
    )


def _snom(lines: Sequence[str], keys: Sequence[Key], hold_s: int) -> str:
    title, rest = _split(lines)
    soft = "".join(
        f"<SoftKeyItem>\n<Name>F{number}</Name>\n<Label>{escape(key.label)}</Label>\n"
        f"<URL>{escape(key.url or 'phone://mb_exit')}</URL>\n</SoftKeyItem>\n"
        for number, key in enumerate(keys, 1)
    )
    return (
        f"{_HEAD}<SnomIPPhoneText>\n<Title>{title}</Title>\n"
        f"<Text>{'<br/>'.join(rest)}</Text>\n{soft}</SnomIPPhoneText>\n"
    )


def _poly_text(lines: Sequence[str], keys: Sequence[Key], hold_s: int) -> str:
    title, rest = _split(lines)
    soft = "".join(
        f'<softkey index="{number}" label={quoteattr(key.label)} '
        f"action={quoteattr('SoftKey:Fetch;' + key.url if key.url else 'SoftKey:Back')}/>"
        for number, key in enumerate(keys, 1)
    )
    return _poly(f"<h1>{title}</h1>{'<br/>'.join(rest)}{soft}")


def _poly(inner: str) -> str:
    return f'<PolycomIPPhone>\n<Data priority="Critical">{inner}</Data>\n</PolycomIPPhone>\n'


def _cisco(lines: Sequence[str], keys: Sequence[Key], hold_s: int) -> str:
    title, rest = _split(lines)
    soft = "".join(
        f"<SoftKeyItem>\n<Name>{escape(key.label)}</Name>\n"
        f"<URL>{escape(key.url or 'SoftKey:Exit')}</URL>\n"
        f"<Position>{number}</Position>\n</SoftKeyItem>\n"
        for number, key in enumerate(keys, 1)
    )
    return (
        f"{_HEAD}<CiscoIPPhoneText>\n<Title>{title}</Title>\n"
        f"<Text>{_NEWLINE.join(rest)}</Text>\n{soft}</CiscoIPPhoneText>\n"
    )


_NEWLINE = "\n"
_MAKERS: dict[str, Maker] = {
    "yealink_text": _yealink,
    "aastra_text": _aastra,
    "fanvil_text": _fanvil,
    "snom_text": _snom,
    "poly_xhtml": _poly_text,
    "cisco_text": _cisco,
}
