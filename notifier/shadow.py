"""Shadow mode: a group tries it out. Its agents are told and keep every button; nobody else is.

An alert of the machine is kept for the weekly figures of the group instead of being raised
(:class:`callshield.messages_fairness.AlertWithheld`), supervisors' screens show no level of these
calls, and nothing automatic happens in them. A request for help is a person's own word: it goes out
as always, and from then on supervisors see the call as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from callshield.messages import CrisisHint, Reason, RiskChanged
from callshield.messages_care import CallMarked
from callshield.messages_fairness import AlertWithheld
from callshield.settings import Settings
from notifier.rows import Row


class Shadow:
    """Which calls are in shadow mode.

    Args:
        settings: the node's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        groups = set(settings.shadow.groups)
        self._agents = frozenset(id_ for id_, a in settings.agents.items() if a.group in groups)
        self._crisis_alerts = settings.shadow.crisis_alerts

    def covers(self, agent_id: str) -> bool:
        """True when this agent's calls are in shadow mode."""
        return agent_id in self._agents

    def withholds(self, agent_id: str, kind: str) -> bool:
        """True when an alert of this kind is kept back."""
        if not self.covers(agent_id):
            return False
        return kind == "risk" or (kind == "crisis" and not self._crisis_alerts)

    def for_bridge(self, message: RiskChanged, agent_id: str) -> RiskChanged:
        """A level as the bridge may hear it: nothing automatic follows from it in shadow mode."""
        if self.covers(agent_id):
            return msgspec.structs.replace(message, may_trigger=False)
        return message


#: What supervisors' screens do not hear of a call in shadow mode before its agent asks for help; a
#: mark too comes at the moment of a level.
HIDDEN = (RiskChanged, CrisisHint, CallMarked)


def withheld_row(event: AlertWithheld) -> Row:
    """The row of an alert that was kept back."""
    return Row(
        "withheld_alerts",
        {
            "alert_id": event.alert_id,
            "ts": event.ts,
            "call_id": event.call_id,
            "kind": event.kind,
            "level": event.level,
            "categories": msgspec.json.encode(event.categories).decode(),
            "rules": msgspec.json.encode(event.rules).decode(),
        },
    )


def rules_of(reasons: Iterable[Reason]) -> list[str]:
    """Names of the rules behind a level, each once."""
    return list(dict.fromkeys(reason.rule for reason in reasons if reason.rule))


#: What a supervisor is shown of a call in shadow mode.
_CALM: Mapping[str, object] = {
    "level": 0,
    "categories": [],
    "acoustic_only": False,
    "words_confirmed": False,
    "crisis": False,
}


def calm(view: dict[str, Any]) -> dict[str, Any]:
    """A live call without what the machine thinks of it."""
    return {**view, **_CALM}
