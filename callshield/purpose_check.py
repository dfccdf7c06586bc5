"""Whether the configured notice tells callers of every use that is switched on.

A use that it does not name refuses to start: ``callshield serve`` (the quality draw) and
``callshield calibrate``. Call by call the stamps decide (:mod:`callshield.purposes`).
"""

from __future__ import annotations

from collections.abc import Mapping

from callshield.errors import SetupError
from callshield.purposes import CALIBRATION, QUALITY
from callshield.settings import Settings
from sipbridge.prompt_catalogue import Prompts

#: What begins a use, by its purpose.
_USES: Mapping[str, str] = {QUALITY: "quality.per_agent", CALIBRATION: "callshield calibrate"}


def unnamed(settings: Settings, purpose: str) -> str:
    """Why a use may not begin: the configured notice does not name its purpose.

    Args:
        settings: the node's configuration.
        purpose: such as ``quality``.

    Returns:
        A sentence; ``""`` where the notice names it in every language that is spoken.

    Raises:
        SetupError: a prompt or the manifest cannot be read.
    """
    prompts = Prompts(settings)
    silent = [
        language
        for language in settings.notice.spoken
        if not any(purpose in prompt.purposes for prompt in prompts.of(language).notice)
    ]
    if not silent:
        return ""
    return (
        f"{_USES.get(purpose, purpose)}: the notice ({', '.join(settings.notice.prompts)}) does "
        f'not tell callers of the purpose "{purpose}" in {", ".join(silent)}: play one that does, '
        f'and say so in its manifest.toml (purposes = ["{purpose}", …]); until then nothing is '
        "done with calls for it"
    )


def check_uses(settings: Settings) -> str:
    """Every use that the configuration switches on has a notice that names it.

    Returns:
        A sentence for ``doctor``.

    Raises:
        SetupError: one has not; it says which, and what to do.
    """
    if not settings.quality.per_agent:
        return "no use of calls beyond protecting agents is switched on"
    reason = unnamed(settings, QUALITY)
    if reason:
        raise SetupError(reason)
    return "the notice names quality in " + ", ".join(settings.notice.spoken)
