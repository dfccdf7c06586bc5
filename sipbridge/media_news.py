"""What the media worker says of a call: to the call what it must act on, to the log the rest."""

from __future__ import annotations

import os

import msgspec
import structlog

from callshield.messages import LegName
from callshield.messages_media import (
    CallerPressed,
    CodePressed,
    DigitUndelivered,
    LegOpened,
    MediaFailed,
    MediaMessage,
    MediaTimeout,
    PlayFinished,
    SessionClosed,
)
from sipbridge.bridged import Bridged

log = structlog.get_logger()

#: What a call itself must act on.
CallNews = PlayFinished | CallerPressed | CodePressed | DigitUndelivered | MediaTimeout | LegOpened


def tell_call(bridged: Bridged, news: CallNews) -> None:
    """Hand a running call what happened in its media."""
    match news:
        case PlayFinished():
            bridged.run(bridged.call.on_play_finished(news))
        case CodePressed():
            if news.leg is LegName.AGENT:
                bridged.on_code(news.code)
        case CallerPressed():
            bridged.run(bridged.call.on_caller_key(news.digit))
        case DigitUndelivered():
            bridged.on_digit_undelivered(news)
        case MediaTimeout():
            log.info("media_timeout", call_id=news.call_id, silent_s=news.silent_s)
            bridged.run(bridged.call.on_media_timeout())
        case LegOpened():
            session_id = int.from_bytes(os.urandom(4), "big")
            bridged.run(bridged.call.on_leg_opened(news, session_id))


def note(message: MediaMessage) -> None:
    """Log what the worker could not do, and the figures of a session that it closed."""
    match message:
        case MediaFailed():
            log.warning(
                "media_failed",
                call_id=message.call_id,
                command=message.command,
                error=message.error,
            )
        case SessionClosed():
            log.info(
                "media_closed",
                call_id=message.call_id,
                caller_received=message.caller.received,
                agent_received=message.agent.received,
                tapped=message.tapped,
                tap_dropped=message.tap_dropped,
                wrong_source=message.caller.wrong_source + message.agent.wrong_source,
                malformed=message.caller.malformed + message.agent.malformed,
                caller_leg=msgspec.to_builtins(message.caller),
                agent_leg=msgspec.to_builtins(message.agent),
            )
        case _:
            pass
