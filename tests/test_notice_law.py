"""The notice tells what the preset of law wants told, or the node does not start."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from callshield.errors import SetupError
from callshield.law_presets import load_preset, preset_ids
from callshield.settings import Settings
from sipbridge import prompt_catalogue
from sipbridge.notice_law import to_be_named
from sipbridge.prompt_catalogue import SHIPPED, Prompts
from sipbridge.prompts.render import write_manifest

MANAGER = {"kim": {"uri": "sip:2000@192.0.2.21:5060", "role": "manager"}}


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((folder / "manifest.toml").read_text("utf-8"))[
        "prompt"
    ]
    return found


def own_folder(tmp_path: Path, language: str = "ko", **changed: Any) -> Path:
    """A folder of the operator's own: ours with other words in ``abuse_prevention``'s entry.

    Args:
        tmp_path: where.
        language: of the prompts that are copied.
        changed: keys of that entry; ``None`` takes one away.
    """
    folder = tmp_path / "own"
    shutil.copytree(SHIPPED / language, folder / language)
    kept = [entry for entry in entries(SHIPPED) if entry["language"] == language]
    for entry in kept:
        if entry["id"] == "abuse_prevention":
            entry.update(changed)
            for key in [key for key, value in changed.items() if value is None]:
                del entry[key]
    write_manifest(folder / "manifest.toml", kept)
    return folder


def said(preset: str, **tables: Any) -> list[str]:
    """Ids of the notice that such a node plays."""
    settings = Settings(law={"preset": preset}, supervisors=MANAGER, **tables)
    return [prompt.prompt_id for prompt in Prompts(settings).usual.notice]


@pytest.mark.parametrize("preset", preset_ids())
def test_the_shipped_notice_of_every_preset_says_what_it_has_to(preset: str) -> None:
    assert said(preset)
    assert "analysis" in to_be_named(load_preset(preset), Settings())
    # And where the operator records, too, and in every language that ships.
    spoken = {"languages": {"1": "ko", "2": "en", "3": "zh", "4": "ja"}}
    assert said(preset, recording={"enabled": True}, notice=spoken)


@pytest.mark.parametrize("preset", preset_ids())
def test_a_notice_that_does_not_say_so_is_refused(preset: str) -> None:
    with pytest.raises(SetupError) as caught:
        said(preset, notice={"prompts": ["recording"]})
    sentence = str(caught.value)
    assert "does not say that software analyses the call" in sentence
    assert f"of the preset {preset})" in sentence
    # The control: without a preset the same node starts.
    assert Prompts(Settings(notice={"prompts": ["recording"]})).usual.notice


def test_a_notice_of_ones_own_counts_by_what_its_manifest_states(tmp_path: Path) -> None:
    good = own_folder(tmp_path / "a", version="our-7", text="우리 문구")
    assert said("kr-private", notice={"prompt_dir": good}) == ["abuse_prevention", "recording"]
    silent = own_folder(tmp_path / "b", names=None, purposes=None)
    with pytest.raises(SetupError, match=r"state it in manifest\.toml of .*own"):
        said("kr-private", notice={"prompt_dir": silent})


def test_what_for_has_to_be_said_too(tmp_path: Path) -> None:
    aimless = own_folder(tmp_path, purposes=None)
    with pytest.raises(SetupError, match="does not say what for"):
        said("kr-private", notice={"prompt_dir": aimless, "prompts": ["abuse_prevention"]})


def test_a_prompt_that_is_missing_is_refused() -> None:
    with pytest.raises(SetupError, match="no_such_thing"):
        said("kr-private", notice={"prompts": ["abuse_prevention", "no_such_thing"]})


def test_another_version_of_a_shipped_prompt_was_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = own_folder(tmp_path, version="2")
    assert said("kr-private", notice={"prompt_dir": later}), "a text of the operator's own"
    (later / "common").mkdir()
    for file in (SHIPPED / "common").iterdir():
        shutil.copy(file, later / "common")
    monkeypatch.setattr(prompt_catalogue, "SHIPPED", later)
    with pytest.raises(SetupError) as caught:
        said("kr-private")
    assert "was checked with version 1 of ko/abuse_prevention, and version 2 is installed" in str(
        caught.value
    )


def test_every_shipped_prompt_of_a_notice_has_the_version_that_was_checked() -> None:
    versions = {(entry["id"], entry["version"]) for entry in entries(SHIPPED)}
    for preset_id in preset_ids():
        for prompt_id, checked in load_preset(preset_id).notice.versions.items():
            there = {version for known, version in versions if known == prompt_id}
            assert there, f"{preset_id} names {prompt_id}, which does not ship"
            assert there <= set(checked), f"{preset_id}: {prompt_id} has {there}"


def test_a_recorded_call_has_a_notice_that_says_so() -> None:
    for preset in ("kr-private", "us-one-party", "jp"):
        only = {"prompts": ["abuse_prevention"]}
        assert said(preset, notice=only), "nothing is recorded"
        with pytest.raises(SetupError, match="does not say that the call is recorded"):
            said(preset, notice=only, recording={"enabled": True})
        later = {"enabled": True, "begin": "on_request"}
        assert said(preset, notice=only, recording=later), "it is said when recording begins"


def test_an_all_party_notice_names_recording_and_analysis() -> None:
    assert said("us-all-party") == ["recording_analysis"]
    for prompts in (["abuse_prevention"], ["recording"]):
        with pytest.raises(SetupError, match="rule names-both"):
            said("us-all-party", notice={"prompts": prompts})
    assert said("us-all-party", notice={"prompts": ["abuse_prevention", "recording"]})
    with_key = said("us-all-party", notice={"consent_key": "1"})
    assert with_key == ["recording_analysis_consent"]


def test_a_judged_voice_has_to_be_told_and_a_model_that_is_off_need_not(tmp_path: Path) -> None:
    quiet = {
        "prompt_dir": own_folder(
            tmp_path, "en", names=["analysis", "recording", "details"], key="5", key_for="objection"
        ),
        "objection_key": "5",
    }
    with pytest.raises(SetupError, match="that the voice is judged"):
        said("eu", notice=quiet)
    assert said("eu", notice=quiet, detector={"acoustic": False})
    assert said("eu", notice=quiet, detector={"enabled": False})


def test_a_key_that_decides_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"what the key 7 is for \(notice\.objection_key\)"):
        said("eu", notice={"objection_key": "7", "prompts": ["abuse_prevention_objection"]})
    with pytest.raises(SetupError, match=r"what the key 8 is for \(notice\.consent_key\)"):
        said("us-all-party", notice={"consent_key": "8"})
    whole = ["analysis", "voice", "recording", "details"]
    folder = own_folder(tmp_path, "en", names=whole, key="7", key_for="objection")
    assert said("eu", notice={"prompt_dir": folder, "objection_key": "7"})


def test_a_european_notice_says_where_the_rest_stands(tmp_path: Path) -> None:
    folder = own_folder(tmp_path, "en", names=["analysis", "voice"], key="5", key_for="objection")
    with pytest.raises(SetupError, match="does not say where to read more"):
        said("eu", notice={"prompt_dir": folder, "objection_key": "5"})


def named(preset: str, **tables: Any) -> Iterable[str]:
    return to_be_named(load_preset(preset), Settings(**tables))


def test_nothing_has_to_be_named_that_is_not_done() -> None:
    off = {"enabled": False}
    assert list(named("kr-private", detector=off)) == []
    assert list(named("us-all-party", detector=off)) == ["recording"]
    assert list(named("eu", detector=off, recording={"enabled": True})) == ["recording", "details"]
