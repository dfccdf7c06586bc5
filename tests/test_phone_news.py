"""Phones that want to be left alone, and ones that do not believe who we are."""

from __future__ import annotations

import pytest

from callshield.messages import Event, NodeDegraded
from sipbridge.phone_news import MAX_REST_S, PhoneNews, retry_after_s

URI, OTHER = "sip:1001@192.0.2.20", "sip:1002@192.0.2.21"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def sent() -> list[Event]:
    return []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5),
        ("120 (I'm in a meeting)", 120),
        ("180;duration=3600", 180),
        ("86400", MAX_REST_S),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("9" * 40, 0),
    ],
)
def test_retry_after(value: str, seconds: int) -> None:
    assert retry_after_s(value) == seconds


def test_a_phone_is_left_alone_for_as_long_as_it_asked(sent: list[Event]) -> None:
    clock = Clock()
    phones = PhoneNews(sent.append, clock)
    phones.refused(URI, "1001", 503, 5)
    assert phones.rest_s(URI) > 0
    assert phones.rest_s(OTHER) == 0
    clock.now_s += 4.9
    assert phones.rest_s(URI) == 1
    clock.now_s += 0.2
    assert phones.rest_s(URI) == 0


def test_only_a_503_means_it(sent: list[Event]) -> None:
    phones = PhoneNews(sent.append, Clock())
    phones.refused(URI, "1001", 486, 60)
    phones.refused(URI, "1001", 503, 0)
    assert phones.rest_s(URI) == 0


def test_the_alarm_lasts_until_the_last_phone_believes_us(sent: list[Event]) -> None:
    phones = PhoneNews(sent.append, Clock())
    phones.refused(URI, "1001", 401, 0)
    phones.refused(URI, "1001", 401, 0)  # told already
    phones.refused(OTHER, "1002", 407, 0)
    phones.believed(URI)
    phones.refused(OTHER, "1002", 486, 0)  # busy, but it took our name
    phones.believed(OTHER)
    alarms = [(e.degraded, e.reason[-10:]) for e in sent if isinstance(e, NodeDegraded)]
    assert alarms == [
        (True, "agent 1001"),
        (True, "1001, 1002"),
        (True, "agent 1002"),
        (False, ""),
    ]
