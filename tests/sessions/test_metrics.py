"""What requests and sessions count."""

from __future__ import annotations

import pytest

from envelope.addresses import AddressFamily
from envelope.credentials.tokens import TokenReason
from envelope.metrics import new_registry
from envelope.protocol import End
from envelope.sessions.admission import TokenPass
from envelope.sessions.answers import Status
from envelope.sessions.metrics import SessionMetrics


class Counted:
    """Metrics on a registry of their own."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.metrics = SessionMetrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def value() -> Counted:
    return Counted()


def test_requests_are_counted_by_status(value: Counted) -> None:
    value.metrics.request(Status.SUCCESS)
    value.metrics.request(Status.SUCCESS)
    assert value("envelope_requests_total", status="success") == 2


@pytest.mark.parametrize(
    ("verdict", "path", "request_label", "reason"),
    [
        (TokenPass.VALID, "/v0/envelope/access", "accepted", "locate"),
        (TokenPass.NOT_SENT, "/v0/envelope/access", "accepted", "empty"),
        (TokenReason.EXPIRED, "/v0/envelope/access", "rejected", "expired"),
        (None, "unknown", "accepted", "unenforced-path"),
    ],
)
def test_token_checks_are_counted(
    value: Counted, verdict: TokenPass | TokenReason | None, path: str, request_label: str,
    reason: str,
) -> None:
    value.metrics.token(verdict)
    assert value(
        "controller_access_token_requests_total", path=path, request=request_label, reason=reason
    ) == 1


def test_sessions_are_counted_while_open_and_timed_by_their_end(value: Counted) -> None:
    value.metrics.session_opened(AddressFamily.IPV4)
    value.metrics.session_opened(AddressFamily.IPV4)
    value.metrics.session_ended(AddressFamily.IPV4, End.DEADLINE, 60.0)
    assert value("envelope_sessions", family="ipv4") == 1
    assert value("envelope_session_seconds_sum", end="deadline") == 60.0


def test_grants_and_revocations_are_timed(value: Counted) -> None:
    value.metrics.granted(0.0004)
    value.metrics.revoked(0.02)
    assert value("envelope_grant_seconds_bucket", le="0.0005") == 1
    assert value("envelope_revoke_seconds_count") == 1


def test_the_transmit_rate_and_its_checks(value: Counted) -> None:
    value.metrics.tx_rate(5e8)
    value.metrics.rate_check(True)
    value.metrics.rate_check(False)
    assert value("envelope_tx_bits_per_second") == 5e8
    for verdict in ("accepted", "rejected"):
        assert value(
            "controller_access_txcontroller_requests_total", request=verdict, protocol="http"
        ) == 1
