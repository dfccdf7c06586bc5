"""Structured logs: event names as identifiers, ids in fields, never content.

No name, number dialled or word spoken may be logged (design principle 7). The processor
below is the last line of defence: fields whose very name promises personal data are dropped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

#: Field names that never reach a log line, whatever a caller passes.
PERSONAL_FIELDS = frozenset(
    {"text", "transcript", "quote", "caller", "caller_number", "from_uri", "display_name", "number"}
)


def _drop_personal_fields(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for field in PERSONAL_FIELDS & event.keys():
        del event[field]
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
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
