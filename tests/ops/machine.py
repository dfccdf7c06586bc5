"""A machine with systemd as its first process, in namespaces: systemd-nspawn on a folder.

The folder is laid over a Debian that stays as it is. The machine shares this process's network
namespace, which ``./run test-ops`` made: loopback only, so that telephones of the tests reach its
addresses, and nothing else does. What has to fetch packages runs in it with the network outside.

What a real machine has and this one has not: a kernel of its own; the right to raise resource
limits where the test itself has none (CAP_SYS_RESOURCE); memory and processor controllers where
the cgroups here are of the first version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.ops.conftest import NETWORK

BOOT_S, HALT_S = 300, 120
#: What a person's shell on it has.
_SHELL = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
#: Of this machine's environment, for pip: where packages come from, and whom to believe.
_PASSED = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


#: In control groups of its own: two machines in the same would end each other.
_OWN_GROUP = """\
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -w "$hierarchy/cgroup.procs" ]; then
        mkdir -p "$hierarchy/$1"
        echo $$ >"$hierarchy/$1/cgroup.procs"
    fi
done
shift
exec "$@"
"""


class MachineError(AssertionError):
    """A command on the machine failed; its output is the message."""


class Machine:
    """A running machine.

    Args:
        root: folder that it runs in.
        folder: for its log.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self._log = folder / "machine.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._group = f"callshield-machine-{os.getpid()}"

    def boot(self) -> None:
        """Start it, and wait until systemd says that all of it runs.

        Raises:
            MachineError: it did not.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("sh", "-eu", "-c", _OWN_GROUP, "-", self._group),
                    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"),
                    *("--settings=off", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                    *("--console=pipe", "--capability=CAP_SYS_NICE,CAP_SYS_RESOURCE"),
                    f"--directory={self.root}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        limit = time.monotonic() + BOOT_S
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                break
            if self._leader == 0:
                self._leader = self._find_leader(self._process.pid)
            elif self.run("systemctl is-system-running", check=False).stdout.strip() == "running":
                return
            time.sleep(0.5)  # nothing tells us from outside
        failed = self.run("systemctl --failed", check=False).stdout if self._leader else ""
        raise MachineError(
            f"the machine did not come up: {failed}\n{self._log.read_text()[-2000:]}"
        )

    @staticmethod
    def _find_leader(nspawn: int) -> int:
        """The machine's first process, or 0: a child with process numbers of its own. Before it
        there is, for a moment, one that only prepares and ends."""
        try:
            ours = os.readlink("/proc/self/ns/pid")
            for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
                if os.readlink(f"/proc/{child}/ns/pid") != ours:
                    return int(child)
        except OSError:
            pass  # it ended under our eyes
        return 0

    def _enter(self, outside_network: bool) -> list[str]:
        words = []
        if outside_network:
            words = ["nsenter", f"--net={os.environ[NETWORK]}"]
        return [
            *words,
            "nsenter",
            f"--target={self._leader}",
            *("-m", "-u", "-i", "-p", "-C", "-r", "-w"),
        ]

    def run(
        self,
        script: str,
        *,
        check: bool = True,
        network: bool = False,
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """A script in a root's shell, which ends at the first command that fails.

        Args:
            script: of sh.
            check: an exit status but 0 is an error.
            network: in the network that has package mirrors.
            variables: more of the environment.
            timeout_s: at most.

        Raises:
            MachineError: it failed.
        """
        environment = {**_SHELL, **(variables or {})}
        if network:
            environment |= {
                name: value for name, value in os.environ.items() if name.startswith(_PASSED)
            }
        done = subprocess.run(
            [
                *self._enter(network),
                *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
                *("sh", "-eu", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            raise MachineError(f"status {done.returncode} of:\n{script}\n{done.stdout[-4000:]}")
        return done

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        said = self.run(f"systemctl show {unit} {' '.join(f'-p {one}' for one in properties)}")
        return dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)

    def journal(self, unit: str, *, since_cursor: str = "") -> str:
        """What a unit logged."""
        after = f"--after-cursor='{since_cursor}'" if since_cursor else ""
        return self.run(f"journalctl --quiet -o cat -u {unit} {after}").stdout

    def cursor(self) -> str:
        """The end of the journal, for :meth:`journal`."""
        said = self.run("journalctl --quiet -n 0 --show-cursor").stdout
        return said.partition("cursor: ")[2].strip()

    def halt(self) -> None:
        """Shut it down as its power button would."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        if self._leader:
            self.run("systemctl poweroff", check=False)
        try:
            process.wait(HALT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for hierarchy in ("", "systemd", "unified"):
            for name in ("payload", "supervisor", ""):
                with contextlib.suppress(OSError):
                    Path("/sys/fs/cgroup", hierarchy, self._group, name).rmdir()


@contextmanager
def running_machine(debian: Path, folder: Path) -> Iterator[Machine]:
    """A machine on a layer above ``debian``, with what takes long to build from this cache.

    Args:
        debian: as :mod:`tests.ops.debian_root` lays it out; not changed.
        folder: for what the machine writes.
    """
    # What it mounts is gone with the mount namespace of `./run test-ops`.
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True)
    layers = f"lowerdir={debian},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root], check=True)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    cache = Path(os.environ["CALLSHIELD_CACHE"])
    for name in ("pjsua2", "speech"):
        if (cache / name).is_dir():
            shutil.copytree(cache / name, root / "var/cache/callshield" / name)
    machine = Machine(root, folder)
    try:
        machine.boot()
        yield machine
    finally:
        machine.halt()
        subprocess.run(["umount", "--lazy", root], check=False)
        for path in (upper, work):
            subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=False)
