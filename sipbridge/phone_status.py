"""What the PBX is told when the agent's phone refuses."""

from __future__ import annotations


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
    if status in (404, 408, 410, 480, 487, 503, 504):
        return 480
    return 500
