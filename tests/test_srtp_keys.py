"""SDES (RFC 4568): what a key line may say, and that no key is ever shown."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callshield.errors import SdpError
from callshield.messages_media import SrtpKeys
from sipbridge import sdp
from sipbridge.srtp_keys import (
    SUITES,
    CryptoLine,
    agreed,
    answer_line,
    fresh_lines,
    parse_crypto,
    usable_lines,
)

SHA1 = "AES_CM_128_HMAC_SHA1_80"
KEY = bytes(range(30))
INLINE = base64.b64encode(KEY).decode()


def counting() -> object:
    """Random bytes that a test can foresee: every call gives others."""
    calls = iter(range(1, 256))
    return lambda length: bytes([next(calls)]) * length


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (f"1 {SHA1} inline:{INLINE}", 1),
        # As in RFC 4568 section 6.1 and as telephones write it.
        (f"7 {SHA1} inline:{INLINE}|2^20", 7),
        (f"1 {SHA1} inline:{INLINE}|2^48", 1),
        (f"1 {SHA1} inline:{INLINE}|2147483648", 1),
        (f"999999999 {SHA1.lower()}  inline:{INLINE} WSH=64", 999999999),
        (f"2 {SHA1} inline:{INLINE} -FUTURE=1", 2),
    ],
)
def test_a_usable_line_gives_its_key(value: str, tag: int) -> None:
    assert parse_crypto(value) == CryptoLine(tag, SHA1, KEY)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (f"1 {SHA1} inline:{INLINE}|2^20|1:4", "MKI"),
        (f"1 {SHA1} inline:{INLINE}|1:4", "MKI"),
        (f"1 {SHA1} inline:{INLINE}|1:1;inline:{INLINE}|2:1", "several keys"),
        (f"1 {SHA1} inline:{INLINE}|2^10", "packets"),
        (f"1 {SHA1} inline:{INLINE}|4096", "packets"),
        (f"1 {SHA1} inline:{INLINE} UNENCRYPTED_SRTP", "session parameter"),
        (f"1 {SHA1} inline:{INLINE} KDR=1", "session parameter"),
        (f"1 F8_128_HMAC_SHA1_80 inline:{INLINE}", "suite"),
        (f"1 {SHA1} inline:{INLINE[:-4]}", "bytes"),
        (f"1 AEAD_AES_256_GCM inline:{INLINE}", "bytes"),
        (f"1 {SHA1} inline:{INLINE[:-1]}", "base64"),
        (f"1 {SHA1} inline:{INLINE[:-1]}-", "inline"),
        (f"1 {SHA1} uri:https://keys.example", "inline"),
        (f"x {SHA1} inline:{INLINE}", "form"),
        (f"1 {SHA1}", "form"),
        ("", "form"),
    ],
)
def test_a_line_that_asks_for_more_is_refused_politely(value: str, says: str) -> None:
    with pytest.raises(SdpError, match=says) as refused:
        parse_crypto(value)
    assert INLINE[:12] not in str(refused.value)


@pytest.mark.parametrize("suite", SUITES)
def test_what_we_write_we_can_read(suite: str) -> None:
    (line,) = fresh_lines([suite], lambda length: b"\xa5" * length)
    assert len(line.key) == SUITES[suite]
    assert parse_crypto(line.written()) == line


def test_unusable_lines_are_passed_over_in_order() -> None:
    values = [
        f"1 AES_256_CM_HMAC_SHA1_80 inline:{base64.b64encode(bytes(46)).decode()}",
        f"2 {SHA1} inline:{INLINE}|1:4",
        f"3 AES_CM_128_HMAC_SHA1_32 inline:{INLINE}",
        f"3 {SHA1} inline:{INLINE}",
        f"4 {SHA1} inline:{INLINE}",
    ]
    lines, _ = usable_lines(values, SUITES)
    assert [(line.tag, line.suite) for line in lines] == [
        (3, "AES_CM_128_HMAC_SHA1_32"),
        (4, SHA1),
    ]
    assert usable_lines(values[1:2], SUITES)[0] == ()
    assert "MKI" in usable_lines(values[1:2], SUITES)[1]
    assert "switched off" in usable_lines(values[4:], ["AEAD_AES_128_GCM"])[1]


def test_every_offered_suite_has_its_own_random_key() -> None:
    random = counting()
    lines = fresh_lines(SUITES, random)  # type: ignore[arg-type]
    assert [line.tag for line in lines] == [1, 2, 3, 4]
    assert len({line.key[0] for line in lines}) == 4


def test_answer_keeps_the_tag_and_has_a_key_of_its_own() -> None:
    theirs = CryptoLine(5, SHA1, KEY)
    ours = answer_line(theirs, None, lambda length: b"o" * length)
    assert (ours.tag, ours.suite, ours.key) == (5, SHA1, b"o" * 30)
    keys = agreed(ours, theirs)
    assert (keys.send, keys.receive) == (b"o" * 30, KEY)


def test_our_key_stays_as_long_as_theirs_and_changes_with_it() -> None:
    """Neither counter may begin again under an old key (RFC 3711 section 9.1)."""
    random = counting()
    first = CryptoLine(1, SHA1, KEY)
    ours = answer_line(first, None, random)  # type: ignore[arg-type]
    again = answer_line(CryptoLine(2, SHA1, KEY), (ours, first), random)  # type: ignore[arg-type]
    assert (again.tag, again.key) == (2, ours.key)
    rekeyed = answer_line(
        CryptoLine(1, SHA1, bytes(30)),
        (ours, first),
        random,  # type: ignore[arg-type]
    )
    assert rekeyed.key != ours.key


def test_no_key_is_shown() -> None:
    line = CryptoLine(1, SHA1, KEY)
    keys = SrtpKeys(suite=SHA1, send=KEY, receive=KEY)
    offer = sdp.parse(
        "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/SAVP 0\r\n"
        f"a=crypto:1 {SHA1} inline:{INLINE}\r\n"
    )
    shown = f"{line!r} {line} {keys!r} {keys} {offer!r} {offer} {offer.offered()}"
    assert SHA1 in shown
    for secret in (INLINE, INLINE[:8], repr(KEY), repr(KEY)[2:20], KEY.hex()[:12]):
        assert secret not in shown
    # Negative control: the key is there, where it belongs.
    assert INLINE in line.written()


@given(st.text(max_size=200))
def test_any_text_is_a_line_or_one_error(text: str) -> None:
    with contextlib.suppress(SdpError):
        parse_crypto(text)
    with contextlib.suppress(SdpError):
        parse_crypto(f"1 {SHA1} inline:{text}")


@given(st.binary(min_size=30, max_size=30), st.integers(0, 999999999))
def test_any_key_survives_the_line(key: bytes, tag: int) -> None:
    line = CryptoLine(tag, SHA1, key)
    assert parse_crypto(line.written()) == line
