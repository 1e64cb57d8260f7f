"""Metrics and health over HTTP, byte by byte, without sockets."""

from __future__ import annotations

import json

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from envelope.admin.answers import readiness
from envelope.admin.httpsite import IDLE_TIMEOUT, MOST_CONNECTIONS, MOST_STREAMS
from envelope.admin.site import admin_site, status_site
from envelope.metrics import new_registry
from tests.admin.fakestatus import FakeStatus


class Visitor:
    """A connection to a site."""

    def __init__(self, site) -> None:
        self.channel = site.buildProtocol(None)
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.transport.clear()
        self.channel.dataReceived(data)
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }
        return int(first.split()[1]), headers, body

    def ask(
        self, path: str, method: str = "GET", host: str = "127.0.0.1"
    ) -> tuple[int, dict[str, str], bytes]:
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def leave(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.channel.setTimeout(None)


class Operator(Visitor):
    """The first visitor of one admin site; counts time on its own clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.status = FakeStatus()
        self.site = admin_site(new_registry(), self.status, self.clock)
        self.site.doStart()
        super().__init__(self.site)


class Viewer(Visitor):
    """The first visitor of one status site."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.status = FakeStatus()
        self.site = status_site(new_registry(), self.status, ["Door.Example"], self.clock)
        super().__init__(self.site)


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


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
    operator.status.told = ["stopping"]
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
    operator.status.told = ["stopping", "ipv4: the rules do not hold"]
    status, _, body = operator.ask("/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "reasons": operator.status.told}


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
    # /metrics would differ: the process has used more of the CPU by then.
    _, got, body = operator.ask("/readyz")
    status, headers, nothing = operator.ask("/readyz", "HEAD")
    assert (status, nothing) == (200, b"")
    assert operator.ask("/metrics", "HEAD")[2] == b""
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
    operator.status.broken = True
    status, _, body = operator.ask("/readyz")
    assert status == 500
    assert b"secret" not in body


def test_a_site_without_connections_has_no_timer(operator: Operator) -> None:
    clock = Clock()
    site = admin_site(new_registry(), FakeStatus(), clock)
    site.doStart()
    assert clock.getDelayedCalls() == []
    site.doStop()


def test_above_the_limit_the_oldest_connection_is_dropped() -> None:
    """So idle connections cannot keep a prober out."""
    site = admin_site(new_registry(), FakeStatus(), Clock())
    visitors = [Visitor(site), Visitor(site)]
    visitors[1].leave()
    visitors += [Visitor(site) for _ in range(MOST_CONNECTIONS)]
    assert [each.transport.disconnected for each in visitors[:3]] == [True, False, False]
    for each in visitors:
        each.leave()


def test_a_connection_that_asks_now_and_then_outlives_a_silent_crowd(operator: Operator) -> None:
    """Prometheus keeps its connection."""
    assert operator.ask("/metrics")[0] == 200
    crowd = [Visitor(operator.site) for _ in range(3 * MOST_CONNECTIONS)]
    assert not operator.transport.disconnected
    assert operator.ask("/metrics")[0] == 200
    for each in crowd:
        each.leave()


@pytest.mark.parametrize("path", ["/status", "/status/stream", "/", "/page.js"])
def test_nothing_on_the_admin_site_shows_who_is_there(operator: Operator, path: str) -> None:
    assert operator.ask(path)[0] == 404


def test_health_is_200_like_readiness(operator: Operator) -> None:
    assert operator.ask("/health")[::2] == operator.ask("/readyz")[::2]
    assert operator.ask("/health", "HEAD")[0] == 200


def test_health_is_503_when_the_next_client_would_be_refused(operator: Operator) -> None:
    """A load balancer's view; the service itself is ready."""
    operator.status.full = ["no slot is free"]
    status, _, body = operator.ask("/health")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["no slot is free"]})
    assert operator.ask("/readyz")[0] == 200
    operator.status.told = ["stopping"]
    assert operator.ask("/health")[0] == 503


# -- the status site -------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/health", "/status", "/"])
def test_the_status_site_has_everything(viewer: Viewer, path: str) -> None:
    status, headers, body = viewer.ask(path)
    assert status == 200
    assert body
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert viewer.ask(path, "HEAD")[::2] == (200, b"")


def test_status_is_the_object(viewer: Viewer) -> None:
    _, headers, body = viewer.ask("/status")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == viewer.status.as_object()


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.0.0.1:8881", "192.0.2.1", "[::1]", "[::1]:8881", "[2001:db8::7]", "localhost",
    "LocalHost:8881", "door.example", "DOOR.example:80", "door.example.",
])
def test_hosts_that_are_ours(viewer: Viewer, host: str) -> None:
    assert viewer.ask("/status", host=host)[0] == 200


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:8881", "localhost.evil.example", "127.0.0.1.evil.example", "",
    "127.1", "[::1", "::1", "[door.example]", "door.example:port", "a@127.0.0.1", "127.0.0.1/x",
    "localhost:8881:1", "door.example evil.example", "door.example..",
])
def test_hosts_of_others_are_421(viewer: Viewer, host: str) -> None:
    for path in ("/", "/status", "/status/stream", "/livez", "/nothing"):
        status, _, body = viewer.ask(path, host=host)
        assert status == 421
        assert b"evil" not in body


def test_a_request_without_host_or_with_two_is_421(viewer: Viewer) -> None:
    for lines in ("", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n"):
        assert viewer.send(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())[0] == 421
    old = Visitor(viewer.site)
    assert old.send(b"GET /status HTTP/1.0\r\n\r\n")[0] == 421
    old = Visitor(viewer.site)
    assert old.send(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")[0] == 200


def test_a_whole_url_in_the_request_is_not_served(viewer: Viewer) -> None:
    """It would count instead of the Host (RFC 9112 section 3.2.2)."""
    assert viewer.ask("http://evil.example/status")[0] == 404


@pytest.mark.parametrize("path", ["/", "/status", "/status/stream", "/nothing"])
def test_other_methods_are_refused_on_the_status_site(viewer: Viewer, path: str) -> None:
    status, headers, _ = viewer.ask(path, "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def events(visitor: Visitor) -> list[dict]:
    """The events in what a stream was sent; the chunks of HTTP are taken apart."""
    _, _, rest = visitor.transport.value().partition(b"\r\n\r\n")
    text = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        text += rest[:int(size, 16)]
        rest = rest[int(size, 16) + 2:]
    found = [each for each in text.decode().split("\n\n") if each.startswith("data: ")]
    return [json.loads(each.removeprefix("data: ")) for each in found]


def test_the_stream_has_the_object_at_once_and_on_each_change(viewer: Viewer) -> None:
    _, headers, _ = viewer.ask("/status/stream")
    assert headers["content-type"] == "text/event-stream"
    assert events(viewer) == [viewer.status.as_object()]
    viewer.clock.advance(1)
    assert len(events(viewer)) == 1, "nothing has changed"
    viewer.status.sessions = 1
    viewer.clock.pump([0.1] * 5)
    viewer.status.sessions = 2
    viewer.clock.advance(0.5)
    assert [each["sessions"] for each in events(viewer)] == [0, 2]
    viewer.leave()
    assert viewer.clock.getDelayedCalls() == []


def test_a_session_makes_an_event_at_once(viewer: Viewer) -> None:
    """Also one that has ended again before the event; at most one event a second."""
    viewer.ask("/status/stream")
    viewer.clock.advance(1)
    viewer.clock.advance(0.25)
    viewer.status.sessions = 1
    viewer.status.session_change()
    viewer.clock.advance(0)
    assert [each["sessions"] for each in events(viewer)] == [0, 1]
    for opens, ends in ((2, 1), (3, 1)):
        viewer.clock.advance(0.2)
        viewer.status.sessions = opens
        viewer.status.session_change()
        viewer.clock.advance(0.2)
        viewer.status.sessions = ends
        viewer.status.session_change()
    assert len(events(viewer)) == 2
    made = viewer.status.made
    viewer.clock.advance(0.25)
    assert [each["sessions"] for each in events(viewer)] == [0, 1, 1]
    viewer.clock.advance(1)
    assert len(events(viewer)) == 3, "nothing has changed"
    assert viewer.status.made == made + 2
    viewer.leave()
    viewer.status.session_change()
    assert viewer.clock.getDelayedCalls() == []


def test_the_stream_is_made_once_for_all(viewer: Viewer) -> None:
    others = [Visitor(viewer.site) for _ in range(9)]
    for each in (viewer, *others):
        each.ask("/status/stream")
    assert viewer.status.made == 1
    for step in range(3):
        viewer.status.sessions = step + 1
        viewer.clock.advance(1)
    assert viewer.status.made == 4
    assert all(events(each) == events(viewer) for each in others)
    for each in (viewer, *others):
        each.leave()
    viewer.clock.advance(60)
    assert viewer.status.made == 4, "nobody watches"


def test_one_that_comes_later_takes_no_event_from_others(viewer: Viewer) -> None:
    viewer.ask("/status/stream")
    viewer.clock.advance(0.5)
    viewer.status.sessions = 1
    late = Visitor(viewer.site)
    late.ask("/status/stream")
    viewer.clock.advance(0.5)
    assert [each["sessions"] for each in events(viewer)] == [0, 1]
    viewer.clock.advance(1)
    assert [each["sessions"] for each in events(late)] == [0, 1]
    for each in (viewer, late):
        each.leave()


def test_a_head_of_the_stream_ends(viewer: Viewer) -> None:
    assert viewer.ask("/status/stream", "HEAD")[::2] == (200, b"")
    assert viewer.ask("/livez")[0] == 200


def test_a_quiet_stream_shows_life(viewer: Viewer) -> None:
    viewer.ask("/status/stream")
    viewer.transport.clear()
    viewer.clock.pump([1] * 16)
    assert viewer.transport.value() == b"3\r\n:\n\n\r\n"
    viewer.leave()


def test_a_slow_reader_gets_the_newest_and_costs_one_event(viewer: Viewer) -> None:
    viewer.ask("/status/stream")
    viewer.channel.pauseProducing()
    for step in range(5):
        viewer.status.sessions = step + 1
        viewer.clock.advance(1)
    assert [each["sessions"] for each in events(viewer)] == [0]
    viewer.channel.resumeProducing()
    assert [each["sessions"] for each in events(viewer)] == [0, 5]
    viewer.leave()


def test_a_reader_that_reads_nothing_is_dropped(viewer: Viewer) -> None:
    viewer.ask("/status/stream")
    viewer.channel.pauseProducing()
    viewer.clock.pump([1] * 29)
    assert not viewer.transport.disconnected
    viewer.clock.pump([1] * 2)
    assert viewer.transport.disconnected
    viewer.leave()


def test_a_stream_that_is_read_is_never_dropped_and_leaves_room_for_probes(viewer: Viewer) -> None:
    streams = [viewer, *(Visitor(viewer.site) for _ in range(MOST_STREAMS - 1))]
    for each in streams:
        assert each.ask("/status/stream")[0] == 200
    late = Visitor(viewer.site)
    status, headers, _ = late.ask("/status/stream")
    assert (status, headers["retry-after"]) == (503, "10")
    crowd = [Visitor(viewer.site) for _ in range(2 * MOST_CONNECTIONS)]
    prober = Visitor(viewer.site)
    assert prober.ask("/livez")[0] == 200
    assert not any(each.transport.disconnected for each in streams)
    for each in (*streams, *crowd, late, prober):
        each.leave()


def test_a_stream_that_breaks_ends(viewer: Viewer, logged_failures) -> None:
    viewer.ask("/status/stream")
    viewer.status.broken = True
    viewer.clock.advance(1)
    assert viewer.transport.disconnected
    viewer.leave()
    assert len(logged_failures.flush()) == 1
