"""What is left to do for a call whose bridge died, without a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from callshield.messages import (
    Action,
    CallEnded,
    CallEnding,
    CallStarted,
    Direction,
    HoldChanged,
    LegName,
    NoticeFinished,
    PauseChanged,
)
from callshield.messages_media import (
    CloseSession,
    DialogIdentity,
    DigitReceived,
    FlowUpdate,
    KeepCall,
    KeptCall,
    KeptInvite,
    PlayFinished,
    PlayPrompts,
)
from callshield.messages_notice import PromptPlayed, PromptStamp, ProtectionChanged
from sipbridge.call_steps import CallSupervisor, Emit, ToMedia
from sipbridge.kept_call import (
    BEFORE_FAR_END_S,
    CLOSING_LIMIT_S,
    CSEQ_SKIP,
    PLAYS_TOLD_S,
    KeptMachine,
)
from sipbridge.kept_invite import ack, answer_port, cancel, refusal
from sipbridge.kept_sdp import answer_refresh
from sipbridge.kept_steps import Answer, Drop, KeptStep, Over, Request, Say
from sipbridge.session_timer import SessionTimer, agreed
from sipbridge.sip_message import SipHeaders

CALL = "0123456789abcdef" * 2
CALLER, AGENT, HELPER = LegName.CALLER, LegName.AGENT, LegName.HELPER
CLOSING = PlayPrompts(
    call_id=CALL, play_id=1 << 30, leg=CALLER, files=["closing.wav"], wide_sha256=["b" * 64]
)
STAMP = PromptStamp(
    prompt_id="closing",
    version="3",
    sha256="a" * 64,
    started_ts=0.0,
    finished_ts=0.0,
    complete=False,
    length_s=3.0,
)
NOTHING = SipHeaders("UPDATE sip:x SIP/2.0\r\n\r\n")


def sdp(address: str, port: int, formats: str = "8 101", *more: str, version: int = 1) -> str:
    lines = ["v=0", f"o=- 7 {version} IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    lines += [f"m=audio {port} RTP/AVP {formats}"]
    names = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000", "101": "telephone-event/8000"}
    lines += [f"a=rtpmap:{number} {names[number]}" for number in formats.split()]
    return "\r\n".join([*lines, *more]) + "\r\n"


#: As :mod:`sipbridge.sdp` writes it.
OURS = sdp("192.0.2.1", 30000, "8 101", "a=fmtp:101 0-15", "a=ptime:20", "a=sendrecv")
THEIRS = sdp("192.0.2.9", 4000)


def dialog(**more: Any) -> DialogIdentity:
    values: dict[str, Any] = {
        "call_id": "c",
        "local_uri": "<sip:us@192.0.2.1>",
        "local_tag": "l",
        "remote_uri": "<sip:them@192.0.2.9>",
        "remote_tag": "r",
        "target": "sip:them@192.0.2.9",
        "contact": "<sip:us@192.0.2.1>",
        "routes": [],
        "local_cseq": 2,
        "remote_cseq": 1,
        "uac": False,
        "local_sdp": OURS,
        "remote_sdp": THEIRS,
        "account": "pbx udp",
    }
    return DialogIdentity(**{**values, **more})


@dataclass
class Stand:
    """A kept call and a clock that stands still."""

    stage: str = "connected"
    dialogs: dict[LegName, DialogIdentity] = field(
        default_factory=lambda: {CALLER: dialog(), AGENT: dialog(uac=True)}
    )
    flow: FlowUpdate | None = None
    silent: tuple[LegName, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict)
    now: float = 1000.0

    def __post_init__(self) -> None:
        started = CallStarted(
            ts=5.0,
            call_id=CALL,
            agent_id="1001",
            pbx_call_id="p",
            direction=self.kept.pop("direction", Direction.INBOUND),
        )
        values: dict[str, Any] = {
            "may_tap": True,
            "may_record": True,
            "answered_ts": 10.0,
            "answered_s": 940.0,
            "closing": CLOSING,
            "closing_stamp": STAMP,
            "callers_numbers": ["01012345678"],
        }
        kept = KeepCall(
            call_id=CALL,
            started=started,
            **{**values, **self.kept},
            stage=self.stage,  # type: ignore[arg-type]
        )
        flow = self.flow or FlowUpdate(
            call_id=CALL, caller_to_agent=True, agent_to_caller=True, tap=True, record=True
        )
        found = KeptCall(kept=kept, dialogs=self.dialogs, flow=flow, silent=list(self.silent))
        self.machine = KeptMachine(found, lambda: 70.0, lambda: self.now)
        self.begun = self.machine.begin()

    def bye(self, leg: LegName) -> list[KeptStep]:
        return self.machine.on_request(leg, 1, "BYE", NOTHING, "")

    def ask(
        self, leg: LegName, method: str, body: str = "", *headers: str
    ) -> tuple[Answer, list[KeptStep]]:
        message = "\r\n".join([f"{method} sip:x SIP/2.0", *headers, "", ""])
        steps = self.machine.on_request(leg, 9, method, SipHeaders(message), body)
        (answer,) = [step for step in steps if isinstance(step, Answer)]
        return answer, steps


def sent(steps: list[KeptStep], kind: type[Any]) -> list[Any]:
    """Messages to the media worker, and events, of one type."""
    said = [s.message for s in steps if isinstance(s, ToMedia)]
    told = [s.event for s in steps if isinstance(s, Emit)]
    return [one for one in [*said, *told] if isinstance(one, kind)]


def requests(steps: list[KeptStep]) -> list[tuple[LegName, str]]:
    return [(step.leg, step.method) for step in steps if isinstance(step, Request)]


@pytest.mark.parametrize(
    ("first", "other", "reason"),
    [(CALLER, AGENT, "caller_hangup"), (AGENT, CALLER, "agent_hangup")],
)
def test_who_hangs_up_is_answered_and_the_other_side_gets_bye(
    first: LegName, other: LegName, reason: str
) -> None:
    stand = Stand()
    assert requests(stand.begun) == []
    steps = stand.bye(first)
    assert steps[:2] == [Answer(1, 200), Drop(first)]
    assert requests(steps) == [(other, "BYE")]
    (ended,) = sent(steps, CallEnded)
    assert (ended.reason, ended.duration_s) == (reason, 60.0)
    assert sent(steps, CloseSession)
    assert Over() not in steps
    assert stand.machine.on_answer(other, "BYE", 200, NOTHING) == [Drop(other), Over()]


def test_both_hang_up_at_once() -> None:
    stand = Stand()
    stand.bye(CALLER)
    steps = stand.bye(AGENT)
    assert steps == [Answer(1, 200), Drop(AGENT), Over()]
    assert stand.machine.on_answer(AGENT, "BYE", 481, NOTHING) == []


def test_bye_whose_cseq_the_dead_bridge_had_used_is_said_again_beyond_it() -> None:
    stand = Stand()
    stand.bye(CALLER)
    (again,) = stand.machine.on_answer(AGENT, "BYE", 500, NOTHING)
    assert again == Request(AGENT, "BYE", (), CSEQ_SKIP)
    assert stand.machine.on_answer(AGENT, "BYE", 500, NOTHING) == [Drop(AGENT), Over()]


def test_our_bye_says_what_the_dead_bridge_would_have_said() -> None:
    headers = [("X-Callshield-Call-Id", CALL)]
    stand = Stand(dialogs={CALLER: dialog(), AGENT: dialog(bye_headers=headers)})
    assert Request(AGENT, "BYE", tuple(headers)) in stand.bye(CALLER)


# --------------------------------------------------------------------- who hung up unheard


@pytest.mark.parametrize("status", [404, 408, 481])
def test_leg_that_falls_silent_is_asked_and_one_without_the_dialog_is_over(status: int) -> None:
    stand = Stand(silent=(CALLER,))
    assert requests(stand.begun) == [(CALLER, "OPTIONS")]
    steps = stand.machine.on_answer(CALLER, "OPTIONS", status, NOTHING)
    assert requests(steps) == [(CALLER, "BYE"), (AGENT, "BYE")]
    assert sent(steps, CallEnded)[0].reason == "caller_hangup"


def test_leg_that_is_silent_and_there_is_asked_again_and_stays() -> None:
    stand = Stand()
    assert requests(stand.machine.on_silent(AGENT, silent=True)) == [(AGENT, "OPTIONS")]
    assert stand.machine.on_silent(AGENT, silent=True) == []  # one is under way
    assert stand.machine.on_answer(AGENT, "OPTIONS", 405, NOTHING) == []
    stand.now = stand.machine.due()
    assert stand.now == 1010.0
    assert requests(stand.machine.on_time()) == [(AGENT, "OPTIONS")]
    stand.machine.on_silent(AGENT, silent=False)
    assert stand.machine.on_answer(AGENT, "OPTIONS", 200, NOTHING) == []
    assert stand.machine.due() == float("inf")


def test_who_holds_is_asked_whether_he_is_there() -> None:
    held = FlowUpdate(
        call_id=CALL, caller_to_agent=True, agent_to_caller=True, tap=False, on_hold=True
    )
    assert requests(Stand(flow=held).begun) == [(CALLER, "OPTIONS"), (AGENT, "OPTIONS")]


def test_no_audio_either_way_ends_it() -> None:
    stand = Stand()
    steps = stand.machine.on_media_timeout()
    assert requests(steps) == [(CALLER, "BYE"), (AGENT, "BYE")]
    assert sent(steps, CallEnded)[0].reason == "media_timeout"
    assert stand.machine.on_media_timeout() == []


# ------------------------------------------------------------------------------ session timers


def test_call_ends_before_the_far_end_would_end_it() -> None:
    stand = Stand(dialogs={CALLER: dialog(expires_s=90, refreshed_s=1000.0), AGENT: dialog()})
    # RFC 4028 section 10: the far end says BYE a third before the session expires.
    assert stand.machine.due() == 1000.0 + 90 - 30 - BEFORE_FAR_END_S
    assert stand.machine.on_time() == []
    stand.now = stand.machine.due()
    steps = stand.machine.on_time()
    assert requests(steps) == [(CALLER, "BYE"), (AGENT, "BYE")]
    assert sent(steps, CallEnded)[0].reason == "bridge_lost"


def test_session_that_the_far_end_refreshes_goes_on() -> None:
    stand = Stand(dialogs={CALLER: dialog(expires_s=90, refreshed_s=1000.0), AGENT: dialog()})
    stand.now = 1045.0
    answer, steps = stand.ask(CALLER, "UPDATE", "", "Session-Expires: 90;refresher=uac")
    assert answer.status == 200
    assert dict(answer.headers) == {"Session-Expires": "90;refresher=uac", "Require": "timer"}
    assert answer.sdp == ""
    assert len(steps) == 1
    assert stand.machine.due() == 1045.0 + 90 - 30 - BEFORE_FAR_END_S


def test_session_that_we_promised_to_refresh_is_refreshed_by_update() -> None:
    mine = dialog(expires_s=1800, refreshed_s=1000.0, we_refresh=True)
    stand = Stand(dialogs={CALLER: dialog(), AGENT: mine})
    stand.now = stand.machine.due()
    assert stand.now == 1900.0  # half way
    (update,) = stand.machine.on_time()
    assert isinstance(update, Request)
    assert (update.leg, update.method) == (AGENT, "UPDATE")
    assert ("Session-Expires", "1800;refresher=uac") in update.headers
    said = SipHeaders("SIP/2.0 200 OK\r\nSession-Expires: 1800;refresher=uac\r\n\r\n")
    assert stand.machine.on_answer(AGENT, "UPDATE", 200, said) == []
    assert stand.machine.due() == 1900.0 + 900.0


def test_far_end_without_update_keeps_the_call_until_its_session_ends() -> None:
    mine = dialog(expires_s=90, refreshed_s=1000.0, we_refresh=True)
    stand = Stand(dialogs={CALLER: dialog(), AGENT: mine})
    stand.now = 1045.0
    stand.machine.on_time()
    assert stand.machine.on_answer(AGENT, "UPDATE", 405, NOTHING) == []
    assert stand.machine.due() == 1000.0 + 60 - BEFORE_FAR_END_S


def test_refresh_that_met_one_of_theirs_is_sent_again() -> None:
    mine = dialog(expires_s=1800, refreshed_s=1000.0, we_refresh=True)
    stand = Stand(dialogs={CALLER: dialog(), AGENT: mine})
    stand.now = 1900.0
    stand.machine.on_time()
    stand.machine.on_answer(AGENT, "UPDATE", 491, NOTHING)
    assert stand.machine.due() == 1903.0


def test_refresh_of_a_dialog_that_is_gone_ends_the_call() -> None:
    mine = dialog(expires_s=1800, refreshed_s=1000.0, we_refresh=True)
    stand = Stand(dialogs={CALLER: dialog(), AGENT: mine})
    stand.now = 1900.0
    stand.machine.on_time()
    steps = stand.machine.on_answer(AGENT, "UPDATE", 481, NOTHING)
    assert sent(steps, CallEnded)[0].reason == "agent_hangup"


@pytest.mark.parametrize(
    ("line", "ours", "timer"),
    [
        ("Session-Expires: 1800;refresher=uac", True, SessionTimer(1800, True)),
        ("Session-Expires: 1800;refresher=uas", True, SessionTimer(1800, False)),
        ("Session-Expires: 1800 ; refresher=uas", False, SessionTimer(1800, True)),
        ("x: 600;refresher=UAC", False, SessionTimer(600, False)),
        ("Session-Expires: 1800", False, SessionTimer(1800, False)),
        ("Session-Expires: 10;refresher=uac", False, SessionTimer(90, False)),
        ("Session-Expires: soon", True, SessionTimer(0)),
        ("Expires: 1800", True, SessionTimer(0)),
    ],
)
def test_session_expires(line: str, ours: bool, timer: SessionTimer) -> None:
    assert agreed(SipHeaders(f"SIP/2.0 200 OK\r\n{line}\r\n\r\n"), ours=ours) == timer


# --------------------------------------------------------------------- re-INVITE and UPDATE


def test_refresh_by_reinvite_gets_the_description_that_was_in_force() -> None:
    answer, steps = Stand().ask(CALLER, "INVITE", THEIRS)
    assert (answer.status, answer.sdp) == (200, OURS)
    assert len(steps) == 1
    late, _ = Stand().ask(CALLER, "INVITE")
    assert (late.status, late.sdp) == (200, OURS)


def test_refresh_that_offers_all_codecs_again_stays_with_the_one_in_force() -> None:
    answer, _ = Stand().ask(AGENT, "INVITE", sdp("192.0.2.9", 4000, "0 8 9 101", version=2))
    assert answer.status == 200
    assert "m=audio 30000 RTP/AVP 8 101" in answer.sdp


def test_hold_and_resume_are_agreed_to() -> None:
    stand = Stand()
    answer, steps = stand.ask(AGENT, "INVITE", sdp("192.0.2.9", 4000, "8 101", "a=sendonly"))
    assert answer.status == 200
    assert "a=recvonly" in answer.sdp
    assert "o=- 7 2 IN IP4 192.0.2.1" in answer.sdp
    (flow,) = sent(steps, FlowUpdate)
    assert (flow.on_hold, flow.tap, flow.record) == (True, False, False)
    assert sent(steps, HoldChanged)[0].held is True
    answer, steps = stand.ask(AGENT, "INVITE", sdp("192.0.2.9", 4000, version=3))
    assert "a=recvonly" not in answer.sdp
    assert "o=- 7 3 IN IP4 192.0.2.1" in answer.sdp
    (flow,) = sent(steps, FlowUpdate)
    assert (flow.on_hold, flow.tap, flow.record) == (False, True, True)
    assert sent(steps, HoldChanged)[0].held is False


def test_hold_the_old_way() -> None:
    stand = Stand()
    old = THEIRS.replace("c=IN IP4 192.0.2.9", "c=IN IP4 0.0.0.0")
    answer, steps = stand.ask(AGENT, "INVITE", old)
    assert answer.status == 200
    assert sent(steps, FlowUpdate)[0].on_hold is True
    assert stand.ask(AGENT, "INVITE", THEIRS)[0].status == 200
    assert stand.machine.on_hold is False


@pytest.mark.parametrize(
    "offer",
    [
        sdp("192.0.2.77", 4000),
        sdp("192.0.2.9", 4002),
        sdp("192.0.2.9", 4000, "0 101"),
        sdp("192.0.2.9", 4000, "8"),
        THEIRS.replace("RTP/AVP", "RTP/SAVP"),
        THEIRS.replace("m=audio", "m=image"),
        "what",
    ],
)
def test_what_would_have_to_be_negotiated_is_refused_and_changes_nothing(offer: str) -> None:
    stand = Stand()
    answer, steps = stand.ask(AGENT, "INVITE", offer)
    assert (answer.status, len(steps)) == (488, 1)
    assert stand.machine.legs[AGENT].dialog == dialog(uac=True)


def test_keys_stay_what_they_are() -> None:
    key = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 40
    ours = sdp("192.0.2.1", 30000, "8 101", key.replace("A" * 40, "B" * 40))
    ours, theirs = (
        text.replace("/AVP", "/SAVP") for text in (ours, sdp("192.0.2.9", 4000, "8 101", key))
    )
    same = answer_refresh(ours, theirs, theirs)
    assert same is not None
    assert same.local == ours
    held = answer_refresh(ours, theirs, theirs + "a=sendonly\r\n")
    assert held is not None
    assert "a=recvonly" in held.local
    assert "inline:" + "B" * 40 in held.local
    assert answer_refresh(ours, theirs, theirs.replace("A" * 40, "C" * 40)) is None


def test_somebody_else_at_the_callers_end_is_not_analysed() -> None:
    stand = Stand()
    _, steps = stand.ask(
        CALLER, "INVITE", THEIRS, "P-Asserted-Identity: <sip:0299998888@192.0.2.9>"
    )
    (flow,) = sent(steps, FlowUpdate)
    assert (flow.tap, flow.record, flow.agent_to_caller) == (False, False, True)
    (changed,) = sent(steps, ProtectionChanged)
    assert (changed.protected, changed.reason) == (False, "caller_changed")
    # For good: back from a hold it stays so.
    stand.ask(AGENT, "INVITE", sdp("192.0.2.9", 4000, "8 101", "a=sendonly"))
    _, steps = stand.ask(AGENT, "INVITE", THEIRS)
    assert sent(steps, FlowUpdate)[0].tap is False
    # The control: the caller himself.
    _, steps = Stand().ask(
        CALLER, "INVITE", THEIRS, "P-Asserted-Identity: <sip:+821012345678@192.0.2.9>"
    )
    assert sent(steps, FlowUpdate) == []


def test_other_requests_inside_the_dialog() -> None:
    stand = Stand()
    assert stand.ask(AGENT, "OPTIONS")[0].status == 200
    assert stand.ask(AGENT, "REFER")[0].status == 603
    assert stand.ask(AGENT, "NOTIFY")[0].status == 489
    assert stand.ask(AGENT, "PRACK")[0].status == 405
    relay = "Content-Type: application/dtmf-relay"
    answer, steps = stand.ask(AGENT, "INFO", "Signal=5\r\nDuration=160\r\n", relay)
    assert answer.status == 200
    assert sent(steps, DigitReceived)[0].digit == "5"
    assert stand.ask(AGENT, "INFO", "<x/>", "Content-Type: text/xml")[0].status == 415
    assert stand.ask(AGENT, "INFO")[0].status == 200


# ------------------------------------------------------------------- where the call stood


def test_notice_that_was_cut_puts_them_through_without_analysis() -> None:
    stand = Stand("notice", kept={"may_tap": False, "may_record": False})
    (flow,) = sent(stand.begun, FlowUpdate)
    assert (flow.caller_to_agent, flow.agent_to_caller) == (True, True)
    assert (flow.tap, flow.record) == (False, False)
    (finished,) = sent(stand.begun, NoticeFinished)
    assert (finished.source, finished.tapped) == ("failed", False)
    assert requests(stand.begun) == []


def test_call_that_was_not_answered_is_over() -> None:
    stand = Stand("setup", dialogs={AGENT: dialog()}, kept={"answered_ts": 0.0})
    assert requests(stand.begun) == [(AGENT, "BYE")]
    (ended,) = sent(stand.begun, CallEnded)
    assert (ended.reason, ended.duration_s) == ("bridge_lost", 0.0)
    none = Stand("setup", dialogs={})
    assert none.begun[-1] == Over()


CAME = (
    "INVITE sip:1001@192.0.2.1 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.8:5080;branch=z9hG4bK1\r\n"
    "v: SIP/2.0/UDP pbx.example;branch=z9hG4bK0\r\n"
    "Max-Forwards: 9\r\n"
    "f: <sip:010@192.0.2.9>;tag=a\r\n"
    "To: <sip:1001@192.0.2.1>\r\n"
    "i: abc\r\n"
    "CSeq: 7 INVITE\r\n"
    "Subject: none\r\n of your business\r\n"
    "\r\nv=0\r\n"
)
SENT = CAME.replace("v: SIP/2.0/UDP pbx.example;branch=z9hG4bK0\r\n", "Route: <sip:p;lr>\r\n")


def test_answers_and_requests_about_an_invite_without_its_transaction() -> None:
    said = refusal(CAME, 503, "Service Unavailable", "ours", [("Retry-After", "1")])
    assert said == (
        "SIP/2.0 503 Service Unavailable\r\n"
        "Via: SIP/2.0/UDP 192.0.2.8:5080;branch=z9hG4bK1\r\n"
        "Via: SIP/2.0/UDP pbx.example;branch=z9hG4bK0\r\n"
        "From: <sip:010@192.0.2.9>;tag=a\r\n"
        "To: <sip:1001@192.0.2.1>;tag=ours\r\n"
        "Call-ID: abc\r\n"
        "CSeq: 7 INVITE\r\n"
        "Retry-After: 1\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    assert cancel(SENT) == (
        "CANCEL sip:1001@192.0.2.1 SIP/2.0\r\n"
        "Via: SIP/2.0/UDP 192.0.2.8:5080;branch=z9hG4bK1\r\n"
        "Route: <sip:p;lr>\r\n"
        "Max-Forwards: 70\r\n"
        "From: <sip:010@192.0.2.9>;tag=a\r\n"
        "To: <sip:1001@192.0.2.1>\r\n"
        "Call-ID: abc\r\n"
        "CSeq: 7 CANCEL\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    assert "To: <sip:1001@192.0.2.1>;tag=theirs\r\n" in ack(SENT, "theirs")
    assert "CSeq: 7 ACK\r\n" in ack(SENT, "theirs")
    assert ack(SENT, "") == cancel("what") == refusal("what", 503, "x", "", []) == ""


@pytest.mark.parametrize(
    ("via", "port"),
    [
        ("SIP/2.0/UDP 192.0.2.8:5080;branch=b", 5080),
        ("SIP/2.0/UDP 192.0.2.8;branch=b", 5060),
        ("SIP/2.0/UDP 192.0.2.8:5080;branch=b;rport", 4711),
        ("SIP/2.0/UDP 192.0.2.8:5080;rport=1;branch=b, SIP/2.0/UDP a;x", 4711),
        ("SIP/2.0/UDP 192.0.2.8:5080;branch=b, SIP/2.0/UDP a;rport", 5080),
        ("SIP/2.0/UDP [2001:db8::1]:5090;branch=b", 5090),
        ("SIP / 2.0 / UDP first", 5060),
    ],
)
def test_where_an_answer_goes(via: str, port: int) -> None:
    assert answer_port(f"INVITE sip:a SIP/2.0\r\nVia: {via}\r\n\r\n", 4711) == port


def test_call_in_set_up_is_called_off_more_than_once() -> None:
    came = KeptInvite(
        message=CAME.encode(), address="192.0.2.8", port=5080, account="pbx udp", tag="ours"
    )
    sent_one = KeptInvite(
        message=SENT.encode(), address="192.0.2.9", port=5060, account="phone udp", tag="theirs"
    )
    kept = {"answered_ts": 0.0, "invited": came, "inviting": sent_one}
    stand = Stand("setup", dialogs={}, kept=kept)
    said = [step for step in stand.begun if isinstance(step, Say)]
    starts = [(step.about.address, step.message.split(" ")[0], step.delay_s) for step in said]
    assert starts[:3] == [("192.0.2.8", "SIP/2.0", delay) for delay in (0.0, 0.5, 1.5)]
    assert starts[3:6] == [("192.0.2.9", "CANCEL", delay) for delay in (0.0, 0.5, 1.5)]
    assert {start[1] for start in starts[6:]} == {"ACK"}
    assert stand.begun[-1] == Over()
    assert "v=0" not in repr(stand.machine.found)


def test_caller_without_an_agent_is_not_left_alone() -> None:
    stand = Stand(dialogs={CALLER: dialog()})
    assert requests(stand.begun) == [(CALLER, "BYE")]


def test_caller_who_heard_the_notice_before_the_phone_rang_gets_a_reason() -> None:
    """RFC 3326: our 200 came long before the agent's, and the PBX may try elsewhere."""
    stand = Stand("setup", {CALLER: dialog()}, kept={"answered_ts": 0.0, "answered_s": 0.0})
    (bye,) = [step for step in stand.begun if isinstance(step, Request)]
    assert (bye.leg, bye.method) == (CALLER, "BYE")
    assert ("Reason", "SIP;cause=503") in bye.headers
    assert sent(stand.begun, CallEnded)[0].reason == "bridge_lost"
    # The control: nobody needs one who spoke with an agent.
    (bye,) = [step for step in Stand().bye(AGENT) if isinstance(step, Request)]
    assert bye.headers == ()


def test_closing_announcement_plays_on_and_then_the_caller_gets_bye() -> None:
    stand = Stand("ending", {CALLER: dialog()}, kept={"end_reason": "ended_with_announcement"})
    assert requests(stand.begun) == []
    assert sent(stand.begun, CloseSession) == []
    played = PlayFinished(call_id=CALL, play_id=4, leg=CALLER, complete=True, spans=[])
    stand.machine.on_played(played)
    stand.now = stand.machine.due()
    assert stand.now == pytest.approx(1000.2)
    steps = stand.machine.on_time()
    assert requests(steps) == [(CALLER, "BYE")]
    assert sent(steps, CallEnded)[0].reason == "ended_with_announcement"


def test_closing_announcement_whose_end_nobody_heard() -> None:
    stand = Stand("ending", {CALLER: dialog()}, kept={"end_reason": "ended_with_announcement"})
    assert stand.machine.due() == 1000.0 + CLOSING_LIMIT_S


def test_transferred_call_goes_on_and_its_end_is_told_to_nobody_again() -> None:
    stand = Stand("transferred")
    steps = stand.bye(CALLER)
    assert requests(steps) == [(AGENT, "BYE")]
    assert sent(steps, CallEnded) == []


def test_helper_may_leave_and_leaves_with_the_agent() -> None:
    legs = {CALLER: dialog(), AGENT: dialog(), HELPER: dialog()}
    stand = Stand(dialogs=dict(legs))
    assert stand.bye(HELPER) == [Answer(1, 200), Drop(HELPER)]
    stand = Stand(dialogs=dict(legs))
    assert requests(stand.bye(AGENT)) == [(CALLER, "BYE"), (HELPER, "BYE")]


@pytest.mark.parametrize("was", [False, True])
def test_no_helper_is_let_in_who_was_not_in_already(was: bool) -> None:
    flow = FlowUpdate(
        call_id=CALL, caller_to_agent=True, agent_to_caller=True, tap=True, conference=was
    )
    legs = {CALLER: dialog(), AGENT: dialog(), HELPER: dialog()}
    stand = Stand(dialogs=legs, flow=flow)
    _, steps = stand.ask(AGENT, "INVITE", sdp("192.0.2.9", 4000, "8 101", "a=sendonly"))
    assert sent(steps, FlowUpdate)[0].conference is was
    stand.bye(HELPER)
    _, steps = stand.ask(AGENT, "INVITE", THEIRS)
    assert sent(steps, FlowUpdate)[0].conference is False


# ----------------------------------------------------------------------- what the agent may do


def test_agent_ends_it_with_announcement() -> None:
    stand = Stand()
    outcome, _, steps = stand.machine.act(Action.END, "agent:console")
    assert outcome == "done"
    assert requests(steps) == [(AGENT, "BYE")]
    assert sent(steps, PlayPrompts) == [CLOSING]
    assert sent(steps, CallEnding)[0].by == "agent:console"
    (flow,) = sent(steps, FlowUpdate)
    assert not (flow.caller_to_agent)
    assert not (flow.agent_to_caller)
    assert not (flow.tap)
    assert not (flow.record)
    assert stand.machine.act(Action.END, "agent:dtmf")[0] == "already"
    assert stand.machine.on_answer(AGENT, "BYE", 200, NOTHING) == [Drop(AGENT)]
    played = PlayFinished(call_id=CALL, play_id=1 << 30, leg=CALLER, complete=True, spans=[])
    stand.machine.on_played(played)
    stand.now = stand.machine.due()
    assert requests(stand.machine.on_time()) == [(CALLER, "BYE")]


def test_caller_hangs_up_during_the_closing_announcement() -> None:
    stand = Stand()
    stand.machine.act(Action.END, "agent:console")
    stand.machine.on_answer(AGENT, "BYE", 200, NOTHING)
    steps = stand.bye(CALLER)
    assert sent(steps, CallEnded)[0].reason == "ended_with_announcement"
    assert Over() not in steps  # how much of it was heard was not told yet
    steps = stand.machine.on_played(
        PlayFinished(call_id=CALL, play_id=1 << 30, leg=CALLER, complete=False, spans=[(60, 61)])
    )
    (told,) = sent(steps, PromptPlayed)
    assert told.stamp.prompt_id == "closing"
    assert (told.stamp.started_ts, told.stamp.finished_ts) == (60, 61)
    assert (told.stamp.complete, told.stamp.stopped_by) == (False, "hangup")
    assert steps[-1] == Over()


@pytest.mark.parametrize("wide", [False, True])
def test_the_callers_record_says_that_the_closing_announcement_was_heard(wide: bool) -> None:
    stand = Stand()
    stand.machine.act(Action.END, "agent:console")
    steps = stand.machine.on_played(
        PlayFinished(
            call_id=CALL, play_id=1 << 30, leg=CALLER, complete=True, spans=[(60, 63)], wide=wide
        )
    )
    (told,) = sent(steps, PromptPlayed)
    assert (told.stamp.complete, told.stamp.stopped_by) == (True, "")
    assert told.stamp.sha256 == ("b" if wide else "a") * 64


def test_call_whose_last_play_is_never_told_is_forgotten_all_the_same() -> None:
    stand = Stand()
    stand.machine.act(Action.END, "agent:console")
    stand.machine.on_answer(AGENT, "BYE", 200, NOTHING)
    stand.bye(CALLER)
    stand.now = stand.machine.due()
    assert stand.now == 1000.0 + PLAYS_TOLD_S
    assert stand.machine.on_time() == [Over()]


def test_agent_pauses_and_asks_for_help_and_nothing_else() -> None:
    stand = Stand()
    outcome, _, steps = stand.machine.act(Action.PAUSE_RECORDING, "agent:dtmf")
    assert outcome == "done"
    (flow,) = sent(steps, FlowUpdate)
    assert (flow.paused, flow.tap) == (True, False)
    assert sent(steps, PauseChanged)[0].paused is True
    assert stand.machine.act(Action.PAUSE_RECORDING, "agent:dtmf")[0] == "already"
    assert stand.machine.act(Action.HELP, "agent:dtmf")[2] == [CallSupervisor("agent:dtmf")]
    assert stand.machine.act(Action.HELP, "agent:console")[2] == []
    for action in (Action.WARN, Action.JOIN, Action.HAND_OVER, Action.RESUME_RECORDING):
        outcome, detail, steps = stand.machine.act(action, "agent:console")
        assert (outcome, steps) == ("not_now", [])
        assert "restarted" in detail
    assert stand.machine.act(Action.END, "policy")[0] == "not_now"


def test_call_between_colleagues_ends_without_announcement() -> None:
    stand = Stand(kept={"direction": Direction.INTERNAL, "may_tap": False, "may_record": False})
    _, _, steps = stand.machine.act(Action.END, "agent:dtmf")
    assert requests(steps) == [(CALLER, "BYE"), (AGENT, "BYE")]
    assert sent(steps, PlayPrompts) == []


def test_node_that_stops_ends_it() -> None:
    stand = Stand()
    assert requests(stand.machine.shut_down()) == [(CALLER, "BYE"), (AGENT, "BYE")]
    assert stand.machine.shut_down() == []


def test_dialog_that_cannot_be_restored_ends_the_other_leg() -> None:
    stand = Stand()
    steps = stand.machine.unrestored(AGENT)
    assert requests(steps) == [(CALLER, "BYE")]
    assert sent(steps, CallEnded)[0].reason == "bridge_lost"


def test_what_is_kept_shows_no_number_and_no_key_in_a_log() -> None:
    stand = Stand(dialogs={CALLER: dialog(), AGENT: dialog(local_sdp="inline:secret")})
    assert "secret" not in repr(stand.machine.found)
    assert "01012345678" not in repr(stand.machine.found)
    assert (
        msgspec.msgpack.decode(msgspec.msgpack.encode(stand.machine.found), type=KeptCall)
        == stand.machine.found
    )
