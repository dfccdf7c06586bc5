"""``doctor`` on announcements: there, as they have to be, and saying what is done."""

from __future__ import annotations

from callshield.errors import SetupError
from callshield.settings import Settings


def check_prompts(settings: Settings) -> str:
    """Every announcement that a call may play can be played, and names the keys that count.

    Raises:
        SetupError: every fault, a sentence each.
    """
    from sipbridge.kept_prompts import changed_since
    from sipbridge.prompt_catalogue import Prompts
    from sipbridge.prompt_check import check_own

    prompts = Prompts(settings)
    check_own(prompts)
    if prompts.keys_unsaid:
        raise SetupError(prompts.keys_unsaid)
    said = ", ".join(prompt.prompt_id for prompt in prompts.usual.notice)
    seconds = sum(prompt.duration_s for prompt in prompts.usual.notice)
    narrow = sum(prompt.wide is None and prompt.language != "common" for prompt in prompts.all)
    band = f"; {narrow} without a file of 16 kHz" if narrow else ""
    changed = ", ".join(changed_since(settings))
    old = f"; the running node plays {changed} as it began: restart it" if changed else ""
    return (
        f"{settings.notice.language}: notice of {seconds:.1f} s ({said}), closing, "
        f"warnings{band}{old}"
    )


def check_recording_is_said(settings: Settings) -> None:
    """Whoever is recorded hears so: in the notice, or when the agent begins it.

    Raises:
        SetupError: no shipped announcement says so; of one's own folder its manifest may not tell.
    """
    from sipbridge.prompt_catalogue import Prompts

    on_request = settings.recording.begin == "on_request"
    if on_request or settings.notice.prompt_dir is not None:
        return
    if not any("recording" in prompt.names for prompt in Prompts(settings).usual.notice):
        raise SetupError(
            'calls are recorded, but no notice says so: add "recording" to notice.prompts'
        )
