"""What ``/metrics`` shows of the cluster, read when it is asked for. No label names a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from notifier.cluster.floor import Floor


class Figures(Collector):
    """Figures of one node's part in the cluster.

    Args:
        floor: that part.
    """

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def collect(self) -> Iterator[Metric]:
        floor = self._floor
        outgoing, incoming = floor.outgoing, floor.incoming
        gauges = {
            "connected": ("1 while the bus is there.", int(floor.connected)),
            "outbox_events": ("Events that are not on the bus yet.", outgoing.waiting),
            "position": ("Sequence of the stream up to which it is stored.", incoming.position),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"callshield_cluster_{name}", text, value)
        counters = {
            "sessions": ("Times the bus was found.", floor.sessions),
            "events_sent": ("Events that the bus has taken.", outgoing.sent),
            "events_received": ("Events of other nodes that were stored.", incoming.received),
            "events_repeated": ("Events that came again and were not.", incoming.repeated),
            "events_left_out": ("Events not sent, the outbox was full.", outgoing.dropped),
            "messages_missed": ("Messages the stream had no more.", incoming.missed),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"callshield_cluster_{name}", text, value)
        refused = CounterMetricFamily(
            "callshield_cluster_refused", "Messages refused, by why.", labels=["reason"]
        )
        for reason, count in floor.refused.by_reason.items():
            refused.add_metric([reason], count)
        yield refused
        asked = CounterMetricFamily(
            "callshield_cluster_requests",
            "Requests of other nodes that were answered.",
            labels=["operation", "status"],
        )
        for (operation, status), count in floor.service.answered.items():
            asked.add_metric([operation, str(status)], count)
        yield asked
        yield from self._peers()

    def _peers(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "callshield_cluster_node_up", "1 for a node that is heard.", labels=["node"]
        )
        clock = GaugeMetricFamily(
            "callshield_cluster_clock_offset_seconds",
            "Another node's clock less ours, when it was heard last.",
            labels=["node"],
        )
        waiting = GaugeMetricFamily(
            "callshield_cluster_node_outbox_events",
            "Events that wait at another node.",
            labels=["node"],
        )
        for peer in self._floor.peers:
            up.add_metric([peer.name], int(peer.reachable))
            if peer.beat is not None:
                clock.add_metric([peer.name], peer.clock_offset_s)
                waiting.add_metric([peer.name], peer.beat.outbox)
        yield from (up, clock, waiting)
