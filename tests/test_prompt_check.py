"""A company's own announcements: each way in which one fails, told before a caller hears it."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callshield.doctor import examine as doctor
from callshield.errors import SetupError
from callshield.findings import Finding, Verdict
from callshield.heard import read_wav as read_samples
from callshield.prompts_command import examine
from callshield.settings import load_settings
from sipbridge.prompt_catalogue import SHIPPED, PromptFolder, Prompts
from sipbridge.prompt_check import check_own, file_faults
from sipbridge.prompt_manifest import read_manifest
from tests.test_command_line import callshield
from tests.test_command_line import write as write_config

Samples = NDArray[np.float64]
CLOSING = np.asarray(read_samples(SHIPPED / "ko" / "closing.wav"), np.float64)


def write(path: Path, x: Samples, rate_hz: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as audio:
        audio.setparams((1, 2, rate_hz, 0, "NONE", ""))
        audio.writeframes(np.round(np.clip(x, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * 8000))


def noisy(x: Samples, dbfs: float) -> Samples:
    return x + 10 ** (dbfs / 20) * np.random.default_rng(1).standard_normal(len(x))


@pytest.mark.parametrize(
    "x",
    [
        CLOSING,
        CLOSING * 10 ** (-11 / 20),
        np.concatenate([silence(0.8), CLOSING, silence(1.7)]),
        np.concatenate([CLOSING, silence(1.5), CLOSING]),
        noisy(np.concatenate([CLOSING, silence(1.5), CLOSING]), -55),
        CLOSING + 0.02,
        CLOSING[20000:25000],
    ],
    ids=["shipped", "soft", "framed", "pause", "room", "offset", "a word"],
)
def test_a_recording_that_will_do_is_taken(tmp_path: Path, x: Samples) -> None:
    assert file_faults(write(tmp_path / "own.wav", x)) == []


LOUD = np.tile(np.clip(CLOSING * 30, -0.9, 0.9), 1)
FAULTS: dict[str, tuple[Samples, str]] = {
    "too soft": (CLOSING * 10 ** (-15 / 20), "LUFS (integrated loudness), not -32 to -12: raise"),
    "too loud": (LOUD, "not -32 to -12: lower it by"),
    "clipped": (np.clip(CLOSING * 3, -1, 1), "is clipped at"),
    "too short": (CLOSING[2000:5200], "lasts 0.40 s: an announcement has 0.5 to 60 s"),
    "too long": (np.tile(CLOSING, 8), "lasts 61.38 s"),
    "silent": (silence(3), "is silent: record it again"),
    "noise": (noisy(silence(3), -75), "is silent: record it again"),
    "late": (np.concatenate([silence(1.0), CLOSING]), "begins with 1.2 s of silence, 1 at most"),
    "late in a room": (
        noisy(np.concatenate([silence(1.0), CLOSING]), -55),
        "begins with 1.2 s of silence",
    ),
    "late with an offset": (
        np.concatenate([silence(1.0), CLOSING]) + 0.02,
        "begins with 1.2 s of silence",
    ),
    "hole": (np.concatenate([CLOSING, silence(2), CLOSING]), "is silent for 2."),
    "long end": (np.concatenate([CLOSING, silence(2)]), "ends with 2."),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_a_sentence_that_names_the_file_and_the_remedy(
    tmp_path: Path, kind: str
) -> None:
    x, says = FAULTS[kind]
    path = write(tmp_path / "own.wav", x)
    found = file_faults(path)
    assert [says in sentence for sentence in found].count(True) == 1, found
    assert all(str(path) in sentence and (":" in sentence) for sentence in found)


def test_where_the_hole_is_and_how_loud_to_make_it(tmp_path: Path) -> None:
    (hole,) = file_faults(write(tmp_path / "h.wav", FAULTS["hole"][0]))
    assert "from 7.4 s on" in hole
    (soft,) = file_faults(write(tmp_path / "s.wav", FAULTS["too soft"][0]))
    assert "has -35." in soft
    assert "raise it by 1" in soft
    raised = FAULTS["too soft"][0] * 10 ** (float(soft.split("by ")[1].split()[0]) / 20)
    assert file_faults(write(tmp_path / "s.wav", raised)) == [], "what it says to do mends it"


def test_both_rates_are_measured_alike(tmp_path: Path) -> None:
    wide = SHIPPED / "ko" / "closing.16k.wav"
    assert file_faults(wide) == []
    x = np.asarray(read_samples(wide), np.float64)
    pause = np.zeros(2 * 16000)
    (fault,) = file_faults(write(tmp_path / "w.wav", np.concatenate([x, pause, x]), 16000))
    assert "is silent for 2." in fault


# -------------------------------------------------------------------------- a folder of one's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The shipped Korean ones as if they were a company's."""
    folder = tmp_path / "own"
    shutil.copytree(SHIPPED / "ko", folder / "ko")
    return folder


Spoil = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])


def manifest(text: str) -> Spoil:
    return lambda own: (own / "manifest.toml").write_text(text, encoding="utf-8")


ENTRY = '[[prompt]]\nid = "closing"\nlanguage = "ko"\n'
SPOILT: dict[str, tuple[Spoil, str]] = {
    "cut": (lambda own: cut(own / "ko" / "closing.wav"), "closing.wav was cut off: its header"),
    "wide cut": (lambda own: cut(own / "ko" / "closing.16k.wav"), "closing.16k.wav was cut off"),
    "wide soft": (
        lambda own: write(own / "ko" / "closing.16k.wav", np.repeat(CLOSING, 2) / 9, 16000),
        "closing.16k.wav has -3",
    ),
    "wide is not": (
        lambda own: shutil.copy(own / "ko" / "closing.wav", own / "ko" / "closing.16k.wav"),
        "has 8000 Hz: a file named .16k.wav has 16000",
    ),
    "wide is another": (
        lambda own: shutil.copy(own / "ko" / "joined.16k.wav", own / "ko" / "closing.16k.wav"),
        "lasts 4.14 s and closing.wav 7.67 s: make both of one recording",
    ),
    "wide alone": (
        lambda own: (own / "ko" / "closing.wav").unlink(),
        "closing.16k.wav is never played: it needs closing.wav beside it",
    ),
    "no language": (lambda own: (own / "ko").rename(own / "kr"), "is never played"),
    "capital": (
        lambda own: (own / "ko" / "closing.wav").rename(own / "ko" / "Closing.WAV"),
        "its name has to be ID.wav or ID.16k.wav",
    ),
    "mp3": (lambda own: (own / "ko" / "closing.mp3").write_bytes(b"ID3"), "is never played"),
    "not TOML": (manifest("[[prompt]\n"), "manifest.toml cannot be read"),
    "no id": (manifest('[[prompt]]\nlanguage = "ko"\n'), "needs id and language"),
    "twice": (manifest(ENTRY + ENTRY), "ko/closing stands there twice"),
    "number": (manifest(ENTRY + "version = 2\n"), "version has to be in quotation marks"),
    "key alone": (manifest(ENTRY + 'key = "9"\n'), 'write key = "9" and key_for = "objection"'),
    "key of two": (manifest(ENTRY + 'key = "19"\nkey_for = "consent"\n'), "not such as"),
    "other key": (manifest(ENTRY + 'key = "9"\nkey_for = "wish"\n'), "or neither"),
    "names": (manifest(ENTRY + 'names = ["analyses"]\n'), "names has analyses: only analysis"),
    "purposes": (manifest(ENTRY + 'purposes = "quality"\n'), "purposes has to be a list"),
    "sha256": (manifest(ENTRY + f'sha256 = "{"0" * 64}"\n'), "sha256 differs"),
    "sha256_16k": (manifest(ENTRY + f'sha256_16k = "{"0" * 64}"\n'), "sha256 differs"),
    "sha256 short": (manifest(ENTRY + 'sha256 = "00"\n'), "not such as"),
    "no file": (
        manifest('[[prompt]]\nid = "opening"\nlanguage = "ko"\n'),
        "opening.wav is missing, and manifest.toml names it",
    ),
}


def problems(findings: list[Finding]) -> list[str]:
    return [finding.detail for finding in findings if finding.verdict is Verdict.PROBLEM]


def test_a_good_folder_has_no_problem_and_says_what_is_in_it(own: Path) -> None:
    found = list(examine(own, None))
    assert problems(found) == []
    (closing,) = [f for f in found if f.name == "ko/closing" and f.verdict is Verdict.OK]
    assert closing.detail.startswith("7.7 s, -20.5 LUFS, 8 and 16 kHz, version ")
    # Without a manifest nobody knows what callers were told.
    (text,) = [f for f in found if f.name == "ko/closing" and f.verdict is Verdict.NOTE]
    assert "no text in manifest.toml" in text.detail


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_wrong_with_a_folder_is_found(own: Path, kind: str) -> None:
    spoil, says = SPOILT[kind]
    spoil(own)
    found = problems(list(examine(own, None)))
    assert any(says in sentence for sentence in found), found


def config(folder: Path, notice: str) -> Path:
    path = folder / "callshield.toml"
    path.write_text(
        f'{notice}\n[[peers]]\nname = "pbx"\nnetworks = ["127.0.0.4"]\n'
        '[agents.1001]\nuri = "sip:1001@127.0.0.5"\n',
        encoding="utf-8",
    )
    return path


def test_a_folder_is_held_against_a_configuration(own: Path, tmp_path: Path) -> None:
    def enough(notice: str) -> list[str]:
        return problems(list(examine(own, config(tmp_path, notice))))

    assert enough("") == []
    (missing,) = enough('[notice]\nlanguages = { "1" = "en" }\n')
    assert "own/en/abuse_prevention.wav is missing" in missing
    (key,) = enough('[notice]\nobjection_key = "9"\n')
    assert 'notice.objection_key = "9" is set, and no notice in ko names it' in key
    manifest(
        '[[prompt]]\nid = "abuse_prevention"\nlanguage = "ko"\nkey = "9"\nkey_for = "objection"\n'
    )(own)
    assert enough('[notice]\nobjection_key = "9"\n') == []


def test_the_shipped_folder_passes_and_is_what_is_looked_at_without_another(
    tmp_path: Path,
) -> None:
    found = list(examine(None, config(tmp_path, "")))
    assert problems(found) == []
    assert (
        len([f for f in found if f.verdict is Verdict.OK]) == len(PromptFolder(SHIPPED).found()) + 1
    )
    assert found[-1].name == "configuration"
    assert problems(list(examine(tmp_path / "none", None))) == [
        f"there is no folder {tmp_path / 'none'}"
    ]


def test_only_what_may_be_played_can_stop_a_node(own: Path, tmp_path: Path) -> None:
    """A folder may hold more than is used; its faults are ``prompts check``'s to tell."""
    settings = load_settings(config(tmp_path, f'[notice]\nprompt_dir = "{own}"\n'))
    write(own / "ko" / "joined.wav", FAULTS["too soft"][0])
    (own / "ko" / "joined.16k.wav").unlink()
    check_own(Prompts(settings))
    write(own / "ko" / "closing.wav", FAULTS["too soft"][0])
    write(own / "ko" / "warning_2.wav", FAULTS["clipped"][0])
    (own / "ko" / "warning_2.16k.wav").unlink()
    with pytest.raises(SetupError) as refused:
        check_own(Prompts(settings))
    assert "closing.wav has -3" in str(refused.value)
    assert "warning_2.wav is clipped" in str(refused.value)
    told = next(finding for finding in doctor(settings) if finding.name == "prompts")
    assert told.verdict is Verdict.PROBLEM
    assert told.detail == str(refused.value)


def test_the_tone_for_agents_is_soft(tmp_path: Path) -> None:
    tone = SHIPPED / "common" / "notice_tone.wav"
    assert file_faults(tone, words=False) == []
    x = np.asarray(read_samples(tone), np.float64)
    (fault,) = file_faults(write(tmp_path / "tone.wav", x * 8), words=False)
    assert "agents hear it through every notice" in fault


def test_the_command_lists_each_fault_and_exits_with_one(own: Path) -> None:
    assert callshield("prompts", "check", str(own)).returncode == 0
    cut(own / "ko" / "closing.wav")
    write(own / "ko" / "recording.wav", FAULTS["too soft"][0])
    (own / "ko" / "recording.16k.wav").unlink()
    done = callshield("prompts", "check", str(own))
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "PROBLEM ko/closing: the prompt" in said
    assert "was cut off: its header promises 7.67 s, and 7.42 s are there" in said
    assert "PROBLEM ko/recording: the prompt" in said
    assert "ok ko/joined: 4.1 s, -2" in said
    as_json = json.loads(callshield("prompts", "check", str(own), "--json").stdout)
    assert (as_json["ok"], len(as_json["findings"]) > 10) == (False, True)


def test_a_node_does_not_begin_with_an_announcement_that_will_not_do(
    own: Path, tmp_path: Path
) -> None:
    write(own / "ko" / "abuse_prevention.wav", FAULTS["clipped"][0])
    (own / "ko" / "abuse_prevention.16k.wav").unlink()
    path = write_config(tmp_path, f'[notice]\nprompt_dir = "{own}"\n')
    done = callshield("serve", "--config", str(path))
    assert done.returncode == 2
    assert "abuse_prevention.wav is clipped at" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_manifest_says_what_an_announcement_tells(tmp_path: Path) -> None:
    manifest(
        ENTRY + 'version = "7"\ntext = "Goodbye."\nnames = ["recording"]\n'
        'purposes = ["quality", "training"]\nkey = "#"\nkey_for = "consent"\ncovers = ["x"]\n'
    )(tmp_path)
    entry = read_manifest(tmp_path)["ko", "closing"]
    assert (entry.version, entry.text) == ("7", "Goodbye.")
    assert entry.says.names == {"recording"}
    assert entry.says.purposes == {"quality", "training"}
    assert (entry.says.key, entry.says.key_for, entry.says.covers) == ("#", "consent", {"x"})
