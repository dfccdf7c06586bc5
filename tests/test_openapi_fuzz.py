"""Schemathesis: every route of the OpenAPI with valid and broken requests, in every role.

A real notifier process with a live call and an alert; each answer must be one that the schema
names, in the shape that it says, and none a 500. The seed is fixed: a run is repeated exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from notifier.tokens import create_token
from tests.notifier_kit import WITHIN_S, Process, free_port

SEED = 20261122
#: Requests of each route, kind (valid, broken) and role.
EXAMPLES = 8
UNLIMITED = """
[limits]
token_per_s = 10000
token_burst = 100000
address_per_s = 10000
address_burst = 100000
"""


def run_schemathesis(
    url: str, token: str | None, examples: int = EXAMPLES, real: dict[str, str] | None = None
) -> list[str]:
    """Try every route: with valid requests, with broken ones, and with ids that exist.

    Args:
        real: values of path parameters; invented ones lead to a 404 and no further.

    Returns:
        The route and what was wrong with it, for each that failed.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    found: list[str] = []
    operations = 0
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]
        operations += 1
        parameters = {one.name for one in operation.path_parameters}
        known = {name: value for name, value in (real or {}).items() if name in parameters}
        rounds: list[tuple[GenerationMode, dict[str, str]]] = [
            (mode, {}) for mode in GenerationMode
        ]
        if known:
            rounds.append((GenerationMode.POSITIVE, known))
        for mode, ids in rounds:
            try:
                _ask(operation, mode, ids, url, headers, examples)
            except Unsatisfiable:
                # A route without parameters or body has nothing that could be broken.
                assert mode is GenerationMode.NEGATIVE, operation.label
            except FailureGroup as group:
                found += [f"{operation.label}: {failure}" for failure in group.exceptions]
            except Exception as error:
                found.append(f"{operation.label}: {type(error).__name__}: {error}")
    assert operations
    return found


def _ask(
    operation: Any,
    mode: GenerationMode,
    ids: dict[str, str],
    url: str,
    headers: dict[str, str],
    examples: int,
) -> None:
    @seed(SEED)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if ids:
            case.path_parameters = {**case.path_parameters, **ids}
        # A documented 503 (no bridge, no analysis) is an answer; a 500 stands in no schema, so
        # that the check of statuses finds it.
        case.call_and_validate(
            headers=headers,
            base_url=url,
            timeout=WITHIN_S,
            excluded_checks=[not_a_server_error],
        )

    ask()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A running notifier: its address, and a token of each role."""
    notifier = Process(tmp_path_factory.mktemp("node"), UNLIMITED)
    desk = notifier.desk
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(2 * WITHIN_S)

    @contextlib.asynccontextmanager
    async def call() -> AsyncIterator[dict[str, str]]:
        async with desk.bridge() as bridge, desk.console(desk.supervisor) as console:
            call_id = bridge.start_call()
            bridge.risk(call_id, 3)
            alert = await console.until("alert.raised")
            yield {"call_id": call_id, "alert_id": alert["alert_id"], "agent_id": "1001"}

    live = call()
    try:
        run(notifier.start())
        real = run(live.__aenter__())
        yield {
            "real": real,
            "url": f"http://{desk.address}",
            "agent": desk.agent,
            "supervisor": desk.supervisor,
            "admin": create_token(desk.settings, "admin", "it"),
        }
        run(live.__aexit__(None, None, None))
    finally:
        run(notifier.end(signal.SIGTERM))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.mark.parametrize("role", ["agent", "supervisor", "admin", "nobody"])
def test_no_request_breaks_the_node_or_its_promises(node: dict[str, Any], role: str) -> None:
    assert run_schemathesis(node["url"], node.get(role), real=node["real"]) == []
    page = httpx.get(f"{node['url']}/metrics", timeout=WITHIN_S).text
    assert 'status="done"' in page, "requests with real ids got further than a 404"


def test_a_route_that_fails_is_found() -> None:
    """Negative control: one route answers 500 to some requests, one breaks its own schema."""
    app = FastAPI()

    @app.get("/good")
    def good(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/bad")
    def bad(number: int) -> dict[str, int]:
        if number > 3:
            raise RuntimeError
        return {"number": number}

    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + WITHIN_S
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{url}/good?number=1")
                break
            time.sleep(0.02)
        found = run_schemathesis(url, None, 50)
    finally:
        server.should_exit = True
        thread.join()
    assert found
    assert all(one.startswith("GET /bad") for one in found)
