"""Digest answers outside of dialogs, against the examples of the RFCs."""

from __future__ import annotations

import pytest

from sipbridge.digest_accounts import Credentials
from sipbridge.digest_answer import Challenge, answer, choose, read_challenge

#: RFC 7616 section 3.9.1.
NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
REALM = "http-auth@example.org"
MUFASA = Credentials("Mufasa", "Circle of Life")


def challenge(algorithm: str, *, realm: str = REALM, more: str = "") -> str:
    return (
        f'Digest realm="{realm}", qop="auth, auth-int", algorithm={algorithm}, '
        f'nonce="{NONCE}", opaque="{OPAQUE}"{more}'
    )


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: str, response: str) -> None:
    read = read_challenge(challenge(algorithm))
    assert read is not None
    value = answer(read, MUFASA, "GET", "/dir/index.html", CNONCE)
    assert f'response="{response}"' in value
    assert f"algorithm={algorithm}" in value
    assert f'opaque="{OPAQUE}"' in value
    assert 'username="Mufasa"' in value


def test_the_way_of_rfc_2069_without_qop() -> None:
    """The example of RFC 2617 section 3.5, with the response of a server that knows no qop."""
    read = read_challenge(
        'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'
    )
    assert read is not None
    value = answer(read, Credentials("Mufasa", "Circle Of Life"), "GET", "/dir/index.html", "x")
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in value
    assert "qop" not in value
    assert "cnonce" not in value
    assert "algorithm" not in value


def test_the_first_challenge_that_can_be_answered_counts() -> None:
    """RFC 8760 section 2.4: the far end puts the best first."""
    values = [
        "Basic realm=x",
        challenge("SHA-999"),
        challenge("SHA-512-256"),
        challenge("SHA-256"),
        challenge("MD5"),
    ]
    assert _algorithm(choose(values, MUFASA)) == "SHA-512-256"
    assert _algorithm(choose(values[3:], MUFASA)) == "SHA-256"
    assert choose(values[:2], MUFASA) is None


def _algorithm(found: Challenge | None) -> str:
    return "" if found is None else found.algorithm


def test_credentials_of_a_realm_are_for_that_realm() -> None:
    mine = Credentials("a", "b", "phones")
    assert choose([challenge("MD5")], mine) is None
    assert choose([challenge("MD5"), challenge("MD5", realm="phones")], mine) is not None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Digest",
        'Digest realm="x"',
        'Digest realm="x", nonce="n", qop="auth-int"',
        'Digest realm="x", nonce="n", algorithm=MD5-sess',
        'Basic realm="x", nonce="n"',
        '"' * 1000,
    ],
)
def test_what_cannot_be_answered_is_not(value: str) -> None:
    assert read_challenge(value) is None


def test_stale_and_quotes_are_read() -> None:
    read = read_challenge(r'DIGEST realm="a\"b", nonce="n", stale=TRUE')
    assert read == Challenge('a"b', "n", "", "", (), True)
    value = answer(read, Credentials('u"v', "p"), "NOTIFY", "sip:x@192.0.2.1", "c")
    assert r'username="u\"v", realm="a\"b"' in value
