"""Lanes: who runs what, what they keep from each other, and what becomes of one that dies."""

from __future__ import annotations

import ast
import heapq
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from callshield import free_ports
from tests.lanes.isolation import left_running, namespaces_allowed, port_slice
from tests.lanes.plan import (
    Job,
    Ledger,
    Neighbours,
    Plan,
    jobs_of,
    read_seconds,
    write_seconds,
)

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests/lanes/neighbours.toml"
#: Three processes start in turn, and there may be no room for them.
pytestmark = pytest.mark.timeout(300)


def job(file: str, seconds: float, kind: str = "free") -> Job:
    return Job(file, kind, (f"{file}::test",), seconds)  # type: ignore[arg-type]


def wall_s(jobs: Sequence[Job], lanes: int) -> tuple[float, dict[int, list[Job]]]:
    """How long so many lanes would take, and what each did, if all took what was measured."""
    plan = Plan(jobs, heavy_lane=1)
    at = [(0.0, lane) for lane in range(1, lanes + 1)]
    did: dict[int, list[Job]] = {lane: [] for _, lane in at}
    end = 0.0
    while at:
        now, lane = heapq.heappop(at)
        end = max(end, now)
        if (following := plan.next(lane)) is not None:
            did[lane].append(following)
            heapq.heappush(at, (now + following.seconds, lane))
    assert plan.left() == []
    return end, did


# ------------------------------------------------------------------------------ who runs what


def test_lanes_end_at_about_the_same_time() -> None:
    """Longest first is within a third of the best there is (Graham 1969)."""
    jobs = [job(f"f{number}", 1 + number**2 % 37) for number in range(60)]
    took, did = wall_s(jobs, 4)
    assert took < 1.05 * sum(one.seconds for one in jobs) / 4
    assert sorted(one.file for lane in did.values() for one in lane) == sorted(
        one.file for one in jobs
    )


def test_what_nobody_measured_would_end_late() -> None:
    """Negative control: in the order of their names a long file at the end keeps all waiting."""
    seconds = {f"f{number:02}": 1.0 for number in range(40)} | {"z": 20.0}
    tests = [f"{file}::test" for file in seconds]
    measured, _ = wall_s(jobs_of(tests, Neighbours(), seconds), 4)
    assert measured == 20
    lanes = [0.0] * 4
    for one in jobs_of(tests, Neighbours(), {}):
        heapq.heapreplace(lanes, lanes[0] + seconds[one.file])
    assert max(lanes) == 30


def test_heavy_jobs_are_one_lanes_and_come_first() -> None:
    jobs = [job("h1", 5, "heavy"), job("a", 50), job("h2", 9, "heavy"), job("b", 3), job("c", 3)]
    _, did = wall_s(jobs, 3)
    assert [one.file for one in did[1][:2]] == ["h2", "h1"]
    assert not {"h1", "h2"} & {one.file for one in did[2] + did[3]}


def test_a_word_about_a_test_goes_before_one_about_its_file() -> None:
    neighbours = Neighbours(
        alone={"t/a.py::test_pace": "judges pace", "t/b.py": "a ratio"},
        heavy={"t/a.py": "Chromium"},
    )
    tests = ["t/a.py::test_one", "t/a.py::test_pace[8]", "t/a.py::test_pace[16]", "t/c.py::test"]
    jobs = jobs_of([*tests, "t/b.py::C::test[x::y]"], neighbours, {"t/a.py": 30.0})
    assert [(one.file, one.kind, len(one.tests)) for one in jobs] == [
        ("t/a.py", "heavy", 1),
        ("t/a.py", "alone", 2),
        ("t/c.py", "free", 1),
        ("t/b.py", "alone", 1),
    ]
    assert [one.seconds for one in jobs] == [10, 20, 30, 30]  # unknown: the median


def test_what_a_dead_lane_left_comes_next() -> None:
    plan = Plan([job("a", 9), job("b", 8), job("h", 1, "heavy")], heavy_lane=1)
    assert plan.next(2) == job("a", 9)
    plan.again(job("a", 9))
    plan.again(job("h2", 1, "heavy"))
    assert [plan.next(1), plan.next(1), plan.next(2)] == [
        *(job("h2", 1, "heavy"), job("h", 1, "heavy"), job("a", 9)),
    ]


def test_the_ledger_finds_what_was_lost_and_what_was_run_twice() -> None:
    ledger = Ledger(["a", "b", "c"])
    for test in ("a", "b", "b", "z"):
        ledger.ended(test)
    assert list(ledger.wrong()) == ["b", "c", "z"]
    ledger = Ledger(["a", "b"])
    for test in ("b", "a"):
        ledger.ended(test)
    assert ledger.wrong() == {}


def names_in(path: Path) -> set[str]:
    """Test functions of a file, also those in classes (``Class::test``)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in tree.body if isinstance(node, functions)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, functions)}
    return {name for name in found if name.rpartition("::")[2].startswith("test")}


def strangers(names: Sequence[str]) -> list[str]:
    """Those that name no test file, or no test in it."""
    found = []
    for name in names:
        file, _, test = name.partition("::")
        if not (ROOT / file).is_file() or (test and test not in names_in(ROOT / file)):
            found.append(name)
    return found


def test_everybody_in_the_list_of_neighbours_exists() -> None:
    neighbours = Neighbours.read(LIST)
    assert strangers([*neighbours.alone, *neighbours.heavy]) == []


def test_a_name_that_does_not_exist_is_found() -> None:
    """Negative control."""
    wrong = ["tests/test_gone.py", "tests/test_lanes.py::test_gone"]
    right = ["tests/test_lanes.py::test_a_name_that_does_not_exist_is_found"]
    assert strangers([*wrong, *right]) == wrong


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[alone]\na = ''", "say why a"),
        ("[alone]\na = 'x'\n[heavy]\na = 'y'", "both alone and heavy"),
        ("[aloone]\na = 'x'", "aloone"),
    ],
)
def test_a_list_that_says_no_reason_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "neighbours.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        Neighbours.read(path)


def test_seconds_are_put_over_what_was_measured_before(tmp_path: Path) -> None:
    path = tmp_path / "seconds.toml"
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).touch()
    write_seconds(path, {"b.py": 2.0, "a.py": 1.04}, tmp_path)
    (tmp_path / "b.py").unlink()
    write_seconds(path, {"c.py": 3.0}, tmp_path)
    assert read_seconds(path) == {"a.py": 1.0, "c.py": 3.0}
    assert read_seconds(tmp_path / "none.toml") == {}


# ------------------------------------------------------------------------------ live lanes

#: Of every suite below: a test that tells whom it was beside.
KIT = '''
import os, pathlib, time

HERE = pathlib.Path(__file__).parent
(RUNNING := HERE / "running").mkdir(exist_ok=True)


def meet(name, wait_s):
    """Run until somebody else does, or for so long; all who were seen are written down."""
    mine, seen, end = RUNNING / name, set(), time.monotonic() + wait_s
    mine.touch()
    while True:
        seen |= {path.name for path in RUNNING.iterdir()} - {name}
        if time.monotonic() > end or (seen and wait_s > 1):
            break
        time.sleep(0.02)
    time.sleep(0.1)  # so that the other sees us too
    mine.unlink()
    (HERE / f"{name}.met").write_text(" ".join(sorted(seen)))
'''
MEETING = "from kit import meet\ndef test_{name}():\n    meet('{name}', {wait_s})\n"


@dataclass
class Outcome:
    """What a run of lanes printed, and its exit status."""

    status: int
    text: str
    folder: Path

    @property
    def closing(self) -> str:
        return self.text.strip().splitlines()[-1]

    def met(self, name: str) -> set[str]:
        return set((self.folder / f"{name}.met").read_text().split())


def write_suite(folder: Path, neighbours: str = "", **files: str) -> None:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    (folder / "kit.py").write_text(KIT)
    (folder / "neighbours.toml").write_text(neighbours)
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)


def command(folder: Path, *arguments: str, module: str = "tests.lanes") -> list[str]:
    return [
        *(sys.executable, "-m", module, str(folder), f"--rootdir={folder}"),
        *("-c", str(folder / "pytest.ini"), f"--basetemp={folder / 'base'}"),
        *("-p", "no:cacheprovider", *arguments),
    ]


def lanes_of(folder: Path, *arguments: str) -> list[str]:
    here = (f"--neighbours={folder / 'neighbours.toml'}", f"--seconds={folder / 'seconds.toml'}")
    return command(folder, *here, *arguments)


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    # The plugins of the real suite take seconds to import, three times a test.
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(arguments: Sequence[str], folder: Path) -> Outcome:
    process = start(arguments)
    text, _ = process.communicate()
    return Outcome(process.returncode, text, folder)


def meeting(**names: float) -> dict[str, str]:
    return {name: MEETING.format(name=name, wait_s=wait_s) for name, wait_s in names.items()}


def test_alone_and_heavy_tests_have_the_neighbours_they_may_have(tmp_path: Path) -> None:
    files = meeting(free1=60, free2=60, heavy1=0.5, heavy2=0.5, alone1=0.5, alone2=0.5)
    files["skipped"] = "import pytest\n@pytest.mark.skip(reason='no need')\ndef test(): pass\n"
    alone = "'test_alone1.py' = 'pace'\n'test_alone2.py::test_alone2' = 'pace'\n"
    heavy = "'test_heavy1.py' = 'Chromium'\n'test_heavy2.py' = 'Chromium'\n"
    write_suite(tmp_path, f"[alone]\n{alone}[heavy]\n{heavy}", **files)
    outcome = run(lanes_of(tmp_path, "--lanes=3", "--record-seconds"), tmp_path)
    assert outcome.status == 0, outcome.text
    assert outcome.met("free1")  # the lanes do run beside each other
    assert not outcome.met("alone1") | outcome.met("alone2")
    assert not (outcome.met("heavy1") | outcome.met("heavy2")) & {"heavy1", "heavy2"}
    assert re.fullmatch(r"=+ 6 passed, 1 skipped in [\d.]+s =+", outcome.closing)
    assert re.search(
        r"lane [123]: test_free1.py: 1 passed in [\d.]+ s \[\d/7, \d+ %\]", outcome.text
    )
    assert "test_skipped.py:2: no need" in outcome.text
    measured = read_seconds(tmp_path / "seconds.toml")
    assert measured["test_alone1.py"] >= 0.5
    assert "test_skipped.py" not in measured


def test_without_the_list_they_would_meet(tmp_path: Path) -> None:
    """Negative control."""
    write_suite(tmp_path, **meeting(alone1=60, heavy1=60))
    outcome = run(lanes_of(tmp_path, "--lanes=2"), tmp_path)
    assert outcome.status == 0, outcome.text
    assert outcome.met("alone1") == {"heavy1"}
    assert outcome.met("heavy1") == {"alone1"}


CRASH = """
import os, signal, subprocess, sys, warnings
def test_before(): warnings.warn("worn out")
def test_crash():
    subprocess.Popen(["sleep", "600"])
    print("the last thing said", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
"""
FAILS = """
import pytest
@pytest.fixture
def broken():
    yield 1
    raise RuntimeError("cannot tidy up")
def test_fails():
    print("said before")
    one = 1
    assert one == 2, "it is not"
def test_error(broken): pass
"""


def test_a_lane_that_is_killed_fails_the_run_and_names_the_test(tmp_path: Path) -> None:
    write_suite(tmp_path, crash=CRASH, fails=FAILS, fine="def test_fine(): pass\n")
    outcome = run(lanes_of(tmp_path, "--lanes=2", "--durations=2"), tmp_path)
    assert outcome.status == 1
    assert re.search(r"lane \d was killed by SIGKILL in test_crash.py::test_crash", outcome.text)
    assert "FAILED test_fails.py::test_fails (call)\n  AssertionError: it is not" in outcome.text
    # Its neighbours in the file, before it and after it, were run all the same.
    assert re.search(r"= 2 failed, 4 passed, 1 warning, 1 error in [\d.]+s", outcome.closing)
    assert "FAILED test_crash.py::test_crash" in outcome.text
    assert re.search(r"lane \d left running, now killed: \d+ sleep 600", outcome.text)
    # Failures in full, and what else pytest says at the end.
    for words in ("assert one == 2", "said before", "cannot tidy up", "worn out", "slowest 2"):
        assert words in outcome.text, words


#: What the plugins of a lane, or a fault of the lanes themselves, could do to a test.
MEDDLES = """
import os, pathlib, sys
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    if pathlib.Path(sys.argv[0]).name != "lane.py":
        return None
    if item.name == "test_twice":
        runtestprotocol(item, log=True, nextitem=nextitem)
    return True if item.name == "test_lost" else None
"""
ONLY_COLLECTED = """
import pathlib, sys
if pathlib.Path(sys.argv[0]).name != "lane.py":
    def test_gone(): pass
def test_here(): pass
"""


@pytest.mark.parametrize(
    ("name", "words", "closing"),
    [
        ("lost", "no lane has run this test", "1 failed, 1 passed"),
        ("twice", "this test was run 2 times", "1 failed, 3 passed"),
        ("once", None, "2 passed"),  # negative control
    ],
)
def test_a_test_that_is_lost_or_run_twice_fails_the_run(
    tmp_path: Path, name: str, words: str | None, closing: str
) -> None:
    fine = "def test_fine(): pass\n"
    write_suite(tmp_path, fine=fine, meddled=f"def test_{name}(): pass\n")
    (tmp_path / "conftest.py").write_text(MEDDLES)
    outcome = run(lanes_of(tmp_path, "--lanes=2"), tmp_path)
    assert outcome.status == (1 if words else 0), outcome.text
    assert closing in outcome.closing
    if words:
        assert f"FAILED test_meddled.py::test_{name} (call)\n  {words}" in outcome.text


def test_a_test_that_the_lane_does_not_find_fails_the_run(tmp_path: Path) -> None:
    write_suite(tmp_path, a=ONLY_COLLECTED, b="def test_b(): pass\n")
    outcome = run(lanes_of(tmp_path, "--lanes=2"), tmp_path)
    assert outcome.status == 1, outcome.text
    assert re.search(
        r"FAILED test_a.py::test_gone \(call\)\n  lane \d did not find this test", outcome.text
    )
    assert "1 failed, 2 passed" in outcome.closing


EXITS = """
import os
def test_before(): pass
def test_exits(): os._exit(0)
def test_after(): pass
"""


def test_a_lane_that_leaves_as_if_all_were_well_fails_the_run(tmp_path: Path) -> None:
    write_suite(tmp_path, exits=EXITS, fine="def test_fine(): pass\n")
    outcome = run(lanes_of(tmp_path, "--lanes=2"), tmp_path)
    assert outcome.status == 1, outcome.text
    assert re.search(r"lane \d ended with status 0 in test_exits.py::test_exits", outcome.text)
    assert "1 failed, 3 passed" in outcome.closing


def test_lanes_that_cannot_start_fail_every_test(tmp_path: Path) -> None:
    """Nothing is skipped quietly where no lane is left to run it."""
    write_suite(tmp_path, a="def test_a(): pass\n", b="def test_b(): pass\n")
    (tmp_path / "conftest.py").write_text(
        "import pathlib, sys\nif pathlib.Path(sys.argv[0]).name == 'lane.py': sys.exit(0)\n"
    )
    outcome = run(lanes_of(tmp_path, "--lanes=2"), tmp_path)
    assert outcome.status == 1, outcome.text
    assert "before its first test" in outcome.text
    for name in "ab":
        assert f"test_{name}.py::test_{name} (call)\n  no lane has run this test" in outcome.text


HANGS = """
import time
def test_before(): pass
def test_hangs(): {hang}
def test_after(): pass
"""


@pytest.mark.parametrize(
    ("hang", "words"),
    [
        ("time.sleep(600)", "test_hangs.py"),  # faulthandler says where it was
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "ended"),
    ],
)
def test_a_lane_that_hangs_is_ended_and_fails_the_run(
    tmp_path: Path, hang: str, words: str
) -> None:
    write_suite(tmp_path, hangs=HANGS.format(hang=hang), fine="def test_fine(): pass\n")
    outcome = run(lanes_of(tmp_path, "--lanes=2", "--lane-silence=10"), tmp_path)
    assert outcome.status == 1, outcome.text
    said = outcome.text.partition("said nothing for too long and was ended in test_hangs.py")[2]
    assert words in said
    assert "1 failed, 3 passed" in outcome.closing


def test_a_run_stops_at_the_first_failure_where_it_is_told_to(tmp_path: Path) -> None:
    fine = "".join(f"def test_{n}(): __import__('time').sleep(0.2)\n" for n in range(100))
    write_suite(tmp_path, fails=FAILS, fine=fine)
    outcome = run(lanes_of(tmp_path, "--lanes=2", "-x"), tmp_path)
    assert outcome.status == 1
    assert re.search(r"!! stopping after \d failures !!", outcome.text)
    assert "1 failed" in outcome.closing  # and by then not all of the hundred had passed
    assert not re.search(r"\d{3} passed", outcome.closing)


def test_a_file_that_cannot_be_imported_is_said_before_anything_runs(tmp_path: Path) -> None:
    write_suite(tmp_path, broken="import nothing_like_this\n", fine="def test_fine(): pass\n")
    outcome = run(lanes_of(tmp_path, "--lanes=2"), tmp_path)
    assert outcome.status == 2
    assert "nothing_like_this" in outcome.text
    assert "lane 1" not in outcome.text


def test_files_and_one_lane_are_plain_pytest(tmp_path: Path) -> None:
    write_suite(tmp_path, a="def test_a(): pass\n", b="def test_b(): pass\n")
    for arguments in (("--lanes=1",), ("-k", "test_a or test_b"), (str(tmp_path / "test_a.py"),)):
        outcome = run(lanes_of(tmp_path, *arguments), tmp_path)
        assert outcome.status == 0
        assert "lanes," not in outcome.text
        assert "test_a.py ." in outcome.text


# ------------------------------------------------------------------------------ apart

BINDS = """
import socket, time
from callshield import free_ports
from kit import HERE, meet
def test_{name}():
    meet("{name}", 60)
    (HERE / "{name}.ports").write_text(f"{{free_ports.LOWEST}} {{free_ports.HIGHEST}}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        try:
            mine.bind(("127.0.0.2", 5060))
        finally:
            (HERE / "{name}.tried").touch()
        while not (HERE / "{other}.tried").exists():
            time.sleep(0.02)
"""


def both_bind(folder: Path, network: str) -> Outcome:
    """Two tests that bind the same address and port at the same time."""
    files = {name: BINDS.format(name=name, other=other) for name, other in ("ab", "ba")}
    write_suite(folder, **files)
    return run(lanes_of(folder, "--lanes=2", f"--lane-network={network}"), folder)


def test_lanes_have_networks_of_their_own(tmp_path: Path) -> None:
    if not namespaces_allowed():
        pytest.skip("this machine gives nobody a network namespace")
    outcome = both_bind(tmp_path, "namespace")
    assert outcome.status == 0, outcome.text
    assert outcome.met("a") == {"b"}


def test_in_one_network_they_have_ports_of_their_own(tmp_path: Path) -> None:
    """And, the negative control of the test before, no address twice."""
    outcome = both_bind(tmp_path, "ports")
    assert "Address already in use" in outcome.text
    assert "1 failed, 1 passed" in outcome.closing
    (a0, a1), (b0, b1) = (
        map(int, (tmp_path / f"{name}.ports").read_text().split()) for name in "ab"
    )
    assert a1 < b0 or b1 < a0


def test_the_parts_of_the_ports_do_not_overlap() -> None:
    parts = [tuple(map(int, port_slice(part, 4).split("-"))) for part in range(4)]
    assert parts[0][0] == free_ports.LOWEST
    assert parts[-1][1] <= free_ports.HIGHEST
    assert all(end < begin for (_, end), (begin, _) in pairwise(parts))
    assert all(first % 2 == 0 for first, _ in parts)


INTERRUPTS = """
import signal, subprocess, sys
def test_interrupt():
    # Short sleeps: Python may begin one just after a signal has come, and then sleeps it through.
    wait = "import time; print(flush=True); [time.sleep(0.05) for _ in range(400)]"
    child = subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    try:
        assert child.wait(5) in (-signal.SIGINT, 1, 130)
    finally:
        child.kill()
"""


def test_tests_can_interrupt_what_they_start_also_in_the_background(tmp_path: Path) -> None:
    """What a shell without job control starts with ``&`` ignores SIGINT, and so its children."""
    write_suite(tmp_path, a=INTERRUPTS, b=INTERRUPTS)
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    outcome = run([*ignoring, *lanes_of(tmp_path, "--lanes=2")], tmp_path)
    assert outcome.status == 0, outcome.text
    # Negative control: plain pytest, started so, cannot.
    (tmp_path / "test_b.py").unlink()
    plain = run([*ignoring, *command(tmp_path, module="pytest")], tmp_path)
    assert plain.status == 1, plain.text


WAITS = """
import pytest
from kit import HERE, meet
@pytest.fixture
def tidy():
    yield
    (HERE / "{name}.tidied").touch()
def test_{name}(tidy):
    meet("{name}", 60)
    (HERE / "{name}.here").touch()
    import time; [time.sleep(0.05) for _ in range(2000)]
"""


def two_that_wait(folder: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """A run of two lanes, each in its test, and the marks of the lanes."""
    write_suite(folder, a=WAITS.format(name="a"), b=WAITS.format(name="b"))
    process = start(lanes_of(folder, "--lanes=2"))
    end = time.monotonic() + 120
    while not all((folder / f"{name}.here").exists() for name in "ab"):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    return process, [f"{process.pid}.{number}" for number in (1, 2)]


def test_an_interrupted_run_tidies_up(tmp_path: Path) -> None:
    process, lanes = two_that_wait(tmp_path)
    assert all(left_running(lane) for lane in lanes)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate()
    assert process.returncode == 2
    assert "KeyboardInterrupt" in text
    assert all((tmp_path / f"{name}.tidied").exists() for name in "ab")
    assert not any(left_running(lane) for lane in lanes)


def test_a_lane_does_not_outlive_a_killed_controller(tmp_path: Path) -> None:
    process, lanes = two_that_wait(tmp_path)
    process.kill()
    process.communicate()
    end = time.monotonic() + 120
    while any(left_running(lane) for lane in lanes):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert all((tmp_path / f"{name}.tidied").exists() for name in "ab")
