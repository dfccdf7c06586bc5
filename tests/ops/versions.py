"""A repository with two versions of Callshield: this checkout, and one that changes the tables."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from callshield import __version__

CHECKOUT = Path(__file__).parents[2]
OLD, NEW = __version__, f"{__version__}.1"
#: A table of its own: what an upgrade of the tables is, and what the older version does not know.
_MIGRATION = '''"""A change of the tables, for the runbook's test."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("upgrade_probe", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("insert into upgrade_probe (id) values (1)")


def downgrade() -> None:
    op.drop_table("upgrade_probe")
'''


def _git(folder: Path, *words: str, **variables: str) -> str:
    environment = {
        **os.environ,
        **{
            f"GIT_{who}_{what}": "ops@example.com"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        **variables,
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _head_revision() -> str:
    newest = sorted((CHECKOUT / "notifier/migrations/versions").glob("v*.py"))[-1]
    found = re.search(r'^revision(?:: str)? = "(\w+)"', newest.read_text("utf-8"), re.MULTILINE)
    assert found is not None, newest
    return found[1]


def make_repository(folder: Path) -> Path:
    """A bare repository with tags of both versions; the working tree as it is, is the older."""
    work, bare = folder / "work", folder / "callshield.git"
    _git(CHECKOUT, "clone", "--quiet", "--local", "--no-hardlinks", str(CHECKOUT), str(work))
    # What is not committed yet counts too: that is what is being tested.
    index = {"GIT_INDEX_FILE": str(folder / "index")}
    _git(CHECKOUT, "read-tree", "HEAD", **index)
    _git(CHECKOUT, "add", "--all", **index)
    tree = _git(CHECKOUT, "write-tree", **index)
    commit = _git(CHECKOUT, "commit-tree", tree, "-p", "HEAD", "-m", "as it is here")
    _git(work, "fetch", "--quiet", str(CHECKOUT), commit)
    _git(work, "checkout", "--quiet", "--detach", commit)
    _git(work, "tag", f"v{OLD}")
    migration = work / "notifier/migrations/versions/v9999_probe.py"
    migration.write_text(_MIGRATION.format(head=_head_revision()), encoding="utf-8")
    for name in ("callshield/__init__.py", "pyproject.toml"):
        path = work / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f'"{OLD}"', f'"{NEW}"', 1), encoding="utf-8")
    _git(work, "add", "--all")
    _git(work, "commit", "--quiet", "-m", "tables change")
    _git(work, "tag", f"v{NEW}")
    _git(folder, "clone", "--quiet", "--bare", str(work), str(bare))
    return bare
