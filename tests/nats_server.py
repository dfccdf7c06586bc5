"""A NATS server of our own with JetStream: made, started, killed and stopped by the tests."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.notifier_kit import free_port

WITHIN_S = 60.0
PROGRAM = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
MISSING = (
    "there is no NATS server here: `./run test` installs Debian's package nats-server; "
    'without it use -m "not nats"'
)


class NatsServer:
    """One server with its data in a folder of its own.

    Args:
        extra: more lines of its configuration, such as accounts or TLS.
    """

    def __init__(self, extra: str = "") -> None:
        assert PROGRAM is not None, MISSING
        self.folder = Path(tempfile.mkdtemp(prefix="callshield-nats-", dir="/tmp"))
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.config = self.folder / "nats.conf"
        self._extra = extra
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        self.config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "data"}" }}\n{self._extra}\n'
        )
        log = (self.folder / "log").open("ab")
        self._server = subprocess.Popen(
            [str(PROGRAM), "-c", str(self.config)], stdout=log, stderr=log, cwd=self.folder
        )
        log.close()
        end = time.monotonic() + WITHIN_S
        while True:
            assert self._server.poll() is None, self.log()
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1) as connection,
            ):
                # Its INFO comes when it is ready for clients.
                connection.settimeout(5)
                if connection.recv(4) == b"INFO":
                    return
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, by default as a crash does."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(WITHIN_S)
            self._server = None

    def freeze(self) -> None:
        """Let it stand still: connections stay, nothing answers."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose the disk; the server must be stopped."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def restart(self) -> None:
        """Kill and start it again."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)
