"""Metrics of the certificate, of files read again, and of the keys from `--verify-jwks-url`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from envelope.credentials.httpreply import FetchOutcome
from envelope.metrics import children


class CredentialMetrics:
    """The certificate's expiry, and the fetched keys; registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._not_after: Gauge | None = None
        self._reload_failures = Counter(
            "envelope_reload_failures_total",
            "Changed keys or certificates that could not be used; the old ones stayed in use.",
            registry=registry,
        )
        self._fetches = children(Counter(
            "envelope_jwks_fetches_total", "Fetches of --verify-jwks-url, by how they ended.",
            ["outcome"], registry=registry,
        ), FetchOutcome)
        self._keys = Gauge(
            "envelope_jwks_keys", "Keys from --verify-jwks-url that are in use.",
            registry=registry,
        )
        self._fetched_at = Gauge(
            "envelope_jwks_last_success_timestamp_seconds",
            "When --verify-jwks-url was last fetched well, in seconds since the epoch; 0: never.",
            registry=registry,
        )

    def reload_failed(self) -> None:
        """Count files that have changed and cannot be used."""
        self._reload_failures.inc()

    def keys_fetched(self, number: int, now: float) -> None:
        """Count a fetch that brought `number` keys, at `now` (seconds since the epoch)."""
        self._fetches[FetchOutcome.OK].inc()
        self._keys.set(number)
        self._fetched_at.set(now)

    def fetch_failed(self, outcome: FetchOutcome) -> None:
        """Count a fetch that failed."""
        self._fetches[outcome].inc()

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
