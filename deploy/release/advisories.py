"""Known vulnerabilities of the locked packages: ``./run audit-dependencies``.

pip-audit asks an advisory service about every package of a lock file. It counts a package that the
service does not know as passed, and a mirror that serves files but no advisories knows none: such
an answer says nothing, and must not look like "all is well". Exit status:

- 0: every package was asked about, and nothing is known against any;
- 1: something is known (and not put aside in ``accepted.toml``);
- 3: nobody could be asked, or not about every package.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Path(__file__).with_name("accepted.toml")
CLEAN, FOUND, UNASKED = 0, 1, 3
TIMEOUT_S = 300


@dataclass
class Answer:
    """What came of one lock file."""

    asked: int = 0
    findings: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def status(self) -> int:
        if self.findings:
            return FOUND
        return UNASKED if self.trouble or self.unanswered or not self.asked else CLEAN


def accepted_until(path: Path) -> dict[str, tuple[date, str]]:
    """Advisories that were looked at and put aside: id → (last day, reason).

    Raises:
        ValueError: an entry lacks its reason or its last day.
    """
    found = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("accepted", []):
        if not isinstance(entry.get("until"), date) or not entry.get("reason"):
            raise ValueError(f"{path}: {entry.get('id')} needs a reason and a last day (until)")
        found[str(entry["id"])] = (entry["until"], str(entry["reason"]))
    return found


def judge(report: dict[str, Any], accepted: dict[str, tuple[date, str]], today: date) -> Answer:
    """Read pip-audit's JSON."""
    answer = Answer()
    for package in report.get("dependencies", []):
        if "skip_reason" in package:
            answer.unanswered.append(package["name"])
            continue
        answer.asked += 1
        for found in package.get("vulns", []):
            ids = [found["id"], *found.get("aliases", [])]
            fixed = ", ".join(found.get("fix_versions", [])) or "none yet"
            said = f"{package['name']} {package['version']}: {' '.join(ids)} (fixed in: {fixed})"
            put_aside = [accepted[one] for one in ids if one in accepted]
            if put_aside and today <= put_aside[0][0]:
                answer.accepted.append(f"{said}; until {put_aside[0][0]}: {put_aside[0][1]}")
            else:
                answer.findings.append(said + ("; accepted until it ran out" if put_aside else ""))
    return answer


def ask(lock: Path, more: Sequence[str], accepted: dict[str, tuple[date, str]]) -> Answer:
    """Run pip-audit on a lock file.

    Args:
        lock: the file; nothing is downloaded or installed.
        more: options of pip-audit, such as another service.
        accepted: advisories that were put aside.
    """
    tool = Path(sys.executable).with_name("pip-audit")
    command = [
        *(str(tool), "--requirement", str(lock), "--disable-pip", "--require-hashes"),
        *("--format", "json", "--progress-spinner", "off", "--timeout", "15", *more),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Answer(trouble=f"no answer within {TIMEOUT_S} s")
    try:
        report = json.loads(done.stdout)
    except ValueError:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return Answer(trouble=(lines or [f"pip-audit ended with status {done.returncode}"])[-1])
    return judge(report, accepted, datetime.now(UTC).date())


def main() -> int:
    """Ask, print, and return the status."""
    parser = argparse.ArgumentParser(prog="run audit-dependencies", description=__doc__)
    parser.add_argument("--lock", type=Path, action="append", help="deploy/requirements.lock")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED)
    options, more = parser.parse_known_args()
    statuses: list[int] = []
    accepted = accepted_until(options.accepted)
    for lock in options.lock or [ROOT / "deploy/requirements.lock"]:
        answer = ask(lock, more, accepted)
        for line in answer.findings:
            print(f"VULNERABLE  {line}")
        for line in answer.accepted:
            print(f"accepted    {line}")
        if answer.trouble:
            print(f"NOT ASKED   {lock.name}: {answer.trouble}")
        elif answer.unanswered:
            few = ", ".join(answer.unanswered[:3])
            print(
                f"NOT ASKED   {lock.name}: the advisory service knows nothing of "
                f"{len(answer.unanswered)} of {len(answer.unanswered) + answer.asked} packages "
                f"({few}, …): a mirror without advisories? Ask where the index itself is reached"
            )
        if answer.status == CLEAN:
            print(f"clean       {lock.name}: {answer.asked} packages, nothing known against any")
        statuses.append(answer.status)
    return next((one for one in (FOUND, UNASKED) if one in statuses), CLEAN)


if __name__ == "__main__":
    sys.exit(main())
