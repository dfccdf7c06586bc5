"""Structured logs: event names as identifiers, ids in fields, never content.

No name, number dialled or word spoken may be logged (design principle 7). The processor
below is the last line of defence: fields whose very name promises personal data are dropped.
Another one replaces what a terminal or a log viewer would act upon, so that a far end's words
(a codec's name, an error that quotes it) stay within their field and their line.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

#: Field names that never reach a log line, whatever a caller passes.
PERSONAL_FIELDS = frozenset(
    {"text", "transcript", "quote", "caller", "caller_number", "from_uri", "display_name", "number"}
)

#: Control characters of ASCII and Latin-1 (an escape sequence may begin with U+009B too), marks and
#: overrides of the writing direction, other line ends, halves of surrogate pairs.
_ACTED_UPON = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def _drop_personal_fields(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for field in PERSONAL_FIELDS & event.keys():
        del event[field]
    return event


def _plain(value: Any, kept: str = "") -> Any:
    if isinstance(value, str):
        return _ACTED_UPON.sub(lambda found: found[0] if found[0] in kept else "\ufffd", value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _keep_to_one_line(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for field, value in event.items():
        event[field] = _plain(value, "\n" if field == "exception" else "")  # a traceback's lines
    return event


def configure_logs(process: str, *, level: str = "info", json: bool = True) -> None:
    """Send this process's logs to standard error, one event a line.

    Args:
        process: name put into every line (``bridge``, ``media``, ``detector``, ``notifier``).
        level: lowest level written (``debug``, ``info``, ``warning``, ``error``).
        json: JSON lines for machines; otherwise coloured lines for a person.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_personal_fields,
            structlog.processors.format_exc_info,
            _keep_to_one_line,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
