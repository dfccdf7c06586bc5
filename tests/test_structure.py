"""The house's own rules, held against the code: imports point one way, and no way to listen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("sipbridge", "detectors", "notifier", "firmware_profiles")
#: The common ground that every room may use; the rest of callshield/ is the front door.
GROUND = {
    "audio_codecs",
    "bus",
    "caller_mark",
    "caller_pseudonym",
    "errors",
    "findings",
    "g711",
    "heartbeat",
    "intervals",
    "law_presets",
    "libopus",
    "key_lines",
    "lifeline",
    "listening",
    "local_socket",
    "logs",
    "message_base",
    "messages",
    "messages_care",
    "messages_cluster",
    "messages_escalation",
    "messages_evidence",
    "messages_fairness",
    "messages_hearing",
    "messages_media",
    "messages_phones",
    "messages_notice",
    "messages_privacy",
    "messages_store",
    "outbound_settings",
    "privacy_inventory",
    "private_file",
    "purposes",
    "settings",
    "settings_base",
    "settings_care",
    "settings_cluster",
    "settings_edge",
    "settings_teams",
    "settings_evidence",
    "settings_fairness",
    "settings_headsets",
    "settings_law",
    "settings_hearing",
    "settings_media",
    "settings_notice",
    "settings_oidc",
    "settings_phones",
    "settings_privacy",
    "settings_sip",
    "settings_store",
    "settings_webhooks",
    "tap",
    "threshold_settings",
    "transcriber_settings",
}


def imports(source: str) -> set[str]:
    """Modules named by import statements, also those inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            if node.module == "callshield":
                found |= {f"callshield.{alias.name}" for alias in node.names}
    return found


def breaches(room: str, source: str) -> list[str]:
    """Imports of ``source`` that a module of ``room`` must not have."""
    bad = []
    for module in imports(source):
        top, _, rest = module.partition(".")
        if top in ROOMS and top != room:
            bad.append(module)
        if top == "callshield" and rest and rest.split(".")[0] not in GROUND | {"__version__"}:
            bad.append(module)
    return sorted(bad)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_know_the_schema_not_each_other(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        assert breaches(room, path.read_text(encoding="utf-8")) == [], path


def test_the_ground_floor_knows_no_room() -> None:
    for name in GROUND:
        source = (ROOT / "callshield" / f"{name}.py").read_text(encoding="utf-8")
        assert not {m for m in imports(source) if m.split(".")[0] in ROOMS}, name


def test_the_rule_finds_a_breach() -> None:
    """Negative control: a breach in any form is seen."""
    assert breaches("detectors", "from sipbridge.relay import CallerLeg") == ["sipbridge.relay"]
    assert breaches("notifier", "def f():\n    import callshield.demo") == ["callshield.demo"]
    assert breaches("notifier", "from callshield import serve") == ["callshield.serve"]
    assert breaches("sipbridge", "from callshield.tap import CallerFrame") == []


def test_no_module_is_a_drawer_for_everything() -> None:
    for room in (*ROOMS, "callshield"):
        for path in (ROOT / room).rglob("*.py"):
            assert path.stem not in {"utils", "util", "helpers", "manager", "common", "misc"}, path
