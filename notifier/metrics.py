"""Figures for Prometheus. Counts of the node only: no label names an agent or a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from callshield.messages import Event
from notifier.live import Entry

if TYPE_CHECKING:
    from notifier.node import Node


def _type_of(event: Event) -> str:
    tag = msgspec.inspect.type_info(type(event))
    return str(tag.tag) if isinstance(tag, msgspec.inspect.StructType) else ""


class Metrics:
    """Everything ``/metrics`` shows of one notifier."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._types: dict[type, str] = {}
        self._received = Counter(
            "callshield_bus_events", "Events from the bus.", ["type"], registry=self.registry
        )
        self._stored = Counter(
            "callshield_events_stored", "Events stored.", ["type"], registry=self.registry
        )
        self.commit_seconds = Histogram(
            "callshield_store_commit_seconds",
            "Time of one commit.",
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
        )
        self.actions = Counter(
            "callshield_actions",
            "Actions asked for on calls, and what came of them.",
            ["action", "status"],
            registry=self.registry,
        )
        self.refused = Counter(
            "callshield_requests_refused",
            "Requests refused before they reached a route.",
            ["reason"],
            registry=self.registry,
        )

        self.deliveries = Counter(
            "callshield_deliveries",
            "Letters to webhooks and by mail, and what came of each attempt.",
            ["channel", "outcome"],
            registry=self.registry,
        )
        self.outbox = Gauge(
            "callshield_outbox_letters",
            "Letters that wait, or were put aside (dead).",
            ["channel", "state"],
            registry=self.registry,
        )
        self.phone_screens = Counter(
            "callshield_phone_screens",
            "Screens sent to phones, and what came of each after its retry.",
            ["family", "outcome"],
            registry=self.registry,
        )
        self.phone_retries = Counter(
            "callshield_phone_screen_retries",
            "Second tries of screens.",
            ["family"],
            registry=self.registry,
        )
        self.phone_screen_seconds = Histogram(
            "callshield_phone_screen_seconds",
            "From a change to the phone having taken its screen.",
            ["family"],
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
        )

    def watch(self, node: Node) -> None:
        """Read gauges from the node whenever they are asked for."""
        gauges = {
            "callshield_live_calls": ("Live calls.", lambda: len(node.board.calls)),
            "callshield_open_alerts": ("Alerts nobody took.", lambda: len(node.board.alerts)),
            "callshield_consoles": ("Open WebSockets.", lambda: len(node.hub.subscribers)),
            "callshield_consoles_dropped": (
                "WebSockets closed because they did not read.",
                lambda: node.hub.slow_dropped,
            ),
            "callshield_journal_waiting": ("Events not stored yet.", lambda: len(node.journal)),
            "callshield_journal_dropped": (
                "Events lost because the database did not work for too long.",
                lambda: node.journal.dropped,
            ),
            "callshield_events_ignored": (
                "Events that fitted no live call.",
                lambda: node.board.ignored,
            ),
            "callshield_degraded_components": (
                "Parts of the node that are down.",
                lambda: len(node.board.degraded),
            ),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(read)
        if node.cluster is not None:
            # Only who has other nodes loads what talks to them.
            from notifier.cluster.figures import Figures

            self.registry.register(Figures(node.cluster))

    def _tag(self, event: Event) -> str:
        kind = type(event)
        if kind not in self._types:
            self._types[kind] = _type_of(event)
        return self._types[kind]

    def received(self, event: Event) -> None:
        self._received.labels(self._tag(event)).inc()

    def stored(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._stored.labels(self._tag(entry.event)).inc()

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
