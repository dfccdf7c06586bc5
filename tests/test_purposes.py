"""A use that the notice did not name does not begin: prompts, stamps, and each call."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callshield.doctor import examine
from callshield.errors import SetupError
from callshield.findings import Verdict
from callshield.messages import CallStarted, LegName, NoticeFinished
from callshield.messages_media import PlayFinished
from callshield.messages_notice import PromptPlayed, PromptStamp
from callshield.purpose_check import check_uses, unnamed
from callshield.purposes import heard
from callshield.serve import Supervisor
from callshield.settings import Settings, load_settings
from notifier.board import Board
from sipbridge.notice_stamps import attested_stamps, played_stamps
from sipbridge.prompt_catalogue import SHIPPED, Prompt, PromptFolder, Prompts, load_prompt
from sipbridge.prompt_manifest import Says
from tests.notice_kit import prompts_naming
from tests.notifier_kit import free_port, write_config

CALL = "c" * 32


def settings_of(folder: Path, extra: str = "") -> Settings:
    peer = '[[peers]]\nname = "pbx"\nnetworks = ["127.0.0.1/32"]\n'
    return load_settings(write_config(folder, free_port(), f"{extra}\n{peer}"))


def stamp(*purposes: str, complete: bool = True) -> PromptStamp:
    return PromptStamp(
        prompt_id="recording",
        version="1",
        sha256="0" * 64,
        started_ts=1.0,
        finished_ts=2.0,
        complete=complete,
        purposes=list(purposes),
    )


# ------------------------------------------------------------------------------------- prompts


def test_what_ships_names_no_use_that_its_text_does_not_say() -> None:
    """By the English texts; each other language names the same uses as its English one."""
    shipped = PromptFolder(SHIPPED)
    uses = {
        (language, prompt_id): {"quality", "calibration"}
        & set(shipped.load(language, prompt_id).purposes)
        for language, prompt_id in shipped.found()
        if language != "common"
    }
    for (language, prompt_id), named in uses.items():
        said = "improve our service" in shipped.entry("en", prompt_id).text
        assert named == ({"quality"} if said else set()), (language, prompt_id)
    assert uses["ko", "recording"] == {"quality"}
    assert uses["ko", "abuse_prevention"] == set()


def test_a_companys_own_text_names_what_its_manifest_declares_and_no_more(tmp_path: Path) -> None:
    own = prompts_naming(tmp_path, "recording", "calibration")
    assert load_prompt(own, "ja", "recording").purposes == ("calibration", "recording")
    (own / "manifest.toml").write_text("", encoding="utf-8")
    assert load_prompt(own, "ja", "recording").purposes == (), "what our own text says besides"


# -------------------------------------------------------------------------------------- stamps


def prompt(*purposes: str, prompt_id: str = "recording", version: str = "2") -> Prompt:
    says = Says(purposes=frozenset(purposes))
    return Prompt(prompt_id, "ko", Path("/x.wav"), version, "00", 1.0, says=says)


def test_what_was_played_is_stamped_with_what_it_names() -> None:
    played = PlayFinished(
        call_id=CALL,
        play_id=1,
        leg=LegName.CALLER,
        complete=False,
        spans=[(1.0, 2.0), (2.0, 2.5)],
    )
    stamps = played_stamps([prompt("protection"), prompt("quality")], played)
    assert [(one.purposes, one.complete) for one in stamps] == [
        (["protection"], True),
        (["quality"], False),
    ]
    assert heard(stamps) == ["protection"], "what was cut off was not heard"
    assert heard([stamp("quality"), *stamps], ["recording"]) == [
        "protection",
        "quality",
        "recording",
    ]


def test_a_pbx_attests_what_the_manifest_says_of_just_that_version(tmp_path: Path) -> None:
    own = prompts_naming(tmp_path, "quality", "own_words")
    prompts = Prompts(settings_of(tmp_path, f'[notice]\nprompt_dir = "{own}"\n')).of("ko")
    version = load_prompt(own, "ko", "recording").version
    named = prompts.attested_purposes({"recording": version, "abuse_prevention": ""})
    assert named == {"recording": ("own_words", "quality"), "abuse_prevention": ("protection",)}
    assert prompts.attested_purposes({"recording": "0"}) == {}, "of another text nothing is known"
    (one,) = attested_stamps({"recording": version}, 1.0, named)
    assert one.purposes == ["own_words", "quality"]
    (silent,) = attested_stamps({"recording": "0"}, 1.0)
    assert silent.purposes == []


def test_a_pbx_that_attests_the_plain_texts_does_not_attest_what_a_variant_says(
    tmp_path: Path,
) -> None:
    """The catalogue would play the variant for them; the PBX did not say that it played that."""
    settings = settings_of(tmp_path, '[notice]\nconsent_key = "1"\n')
    prompts = Prompts(settings).of("ko")
    (variant,) = prompts.notice
    assert "abuse_prevention" in variant.instead_of
    assert "quality" in variant.purposes
    assert prompts.attested_purposes({"abuse_prevention": ""}) == {
        "abuse_prevention": ("protection",)
    }


def test_the_calls_row_has_what_its_caller_was_told() -> None:
    board = Board(2)
    board.apply(CallStarted(ts=1.0, call_id=CALL, agent_id="1001", pbx_call_id="p"))
    board.apply(
        NoticeFinished(
            ts=2.0,
            call_id=CALL,
            agent_id="1001",
            source="played",
            prompts=[stamp("recording"), stamp("quality", complete=False)],
            tapped=True,
        )
    )
    assert board.calls[CALL].purposes == ["recording"]
    # Recording that begins in mid-call plays its notice then.
    board.apply(PromptPlayed(ts=3.0, call_id=CALL, agent_id="1001", stamp=stamp("quality")))
    assert board.calls[CALL].purposes == ["quality", "recording"]


# --------------------------------------------------------------------------------------- at start

QUALITY = "[quality]\nper_agent = 2\n"


def silent(folder: Path) -> str:
    """``[notice]`` with a company's own text that names recording and nothing else."""
    own = prompts_naming(folder, "recording")
    return f'[notice]\nprompt_dir = "{own}"\nlanguages = {{"0215990110" = "en"}}\n'


async def test_a_node_that_draws_calls_does_not_start_with_a_notice_that_does_not_say_so(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path, QUALITY + silent(tmp_path))
    with pytest.raises(SetupError) as failed:
        await Supervisor(settings, tmp_path / "callshield.toml").run()
    assert "quality.per_agent" in str(failed.value)
    assert '"quality" in ko, en' in str(failed.value), "every language that is spoken"
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_with_a_notice_that_names_it_or_without_the_use_it_starts(tmp_path: Path) -> None:
    """Negative control."""
    notice = silent(tmp_path)
    assert "no use" in check_uses(settings_of(tmp_path, notice))
    (tmp_path / "named").mkdir()
    own = prompts_naming(tmp_path / "named", "recording", "quality")
    named = settings_of(tmp_path, f'{QUALITY}[notice]\nprompt_dir = "{own}"\n')
    assert check_uses(named) == "the notice names quality in ko"
    assert unnamed(named, "quality") == ""
    assert "callshield calibrate" in unnamed(named, "calibration")


def test_a_prompt_that_is_not_in_the_notice_names_nothing(tmp_path: Path) -> None:
    own = prompts_naming(tmp_path, "quality", prompt_id="closing")
    settings = settings_of(
        tmp_path, f'{QUALITY}[notice]\nprompt_dir = "{own}"\nprompts = ["abuse_prevention"]\n'
    )
    with pytest.raises(SetupError, match="abuse_prevention"):
        check_uses(settings)


async def test_doctor_says_which_use_the_notice_does_not_name(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, QUALITY + silent(tmp_path))
    findings = await asyncio.to_thread(
        lambda: [one for one in examine(settings) if one.name == "purposes"]
    )
    (finding,) = findings
    assert finding.verdict is Verdict.PROBLEM
    assert "quality.per_agent" in finding.detail


def test_the_catalogue_has_the_purposes_of_every_language(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, '[notice]\nlanguages = {"02*" = "ja"}\n')
    prompts = Prompts(settings)
    for language in ("ko", "ja"):
        named = {one for item in prompts.of(language).notice for one in item.purposes}
        assert "quality" in named
        assert "calibration" not in named
