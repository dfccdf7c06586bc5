"""Asks Asterisk's manager interface what :mod:`notifier.pbx_listening` wants to know.

Needed in the manager user's ``write=``: ``system`` (GetConfig, ModuleCheck, CoreShowChannels) and
``reporting`` (ShowDialPlan). Nothing is changed at the PBX. GetConfig brings passwords along with
what is looked for: they are dropped here, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from callshield.errors import CallshieldError
from notifier.pbx_listening import (
    FILES,
    Entry,
    Running,
    Section,
    Snapshot,
)
from notifier.pbx_listening_ways import modules_of_interest

#: Asterisk's own dialplan behind the function PERIODIC_HOOK, where it beeps by ChanSpy.
BUILT_IN_CONTEXT = "__func_periodic_hook_context__"
#: Values of these keys never leave this module.
_SECRET_KEYS = {"secret", "password", "md5_cred", "auth_pass", "remotesecret"}

Lines = Sequence[tuple[str, str]]


class Said(Protocol):
    """One message of the PBX."""

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Names and values as they came."""

    def get(self, name: str, default: str = "") -> str:
        """The first value of this name."""


class Reply(Protocol):
    """What came of one action."""

    @property
    def ok(self) -> bool:
        """The PBX did it."""

    @property
    def text(self) -> str:
        """The PBX's sentence."""

    @property
    def response(self) -> Said:
        """The first message."""

    @property
    def items(self) -> Sequence[Said]:
        """The events of a list."""


class Manager(Protocol):
    """A logged-in connection, such as :class:`notifier.ami_client.AmiClient`."""

    async def request(self, action: str, fields: Lines = ()) -> Reply:
        """Ask the PBX for something."""


async def survey(manager: Manager, say: Callable[[str], None]) -> Snapshot:
    """Ask for everything; what is refused is noted, and the rest still asked.

    Args:
        manager: the connection.
        say: is told what is being asked.
    """
    unread: list[tuple[str, str]] = []

    async def ask(what: str, action: str, *fields: tuple[str, str]) -> Reply | None:
        try:
            reply = await manager.request(action, fields)
        except CallshieldError as error:
            unread.append((what, str(error)))
            return None
        if not reply.ok and "permission" in reply.text.lower():
            unread.append((what, f"{action} is refused to this manager user"))
            return None
        return reply

    say("asking the PBX for its modules and channels")
    modules = set()
    for module in modules_of_interest():
        reply = await ask("modules", "ModuleCheck", ("Module", module))
        if reply is None:
            break
        if reply.ok:
            modules.add(module)
    channels = await ask("channels", "CoreShowChannels")
    say("asking the PBX for its configuration files")
    files: dict[str, tuple[Section, ...]] = {}
    for name in FILES:
        reply = await ask(name, "GetConfig", ("Filename", name))
        if reply is not None:
            files[name] = read_config(reply.response.lines) if reply.ok else ()
    say("asking the PBX for its dialplan")
    dialplan = await ask("dialplan", "ShowDialPlan")
    return Snapshot(
        modules=frozenset(modules),
        dialplan=read_dialplan(dialplan.items) if dialplan is not None else (),
        files=files,
        channels=tuple(
            Running(item.get("Channel"), item.get("Application"))
            for item in (channels.items if channels is not None else ())
        ),
        unread=tuple(unread),
    )


def read_dialplan(items: Iterable[Said]) -> tuple[Entry, ...]:
    """The priorities among the events ``ListDialplan``: no includes, hints, switches."""
    return tuple(
        Entry(
            item.get("Context"),
            item.get("Extension"),
            item.get("Priority"),
            item.get("Application"),
            item.get("AppData"),
        )
        for item in items
        if item.get("Priority").isdigit() and item.get("Context") != BUILT_IN_CONTEXT
    )


def read_config(lines: Lines) -> tuple[Section, ...]:
    """The sections of a GetConfig answer, in order, without the values of secrets."""
    names: dict[str, str] = {}
    values: dict[str, list[tuple[str, str]]] = {}
    for key, value in lines:
        kind, _, number = key.partition("-")
        if kind == "Category":
            names[number] = value
            values[number] = []
        elif kind == "Line":
            section = number.partition("-")[0]
            name, _, text = value.partition("=")
            hidden = name.strip().lower() in _SECRET_KEYS
            values.setdefault(section, []).append(
                (name.strip(), "(hidden)" if hidden and text else text.strip())
            )
    return tuple(Section(names[number], tuple(values[number])) for number in names)
