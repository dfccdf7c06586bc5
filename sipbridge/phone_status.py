"""What the PBX is told when the side that we called refuses."""

from __future__ import annotations

from sipbridge.call_steps import AnswerIncoming


def map_phone_status(status: int) -> int:
    """The status for the PBX when the agent's phone refused with ``status``.

    A phone's own trouble must not look like ours: a forwarded 503 would make the PBX give up the
    whole trunk, a 401/407 would ask it for a password that is not its, a 404 would say that the
    agent does not exist (RFC 3261 sections 16.7, 21).
    """
    if 300 <= status < 400:
        return 302
    if status in (486, 600):
        return 486
    if status in (488, 606, 415):
        return 488
    if status == 403:
        # What Asterisk makes of a phone's 603 (both are cause 21, RFC 3398 section 8.2.6.1). Seen
        # from a phone's extension it says the same: the agent declines.
        return 603
    if status in (481, 603):  # 481: the dialog that Replaces names is not the phone's
        return status
    if status in (401, 404, 407, 408, 410, 480, 487, 503, 504):
        return 480
    return 500


#: What a line says about the number that was dialled; the PBX gets to know it as it is.
_ABOUT_THE_NUMBER = frozenset({403, 404, 410, 480, 484, 486, 487, 488, 600, 603, 604, 606})


def map_trunk_status(status: int) -> int:
    """The status for the PBX when the line refused an agent's call with ``status``.

    What it says about the number is passed on; its own trouble is 502: a forwarded 500 or 503
    would look like ours, a 401/407 would ask the PBX for a password that is not its.
    """
    if 300 <= status < 400:
        return 302
    if status == 408:
        return 480
    return status if status in _ABOUT_THE_NUMBER else 502


def refusal_for_pbx(
    status: int, contact: str, rest_s: int = 0, *, over_trunk: bool = False
) -> tuple[AnswerIncoming, str]:
    """Our answer to the INVITE when the side that we called refused, and the call's reason.

    Args:
        status: of its response.
        contact: where it redirects to; a 3xx without one counts as no answer.
        rest_s: Retry-After of the phone's 503; the PBX is told.
        over_trunk: a line refused an agent's call, not a phone.
    """
    mapped = map_trunk_status(status) if over_trunk else map_phone_status(status)
    if mapped == 302 and not contact:
        mapped = 480
    headers = (("Contact", f"<{contact}>"),) if mapped == 302 else ()
    if rest_s and mapped == 480:
        headers = (("Retry-After", str(rest_s)),)
    if status in (401, 407):
        return AnswerIncoming(mapped, headers=headers), "not_authorised"
    reason = {302: "redirected", 486: "busy", 600: "busy", 480: "no_answer"}.get(mapped, "refused")
    return AnswerIncoming(mapped, headers=headers), reason
