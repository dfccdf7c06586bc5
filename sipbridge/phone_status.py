"""What the PBX is told when the agent's phone refuses."""

from __future__ import annotations

from sipbridge.call_steps import AnswerCaller


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
    if status in (481, 603):  # 481: the dialog that Replaces names is not the phone's
        return status
    if status in (401, 404, 407, 408, 410, 480, 487, 503, 504):
        return 480
    return 500


def refusal_for_pbx(status: int, contact: str, rest_s: int = 0) -> tuple[AnswerCaller, str]:
    """Our answer to the caller's INVITE when the agent's phone refused, and the call's reason.

    Args:
        status: of the phone's response.
        contact: where it redirects to; a 3xx without one counts as no answer.
        rest_s: Retry-After of the phone's 503; the PBX is told.
    """
    mapped = map_phone_status(status)
    if mapped == 302 and not contact:
        mapped = 480
    headers = (("Contact", f"<{contact}>"),) if mapped == 302 else ()
    if rest_s and mapped == 480:
        headers = (("Retry-After", str(rest_s)),)
    if status in (401, 407):
        return AnswerCaller(mapped, headers=headers), "not_authorised"
    reason = {302: "redirected", 486: "busy", 480: "no_answer"}.get(mapped, "refused")
    return AnswerCaller(mapped, headers=headers), reason
