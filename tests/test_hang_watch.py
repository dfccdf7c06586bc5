"""Which parts hang, by a clock of the test's own; what systemd is told, by a socket of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from callshield import heartbeat
from callshield.hang_watch import HangWatch
from callshield.loop_guard import LoopGuard
from callshield.processor_wait import ProcessorWait
from callshield.sd_notify import SdNotify


def looked(watch: HangWatch, until: float, *, begun: float = 0.0) -> list[tuple[float, str]]:
    """Looks once a second; when each part was found to hang."""
    found, now = [], begun
    while now < until:
        now += 1.0
        found += [(now, name) for name, _ in watch.look(now)]
    return found


def test_a_silent_part_is_found_once_and_in_its_time() -> None:
    watch = HangWatch(0.0)
    watch.started("media", 0.0, patience_s=60, first_s=120, vital=True)
    watch.started("detector", 0.0, patience_s=20, first_s=120, vital=False)
    for name in ("media", "detector"):
        watch.beat(name, 0.5)
    assert looked(watch, 100) == [(21.0, "detector"), (61.0, "media")]


def test_a_part_that_beats_is_never_found() -> None:
    watch = HangWatch(0.0)
    watch.started("media", 0.0, patience_s=20, first_s=120, vital=True)
    for now in range(1, 500):
        watch.beat("media", now)
        assert watch.look(now) == []


def test_a_start_takes_its_time_but_not_for_ever() -> None:
    watch = HangWatch(0.0)
    watch.started("notifier", 0.0, patience_s=20, first_s=120, vital=True)
    assert looked(watch, 200) == [(121.0, "notifier")]


def test_an_end_is_no_hang() -> None:
    watch = HangWatch(0.0)
    watch.started("notifier", 0.0, patience_s=20, first_s=120, vital=True)
    watch.beat("notifier", 1.0)
    watch.ended("notifier")
    assert looked(watch, 300) == []


def test_the_time_in_which_the_supervisor_stood_still_does_not_count() -> None:
    """A machine that was paused for a minute: the beats of that minute were never written."""
    watch = HangWatch(0.0)
    watch.started("media", 0.0, patience_s=20, first_s=120, vital=True)
    watch.beat("media", 9.5)
    assert looked(watch, 10) == []
    assert watch.look(70.0) == []
    assert looked(watch, 100, begun=70.0) == [(90.0, "media")]


def test_only_a_vital_part_that_stays_silent_makes_it_hopeless() -> None:
    watch = HangWatch(0.0)
    watch.started("bridge", 0.0, patience_s=20, first_s=120, vital=True)
    watch.started("detector", 0.0, patience_s=20, first_s=120, vital=False)
    watch.beat("bridge", 0.0)
    watch.beat("detector", 0.0)
    assert len(looked(watch, 21)) == 2
    assert watch.hopeless(50.0, within_s=30) == []
    assert watch.hopeless(52.0, within_s=30) == ["bridge"]
    # Killed and started anew: as long as the new one does not beat either, nothing is well.
    watch.ended("bridge")
    watch.started("bridge", 53.0, patience_s=20, first_s=120, vital=True)
    assert watch.hopeless(54.0, within_s=30) == ["bridge"]
    watch.beat("bridge", 55.0)
    assert watch.hopeless(99.0, within_s=30) == []


def test_a_part_that_the_machine_does_not_let_run_is_not_found() -> None:
    """Two processors and twenty processes that want them: late is not hung."""
    watch = HangWatch(0.0)
    watch.started("bridge", 0.0, patience_s=20, first_s=40, vital=True)
    found = []
    for now in range(1, 300):
        watch.forgive("bridge", now, 0.9)
        found += [(now, name) for name, _ in watch.look(now)]
    assert found == []
    # A second of the machine's is no more than a second, and hangs are found all the same.
    watch.beat("bridge", 300.0)
    watch.forgive("bridge", 300.5, 100.0)
    assert looked(watch, 330, begun=300) == [(321.0, "bridge")]
    watch.forgive("bridge", 400.0, 60.0)
    assert watch.hopeless(401.0, within_s=30) == []
    assert watch.hopeless(412.0, within_s=30) == ["bridge"]


_WORK = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@contextmanager
def on_one_processor(*priorities: int) -> Iterator[list[int]]:
    """Processes that want the same processor all the time, the last of them last in turn."""
    processor = min(os.sched_getaffinity(0))
    processes = [subprocess.Popen([sys.executable, "-c", _WORK]) for _ in priorities]
    try:
        for process, priority in zip(processes, priorities, strict=True):
            os.sched_setaffinity(process.pid, {processor})
            os.setpriority(os.PRIO_PROCESS, process.pid, priority)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def waited_of(pid: int, enough_s: float, within_s: float) -> float:
    wait, found, end = ProcessorWait(pid), 0.0, time.monotonic() + within_s
    while found < enough_s and time.monotonic() < end:
        time.sleep(0.1)
        found += wait.more()
    return found


def test_waiting_for_a_processor_is_seen() -> None:
    lowest = os.getpriority(os.PRIO_PROCESS, 0)
    with on_one_processor(lowest, lowest, 19) as pids:
        assert waited_of(pids[-1], 1.0, 60) >= 1.0
        # Negative control: one that is stopped waits for nothing, which is what a hang looks like.
        os.kill(pids[-1], signal.SIGSTOP)
        os.waitid(os.P_PID, pids[-1], os.WSTOPPED)
        waited_of(pids[-1], 1.0, 0.2)
        assert waited_of(pids[-1], 0.1, 2.0) < 0.1
    assert ProcessorWait(pids[-1]).more() == 0.0  # it is gone


def test_a_loop_that_stands_still_is_ended_and_says_where() -> None:
    script = (
        "import time\nfrom callshield.loop_guard import LoopGuard\n"
        "def stands_still(): time.sleep(60)\n"
        "guard = LoopGuard(2.0)\n"
        "for _ in range(20): guard.turn(); time.sleep(0.2)\n"
        "print('turned', flush=True)\nstands_still()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (1, "turned\n")
    assert "in stands_still" in done.stderr


def test_a_process_that_was_stopped_is_not_ended_for_it() -> None:
    """What a timer in its place would do at the moment when it goes on."""
    script = (
        "import sys, time\nfrom callshield.loop_guard import LoopGuard\n"
        "guard = LoopGuard(2.0)\nguard.turn()\nprint('up', flush=True)\n"
        "for _ in range(25): guard.turn(); time.sleep(0.1)\n"
        "print('still here', flush=True)\nguard.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3.5)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "still here\n"
        assert process.wait(60) == 0


def test_no_patience_means_for_ever() -> None:
    ended: list[bool] = []
    guard = LoopGuard(0, lambda: ended.append(True))
    guard.close()
    assert ended == []


class Manager:
    """A service manager's socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_is_said(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@callshield-{os.getpid()}"
    manager = Manager(address)
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "HOME": "/"}
    service = SdNotify.take(environment)
    assert environment == {"HOME": "/"}  # nobody else is to speak for the node
    assert service.watchdog_s == 30.0
    service.status("starting\nup")
    service.status("starting up")
    service.ready()
    service.feed()
    service.extend(2.5)
    assert manager.heard() == [
        "STATUS=starting up",
        "READY=1",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
    ]
    service.close()
    manager.socket.close()


def test_facts_wait_for_a_manager_that_is_away_and_beats_do_not(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    service = SdNotify(address, 30.0)
    service.status("starting")
    service.ready()
    service.feed()
    manager = Manager(address)
    service.status("ready, 0 calls")
    assert manager.heard() == ["STATUS=ready, 0 calls\nREADY=1"]
    service.flush()
    assert manager.heard() == []
    service.close()
    manager.socket.close()


def test_without_a_manager_nothing_is_sent_and_nobody_is_fed() -> None:
    service = SdNotify.take({})
    assert service.watchdog_s is None
    service.ready()
    service.feed()
    other = SdNotify.take({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    assert other.watchdog_s is None  # meant for another process
    other.close()


async def test_a_beat_that_nobody_hears_is_the_supervisors_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the kernel's signal came too early to be heard."""
    reading, writing = os.pipe()
    monkeypatch.setenv(heartbeat.VARIABLE, str(writing))
    gone = asyncio.Event()
    heartbeat.beat(asyncio.get_running_loop(), lambda: 7, gone.set)
    assert os.read(reading, 10) == b"7\n"
    assert not gone.is_set()
    os.close(reading)
    await asyncio.wait_for(gone.wait(), 30)
    os.close(writing)


def test_a_process_by_itself_has_nobody_to_beat_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(heartbeat.VARIABLE, raising=False)
    assert not heartbeat.is_supervised()
    monkeypatch.setenv(heartbeat.VARIABLE, "17")
    assert heartbeat.is_supervised()
