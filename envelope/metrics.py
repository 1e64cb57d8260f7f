"""Every metric of the service, on a registry of its own.

Label values come from the fixed tuples below only, never from a client; every combination that
can occur is there from the start, at 0, so that dashboards and alerts see it before it happens.
A value from outside is a programming error and raises `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from envelope import __version__
from envelope.protocol import ACCESS_PATH

FAMILIES: Final = ("ipv4", "ipv6")
# Tables of the kernel: iptables has one for each family, nftables one for both.
TABLES: Final = (*FAMILIES, "inet")
STATUSES: Final = (
    "success",
    "wrong-method",
    "missing claim when tokens required",
    "wrong claim subject",
    "already past claim expiration",
    "max concurrent reached",
    "iptables-grant-failure",
    "websocket-setup-failure",
    "draining",
    "not-found",
)
UNKNOWN_PATH: Final = "unknown"
ACCEPTED_REASONS: Final = ("locate", "empty")
REJECTED_REASONS: Final = (
    "missing",
    "malformed",
    "unknown-key",
    "algorithm",
    "signature",
    "expired",
    "not-yet-valid",
    "issuer",
    "audience",
    "claims",
)
UNENFORCED: Final = "unenforced-path"
VERDICTS: Final = ("accepted", "rejected")
PROTOCOLS: Final = ("http",)
ENDS: Final = ("client", "deadline", "data", "revoked", "shutdown", "lost")
OUTCOMES: Final = ("ok", "failed", "timeout", "died")
CONNECTION_STATES: Final = ("handshake", "session", "leaving")
DROP_REASONS: Final = (
    "network", "handshakes", "total", "descriptors", "timeout", "malformed", "tls", "proxy",
    "early-data", "lingering",
)
DRIFT_KINDS: Final = ("policy", "jump", "chain", "baseline", "grant", "stray")

# Seconds. A grant takes well under a millisecond on an idle machine; clients give up after 2 s.
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
# Seconds. Measurements take ten seconds to some minutes.
_SLOW = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class Metrics:
    """The service's counters, gauges and histograms (docs/metrics.md).

    `registry` is where they are registered; without one they get their own, so that several
    services can live in one process.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # Python's client adds a `_created` series to each counter, which no dashboard reads; it
        # can only be switched off for the whole process.
        disable_created_metrics()
        self.registry = registry = CollectorRegistry() if registry is None else registry
        self._requests = Counter(
            "envelope_requests_total", "Requests for an envelope, by how they ended.",
            ["status"], registry=registry,
        )
        self._tokens = Counter(
            "controller_access_token_requests_total",
            "Requests, by what the check of their access token said.",
            ["path", "request", "reason"], registry=registry,
        )
        self._rate_checks = Counter(
            "controller_access_txcontroller_requests_total",
            "Requests, by what the check of the device's transmit rate said.",
            ["request", "protocol"], registry=registry,
        )
        self._sessions = Gauge(
            "envelope_sessions", "Sessions open now.", ["family"], registry=registry
        )
        self._connections = Gauge(
            "envelope_connections",
            "Connections now: without a whole request, with a session, answered and not yet gone.",
            ["state"], registry=registry,
        )
        self._dropped = Counter(
            "envelope_connections_dropped_total",
            "Connections that were ended without a request that could be judged, or that did not "
            "go by themselves.",
            ["reason"], registry=registry,
        )
        self._grants = Gauge(
            "envelope_grants", "Networks let in by the kernel's rules now.",
            ["family"], registry=registry,
        )
        self._grant_seconds = Histogram(
            "envelope_grant_seconds", "Seconds from asking for a grant to its being in force.",
            buckets=_FAST, registry=registry,
        )
        self._revoke_seconds = Histogram(
            "envelope_revoke_seconds", "Seconds from asking for a revocation to its holding.",
            buckets=_FAST, registry=registry,
        )
        self._session_seconds = Histogram(
            "envelope_session_seconds", "Seconds that sessions lasted, by what ended them.",
            ["end"], buckets=_SLOW, registry=registry,
        )
        self._transactions = Counter(
            "envelope_firewall_transactions_total",
            "Transactions with the kernel's rules, by their outcome.",
            ["family", "outcome"], registry=registry,
        )
        self._drift = Counter(
            "envelope_firewall_drift_total",
            "Differences between the rules in force and the rules as written, found and mended.",
            ["kind"], registry=registry,
        )
        self._tx_rate = Gauge(
            "envelope_tx_bits_per_second", "What the measured device sends now.",
            registry=registry,
        )
        build = Gauge(
            "envelope_build_info", "Always 1; the label says which version runs.",
            ["version"], registry=registry,
        )
        build.labels(__version__).set(1)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for status in STATUSES:
            self._requests.labels(status)
        for reason in ACCEPTED_REASONS:
            self._tokens.labels(ACCESS_PATH, "accepted", reason)
        for reason in REJECTED_REASONS:
            self._tokens.labels(ACCESS_PATH, "rejected", reason)
        self._tokens.labels(UNKNOWN_PATH, "accepted", UNENFORCED)
        for verdict in VERDICTS:
            for protocol in PROTOCOLS:
                self._rate_checks.labels(verdict, protocol)
        for family in FAMILIES:
            self._sessions.labels(family)
            self._grants.labels(family)
        for table in TABLES:
            for outcome in OUTCOMES:
                self._transactions.labels(table, outcome)
        for end in ENDS:
            self._session_seconds.labels(end)
        for state in CONNECTION_STATES:
            self._connections.labels(state)
        for reason in DROP_REASONS:
            self._dropped.labels(reason)
        for kind in DRIFT_KINDS:
            self._drift.labels(kind)

    def request(self, status: str) -> None:
        """Count a request that ended with `status` (one of `STATUSES`)."""
        self._requests.labels(_one_of(STATUSES, status)).inc()

    def token(self, path_known: bool, accepted: bool, reason: str) -> None:
        """Count what the token check said; on an unknown path nothing is enforced."""
        if not path_known:
            known: tuple[str, ...] = (UNENFORCED,)
        else:
            known = ACCEPTED_REASONS if accepted else REJECTED_REASONS
        path = ACCESS_PATH if path_known else UNKNOWN_PATH
        verdict = "accepted" if accepted or not path_known else "rejected"
        self._tokens.labels(path, verdict, _one_of(known, reason)).inc()

    def rate_check(self, accepted: bool) -> None:
        """Count what the check of the transmit rate said."""
        self._rate_checks.labels("accepted" if accepted else "rejected", "http").inc()

    def tx_rate(self, bits_per_second: float) -> None:
        """Note what the measured device sends."""
        self._tx_rate.set(bits_per_second)

    def watch_connections(self, number: Callable[[str], int]) -> None:
        """Let `number` say how many connections are in each of `CONNECTION_STATES`, when asked."""
        for state in CONNECTION_STATES:
            self._connections.labels(state).set_function(partial(number, state))

    def connection_dropped(self, reason: str) -> None:
        """Count a connection that had to go (`reason` is one of `DROP_REASONS`)."""
        self._dropped.labels(_one_of(DROP_REASONS, reason)).inc()

    def session_opened(self, family: str) -> None:
        """One more session is open."""
        self._sessions.labels(_one_of(FAMILIES, family)).inc()

    def session_ended(self, family: str, end: str, seconds: float) -> None:
        """One session less; `end` (one of `ENDS`) is why, `seconds` how long it lasted."""
        family, end = _one_of(FAMILIES, family), _one_of(ENDS, end)
        self._session_seconds.labels(end).observe(seconds)
        self._sessions.labels(family).dec()

    def grants(self, family: str, number: int) -> None:
        """Note how many networks the rules of `family` let in."""
        self._grants.labels(_one_of(FAMILIES, family)).set(number)

    def granted(self, family: str, seconds: float) -> None:
        """A grant came into force `seconds` after it was asked for."""
        _one_of(FAMILIES, family)
        self._grant_seconds.observe(seconds)

    def revoked(self, seconds: float) -> None:
        """A revocation held `seconds` after it was asked for."""
        self._revoke_seconds.observe(seconds)

    def transaction(self, family: str, outcome: str) -> None:
        """Count a transaction with the kernel's rules (`outcome` is one of `OUTCOMES`)."""
        family, outcome = _one_of(TABLES, family), _one_of(OUTCOMES, outcome)
        self._transactions.labels(family, outcome).inc()

    def drift(self, kind: str, number: int = 1) -> None:
        """Count differences in the rules that were found (`kind` is one of `DRIFT_KINDS`)."""
        self._drift.labels(_one_of(DRIFT_KINDS, kind)).inc(number)

    def text(self) -> bytes:
        """All of them in Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)


def _one_of(known: tuple[str, ...], value: str) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return value
