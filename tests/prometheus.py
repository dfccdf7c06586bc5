"""A real Prometheus that scrapes one node, and what it answers."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from callshield.free_ports import free_port

DASHBOARD = Path(__file__).parent.parent / "deploy" / "grafana" / "callshield.json"
JOB = "callshield"
PROMETHEUS = shutil.which("prometheus")
#: Scrapes come this often here, and Grafana's ``$__rate_interval`` is at least four of them.
SCRAPE_S, RATE_INTERVAL = 1, "5s"
_CONFIG = """\
global: {{scrape_interval: {every}s, scrape_timeout: {every}s}}
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Panels that ask for something."""
    return [panel for panel in dashboard["panels"] if panel.get("targets")]


def shipped() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.begun = time.time()

    async def get(self, path: str, **parameters: str) -> Any:
        """One answer's data.

        Raises:
            AssertionError: it is an error, with what Prometheus says of the expression.
        """
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = (await client.get(f"{self.url}/api/v1/{path}", params=parameters)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def variable(self, variable: dict[str, Any], chosen: dict[str, str]) -> list[str]:
        """Values that Grafana offers for a ``label_values(SERIES, LABEL)`` variable."""
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        assert match is not None, variable["query"]
        selector = fill(match[1], chosen)
        found: list[str] = await self.get(f"label/{match[2]}/values", **{"match[]": selector})
        return found

    async def series(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """The expression over the last seconds, a point each second."""
        end = time.time()
        data = await self.get(
            "query_range",
            query=expression,
            start=str(end - seconds),
            end=str(end),
            step=str(SCRAPE_S),
        )
        found: list[dict[str, Any]] = data["result"]
        return found


def fill(expression: str, chosen: dict[str, str]) -> str:
    """An expression with Grafana's variables replaced."""
    for name, value in {**chosen, "__rate_interval": RATE_INTERVAL}.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, expression
    return expression


@asynccontextmanager
async def running_prometheus(folder: Path, scraped: int) -> AsyncIterator[Prometheus]:
    """Prometheus beside a node.

    Args:
        folder: for its files; there already.
        scraped: port of the node's web server on 127.0.0.1.
    """
    assert PROMETHEUS is not None
    port = free_port("127.0.0.1")
    config = folder / "prometheus.yml"
    config.write_text(_CONFIG.format(every=SCRAPE_S, job=JOB, port=scraped), encoding="utf-8")
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert process.returncode is None, (folder / "prometheus.log").read_text()
                try:
                    if (await client.get(f"{url}/-/ready")).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)
        yield Prometheus(url)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
