"""What the scenarios have in common, for their ``$name`` placeholders: honest SIP, one step each.

A scenario's file says in its own words only what is a lie; the rest is here. sipp's own variables
are written ``$$1`` in the files.
"""

from __future__ import annotations

#: A description of a telephone that can be taken.
SDP = """\
v=0
o=user1 53655765 2353687637 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8 0 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
"""

_CALLER = """\
From: "Kim" <sip:01012345678@[local_ip]:[local_port]>;tag=[pid]c[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>"""
_VIA = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]"
_CONTACT = "Contact: <sip:pbx@[local_ip]:[local_port];transport=[transport]>"
_PHONE_CONTACT = "Contact: <sip:phone@[local_ip]:[local_port];transport=[transport]>"
_ECHO = """\
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]"""
_TAGGED = _ECHO.replace("[last_To:]", "[last_To:];tag=[pid]u[call_number]")


def _send(text: str, retrans: str = "") -> str:
    return f"<send{retrans}><![CDATA[\n{text}\n]]></send>"


_RETRANS = ' retrans="500"'
_NO_BODY = "Content-Length: 0\n"


def _request(method: str, number: str) -> str:
    """A request of the PBX inside the dialog."""
    return (
        f"{method} [next_url] SIP/2.0\n{_VIA}\n[routes]\n{_CALLER}[peer_tag_param]\n"
        f"Call-ID: [call_id]\nCSeq: {number} {method}\n{_CONTACT}\nMax-Forwards: 70\n"
    )


PARTS = {
    # ------------------------------------------------------------------------------- the PBX
    "caller": _CALLER,
    "via": _VIA,
    "contact": _CONTACT,
    "sdp": SDP,
    "offer": SDP,
    "length": "[len]",
    # `head` and `tail` stand around what a scenario says itself in its INVITE.
    "head": (
        f"INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n{_VIA}\n{_CALLER}\n"
        f"Call-ID: [call_id]\nCSeq: 1 INVITE"
    ),
    "invite": _send(
        f"INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n{_VIA}\n{_CALLER}\n"
        f"Call-ID: [call_id]\nCSeq: 1 INVITE\n{_CONTACT}\nMax-Forwards: 70\n"
        f"Content-Type: application/sdp\nContent-Length: [len]\n\n{SDP}",
        _RETRANS,
    ),
    "progress": '<recv response="100" optional="true"/>\n<recv response="180" optional="true"/>',
    "answered": (
        '<recv response="100" optional="true"/>\n<recv response="180" optional="true"/>\n'
        '<recv response="200" rrs="true"/>'
    ),
    "ack": _send(_request("ACK", "1") + _NO_BODY),
    "ack_refusal": _send(
        f"ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n[last_Via:]\n"
        f"{_CALLER}[peer_tag_param]\nCall-ID: [call_id]\nCSeq: 1 ACK\nMax-Forwards: 70\n{_NO_BODY}"
    ),
    "cancel": _send(
        f"CANCEL sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n[last_Via:]\n{_CALLER}\n"
        f"Call-ID: [call_id]\nCSeq: 1 CANCEL\nMax-Forwards: 70\n{_NO_BODY}",
        _RETRANS,
    ),
    "reinvite_head": (
        f"INVITE [next_url] SIP/2.0\n{_VIA}\n[routes]\n{_CALLER}[peer_tag_param]\n"
        "Call-ID: [call_id]\nCSeq: 2 INVITE"
    ),
    "reinvite_ack": _send(_request("ACK", "2") + _NO_BODY),
    "reinvite_again": (
        f"INVITE [next_url] SIP/2.0\n{_VIA}\n[routes]\n{_CALLER}[peer_tag_param]\n"
        "Call-ID: [call_id]\nCSeq: 3 INVITE"
    ),
    "ack_again": _send(_request("ACK", "3") + _NO_BODY),
    "bye_again": _send(_request("BYE", "4") + _NO_BODY, _RETRANS) + '\n<recv response="200"/>',
    "bye": _send(_request("BYE", "2") + _NO_BODY, _RETRANS) + '\n<recv response="200"/>',
    # ----------------------------------------------------------------------------- the phone
    "echo": _ECHO,
    "tagged": _TAGGED,
    # Of a refusal that another INVITE follows: its ACK is told from the answer's.
    "asking": _ECHO.replace("[last_To:]", "[last_To:];tag=asking"),
    "phone_contact": _PHONE_CONTACT,
    "ring": _send(f"SIP/2.0 180 Ringing\n{_TAGGED}\n{_PHONE_CONTACT}\n{_NO_BODY}"),
    "answer": _send(
        f"SIP/2.0 200 OK\n{_TAGGED}\n{_PHONE_CONTACT}\nContent-Type: application/sdp\n"
        f"Content-Length: [len]\n\n{SDP}",
        _RETRANS,
    )
    # An INVITE that comes again has crossed the answer, on a machine so busy that T1 (bridge_child)
    # has passed. sipp knows one again only until it has sent two answers to it.
    + '<label id="answered"/>\n<recv request="INVITE" optional="true" next="answered"/>',
    "acked": '<recv request="ACK"/>',
    # The same of a CANCEL, behind the two answers to it: its own, and the INVITE's.
    "cancelled": '<label id="cancelled"/>\n'
    '<recv request="CANCEL" optional="true" next="cancelled"/>',
    # An ACK of a refusal comes again where the refusal did (RFC 3261 17.1.1.2).
    "acked_itself": '<label id="late"/>\n<recv request="ACK" next="itself" test="itself"><action>\n'
    '<ereg regexp="tag=[0-9]+u" search_in="hdr" header="To:" assign_to="itself"/>\n'
    '</action></recv>\n<nop next="late"/>\n<label id="itself"/>',
    # ------------------------------------------------------------------------------- both
    "ok": _send(f"SIP/2.0 200 OK\n{_ECHO}\n{_NO_BODY}"),
    "bye_comes": '<recv request="BYE"/>\n' + _send(f"SIP/2.0 200 OK\n{_ECHO}\n{_NO_BODY}"),
}
