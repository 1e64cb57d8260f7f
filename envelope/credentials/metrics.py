"""Metrics of what the service proves itself with and checks others with: certificate and keys.

As in `envelope.metrics`, labels come from fixed lists, and every series that can be of use is
there from the start.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

FETCH_OUTCOMES: Final = (
    "ok", "unreachable", "tls", "timeout", "status", "too-large", "malformed",
)


class CredentialMetrics:
    """The end of the certificate, and the keys from a URL; registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._not_after: Gauge | None = None
        self._fetches = Counter(
            "envelope_jwks_fetches_total", "Fetches of --verify-jwks-url, by how they ended.",
            ["outcome"], registry=registry,
        )
        for outcome in FETCH_OUTCOMES:
            self._fetches.labels(outcome)
        self._keys = Gauge(
            "envelope_jwks_keys", "Keys from --verify-jwks-url that are in use.",
            registry=registry,
        )
        self._fetched_at = Gauge(
            "envelope_jwks_last_success_timestamp_seconds",
            "When --verify-jwks-url was last fetched well, in seconds since the epoch; 0: never.",
            registry=registry,
        )

    def keys_fetched(self, number: int, now: float) -> None:
        """Count a fetch that gave so many keys, at `now` (seconds since the epoch)."""
        self._fetches.labels("ok").inc()
        self._keys.set(number)
        self._fetched_at.set(now)

    def fetch_failed(self, outcome: str) -> None:
        """Count a fetch that gave nothing (`outcome` is one of `FETCH_OUTCOMES`)."""
        if outcome not in FETCH_OUTCOMES:
            raise ValueError(f"{outcome!r} is not one of {', '.join(FETCH_OUTCOMES)}")
        self._fetches.labels(outcome).inc()

    def certificate_ends(self, seconds: float) -> None:
        """Note when the certificate in use expires, in seconds since the epoch."""
        if self._not_after is None:
            # Without a certificate there is no such series: a 0 would read as "expired long ago".
            self._not_after = Gauge(
                "envelope_tls_not_after_seconds",
                "When the certificate in use expires, in seconds since the epoch.",
                registry=self._registry,
            )
        self._not_after.set(seconds)
