"""The process that writes on phones: ``python -m firmware_profiles.process --config FILE``.

A client of the notifier's bus and nothing else that anybody waits for: when it is slow, or dead,
warnings reach consoles as ever. Exit status: 0 after SIGTERM or SIGINT, 2 when something must be
put right first. The event ``ready`` on standard error says that it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from callshield import heartbeat, lifeline
from callshield.bus import BusClient
from callshield.errors import CallshieldError
from callshield.logs import configure_logs
from callshield.messages import Hello, NodeMessage
from callshield.messages_phones import (
    NotifySent,
    PhoneKey,
    PhoneKeyDone,
    PhoneSeen,
    ScreensLeft,
    ShowTest,
)
from callshield.settings import Settings, load_settings
from firmware_profiles.catalogue import Catalogue, shipped
from firmware_profiles.desk import Desk
from firmware_profiles.http_push import HttpPush
from firmware_profiles.listener import Listener, start_listener
from firmware_profiles.notify_push import NotifyPush
from firmware_profiles.push_secrets import load_passwords
from firmware_profiles.screens import ScreenEvent

log = structlog.get_logger()

ROLE = "phones"
#: Messages that wait while the notifier is away: reports alone, which may be lost.
_QUEUE = 1000


class Phones:
    """The process without its signals.

    Args:
        settings: the node's configuration.
        catalogue: all profiles.

    Raises:
        SetupError: a password, a key or a certificate cannot be used.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        passwords = load_passwords(settings)
        self._settings = settings
        self._catalogue = catalogue
        self._passwords = passwords
        self._http = HttpPush(settings, passwords)
        self._notify = NotifyPush(self._say, settings.phones.limit_s)
        self._bus: BusClient[NodeMessage] = BusClient(
            settings.bus_path,
            NodeMessage,
            self._on_message,
            lambda: [Hello(role=ROLE, pid=os.getpid(), node=settings.node.name)],
            limit=_QUEUE,
            on_disconnect=self._notify.lost,
        )
        self.listener: Listener | None = None
        self.desk: Desk | None = None

    async def start(self) -> None:
        """Listen, and connect to the notifier.

        Raises:
            ConfigurationError: nobody could reach the listener.
            SetupError: its port is taken, or a key cannot be had.
        """
        keys = None
        if self._settings.phones.port:
            self.listener = start_listener(
                self._settings,
                self._press,
                cisco_login=self._cisco_login(),
                shown=lambda agent_id, text: (
                    self.desk.answer(agent_id, text) if self.desk else None
                ),
            )
            # Not the agents' lasting addresses: a screen can be read on its way.
            keys = self.listener.screen_keys

        self.desk = Desk(
            self._settings,
            self._catalogue,
            self._passwords,
            self._http,
            self._notify,
            self._bus.send,
            keys=keys,
            pages=self.listener,
        )
        self._bus.start()
        log.info("ready", agents=len(self._settings.agents), listener=self.listener is not None)

    async def close(self) -> None:
        """Stop; screens that go by themselves do, the others stay until the next call."""
        await self._bus.close()
        if self.desk is not None:
            await self.desk.close()
        if self.listener is not None:
            await self.listener.close()
        await self._http.close()

    async def _on_message(self, message: NodeMessage) -> None:
        desk = self.desk
        if desk is None:
            return
        match message:
            case PhoneSeen():
                desk.seen(message)
            case NotifySent():
                self._notify.answered(message)
            case PhoneKeyDone():
                if self.listener is not None:
                    self.listener.answered(message)
            case ShowTest():
                desk.test(message)
            case ScreensLeft():
                desk.left_on(message)
            case _ if isinstance(message, ScreenEvent):
                desk.feed(message)

    def _say(self, message: NodeMessage) -> bool:
        if not self._bus.connected.is_set():
            # What waits for a notifier would come too late to be true.
            return False
        self._bus.send(message)
        return True

    def _press(self, key: PhoneKey) -> bool:
        return self._say(key)

    def _cisco_login(self) -> tuple[str, str]:
        """What a Cisco phone is told when it is pushed to, and asks us about."""
        for profile_id in ("cisco-enterprise", "cisco-mpp"):
            family = self._settings.phones.families.get(profile_id)
            password = self._passwords.get(profile_id, "")
            if family is not None and family.user and password:
                return family.user, password
        return "", ""


async def _main(settings: Settings, catalogue: Catalogue) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    lifeline.stop_on_signals(loop, stop.set)
    lifeline.watch(loop, stop.set)
    heartbeat.beat(loop)
    phones = Phones(settings, catalogue)
    try:
        await phones.start()
        await stop.wait()
    finally:
        await phones.close()
    log.info("stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="firmware_profiles.process", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the node")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        settings = load_settings(options.config)
        configure_logs("phones", level=settings.node.log_level)
        uvloop.run(_main(settings, shipped()))
    except CallshieldError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
