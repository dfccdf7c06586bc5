"""Does the notice tell the caller what the preset of ``[law]`` wants told? Pure.

No program can hear that. Whoever wrote an announcement states in the folder's ``manifest.toml``
what it names and what for, and this compares the statement with the law; of the shipped
announcements also the version, because only those texts were checked that the preset names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from callshield.errors import SetupError
from callshield.law_presets import Named, Preset
from callshield.settings import Settings
from callshield.settings_notice import KEYS

if TYPE_CHECKING:
    from sipbridge.prompt_catalogue import Prompt

_TELLS: Mapping[Named, str] = {
    "analysis": "that software analyses the call",
    "voice": "that the voice is judged, not the words alone (detector.acoustic is on)",
    "recording": "that the call is recorded",
    "details": "where to read more",
}


def to_be_named(preset: Preset, settings: Settings) -> list[Named]:
    """What the notice of this node has to name under the preset."""
    analysed = settings.detector.enabled
    recorded = settings.recording.enabled and settings.recording.begin == "after_notice"
    names = [name for name in preset.notice.names if analysed or name != "analysis"]
    if preset.notice.voice and analysed and settings.detector.acoustic:
        names.append("voice")
    if recorded and "recording" not in names:
        names.append("recording")
    if preset.notice.details and names:
        names.append("details")
    return names


def check_notice(settings: Settings, language: str, notice: Sequence[Prompt]) -> None:
    """Refuse a notice that does not tell what the preset in force wants told.

    Args:
        settings: the node's configuration.
        language: of the notice, for the sentence.
        notice: what is played in this language before anything is analysed.

    Raises:
        SetupError: what is missing, by which rule, and what to do.
    """
    preset = settings.law.chosen
    if preset is None:
        return
    by = f"(rule {preset.notice.rule} of the preset {preset.id})"
    for prompt in notice:
        good = preset.notice.versions.get(prompt.prompt_id)
        if good is not None and not prompt.own and prompt.version not in good:
            raise SetupError(
                f"the preset {preset.id} version {preset.version} was checked with version "
                f"{' or '.join(good)} of {language}/{prompt.prompt_id}, and version "
                f"{prompt.version} is installed {by}: install a Callshield whose preset goes with "
                "its prompts, or put the text that you want into notice.prompt_dir"
            )
    wanted = to_be_named(preset, settings)
    said = {name for prompt in notice for name in prompt.says.names}
    missing = [_TELLS[name] for name in wanted if name not in said]
    if not missing and wanted and not any(prompt.says.purposes for prompt in notice):
        missing = ["what for"]
    keys = {(prompt.says.key_for, prompt.says.key) for prompt in notice}
    missing += [
        f"what the key {key} is for (notice.{name})"
        for name, key in settings.notice.keys.items()
        if wanted and (KEYS[name], key) not in keys
    ]
    if missing:
        folder = settings.notice.prompt_dir or "a folder of your own (notice.prompt_dir)"
        raise SetupError(
            f"the notice in {language} does not say {', nor '.join(missing)} {by}: put a prompt "
            "that does into notice.prompts; of your own ones state it in manifest.toml of "
            f'{folder} (names = ["analysis", …], purposes = ["protection"], and with a key '
            'key = "9", key_for = "objection"), once their text says so'
        )
