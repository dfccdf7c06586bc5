"""Dockerfile and deploy/compose, built and run: ``./run test-image``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callshield import __version__
from tests.ops.engine import Engine, EngineError

pytestmark = pytest.mark.timeout(7200)

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "deploy" / "compose"
BASE, NODE, EDGE = "localhost/debian:slim", "localhost/callshield:local", "localhost/edge:local"
WEB = "http://127.0.0.1:8080"
CONFIGURATION = """\
[node]
stop_timeout_s = 5
[sip.pbx]
bind = "127.0.0.2"
rtp_ports = [20000, 20999]
[sip.phone]
bind = "127.0.0.3"
rtp_ports = [25000, 25999]
[[peers]]
name = "pbx"
networks = ["127.0.0.4"]
[agents.1001]
uri = "sip:1001@127.0.0.5:5070"
"""
#: As the head of Dockerfile says to run it, less what only a privileged machine may grant.
LOCKED_DOWN = (
    *("--init", "--network", "host", "--stop-timeout", "60", "--read-only", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--tmpfs", "/tmp"),
    *("--tmpfs", "/run/callshield:mode=1777", "--cgroups=disabled"),
)


@pytest.fixture(scope="session")
def engine(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    # A folder that stays saves the layers that did not change.
    kept = os.environ.get("CALLSHIELD_ENGINE")
    made = Engine(Path(kept) if kept else tmp_path_factory.mktemp("engine"))
    if not made.has(BASE):
        made.import_root(debian, BASE)
    return made


@pytest.fixture(scope="session")
def node_image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Dockerfile, built step by step from what git knows of this checkout."""
    context = tmp_path_factory.mktemp("context")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        check=True,
    ).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, context / name)
    options = ["--build-arg", f"BASE={BASE}"]
    if os.environ.get("CALLSHIELD_IMAGE_SEED"):
        # To save the minutes in which pjsua2 is compiled: what this machine built before.
        seed = tmp_path_factory.mktemp("seed")
        for name in ("pjsua2", "speech"):
            shutil.copytree(Path(os.environ["CALLSHIELD_CACHE"]) / name, seed / name)
        options += ["--volume", f"{seed}:/var/cache/callshield:rw"]
    engine.build(context / "Dockerfile", context, NODE, *options)
    return NODE


def until_healthy(engine: Engine, name: str, timeout_s: float = 300) -> None:
    """Run a container's own health check until it says yes."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        try:
            engine.podman("healthcheck", "run", name)
        except EngineError:
            time.sleep(1)
        else:
            return
    raise AssertionError(f"{name} is not healthy:\n{engine.logs(name)[-3000:]}")


@pytest.fixture
def running(engine: Engine, node_image: str, tmp_path: Path) -> Iterator[str]:
    """A container as the head of Dockerfile starts it."""
    config = tmp_path / "etc"
    config.mkdir()
    (config / "callshield.toml").write_text(CONFIGURATION, encoding="utf-8")
    config.chmod(0o755)
    engine.podman(
        *("run", "--detach", "--name", "node", *LOCKED_DOWN),
        *("--volume", f"{config}:/etc/callshield:ro", "--volume", "state:/var/lib/callshield"),
        node_image,
    )
    try:
        yield "node"
    finally:
        engine.podman("rm", "--force", "--time", "20", "node", check=False)


def test_the_image_is_what_its_file_promises(engine: Engine, node_image: str) -> None:
    image = engine.inspect(node_image)
    config = image["Config"]
    assert config["User"] == "callshield"
    assert image["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert "/var/lib/callshield" in config["Volumes"]
    run = ("run", "--rm", "--network", "none", "--cgroups=disabled", node_image)
    assert engine.podman(*run, "id", "-u").strip() == "10001"
    assert engine.podman(*run, "callshield", "--version").strip() == f"callshield {__version__}"
    # Neither compilers nor headers, nor what a build leaves behind.
    look = "command -v gcc swig make git; ls /var/lib/apt/lists /opt/callshield"
    assert engine.podman(*run, "sh", "-c", look).split() == [
        *("/opt/callshield:", "/var/lib/apt/lists:")
    ]


def test_a_container_carries_a_node_and_ends_in_order(engine: Engine, running: str) -> None:
    until_healthy(engine, running)
    with httpx.Client(trust_env=False) as client:
        limit = time.monotonic() + 300
        while (ready := client.get(f"{WEB}/readyz")).status_code != 200:
            assert time.monotonic() < limit, ready.text
            time.sleep(0.5)
    said = engine.podman(
        "exec", running, "sh", "-c", "touch /opt/x /usr/x 2>&1; cat /proc/1/status"
    )
    assert said.count("Read-only file system") == 2
    assert "CapEff:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said
    begun = time.monotonic()
    engine.podman("stop", "--time", "60", running)
    assert time.monotonic() - begun < 40
    logs = engine.logs(running)
    order = [
        json.loads(line)["part"]
        for line in logs.splitlines()
        if line.startswith("{") and '"process_ended"' in line
    ]
    assert order[0] == "bridge"
    assert order[-1] == "notifier"
    assert "Traceback" not in logs


def test_the_health_check_tells_a_node_that_is_ill(engine: Engine, node_image: str) -> None:
    """Negative control: nobody listens there."""
    engine.podman(
        "run",
        "--detach",
        "--name",
        "ill",
        "--network",
        "none",
        "--cgroups=disabled",
        node_image,
        "sleep",
        "60",
    )
    try:
        with pytest.raises(EngineError):
            engine.podman("healthcheck", "run", "ill")
    finally:
        engine.podman("rm", "--force", "--time", "0", "ill", check=False)


def test_a_step_that_fails_fails_the_build(engine: Engine, tmp_path: Path) -> None:
    """Negative control of the builder."""
    file = tmp_path / "Dockerfile"
    file.write_text(f"FROM {BASE}\nRUN python3 -c 'import pjsua2'\n", encoding="utf-8")
    with pytest.raises(EngineError):
        engine.build(file, tmp_path, "localhost/never:1")


def test_compose_is_valid_by_the_compose_specification() -> None:
    """By docker-compose 1.29 of Debian 12, which checks without an engine; it is older than
    the key ``name``."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("this release has no docker-compose without an engine")
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    plain = text.replace("name: callshield\n", "", 1)
    command = [program, "--file", "-", "--project-directory", str(COMPOSE), "config", "--quiet"]
    subprocess.run(command, input=plain, text=True, check=True)
    broken = plain.replace("network_mode: host", "network_mod: host")
    assert subprocess.run(command, input=broken, text=True, capture_output=True).returncode != 0


#: Debian's own, with the variables and paths of the images that compose.yaml names, which cannot be
#: fetched here: what is tried is the wiring, not those images.
STAND_INS = {
    "localhost/nats:stand-in": """\
FROM {base}
RUN apt-get update -q && apt-get install -y -q --no-install-recommends nats-server wget \\
    && install -d /data
ENTRYPOINT ["nats-server"]
""",
    "localhost/postgres:stand-in": """\
FROM {base}
RUN apt-get update -q && apt-get install -y -q --no-install-recommends postgresql \\
    && rm -rf /var/lib/postgresql
ENV PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
COPY entrypoint.sh /
ENTRYPOINT ["sh", "/entrypoint.sh"]
""",
}
ENTRYPOINT = """\
set -eu
install -d -o postgres -g postgres -m 700 "$PGDATA" /var/run/postgresql
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -o postgres -m 400 "$POSTGRES_PASSWORD_FILE" /tmp/password
    setpriv --reuid postgres --regid postgres --init-groups initdb --username "$POSTGRES_USER" \\
        --pwfile /tmp/password --auth-host "$POSTGRES_HOST_AUTH_METHOD" $POSTGRES_INITDB_ARGS
    rm /tmp/password
    setpriv --reuid postgres --regid postgres --init-groups sh -c '
        pg_ctl -w -o "-c listen_addresses=" start
        createdb --username "$POSTGRES_USER" "$POSTGRES_DB"; pg_ctl -w -m fast stop'
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@"
"""


@pytest.fixture(scope="session")
def stand_ins(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    for name, text in STAND_INS.items():
        folder = tmp_path_factory.mktemp("stand-in")
        (folder / "Dockerfile").write_text(text.format(base=BASE), encoding="utf-8")
        (folder / "entrypoint.sh").write_text(ENTRYPOINT, encoding="utf-8")
        engine.build(folder / "Dockerfile", folder, name)
    return {
        "NATS_IMAGE": "localhost/nats:stand-in",
        "POSTGRES_IMAGE": "localhost/postgres:stand-in",
    }


class Compose:
    """A project of podman-compose, on a copy of deploy/compose."""

    def __init__(self, engine: Engine, folder: Path, images: dict[str, str]) -> None:
        self._engine, self._folder = engine, folder
        self._environment = {**engine.environment, **images}

    def __call__(self, *words: str, timeout_s: float = 180) -> str:
        podman = " ".join(self._engine.storage)
        program = shutil.which("podman-compose") or str(
            Path(sys.executable).parent / "podman-compose"
        )
        done = subprocess.run(
            [
                *(
                    program,
                    f"--podman-args={podman}",
                    "--podman-run-args=--cgroups=disabled",
                    "--in-pod=0",
                ),
                *("--file", "compose.yaml", "--file", "here.yaml", *words),
            ],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise EngineError(f"podman-compose {words}:\n{done.stdout[-4000:]}")
        return done.stdout


@pytest.fixture
def compose(
    engine: Engine, node_image: str, stand_ins: dict[str, str], tmp_path: Path
) -> Iterator[Compose]:
    folder = tmp_path / "compose"
    shutil.copytree(COMPOSE, folder)
    subprocess.run(["sh", str(folder / "prepare.sh")], check=True, stdout=subprocess.DEVNULL)
    (folder / "callshield.toml").write_text(
        CONFIGURATION + '[store]\nurl = "postgresql://callshield@127.0.0.1:5432/callshield"\n'
        'password_file = "/run/secrets/store_password"\n',
        encoding="utf-8",
    )
    # Limits that this machine may not raise, and no engine that tells when a service is healthy.
    (folder / "here.yaml").write_text(
        "services:\n  node:\n    image: "
        + node_image
        + "\n    ulimits: {rtprio: 0, nproc: 4096}\n",
        encoding="utf-8",
    )
    project = Compose(engine, folder, stand_ins)
    try:
        yield project
    finally:
        engine.podman("rm", "--force", "--all", "--time", "5", check=False)
        engine.podman("volume", "prune", "--force", check=False)


def test_compose_brings_up_a_node_on_its_postgresql(
    engine: Engine, compose: Compose, tmp_path: Path
) -> None:
    compose("up", "--detach", "--no-build", "--no-deps", "postgres", "nats")
    for name in ("callshield_postgres_1", "callshield_nats_1"):
        until_healthy(engine, name)
    compose("up", "--detach", "--no-build", "--no-deps", "node")
    until_healthy(engine, "callshield_node_1")
    with httpx.Client(trust_env=False) as client:
        limit = time.monotonic() + 300
        while (ready := client.get(f"{WEB}/readyz")).status_code != 200:
            assert time.monotonic() < limit, ready.text
            time.sleep(0.5)
    inside = ("exec", "callshield_node_1", "callshield")
    config = ("--config", "/etc/callshield/callshield.toml")
    assert "as they were written" in engine.podman(*inside, "audit", "verify", *config)
    engine.podman(*inside, "token", "create", "--role", "admin", "--name", "first", *config)
    ask = ("psql", "--username", "callshield", "-Atc", "select count(*) from tokens")
    said = engine.podman("exec", "--user", "postgres", "callshield_postgres_1", *ask)
    assert said.strip() == "1"
    found: list[dict[str, Any]] = json.loads(engine.podman("inspect", "callshield_node_1"))
    assert found[0]["HostConfig"]["ReadonlyRootfs"] is True
    assert "no-new-privileges" in str(found[0]["HostConfig"]["SecurityOpt"])
    # NATS takes the secret that the node has, and nobody else's.
    with httpx.Client(trust_env=False) as client:
        assert client.get("http://127.0.0.1:8222/jsz").json()["config"]["store_dir"]
        assert client.get("http://127.0.0.1:8222/varz").json()["auth_required"] is True


def test_the_edge_is_built_from_deploy_kamailio(engine: Engine) -> None:
    if not (ROOT / "deploy/kamailio").is_dir():
        pytest.skip("deploy/kamailio is not there yet")
    engine.build(COMPOSE / "kamailio.Dockerfile", ROOT, EDGE, "--build-arg", f"BASE={BASE}")
    run = ("run", "--rm", "--network", "host", "--cgroups=disabled", EDGE)
    said = engine.podman(*run, "kamailio", "-c", "-f", "/etc/kamailio/kamailio.cfg")
    assert "config file ok" in said
