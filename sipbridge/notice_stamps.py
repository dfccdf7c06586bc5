"""Proof of which announcements the caller heard: one stamp a prompt, for the call's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from callshield.messages_media import PlayFinished, PlayPrompts
from callshield.messages_notice import PromptStamp, StoppedBy
from sipbridge.prompt_catalogue import Prompt

NO_PURPOSES: Mapping[str, tuple[str, ...]] = {}


def attested_stamps(
    prompts: Mapping[str, str],
    at_ts: float,
    purposes: Mapping[str, tuple[str, ...]] = NO_PURPOSES,
) -> list[PromptStamp]:
    """The PBX's word: ids and versions, no hash, and the call's own start as the latest time.

    Args:
        prompts: versions by id, as the PBX names them.
        at_ts: the call's start, seconds since the epoch.
        purposes: by id, what the manifest says of just these versions.
    """
    return [
        PromptStamp(
            prompt_id=prompt_id,
            version=version,
            sha256="",
            started_ts=at_ts,
            finished_ts=at_ts,
            complete=True,
            purposes=list(purposes.get(prompt_id, ())),
        )
        for prompt_id, version in prompts.items()
    ]


#: What was played to its end was heard by nobody then, or by somebody else.
_DEAF: Final = ("hold", "caller_changed")
#: The last packet of an announcement may be told this much early, seconds.
_ROUNDING_S: Final = 0.02


def played_stamps(
    prompts: Sequence[Prompt],
    played: PlayFinished,
    stopped_by: StoppedBy = "",
    *,
    repeated: bool = False,
) -> list[PromptStamp]:
    """One stamp for each prompt that was begun; only a whole one counts as heard.

    Each names the file that was played: the leg's codec decides which of a prompt's two it was.

    Args:
        prompts: what was to be played, in order.
        played: what the media worker says of it.
        stopped_by: why the caller did not hear the last one to its end, whatever the worker says:
            it knows nothing of a hold.
        repeated: it was played again and again until it was stopped: once is whole.
    """
    last = len(played.spans) - 1
    if repeated:
        whole = all(
            finished - started >= prompt.duration_s - _ROUNDING_S
            for prompt, (started, finished) in zip(prompts, played.spans, strict=False)
        )
        stopped_by = "" if whole else stopped_by
    elif played.complete and stopped_by not in _DEAF:
        stopped_by = ""  # it was over before it could be stopped
    elif not stopped_by:
        stopped_by = "fault"
    return [
        PromptStamp(
            prompt_id=prompt.prompt_id,
            version=prompt.version,
            sha256=prompt.wide.sha256 if played.wide and prompt.wide else prompt.sha256,
            started_ts=started,
            finished_ts=finished,
            complete=index < last or not stopped_by,
            length_s=round(prompt.duration_s, 3),
            stopped_by=stopped_by if index == last else "",
            language=prompt.language,
            names=sorted(prompt.names),
            purposes=list(prompt.purposes),
        )
        for index, (prompt, (started, finished)) in enumerate(
            zip(prompts, played.spans, strict=False)
        )
    ]


def unplayed_stamp(prompt: Prompt) -> PromptStamp:
    """Everything of a stamp but what the playing adds; :func:`kept_stamp` adds it."""
    return PromptStamp(
        prompt_id=prompt.prompt_id,
        version=prompt.version,
        sha256=prompt.sha256,
        started_ts=0.0,
        finished_ts=0.0,
        complete=False,
        length_s=round(prompt.duration_s, 3),
        language=prompt.language,
        names=sorted(prompt.names),
        purposes=list(prompt.purposes),
    )


def kept_stamp(
    unplayed: PromptStamp, play: PlayPrompts, played: PlayFinished, stopped_by: StoppedBy
) -> PromptStamp | None:
    """The stamp of one prompt by a bridge that has only what another one kept.

    Args:
        unplayed: by :func:`unplayed_stamp`.
        play: of this one prompt.
        played: what the media worker says of it.
        stopped_by: why, where it was not played to its end.

    Returns:
        None: it was never begun.
    """
    if not played.spans:
        return None
    started, finished = played.spans[0]
    wide = next(iter(play.wide_sha256), "")
    return msgspec.structs.replace(
        unplayed,
        sha256=wide if played.wide and wide else unplayed.sha256,
        started_ts=started,
        finished_ts=finished,
        complete=played.complete,
        stopped_by="" if played.complete else stopped_by,
    )
