"""Metrics and health over HTTP, byte by byte, without sockets."""

from __future__ import annotations

import json

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from envelope.admin.site import IDLE_TIMEOUT, MOST_CONNECTIONS, admin_site, readiness
from envelope.metrics import new_registry


class Operator:
    """A client of one admin site; counts time on its own clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = new_registry()
        self.reasons: list[str] = []
        self.broken = False
        site = admin_site(self.registry, self._reasons, reactor=self.clock)
        site.doStart()
        self.channel = site.buildProtocol(None)
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)
        self._site = site

    def _reasons(self) -> list[str]:
        if self.broken:
            raise RuntimeError("a secret detail")
        return self.reasons

    def send(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.transport.clear()
        self.channel.dataReceived(data)
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }
        return int(first.split()[1]), headers, body

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode())


@pytest.fixture
def operator() -> Operator:
    return Operator()


def test_metrics_are_prometheus_text(operator: Operator) -> None:
    status, headers, body = operator.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'envelope_build_info{version="' in body
    assert headers["content-length"] == str(len(body))


def test_livez(operator: Operator) -> None:
    operator.reasons = ["stopping"]
    assert operator.ask("/livez")[::2] == (200, b"ok\n")


def test_ready_without_reasons(operator: Operator) -> None:
    status, headers, body = operator.ask("/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True})
    assert headers["content-type"] == "application/json"


def test_a_warning_does_not_make_it_unready() -> None:
    answer = readiness([], ["the certificate expires in 3 days"])
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "ready": True, "warnings": ["the certificate expires in 3 days"],
    }
    assert json.loads(readiness(["stopping"], ["x"]).body) == {
        "ready": False, "reasons": ["stopping"], "warnings": ["x"],
    }


def test_not_ready_says_why(operator: Operator) -> None:
    operator.reasons = ["stopping", "ipv4: the rules do not hold"]
    status, _, body = operator.ask("/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "reasons": operator.reasons}


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metric", "//livez", "/debug/pprof", "*"])
def test_other_paths_are_404(operator: Operator, path: str) -> None:
    status, headers, body = operator.ask(path)
    assert status == 404
    assert len(body) < 60
    assert "server" not in headers


def test_a_query_is_ignored(operator: Operator) -> None:
    assert operator.ask("/livez?probe=1")[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/nothing"])
def test_no_answer_may_be_cached_or_names_the_software(operator: Operator, path: str) -> None:
    _, headers, _ = operator.ask(path)
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert b"wisted" not in operator.transport.value()


def test_head_is_get_without_the_body(operator: Operator) -> None:
    _, got, body = operator.ask("/metrics")
    status, headers, nothing = operator.ask("/metrics", "HEAD")
    assert (status, nothing) == (200, b"")
    assert headers["content-length"] == got["content-length"] == str(len(body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(operator: Operator, method: str) -> None:
    status, headers, _ = operator.ask("/readyz", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


def test_a_small_body_is_discarded(operator: Operator) -> None:
    status, _, _ = operator.send(
        b"POST /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert status == 405
    assert operator.ask("/livez")[0] == 200


def test_a_large_body_ends_the_connection(operator: Operator) -> None:
    operator.channel.dataReceived(
        b"POST /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 99999999\r\n\r\n"
    )
    for _ in range(20):
        operator.channel.dataReceived(bytes(1000))
    assert operator.transport.disconnected


def test_too_many_headers_end_the_connection(operator: Operator) -> None:
    operator.channel.dataReceived(b"GET /metrics HTTP/1.1\r\n" + b"X-Filler: yes\r\n" * 1000)
    assert operator.transport.disconnecting


def test_a_silent_client_is_disconnected(operator: Operator) -> None:
    operator.clock.advance(IDLE_TIMEOUT + 1)
    assert operator.transport.disconnecting


def test_an_exception_is_logged_and_not_shown(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    operator.broken = True
    status, _, body = operator.ask("/readyz")
    assert status == 500
    assert b"secret" not in body


def test_a_site_without_connections_has_no_timer(operator: Operator) -> None:
    clock = Clock()
    site = admin_site(new_registry(), list, reactor=clock)
    site.doStart()
    assert clock.getDelayedCalls() == []
    site.doStop()


def test_above_the_limit_the_oldest_connection_is_dropped() -> None:
    """So idle connections cannot keep a prober out."""
    site = admin_site(new_registry(), list, reactor=Clock())
    channels = []
    for _ in range(MOST_CONNECTIONS + 2):
        channel = site.buildProtocol(None)
        channel.makeConnection(StringTransport())
        channels.append(channel)
        if len(channels) == 2:
            channels[1].connectionLost(Failure(ConnectionDone()))
    assert [channel.transport.disconnected for channel in channels[:3]] == [True, False, False]
    for channel in channels:
        channel.setTimeout(None)
