"""What the firewall counts."""

from __future__ import annotations

from envelope.firewall.kernel import DriftKind, Outcome, TableLabel
from envelope.firewall.metrics import FirewallMetrics
from envelope.metrics import new_registry


def test_transactions_drift_and_grants() -> None:
    registry = new_registry()
    metrics = FirewallMetrics(registry)
    metrics.transaction(TableLabel.IPV4, Outcome.TIMEOUT)
    metrics.drift(DriftKind.JUMP)
    metrics.drift(DriftKind.GRANT, 3)
    metrics.show_grants(6, lambda: 3)
    value = registry.get_sample_value
    assert value(
        "envelope_firewall_transactions_total", {"family": "ipv4", "outcome": "timeout"}
    ) == 1
    assert value("envelope_firewall_drift_total", {"kind": "jump"}) == 1
    assert value("envelope_firewall_drift_total", {"kind": "grant"}) == 3
    assert value("envelope_grants", {"family": "ipv6"}) == 3
