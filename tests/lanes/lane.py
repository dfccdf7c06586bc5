"""One lane: a pytest that asks the controller for tests and tells it what came of them.

Started as ``python -m tests.lanes.lane DESCRIPTOR NETWORK PYTEST-ARGUMENT...``.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.lanes.isolation import die_with_parent, enter_namespace


class Lane:
    """The plugin that makes a pytest a lane.

    Args:
        line: to the controller. It sends jobs as ``(file, tests)`` for every "ask", and None when
            there are no more; None also in between, to stop after the running test.
    """

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._told_to_stop = False
        self._begun = False
        self._files: dict[Path, pytest.File] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """What the whole run writes or decides is the controller's: results, which tests, -x."""
        config.option.xmlpath = None
        config.option.maxfail = 0
        config.option.keyword = config.option.markexpr = ""
        config.option.deselect = None
        config.args = [argument.split("::", 1)[0] for argument in config.args]

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> pytest.CollectReport | None:
        """At first only folders and files are collected; a file is imported when its turn comes."""
        if self._begun or not isinstance(collector, pytest.File):
            return None
        self._files[collector.path] = collector
        return pytest.CollectReport(collector.nodeid, "passed", None, [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._begun = True
        while (items := self._next_file(session)) is not None:
            for number, item in enumerate(items, 1):
                if self._stopped():
                    return True
                # What follows the last one nobody knows yet; to name the session keeps its fixtures
                # up, which pytest_sessionfinish() takes down.
                following: Any = items[number] if number < len(items) else session
                self._line.send(("start", item.nodeid))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return True

    def _stopped(self) -> bool:
        while not self._told_to_stop and self._line.poll():
            self._told_to_stop = self._line.recv() is None
        return self._told_to_stop

    def _next_file(self, session: pytest.Session) -> list[pytest.Item] | None:
        """The tests of the next file; None: there is no more."""
        if self._stopped():
            return None
        self._line.send(("ask", None))
        job = self._line.recv()
        if job is None:
            return None
        file, wanted = job
        node = self._files.get(session.config.rootpath / file)
        session.items = [] if node is None else list(session.genitems(node))
        session.config.hook.pytest_collection_modifyitems(
            session=session, config=session.config, items=session.items
        )
        found = {item.nodeid: item for item in session.items}
        self._line.send(("missing", [test for test in wanted if test not in found]))
        return [found[test] for test in wanted if test in found]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self._config
        data = config.hook.pytest_report_to_serializable(config=config, report=report)
        self._line.send(("report", data))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:  # the controller could collect it
            self._line.send(("error", report.longreprtext))

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._config = session.config

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        if when == "runtest":  # what collecting warns of, the controller has seen
            about = (
                warning_message.category.__name__,
                str(warning_message.message),
                warning_message.filename,
                warning_message.lineno,
                nodeid,
                location,
            )
            self._line.send(("warning", about))


def main(descriptor: int, network: str, arguments: list[str]) -> int:
    """Run until the controller has no more."""
    os.set_inheritable(descriptor, False)
    # What is started in the background ignores SIGINT, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent()
    if network == "namespace":
        enter_namespace()
    line = Connection(descriptor)
    plugins: list[Any] = [Lane(line)]
    status = int(pytest.main(arguments, plugins=plugins))
    line.send(("end", status))
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
