"""No reading without a record: what the command line opens is stored first, or is not opened."""

from __future__ import annotations

from notifier.reading import Readings
from notifier.tokens import Identity
from tests.store_kit import CALL, T0


def test_a_screen_counts_once_for_each_token_and_call_and_the_agent_not_at_all() -> None:
    known = Readings()

    def shown(token_id: str, role: str, call_id: str) -> int:
        identity = Identity(token_id, role, "1001" if role == "agent" else "", 1e12)  # type: ignore[arg-type]
        return len(known.shown(identity, call_id, "1001", T0))

    assert shown("a", "supervisor", CALL) == 1
    assert shown("a", "supervisor", CALL) == 0
    assert shown("b", "admin", CALL) == 1
    assert shown("a", "supervisor", "b" * 32) == 1
    assert shown("c", "agent", CALL) == 0
