"""Presets of law: defaults where the operator says nothing, refusal where he contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from callshield.errors import CallshieldError, ConfigurationError
from callshield.law_presets import (
    FOLDER,
    Limit,
    Preset,
    broken_limits,
    load_preset,
    preset_ids,
    unanswered,
    values_of,
)
from callshield.settings import Settings, load_settings
from callshield.settings_law import PresetId

BASE = """
[[peers]]
name = "pbx"
networks = ["192.0.2.10"]
[agents.1001]
uri = "sip:1001@192.0.2.20:5060"
[supervisors.kim]
uri = "sip:2000@192.0.2.21:5060"
role = "manager"
[teams.north]
supervisors = ["kim"]
"""


def load(tmp_path: Path, text: str, base: str = BASE) -> Settings:
    path = tmp_path / "callshield.toml"
    path.write_text(base + text, encoding="utf-8")
    return load_settings(path)


def refused(tmp_path: Path, text: str, base: str = BASE) -> dict[str, tuple[str, str]]:
    """The faults of a configuration by key: what was found, what was expected."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, base)
    assert all(source.endswith("callshield.toml") for source, *_ in caught.value.faults)
    return {key: (found, expected) for _, key, found, expected in caught.value.faults}


def law(preset: str, more: str = "") -> str:
    return f'[law]\npreset = "{preset}"\n{more}\n'


def test_the_presets_that_can_be_chosen_are_those_that_ship() -> None:
    assert set(get_args(PresetId)) - {""} == set(preset_ids())
    assert all(load_preset(name).id == name for name in preset_ids())


def test_without_a_preset_nothing_changes(tmp_path: Path) -> None:
    plain = load(tmp_path, "")
    assert plain.law.chosen is None
    assert plain.aftercare.rest_s == 0
    # And what a preset forbids is a matter of the preset alone.
    assert load(tmp_path, '[notice]\nobjection_key = "9"').notice.objection_key == "9"


@pytest.mark.parametrize("preset", preset_ids())
def test_every_preset_is_in_force_with_nothing_but_its_name(tmp_path: Path, preset: str) -> None:
    """Its own defaults never break its own limits."""
    settings = load(tmp_path, law(preset))
    chosen = settings.law.chosen
    assert chosen is not None
    for key, value in chosen.defaults.items():
        found = dict(values_of(settings, key))
        assert found, key
        assert all(one == value for one in found.values()), key


def test_defaults_fill_only_what_the_operator_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load(tmp_path, law("kr-private") + "[aftercare]\nrest_s = 120\nextend_s = 60\n")
    assert (own.aftercare.rest_s, own.aftercare.extend_s) == (120, 60)
    assert (
        load(tmp_path, law("kr-private") + "[aftercare]\nextend_s = 60\n").aftercare.rest_s == 600
    )
    monkeypatch.setenv("CALLSHIELD_AFTERCARE__REST_S", "240")
    from_environment = load(tmp_path, law("kr-private") + "[aftercare]\nrest_s = 120\n")
    assert from_environment.aftercare.rest_s == 240
    monkeypatch.delenv("CALLSHIELD_AFTERCARE__REST_S")
    monkeypatch.setenv("CALLSHIELD_LAW__PRESET", "us-one-party")
    american = load(tmp_path, "")
    assert american.notice.prompts == ["recording_analysis"]
    assert american.crisis_line[0] == "988"


def test_a_public_bodys_default_is_that_of_every_team_and_of_agents_without_one(
    tmp_path: Path,
) -> None:
    second = '[teams.south]\nsupervisors = ["kim"]\npreset = "kr"\n'
    settings = load(tmp_path, second + law("kr-public"))
    assert settings.teams["north"].preset == "public"
    assert settings.teams["south"].preset == "kr", "the operator's own word"
    assert settings.alerts.preset == "public"
    assert settings.retention.days("words") == 90
    assert load(tmp_path, law("kr-private")).teams["north"].preset == "kr"


def test_a_table_that_a_program_gives_whole_stays_as_it_is() -> None:
    from callshield.settings_care import AftercareSettings

    care = AftercareSettings(rest_s=90)  # type: ignore[call-arg]
    assert Settings(law={"preset": "kr-private"}, aftercare=care).aftercare.rest_s == 90


#: One contradiction for each limit of each preset: preset, what is added, key, what is expected.
CONTRADICTIONS = [
    ("kr-private", '[notice]\nobjection_key = "9"', "notice.objection_key", "nothing"),
    ("kr-private", '[notice]\nconsent_key = "1"', "notice.consent_key", "nothing"),
    ("kr-private", "[aftercare]\nrest_s = 0", "aftercare.rest_s", "at least 60"),
    ("kr-private", "[aftercare]\nafter_end = false", "aftercare.after_end", "true"),
    ("kr-private", "[aftercare]\nextend_s = 0", "aftercare.extend_s", "at least 60"),
    (
        "kr-private",
        "[aftercare]\nlongest_s = 600",
        "aftercare.longest_s",
        "more than aftercare.rest_s (600)",
    ),
    ("kr-public", '[notice]\nobjection_key = "9"', "notice.objection_key", "nothing"),
    (
        "kr-public",
        "[teams.north.policy]\nlength_end_automatically = true",
        "teams.north.policy.length_end_automatically",
        "false",
    ),
    ("kr-finance", '[notice]\nconsent_key = "9"', "notice.consent_key", "nothing"),
    (
        "jp",
        '[teams.north.policy]\nlevel_3 = "nobody"',
        "teams.north.policy.level_3",
        "anything but 'nobody'",
    ),
    ("jp", '[shadow]\ngroups = ["trial"]', "shadow.groups", "nothing"),
    (
        "jp",
        "[teams.north.policy]\nlength_end_automatically = true",
        "teams.north.policy.length_end_automatically",
        "false",
    ),
    (
        "cn",
        "[teams.north.policy]\nlength_end_automatically = true",
        "teams.north.policy.length_end_automatically",
        "false",
    ),
    ("eu", '[notice]\nobjection_key = ""', "notice.objection_key", "a value"),
    ("eu", "[notice]\nkey_window_s = 0", "notice.key_window_s", "at least 1"),
    (
        "eu",
        '[[peers]]\nname = "b"\nnetworks = ["192.0.2.11"]\ninternal_numbers = false',
        "peers.1.internal_numbers",
        "true",
    ),
    (
        "eu",
        "[teams.north.policy]\nlength_end_automatically = true",
        "teams.north.policy.length_end_automatically",
        "false",
    ),
]


@pytest.mark.parametrize(("preset", "text", "key", "expected"), CONTRADICTIONS)
def test_what_a_preset_forbids_is_refused_whatever_key_says_it(
    tmp_path: Path, preset: str, text: str, key: str, expected: str
) -> None:
    # The control: the same lines are no fault without the preset.
    load(tmp_path, text)
    faults = refused(tmp_path, text + "\n" + law(preset))
    assert set(faults) == {key}
    found, sentence = faults[key]
    assert found not in ("", "nothing") or key == "notice.objection_key"
    assert sentence.startswith(f"{expected} under the preset {preset}: ")
    rule = sentence.rpartition("(rule ")[2].rstrip(")")
    assert load_preset(preset).rule(rule).says


@pytest.mark.parametrize("preset", ["kr-finance", "jp"])
def test_somebody_has_to_be_able_to_take_a_call_over(tmp_path: Path, preset: str) -> None:
    nobody = BASE.replace('role = "manager"\n', "")
    found, expected = refused(tmp_path, law(preset), nobody)["supervisors"]
    assert found == "a table of 1"
    assert expected.startswith("an entry with role = 'manager' under the preset")
    load(tmp_path, law("kr-private"), nobody)


def test_every_limit_has_a_contradiction_above() -> None:
    tried = {(preset, key) for preset, _, key, _ in CONTRADICTIONS}
    tried |= {("kr-finance", "supervisors"), ("jp", "supervisors")}
    for preset_id in preset_ids():
        for limit in load_preset(preset_id).limits:
            shared = preset_id if not preset_id.startswith("kr-") else "kr-private"
            key = limit.key.replace("teams.*", "teams.north").replace("peers.*", "peers.1")
            assert (preset_id, key) in tried or (shared, key) in tried, (preset_id, key)


def test_a_variable_of_the_environment_is_refused_as_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLSHIELD_NOTICE__OBJECTION_KEY", "9")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, law("kr-private"))
    ((source, key, found, _),) = caught.value.faults
    assert (source, key, found) == ("environment", "notice.objection_key", "'9'")


def test_all_contradictions_are_told_at_once_and_beside_ordinary_faults_first(
    tmp_path: Path,
) -> None:
    both = '[notice]\nobjection_key = "9"\n[aftercare]\nrest_s = 0\n' + law("kr-private")
    assert set(refused(tmp_path, both)) == {"notice.objection_key", "aftercare.rest_s"}


def test_a_configuration_made_by_a_program_is_refused_too() -> None:
    with pytest.raises(ValidationError, match=r"rule no-key"):
        Settings(law={"preset": "kr-private"}, notice={"objection_key": "9"})


def test_another_version_of_the_preset_is_refused(tmp_path: Path) -> None:
    good = load_preset("kr-private").version
    assert load(tmp_path, law("kr-private", f'version = "{good}"')).law.version == good
    found, expected = refused(tmp_path, law("kr-private", 'version = "9999"'))["law.version"]
    assert found == "'9999'"
    assert expected.startswith(f"'{good}', the version of the preset kr-private that is installed")
    assert "callshield law show kr-private" in expected
    lone = refused(tmp_path, '[law]\nversion = "1"')
    assert lone["law.version"][1] == "a law.preset that it is the version of"


def test_a_preset_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    found, expected = refused(tmp_path, law("fr"))["law.preset"]
    assert found == "'fr'"
    assert "'kr-private'" in expected
    with pytest.raises(CallshieldError, match="choose one of cn, eu"):
        load_preset("../secrets")


def test_what_is_asked_for_is_asked_while_it_is_empty() -> None:
    eu = load_preset("eu")
    assert [ask.key for ask in unanswered(eu, Settings(law={"preset": "eu"}))] == [
        "law.privacy_contact",
        "law.risk_file",
        "crisis.number",
    ]
    answered = Settings(
        law={"preset": "eu", "privacy_contact": "dpo@example.com"},
        detector={"acoustic": False},
        crisis={"number": "116123"},
    )
    assert unanswered(eu, answered) == []


def test_a_limit_that_is_off_is_not_looked_at() -> None:
    limit = Limit(rule="r", key="aftercare.rest_s", why="w", at_least=60, unless_off="web.bind")
    preset = load_preset("kr-private").model_copy(update={"limits": [limit]})
    assert broken_limits(preset, Settings())
    off = limit.model_copy(update={"unless_off": "ringback.enabled"})
    assert not broken_limits(preset.model_copy(update={"limits": [off]}), Settings())


def whole(**changed: Any) -> dict[str, Any]:
    rule = {
        "id": "a", "kind": "demands", "says": "s", "source": "x", "checked": "2026-11-22",
        "read_in_original": False, "looked_up": "l", "operator": "o",
    }  # fmt: skip
    made = {
        "id": "x", "version": "1", "title": "t", "country": "KR", "about": "a",
        "notice": {"rule": "a", "versions": {}}, "rules": [rule],
    }  # fmt: skip
    return {**made, **changed}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"limits": [{"rule": "b", "key": "k", "why": "w", "empty": True}]}, "there is no rule b"),
        ({"limits": [{"rule": "a", "key": "k", "why": "w"}]}, "exactly one condition"),
        (
            {"limits": [{"rule": "a", "key": "k", "why": "w", "empty": True, "not_empty": True}]},
            "exactly one condition",
        ),
        ({"version": "1.0"}, "match pattern"),
        ({"rules": []}, "at least 1 item"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_a_preset_that_does_not_fit_together_is_none(changed: dict[str, Any], says: str) -> None:
    Preset.model_validate(whole())
    with pytest.raises(ValidationError, match=says):
        Preset.model_validate(whole(**changed))


def test_a_rule_says_what_holds_it_or_what_the_operator_has_to_do() -> None:
    rule = whole()["rules"][0]
    with pytest.raises(ValidationError, match="what enforces it"):
        Preset.model_validate(whole(rules=[{**rule, "operator": ""}]))
    with pytest.raises(ValidationError, match="both or none"):
        Preset.model_validate(whole(rules=[{**rule, "places": ["a.py"]}]))


def test_every_key_that_a_preset_names_is_one(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    for preset_id in preset_ids():
        preset = load_preset(preset_id)
        keys = [*preset.defaults, *(one.key for one in preset.limits)]
        keys += [one.key for one in preset.asks]
        keys += [key for rule in preset.rules for key in rule.settings]
        keys += [limit.above for limit in preset.limits if limit.above]
        for key in keys:
            assert list(values_of(settings, key)), f"{preset_id}: {key}"
    with pytest.raises(AttributeError):
        list(values_of(settings, "aftercare.rest"))


def test_no_file_of_the_folder_is_left_out() -> None:
    names = {path.name for path in FOLDER.iterdir() if path.suffix == ".toml"}
    bases = {name for name in names if name.startswith("_")}
    assert {f"{name}.toml" for name in preset_ids()} | bases == names
    assert isinstance(Settings().law, BaseModel)
