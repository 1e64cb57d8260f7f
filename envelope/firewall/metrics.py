"""Metrics of the kernel's rules."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge

from envelope.addresses import AddressFamily
from envelope.firewall.kernel import DriftKind, Outcome, TableLabel
from envelope.metrics import children


class FirewallMetrics:
    """Counts transactions, drift and grants; registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._transactions = children(Counter(
            "envelope_firewall_transactions_total",
            "Transactions with the kernel's rules, by their outcome.",
            ["family", "outcome"], registry=registry,
        ), product(TableLabel, Outcome))
        self._drift = children(Counter(
            "envelope_firewall_drift_total",
            "Differences between the rules in force and the rules as written, found and mended.",
            ["kind"], registry=registry,
        ), DriftKind)
        self._grants = children(Gauge(
            "envelope_grants", "Grants in the kernel's rules now.",
            ["family"], registry=registry,
        ), AddressFamily)

    def transaction(self, label: TableLabel, outcome: Outcome) -> None:
        """Count a transaction with the table of this label."""
        self._transactions[label, outcome].inc()

    def drift(self, kind: DriftKind, number: int = 1) -> None:
        """Count so many differences of one kind."""
        self._drift[kind].inc(number)

    def show_grants(self, version: int, networks: Callable[[], int]) -> None:
        """From now on, `networks` tells how many networks of an IP version the rules let in."""
        self._grants[AddressFamily.of_version(version)].set_function(networks)
