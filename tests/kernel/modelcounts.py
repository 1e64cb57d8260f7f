"""What a service under test has counted, from its metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels."""
    return sum(
        sample.value for metric in registry.collect()
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def failures(registry: CollectorRegistry, table: str) -> float:
    """The failed transactions of a table, including those that were repeated with success."""
    name = "envelope_firewall_transactions_total"
    return counted(registry, name, family=table) - counted(
        registry, name, family=table, outcome="ok")
