"""A phone's HTTP request, read strictly; whatever bytes come, a request or a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firmware_profiles.phone_request import (
    LARGEST_BODY_BYTES,
    LARGEST_HEAD_BYTES,
    LARGEST_LINE_BYTES,
    PhoneRequest,
    Refused,
    head_length,
    parse_head,
)


def parse(head: bytes) -> PhoneRequest:
    length = head_length(head)
    assert length is not None
    return parse_head(head[:length])


def status(head: bytes) -> int:
    with pytest.raises(Refused) as refused:
        parse(head)
    return refused.value.status


YEALINK = (
    b"GET /p/abc/event?event=established&mac=805ec0123456 HTTP/1.1\r\n"
    b"Accept: */*\r\nHost: 192.0.2.5:8089\r\nUser-Agent: Yealink SIP-T46S 66.85.0.5\r\n\r\n"
)
POLY = (
    b"POST /p/abc/event HTTP/1.1\r\nHost: x\r\nContent-Type: application/xml\r\n"
    b"Content-Length: 5\r\n\r\n<a/>\n"
)


def test_what_phones_send_is_read() -> None:
    request = parse(YEALINK)
    assert (request.method, request.path) == ("GET", "/p/abc/event")
    assert request.fields() == {"event": "established", "mac": "805ec0123456"}
    assert parse(POLY).body_bytes == 5
    assert parse(b"HEAD / HTTP/1.0\r\n\r\n").method == "HEAD"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET http://192.0.2.5/p/a/end HTTP/1.1\r\n\r\n", 400),
        (b"GET /p/a/end\r\n\r\n", 400),
        (b"GET  /p/a/end HTTP/1.1\r\n\r\n", 400),
        (b"GET /p/a/end  HTTP/1.1\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /a\nX: y HTTP/1.1\r\n\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (b"CONNECT /x HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY_BYTES + 1), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n", 431),
        (b"GET /" + b"a" * LARGEST_LINE_BYTES + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * LARGEST_HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_no_phone_sends_is_refused(head: bytes, expected: int) -> None:
    assert status(head) == expected


def test_a_head_that_never_ends_is_refused_before_it_is_large() -> None:
    with pytest.raises(Refused) as refused:
        head_length(b"GET /" + b"a" * LARGEST_LINE_BYTES)
    assert refused.value.status == 414
    with pytest.raises(Refused) as refused:
        head_length(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000)
    assert refused.value.status == 431
    assert head_length(b"GET / HTTP/1.1\r\nA:") is None
    assert head_length(b"") is None


def test_a_form_is_read_and_another_body_is_not() -> None:
    form = b"Content-Type: Application/x-www-form-urlencoded; charset=utf-8\r\n"
    request = parse(b"POST /a?x=1 HTTP/1.1\r\n" + form + b"Content-Length: 9\r\n\r\n")
    assert request.is_form
    assert replace(request, body=b"y=2&x=3&z").fields() == {"x": "1", "y": "2", "z": ""}
    assert not parse(POLY).is_form
    for body in (b"y=%ff", b"\xff", b"&".join([b"a"] * 40)):
        with pytest.raises(Refused):
            replace(request, body=body).fields()


@pytest.mark.parametrize("query", ["a=%ff", "&".join("abcdefghijklmnopqrstuvwxyzABCDEFGH")])
def test_a_query_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(Refused):
        PhoneRequest("GET", "/", query, 0).fields()


def test_the_first_field_of_a_name_counts_and_nothing_is_shown() -> None:
    request = PhoneRequest("GET", "/p/secret/end", "a=1&a=2&b=%EB%A7%90", 0)
    assert request.fields() == {"a": "1", "b": "말"}
    assert "secret" not in repr(request)


@given(st.binary(max_size=600))
@example(b"GET / HTTP/1.1\r\n\r\n")
@example(YEALINK)
def test_any_bytes_are_a_request_or_a_refusal(raw: bytes) -> None:
    _is_read_or_refused(raw)


@given(st.data())
def test_a_phones_request_with_bytes_changed(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([YEALINK, POLY])))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(raw)))
        width = data.draw(st.integers(0, 4))
        raw[place : place + width] = data.draw(st.binary(max_size=8))
    _is_read_or_refused(bytes(raw))


def _is_read_or_refused(raw: bytes) -> None:
    statuses: set[int] = set()
    for part in (raw, raw + b"\r\n\r\n"):
        try:
            length = head_length(part)
            if length is None:
                continue
            request = parse_head(part[:length])
            fields = request.fields()
        except Refused as refused:
            statuses.add(refused.status)
            continue
        assert request.method in ("GET", "HEAD", "POST")
        assert request.path.startswith("/")
        assert request.path.isascii()
        assert request.path.isprintable()
        assert " " not in request.path
        assert 0 <= request.body_bytes <= LARGEST_BODY_BYTES
        assert len(fields) <= 32
    assert statuses <= {400, 405, 413, 414, 431, 501, 505}
