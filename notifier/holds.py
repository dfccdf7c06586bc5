"""Whether a call is kept as evidence: the one place that a running node asks before it deletes."""

from __future__ import annotations

from notifier.evidence import EvidenceRequests
from notifier.evidence_holds import Hold


def hold_on(requests: EvidenceRequests, call_id: str) -> Hold | None:
    """The hold on a call, while somebody's request for its evidence is open.

    Args:
        requests: the open ones of this node.
        call_id: of the call, of whatever age.
    """
    for item in requests.open:
        if item.said.call_id == call_id:
            until = item.decision.held_until_ts if item.decision is not None else None
            return Hold(call_id, item.said.ts, until)
    return None
