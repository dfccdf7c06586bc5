"""A PostgreSQL server of our own: made, started and stopped by the tests, unprivileged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.notifier_kit import free_port

WITHIN_S = 60.0
MISSING = (
    "there is no PostgreSQL server here: `./run test` installs Debian's package postgresql; "
    'without it use -m "not postgres"'
)


def programs() -> Path | None:
    """Folder of ``initdb`` and ``postgres``, the newest version installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    anywhere = shutil.which("initdb")
    return Path(anywhere).parent if anywhere else None


@dataclass(frozen=True)
class Database:
    """One empty database."""

    cluster: Cluster
    name: str

    def toml(self, folder: Path) -> str:
        """``[store]``, with the password in a private file."""
        password = folder / "store.password"
        password.write_text(self.cluster.password + "\n")
        password.chmod(0o600)
        return (
            f'[store]\nurl = "postgresql://callshield@127.0.0.1:{self.cluster.port}/{self.name}"\n'
            f'password_file = "{password}"\n'
        )

    async def connect(self) -> Any:
        """A connection beside Callshield's."""
        return await self.cluster.connect(self.name)


class Cluster:
    """One server with its data in a folder of its own."""

    def __init__(self) -> None:
        found = programs()
        assert found is not None, MISSING
        self._programs = found
        self._folder = Path(tempfile.mkdtemp(prefix="callshield-pg-", dir="/tmp"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            # initdb and postgres refuse to run as root.
            entry = pwd.getpwnam("postgres")
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self.password = secrets.token_hex(16)
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._make()

    def _make(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        subprocess.run(
            [
                self._programs / "initdb", "--no-sync", "--username=callshield",
                f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8",
                "--locale=C", "-D", self._folder / "data",
            ],
            check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._user,
        )  # fmt: skip

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        log = (self._folder / "log").open("ab")
        self._server = subprocess.Popen(
            [
                self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port),
                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                "-c", "fsync=off", "-c", "max_connections=60",
            ],
            stdout=log, stderr=log, cwd=self._folder, **self._user,
        )  # fmt: skip
        log.close()
        asyncio.run(self._answers())

    async def _answers(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                assert self._server is not None
                assert self._server.poll() is None, (self._folder / "log").read_text()
                with contextlib.suppress(OSError, asyncpg.PostgresError):
                    await (await self.connect("postgres")).close()
                    return
                await asyncio.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it at once, as a crash would (SIGQUIT); it recovers when it is started again."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(WITHIN_S)
            self._server = None

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self._folder)

    async def connect(self, name: str) -> Any:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user="callshield",
            password=self.password,
            database=name,
            ssl=False,
        )

    def database(self, template: str = "template0") -> Database:
        """A new database: empty, or a copy of another one, to which nobody is connected."""
        name = f"t{uuid.uuid4().hex}"

        async def make() -> None:
            connection = await self.connect("postgres")
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            await connection.close()

        run_beside(make())
        return Database(self, name)


def run_beside(work: Any) -> Any:
    """Run a coroutine in a loop of its own, also where one is running."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
