"""What the command line asks of the running notifier, over its local socket.

Some commands change what others rely on (a recording is opened, a mark is taken away): those go
through the one process that writes the log, or do not happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from pathlib import Path
from typing import TypeVar

from callshield.bus import Codec
from callshield.errors import BusError, SetupError
from callshield.messages import CommandResult, Hello, NodeMessage
from callshield.messages_fairness import OpenRecording, RemoveMark
from callshield.private_file import read_private
from callshield.settings import Settings

Request = TypeVar("Request", OpenRecording, RemoveMark)
Answer = TypeVar("Answer")

#: How long the notifier may take; it waits for the disk.
WITHIN_S = 10.0
#: Holds a token, for who has no file for it.
TOKEN_VARIABLE = "CALLSHIELD_TOKEN"  # noqa: S105 (its name)


def request_id() -> str:
    """A new one."""
    return uuid.uuid4().hex


def ask_notifier(settings: Settings, request: Request) -> CommandResult:
    """Ask, and wait for the answer.

    Raises:
        SetupError: the notifier does not run, or does not answer.
    """
    return asyncio.run(_ask(settings.bus_path, request))


async def _ask(path: Path, request: OpenRecording | RemoveMark) -> CommandResult:
    return await ask_bus(
        path,
        request,
        CommandResult,
        WITHIN_S,
        "the notifier of this node does not answer, and it is what keeps the record of this: "
        "start the node (callshield serve) and try again as its user",
    )


async def ask_bus(
    path: Path, request: NodeMessage, kind: type[Answer], within_s: float, silent: str
) -> Answer:
    """One question to the running node, and its first answer of a kind.

    Args:
        path: of the bus.
        request: the question.
        kind: of the answer.
        within_s: how long it may take.
        silent: the sentence when none comes.

    Raises:
        SetupError: none came.
    """
    codec: Codec[NodeMessage] = Codec(NodeMessage)
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                for message in (Hello(role="command", pid=os.getpid()), request):
                    writer.write(codec.frame(message))
                await writer.drain()
                while True:
                    answer = await codec.read(reader)
                    if isinstance(answer, kind):
                        return answer
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
    except (OSError, asyncio.IncompleteReadError, TimeoutError, BusError):
        raise SetupError(silent) from None


def own_token(file: Path | None) -> str:
    """The token of the person at the command line.

    Args:
        file: that holds it, mode 0600; else the environment variable.

    Raises:
        SetupError: there is none, or the file is not private.
    """
    if file is not None:
        return read_private(file, "the token file", SetupError).strip()
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise SetupError(
            f"say who you are: --token-file FILE (mode 0600), or your token in {TOKEN_VARIABLE}"
        )
    return token
