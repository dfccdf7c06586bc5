"""Bill of materials, advisories and release notes: what they find, and what they must not hide."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parent.parent
LOCK = "idna==3.4 --hash=sha256:{0}\nsix==1.16.0 --hash=sha256:{0}\n".format("0" * 64)


def tool(name: str) -> ModuleType:
    """A module of ``deploy/release/``, which is no package."""
    found = importlib.util.spec_from_file_location(
        f"release_{name}", ROOT / f"deploy/release/{name}.py"
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


advisories, notes, sbom = tool("advisories"), tool("notes"), tool("sbom")


@contextmanager
def advisory_service(known: dict[str, str], status: int = 200) -> Iterator[str]:
    """A service that speaks OSV's protocol and knows one advisory for each of some packages."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = asked["package"]["name"]
            vulns = [
                {
                    "id": known[name],
                    "aliases": [f"CVE-of-{known[name]}"],
                    "summary": "made up",
                    "affected": [
                        {
                            "package": {"name": name, "ecosystem": "PyPI"},
                            "versions": [asked["version"]],
                            "ranges": [
                                {
                                    "type": "ECOSYSTEM",
                                    "events": [{"introduced": "0"}, {"fixed": "99.0"}],
                                }
                            ],
                        }
                    ],
                }
                for one in [name]
                if one in known
            ]
            body = json.dumps({"vulns": vulns} if vulns else {}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(folder: Path, url: str, accepted: str = "") -> tuple[int, str]:
    """The command itself, with the real pip-audit."""
    (folder / "some.lock").write_text(LOCK, encoding="utf-8")
    (folder / "accepted.toml").write_text(accepted, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "deploy/release/advisories.py")),
            *("--lock", str(folder / "some.lock"), "--accepted", str(folder / "accepted.toml")),
            *("-s", "osv", "--osv-url", url, "--cache-dir", str(folder / "cache")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_finding_fails_and_nothing_known_passes(tmp_path: Path) -> None:
    with advisory_service({"idna": "PYSEC-1"}) as url:
        status, said = audit(tmp_path, url)
    assert status == 1
    assert "VULNERABLE  idna 3.4: PYSEC-1 CVE-of-PYSEC-1 (fixed in: 99.0)" in said
    assert "six" not in said
    with advisory_service({}) as url:
        assert audit(tmp_path, url) == (
            0,
            "clean       some.lock: 2 packages, nothing known against any\n",
        )


def test_what_was_put_aside_passes_until_its_day(tmp_path: Path) -> None:
    entry = '[[accepted]]\nid = "CVE-of-PYSEC-1"\nreason = "never called"\nuntil = {}\n'
    with advisory_service({"idna": "PYSEC-1"}) as url:
        status, said = audit(tmp_path, url, entry.format("2999-12-31"))
        assert status == 0
        assert "until 2999-12-31: never called" in said
        status, said = audit(tmp_path, url, entry.format("2020-01-01"))
    assert status == 1
    assert "accepted until it ran out" in said


def test_nobody_to_ask_is_neither_a_finding_nor_well(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        status, said = audit(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}/v1/query")
    assert status == 3
    assert "NOT ASKED" in said
    with advisory_service({}, status=503) as url:
        assert audit(tmp_path, url)[0] == 3


def test_a_mirror_that_knows_no_advisories_is_not_taken_for_a_clean_answer() -> None:
    """pip-audit itself exits with 0 there, and says that nothing is known."""
    skipped = {"name": "six", "skip_reason": "Dependency not found on PyPI"}
    asked = {"name": "idna", "version": "3.4", "vulns": []}
    today = date(2026, 11, 23)
    assert advisories.judge({"dependencies": [skipped]}, {}, today).status == 3
    assert advisories.judge({"dependencies": [asked, skipped]}, {}, today).status == 3
    assert advisories.judge({"dependencies": []}, {}, today).status == 3
    assert advisories.judge({"dependencies": [asked]}, {}, today).status == 0


def test_accepting_takes_a_reason_and_a_last_day(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text('[[accepted]]\nid = "X"\nuntil = 2999-01-01\n', encoding="utf-8")
    with pytest.raises(ValueError, match="needs a reason"):
        advisories.accepted_until(path)
    assert advisories.accepted_until(advisories.ACCEPTED) == {}


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("sbom") / "bom.json"
    command = [sys.executable, str(ROOT / "deploy/release/sbom.py")]
    texts = []
    for _ in range(2):
        subprocess.run(
            [*command, "--python", sys.executable, "--output", str(out)], check=True, timeout=300
        )
        texts.append(out.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]  # the same input, the same bytes
    assert sbom.faults(texts[0]) == ""
    bom: dict[str, Any] = json.loads(texts[0])
    return bom


def test_the_bill_names_everything_that_runs_and_nothing_else(bill: dict[str, Any]) -> None:
    names = {component["name"].lower() for component in bill["components"]}
    assert {"pjproject", "callshield-pjsua2", "numpy", "onnxruntime", "msgspec"} <= names
    assert {"libssl3", "libsrtp2-1", "libopus0"} & names  # of Debian; Ubuntu calls one otherwise
    assert {"vocal_effort", "silero-vad", "words_ko"} <= names
    assert not {"pytest", "mypy", "ruff", "playwright", "pip-audit"} & names
    for component in bill["components"]:
        if component["type"] == "machine-learning-model":
            assert component["hashes"][0]["alg"] == "SHA-256"
        if not component["bom-ref"].startswith("deb:"):
            assert component.get("licenses"), component["name"]
    text = json.dumps(bill)
    assert "file://" not in text
    assert str(ROOT) not in text


def test_the_bill_says_who_needs_whom(bill: dict[str, Any]) -> None:
    below = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    assert any(ref.startswith("deb:libssl") for ref in below["pjproject"])
    pjsua2 = next(ref for ref in below if ref.startswith("callshield-pjsua2=="))
    assert below[pjsua2] == ["pjproject"]
    reached: set[str] = set()
    todo = [bill["metadata"]["component"]["bom-ref"]]
    while todo:
        ref = todo.pop()
        todo += [one for one in below.get(ref, []) if one not in reached]
        reached |= set(below.get(ref, []))
    assert {c["bom-ref"] for c in bill["components"]} - reached <= {"setuptools", "wheel"}


def test_a_bill_that_breaks_the_schema_is_told(bill: dict[str, Any]) -> None:
    """Negative control."""
    broken = json.loads(json.dumps(bill))
    broken["components"][0]["type"] = "thing"
    assert sbom.faults(json.dumps(broken))


CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n### Added\n- b\n\n## 1.0.0 (2026-01-01)\n\n### Added\n- a\n"
)


def test_a_version_without_a_part_of_its_own_is_what_is_unreleased() -> None:
    assert notes.section(CHANGELOG, "1.0.0") == "### Added\n- a"
    assert notes.section(CHANGELOG, "1.1.0") == "### Added\n- b"
    with pytest.raises(notes.NotesError, match="no part for 2"):
        notes.section("# Changelog\n", "2")


def test_keys_and_pins_are_read() -> None:
    assert {"node.hang_timeout_s", "store.url"} <= notes.keys(
        (ROOT / "docs/configuration.md").read_text("utf-8")
    )
    assert notes.pins("uvloop==0.22.1 \\\n    --hash=x\nsqlalchemy[asyncio]==2.0\n") == {
        "uvloop": "0.22.1",
        "sqlalchemy": "2.0",
    }


def test_what_changed_since_a_commit_is_computed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    page = "## `[node]`\n\n| key | default |\n|---|---|\n| `name` | `x` |\n"
    versions = tmp_path / "notifier/migrations/versions"
    versions.mkdir(parents=True)
    (versions / "v0001_first.py").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/configuration.md").write_text(page + "| `old` | 1 |\n")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/requirements.lock").write_text("idna==1\nsix==1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    git("tag", "v1.0.0")
    (versions / "v0002_more.py").touch()
    (tmp_path / "docs/configuration.md").write_text(page + "| `new` | 1 |\n")
    (tmp_path / "deploy/requirements.lock").write_text("idna==2\nsix==1\n")
    monkeypatch.setattr(notes, "ROOT", tmp_path)
    assert notes.last_release() == "v1.0.0"
    said = "\n".join(notes.before_the_upgrade("v1.0.0"))
    assert "tables change (v0002_more)" in said
    assert "New configuration keys: `node.new`" in said
    assert "gone, and are refused now: `node.old`" in said
    assert "`idna 1 → 2`" in said
    assert "six" not in said
