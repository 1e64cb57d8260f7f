"""Metrics of what the service proves itself with and checks others with: certificate and keys.

As in `envelope.metrics`, labels come from fixed lists, and every series that can be of use is
there from the start.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge


class CredentialMetrics:
    """The end of the certificate, registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._not_after: Gauge | None = None

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
