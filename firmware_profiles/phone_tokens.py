"""Which address at our listener is which agent's: made from one key, so that nothing is stored.

The token of an agent's *end* is HMAC-SHA256 (RFC 2104) over action and agent's id, cut to 160 bits
(RFC 2104 section 5 wants at least half of the hash: 128). It differs for *end*, *help* and
*event*: a phone tells its events all day, and who reads one of those on the wire can press
nothing with it.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import Settings

PhoneAction = Literal["end", "help", "event"]
PHONE_ACTIONS: tuple[PhoneAction, ...] = get_args(PhoneAction)
#: Where a Cisco phone asks who may push.
CISCO_PATH = "/cisco/authenticate"
#: Characters of a token: 160 bits in base 32.
TOKEN_LENGTH = 32

_KEY_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{64}\n?")


class PhoneTokens:
    """Tokens of all agents.

    Args:
        key: 32 bytes that only this node knows.
        agents: their ids.
    """

    def __init__(self, key: bytes, agents: Iterable[str]) -> None:
        self._key = key
        # What is looked up is a hash that nobody outside can aim at, so that the time a look-up
        # takes tells nothing of the tokens.
        self._lookup_key = secrets.token_bytes(_KEY_BYTES)
        self._agents: dict[bytes, tuple[PhoneAction, str, str]] = {}
        for agent_id in agents:
            for action in PHONE_ACTIONS:
                token = self.token(agent_id, action)
                self._agents[self._blind(token)] = (action, agent_id, token)

    def __repr__(self) -> str:
        return "PhoneTokens(…)"

    def token(self, agent_id: str, action: PhoneAction) -> str:
        """Small letters and digits, :data:`TOKEN_LENGTH` of them; not for a log."""
        text = f"callshield phone\0{action}\0{agent_id}".encode()
        return base64.b32encode(hmac.digest(self._key, text, "sha256")[:20]).decode().lower()

    def path(self, agent_id: str, action: PhoneAction) -> str:
        """Path of the address that an agent's phone calls."""
        return f"/p/{self.token(agent_id, action)}/{action}"

    def agent(self, token: str, action: str) -> str | None:
        """Whose token this is; ``None`` where it is nobody's, or for something else."""
        found = self._agents.get(self._blind(token))
        if found is None:
            return None
        meant, agent_id, known = found
        good = hmac.compare_digest(known.encode(), token.encode()) and meant == action
        return agent_id if good else None

    def _blind(self, token: str) -> bytes:
        return hmac.digest(self._lookup_key, token.encode(), "sha256")


def key_path(settings: Settings) -> Path:
    """Where the key lies."""
    return settings.phones.key_file or settings.node.state_dir / "phones.key"


def load_key(settings: Settings, *, make: bool = True) -> bytes:
    """The node's key for phones.

    Args:
        settings: the node's.
        make: where there is none yet, make it; two processes that do so agree on one.

    Raises:
        SetupError: it cannot be read or made, is not private, or is no key.
    """
    path = key_path(settings)
    if make and not os.path.lexists(path):
        _make(path)
    text = read_private(
        path,
        "phones.key_file",
        SetupError,
        missing=f"there is no {path}: `callshield profiles render` or the node makes it",
    )
    if not _KEY.fullmatch(text):
        raise SetupError(
            f"phones.key_file {path} is no key of 64 hexadecimal digits: move it away, and a new "
            "one is made; every phone then needs its provisioning written anew"
        )
    return bytes.fromhex(text.strip())


def _make(path: Path) -> None:
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
            if os.geteuid() == 0:
                # Made by an administrator, read by the node's user.
                folder = path.parent.stat()
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # Whoever was first has made the key.
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
    except OSError as error:
        raise SetupError(
            f"phones.key_file {path} cannot be made: {error.strerror}; name a file in a folder "
            "that the node's user can write to"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            made.unlink()


def load_tokens(settings: Settings, *, make: bool = True) -> PhoneTokens:
    """Tokens of the configured agents.

    Raises:
        SetupError: see :func:`load_key`.
    """
    return PhoneTokens(load_key(settings, make=make), settings.agents)
