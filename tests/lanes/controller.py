"""The pytest in front of the lanes: it collects, hands out, and reports what they tell it.

All that pytest says and decides at the end (failures, ``--durations``, ``--junitxml``, ``-x``, the
exit status) it does here itself: the lanes' reports go through its own hooks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

from tests.lanes.isolation import MARK, end, left_running, namespaces_allowed, port_slice
from tests.lanes.plan import (
    Job,
    Ledger,
    Neighbours,
    Plan,
    file_of,
    jobs_of,
    read_seconds,
    write_seconds,
)

OPTIONS = ("-p", "tests.lanes.options")
#: Unless told. Most tests wait, so two lanes a core; more than four in all nobody has tried.
DEFAULT_LANES = min(4, 2 * len(os.sched_getaffinity(0)))
#: Lanes that died and were replaced, in all: more, and something is wrong with the machine.
REPLACED = 8
#: For fixtures to clean up after an interrupt.
INTERRUPTED_S = 60.0
LOG_LINES = 40
#: Between asking a silent lane to say where it hangs (SIGABRT: faulthandler) and killing it.
LAST_WORDS_S = 5.0
#: For what ends by itself when its lane is gone, as multiprocessing's resource tracker does.
LEAVING_S = 2.0
#: For a lane to say its first word, on a machine that does much else.
START_S = 300.0
#: Statuses of a lane that did its work: all passed, some failed, nothing to do.
WELL = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


@dataclass
class Running:
    """A lane at work."""

    number: int
    process: subprocess.Popen[bytes]
    pid_descriptor: int
    line: Connection
    mark: str
    log: Path
    pending: dict[str, Job] = field(default_factory=dict)
    """Tests that it was given and has not finished, in order."""
    counts: dict[Job, Counter[str]] = field(default_factory=dict)
    seconds: Counter[Job] = field(default_factory=Counter)
    test: str | None = None
    """Where it is, or was last."""
    status: int | None = None
    """What its pytest said at the end."""
    heard_s: float = field(default_factory=lambda: time.monotonic() + START_S)
    """When it last said anything; at first, when it should have."""
    silent: bool = False
    """It was told to end because it had said nothing for too long."""

    @property
    def name(self) -> str:
        return f"lane {self.number}" if self.number else "alone"

    def last_lines(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-LOG_LINES:])

    def how_it_died(self) -> str:
        code = self.process.returncode
        if self.silent:
            return "said nothing for too long and was ended"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with status {code if self.status is None else self.status}"


class Controller:
    """The plugin that makes a pytest the controller of lanes.

    Args:
        arguments: as given on the command line; every lane gets the same.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._lanes = 1
        self._running: dict[int, Running] = {}
        self._replaced = 0
        self._done = 0
        self._total = 0
        self._measured: Counter[str] = Counter()
        self._ran: set[str] = set()
        self._told_to_stop = False

    def pytest_configure(self, config: pytest.Config) -> None:
        given = config.option.file_or_dir
        some_tests = config.option.keyword or any(
            "::" in arg or Path(arg).is_file() for arg in given
        )
        one_screen = config.option.usepdb or config.option.collectonly
        lanes = config.option.lanes
        if lanes is None:
            lanes = 1 if some_tests or one_screen else DEFAULT_LANES
        if lanes < 1:
            raise pytest.UsageError("--lanes: one at least")
        if lanes > 1 and config.option.usepdb:
            raise pytest.UsageError("--pdb needs a screen of its own: add --lanes 1")
        self._lanes = lanes

    # ------------------------------------------------------------------------------ the run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        config = session.config
        errors = session.testsfailed and not config.option.continue_on_collection_errors
        if self._lanes == 1 or errors or config.option.collectonly:
            return None
        self._session, self._config = session, config
        self._screen: Any = config.pluginmanager.getplugin("terminalreporter")
        # To all but the screen, which would show letters of several files in one line.
        self._logreport = config.pluginmanager.subset_hook_caller(
            "pytest_runtest_logreport", [self._screen]
        )
        self._base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        self._network = self._choose_network()
        jobs = jobs_of(
            (item.nodeid for item in session.items),
            Neighbours.read(config.option.neighbours),
            read_seconds(config.option.seconds),
        )
        self._total = len(session.items)
        self._ledger = Ledger(item.nodeid for item in session.items)
        beside = [job for job in jobs if job.kind != "alone"]
        alone = [job for job in jobs if job.kind == "alone"]
        useful = sum(job.kind == "free" for job in beside) + any(
            job.kind == "heavy" for job in beside
        )
        lanes = min(self._lanes, useful)
        self._say(
            f"{lanes} lanes, {self._network_words()}; "
            f"{sum(len(job.tests) for job in alone)} tests alone afterwards; logs in {self._base}"
        )
        try:
            self._run(beside, range(1, lanes + 1))
            self._run(alone, [0] if alone else [])
        finally:
            self._end_lanes()
        if not self._told_to_stop:
            for test, sentence in self._ledger.wrong().items():
                self._fail(test, sentence)
        if config.option.record_seconds:
            measured = {file: self._measured[file] for file in self._ran}
            write_seconds(config.option.seconds, measured, config.rootpath)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return True

    def _choose_network(self) -> str:
        wanted: str = self._config.option.lane_network
        allowed = namespaces_allowed()
        if wanted == "namespace" and not allowed:
            raise pytest.UsageError("this machine gives nobody a network namespace: be root")
        return "namespace" if allowed and wanted != "ports" else "ports"

    def _network_words(self) -> str:
        if self._network == "namespace":
            return "each with a network of its own"
        return "each with a part of the ports"

    def _run(self, jobs: list[Job], numbers: Sequence[int]) -> None:
        plan = Plan(jobs, heavy_lane=numbers[0] if numbers else 0)
        if self._told_to_stop:
            return
        for number in numbers:
            self._start(number)
        while self._running:
            lanes = list(self._running.values())
            ready = wait(
                [*(lane.line for lane in lanes), *(lane.pid_descriptor for lane in lanes)],
                timeout=1.0,
            )
            for lane in lanes:
                gone = lane.pid_descriptor in ready
                if gone or lane.line in ready:
                    self._listen(lane, plan)
                if gone:
                    self._ended(lane, plan)
                else:
                    self._end_silent(lane)
            if (self._session.shouldfail or self._session.shouldstop) and not self._told_to_stop:
                self._told_to_stop = True
                for lane in self._running.values():
                    self._tell(lane, None)

    def _start(self, number: int) -> None:
        name = f"{number}.{self._replaced}" if self._replaced else str(number)
        (temporary := self._base / f"{name}.tmp").mkdir()
        log = self._base / f"lane-{name}.log"
        mark = f"{os.getpid()}.{name}"
        environment = os.environ | {MARK: mark, "TMPDIR": str(temporary)}
        if self._network == "ports":
            # The lane alone has the first part, whose owner has ended.
            part = max(number - 1, 0)
            environment["CALLSHIELD_FREE_PORTS"] = port_slice(part, self._lanes)
        ours, theirs = Pipe()
        command = [
            *(sys.executable, "-m", "tests.lanes.lane", str(theirs.fileno()), self._network),
            *(*OPTIONS, *self._arguments),
            *(f"--basetemp={self._base / name}", "-o", f"cache_dir={self._base / name}.cache"),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=environment,
                process_group=0,  # an interrupt at the keyboard comes through us
            )
        theirs.close()
        descriptor = os.pidfd_open(process.pid)
        self._running[number] = Running(number, process, descriptor, ours, mark, log)

    # ------------------------------------------------------------------------------ one lane

    def _tell(self, lane: Running, job: Job | None) -> None:
        with contextlib.suppress(OSError):  # it died: we are about to see it
            lane.line.send(None if job is None else (job.file, job.tests))

    def _listen(self, lane: Running, plan: Plan) -> None:
        """Take everything that a lane has said."""
        try:
            while lane.line.poll():
                kind, content = lane.line.recv()
                lane.heard_s = time.monotonic()
                match kind:
                    case "ask":
                        job = None if self._told_to_stop else plan.next(lane.number)
                        if job is not None:
                            lane.pending |= dict.fromkeys(job.tests, job)
                            lane.counts[job] = Counter()
                        self._tell(lane, job)
                    case "start":
                        lane.test = content
                    case "report":
                        self._take(lane, content)
                    case "missing":
                        for test in content:
                            self._fail(test, f"{lane.name} did not find this test")
                            self._finish(lane, test)
                    case "error":
                        self._fail(lane.test or lane.name, content)
                    case "warning":
                        self._warn(*content)
                    case "end":
                        lane.status = content
        except (EOFError, ConnectionResetError):
            pass

    def _take(self, lane: Running, data: dict[str, Any]) -> None:
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        category = self._count(report)
        job = lane.pending.get(report.nodeid)
        self._measured[file_of(report.nodeid)] += report.duration
        if not report.skipped and report.when == "call":
            self._ran.add(file_of(report.nodeid))
        if job is not None:
            lane.seconds[job] += report.duration
            if category:
                lane.counts[job][category] += 1
        if report.when == "teardown":
            self._finish(lane, report.nodeid)

    def _count(self, report: pytest.TestReport) -> str:
        """Let pytest have a report; its category (passed, failed, ...)."""
        category: str
        category, _, _ = self._config.hook.pytest_report_teststatus(
            report=report, config=self._config
        )
        self._screen.stats.setdefault(category, []).append(report)
        self._logreport(report=report)
        if category in ("failed", "error"):
            # Now and not only at the end, which a run that takes too long has not.
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (report.longreprtext if crash is None else crash.message).partition("\n")[0]
            self._say(f"{category.upper()} {report.nodeid} ({report.when})\n  {reason}", red=True)
        return category

    def _finish(self, lane: Running, test: str) -> None:
        """A test is done; where it was the last of its job, say how that went."""
        self._ledger.ended(test)
        job = lane.pending.pop(test, None)
        if job is None:
            return
        self._done += 1
        if job in lane.pending.values():
            return
        counts = ", ".join(f"{number} {word}" for word, number in lane.counts[job].items())
        percent = 100 * self._done // self._total
        self._say(
            f"{lane.name}: {job.file}: {counts} in {lane.seconds[job]:.1f} s "
            f"[{self._done}/{self._total}, {percent} %]"
        )

    def _fail(self, test: str, sentence: str) -> None:
        """A failure that no lane could report."""
        file, _, name = test.partition("::")
        self._count(
            pytest.TestReport(
                nodeid=test,
                location=(file, None, name or file),
                keywords={},
                outcome="failed",
                longrepr=sentence,
                when="call",
            )
        )

    def _warn(
        self,
        category: str,
        message: str,
        filename: str,
        lineno: int,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        kind = type(category, (UserWarning,), {})
        self._config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": warnings.WarningMessage(kind(message), kind, filename, lineno),
                "when": "runtest",
                "nodeid": nodeid,
                "location": location,
            }
        )

    def _end_silent(self, lane: Running) -> None:
        """End a lane that hangs where pytest-timeout cannot interrupt it."""
        silent_s = time.monotonic() - lane.heard_s
        if not lane.silent and silent_s > self._config.option.lane_silence:
            lane.silent = True
            lane.process.send_signal(signal.SIGABRT)
        elif lane.silent and silent_s > self._config.option.lane_silence + LAST_WORDS_S:
            lane.process.kill()

    def _ended(self, lane: Running, plan: Plan) -> None:
        """A lane is gone: well, or in the middle of a test; then another takes its place."""
        lane.process.wait()
        self._forget(lane)
        if lane.status in WELL:
            return
        where = lane.test or "before its first test"
        sentence = f"{lane.name} {lane.how_it_died()} in {where}. Its last words:\n"
        self._fail(lane.test or lane.name, sentence + lane.last_lines())
        if lane.test is not None:
            self._finish(lane, lane.test)
        undone: dict[Job, list[str]] = {}
        for test, job in lane.pending.items():
            undone.setdefault(job, []).append(test)
        for job, tests in reversed(undone.items()):
            plan.again(Job(job.file, job.kind, tuple(tests), job.seconds))
        if self._replaced < REPLACED and lane.test is not None and not self._told_to_stop:
            self._replaced += 1
            self._start(lane.number)

    def _forget(self, lane: Running) -> None:
        del self._running[lane.number]
        lane.line.close()
        os.close(lane.pid_descriptor)
        until = time.monotonic() + LEAVING_S
        while (left := left_running(lane.mark)) and time.monotonic() < until:
            time.sleep(0.05)
        for pid, command in left.items():
            self._say(f"{lane.name} left running, now killed: {pid} {command}")
        end(left)

    def _end_lanes(self) -> None:
        """After an interrupt: let fixtures clean up, and go."""
        for lane in self._running.values():
            lane.process.send_signal(signal.SIGINT)
        until = time.monotonic() + INTERRUPTED_S
        for lane in list(self._running.values()):
            try:
                lane.process.wait(max(until - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                lane.process.kill()
                lane.process.wait()
            self._forget(lane)

    def _say(self, sentence: str, **markup: bool) -> None:
        self._screen.write_line(sentence, **markup)
        self._screen.flush()
