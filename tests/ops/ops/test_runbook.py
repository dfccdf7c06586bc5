"""docs/operations.md, command by command, on a machine with systemd: ``./run test-ops``.

The tests build on each other, in order, as an operator's work does.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.ops.machine import Machine, MachineError, running_machine
from tests.ops.runbook import blocks
from tests.ops.versions import NEW, OLD, make_repository
from tests.peers.baresip import Baresip, running_baresip
from tests.peers.sound import write_tone

pytestmark = [pytest.mark.timeout(7200)]

CALLER, PHONE, PBX_SIDE, PHONE_SIDE = "127.0.0.4", "127.0.0.5", "127.0.0.2", "127.0.0.3"
SERVICE = "callshield.service"
LOCKED = 1.5
SOURCE = "/srv/callshield.git"
_installed: list[bool] = []


@pytest.fixture(autouse=True)
def _in_order(request: pytest.FixtureRequest) -> None:
    if request.node.name != "test_install_and_start" and not _installed:
        pytest.skip("the installation failed")


@pytest.fixture(scope="module")
def machine(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    with running_machine(debian, folder) as machine:
        shutil.copytree(repository, machine.root / SOURCE.lstrip("/"))
        yield machine


def block(machine: Machine, name: str, *, network: bool = False, **variables: str) -> str:
    """Run a block of the page; what it printed."""
    timeout_s = 3600 if network else 600  # a busy machine is no failure
    variables = {"VERSION": OLD, "SOURCE": SOURCE, "NEW": NEW, "OLD": OLD, **variables}
    return machine.run(
        blocks()[name], network=network, variables=variables, timeout_s=timeout_s
    ).stdout


def configuration(phone: Baresip | None = None) -> str:
    """What the operator makes of the example: addresses, and a secret."""
    uri = phone.uri if phone else f"sip:1001@{PHONE}:5070"
    return f"""
[node]
name = "runbook"
hang_timeout_s = 10
[sip.pbx]
bind = "{PBX_SIDE}"
rtp_ports = [20000, 20999]
networks = ["127.0.0.1"]
[sip.phone]
bind = "{PHONE_SIDE}"
rtp_ports = [25000, 25999]
networks = ["127.0.0.1"]
[[peers]]
name = "pbx"
networks = ["{CALLER}"]
[agents.1001]
uri = "{uri}"
[notice]
prompts = ["recording"]
[webhooks.crm]
url = "http://127.0.0.1:9/hooks"
allow_http = true
secret_file = "/etc/callshield/secrets/crm.secret"
"""


@asynccontextmanager
async def running_call(machine: Machine, folder: Path) -> AsyncIterator[tuple[Baresip, Baresip]]:
    """A caller and an agent who talk through the service."""
    tone = write_tone(folder / "tone.wav", 1000.0, 300, 0.05)
    async with (
        running_baresip(folder / "agent", PHONE, "1001", tone) as agent,
        running_baresip(folder / "caller", CALLER, "01000000000", tone) as caller,
    ):
        await write_configuration(machine, agent)
        await restart(machine)
        await caller.command("dial", f"sip:1001@{PBX_SIDE}:5060")
        await caller.wait("CALL_ESTABLISHED")
        await until(machine, "StatusText", "ready, 1 call")
        yield caller, agent


async def write_configuration(machine: Machine, phone: Baresip | None = None) -> None:
    path = machine.root / "etc/callshield/callshield.toml"
    # In place: owner and mode are those that the page gave it.
    path.write_text(configuration(phone), encoding="utf-8")


async def restart(machine: Machine) -> None:
    await asyncio.to_thread(machine.run, f"systemctl restart {SERVICE}", timeout_s=200)


async def until(machine: Machine, name: str, value: str, timeout_s: float = 60) -> None:
    """Wait until a property of the service is this."""
    limit, found = time.monotonic() + timeout_s, ""
    while time.monotonic() < limit:
        found = (await asyncio.to_thread(machine.show, SERVICE, name)).get(name, "")
        if found == value:
            return
        await asyncio.sleep(0.3)  # systemd tells nobody outside of its bus
    raise AssertionError(f"{name} is {found!r} after {timeout_s} s, and not {value!r}")


def part(machine: Machine, module: str) -> int:
    """Process id, inside the machine, of a part of the service."""
    return int(machine.run(f"pgrep --uid callshield --full {module}").stdout)


def verified(machine: Machine) -> dict[str, object]:
    """``audit verify``."""
    found: dict[str, object] = json.loads(
        machine.run("callshieldctl audit verify --json", check=False).stdout.splitlines()[-1]
    )
    return found


def is_alive(machine: Machine, pid: int) -> bool:
    return machine.run(f"kill -0 {pid}", check=False).returncode == 0


async def test_install_and_start(machine: Machine) -> None:
    block(machine, "fetch", network=True)
    block(machine, "install")
    block(machine, "configure")
    await write_configuration(machine)
    secret = machine.root / "etc/callshield/secrets/crm.secret"
    secret.write_text("Ssecretsecretsecretsecretsecret1\n")
    secret.chmod(0o600)
    said = block(machine, "check")
    assert "PROBLEM" not in said
    assert "cs_" in said
    said = block(machine, "start")
    assert "active" in said
    assert '"ready":true' in said
    shown = machine.show(SERVICE, "StatusText", "ActiveState", "NRestarts")
    assert shown == {"StatusText": "ready, 0 calls", "ActiveState": "active", "NRestarts": "0"}
    _installed.append(True)


async def test_the_service_is_locked_down_where_it_runs(machine: Machine) -> None:
    """Not by what the unit says: by what the kernel says of the media worker."""
    pid = part(machine, "sipbridge.media_worker")
    status = dict(
        line.split(":\t", 1)
        for line in machine.run(f"cat /proc/{pid}/status").stdout.splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["Uid"].split()[0] == machine.run("id -u callshield").stdout.strip()
    inside = f"nsenter --target {pid} --mount --"
    for place in ("/usr/x", "/etc/callshield/x", "/opt/callshield/x", "/boot/x"):
        said = machine.run(f"{inside} touch {place}", check=False)
        assert "Read-only file system" in said.stdout, place
    machine.run(f"{inside} touch /var/lib/callshield/x && {inside} rm /var/lib/callshield/x")
    assert machine.run(f"{inside} ls /tmp").stdout == ""
    assert machine.run(f"{inside} ls /dev/vda /dev/mem", check=False).returncode != 0
    exposed = machine.run(f"systemd-analyze security --no-pager {SERVICE} | tail -n 1").stdout
    assert float(exposed.split("service: ")[1].split()[0]) <= LOCKED


async def test_a_secret_is_the_services_alone(machine: Machine) -> None:
    path = "/etc/callshield/secrets/crm.secret"
    said = machine.run(f"runuser -u callshield -- cat {path}", check=False)
    assert "Permission denied" in said.stdout
    assert "ok      webhooks" in machine.run("callshieldctl doctor", check=False).stdout
    # Negative control: without the credential the same command is refused the file.
    program = "/opt/callshield/current/.venv/bin/callshield"
    said = machine.run(
        f"cd /etc/callshield && runuser -u callshield -- {program} doctor", check=False
    )
    assert "crm.secret" in said.stdout
    assert "Permission denied" in said.stdout


async def test_take_a_call(machine: Machine, tmp_path: Path) -> None:
    before = verified(machine)["events"]
    async with running_call(machine, tmp_path) as (caller, agent):
        await asyncio.sleep(8)  # the notice, and some words
        await caller.command("hangup")
        await agent.wait("CALL_CLOSED")
        await until(machine, "StatusText", "ready, 0 calls")
    found = verified(machine)
    assert found["faults"] == []
    assert int(str(found["events"])) > int(str(before))


async def test_back_up(machine: Machine) -> None:
    said = block(machine, "backup")
    assert ".jsonl.gz" in said
    assert "as they were written" in said
    assert machine.run("stat -c %a:%U /var/backups/callshield/*.gz").stdout == "600:callshield\n"
    # systemd's own cleaning, as its daily timer calls it: old ones go, this one stays.
    kept = machine.run("ls /var/backups/callshield").stdout
    machine.run("touch -d '15 days ago' /var/backups/callshield/old.jsonl.gz")
    machine.run("systemd-tmpfiles --clean callshield.conf")
    assert machine.run("ls /var/backups/callshield").stdout == kept
    timers = machine.run("systemctl list-timers --no-pager callshield-backup.timer").stdout
    assert "callshield-backup.service" in timers
    machine.run("gpg --batch --quiet --passphrase '' --quick-generate-key ops@example.com")
    block(machine, "offsite", RECIPIENT="ops@example.com")
    back = machine.run(
        "gpg --batch --quiet --decrypt /root/store.gpg | gzip -dc | head -c 300"
    ).stdout
    assert "callshield_backup" in back
    assert (
        "etc/callshield/callshield.toml"
        in machine.run("gpg --batch --quiet --decrypt /root/etc.gpg | tar -tz").stdout
    )
    block(machine, "recording-key")
    assert machine.run("stat -c %a:%U /etc/callshield/recording.keys").stdout == "600:callshield\n"


async def test_break_the_store_and_restore_it(machine: Machine) -> None:
    backup = machine.run("ls /var/backups/callshield/*.gz | tail -n 1").stdout.strip()
    was = verified(machine)
    machine.run(f"systemctl stop {SERVICE}")
    machine.run(
        "cd /var/lib/callshield && dd if=/dev/urandom of=callshield.sqlite3 bs=4096 seek=1 "
        "count=40 conv=notrunc status=none && rm -f callshield.sqlite3-*"
    )
    said = machine.run("callshieldctl audit verify", check=False)
    assert said.returncode != 0
    restored = block(machine, "restore", BACKUP=backup)
    assert "head before" in restored
    assert "as they were written" in restored
    await until(machine, "StatusText", "ready, 0 calls")
    found = verified(machine)
    assert found["faults"] == []
    assert int(str(found["events"])) > 0
    # A head that was noted elsewhere is still in the chain; one that never was, is not.
    noted = f"{was['last_id']}:{was['hash']}"
    told = machine.run(f"callshieldctl audit verify --head {noted}", check=False)
    assert told.returncode in (0, 1), told.stdout  # the backup is older than this note
    forged = machine.run(f"callshieldctl audit verify --head 1:{'0' * 64}", check=False)
    assert forged.returncode == 1
    machine.run("test -e /var/lib/callshield/aside/callshield.sqlite3")


async def test_upgrade_with_a_call_that_may_end(machine: Machine, tmp_path: Path) -> None:
    block(machine, "fetch-new", network=True)
    async with running_call(machine, tmp_path) as (caller, agent):
        upgrading = asyncio.create_task(asyncio.to_thread(block, machine, "upgrade"))
        await until(machine, "ActiveState", "deactivating")
        await asyncio.sleep(5)
        assert not [e for e in caller.events if e.get("type") == "CALL_CLOSED"]
        await caller.command("hangup")
        await agent.wait("CALL_CLOSED")
        said = await upgrading
    assert "as they were written" in said
    assert NEW in machine.run("callshieldctl --version").stdout
    assert _has_probe(machine)


def _has_probe(machine: Machine) -> bool:
    """The table that only the newer version's migration makes."""
    script = """python3 - <<'PYTHON'
import sqlite3
store = sqlite3.connect("/var/lib/callshield/callshield.sqlite3")
print(len(store.execute("select 1 from sqlite_master where name='upgrade_probe'").fetchall()))
PYTHON"""
    return machine.run(script).stdout.strip() == "1"


async def test_the_older_version_refuses_the_newer_store(machine: Machine) -> None:
    """Why rolling back needs the backup: negative control."""
    machine.run(f"systemctl stop {SERVICE}")
    old = f"/opt/callshield/releases/{OLD}/.venv/bin/callshield"
    said = machine.run(
        f"cd /etc/callshield && runuser -u callshield -- {old} backup /tmp/x.gz", check=False
    )
    assert said.returncode == 2, said.stdout
    assert "was written by another version of Callshield" in said.stdout
    machine.run(f"systemctl start {SERVICE}")


async def test_roll_back(machine: Machine) -> None:
    backup = machine.run("ls /var/backups/callshield/*.gz | tail -n 1").stdout.strip()
    said = block(machine, "roll-back", BACKUP=backup)
    assert "as they were written" in said
    assert NEW not in machine.run("callshieldctl --version").stdout
    assert not _has_probe(machine)
    await until(machine, "StatusText", "ready, 0 calls")
    machine.run(f"test -e /var/lib/callshield/aside-{NEW}/callshield.sqlite3")


async def test_a_stop_lets_a_call_end_and_then_cuts_it(machine: Machine, tmp_path: Path) -> None:
    async with running_call(machine, tmp_path) as (caller, _):
        begun = time.monotonic()
        stopping = asyncio.create_task(
            asyncio.to_thread(machine.run, f"systemctl stop {SERVICE}", timeout_s=200)
        )
        await until(machine, "StatusText", "stopping; 1 call may end by themselves")
        await asyncio.sleep(10)
        assert not [e for e in caller.events if e.get("type") == "CALL_CLOSED"]
        await caller.wait("CALL_CLOSED", timeout_s=60)
        assert 25 < time.monotonic() - begun < 60  # node.stop_timeout_s is 30
        await stopping
    assert machine.show(SERVICE, "Result")["Result"] == "success"


async def test_the_supervisors_death_ends_no_call_and_a_new_node_follows(
    machine: Machine, tmp_path: Path
) -> None:
    async with running_call(machine, tmp_path) as (caller, agent):
        pid = int(machine.show(SERVICE, "MainPID")["MainPID"])
        restarts = int(machine.show(SERVICE, "NRestarts")["NRestarts"])
        machine.run(f"kill -9 {pid}")
        await asyncio.sleep(10)
        assert not [e for e in (*caller.events, *agent.events) if e.get("type") == "CALL_CLOSED"]
        await caller.command("hangup")
        await agent.wait("CALL_CLOSED")
        await until(machine, "NRestarts", str(restarts + 1), 90)
        await until(machine, "StatusText", "ready, 0 calls")


async def test_a_bridge_that_hangs_is_restarted_and_the_node_is_not(machine: Machine) -> None:
    restarts = machine.show(SERVICE, "NRestarts")
    pid, cursor = part(machine, "sipbridge.process"), machine.cursor()
    machine.run(f"kill -STOP {pid}")
    async with asyncio.timeout(60):
        while is_alive(machine, pid):  # noqa: ASYNC110 # systemd tells nobody outside
            await asyncio.sleep(0.5)
    assert '"event": "process_hung"' in machine.journal(SERVICE, since_cursor=cursor)
    await until(machine, "StatusText", "ready, 0 calls")
    assert machine.show(SERVICE, "NRestarts") == restarts


async def test_a_supervisor_that_hangs_is_found_by_the_watchdog(machine: Machine) -> None:
    restarts = int(machine.show(SERVICE, "NRestarts")["NRestarts"])
    pid, cursor = int(machine.show(SERVICE, "MainPID")["MainPID"]), machine.cursor()
    machine.run(f"kill -STOP {pid}")
    begun = time.monotonic()
    await until(machine, "NRestarts", str(restarts + 1), 150)
    assert time.monotonic() - begun > 25
    assert (
        "Watchdog timeout"
        in machine.run(f"journalctl -o cat -u {SERVICE} --after-cursor='{cursor}'").stdout
    )
    await until(machine, "StatusText", "ready, 0 calls")


async def test_real_time_is_had_where_the_machine_gives_it(machine: Machine) -> None:
    """LimitRTPRIO needs a manager that may raise limits, which this test's machine may not; a
    capability does it everywhere, and nothing else of the unit stands in its way."""
    cursor = machine.cursor()
    machine.run(
        "mkdir -p /run/systemd/system/callshield.service.d && printf '[Service]\\n"
        "AmbientCapabilities=CAP_SYS_NICE\\nCapabilityBoundingSet=CAP_SYS_NICE\\nPrivateUsers=no\\n'"
        " > /run/systemd/system/callshield.service.d/realtime.conf && systemctl daemon-reload"
    )
    await restart(machine)
    assert '"scheduling": "realtime"' in machine.journal(SERVICE, since_cursor=cursor)
    assert machine.show(SERVICE, "LimitRTPRIO")["LimitRTPRIO"] == "10"


def test_every_block_of_the_page_was_run() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in blocks() if f'"{name}"' not in text] == []


def test_a_block_that_fails_is_told(machine: Machine) -> None:
    """Negative control of the runner itself."""
    with pytest.raises(MachineError, match="status 1"):
        machine.run("false\ntrue")
