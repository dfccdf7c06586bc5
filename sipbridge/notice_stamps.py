"""Proof of which announcements the caller heard: one stamp a prompt, for the call's record."""

from __future__ import annotations

from collections.abc import Sequence

from callshield.messages import PlayFinished, PromptStamp
from sipbridge.prompt_catalogue import Prompt


def attested_stamps(prompt_ids: Sequence[str], at_ts: float) -> list[PromptStamp]:
    """The PBX's word: no hash, and the call's own start as the latest possible time."""
    return [
        PromptStamp(
            prompt_id=prompt_id,
            version="",
            sha256="",
            started_ts=at_ts,
            finished_ts=at_ts,
            complete=True,
        )
        for prompt_id in prompt_ids
    ]


def played_stamps(prompts: Sequence[Prompt], played: PlayFinished) -> list[PromptStamp]:
    """One stamp for each prompt that was begun; only a whole one counts as heard."""
    last = len(played.spans) - 1
    return [
        PromptStamp(
            prompt_id=prompt.prompt_id,
            version=prompt.version,
            sha256=prompt.sha256,
            started_ts=started,
            finished_ts=finished,
            complete=played.complete or index < last,
        )
        for index, (prompt, (started, finished)) in enumerate(
            zip(prompts, played.spans, strict=False)
        )
    ]
