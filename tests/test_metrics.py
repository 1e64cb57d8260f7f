"""Every promised name is there from the start, and nothing else can become a label."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from envelope import __version__
from envelope.metrics import (
    DRIFT_KINDS,
    ENDS,
    FAMILIES,
    OUTCOMES,
    REJECTED_REASONS,
    STATUSES,
    Metrics,
)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_series_is_there_before_anything_happens() -> None:
    """A dashboard sees zeros, not gaps."""
    metrics = Metrics()
    for status in STATUSES:
        assert value(metrics, "envelope_requests_total", status=status) == 0
    for reason in REJECTED_REASONS:
        assert value(
            metrics, "controller_access_token_requests_total",
            path="/v0/envelope/access", request="rejected", reason=reason,
        ) == 0
    for end in ENDS:
        assert value(metrics, "envelope_session_seconds_count", end=end) == 0
    for kind in DRIFT_KINDS:
        assert value(metrics, "envelope_firewall_drift_total", kind=kind) == 0
    for family in FAMILIES:
        assert value(metrics, "envelope_sessions", family=family) == 0
        assert value(metrics, "envelope_grants", family=family) == 0
        for outcome in OUTCOMES:
            assert value(
                metrics, "envelope_firewall_transactions_total", family=family, outcome=outcome
            ) == 0
    assert value(metrics, "envelope_build_info", version=__version__) == 1


def test_the_text_has_the_promised_names_and_no_created_series() -> None:
    text = Metrics().text().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names == {
        "envelope_requests",
        "controller_access_token_requests",
        "controller_access_txcontroller_requests",
        "envelope_sessions",
        "envelope_connections",
        "envelope_connections_dropped",
        "envelope_grants",
        "envelope_grant_seconds",
        "envelope_revoke_seconds",
        "envelope_session_seconds",
        "envelope_firewall_transactions",
        "envelope_firewall_drift",
        "envelope_tx_bits_per_second",
        "envelope_build_info",
    }
    assert "_created" not in text
    assert 'envelope_requests_total{status="max concurrent reached"} 0.0' in text


def test_a_given_registry_is_used() -> None:
    registry = CollectorRegistry()
    assert Metrics(registry).registry is registry


def test_requests_are_counted_by_status() -> None:
    metrics = Metrics()
    metrics.request("success")
    metrics.request("success")
    assert value(metrics, "envelope_requests_total", status="success") == 2


@pytest.mark.parametrize(
    ("known", "accepted", "reason", "path", "request_label"),
    [
        (True, True, "locate", "/v0/envelope/access", "accepted"),
        (True, True, "empty", "/v0/envelope/access", "accepted"),
        (True, False, "expired", "/v0/envelope/access", "rejected"),
        (False, True, "unenforced-path", "unknown", "accepted"),
    ],
)
def test_token_checks_are_counted(
    known: bool, accepted: bool, reason: str, path: str, request_label: str
) -> None:
    metrics = Metrics()
    metrics.token(known, accepted, reason)
    assert value(
        metrics, "controller_access_token_requests_total",
        path=path, request=request_label, reason=reason,
    ) == 1


def test_sessions_come_and_go() -> None:
    metrics = Metrics()
    metrics.session_opened("ipv4")
    metrics.session_opened("ipv4")
    metrics.session_ended("ipv4", "deadline", 60.0)
    assert value(metrics, "envelope_sessions", family="ipv4") == 1
    assert value(metrics, "envelope_session_seconds_sum", end="deadline") == 60.0


def test_grants_and_revocations_are_timed() -> None:
    metrics = Metrics()
    metrics.granted("ipv6", 0.0004)
    metrics.revoked(0.02)
    metrics.grants("ipv6", 3)
    assert value(metrics, "envelope_grant_seconds_bucket", le="0.0005") == 1
    assert value(metrics, "envelope_revoke_seconds_count") == 1
    assert value(metrics, "envelope_grants", family="ipv6") == 3


def test_the_firewall_and_the_rate_are_counted() -> None:
    metrics = Metrics()
    metrics.transaction("ipv4", "timeout")
    metrics.drift("jump")
    metrics.rate_check(True)
    metrics.rate_check(False)
    metrics.tx_rate(5e8)
    assert value(
        metrics, "envelope_firewall_transactions_total", family="ipv4", outcome="timeout"
    ) == 1
    assert value(metrics, "envelope_firewall_drift_total", kind="jump") == 1
    for verdict in ("accepted", "rejected"):
        assert value(
            metrics, "controller_access_txcontroller_requests_total",
            request=verdict, protocol="http",
        ) == 1
    assert value(metrics, "envelope_tx_bits_per_second") == 5e8


@pytest.mark.parametrize(
    "misuse",
    [
        lambda metrics: metrics.request("an attacker's word"),
        lambda metrics: metrics.token(True, True, "expired"),
        lambda metrics: metrics.token(True, False, "locate"),
        lambda metrics: metrics.token(False, True, "locate"),
        lambda metrics: metrics.session_opened("ipx"),
        lambda metrics: metrics.session_ended("ipv4", "boredom", 1.0),
        lambda metrics: metrics.session_ended("ipx", "client", 1.0),
        lambda metrics: metrics.granted("ipx", 1.0),
        lambda metrics: metrics.grants("ipx", 1),
        lambda metrics: metrics.transaction("ipv4", "meh"),
        lambda metrics: metrics.drift("continental"),
    ],
)
def test_a_label_from_elsewhere_is_a_programming_error(misuse: Callable[[Metrics], None]) -> None:
    metrics = Metrics()
    before = metrics.text()
    with pytest.raises(ValueError, match="is not one of"):
        misuse(metrics)
    assert metrics.text() == before
