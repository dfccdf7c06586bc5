"""``docs/compliance.md`` says what the presets say, and nothing that does not exist."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from callshield.compliance_page import page
from callshield.law_presets import FOLDER, Rule, load_preset, preset_ids
from detectors.acoustic import CARD_FILE, SHIPPED, load_card

ROOT = Path(__file__).parent.parent


@lru_cache
def functions_of(file: Path) -> frozenset[str]:
    """Names of the test functions of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def missing(rule: Rule) -> list[str]:
    """Files and tests that a rule names and that are not there."""
    gone = [place for place in rule.places if not (ROOT / place).is_file()]
    for named in rule.tests:
        file, _, test = named.partition("::")
        if not (ROOT / file).is_file() or test not in functions_of(ROOT / file):
            gone.append(named)
    return gone


@pytest.mark.parametrize("preset", preset_ids())
def test_every_file_and_test_that_a_rule_names_is_there(preset: str) -> None:
    for rule in load_preset(preset).rules:
        assert missing(rule) == [], f"{preset}: {rule.id}"


def test_a_rule_without_its_test_is_found() -> None:
    """Negative control: a place or a test that went away is seen."""
    rule = load_preset("kr-private").rule("no-key")
    here = "tests/test_compliance_page.py::test_a_rule_without_its_test_is_found"
    assert missing(rule.model_copy(update={"tests": [here]})) == []
    for gone in ("tests/test_law.py::test_that_never_was", "tests/test_never.py::test_a"):
        assert missing(rule.model_copy(update={"tests": [gone]})) == [gone]
    assert missing(rule.model_copy(update={"places": ["sipbridge/no.py"]})) == ["sipbridge/no.py"]


def test_the_page_is_what_the_presets_say_now() -> None:
    assert (ROOT / "docs" / "compliance.md").read_text(encoding="utf-8") == page(), (
        "run: python -m callshield.compliance_page > docs/compliance.md"
    )


def test_every_rule_stands_on_the_page_with_its_source_and_whether_it_was_read() -> None:
    text = page()
    for preset_id in preset_ids():
        for rule in load_preset(preset_id).rules:
            row = next(line for line in text.splitlines() if line.startswith(f"| `{rule.id}` "))
            assert row
            assert rule.says in text
            assert f"{rule.source}. {rule.checked}" in text
    assert text.count("**not read in the original**") > 10


def test_nothing_is_said_to_be_read_that_was_not() -> None:
    """A rule of law that claims the original says which copy, and of when."""
    for preset_id in preset_ids():
        for rule in load_preset(preset_id).rules:
            if rule.read_in_original and rule.kind != "chosen":
                assert "public copy of the statute database" in rule.looked_up, rule.id
            if not rule.read_in_original:
                assert rule.looked_up, rule.id


def test_the_risk_file_names_the_model_that_ships() -> None:
    text = (ROOT / "docs" / "eu-risk-file.md").read_text(encoding="utf-8")
    card = load_card(SHIPPED / CARD_FILE)
    assert card.sha256 in text
    assert f"version {card.version}" in text


def test_the_presets_are_in_the_package(tmp_path: Path) -> None:
    """As setuptools sees it: a wheel without them would refuse every preset."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "callshield", tmp_path / "callshield")
    code = (
        "from setuptools import Distribution\n"
        "from setuptools.config.pyprojecttoml import apply_configuration\n"
        "d = Distribution(); d.script_name = 'setup.py'\n"
        "apply_configuration(d, 'pyproject.toml'); d.ext_modules = []\n"
        "c = d.get_command_obj('build_py'); c.ensure_finalized()\n"
        "print([n for p, _, _, n in c.data_files if p == 'callshield.law'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for file in FOLDER.glob("*.toml"):
        assert file.name in done.stdout, file.name
