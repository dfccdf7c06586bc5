"""Proof of which announcements the caller heard: one stamp a prompt, for the call's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from callshield.messages_media import PlayFinished
from callshield.messages_notice import PromptStamp
from sipbridge.prompt_catalogue import Prompt


def attested_stamps(prompts: Mapping[str, str], at_ts: float) -> list[PromptStamp]:
    """The PBX's word: ids and versions, no hash, and the call's own start as the latest time."""
    return [
        PromptStamp(
            prompt_id=prompt_id,
            version=version,
            sha256="",
            started_ts=at_ts,
            finished_ts=at_ts,
            complete=True,
        )
        for prompt_id, version in prompts.items()
    ]


def played_stamps(prompts: Sequence[Prompt], played: PlayFinished) -> list[PromptStamp]:
    """One stamp for each prompt that was begun; only a whole one counts as heard.

    Each names the file that was played: the leg's codec decides which of a prompt's two it was.
    """
    last = len(played.spans) - 1
    return [
        PromptStamp(
            prompt_id=prompt.prompt_id,
            version=prompt.version,
            sha256=prompt.wide.sha256 if played.wide and prompt.wide else prompt.sha256,
            started_ts=started,
            finished_ts=finished,
            complete=played.complete or index < last,
            language=prompt.language,
            names=sorted(prompt.names),
            purposes=list(prompt.purposes),
        )
        for index, (prompt, (started, finished)) in enumerate(
            zip(prompts, played.spans, strict=False)
        )
    ]
