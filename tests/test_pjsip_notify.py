"""A NOTIFY by way of the PBX: nothing gets lost in its splitting, and nothing gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import AmiProtocolError
from notifier.ami_protocol import encode
from notifier.pjsip_notify import notify_fields

TEXT = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=60,
)


def split_as_asterisk(value: str) -> list[str]:
    """``AST_STANDARD_APP_ARGS`` of Asterisk 16, main/app.c: commas part, quotes group, a
    backslash takes the next character as it is, brackets nest."""
    parts, part, quoted, depth, at = [], "", False, 0, 0
    while at < len(value):
        letter = value[at]
        if letter == "\\" and at + 1 < len(value):
            at += 1
            part += value[at]
        elif letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted and depth == 0:
            parts.append(part)
            part = ""
        else:
            depth += letter == "("
            depth -= letter == ")" and depth > 0
            part += letter
        at += 1
    return [*parts, part]


@given(TEXT, st.lists(TEXT, max_size=4))
def test_every_value_survives_the_split(event: str, lines: list[str]) -> None:
    fields = notify_fields("1001", event, "text/plain", "\n".join(lines))
    assert fields[0] == ("Endpoint", "1001")
    said = [split_as_asterisk(value) for name, value in fields[1:] if name == "Variable"]
    assert said == [[f"Event={event}"], ["Content-type=text/plain"]] + [
        [f"Content={line}"] for line in lines
    ]
    encode("PJSIPNotify", fields, "t-1")


def test_the_split_takes_apart_what_is_not_escaped() -> None:
    """Negative control of the model above."""
    assert split_as_asterisk('Content=a,b "c,d"') == ["Content=a", "b c,d"]


def test_lines_may_end_either_way_and_empty_ones_are_left_out() -> None:
    fields = notify_fields("1001", "x", "text/plain", "a\r\n\r\nb\n")
    assert [value for _, value in fields[3:]] == ["Content=a", "Content=b"]


@pytest.mark.parametrize(
    ("endpoint", "event", "content_type", "body", "headers"),
    [
        ("1001\r\nAction: Originate", "x", "", "", {}),
        ("1001,1002", "x", "", "", {}),
        ("1001", "x\r\nVariable: y", "", "", {}),
        ("1001", "x\ny", "", "", {}),
        ("1001", "", "", "", {}),
        ("1001", "x", "a\nb", "body", {}),
        ("1001", "x", "", "body", {}),
        ("1001", "x", "", "", {"X-A": "b\r\nc"}),
        ("1001", "x", "", "", {"X A": "b"}),
        ("1001", "x", "", "", {"X-A: b\r\nX": "b"}),
        ("1001", "x", "", "", {"Via": "SIP/2.0/UDP 192.0.2.1"}),
        ("1001", "x", "", "", {"content-LENGTH": "0"}),
    ],
)
def test_what_could_become_something_else_is_refused(
    endpoint: str, event: str, content_type: str, body: str, headers: dict[str, str]
) -> None:
    with pytest.raises(AmiProtocolError):
        notify_fields(endpoint, event, content_type, body, headers)
