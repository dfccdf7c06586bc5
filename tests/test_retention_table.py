"""One table of what is kept for how long, and which rule says so."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from callshield.cli import app
from callshield.settings import load_settings
from notifier.retention import KINDS
from notifier.retention_table import Kept, table
from tests.notifier_kit import write_config


def kept(folder: Path, extra: str) -> dict[str, Kept]:
    return {row.kind: row for row in table(load_settings(write_config(folder, 8080, extra)))}


def test_each_kind_says_which_rule_it_follows(tmp_path: Path) -> None:
    rows = kept(tmp_path, '[retention]\npreset = "public"\nwords_days = 5\n')
    assert set(KINDS) <= rows.keys()
    assert (rows["words"].days, rows["words"].rule) == (5, "retention.words_days")
    assert (rows["calls"].days, rows["calls"].rule) == (1095, 'retention.preset = "public"')
    assert (rows["draws"].days, rows["draws"].rule) == (1095, 'retention.preset = "public"')
    assert rows["tokens"].rule == "retention.tokens_days"
    assert rows["hearing"].days is None
    held = rows["held_events"]
    assert (held.days, held.rule[:27]) == (None, "until the request for evide")
    assert not {"recordings", "ringback", "callback_numbers"} & rows.keys(), "what is off"


def test_what_stays_longer_than_its_rule_says_so(tmp_path: Path) -> None:
    rows = kept(tmp_path, "[retention]\ncalls_days = 1\n")
    assert (rows["calls"].days, rows["calls"].rule) == (1, "retention.calls_days")
    assert (rows["draws"].days, rows["reports"].days) == (7, 42)
    assert rows["reports"].rule == "retention.calls_days, and never less than this"


def test_what_is_switched_on_has_its_line(tmp_path: Path) -> None:
    sound = tmp_path / "sound"
    rows = kept(
        tmp_path,
        f'[recording]\nenabled = true\nretention_days = 40\ndirectory = "{sound}"\n'
        "[ringback]\nenabled = true\ndays = 9\n[callbacks]\nkeep_number = true\n",
    )
    assert (rows["recordings"].days, rows["recordings"].where) == (40, str(sound))
    assert rows["ringback"].days == 9
    assert "until somebody called back" in rows["callback_numbers"].rule


def test_the_command_shows_it(tmp_path: Path) -> None:
    write_config(tmp_path, 8080, "[retention]\nenabled = false\nevents_days = 77\n")
    config = str(tmp_path / "callshield.toml")
    done = CliRunner().invoke(app, ["privacy", "retention", "--config", config])
    assert done.exit_code == 0, done.output
    assert "retention.events_days" in done.stdout
    assert "only `callshield retention run` deletes" in done.stdout
    told = CliRunner().invoke(app, ["privacy", "retention", "--json", "--config", config])
    found = json.loads(told.stdout)
    assert found["enabled"] is False
    assert {row["kind"]: row["days"] for row in found["kinds"]}["events"] == 77
