"""Announcements of a run stay those that were checked at its start, whatever is copied there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from callshield.doctor_prompts import check_prompts
from callshield.errors import ConfigurationError, SetupError
from callshield.law_presets import preset_ids
from callshield.settings import Settings, load_settings
from callshield.tap import TapCodec
from sipbridge.kept_prompts import changed_since, in_force
from sipbridge.prompt_catalogue import SHIPPED, Prompts
from sipbridge.prompt_clips import ClipCache
from tests.peers.sound import write_tone

IDS = ("abuse_prevention", "recording", "closing", "warning_1", "warning_2", "warning_3")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A company's own announcements: ours, in both rates."""
    folder = tmp_path / "own" / "ko"
    folder.mkdir(parents=True)
    for prompt_id in IDS:
        for suffix in (".wav", ".16k.wav"):
            shutil.copy(SHIPPED / "ko" / f"{prompt_id}{suffix}", folder)
    shutil.copy(SHIPPED / "manifest.toml", folder.parent)
    return folder.parent


def settings(tmp_path: Path, more: str) -> Settings:
    config = tmp_path / "callshield.toml"
    config.write_text(
        f'[node]\nstate_dir = "{tmp_path}"\nruntime_dir = "{tmp_path}/run"\n{more}', "utf-8"
    )
    return load_settings(config)


def owned(tmp_path: Path, own: Path, more: str = "") -> Settings:
    return settings(tmp_path, f'[notice]\nprompt_dir = "{own}"\n{more}')


def spoil(own: Path, prompt_id: str = "recording") -> None:
    """Somebody copies a file over it that has nothing to say."""
    write_tone(own / "ko" / f"{prompt_id}.wav", 440, 1.0, 0.0)


def test_nobody_else_reads_the_copy(tmp_path: Path, own: Path) -> None:
    config = owned(tmp_path, own)
    in_force(config)
    found = [config.kept_prompts_path, *config.kept_prompts_path.rglob("*")]
    assert len(found) > len(IDS)
    assert [path for path in found if path.stat().st_mode & 0o077] == []


def test_what_is_played_is_a_copy_with_the_same_stamps(tmp_path: Path, own: Path) -> None:
    config = owned(tmp_path, own, 'place = "before_ringing"\n')
    begun = in_force(config)
    assert begun.refused == ""
    asked = Prompts(config)
    assert [(p.prompt_id, p.version, p.sha256, p.own, p.says) for p in begun.prompts.all] == [
        (p.prompt_id, p.version, p.sha256, p.own, p.says) for p in asked.all
    ]
    for prompt in begun.prompts.all:
        assert prompt.path.is_relative_to(config.kept_prompts_path)
        assert prompt.wide is None or prompt.wide.path.is_relative_to(config.kept_prompts_path)
    assert changed_since(config) == []


def test_shipped_announcements_stay_shipped(tmp_path: Path) -> None:
    config = settings(tmp_path, "")
    begun = in_force(config)
    assert not any(prompt.own for prompt in begun.prompts.all)
    assert {prompt.version for prompt in begun.prompts.all} == {"1"}


@pytest.mark.parametrize("place", ["answer", "before_ringing"])
@pytest.mark.parametrize("begin", ["after_notice", "on_request"])
@pytest.mark.parametrize("key", ["", 'objection_key = "9"', 'consent_key = "1"'])
@pytest.mark.parametrize("preset", ["", *preset_ids()])
def test_a_node_of_any_preset_begins_with_its_copy(
    tmp_path: Path, preset: str, key: str, begin: str, place: str
) -> None:
    law = f'[law]\npreset = "{preset}"\n' if preset else ""
    manager = '[supervisors.kim]\nuri = "sip:2000@192.0.2.1"\nrole = "manager"\n'
    recording = f'[recording]\nenabled = true\nbegin = "{begin}"\n'
    notice = f'[notice]\nplace = "{place}"\n{key}\n'
    try:
        config = settings(tmp_path, f"{law}{manager}{recording}{notice}")
        wanted = Prompts(config)
    except (ConfigurationError, SetupError):
        return  # the preset forbids it
    begun = in_force(config)
    assert begun.refused == ""
    assert [p.sha256 for p in begun.prompts.all] == [p.sha256 for p in wanted.all]


def test_a_file_swapped_for_a_bad_one_leaves_the_old_ones_in_force(
    tmp_path: Path, own: Path
) -> None:
    config = owned(tmp_path, own)
    good = {prompt.prompt_id: prompt.sha256 for prompt in in_force(config).prompts.all}
    spoil(own)
    again = in_force(config)  # the bridge was restarted in the middle of a run
    assert "sha256 differs" in again.refused
    assert {prompt.prompt_id: prompt.sha256 for prompt in again.prompts.all} == good
    # Without a manifest that would tell, the check of what it sounds like does.
    (own / "manifest.toml").unlink()
    (own / "ko" / "recording.16k.wav").unlink()
    refused = in_force(config).refused
    assert "silent" in refused
    # Mended, the new one counts.
    shutil.copy(SHIPPED / "ko" / "closing.wav", own / "ko" / "recording.wav")
    mended = in_force(config)
    assert mended.refused == ""
    played = {prompt.prompt_id: prompt.sha256 for prompt in mended.prompts.all}
    assert played["recording"] == played["closing"] != good["recording"]


def test_a_first_start_with_a_bad_file_is_refused(tmp_path: Path, own: Path) -> None:
    """Negative control: nothing good was kept."""
    spoil(own)
    with pytest.raises(SetupError, match="sha256 differs"):
        in_force(owned(tmp_path, own))


def test_what_was_kept_for_another_configuration_does_not_help(tmp_path: Path, own: Path) -> None:
    in_force(owned(tmp_path, own))
    spoil(own)
    with pytest.raises(SetupError, match="sha256 differs"):
        in_force(owned(tmp_path, own, 'warnings = ["warning_4"]\n'))


def test_doctor_says_what_a_running_node_plays_as_it_was(tmp_path: Path, own: Path) -> None:
    config = owned(tmp_path, own)
    in_force(config)
    assert "restart" not in check_prompts(config)
    (own / "manifest.toml").unlink()
    shutil.copy(SHIPPED / "ko" / "closing.wav", own / "ko" / "recording.wav")
    (own / "ko" / "recording.16k.wav").unlink()
    assert "ko/recording" in check_prompts(config)
    assert "restart it" in check_prompts(config)


def test_a_damaged_copy_is_not_played(tmp_path: Path, own: Path) -> None:
    config = owned(tmp_path, own)
    (recording,) = [p for p in in_force(config).prompts.all if p.prompt_id == "recording"]
    clips = ClipCache()
    clip = clips.load(recording.path, TapCodec.PCMA, 20, 0.0, recording.sha256)
    assert clips.cached(recording.path, TapCodec.PCMA, 20, 0.0, recording.sha256) is clip
    # The stamp would be false: neither from disk nor from memory.
    with pytest.raises(SetupError, match="not the one that was checked"):
        clips.load(recording.path, TapCodec.PCMA, 20, 0.0, "0" * 64)
    shutil.copy(SHIPPED / "ko" / "closing.wav", recording.path)
    with pytest.raises(SetupError, match="not the one that was checked"):
        clips.load(recording.path, TapCodec.PCMA, 20, 0.0, recording.sha256)
    # And spoilt like that it is no help to a bridge that begins anew: it is made afresh.
    assert in_force(config).refused == ""


def test_only_what_may_be_played_is_copied_and_an_older_copy_goes(
    tmp_path: Path, own: Path
) -> None:
    write_tone(own / "ko" / "something_else.wav", 440, 1.0, 0.2)
    config = owned(tmp_path, own)
    played = in_force(config).prompts.all
    kept = set(config.kept_prompts_path.rglob("*.wav"))
    assert kept == {p.path for p in played} | {p.wide.path for p in played if p.wide}
    assert "something_else.wav" not in {path.name for path in kept}
    (own / "manifest.toml").unlink()
    in_force(config)
    folders = [path for path in config.kept_prompts_path.iterdir() if path.is_dir()]
    assert len(folders) == 1
