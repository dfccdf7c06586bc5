"""``/metrics`` names nobody, and the dashboard asks only for what a running node exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.mentions import labelled
from tests.notifier_kit import Desk, desk_in_process
from tests.receiver import Receiver, receiver
from tests.test_webhooks import until_counts, webhook_table

DASHBOARD = Path(__file__).parent.parent / "deploy" / "grafana" / "callshield.json"
#: Every label that a metric of ours may have, and no other: none of them can hold a person.
LABELS = {"type", "action", "status", "reason", "channel", "outcome", "state", "le"}
#: Those of the Prometheus client itself.
PYTHON_LABELS = {"implementation", "major", "minor", "patchlevel", "version"}
#: Words of PromQL that look like names of metrics.
_WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "le"}


def _expressions(dashboard: dict[str, Any]) -> list[str]:
    found = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    found += [
        re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["query"])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    return found


def names(expression: str) -> set[str]:
    """Names of the metrics in an expression: what is neither a label, a range nor a function."""
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", expression)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", plain)) - _WORDS


async def _busy(desk: Desk, far_end: Receiver) -> tuple[str, tuple[str, ...]]:
    """The page of a node on which everything happened that a labelled metric counts.

    With it what it must not hold: ids of the call, of its agent and of the PBX.
    """
    async with desk.bridge() as bridge, desk.console(desk.supervisor) as console:
        call_id = bridge.start_call()
        bridge.risk(call_id, 3)
        await console.until("alert.raised")
        async with desk.http(desk.agent) as http:
            await http.post(f"/api/v1/calls/{call_id}/actions", json={"action": "warn"})
        async with desk.http("cs_forged") as http:
            await http.get("/api/v1/calls")
        await far_end.until(1)  # before, none waits because none is written yet
        await until_counts(desk, waiting=0)
        async with desk.http() as http:
            return (await http.get("/metrics")).text, (call_id, "1001", "1763.42")


async def test_the_dashboard_asks_only_for_what_a_node_exports(tmp_path: Path) -> None:
    async with (
        receiver() as far_end,
        desk_in_process(tmp_path, webhook_table(tmp_path, far_end)) as desk,
    ):
        page, secrets = await _busy(desk, far_end)
    assert not [one for one in labelled(page) for secret in secrets if secret in one]
    families = list(text_string_to_metric_families(page))
    exported = {sample.name for family in families for sample in family.samples}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked: set[str] = set().union(*(names(one) for one in _expressions(dashboard)))
    assert asked - exported == set()
    # Of ours the dashboard leaves out nothing either.
    ours = {
        sample.name
        for sample in (s for f in families for s in f.samples)
        if sample.name.startswith("callshield_")
    }
    spare = {name for name in ours if name.endswith(("_created", "_count", "_sum"))}
    assert ours - spare - asked == set()
    labels = {label for family in families for one in family.samples for label in one.labels}
    assert labels <= LABELS | PYTHON_LABELS


def test_a_name_that_nobody_exports_is_seen() -> None:
    """Negative control of how names are found."""
    expression = 'sum by (type) (rate(callshield_gone_total{job="$job"}[$__rate_interval]))'
    assert names(expression) == {"callshield_gone_total"}
    assert names('histogram_quantile(0.5, sum by (le) (rate(a_bucket{x=~"y"}[5m])))') == {
        "a_bucket"
    }


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine
