"""Metrics of connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from envelope.front.eviction import ConnectionState, DropReason
from envelope.metrics import children


class ConnectionMetrics:
    """Counts connections by their state, and the dropped ones; registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connections = children(Gauge(
            "envelope_connections",
            "Connections now: without a whole request, with a session, answered and not yet gone.",
            ["state"], registry=registry,
        ), ConnectionState)
        self._dropped = children(Counter(
            "envelope_connections_dropped_total",
            "Connections that were ended without a request that could be judged, or that did not "
            "go by themselves.",
            ["reason"], registry=registry,
        ), DropReason)

    def watch(self, count: Callable[[ConnectionState], int]) -> None:
        """Call `count` at each scrape for the number of connections in a state."""
        for state, gauge in self._connections.items():
            gauge.set_function(partial(count, state))

    def dropped(self, reason: DropReason) -> None:
        """Count a dropped connection."""
        self._dropped[reason].inc()
