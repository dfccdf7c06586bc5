"""Refuses SIP requests before a transaction exists, and answers OPTIONS.

A C extension in the wheel of pjsua2 (`pjsip_guard.c`), below PJSIP's transaction layer. It refuses
requests, never responses. In both it keeps the requests of our dialogs inside the networks, and a
session refresh that met one of the far end's is sent again (`pjsip_paths.c`). Above that layer,
REFER, NOTIFY and INFO inside dialogs are kept for Python to answer, and Replaces is hidden from
pjsua (`pjsip_dialogs.c`). Dialogs of a process that died are taken up again (`pjsip_kept.c`). Until
`set_allowed_networks` is called nobody is allowed; until `set_readiness` is called OPTIONS is
answered 503.

All functions may be called from any thread, except where a function says otherwise.
"""

from typing import Any

def install() -> None:
    """Register the guard with the endpoint; call it once `Endpoint.libInit()` has returned.

    Call it before `libStart()`: PJSIP sleeps 100 ms to take a module while it runs. A second call
    does nothing. After `libDestroy()` and a new `libInit()` it must be called again; networks,
    limits, readiness and counters are kept.

    Raises:
        RuntimeError: there is no endpoint, or PJSIP does not know the calling thread.
    """

def set_allowed_networks(networks: list[tuple[str, int]], /) -> None:
    """Set who may send any request, in and out of dialogs; replaces the former list at once.

    Refused requests are counted, answered by a stateless 403 at most ten times per second over all
    refused sources together, and dropped silently otherwise; an ACK is always dropped silently.
    The 403 goes to the address that the request came from, whatever its Via says.

    Args:
        networks: (address, prefix length) pairs, IPv4 or IPv6; bits after the prefix are ignored.
            An IPv4 peer on a dual-stack socket counts as IPv4. An empty list allows nobody.

    Raises:
        ValueError: an address or a prefix length is not one; the former list stays.
        TypeError: not a list of tuples.
    """

def set_in_dialog_networks(networks: list[tuple[str, int]], /) -> None:
    """Set who, besides the allowed networks, may send requests inside dialogs (with a To tag).

    Meant for the agents' phones: they answer our calls, hold, transfer and hang up, but never
    call us. Out of a dialog they are refused as in `set_allowed_networks`. Same arguments and
    errors; an empty list, the state at the start, adds nobody.
    """

def set_rate_limit(per_second: float, burst: int) -> None:
    """Limit new requests outside dialogs for each allowed source address (token bucket).

    Counted: every request without a To tag but CANCEL and ACK, and not the retransmission of a
    request that has a transaction. OPTIONS has a bucket of its own with the same figures,
    and so has what comes by TCP or TLS, whose address cannot be forged. Above
    the limit: a stateless 503 with Retry-After (RFC 3261 21.5.4). Buckets of 4096 addresses are
    kept, least recently seen ones make room. No limit until this is called. Every call fills all
    buckets.

    Args:
        per_second: requests a second in the long run; 0 for no limit.
        burst: requests at once after a pause, at least 1.

    Raises:
        ValueError: a figure is out of range.
    """

def set_connection_limits(per_source: int, in_all: int, first_message_s: int) -> None:
    """Bound the TCP and TLS connections that others open to us.

    A connection from outside both lists of networks is closed before anything is read from it, and
    so is one too many; those that are open are never touched. Until this is called there may be
    4096, and a silent one stays.

    Args:
        per_source: connections of one address, at least 1.
        in_all: of all addresses together, 1 to 4096.
        first_message_s: one without a whole SIP message after so many seconds is closed; 0: never.

    Raises:
        ValueError: a figure is out of range.
    """

def set_readiness(ready: bool, retry_after_s: int) -> None:
    """Set the answer to OPTIONS outside dialogs, given statelessly for every Request-URI.

    Args:
        ready: 200 with Allow, Accept and Supported (RFC 3261 11.2), or 503.
        retry_after_s: Retry-After of the 503, in seconds; 0 leaves the header out.

    Raises:
        ValueError: retry_after_s is negative.
    """

def take_unknown_byes() -> list[bytes]:
    """Return, oldest first, and forget the BYEs that came for dialogs unknown to PJSIP.

    Each is the whole SIP message as received. PJSIP has answered 481 already. At most 256 wait;
    older ones are dropped and counted (`unknown_byes_dropped`). A sender that repeats its BYE in
    spite of the 481 is reported each time.
    """

def take_requests() -> list[tuple[int, int, bytes]]:
    """Return the requests inside dialogs that wait for an answer of ours, oldest first.

    These are REFER, NOTIFY and INFO within a call's dialog; PJSIP and pjsua never see them. Each
    is (token, number of the call in pjsua, the whole SIP message), is returned once, and must be
    given to `answer_request`: the far end waits, and a 257th waiting one is answered 503.
    """

def answer_request(token: int, status: int, headers: list[tuple[str, str]], /) -> bool:
    """Send the final answer to a request of `take_requests`.

    Args:
        token: as it was taken.
        status: 200 to 699.
        headers: further headers, name and value.

    Returns:
        False: there is no such request (any more), or it could not be sent.

    Raises:
        ValueError: a header is empty or not one line (the far end gets 500), or a bad status.
        RuntimeError: `install` was not called, or PJSIP does not know the calling thread.
    """

def dialog(call: int, /) -> tuple[str, str, str, str] | None:
    """Return Call-ID, our tag, the far end's tag ("" yet unknown) and its Contact URI of a call.

    Args:
        call: pjsua's number of the call.

    Returns:
        None when there is no such call.

    Raises:
        RuntimeError: as `answer_request`.
    """

def dialog_state(call: int, /) -> dict[str, Any] | None:
    """Return what restores a call's dialog (RFC 3261 section 12), as `kept_open` takes it.

    The keys are those of `kept_open`'s arguments but `account`: text, but for `routes` (the route
    set in order, a Route header's value each), `local_cseq` (the next of ours), `remote_cseq` (the
    last of theirs, -1 for none) and `uac` (our INVITE began it). Besides, `local_sdp` and
    `remote_sdp` are the session descriptions in force, as they were on the wire, or empty: they may
    carry SRTP keys and are for no log.

    Args:
        call: pjsua's number of the call.

    Returns:
        None when there is no such call.

    Raises:
        RuntimeError: as `answer_request`.
    """

def kept_open(
    account: int,
    call_id: str,
    local_uri: str,
    local_tag: str,
    remote_uri: str,
    remote_tag: str,
    target: str,
    contact: str,
    routes: list[str],
    local_cseq: int,
    remote_cseq: int,
    uac: bool,
) -> int:
    """Restore a dialog that a former process began; its requests go by the account's transport.

    From now on PJSIP matches what comes in it (`take_kept`), and no invite session, session timer
    or pjsua call is on it. Requests of ours are routed by target and route set, and answer
    challenges with the account's credentials.

    Args:
        account: pjsua's number of an account.

    Returns:
        A handle for the other functions; handles are not used again.

    Raises:
        ValueError: a part cannot be used, the dialog is there already, or too many are.
        RuntimeError: as `answer_request`.
    """

def kept_request(
    handle: int, method: str, headers: list[tuple[str, str]], cseq_skip: int = 0, /
) -> bool:
    """Send a request in a restored dialog; its final answer comes by `take_kept`.

    Args:
        handle: of `kept_open`.
        method: BYE, OPTIONS or UPDATE.
        headers: further headers, name and value.
        cseq_skip: CSeq numbers to leave out first, where the former process may have used them.

    Returns:
        False: there is no such dialog, or the request cannot be sent.

    Raises:
        ValueError: another method, or a header that is empty or not one line.
        RuntimeError: as `answer_request`.
    """

def kept_answer(token: int, status: int, headers: list[tuple[str, str]], sdp: str, /) -> bool:
    """Send the final answer to a request of `take_kept`.

    Args:
        token: as it was taken.
        status: 200 to 699.
        headers: further headers, name and value.
        sdp: the answer's session description; empty: none.

    Returns:
        False: there is no such request (any more), or it could not be sent.

    Raises:
        ValueError: a header is empty or not one line (the far end gets 500), or a bad status.
        RuntimeError: as `answer_request`.
    """

def kept_close(handle: int, /) -> bool:
    """Forget a restored dialog, and what of it was not taken or answered; nothing is sent.

    Transactions that run go on to their end.

    Returns:
        False: there is no such dialog.

    Raises:
        RuntimeError: as `answer_request`.
    """

def invite_sent(call: int, /) -> tuple[bytes, str, int] | None:
    """Return the INVITE of ours that awaits its final answer: as it was on the wire, and the IP
    address and port that it went to. It may carry SRTP keys: it is for no log.

    Args:
        call: pjsua's number of the call.

    Returns:
        None when there is no such call, or it has no INVITE of ours under way.

    Raises:
        RuntimeError: as `answer_request`.
    """

def send_raw(account: int, address: str, port: int, message: bytes, /) -> bool:
    """Send a message as it stands, without a transaction, by an account's transport.

    Args:
        account: pjsua's number of an account.
        address: an IP address.
        port: at it.
        message: the bytes.

    Returns:
        False: it could not be sent.

    Raises:
        ValueError: no such account, or no address.
        RuntimeError: as `answer_request`.
    """

def kept_state(handle: int, /) -> dict[str, Any] | None:
    """Return `target`, `local_cseq` and `remote_cseq` of a restored dialog, as `dialog_state` does.

    Returns:
        None when there is no such dialog.

    Raises:
        RuntimeError: as `answer_request`.
    """

def take_kept() -> list[tuple[int, int, int, str, bytes]]:
    """Return what came in restored dialogs since the last call.

    Each is (handle, token, status, method, the whole SIP message). A token other than 0 is a
    request, to be given to `kept_answer`: the far end waits. A token of 0 is the final answer to a
    request of ours: its status and method; the message is empty when none came (408, 503).
    """

def remote_sdp(call: int, /) -> str | None:
    """Return the far end's session description that is in force, as text.

    It may carry SRTP keys: it is for no log.

    Args:
        call: pjsua's number of the call.

    Returns:
        None when there is no such call, or nothing has been agreed on it.

    Raises:
        RuntimeError: PJSIP does not know the calling thread.
    """

def counters() -> dict[str, int]:
    """Return the counters since the process started.

    `received_requests`: well-formed requests seen, refused ones included.
    `refused_source`: from outside the networks; `refused_source_answered` of them got a 403.
    `rate_limited`: answered 503 by the rate limit.
    `options_ok`, `options_unready`: OPTIONS answered 200 and 503.
    `refused_method`: answered 405 (a method that nobody serves), 403 (REFER outside a dialog) or
        481 (another method of dialogs, outside of one).
    `unknown_byes`: BYEs for unknown dialogs; `unknown_byes_dropped` of them pushed out unread.
    `false_tls`: answered 400, for a Via that says TLS on a message that came without.
    `refused_connections`: closed by `set_connection_limits`; `open_connections` there are now.
    `malformed`: messages that PJSIP's transport layer reports as dropped: a broken start line or
        header, a missing Call-ID, From, To, Via or CSeq, too long for the buffer; and datagrams
        shorter than their Content-Length (requests are answered 400). Keep-alives are
        not counted, nor are packets without a single line that looks like SIP: PJSIP ignores those
        without a word.
    `paths_mended`: messages whose Contact or Record-Route would have led our requests outside the
        allowed and the in-dialog networks, or to a host name: they go where the message came from;
        and host names in session descriptions, which nobody is to wait for a name server about.
    """

def info() -> dict[str, str | int]:
    """Return what this build is, from the libraries loaded now; works without an endpoint.

    `pjsip_version` ("2.17"), `max_calls` (call legs), `ioqueue` ("epoll"), `tls` ("OpenSSL 3.0.22
    ..."), `srtp` ("libsrtp2 2.5.0"), `max_packet_bytes` (longest SIP message received whole).
    """

def epoll_fd() -> int:
    """Return the descriptor that is readable when PJSIP has network events to handle.

    It belongs to PJSIP: watch it (`loop.add_reader`, level-triggered), never read or close it.
    Timers don't make it readable: see `next_timer_ms`. Valid until `libDestroy()`.

    Raises:
        RuntimeError: there is no endpoint, PJSIP does not know the calling thread, or this build
            has no epoll.
    """

def next_timer_ms() -> int | None:
    """Return the milliseconds until PJSIP's next timer is due, 0 if it is due, None if none runs.

    Raises:
        RuntimeError: there is no endpoint, or PJSIP does not know the calling thread.
    """

def load() -> dict[str, int]:
    """Return how many `transactions` and `dialogs` (sets with one Call-ID) PJSIP holds now.

    Raises:
        RuntimeError: there is no endpoint, or PJSIP does not know the calling thread.
    """
