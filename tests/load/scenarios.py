"""Scenarios for sipp: callers and phones by the hundred, who talk.

Every call writes two lines into the log of its sipp: ``begun KIND CALL-ID`` just before the
INVITE, and ``done KIND CALL-ID`` when the last message was exchanged as written here. Response
time 1 of the callers is the set-up: INVITE to 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

#: What becomes of a call.
Kind = Literal["talk", "hangup", "ended", "cancel", "busy"]

_HEAD = '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{name}">\n'
_VIA = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n"
_FROM = "From: <sip:01012345678@[local_ip]:[local_port]>;tag=[pid]c[call_number]\n"
_TO = "To: <sip:[field0]@[remote_ip]:[remote_port]>"
_SDP = """Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [rtpstream_audio_port] RTP/AVP 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20

"""
_EMPTY = "Content-Length: 0\n\n"
_ECHOED = "[last_Via:]\n[last_From:]\n[last_To:]{tag}\n[last_Call-ID:]\n[last_CSeq:]\n"
_CONTACT = "Contact: <sip:phone@[local_ip]:[local_port];transport=[transport]>\n"


def _send(text: str, attributes: str = "") -> str:
    return f"<send{attributes}><![CDATA[\n{text}\n]]></send>\n"


def _log(word: str, kind: Kind) -> str:
    return f'<nop><action><log message="{word} {kind} [call_id]"/></action></nop>\n'


def _play(tracks: Sequence[str]) -> str:
    """One of the tracks, by chance, over and over."""
    branches, played = [], []
    for number, track in enumerate(tracks, 1):
        left = len(tracks) - number + 1
        branches.append(f'<nop next="{number}" chance="{1 / left:.6f}"/>\n')
        played.append(
            f'<label id="{number}"/>\n<nop next="{len(tracks) + 1}"><action>'
            f'<exec rtp_stream="{track},-1,0,PCMU/8000"/></action></nop>\n'
        )
    return "".join([*branches, *played, f'<label id="{len(tracks) + 1}"/>\n'])


_STOP = '<nop><action><exec rtp_stream="pause"/></action></nop>\n'
_INVITE_TEXT = (
    f"INVITE sip:[field0]@[remote_ip]:[remote_port] SIP/2.0\n{_VIA}{_FROM}{_TO}\n"
    "Call-ID: [call_id]\nCSeq: 1 INVITE\nContact: <sip:pbx@[local_ip]:[local_port]>\n"
    f"Max-Forwards: 70\n{_SDP}"
)
_ACK = _send(
    f"ACK [next_url] SIP/2.0\n{_VIA}[routes]\n{_FROM}{_TO}[peer_tag_param]\n"
    f"Call-ID: [call_id]\nCSeq: 1 ACK\nMax-Forwards: 70\n{_EMPTY}"
)
_ACK_REFUSAL = _send(
    f"ACK sip:[field0]@[remote_ip]:[remote_port] SIP/2.0\n[last_Via:]\n{_FROM}"
    f"{_TO}[peer_tag_param]\nCall-ID: [call_id]\nCSeq: 1 ACK\nMax-Forwards: 70\n{_EMPTY}"
)
_OK = _send(f"SIP/2.0 200 OK\n{_ECHOED.format(tag='')}{_EMPTY}")
_PROVISIONAL = '<recv response="100" optional="true"/>\n<recv response="180" optional="true"/>\n'
_ANSWERED = f'{_PROVISIONAL}<recv response="200" rrs="true" rtd="1"/>\n{_ACK}'


def caller(kind: Kind, tracks: Sequence[str], hold_s: tuple[float, float]) -> str:
    """A caller's scenario.

    Args:
        kind: ``talk``: hangs up after a time; ``hangup``, ``ended``: is hung up on (by the phone,
            by the node); ``cancel``: gives up while it rings; ``busy``: finds the phone busy.
        tracks: files of µ-law, one of which is played from the answer on.
        hold_s: shortest and longest time from the answer to hanging up; while it rings, of
            ``cancel``.
    """
    pause = (
        f'<pause distribution="uniform" min="{hold_s[0] * 1000:.0f}" '
        f'max="{hold_s[1] * 1000:.0f}"/>\n'
    )
    bye = _send(
        f"BYE [next_url] SIP/2.0\n{_VIA}[routes]\n{_FROM}{_TO}[peer_tag_param]\n"
        f"Call-ID: [call_id]\nCSeq: 2 BYE\nMax-Forwards: 70\n{_EMPTY}",
        ' retrans="500"',
    )
    cancel = _send(
        f"CANCEL sip:[field0]@[remote_ip]:[remote_port] SIP/2.0\n[last_Via:]\n{_FROM}{_TO}\n"
        f"Call-ID: [call_id]\nCSeq: 1 CANCEL\nMax-Forwards: 70\n{_EMPTY}",
        ' retrans="500"',
    )
    middle = {
        "talk": f'{_ANSWERED}{_play(tracks)}{pause}{_STOP}{bye}<recv response="200"/>\n',
        "hangup": f'{_ANSWERED}{_play(tracks)}<recv request="BYE"/>\n{_STOP}{_OK}',
        "ended": f'{_ANSWERED}{_play(tracks)}<recv request="BYE"/>\n{_STOP}{_OK}',
        "cancel": (
            '<recv response="100" optional="true"/>\n<recv response="180"/>\n'
            f'{pause}{cancel}<recv response="200"/>\n<recv response="487"/>\n{_ACK_REFUSAL}'
        ),
        "busy": f'{_PROVISIONAL}<recv response="486"/>\n{_ACK_REFUSAL}',
    }[kind]
    # A response time that is begun and never ends is an error to sipp.
    timed = "" if kind in ("cancel", "busy") else ' start_rtd="1"'
    invite = _send(_INVITE_TEXT, f' retrans="500"{timed}')
    # Said before the INVITE: what sipp has still to do when an answer comes makes it unexpected.
    return (
        f"{_HEAD.format(name=f'caller-{kind}')}{_log('begun', kind)}{invite}{middle}"
        f"{_log('done', kind)}</scenario>\n"
    )


def phone(kind: Kind, tracks: Sequence[str], hold_s: tuple[float, float]) -> str:
    """The scenario of the phones that a kind of call reaches; arguments as of :func:`caller`."""
    tag = ";tag=[pid]u[call_number]"
    answer = _send(
        f"SIP/2.0 200 OK\n{_ECHOED.format(tag=tag)}[last_Record-Route:]\n{_CONTACT}{_SDP}",
        ' retrans="500"',
    )
    ringing = _send(
        f"SIP/2.0 180 Ringing\n{_ECHOED.format(tag=tag)}[last_Record-Route:]\n{_CONTACT}{_EMPTY}"
    )
    invited = (
        '<recv request="INVITE" rrs="true"><action>\n'
        '<ereg regexp=".*" search_in="hdr" header="From:" assign_to="from"/>\n'
        '<ereg regexp=".*" search_in="hdr" header="To:" assign_to="to"/>\n'
        f"</action></recv>\n{ringing}"
    )
    used = '<Reference variables="from,to"/>\n'
    pause = (
        f'<pause distribution="uniform" min="{hold_s[0] * 1000:.0f}" '
        f'max="{hold_s[1] * 1000:.0f}"/>\n'
    )
    bye = _send(
        f"BYE [next_url] SIP/2.0\n{_VIA}[routes]\nFrom:[$to]{tag}\nTo:[$from]\n"
        f"Call-ID: [call_id]\nCSeq: 1 BYE\nMax-Forwards: 70\n{_EMPTY}",
        ' retrans="500"',
    )
    talked = f'{invited}{answer}<recv request="ACK"/>\n{_play(tracks)}'
    terminated = _send(
        f"SIP/2.0 487 Request Terminated\n[last_Via:]\n[last_From:]\n[last_To:]{tag}\n"
        f"[last_Call-ID:]\nCSeq: [last_cseq_number] INVITE\n{_EMPTY}",
        ' retrans="500"',
    )
    refusal = _send(f"SIP/2.0 486 Busy Here\n{_ECHOED.format(tag=tag)}{_EMPTY}", ' retrans="500"')
    middle = {
        "talk": f'{talked}<recv request="BYE"/>\n{_STOP}{_OK}',
        "hangup": f'{talked}{pause}{_STOP}{bye}<recv response="200"/>\n',
        "ended": f'{talked}<recv request="BYE"/>\n{_STOP}{_OK}',
        "cancel": f'{invited}<recv request="CANCEL"/>\n{_OK}{terminated}<recv request="ACK"/>\n',
        "busy": f'<recv request="INVITE"/>\n{refusal}<recv request="ACK"/>\n',
    }[kind]
    references = "" if kind == "busy" else used
    return f"{_HEAD.format(name=f'phone-{kind}')}{middle}{references}</scenario>\n"
