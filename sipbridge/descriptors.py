"""Room for file descriptors: the usual limit of 1024 carries no busy node."""

from __future__ import annotations

import contextlib
import resource

#: Of the media worker: four sockets a call. Of the bridge: 2048 connections, and what it opens.
MANY_FILES = 16384


def allow_many_files(wanted: int = MANY_FILES) -> None:
    """Raise this process's soft limit as far as its hard one lets it; never lowers it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
