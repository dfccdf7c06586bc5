"""Building pjsua2: finding and checking the source, the cache, the wheel; nothing is compiled."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from callshield.errors import SetupError
from sipbridge.pjsua2_build import apt_source, cache, source, wheel
from sipbridge.pjsua2_build.apt_source import AptEntry, debian_mirrors
from sipbridge.pjsua2_build.progress import Progress
from sipbridge.pjsua2_build.stubs import stubs_of

ROOT = Path(__file__).resolve().parent.parent

DEB822 = """\
# Written by the installer.
Types: deb deb-src
URIs: http://mirror.example/debian/
 https://second.example/debian
Suites: bookworm bookworm-updates
# a comment inside a stanza
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/deb
Suites: nodistro
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFit2ioBEADhWpZ8:looks-like-a-field
 -----END PGP PUBLIC KEY BLOCK-----
"""

CLASSIC = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/vendor.gpg] https://vendor.example/debian/12 bookworm main
deb-src http://mirror.example/debian bookworm main non-free-firmware # and a remark
deb http://security.example/debian-security bookworm-security main
deb http://mirror.example/debian bookworm-backports main
deb http://broken.example
deb http://snapshot.example/archive/debian/20260101T000000Z bookworm main
deb https://docker.example/linux/debian bookworm stable
"""


# ---------------------------------------------------------------- apt's source lists


def test_deb822_stanzas_give_an_entry_per_uri_and_suite() -> None:
    entries = apt_source.parse_deb822(DEB822)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert entries[:2] == [
        AptEntry("http://mirror.example/debian/", "bookworm", ("main", "contrib"), keyring),
        AptEntry("http://mirror.example/debian/", "bookworm-updates", ("main", "contrib"), keyring),
    ]
    assert [entry.uri for entry in entries[2:]] == [
        "https://second.example/debian",
        "https://second.example/debian",
        "http://mirror.example/debian-security",
        "https://vendor.example/deb",
    ]
    assert entries[-1].signed_by == ""  # a key in the stanza is no file name


def test_classic_lines_give_an_entry_each() -> None:
    entries = apt_source.parse_classic(CLASSIC)
    assert entries[0] == AptEntry(
        "https://vendor.example/debian/12",
        "bookworm",
        ("main",),
        "/etc/apt/vendor.gpg",
    )
    assert entries[1] == AptEntry(
        "http://mirror.example/debian", "bookworm", ("main", "non-free-firmware")
    )
    assert len(entries) == 6


def test_only_debian_archives_are_asked_likeliest_first() -> None:
    assert debian_mirrors(apt_source.parse_deb822(DEB822)) == [
        "http://mirror.example/debian",
        "https://second.example/debian",
    ]
    assert debian_mirrors(apt_source.parse_classic(CLASSIC)) == [
        "http://mirror.example/debian",
        "https://vendor.example/debian/12",
        "http://snapshot.example/archive/debian/20260101T000000Z",
    ]
    ubuntu = "deb http://archive.example/ubuntu noble main universe\n"
    assert debian_mirrors(apt_source.parse_classic(ubuntu)) == []


def test_lists_are_read_as_apt_reads_them(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/debian sid main\n")
    (parts / "b.list").write_text("deb http://three.example/debian sid main\n")
    (parts / "a.sources").write_text(
        "Types: deb\nURIs: http://two.example/debian\nSuites: sid\nComponents: main\n"
    )
    (parts / "c.list.disabled").write_text("deb http://four.example/debian sid main\n")
    assert debian_mirrors(apt_source.read_entries(tmp_path)) == [
        "http://one.example/debian",
        "http://two.example/debian",
        "http://three.example/debian",
    ]


PRINT_URIS = """\
Reading package lists...
NOTICE: 'asterisk' packaging is maintained in the 'Git' version control system at:
Need to get 13.2 MB of source archives.
'http://mirror.example/a/asterisk_22%2bdfsg.orig.tar.xz' asterisk_22+dfsg.orig.tar.xz 5 SHA256:AA
'http://mirror.example/a/asterisk_22%2bdfsg.orig-Xpjproject.tar.xz' \
asterisk_22+dfsg.orig-Xpjproject.tar.xz 6775552 SHA256:6860C2F7
"""


def test_component_is_found_among_the_package_s_files() -> None:
    found = apt_source.find_component(apt_source.parse_print_uris(PRINT_URIS))
    assert found.name == "asterisk_22+dfsg.orig-Xpjproject.tar.xz"
    assert (found.size, found.digest) == (6775552, ("sha256", "6860c2f7"))


def test_component_without_a_hash_worth_checking_is_not_used() -> None:
    files = apt_source.parse_print_uris(PRINT_URIS.replace("SHA256", "MD5Sum"))
    with pytest.raises(SetupError, match=r"no SHA-256 .* give a pjproject tarball with --source"):
        apt_source.find_component(files)


def test_package_that_dropped_the_component_says_how_to_go_on() -> None:
    files = apt_source.parse_print_uris(PRINT_URIS)[:1]
    with pytest.raises(SetupError, match="no longer carries pjproject: give a"):
        apt_source.find_component(files)


# ---------------------------------------------------------------- the source


def make_tarball(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            entry.mode = 0o755 if name.endswith("configure") else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def pjproject_tarball(path: Path, version: tuple[int, int, str] = (2, 17, "")) -> Path:
    major, minor, revision = version
    return make_tarball(
        path,
        {
            "pjproject/version.mak": f"export PJ_VERSION_MAJOR  := {major}\n"
            f"export PJ_VERSION_MINOR  := {minor}\nexport PJ_VERSION_REV    := {revision}\n"
            "export PJ_VERSION_SUFFIX :=\n",
            "pjproject/configure": "#!/bin/sh\n",
            "pjproject/pjsip-apps/src/swig/pjsua2.i": "%module pjsua2\n",
        },
    )


def test_tarball_given_is_known_by_its_hash(tmp_path: Path) -> None:
    path = pjproject_tarball(tmp_path / "pj.tar.gz")
    given = source.given_source(path)
    assert given.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    top = source.unpack(given, tmp_path / "work")
    assert source.version_of(top) == "2.17"
    assert (top / "configure").stat().st_mode & 0o111
    assert not (top / "version.mak").stat().st_mode & 0o111


def test_folder_given_is_known_by_its_files_and_not_by_what_was_built_in_it(tmp_path: Path) -> None:
    given = source.given_source(pjproject_tarball(tmp_path / "pj.tar.gz"))
    folder = source.unpack(given, tmp_path / "given")
    before = source.given_source(folder).sha256
    (folder / "pjlib.o").write_text("object")
    assert source.given_source(folder).sha256 == before
    (folder / "version.mak").write_text((folder / "version.mak").read_text() + "# changed\n")
    assert source.given_source(folder).sha256 != before
    top = source.unpack(source.given_source(folder), tmp_path / "work")
    assert not (top / "pjlib.o").exists()


def test_wrong_hash_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pjproject_tarball(tmp_path / "pj.tar.gz")
    monkeypatch.setenv(source.HASH_VARIABLE, "0" * 64)
    with pytest.raises(SetupError, match=r"pj.tar.gz is not the file that was expected: .* 0{64}"):
        source.given_source(path)
    monkeypatch.setenv(source.HASH_VARIABLE, source.sha256_of_file(path).upper())
    assert source.given_source(path).path == path.resolve()
    monkeypatch.setenv(source.HASH_VARIABLE, "abc")
    with pytest.raises(SetupError, match="64 hexadecimal digits of a SHA-256; it has 3 characters"):
        source.given_source(path)


def test_source_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"There is no pjproject source at .*give a tarball"):
        source.given_source(tmp_path / "nothing.tar.gz")


def test_what_is_not_pjproject_is_refused(tmp_path: Path) -> None:
    other = make_tarball(tmp_path / "other.tar.gz", {"other/README": "hello"})
    with pytest.raises(SetupError, match=r"other.tar.gz is not a pjproject source"):
        source.unpack(source.given_source(other), tmp_path / "a")

    noise = tmp_path / "noise.tar.gz"
    noise.write_bytes(b"not a tarball")
    with pytest.raises(SetupError, match=r"noise.tar.gz cannot be unpacked"):
        source.unpack(source.given_source(noise), tmp_path / "b")

    old = pjproject_tarball(tmp_path / "old.tar.gz", (2, 14, "1"))
    with pytest.raises(SetupError, match=r"This is pjproject 2.14.1; Callshield needs 2.16"):
        source.unpack(source.given_source(old), tmp_path / "c")


def test_tarball_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("../outside", "/tmp/outside", "a/../../outside")):
        evil = make_tarball(tmp_path / f"evil{number}.tar.gz", {name: "x"})
        with pytest.raises(SetupError, match="a path outside itself"):
            source.unpack(source.given_source(evil), tmp_path / f"work{number}")
    assert not (tmp_path / "outside").exists()


def test_without_any_source_it_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        source.discover(tmp_path, etc_apt=tmp_path / "no-apt")
    message = str(caught.value)
    assert "name no Debian archive" in message
    assert "was not asked, for want of a hash" in message
    assert "./run setup --pjproject FILE" in message


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A web server in upstream's place; yields the release that it offers."""
    folder = tmp_path / "upstream"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/{{version}}.tar.gz"
    monkeypatch.setattr(source, "UPSTREAM_URL", url)
    yield pjproject_tarball(folder / f"{source.UPSTREAM_VERSION}.tar.gz")
    server.shutdown()
    server.server_close()
    thread.join()


def test_upstream_release_is_used_when_its_hash_is_known(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(source.HASH_VARIABLE, source.sha256_of_file(upstream))
    found = source.discover(tmp_path, etc_apt=tmp_path / "no-apt")
    assert found.path.read_bytes() == upstream.read_bytes()
    assert "upstream release" in found.origin


def test_upstream_release_with_another_hash_is_not_used(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(source.HASH_VARIABLE, "1" * 64)
    with pytest.raises(SetupError, match="is not the file that was expected"):
        source.discover(tmp_path, etc_apt=tmp_path / "no-apt")


def test_upstream_that_cannot_be_reached_is_a_reason_and_not_a_traceback(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.unlink()
    monkeypatch.setenv(source.HASH_VARIABLE, "1" * 64)
    with pytest.raises(SetupError, match="the upstream release could not be downloaded"):
        source.discover(tmp_path, etc_apt=tmp_path / "no-apt")


# ---------------------------------------------------------------- the cache


def test_cache_folder_follows_the_environment() -> None:
    everything = {"CALLSHIELD_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}
    assert cache.cache_folder(everything) == Path("/a")
    del everything["CALLSHIELD_CACHE"]
    assert cache.cache_folder(everything) == Path("/b/callshield")
    del everything["XDG_CACHE_HOME"]
    assert cache.cache_folder(everything) == Path("/c/.cache/callshield")
    with pytest.raises(SetupError, match="set CALLSHIELD_CACHE"):
        cache.cache_folder({})


def test_recipe_key_changes_with_the_release_of_the_system(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12.5"\n')
    key = cache.recipe_key(release)
    release.write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12.9"\n')
    assert cache.recipe_key(release) == key
    release.write_text('ID=debian\nVERSION_ID="13"\n')
    assert cache.recipe_key(release) != key


def build(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program where there is neither a compiler nor apt nor a network address."""
    return subprocess.run(
        [sys.executable, "-m", "sipbridge.pjsua2_build.build", *arguments],
        cwd=ROOT,
        env={
            "CALLSHIELD_CACHE": str(tmp_path / "cache"),
            "PATH": str(tmp_path / "no-programs"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_second_call_needs_no_network_and_no_compiler(tmp_path: Path) -> None:
    tarball = pjproject_tarball(tmp_path / "pj.tar.gz")
    kept = cache.WheelCache(tmp_path / "cache")
    built = kept.folder / "callshield_pjsua2-2.17+cs0-cp311-cp311-linux_x86_64.whl"
    built.write_bytes(b"a wheel")
    key = cache.recipe_key()
    kept.put([f"{key} {source.sha256_of_file(tarball)}", f"{key} auto"], built, "a test")

    for arguments in ((), ("--source", str(tarball)), ("--cached",)):
        result = build(tmp_path, *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"{built}\n", "")

    # The control: another source, or a damaged wheel, would have to be built, and can't be here.
    other = pjproject_tarball(tmp_path / "other.tar.gz", (2, 17, "1"))
    result = build(tmp_path, "--source", str(other))
    assert result.returncode == 1
    assert re.search(r"apt-get install build-essential swig .*libssl-dev", result.stderr)
    assert build(tmp_path, "--cached", "--source", str(other)).returncode == 3
    built.write_bytes(b"half a wh")
    assert build(tmp_path).returncode == 1


def test_damaged_index_is_an_empty_index(tmp_path: Path) -> None:
    kept = cache.WheelCache(tmp_path)
    for text in ("", "{", "[]", '{"key": "x"}', '{"key": {"wheel": "x"}}'):
        (kept.folder / "index.json").write_text(text)
        assert kept.find("key") is None


def test_cache_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match=r"cannot be made .* set CALLSHIELD_CACHE"):
        cache.WheelCache(tmp_path / "file")


class Screen(io.StringIO):
    """A stream that says when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


def test_second_set_up_waits_for_the_first(tmp_path: Path) -> None:
    kept = cache.WheelCache(tmp_path)
    screen = Screen()
    order = []

    def second() -> None:
        with cache.WheelCache(tmp_path).locked(Progress(1, screen)):
            order.append("second")

    with kept.locked(Progress(1, quiet=True)):
        thread = threading.Thread(target=second)
        thread.start()
        assert screen.written.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "another set-up is building pjsua2; waiting" in screen.getvalue()


# ---------------------------------------------------------------- the wheel


def test_wheel_installs_with_pip(tmp_path: Path) -> None:
    files = {"probe_module.py": b"answer = 42\n", "probe_library.so": b"\x7fELF"}
    path = wheel.write_wheel(tmp_path, "2.17", "csabc123", files, b"GPL")
    assert path.name == f"callshield_pjsua2-2.17+csabc123-{wheel.python_tag()}.whl"
    target = tmp_path / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-index", "--target", str(target), str(path)),
        ],
        check=True,
    )
    assert (target / "probe_module.py").read_bytes() == b"answer = 42\n"
    assert os.access(target / "probe_library.so", os.X_OK)
    info = target / "callshield_pjsua2-2.17+csabc123.dist-info"
    assert (info / "licenses" / "COPYING").read_bytes() == b"GPL"
    again = wheel.write_wheel(tmp_path, "2.17", "csabc123", files, b"GPL")
    with zipfile.ZipFile(again) as archive:
        assert archive.testzip() is None
    assert not list(tmp_path.glob("*.part"))


def test_same_files_make_the_same_wheel(tmp_path: Path) -> None:
    files = {"b.py": b"1", "a.py": b"2"}
    first = wheel.write_wheel(tmp_path, "2.17", "cs1", files, b"GPL").read_bytes()
    reordered = dict(reversed(files.items()))
    assert wheel.write_wheel(tmp_path, "2.17", "cs1", reordered, b"GPL").read_bytes() == first


SWIG = '''
PJ_TRUE = _pjsua2.PJ_TRUE
class _Hidden(object):
    pass
class Call(object):
    r""" A call. """
    thisown = property(lambda x: x.this.own(), lambda x, v: x.this.own(v))
    id = property(_pjsua2.Call_id_get, _pjsua2.Call_id_set)
    def __init__(self, acc, call_id=-1):
        pass
    def answer(self, prm, lambda_=None):
        pass
    @staticmethod
    def lookup(call_id):
        pass
class Error(Exception):
    pass
def version():
    pass
_pjsua2.Call_swigregister(Call)
'''


def test_stubs_name_what_swig_made() -> None:
    stub = stubs_of(SWIG)
    compile(stub, "stub.pyi", "exec")
    assert stub.splitlines()[4:] == [
        "PJ_TRUE: int",
        "class Call:",
        "    id: Any",
        "    def __init__(self, *args: Any, **kwargs: Any) -> None: ...",
        "    def answer(self, prm: Any, lambda_: Any = ..., /) -> Any: ...",
        "    @staticmethod",
        "    def lookup(call_id: Any, /) -> Any: ...",
        "class Error(Exception):",
        "    pass",
        "def version() -> Any: ...",
    ]
