"""Release notes, from the changelog and the last release: ``./run release-notes``.

What an operator must know before an upgrade is computed, not remembered: whether the database's
tables change (migrations), which configuration keys came and went, and which packages moved.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class NotesError(Exception):
    """They cannot be written; the sentence says what to do."""


def section(changelog: str, version: str) -> str:
    """A version's part of the changelog, without its heading; *Unreleased* where it has none yet.

    Raises:
        NotesError: there is neither.
    """
    parts = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    by_title = {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts}
    for title, text in by_title.items():
        if title.split()[0].strip("[]") == version:
            return text
    if by_title.get("Unreleased"):
        return by_title["Unreleased"]
    raise NotesError(f"CHANGELOG.md has no part for {version}, nor an Unreleased one")


def keys(configuration: str) -> set[str]:
    """Keys of a generated docs/configuration.md: ``node.name`` of the table below ``[node]``."""
    found, table = set(), ""
    for line in configuration.splitlines():
        if heading := re.match(r"^#+ .*?`\[+([A-Za-z0-9_.]+)\]+`", line):
            table = heading[1]
        elif row := re.match(r"^\| `([a-z0-9_]+)` \|", line):
            found.add(f"{table}.{row[1]}")
    return found


def pins(lock: str) -> dict[str, str]:
    """Versions in a lock file."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE))


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NotesError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


def _old(ref: str, path: str) -> str:
    try:
        return _git("show", f"{ref}:{path}")
    except NotesError:
        return ""


def last_release() -> str:
    """The newest tag of a version, or empty."""
    try:
        return _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*").strip()
    except NotesError:
        return ""


def _named(title: str, words: list[str]) -> list[str]:
    return [f"- {title}: {', '.join(f'`{word}`' for word in words)}."] if words else []


def before_the_upgrade(since: str) -> list[str]:
    """Lines on what changed since a commit or tag, for whoever runs a node."""
    folder = "notifier/migrations/versions"
    here = {path.stem for path in (ROOT / folder).glob("v*.py")}
    there = {
        Path(line).stem for line in _git("ls-tree", "--name-only", since, f"{folder}/").split()
    }
    new = sorted(here - there)
    lines = [
        f"- The database's tables change ({', '.join(new)}): the node does that when it starts. "
        "Back up first; the older version cannot use the changed store (docs/operations.md)."
        if new
        else "- The database's tables do not change."
    ]
    page = "docs/configuration.md"
    now, was = keys((ROOT / page).read_text("utf-8")), keys(_old(since, page))
    lines += _named("New configuration keys", sorted(now - was))
    lines += _named("Keys that are gone, and are refused now", sorted(was - now))
    lock = "deploy/requirements.lock"
    new_pins, old_pins = pins((ROOT / lock).read_text("utf-8")), pins(_old(since, lock))
    moved = [
        f"{name} {old_pins.get(name, 'new')} → {new_pins.get(name, 'gone')}"
        for name in sorted(new_pins.keys() | old_pins.keys())
        if new_pins.get(name) != old_pins.get(name)
    ]
    lines += _named("Packages", moved)
    return lines


def notes(version: str, since: str) -> str:
    """The page.

    Raises:
        NotesError: a part cannot be found.
    """
    text = section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    head = [f"# Callshield {version}", ""]
    if since:
        head += [f"## Before you upgrade from {since}", "", *before_the_upgrade(since), ""]
    return "\n".join(head) + "\n## What changed\n\n" + text + "\n"


def main() -> int:
    """Print them; 1 where they cannot be made."""
    parser = argparse.ArgumentParser(prog="run release-notes", description=__doc__.splitlines()[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    parser.add_argument("--version", default=project["version"])
    parser.add_argument("--since", help="tag or commit of the release before; the newest tag")
    options = parser.parse_args()
    try:
        since = last_release() if options.since is None else options.since
        print(notes(options.version, since))
    except NotesError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
