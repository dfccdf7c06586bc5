"""One Asterisk in its chroot, with configuration, run, spool and log folders of its own.

Its folder is bound to ``/srv`` inside the root, in a mount namespace that dies with the process.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from callshield.free_ports import free_port, free_range
from tests.pbx.ami import Ami
from tests.pbx.asterisk_root import in_root
from tests.pbx.judges import CdrRow, ChannelStats, read_cdr, read_channel_stats
from tests.peers.sound import write_tone

ETC = Path(__file__).parent / "etc"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy/asterisk"
PROMPTS = Path(__file__).resolve().parents[2] / "sipbridge/prompts/ko"
#: The documentation's addresses, which an operator replaces and so do we.
DOC_PBX, DOC_CALLSHIELD = "192.0.2.5", "192.0.2.10"
#: Frequency of the hold music.
HOLD_HZ = 700.0

ADDRESS = "127.0.40.1"
CALLSHIELD = "127.0.40.2"
PSTN = "127.0.40.4"
PHONE_1, PHONE_2, PHONE_3 = "127.0.40.5", "127.0.40.6", "127.0.40.7"


class Asterisk:
    """A PBX.

    Args:
        folder: its files.
        root: of the chroot with Asterisk in it.
        pstn: ``address:port`` of the provider.
        address: loopback address that it binds to.
        callshield: ``address:port`` where it finds Callshield.
        dialplan: text put behind its dialplan; an extension there replaces none above.
        replace: further texts of the configuration files and what stands in their place, for
            tests that break something on purpose.
        calls: for which it has RTP ports.
        ice: addresses of this machine that its ICE replaces by ``address``; with any, browser
            phones may register (``pjsip_webrtc.conf``).
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        *,
        pstn: str,
        callshield: str = f"{CALLSHIELD}:5060",
        address: str = ADDRESS,
        dialplan: str = "",
        replace: dict[str, str] | None = None,
        calls: int = 100,
        ice: Sequence[str] = (),
    ) -> None:
        self.folder, self.root, self.address = folder, root, address
        self.port = free_port(address)
        self.ami_port = free_port(address)
        self.http_port = free_port(address)
        self.rtp_ports = free_range(address, 4 * calls)
        self.pstn, self.callshield = pstn, callshield
        self._dialplan, self._replace = dialplan, dict(replace or {})
        self._webrtc = bool(ice)
        if ice:
            names = "".join(f"\n{other} => {address}" for other in ice)
            # Plain HTTP will do on the loopback.
            self._replace |= {
                "\n#include pjsip_callshield.conf": "\n#include pjsip_callshield.conf\n"
                "#include pjsip_browser.conf",
                "protocol=wss": "protocol=ws",
                "icesupport=no": f"icesupport=yes\n[ice_host_candidates]{names}",
            }
        self._ami_secret = secrets.token_hex(8)
        self._process: asyncio.subprocess.Process | None = None

    def uri(self, user: str) -> str:
        """An extension of this PBX."""
        return f"sip:{user}@{self.address}:{self.port}"

    # ------------------------------------------------------------------------ configuration

    def _write(self) -> None:
        for name in ("etc", "run", "spool", "log/cdr-csv", "varlib", "moh", "data/sounds"):
            (self.folder / name).mkdir(parents=True)
        host, _, port = self.callshield.rpartition(":")
        (modules,) = (self.root / "usr/lib").glob("**/asterisk/modules/chan_pjsip.so")
        values = {
            "@MODULES@": f"/{modules.parent.relative_to(self.root)}",
            "@SIP_PORT@": str(self.port),
            "@AMI_PORT@": str(self.ami_port),
            "@AMI_SECRET@": self._ami_secret,
            "@HTTP@": "yes" if self._webrtc else "no",
            "@HTTP_PORT@": str(self.http_port),
            "@RTP_FIRST@": str(self.rtp_ports[0]),
            "@RTP_LAST@": str(self.rtp_ports[1]),
            "@PSTN@": self.pstn,
            "@PSTN_ADDRESS@": self.pstn.split(":", 1)[0],
            "@PHONE_3@": PHONE_3,
            f"{DOC_CALLSHIELD}:5060": f"{host}:{port}",
            DOC_CALLSHIELD: host,
            DOC_PBX: self.address,
        }
        used = set()
        for source in (*ETC.glob("*.conf"), *DEPLOY.glob("*.conf")):
            text = source.read_text(encoding="utf-8")
            for old, new in self._replace.items():
                if old in text:
                    used.add(old)
                    text = text.replace(old, new)
            for old, new in values.items():
                text = text.replace(old, new)
            if source.name == "extensions.conf":
                text += self._dialplan
            (self.folder / "etc" / source.name).write_text(text, encoding="utf-8")
        assert used == set(self._replace), f"not in any file: {set(self._replace) - used}"
        # Quiet: the agent's shock guard leaves it alone.
        write_tone(self.folder / "moh/tone.wav", HOLD_HZ, 60, 0.05)
        data = self.folder / "data"
        shipped = self.root / "usr/share/asterisk"
        for entry in shipped.iterdir():
            if entry.name != "sounds":
                (data / entry.name).symlink_to(f"/usr/share/asterisk/{entry.name}")
        for entry in (shipped / "sounds").iterdir():
            (data / "sounds" / entry.name).symlink_to(f"/usr/share/asterisk/sounds/{entry.name}")
        shutil.copytree(PROMPTS, data / "sounds/callshield")
        # Asterisk is another user, who may write here and read no other test's files.
        owner = (self.root / "var/lib/asterisk").stat()
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    # ------------------------------------------------------------------------------ life

    def _inside(self, *command: str) -> list[str]:
        as_asterisk = ("setpriv", "--reuid=asterisk", "--regid=asterisk", "--init-groups")
        # Dies with the tests, however they die.
        return in_root(
            self.root,
            *(*as_asterisk, "--pdeathsig=KILL", "--", *command),
            mounts=f'mount --bind "{self.folder}" "$0/srv"\n',
        )

    async def start(self) -> None:
        """Start it, or start it again, and wait until it is fully booted."""
        if not (self.folder / "etc").exists():
            self._write()
        with (self.folder / "log/console.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._inside("asterisk", "-f", "-n", "-C", "/srv/etc/asterisk.conf"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(60):
            while True:
                assert self._process.returncode is None, self.log()
                if "fully booted" in await self.cli("core waitfullybooted", check=False):
                    return
                await asyncio.sleep(0.1)  # its socket is not there yet: ask again

    async def stop(self) -> None:
        """Stop it by its process id."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def kill(self) -> None:
        """``kill -9``: not a word to anybody."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # ------------------------------------------------------------------------------ asking

    async def cli(self, command: str, *, check: bool = True) -> str:
        """What ``asterisk -rx COMMAND`` prints."""
        process = await asyncio.create_subprocess_exec(
            *self._inside("asterisk", "-C", "/srv/etc/asterisk.conf", "-rx", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert not check or process.returncode == 0, output.decode()
        return output.decode(errors="replace")

    async def until_cli(self, command: str, wanted: str, timeout_s: float = 20) -> str:
        """What a command prints, once it holds a text."""
        text = ""
        try:
            async with asyncio.timeout(timeout_s):
                # The command line tells nobody of changes.
                while wanted not in (text := await self.cli(command)):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"{command} never said {wanted!r}:\n{text}") from None
        return text

    async def channel_stats(self) -> list[ChannelStats]:
        """``pjsip show channelstats``."""
        return read_channel_stats(await self.cli("pjsip show channelstats"))

    def cdr(self) -> list[CdrRow]:
        """Its call detail records so far."""
        path = self.folder / "log/cdr-csv/Master.csv"
        return read_cdr(path.read_text(encoding="utf-8")) if path.exists() else []

    async def until_cdr(self, count: int, timeout_s: float = 20) -> list[CdrRow]:
        """Its call detail records, once there are so many."""
        async with asyncio.timeout(timeout_s):
            while len(self.cdr()) < count:  # noqa: ASYNC110  a file tells nobody that it grew
                await asyncio.sleep(0.1)
        return self.cdr()

    def log(self) -> str:
        """Everything that it said."""
        found = [self.folder / "log/messages.log", self.folder / "log/console.log"]
        return "\n".join(p.read_text(errors="replace") for p in found if p.exists())

    @asynccontextmanager
    async def ami(self) -> AsyncIterator[Ami]:
        """A manager connection with all rights for as long as the block lasts."""
        ami = await Ami.connect(self.address, self.ami_port, "tester", self._ami_secret)
        try:
            yield ami
        finally:
            await ami.close()
