"""Teams, alerts and moments for the tests of the escalation."""

from __future__ import annotations

from typing import Any

from callshield.settings import Settings
from notifier.escalation import Escalation
from notifier.live import Alert, AlertKind
from notifier.policy import Policies
from notifier.rota import Teams

CALL = "c" * 32
PHONE = "sip:1@192.0.2.20:5060"


def settings(**teams: dict[str, Any]) -> Settings:
    """Agents 1001 (north), 1002 (south) and 1003 (no team); supervisors a, b, c (north), d (south)
    and the manager m; ``teams`` goes over that."""
    tables: dict[str, Any] = {
        "north": {"supervisors": ["a", "b", "c"], "manager": "m", "order": "fixed"},
        "south": {"supervisors": ["d"], "manager": "m"},
    }
    for name, table in teams.items():
        tables[name] = {**tables.get(name, {}), **table}
    people = {one: {"uri": PHONE} for one in "abcd"}
    return Settings(
        agents={
            "1001": {"uri": PHONE, "team": "north"},
            "1002": {"uri": PHONE, "team": "south"},
            "1003": {"uri": PHONE},
        },  # type: ignore[arg-type]
        supervisors={**people, "m": {"uri": PHONE, "role": "manager"}},  # type: ignore[arg-type]
        teams=tables,  # type: ignore[arg-type]
    )


def escalation(
    configured: Settings | None = None, kind: type[Escalation] = Escalation
) -> Escalation:
    configured = configured or settings()
    teams = Teams(configured)
    return kind(teams, Policies(configured, teams))


def alert(
    alert_id: str = "f" * 32,
    kind: AlertKind = "help",
    agent_id: str = "1001",
    level: int = 0,
    call_id: str = CALL,
    ts: float = 0.0,
) -> Alert:
    return Alert(alert_id, call_id, agent_id, kind, level, [], "", ts)
