"""Metrics of connections."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from envelope.metrics import children


class ConnectionState(StrEnum):
    """Label `state` of `envelope_connections`."""

    HANDSHAKE = "handshake"
    SESSION = "session"
    LEAVING = "leaving"


class DropReason(StrEnum):
    """Label `reason` of `envelope_connections_dropped_total`."""

    NETWORK = "network"
    HANDSHAKES = "handshakes"
    TOTAL = "total"
    DESCRIPTORS = "descriptors"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    TLS = "tls"
    PROXY = "proxy"
    EARLY_DATA = "early-data"
    LINGERING = "lingering"


class ConnectionMetrics:
    """Counts connections and those that were dropped; registered in `registry`."""

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

    def watch(self, number: Callable[[ConnectionState], int]) -> None:
        """Let `number` say how many connections are in a state, at each scrape."""
        for state, gauge in self._connections.items():
            gauge.set_function(partial(number, state))

    def dropped(self, reason: str) -> None:
        """Count a connection that was dropped."""
        self._dropped[DropReason(reason)].inc()
