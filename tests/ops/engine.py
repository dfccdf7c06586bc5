"""Images built and run without a daemon: buildah reads Dockerfiles, podman and crun run them.

What it takes where little is allowed: a build's steps run in a chroot (``--isolation chroot``) with
the network that has package mirrors; containers run in this process's network namespace, which has
loopback only, and without control groups (of the first version these tools do not take).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.ops.conftest import NETWORK


class EngineError(AssertionError):
    """A command failed; its output is the message."""


class Engine:
    """One store of images and containers.

    Args:
        folder: for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = [
            *("--root", str(folder / "storage"), "--runroot", str(folder / "run")),
            *("--storage-driver", "overlay"),
        ]
        limits = folder / "containers.conf"
        limits.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:16384", "nproc=4096:4096"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\n',
            encoding="utf-8",
        )
        self.environment = {**os.environ, "CONTAINERS_CONF": str(limits)}
        # crun wants control groups of the second version alone. This mount namespace is the tests'
        # own, and one for all commands: a container's root is mounted in it.
        subprocess.run(["umount", "-R", "/sys/fs/cgroup"], check=False, capture_output=True)
        subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)

    def _call(self, command: Sequence[str], timeout_s: float, check: bool = True) -> str:
        """What a command printed; on its standard error podman also misses a systemd."""
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            said = done.stdout[-2000:] + done.stderr[-2000:]
            raise EngineError(f"status {done.returncode} of {command}:\n{said}")
        return done.stdout

    def has(self, name: str) -> bool:
        """Whether there is such an image."""
        done = subprocess.run(
            ["podman", *self.storage, "image", "exists", name],
            env=self.environment,
            check=False,
            capture_output=True,
        )
        return done.returncode == 0

    def import_root(self, root: Path, name: str) -> None:
        """A folder as an image of one layer."""
        with subprocess.Popen(
            ["tar", "--one-file-system", "-C", str(root), "-c", "."], stdout=subprocess.PIPE
        ) as packed:
            done = subprocess.run(
                ["podman", *self.storage, "import", "-q", "-", name],
                env=self.environment,
                stdin=packed.stdout,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0 or packed.returncode != 0:
            raise EngineError(done.stderr)

    def build(self, file: Path, context: Path, name: str, *options: str) -> str:
        """Build a Dockerfile, step by step, as it stands; what that said."""
        outside = ["nsenter", f"--net={os.environ[NETWORK]}"]
        return self._call(
            [
                *(*outside, "buildah", *self.storage, "build", "--isolation", "chroot"),
                *("--format", "docker", "--layers", "--tag", name, "--file", str(file)),
                *(*options, str(context)),
            ],
            7200,
        )

    def podman(self, *words: str, check: bool = True, timeout_s: float = 120) -> str:
        """A podman command."""
        return self._call(["podman", *self.storage, *words], timeout_s, check)

    def logs(self, container: str) -> str:
        """Both outputs of a container."""
        command = ["podman", *self.storage, "logs", container]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def inspect(self, name: str) -> dict[str, Any]:
        """Configuration of an image."""
        found: list[dict[str, Any]] = json.loads(self.podman("image", "inspect", name))
        return found[0]
