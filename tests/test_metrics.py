"""Every promised series is exported from the start, and nothing else can become a label."""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import product

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from envelope import __version__
from envelope.config import Config
from envelope.metrics import as_text, children
from envelope.service import EnvelopeService
from tests.support.unpacked import promtool

# What the contract promises: each metric with its label values, in the order of label names.
STATUSES = (
    "success", "wrong-method", "missing claim when tokens required", "wrong claim subject",
    "already past claim expiration", "max concurrent reached", "iptables-grant-failure",
    "websocket-setup-failure", "draining", "not-found",
)
REJECTED = (
    "missing", "malformed", "unknown-key", "algorithm", "signature", "expired", "not-yet-valid",
    "issuer", "audience", "claims", "replayed",
)
ACCESS = "/v0/envelope/access"
PROMISED = {
    "envelope_requests": {(status,) for status in STATUSES},
    "controller_access_token_requests": {
        *((ACCESS, reason, "rejected") for reason in REJECTED),
        *((ACCESS, reason, "accepted") for reason in ("locate", "empty")),
        ("unknown", "unenforced-path", "accepted"),
    },
    "controller_access_txcontroller_requests": {("http", "accepted"), ("http", "rejected")},
    "envelope_sessions": {("ipv4",), ("ipv6",)},
    "envelope_slots_used": {()},
    "envelope_connections": {("handshake",), ("session",), ("leaving",)},
    "envelope_connections_dropped": {(reason,) for reason in (
        "network", "handshakes", "total", "descriptors", "timeout", "malformed", "tls", "proxy",
        "early-data", "lingering",
    )},
    "envelope_grants": {("ipv4",), ("ipv6",)},
    "envelope_grant_seconds": {()},
    "envelope_revoke_seconds": {()},
    "envelope_session_seconds": {(end,) for end in (
        "client", "deadline", "data", "idle", "revoked", "shutdown", "lost",
    )},
    "envelope_session_received_bytes": {("ipv4",), ("ipv6",)},
    "envelope_session_received_packets": {("ipv4",), ("ipv6",)},
    "envelope_firewall_transactions": set(
        product(("ipv4", "ipv6", "inet"), ("ok", "failed", "timeout"))
    ),
    "envelope_firewall_drift": {(kind,) for kind in (
        "policy", "jump", "chain", "baseline", "grant", "stray",
    )},
    "envelope_tx_bits_per_second": {()},
    "envelope_jwks_fetches": {(outcome,) for outcome in (
        "ok", "unreachable", "tls", "timeout", "status", "too-large", "malformed",
    )},
    "envelope_jwks_keys": {()},
    "envelope_reload_failures": {()},
    "envelope_jwks_last_success_timestamp_seconds": {()},
    "envelope_log_dropped": {()},
    "envelope_build_info": {(__version__,)},
}
# prometheus_client's own.
OF_PROCESS = {
    "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
    "process_cpu_seconds", "process_open_fds", "process_max_fds", "python_info",
}
# What promtool would have otherwise. The name is one that dashboards know.
LINT = 'envelope_tx_bits_per_second use base unit "bytes" instead of "bits"\n'
# Words that promtool refuses in names: units other than base units, abbreviations, types.
REFUSED_WORDS = re.compile(
    r"minutes|hours|days|weeks|(?:milli|micro|nano)seconds|(?:kilo|mega|giga|kibi|mebi)?bits"
    r"|(?:kilo|mega|giga|kibi|mebi)bytes|s|ms|us|ns|sec|b|kb|mb|gb|tb|pb|m|h|d"
    r"|counter|gauge|histogram|summary"
)


class Colour(StrEnum):
    """Values of a label."""

    RED = "red"
    BLUE = "blue"


class Size(StrEnum):
    """Values of another one."""

    SMALL = "small"


def test_a_service_exports_every_promised_series_and_no_other_before_anything_happens() -> None:
    """Dashboards see zeros instead of gaps."""
    service = EnvelopeService(Clock(), Config(firewall="none", token_required=False), {})
    text = as_text(service.registry).decode()
    found = {
        family.name: {
            tuple(value for label, value in sorted(sample.labels.items()) if label != "le")
            for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
    }
    assert found.keys() >= OF_PROCESS
    assert {name: values for name, values in found.items() if name not in OF_PROCESS} == PROMISED
    assert {
        sample.value for family in text_string_to_metric_families(text)
        for sample in family.samples if family.name not in {*OF_PROCESS, "envelope_build_info"}
    } == {0.0}


def test_names_and_units_are_as_promtool_wants_them() -> None:
    """One name is not; it is the reference's (github.com/prometheus/client_golang, promlint)."""
    service = EnvelopeService(Clock(), Config(firewall="none", token_required=False), {})
    for family in text_string_to_metric_families(as_text(service.registry).decode()):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        refused = [word for word in family.name.split("_") if REFUSED_WORDS.fullmatch(word)]
        assert refused == (["bits"] if family.name in LINT else []), family.name
        for sample in family.samples:
            assert "le" not in sample.labels or family.type == "histogram", family.name
            assert all(re.fullmatch("[a-z]+", label) for label in sample.labels), family.name


@pytest.mark.process
def test_what_promtool_says() -> None:
    """Of the one name alone."""
    service = EnvelopeService(Clock(), Config(firewall="none", token_required=False), {})
    done = promtool("check", "metrics", given=as_text(service.registry).decode())
    assert done.stdout + done.stderr == LINT


def test_nothing_but_a_member_is_a_label() -> None:
    """A text from elsewhere raises, and leaves no series behind."""
    registry = CollectorRegistry()
    colours = children(Counter("colours", "Seen.", ["colour"], registry=registry), Colour)
    both = children(
        Counter("things", "Seen.", ["colour", "size"], registry=registry), product(Colour, Size)
    )
    colours[Colour.RED].inc()
    both[Colour.BLUE, Size.SMALL].inc(2)
    before = as_text(registry)
    with pytest.raises(KeyError):
        colours["an attacker's word"]  # type: ignore[index]
    with pytest.raises(KeyError):
        both[Colour.BLUE, Colour.BLUE]  # type: ignore[index]
    assert as_text(registry) == before
    assert b'colours_total{colour="red"} 1.0\ncolours_total{colour="blue"} 0.0' in before
    assert b'things_total{colour="blue",size="small"} 2.0' in before
    assert b"_created" not in before
