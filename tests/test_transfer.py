"""Transfers as pure state: what a Refer-To may say, and what follows from what."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callshield.messages import CallEnded, LegName
from callshield.messages_media import CloseSession, FlowUpdate, LegUpdate
from sipbridge import sdp
from sipbridge.call import Call, CallState
from sipbridge.call_steps import AnswerIncoming, Forget, HangUp, StartTimer, Step
from sipbridge.dtmf_info import digit_of_info
from sipbridge.refer import replaces_of
from sipbridge.sip_message import SipHeaders
from sipbridge.transfer import (
    CallTarget,
    CancelTarget,
    Notify,
    Over,
    ReferTarget,
    Replaces,
    SendRefer,
    Transfer,
    TransferState,
    TransferStep,
    Wait,
    read_refer_to,
    read_replaces,
    refusal_of,
    sipfrag_status,
    write_refer_to,
)
from tests.test_call import PHONE_ANSWER, answer, connected, events, media, ringing

OTHER = sdp.parse(
    "v=0\r\no=- 1 1 IN IP4 127.0.0.7\r\ns=-\r\nc=IN IP4 127.0.0.7\r\nt=0 0\r\n"
    "m=audio 6000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)


def negotiated(description: sdp.SessionDescription) -> sdp.Negotiated:
    found = sdp.negotiate(description)
    assert found is not None
    return found


def target_of(value: str) -> ReferTarget:
    target = read_refer_to([value])
    assert isinstance(target, ReferTarget), target
    return target


# -------------------------------------------------------------------------------- Refer-To


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("<sip:1002@192.0.2.1>", "sip:1002@192.0.2.1"),
        ("sip:1002@192.0.2.1;late=parameter", "sip:1002@192.0.2.1"),
        ('"Lee" <sip:1002@192.0.2.1:5070;user=phone>;x=y', "sip:1002@192.0.2.1:5070"),
        ("<sip:1002;phone-context=x@pbx.example.com>", "sip:1002@pbx.example.com"),
        ("<sip:1002:secret@192.0.2.1>", "sip:1002@192.0.2.1"),
        ("<sip:1002@[2001:db8::1]:5060;method=INVITE>", "sip:1002@[2001:db8::1]:5060"),
        ("<SIP:+8221234567@192.0.2.1>", "sip:+8221234567@192.0.2.1"),
        ("<sip:*80%23@192.0.2.1>", "sip:*80%23@192.0.2.1"),
    ],
)
def test_refer_to_is_read_and_only_user_host_and_port_go_on(value: str, uri: str) -> None:
    assert target_of(value).uri() == uri


def test_telephone_number_goes_to_the_pbx_without_its_decoration() -> None:
    target = target_of("<tel:+82-2-123.4567;ext=5>")
    assert target.uri("192.0.2.1:5060") == "sip:+8221234567@192.0.2.1:5060"
    assert refusal_of(target, lambda host: False) == 0


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([], 400),
        (["<sip:1@192.0.2.1>", "<sip:2@192.0.2.1>"], 400),
        (["nonsense"], 400),
        (["<sip:1@>"], 400),
        (["<sip:1@a b>"], 400),
        (["<sip:1@192.0.2.1:99999>"], 400),
        (["<sip:1\r\nX: y@192.0.2.1>"], 400),
        (["<sips:1@192.0.2.1>"], 416),
        (["<mailto:1@192.0.2.1>"], 416),
        (["<sip:1@192.0.2.1;method=MESSAGE>"], 403),
        (["<sip:1@192.0.2.1?Replaces=x>"], 400),
        (["<sip:1@192.0.2.1?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc%0D%0AX%3A1>"], 400),
        (["<sip:1@192.0.2.1?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc&Replaces=d>"], 400),
    ],
)
def test_what_cannot_be_a_target_is_refused(values: list[str], status: int) -> None:
    assert read_refer_to(values) == status


def test_who_is_not_allowed_is_refused_and_nobody_else() -> None:
    target = target_of("<sip:1002@Evil.Example>")
    assert refusal_of(target, lambda host: False) == 403
    assert refusal_of(target, lambda host: host == "evil.example") == 0
    assert refusal_of(target_of("<sip:192.0.2.1>"), lambda host: True) == 400


def test_replaces_survives_the_way_through_a_uri() -> None:
    replaces = Replaces("a84b4c76e66710@192.0.2.1", "to.1", "from~2", early_only=True)
    value = write_refer_to("sip:1002@192.0.2.1", replaces)
    assert value == (
        "<sip:1002@192.0.2.1?Replaces=a84b4c76e66710%40192.0.2.1%3Bto-tag%3Dto.1"
        "%3Bfrom-tag%3Dfrom~2%3Bearly-only>"
    )
    assert target_of(value).replaces == replaces
    headers = SipHeaders(f"INVITE sip:x SIP/2.0\nReplaces: {replaces.header()}\n\n")
    assert replaces_of(headers) == replaces
    assert replaces_of(SipHeaders("INVITE sip:x SIP/2.0\nReplaces: x\n\n")) == 400
    assert replaces_of(SipHeaders("INVITE sip:x SIP/2.0\n\n")) is None


@given(st.text(max_size=200))
@example("0\n")  # what a pattern that ends in $ lets through
def test_nothing_that_is_read_can_end_a_line(text: str) -> None:
    for value in (text, f"<sip:{text}@192.0.2.1>", f"<sip:1@192.0.2.1?Replaces={text}>"):
        target = read_refer_to([value])
        if isinstance(target, ReferTarget):
            whole = write_refer_to(target.uri(), target.replaces)
            assert whole.isascii()
            assert whole.isprintable()
            assert " " not in whole
    for value in (text, f"{text};to-tag=a;from-tag=b", f"c;to-tag={text};from-tag=b"):
        replaces = read_replaces(value)
        if replaces is not None:
            assert replaces.header().isprintable()
            quoted = urllib.parse.quote(replaces.header(), safe="")
            assert urllib.parse.unquote(quoted) == replaces.header()


def test_sipfrag_is_its_status_line() -> None:
    assert sipfrag_status("SIP/2.0 180 Ringing\r\n") == 180
    assert sipfrag_status("SIP/2.0 200 OK\r\nContact: <sip:x>\r\n") == 200
    for odd in ("", "200 OK", "SIP/2.0 999 X", "SIP/2.0 20", "SIP/2.0 2000 X"):
        assert sipfrag_status(odd) == 0


# --------------------------------------------------------------------------------- the state


def transfer(*, direct: bool = False) -> Transfer:
    return Transfer(direct, ring_timeout_s=60)


def kinds(steps: list[TransferStep]) -> list[type]:
    return [type(step) for step in steps if not isinstance(step, Wait)]


def test_phones_refer_goes_to_the_pbx_and_its_news_come_back() -> None:
    one = transfer()
    assert one.begin()[:2] == [Notify(100, final=False), SendRefer()]
    assert kinds(one.on_pbx_answered(202)) == []
    assert one.on_pbx_notified(100, terminated=False)[0] == Wait(40.0)  # 100 was said before
    assert one.on_pbx_notified(180, terminated=False)[0] == Notify(180, final=False)
    assert one.on_pbx_notified(200, terminated=True) == [
        Notify(200, final=True),
        Over(succeeded=True),
    ]
    assert one.on_caller_gone() == one.on_timeout() == one.on_pbx_answered(500) == []


def test_notify_may_overtake_the_202() -> None:
    one = transfer()
    one.begin()
    assert one.on_pbx_notified(486, terminated=True)[-1] == Over(succeeded=False)
    assert one.on_pbx_answered(202) == []


@pytest.mark.parametrize("status", [403, 405, 408, 420, 489, 501, 503, 603])
def test_where_the_pbx_takes_no_refer_we_call_the_target(status: int) -> None:
    one = transfer()
    one.begin()
    assert kinds(one.on_pbx_answered(status)) == [CallTarget]
    assert one.refused_with == status
    assert one.on_target_ringing(180) == [Notify(180, final=False)]
    assert one.on_target_ringing(180) == []
    assert one.on_target_answered() == [Notify(200, final=True), Over(succeeded=True)]


def test_target_that_refuses_is_the_end_of_it() -> None:
    one = transfer()
    one.begin()
    one.on_pbx_answered(501)
    assert one.on_target_refused(486) == [Notify(486, final=True), Over(succeeded=False)]


def test_pbx_has_nobody_to_pass_its_own_refer_to() -> None:
    assert kinds(transfer(direct=True).begin()) == [Notify, CallTarget]


def test_bye_of_the_pbx_means_success_only_where_it_took_the_refer() -> None:
    accepted = transfer()
    accepted.begin()
    accepted.on_pbx_answered(202)
    assert accepted.on_caller_gone()[-1] == Over(succeeded=True)
    asked = transfer()
    asked.begin()
    assert asked.on_caller_gone()[-1] == Over(succeeded=False)
    calling = transfer()
    calling.begin()
    calling.on_pbx_answered(405)
    assert kinds(calling.on_caller_gone()) == [CancelTarget, Notify, Over]


def test_silence_ends_a_transfer_as_a_failure() -> None:
    one = transfer()
    one.begin()
    one.on_pbx_answered(202)
    assert one.on_timeout() == [Notify(408, final=True), Over(succeeded=False)]
    two = transfer(direct=True)
    two.begin()
    assert kinds(two.on_timeout()) == [CancelTarget, Notify, Over]


def test_subscription_that_ends_without_a_result_is_no_success() -> None:
    one = transfer()
    one.begin()
    one.on_pbx_answered(202)
    assert one.on_pbx_notified(100, terminated=True)[-1] == Over(succeeded=False)


def _happen(one: Transfer, kind: int, status: int) -> list[TransferStep]:
    choices: list[Callable[[], list[TransferStep]]] = [
        lambda: one.on_pbx_answered(max(200, status)),
        lambda: one.on_pbx_notified(status, terminated=False),
        lambda: one.on_pbx_notified(status, terminated=True),
        one.on_caller_gone,
        lambda: one.on_target_ringing(status),
        one.on_target_answered,
        lambda: one.on_target_refused(status),
    ]
    return choices[kind]()


def _open(flow: FlowUpdate) -> set[str]:
    """What a flow lets pass."""
    names = ("caller_to_agent", "agent_to_caller", "tap", "record")
    return {name for name in names if getattr(flow, name)}


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0, 100, 180, 200, 302, 486, 603]))),
)
def test_every_transfer_is_over_once_and_says_nothing_afterwards(
    direct: bool, happenings: list[tuple[int, int]]
) -> None:
    one = transfer(direct=direct)
    steps = list(one.begin())
    for kind, status in happenings:
        was_over = one.state is TransferState.OVER
        new = _happen(one, kind, status)
        assert not (was_over and new)
        steps += new
    steps += one.on_timeout()
    assert sum(isinstance(step, Over) for step in steps) == 1
    finals = [step for step in steps if isinstance(step, Notify) and step.final]
    assert len(finals) == 1
    assert finals[0].status >= 200
    (over,) = (step for step in steps if isinstance(step, Over))
    assert over.succeeded == (finals[0].status < 300)


# ------------------------------------------------------------------------ what the call does


def test_phone_that_leaves_during_its_transfer_leaves_the_caller_to_the_pbx() -> None:
    call = connected()
    call.on_transfer_begun()
    steps = call.on_phone_gone(200)
    (flow,) = media(steps, FlowUpdate)
    assert _open(flow) == set()
    assert not events(steps, CallEnded)
    ended = call.on_transferred()
    assert [step for step in ended if isinstance(step, HangUp)] == [HangUp(LegName.CALLER)]
    assert [event.reason for event in events(ended, CallEnded)] == ["transferred"]


def test_phone_that_leaves_without_a_transfer_ends_the_call() -> None:
    """The control to the one before."""
    call = connected()
    (event,) = events(call.on_phone_gone(200), CallEnded)
    assert event.reason == "agent_hangup"


def test_failed_transfer_gives_the_call_back_or_ends_it_where_nobody_is_left() -> None:
    call = connected()
    call.on_transfer_begun()
    assert call.on_transfer_failed() == []
    assert call.transferable
    call.on_transfer_begun()
    call.on_phone_gone(200)
    (event,) = events(call.on_transfer_failed(), CallEnded)
    assert event.reason == "transfer_failed"


def test_pbx_that_does_not_hang_up_after_a_transfer_is_hung_up_on() -> None:
    call = connected()
    call.on_transfer_begun()
    assert call.on_transferred() == [StartTimer("transfer", 5.0)]
    (event,) = events(call.on_timer("transfer"), CallEnded)
    assert event.reason == "transferred"
    assert call.on_timer("transfer") == []


def test_target_that_we_called_speaks_with_the_caller_untapped() -> None:
    call = connected()
    call.on_transfer_begun()
    steps = call.on_target_joined(OTHER, negotiated(OTHER), "127.0.0.7")
    (flow,) = media(steps, FlowUpdate)
    assert _open(flow) == {"agent_to_caller", "caller_to_agent"}
    assert [event.reason for event in events(steps, CallEnded)] == ["transferred"]
    (update,) = media(steps, LegUpdate)
    assert (update.leg, update.port) == (LegName.AGENT, 6000)
    # Its end is nobody's event any more, and the media is closed.
    end = call.on_caller_gone(200)
    assert not events(end, CallEnded)
    assert media(end, CloseSession)
    assert end[-1] == Forget()
    assert HangUp(LegName.AGENT) in end


@given(st.lists(st.integers(0, 5), max_size=12))
def test_new_far_end_is_never_tapped(happenings: list[int]) -> None:
    """Whatever follows a replaced caller, no flow opens the tap again."""
    call = connected()
    steps = call.on_caller_replaced(OTHER, negotiated(OTHER), "127.0.0.7")
    choices: list[Callable[[], list[Step]]] = [
        lambda: call.on_hold_changed(caller_held=True, agent_held=False),
        lambda: call.on_hold_changed(caller_held=False, agent_held=False),
        lambda: call.on_hold_changed(caller_held=False, agent_held=True),
        call.on_transfer_begun,
        call.on_transfer_failed,
        lambda: call.on_caller_replaced(PHONE_ANSWER, negotiated(PHONE_ANSWER), "127.0.0.8"),
    ]
    for kind in happenings:
        steps += choices[kind]()
    flows = media(steps, FlowUpdate)
    assert flows
    assert not any(flow.tap or flow.record for flow in flows)


def test_tap_closes_before_the_new_far_end_is_let_in() -> None:
    call = connected()
    kinds = [
        type(step.message)
        for step in call.on_caller_replaced(OTHER, negotiated(OTHER), "127.0.0.7")
        if hasattr(step, "message")
    ]
    assert kinds.index(FlowUpdate) < kinds.index(LegUpdate)


# -------------------------------------------------------------------------------- early media


def early(call: Call, description: sdp.SessionDescription = PHONE_ANSWER) -> list[Step]:
    return call.on_early_media(
        description, negotiated(description), signalling_address="127.0.0.8", session_id=8
    )


def test_early_media_goes_one_way_and_is_not_tapped() -> None:
    call = ringing()
    steps = early(call)
    (flow,) = media(steps, FlowUpdate)
    assert _open(flow) == {"agent_to_caller"}
    (response,) = (step for step in steps if isinstance(step, AnswerIncoming))
    assert response.status == 183
    assert "m=audio 20000 " in response.sdp


def test_same_183_is_no_news_and_another_moves_the_phone_only() -> None:
    call = ringing()
    early(call)
    assert early(call) == []
    steps = early(call, OTHER)
    assert [update.leg for update in media(steps, LegUpdate)] == [LegName.AGENT]
    assert not [step for step in steps if isinstance(step, AnswerIncoming)]


def test_answer_after_early_media_closes_the_way_to_the_caller_until_the_gate_opens() -> None:
    call = ringing()
    early(call)
    steps = answer(call)
    (flow,) = media(steps, FlowUpdate)
    assert _open(flow) == set()
    (response,) = (step for step in steps if isinstance(step, AnswerIncoming))
    assert (response.status, response.sdp) == (200, "")  # what the 183 said stays
    assert call.state is CallState.ANSWERING


def test_early_media_after_the_answer_changes_nothing() -> None:
    call = ringing()
    answer(call)
    assert early(call) == []


# --------------------------------------------------------------------------------------- INFO


@pytest.mark.parametrize(
    ("content_type", "body", "digit"),
    [
        ("application/dtmf-relay", "Signal=5\nDuration=160\n", "5"),
        ("application/dtmf-relay", "Signal= #\nDuration= 100", "#"),
        ("Application/DTMF-Relay; charset=x", "signal=a\n", "A"),
        ("application/dtmf-relay", "Signal=10\n", "*"),
        ("application/dtmf", "9", "9"),
        ("application/dtmf", "11", "#"),
        ("application/dtmf-relay", "Duration=100\n", None),
        ("application/dtmf-relay", "Signal=16\n", None),
        ("application/dtmf", "", None),
        ("application/dtmf", "55", None),
        ("application/dtmf", "\u0665", None),
        ("text/plain", "5", None),
    ],
)
def test_digit_of_info(content_type: str, body: str, digit: str | None) -> None:
    assert digit_of_info(content_type, body) == digit
