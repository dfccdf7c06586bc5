"""``callshield law``, ``callshield compliance`` and what ``doctor`` says of the law."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callshield.doctor_law import changed_defaults, examine_law
from callshield.errors import CallshieldError
from callshield.findings import Verdict
from callshield.law_command import write_whole
from callshield.law_presets import load_preset, preset_ids
from callshield.serve import SETUP_FAILED
from callshield.settings import Settings
from detectors.acoustic import CARD_FILE, SHIPPED, load_card
from notifier.oversight import policies

ROOT = Path(__file__).parent.parent
PEOPLE = '[supervisors.kim]\nuri = "sip:2000@192.0.2.21:5060"\nrole = "manager"\n'


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "callshield.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "callshield.toml"


def test_the_presets_are_listed_with_their_versions() -> None:
    done = run("law", "list")
    assert done.returncode == 0
    for preset_id in preset_ids():
        line = next(line for line in done.stdout.splitlines() if line.startswith(preset_id))
        assert f"version {load_preset(preset_id).version}" in line


def test_a_preset_is_shown_with_sources_defaults_and_what_it_refuses() -> None:
    shown = run("law", "show", "kr-private").stdout
    for rule in load_preset("kr-private").rules:
        assert rule.says in shown
        assert rule.source in shown
    assert "not read in the original" in shown
    assert "not legal advice" in shown
    assert "notice.objection_key is empty: no key of the caller" in shown
    assert "aftercare.rest_s = 600" in shown
    unknown = run("law", "show", "fr")
    assert unknown.returncode == 2
    assert "choose one of cn, eu" in unknown.stderr


def test_check_tells_by_its_status_what_lacks_and_what_is_forbidden(config: Path) -> None:
    config.write_text('[law]\npreset = "kr-private"\n' + PEOPLE, encoding="utf-8")
    lacks = run("law", "check", "--config", str(config), "--json")
    assert lacks.returncode == 1
    found = json.loads(lacks.stdout)
    assert not found["ok"]
    assert [f["detail"] for f in found["findings"] if f["verdict"] == "problem"] == [
        "aftercare.counselling is empty (rule counselling of the preset kr-private)"
    ]
    whole = config.read_text("utf-8") + '[aftercare]\ncounselling = "마음건강실"\n'
    config.write_text(whole, encoding="utf-8")
    good = run("law", "check", "--config", str(config))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "ko: abuse_prevention, recording" in good.stdout
    config.write_text(whole + '[notice]\nobjection_key = "9"\n', encoding="utf-8")
    forbidden = run("law", "check", "--config", str(config))
    assert forbidden.returncode == 2
    assert "no key of the caller may switch the protection off (rule no-key)" in forbidden.stderr
    config.write_text(whole + '[notice]\nprompts = ["recording"]\n', encoding="utf-8")
    silent = run("law", "check", "--config", str(config))
    assert silent.returncode == 1
    assert "does not say that software analyses the call" in silent.stdout


def details(settings: Settings, verdict: Verdict) -> list[str]:
    return [item.detail for item in examine_law(settings) if item.verdict is verdict]


def test_without_a_preset_doctor_says_so_and_it_is_no_problem() -> None:
    (only,) = examine_law(Settings())
    assert only.verdict is Verdict.NOTE
    assert "no preset" in only.detail
    assert "callshield law list" in only.advice


MANAGER = {"kim": {"uri": "sip:2000@192.0.2.21:5060", "role": "manager"}}


@pytest.mark.parametrize(
    ("preset", "answers"),
    [
        ("kr-private", {"aftercare": {"counselling": "마음건강실"}}),
        (
            "kr-finance",
            {
                "aftercare": {"counselling": "마음건강실"},
                "law": {"grievance_contact": "고충처리위원, 내선 1234"},
            },
        ),
        ("jp", {"law": {"grievance_contact": "相談窓口 内線 1234"}}),
        ("cn", {"law": {"privacy_contact": "privacy@example.com"}}),
        (
            "eu",
            {
                "law": {"privacy_contact": "dpo@example.com"},
                "crisis": {"number": "116123"},
                "detector": {"acoustic": False},
            },
        ),
        ("us-all-party", {}),
    ],
)
def test_what_the_operator_has_to_name_is_asked_for(preset: str, answers: dict[str, Any]) -> None:
    def settings(**tables: Any) -> Settings:
        law = {"preset": preset, **tables.pop("law", {})}
        return Settings(law=law, supervisors=MANAGER, **tables)

    asked = details(settings(), Verdict.PROBLEM)
    assert len(asked) == len(load_preset(preset).asks)
    for ask in load_preset(preset).asks:
        assert f"{ask.key} is empty (rule {ask.rule} of the preset {preset})" in asked
    assert details(settings(**answers), Verdict.PROBLEM) == []


def test_what_the_operator_changed_is_said() -> None:
    changed = Settings(law={"preset": "kr-private"}, aftercare={"rest_s": 90})
    assert changed_defaults(load_preset("kr-private"), changed) == [
        "aftercare.rest_s = 90 (the preset's is 600)"
    ]
    assert any("aftercare.rest_s = 90" in line for line in details(changed, Verdict.OK))
    same = Settings(law={"preset": "kr-private"})
    assert not any("changed here" in line for line in details(same, Verdict.OK))


def test_the_risk_file_has_to_be_of_the_model_in_use(tmp_path: Path) -> None:
    file = tmp_path / "risks.md"

    def told(**tables: Any) -> list[str]:
        law = {"preset": "eu", "privacy_contact": "dpo@example.com", "risk_file": file}
        settings = Settings(law=law, crisis={"number": "116123"}, **tables)
        return details(settings, Verdict.PROBLEM)

    (missing,) = told()
    assert "cannot be read" in missing
    file.write_text("sha256 00", encoding="utf-8")
    (other,) = told()
    assert "does not name the model in use" in other
    file.write_text((ROOT / "docs" / "eu-risk-file.md").read_text("utf-8"), encoding="utf-8")
    assert told() == []
    assert load_card(SHIPPED / CARD_FILE).sha256 in file.read_text("utf-8")
    file.write_text("sha256 00", encoding="utf-8")
    assert told(detector={"acoustic": False}) == [], "no model, no risk of it"


def test_doctor_has_the_line(config: Path) -> None:
    config.write_text('[law]\npreset = "kr-private"\n', encoding="utf-8")
    done = run("doctor", "--config", str(config), "--json")
    names = [item["name"] for item in json.loads(done.stdout)["findings"]]
    assert "law" in names


def test_a_node_whose_notice_does_not_say_so_does_not_start(config: Path, tmp_path: Path) -> None:
    """The bridge ends with the status that ends the whole node (``serve.SETUP_FAILED``)."""
    folders = f'[node]\nstate_dir = "{tmp_path}"\nruntime_dir = "{tmp_path}/r"\n'
    law = '[law]\npreset = "kr-private"\n[notice]\nprompts = ["recording"]\n'
    config.write_text(folders + law, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sipbridge.process", "--config", str(config)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == SETUP_FAILED
    assert "does not say that software analyses the call (rule says-analysis" in done.stderr


def test_the_workers_representative_sees_which_preset_is_in_force() -> None:
    settings = Settings(law={"preset": "kr-private"}, detector={"acoustic": False})
    assert policies(settings)["law"] == {"preset": "kr-private", "version": "1"}
    assert policies(settings)["analysis"]["voice"] is False
    assert policies(Settings())["law"] == {"preset": "", "version": ""}


def test_the_paper_is_written_whole_or_not_at_all(config: Path, tmp_path: Path) -> None:
    config.write_text('[law]\npreset = "kr-private"\n', encoding="utf-8")
    out = tmp_path / "paper.md"
    done = run("compliance", "works-council", "--config", str(config), "-o", str(out))
    assert done.returncode == 0, done.stderr
    printed = run("compliance", "works-council", "--config", str(config))
    assert printed.stdout == out.read_text("utf-8")
    assert printed.stdout.startswith("# 상담사 보호 시스템")
    before = sorted(tmp_path.iterdir())
    config.write_text('[notice]\nprompts = ["no_such"]\n', encoding="utf-8")
    refused = run("compliance", "works-council", "--config", str(config), "-o", str(out))
    assert refused.returncode == 2
    assert "no_such" in refused.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert out.read_text("utf-8") == printed.stdout, "the old one is untouched"
    nowhere = tmp_path / "no" / "paper.md"
    config.write_text("", encoding="utf-8")
    lost = run("compliance", "works-council", "--config", str(config), "-o", str(nowhere))
    assert lost.returncode == 2
    assert "cannot be written" in lost.stderr


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "paper.md"
    target.mkdir()
    (target / "in the way").touch()
    with pytest.raises(CallshieldError, match="cannot be written"):
        write_whole(target, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["paper.md"]
