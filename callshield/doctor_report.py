"""Findings on the screen, one line each as they come, or as one JSON object at the end."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.markup import escape

from callshield import __version__
from callshield.findings import Finding, Verdict

_MARKS = {
    Verdict.OK: "[green]ok     [/green]",
    Verdict.NOTE: "[yellow]note   [/yellow]",
    Verdict.PROBLEM: "[bold red]PROBLEM[/bold red]",
}


class Report:
    """Shows findings, and keeps them for the end.

    Args:
        as_json: print ``{"version", "ok", "findings": [{"verdict", "name", "detail", "advice",
            "subject"}]}`` at the end, and nothing on standard output before.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Console(highlight=False, soft_wrap=True, stderr=True)
        self._findings: list[Finding] = []
        self._subject = ""
        if not as_json:
            self._console.print(f"callshield {__version__}")

    def show(self, item: Finding | str) -> None:
        """One finding; or a sentence on what is being done, which goes to standard error."""
        if isinstance(item, str):
            self._progress.print(f"… {item}", style="dim", markup=False)
            return
        self._findings.append(item)
        if self._as_json:
            return
        console = self._console
        if item.subject != self._subject:
            self._subject = item.subject
            console.print(f"\n{item.subject}", style="bold", markup=False)
        # A name such as ``fkey[idx=2]`` is no markup.
        console.print(f"{_MARKS[item.verdict]} {escape(item.name)}: ", end="")
        console.print(item.detail, markup=False)
        if item.advice:
            console.print(f"        → {item.advice}", markup=False)
        sys.stdout.flush()

    def finish(self) -> int:
        """The exit status: 1 when there is a problem."""
        problems = sum(not finding.ok for finding in self._findings)
        if self._as_json:
            found = [finding.as_json() for finding in self._findings]
            line = {"version": __version__, "ok": not problems, "findings": found}
            print(json.dumps(line, ensure_ascii=False))
        return 1 if problems else 0
