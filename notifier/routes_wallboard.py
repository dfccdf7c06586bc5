"""``GET /api/v1/wallboard``: what may hang on a wall, where everybody reads it.

Counts and open calls for help. No id of an agent, a call, an alert or a person, no category, no
word: nobody in the room learns from it whose call it is. Every role may read it, so a screen on a
wall needs no supervisor's token.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from callshield.messages import Direction
from callshield.messages_cluster import AlertState
from notifier.board import Board
from notifier.cluster.peers import Peer
from notifier.live import Alert, Call
from notifier.routes import IdentityDependency, NodeDependency, problems

wallboard = APIRouter(prefix="/api/v1", responses=problems(400, 401, 429))

_CALLS_FOR_SOMEBODY = ("help", "crisis")


class WallboardRequest(BaseModel):
    """Somebody waits for somebody."""

    kind: Literal["help", "crisis"]
    level: int
    raised_ts: float


class Wallboard(BaseModel):
    """The room at one glance."""

    now: float
    """The node's clock, seconds since the epoch."""
    calls: int
    """Live calls with customers; those between colleagues are not counted."""
    calls_by_level: list[int]
    """Calls that are listened to, by level 0-3."""
    calls_without_level: int
    """Calls that nobody analyses (now): they are not calm, nobody knows."""
    requests: list[WallboardRequest]
    """Open calls for help and callers in danger, oldest first."""
    alerts_open: int
    """Open alerts of every kind, those in ``requests`` among them."""
    callbacks_open: int
    """Call-backs that were promised and not made yet."""
    callbacks_overdue: int
    """Of these, past their time."""
    degraded: list[str]
    """Parts of the node that are down."""


def level_shown(call: Call, *, analysis: bool, down: bool) -> int | None:
    """The level that a screen may show of a call, or ``None`` where nobody listens to it or where
    its group is in shadow mode.

    Args:
        call: a live call.
        analysis: the detector is switched on.
        down: the detector or the media plane is away.
    """
    shown = call.tapped and analysis and not down and not call.shadow
    return call.level if shown else None


def picture(
    board: Board,
    now: float,
    *,
    analysis: bool,
    due_ts: Sequence[float] = (),
    hidden: Set[str] = frozenset(),
    others: Collection[Peer] = (),
) -> Wallboard:
    """What the board looks like from five metres away.

    Args:
        board: live calls, open alerts, parts that are down.
        now: the node's clock, seconds since the epoch.
        analysis: the detector is switched on.
        due_ts: when each open call-back is due, seconds since the epoch.
        hidden: agents of other teams, whose calls are not counted here.
        others: the other nodes; what one that is not heard had is counted no more.
    """
    down = "detector" in board.degraded or "media" in board.degraded
    levels = [
        level_shown(call, analysis=analysis, down=down)
        for call in board.calls.values()
        if call.direction is not Direction.INTERNAL and call.agent_id not in hidden
    ]
    alerts: list[Alert | AlertState] = [
        alert for alert in board.alerts.values() if alert.agent_id not in hidden
    ]
    for peer in others:
        if not peer.reachable:
            continue
        deaf = bool({"detector", "media"} & set(peer.degraded))
        levels += [
            call.level if call.tapped and analysis and not deaf and not call.hidden else None
            for call in peer.calls.values()
            if call.direction != "internal" and call.agent_id not in hidden
        ]
        alerts += [alert for alert in peer.alerts.values() if alert.agent_id not in hidden]
        due_ts = [*due_ts, *(ts for agent_id, ts in peer.callbacks if agent_id not in hidden)]
    requests = [
        WallboardRequest.model_validate(
            {"kind": alert.kind, "level": alert.level, "raised_ts": alert.raised_ts}
        )
        for alert in sorted(alerts, key=lambda alert: alert.raised_ts)
        if alert.kind in _CALLS_FOR_SOMEBODY
    ]
    return Wallboard(
        now=now,
        calls=len(levels),
        calls_by_level=[levels.count(level) for level in range(4)],
        calls_without_level=levels.count(None),
        requests=requests,
        alerts_open=len(alerts),
        callbacks_open=len(due_ts),
        callbacks_overdue=sum(due < now for due in due_ts),
        degraded=sorted(
            [
                *board.degraded,
                *(f"{one.name}/{part}" for one in others if one.reachable for part in one.degraded),
            ]
        ),
    )


@wallboard.get("/wallboard")
async def show_wallboard(node: NodeDependency, identity: IdentityDependency) -> Wallboard:
    """Counts and calls for help, for a screen that everybody in the room can read: of all teams,
    or of those of the supervisor whose token it is."""
    hidden = identity.hidden
    owed = node.aftercare.callbacks.open
    return picture(
        node.board,
        node.clock(),
        analysis=node.settings.detector.enabled,
        due_ts=[item.due_ts for item in owed if item.agent_id not in hidden],
        hidden=hidden,
        others=() if node.cluster is None else tuple(node.cluster.peers),
    )
