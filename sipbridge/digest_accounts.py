"""Credentials for far ends that challenge our requests (401, 407; RFC 3261 section 22, RFC 8760).

PJSIP answers the challenge inside the dialog, INVITE and BYE alike, with MD5, SHA-256 or
SHA-512/256; it takes the credentials from the pjsua2 account that a leg belongs to. So each set
of credentials has an account of its own, on the transport of the far end it is for, and what is
meant for one far end is never shown to another.

A password stands in a file of its own, or in the environment, never in the configuration: that
is printed, copied and sent to those who help.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pjsua2 as pj

from callshield.errors import SetupError
from callshield.private_file import read_private
from callshield.settings import Settings
from callshield.settings_base import DigestSettings
from callshield.settings_sip import PhoneSettings, SideSettings

#: PJSIP is built for 64 accounts; the transports take up to six.
MAX_CREDENTIALS = 50
#: Accounts without credentials come first when PJSIP looks for the one of an incoming INVITE.
PRIORITY = -1


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a far end that asks."""

    username: str
    password: str = field(repr=False)
    realm: str = "*"
    """The realm in which they are shown; ``*`` is any (RFC 3261 section 22.1)."""


def password_variable(kind: str, name: str) -> str:
    """The environment variable with a password: ``CALLSHIELD_AGENT_PASSWORD_1001``.

    Args:
        kind: ``agent``, ``supervisor`` or ``trunk``.
        name: its id; what is no letter or digit becomes ``_``.
    """
    return f"CALLSHIELD_{kind}_PASSWORD_{re.sub('[^A-Za-z0-9]', '_', name)}".upper()


def read_credentials(
    settings: DigestSettings,
    kind: str,
    name: str,
    environment: Mapping[str, str] = os.environ,
) -> Credentials | None:
    """The credentials of one far end; None when its table names no ``username``.

    Args:
        settings: ``[agents.ID]``, ``[supervisors.ID]`` or ``[trunks.NAME]``.
        kind: ``agent``, ``supervisor`` or ``trunk``.
        name: the table's id.
        environment: goes before the file.

    Raises:
        SetupError: there is no password, or others may read it.
    """
    if not settings.username:
        return None
    variable = password_variable(kind, name)
    key = f"{kind}s.{name}.password_file"
    password = environment.get(variable, "")
    if not password:
        if settings.password_file is None:
            raise SetupError(
                f"{key}: {kind} {name} has a username but no password: name a file that holds it, "
                f"or set {variable}"
            )
        text = read_private(settings.password_file, key, SetupError)
        password = text.removesuffix("\n").removesuffix("\r")
    if not password or not password.isprintable():
        raise SetupError(f"{key}: one line with the password is needed, and nothing else")
    return Credentials(settings.username, password, settings.realm)


def phone_credentials(settings: Settings) -> dict[str, Credentials]:
    """Credentials for the phones of agents and supervisors, by the phone's URI.

    Raises:
        SetupError: a password is missing, or two tables disagree about one phone.
    """
    found: dict[str, Credentials] = {}
    tables: list[tuple[str, str, PhoneSettings]] = []
    tables += [("agent", name, table) for name, table in settings.agents.items()]
    tables += [("supervisor", name, table) for name, table in settings.supervisors.items()]
    for kind, name, table in tables:
        credentials = read_credentials(table, kind, name)
        if credentials is None:
            continue
        if found.setdefault(table.uri, credentials) != credentials:
            raise SetupError(
                f"{kind}s.{name}: another table has the same uri with another username or "
                "password: give both the same"
            )
    return found


def trunk_credentials(settings: Settings) -> dict[str, Credentials]:
    """Credentials for the lines over which agents call, by the trunk's NAME.

    Raises:
        SetupError: a password is missing.
    """
    found = {
        name: read_credentials(table, "trunk", name) for name, table in settings.trunks.items()
    }
    return {name: credentials for name, credentials in found.items() if credentials is not None}


def add_to(config: Any, credentials: Credentials) -> None:
    """Put credentials into a pjsua2 ``AccountConfig``; any algorithm that PJSIP knows is taken."""
    info = pj.AuthCredInfo("digest", credentials.realm, credentials.username, 0, "")
    info.data = credentials.password
    config.sipConfig.authCreds.push_back(info)
    config.priority = PRIORITY


class DigestAccounts:
    """The accounts with credentials, one for each set of them on each transport.

    Args:
        make: makes and registers a pjsua2 account of a side, on one of its transports (``udp``,
            ``tcp``, ``tls``), with credentials.
    """

    def __init__(self, make: Callable[[SideSettings, str, Credentials], Any]) -> None:
        self._make = make
        self._accounts: dict[tuple[str, int, str, Credentials], Any] = {}

    def account(self, side: SideSettings, transport: str, credentials: Credentials) -> Any:
        """The account whose legs answer challenges with these credentials.

        Raises:
            SetupError: there are more sets of them than PJSIP has accounts for.
        """
        key = (side.bind, side.port, transport, credentials)
        if key not in self._accounts:
            if len(self._accounts) >= MAX_CREDENTIALS:
                raise SetupError(
                    f"more than {MAX_CREDENTIALS} different username and password pairs: let the "
                    "PBX or registrar give Callshield one account for many agents, and name the "
                    "same one for each of them"
                )
            self._accounts[key] = self._make(side, transport, credentials)
        return self._accounts[key]

    def clear(self) -> None:
        """Let go of every account; no leg of them may be left."""
        self._accounts.clear()
