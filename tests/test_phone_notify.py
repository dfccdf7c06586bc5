"""Requests to phones outside of dialogs: who is told what and when, by a clock of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from callshield.messages_phones import NotifySent, SendNotify
from sipbridge.digest_accounts import Credentials
from sipbridge.phone_notify import (
    MAX_A_PHONE,
    MAX_BODY_BYTES,
    MAX_LIMIT_S,
    MAX_UNDER_WAY,
    NotSent,
    PhoneNotify,
)

LIMIT_S = 2.0
CHALLENGE = 'WWW-Authenticate: Digest realm="r", nonce="{}", algorithm=MD5, qop="auth"{}'


@dataclass
class Timer:
    at_s: float
    work: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class World:
    """PJSIP, the clock and whoever asked."""

    agents: int = 1
    limit_s: float = LIMIT_S
    now_s: float = 0.0
    timers: list[Timer] = field(default_factory=list)
    posted: list[tuple[str, dict[str, str], str, str]] = field(default_factory=list)
    told: list[NotifySent] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        uris = {f"a{number}": f"sip:a{number}@192.0.2.20" for number in range(self.agents)}
        self.notify = PhoneNotify(
            uris,
            {"sip:a0@192.0.2.20": Credentials("cs", "secret-word")},
            lambda uri: "sip:callshield@192.0.2.10:5062",
            self._post,
            self.told.append,
            self.limit_s,
            self._later,
        )

    def _post(self, uri: str, headers: list[tuple[str, str]], content_type: str, body: str) -> int:
        if self.broken:
            raise NotSent("PJSIP cannot send it")
        self.posted.append((uri, dict(headers), content_type, body))
        return len(self.posted)

    def _later(self, delay_s: float, work: Callable[[], None]) -> Timer:
        timer = Timer(self.now_s + delay_s, work)
        self.timers.append(timer)
        return timer

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in list(self.timers):
            if timer.at_s <= self.now_s:
                self.timers.remove(timer)
                if not timer.cancelled:
                    timer.work()

    def send(self, agent: str = "a0", **other: str) -> str:
        request_id = f"r{len(self.posted)}-{len(self.told)}"
        fields = {"event": "xml", "content_type": "application/xml", "body": "<a/>", **other}
        self.notify.send(SendNotify(request_id=request_id, agent_id=agent, via="bridge", **fields))
        return request_id

    def answer(self, token: int, status: int, *headers: str) -> None:
        lines = [f"SIP/2.0 {status} Said", *headers, "", ""]
        self.notify.answered(token, status, "\r\n".join(lines))

    @property
    def statuses(self) -> list[int]:
        return [one.status for one in self.told]


def test_what_is_sent() -> None:
    world = World()
    world.send()
    uri, headers, content_type, body = world.posted[0]
    assert uri == "sip:a0@192.0.2.20"
    assert headers == {
        "Contact": "<sip:callshield@192.0.2.10:5062>",
        "Event": "xml",
        "Subscription-State": "terminated;reason=timeout",
    }
    assert (content_type, body) == ("application/xml", "<a/>")
    assert world.told == []


def test_without_a_body_there_is_no_content_type() -> None:
    world = World()
    world.send(body="")
    assert world.posted[0][2:] == ("", "")


def test_the_phone_s_answer_is_passed_on_once() -> None:
    world = World()
    request_id = world.send()
    world.answer(1, 200)
    assert world.told == [NotifySent(request_id=request_id, status=200, detail="")]
    world.answer(1, 200)
    world.pass_s(60)
    assert len(world.told) == 1
    assert len(world.notify) == 0


def test_whoever_asked_hears_in_time_and_only_once() -> None:
    world = World()
    world.send()
    world.pass_s(LIMIT_S - 0.01)
    assert world.told == []
    world.pass_s(0.02)
    assert world.statuses == [0]
    assert "within 2 s" in world.told[0].detail
    assert len(world.notify) == 1  # PJSIP still repeats it
    world.notify.answered(1, 408, "")
    assert world.statuses == [0]
    assert len(world.notify) == 0


def test_the_limit_is_well_under_timer_f() -> None:
    world = World(limit_s=30.0)
    world.send()
    world.pass_s(MAX_LIMIT_S)
    assert world.statuses == [0]


def test_nobody_and_nothing_there_are_told_apart() -> None:
    world = World(agents=2)
    world.send("a0")
    world.send("a1")
    world.notify.answered(1, 408, "")
    world.notify.answered(2, 503, "")
    assert [(one.status, one.detail) for one in world.told] == [
        (0, "the phone does not answer"),
        (0, "the phone cannot be reached"),
    ]


@pytest.mark.parametrize("status", [403, 404, 415, 481, 489, 500, 302, 600])
def test_a_refusal_has_its_status_and_a_sentence(status: int) -> None:
    world = World()
    world.send()
    world.answer(1, status)
    assert world.statuses == [status]
    assert world.told[0].detail


# ------------------------------------------------------------------------------------ digest


@pytest.mark.parametrize(
    ("status", "asks", "answers"),
    [
        (401, "WWW-Authenticate", "Authorization"),
        (407, "Proxy-Authenticate", "Proxy-Authorization"),
    ],
)
def test_a_challenge_is_answered(status: int, asks: str, answers: str) -> None:
    world = World()
    world.send()
    world.answer(1, status, CHALLENGE.format("n1", "").replace("WWW-Authenticate", asks))
    assert world.told == []
    _, headers, _, body = world.posted[1]
    assert 'nonce="n1"' in headers[answers]
    assert 'uri="sip:a0@192.0.2.20"' in headers[answers]
    assert body == "<a/>"
    assert "secret-word" not in str(world.posted)
    world.answer(2, 200)
    assert world.statuses == [200]


def test_a_wrong_password_is_not_tried_again() -> None:
    world = World()
    world.send()
    world.answer(1, 401, CHALLENGE.format("n1", ""))
    world.answer(2, 401, CHALLENGE.format("n2", ""))
    assert world.statuses == [401]
    assert len(world.posted) == 2


def test_a_nonce_that_is_too_old_is_worth_one_more() -> None:
    world = World()
    world.send()
    world.answer(1, 401, CHALLENGE.format("n1", ""))
    world.answer(2, 401, CHALLENGE.format("n2", ", stale=true"))
    assert 'nonce="n2"' in world.posted[2][1]["Authorization"]
    world.answer(3, 401, CHALLENGE.format("n3", ", stale=true"))
    assert world.statuses == [401]
    assert len(world.posted) == 3


def test_a_challenge_to_whom_we_have_nothing_is_the_answer() -> None:
    world = World(agents=2)
    world.send("a1")
    world.answer(1, 401, CHALLENGE.format("n1", ""))
    assert world.statuses == [401]


def test_a_challenge_after_the_limit_is_not_answered() -> None:
    """A warning that comes too late is not sent again."""
    world = World()
    world.send()
    world.pass_s(LIMIT_S)
    world.answer(1, 401, CHALLENGE.format("n1", ""))
    assert len(world.posted) == 1
    assert world.statuses == [0]


def test_the_limit_is_for_both_tries_together() -> None:
    world = World()
    world.send()
    world.pass_s(LIMIT_S * 0.75)
    world.answer(1, 401, CHALLENGE.format("n1", ""))
    world.pass_s(LIMIT_S * 0.25)
    assert world.statuses == [0]


# ------------------------------------------------------------------------------------ bounds


def test_a_phone_that_is_away_costs_a_few_and_no_other_phone() -> None:
    world = World(agents=2)
    for _ in range(MAX_A_PHONE + 3):
        world.send("a0")
    assert len(world.posted) == MAX_A_PHONE
    assert world.statuses == [0, 0, 0]
    world.send("a1")
    assert len(world.posted) == MAX_A_PHONE + 1
    world.pass_s(LIMIT_S)
    world.send("a0")
    assert len(world.posted) == MAX_A_PHONE + 1  # PJSIP has not given them up
    world.notify.answered(1, 408, "")
    world.send("a0")
    assert len(world.posted) == MAX_A_PHONE + 2


def test_no_more_than_so_many_are_under_way() -> None:
    world = World(agents=MAX_UNDER_WAY + 5)
    for number in range(MAX_UNDER_WAY + 5):
        world.send(f"a{number}")
    assert len(world.posted) == MAX_UNDER_WAY
    assert world.statuses == [0] * 5


@pytest.mark.parametrize(
    "other",
    [
        {"event": ""},
        {"event": "a b"},
        {"event": "a\r\nX: y"},
        {"event": "x" * 100},
        {"content_type": ""},
        {"content_type": "text"},
        {"content_type": "text/plain\r\nX: y"},
        {"body": "x" * (MAX_BODY_BYTES + 1)},
        {"body": "가" * (MAX_BODY_BYTES // 3 + 1)},
        {"agent": "nobody"},
    ],
)
def test_what_cannot_be_a_message_is_not_one(other: dict[str, str]) -> None:
    world = World()
    world.send(**other)
    assert world.posted == []
    assert world.statuses == [0]
    assert world.told[0].detail


def test_an_event_may_have_parameters() -> None:
    world = World()
    world.send(event="ua-profile;profile-type=device")
    assert len(world.posted) == 1


def test_what_pjsip_cannot_send_is_told_at_once() -> None:
    world = World()
    world.broken = True
    world.send()
    assert [(one.status, one.detail) for one in world.told] == [(0, "PJSIP cannot send it")]
    assert len(world.notify) == 0
    assert world.timers == []


def test_a_second_try_that_cannot_be_sent_is_told() -> None:
    world = World()
    world.send()
    world.broken = True
    world.answer(1, 401, CHALLENGE.format("n1", ""))
    assert world.statuses == [0]
    assert len(world.notify) == 0


def test_after_the_end_no_timer_fires() -> None:
    world = World()
    world.send()
    world.notify.close()
    world.pass_s(60)
    assert world.told == []


def test_the_log_has_ids_only(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.send(body="<Text>words on a screen</Text>")
    world.answer(1, 403)
    said = capsys.readouterr()
    assert "notify_failed" in said.out + said.err
    assert "192.0.2.20" not in said.out + said.err
    assert "words on a screen" not in said.out + said.err
