"""Metrics of requests and sessions."""

from __future__ import annotations

from collections import deque
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from envelope.addresses import AddressFamily
from envelope.credentials.tokens import TokenReason
from envelope.metrics import FAST_BUCKETS, SLOW_BUCKETS, children
from envelope.protocol import ACCESS_PATH, End
from envelope.sessions.admission import TokenPass
from envelope.sessions.answers import Status

# The reason of a refusal that `Status` does not have: the device sends more than --tx-max-rate.
OVER_RATE: Final = "over transmit rate"


class SessionMetrics:
    """Counts requests, token checks and sessions; registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Refused requests by reason, for the status page.
        self.refusals: dict[str, int] = dict.fromkeys(
            (*TokenReason, *(status for status in Status if status is not Status.SUCCESS),
             OVER_RATE), 0,
        )
        # Seconds of the last grants, for the status page; it takes them out.
        self.recent_grants: deque[float] = deque(maxlen=2000)
        self._requests = children(Counter(
            "envelope_requests_total", "Requests for an envelope, by how they ended.",
            ["status"], registry=registry,
        ), Status)
        tokens = Counter(
            "controller_access_token_requests_total",
            "Requests, by what the check of their access token said.",
            ["path", "request", "reason"], registry=registry,
        )
        self._tokens: dict[TokenPass | TokenReason, Counter] = {
            **{kind: tokens.labels(ACCESS_PATH, "accepted", kind) for kind in TokenPass},
            **{reason: tokens.labels(ACCESS_PATH, "rejected", reason) for reason in TokenReason},
        }
        self._unchecked = tokens.labels("unknown", "accepted", "unenforced-path")
        rate_checks = Counter(
            "controller_access_txcontroller_requests_total",
            "Requests, by what the check of the device's transmit rate said.",
            ["request", "protocol"], registry=registry,
        )
        self._rate_accepted = rate_checks.labels("accepted", "http")
        self._rate_rejected = rate_checks.labels("rejected", "http")
        self._sessions = children(
            Gauge("envelope_sessions", "Sessions open now.", ["family"], registry=registry),
            AddressFamily,
        )
        self._slots_used = Gauge(
            "envelope_slots_used", "Slots of --max-clients that are used now.", registry=registry
        )
        self._grant_seconds = Histogram(
            "envelope_grant_seconds", "Seconds from asking for a grant to its being in force.",
            buckets=FAST_BUCKETS, registry=registry,
        )
        self._revoke_seconds = Histogram(
            "envelope_revoke_seconds", "Seconds from asking for a revocation to its holding.",
            buckets=FAST_BUCKETS, registry=registry,
        )
        self._session_seconds = children(Histogram(
            "envelope_session_seconds", "Seconds that sessions lasted, by what ended them.",
            ["end"], buckets=SLOW_BUCKETS, registry=registry,
        ), End)
        self._received_bytes = children(Counter(
            "envelope_session_received_bytes_total",
            "Bytes of IP packets that grants have let in, added when a grant's last session ends.",
            ["family"], registry=registry,
        ), AddressFamily)
        self._received_packets = children(Counter(
            "envelope_session_received_packets_total", "The same in packets.",
            ["family"], registry=registry,
        ), AddressFamily)
        self._tx_rate = Gauge(
            "envelope_tx_bits_per_second", "What the measured device sends now.",
            registry=registry,
        )

    def request(self, status: Status) -> None:
        """Count a request that ended with `status`."""
        self._requests[status].inc()
        if status is not Status.SUCCESS:
            self.refusals[status] += 1

    def token(self, verdict: TokenPass | TokenReason | None) -> None:
        """Count what the token check said; None: the path is unknown, so nothing was checked."""
        (self._unchecked if verdict is None else self._tokens[verdict]).inc()
        if isinstance(verdict, TokenReason):
            self.refusals[verdict] += 1

    def rate_check(self, accepted: bool) -> None:
        """Count what the check of the transmit rate said."""
        (self._rate_accepted if accepted else self._rate_rejected).inc()
        if not accepted:
            self.refusals[OVER_RATE] += 1

    def tx_rate(self, bits_per_second: float) -> None:
        """Note what the measured device sends."""
        self._tx_rate.set(bits_per_second)

    def slots_used(self, number: int) -> None:
        """Note how many slots of `--max-clients` are used."""
        self._slots_used.set(number)

    def session_opened(self, family: AddressFamily) -> None:
        """One more session is open."""
        self._sessions[family].inc()

    def session_ended(self, family: AddressFamily, end: End, seconds: float) -> None:
        """One session less; `end` is why, `seconds` how long it lasted."""
        self._session_seconds[end].observe(seconds)
        self._sessions[family].dec()

    def received(self, family: AddressFamily, packets: int, bytes_: int) -> None:
        """Add what a grant has let in, now that it is over."""
        if packets:
            self._received_packets[family].inc(packets)
            self._received_bytes[family].inc(bytes_)

    def granted(self, seconds: float) -> None:
        """Note that a grant came into force `seconds` after it was asked for."""
        self._grant_seconds.observe(seconds)
        self.recent_grants.append(seconds)

    def revoked(self, seconds: float) -> None:
        """Note that a revocation held `seconds` after it was asked for."""
        self._revoke_seconds.observe(seconds)
