"""Every panel of the Grafana dashboard, on the figures of a real node under real calls.

A real Prometheus scrapes the node; what it answers to a panel's expression is what Grafana draws.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.peers.node import Node
from tests.peers.scene import Scene, running_scene
from tests.prometheus import JOB, PROMETHEUS, Prometheus, fill, panels, running_prometheus, shipped
from tests.receiver import receiver
from tests.test_webhooks import webhook_table

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        PROMETHEUS is None,
        reason="no prometheus: CI installs it; elsewhere `apt-get install prometheus` does, which "
        "also starts it as a service",
    ),
]
LOAD_S = 14.0


async def _forge(node: Node) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=node.base) as client:
        await client.get("/api/v1/calls", headers={"Authorization": "Bearer cs_forged"})


async def some_work(scene: Scene, seconds: float) -> None:
    """What a team's morning has: calls, presses, alerts, requests that are refused."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        caller, _ = await scene.call()
        call_id = scene.console.seen("call.started")[-1]["call_id"]
        for action in ("abusive", "warn"):
            await scene.node.post(f"/calls/{call_id}/actions", "1001", {"action": action})
            await _forge(scene.node)
        await asyncio.sleep(1.0)
        await caller.ask("BYE")
        await scene.phone.request("BYE")
        await scene.console.wait("call.ended", count=len(scene.console.seen("call.started")))


@asynccontextmanager
async def scraped_node(folder: Path) -> AsyncIterator[tuple[Scene, Prometheus]]:
    """A node with a webhook, at work, and its Prometheus."""
    async with (
        receiver() as far_end,
        running_scene(folder, extra=webhook_table(folder, far_end)) as scene,
        running_prometheus(folder, scene.node.web_port) as asked,
    ):
        yield scene, asked


async def test_every_panel_has_data_of_a_real_node_under_calls(tmp_path: Path) -> None:
    dashboard = shipped()
    async with scraped_node(tmp_path) as (scene, prometheus):
        await some_work(scene, LOAD_S)
        chosen: dict[str, str] = {}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                offered = await prometheus.variable(variable, chosen)
                assert offered, variable["name"]
                chosen[variable["name"]] = offered[0]
        assert chosen["job"] == JOB
        peaks: dict[str, float] = {}
        for panel in panels(dashboard):
            for target in panel["targets"]:
                found = await prometheus.series(fill(target["expr"], chosen), LOAD_S)
                values = [float(value) for one in found for _, value in one["values"]]
                finite = [value for value in values if math.isfinite(value)]
                assert finite, f"{panel['title']}: {target['expr']} has no data"
                peaks[panel["title"]] = max(peaks.get(panel["title"], -math.inf), *finite)
    assert peaks["Live calls"] == 1
    assert peaks["Open alerts"] >= 1
    assert peaks["Consoles"] >= 1
    assert peaks["Events stored, by type"] > 0
    assert peaks["Requests refused, by reason"] > 0
    assert peaks["Actions on calls, by outcome"] > 0
    assert peaks["Attempts, by outcome"] > 0


async def test_a_panel_without_data_or_with_a_fault_is_seen(tmp_path: Path) -> None:
    """Negative control: what nobody exports gives nothing, and what is no PromQL an error."""
    async with scraped_node(tmp_path) as (_, prometheus):
        while not await prometheus.series("callshield_live_calls", 30):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        assert await prometheus.series("callshield_gone_total", 30) == []
        with pytest.raises(AssertionError, match="parse error"):
            await prometheus.series("sum by (type (rate(x[5s]))", 30)


RULES = Path(__file__).parent.parent / "deploy" / "prometheus" / "callshield.rules.yml"
#: What a series does over ten minutes, and which rule must be loud in the end.
_CASES = {
    'up{job="callshield",instance="n"}': ("1 1 0x20", "CallshieldNodeDown"),
    'callshield_degraded_components{instance="n"}': ("0 0 1x20", "CallshieldPartDown"),
    'callshield_journal_dropped{instance="n"}': ("0x20 7x10", "CallshieldEventsLost"),
    'callshield_journal_waiting{instance="n"}': ("0 2000x20", "CallshieldEventsNotStored"),
    'callshield_open_alerts{instance="n"}': ("11x30", "CallshieldNobodyTakesAlerts"),
    'callshield_outbox_letters{channel="webhook:crm",instance="n",state="dead"}': (
        "0 1x20",
        "CallshieldLettersGivenUp",
    ),
}


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def rule_test(series: str, values: str, alert: str, loud: bool) -> str:
    """A file of ``promtool test rules``: which alert there is after twelve minutes of this."""
    labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
    shown = f"exp_labels: {json.dumps({**labels, 'severity': 'SEVERITY'})}" if loud else ""
    return f"""
rule_files: [callshield.rules.yml]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series: [{{series: '{series}', values: '{values}'}}]
    alert_rule_test:
      - {{eval_time: 12m, alertname: {alert}, exp_alerts: [{"{" + shown + "}" if loud else ""}]}}
"""


def test_the_rules_are_loud_when_they_should_be_and_not_before(tmp_path: Path) -> None:
    text = RULES.read_text(encoding="utf-8")
    # What is said is not compared here, only that there is an alert.
    plain = re.sub(r"        annotations:\n.*\n", "", text)
    (tmp_path / RULES.name).write_text(plain, encoding="utf-8")
    assert promtool(tmp_path, "check", "rules", str(RULES)).returncode == 0
    for series, (values, alert) in _CASES.items():
        severity = re.search(rf"alert: {alert}\n(?:.*\n)*?.*severity: (\w+)", text)
        assert severity is not None
        calm = "1x30" if series.startswith("up") else "0x30"
        for given, loud in ((values, True), (calm, False)):
            case = rule_test(series, given, alert, loud).replace("SEVERITY", severity[1])
            (tmp_path / "case.yml").write_text(case, encoding="utf-8")
            done = promtool(tmp_path, "test", "rules", "case.yml")
            assert done.returncode == 0, f"{alert}: {done.stdout}{done.stderr}"


def test_the_rules_ask_for_what_a_node_exports() -> None:
    """The dashboard's names are held against a running node (test_metrics): they are these."""
    asked = set(re.findall(r"callshield_[a-z_]+", RULES.read_text(encoding="utf-8")))
    shown = set(re.findall(r"callshield_[a-z_]+", json.dumps(shipped())))
    assert asked <= shown
