"""A connection from accept to the end, without sockets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from envelope.firewall import FirewallError
from envelope.front.factory import FrontFactory
from envelope.front.limits import Limits
from envelope.front.proxied import UNKNOWN
from envelope.sessions.admission import Load
from envelope.sessions.answers import FULL, STOPPING, Refused
from tests.support.frontfakes import (
    HELLO,
    PATH,
    SWITCHED,
    UPGRADE,
    Client,
    FakeGate,
    close_frame,
    frame,
    request,
)


@pytest.fixture
def logged() -> Any:
    """Everything that is logged, as text, with its level."""
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def above_debug(events: list[Any]) -> list[Any]:
    return [event for event in events if event["log_level"] > LogLevel.debug]


# -- let in --------------------------------------------------------------------------------


def test_the_request_of_the_documentation_is_accepted() -> None:
    """An 8-character key, curl's headers, our sub-protocol."""
    client = Client()
    client.send(request(headers=(
        b"Host: localhost:8880\r\nUser-Agent: curl/8\r\nAccept: */*\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Protocol: net.measurementlab.envelope\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGVsbG8K\r\n"
    )))
    assert client.received == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: net.measurementlab.envelope\r\n"
        b"Sec-WebSocket-Accept: //dJbGO3MDD1eDqm6w/w9EeyE2o=\r\n\r\n"
    )
    client.leave()


def test_no_byte_goes_out_before_the_rule_is_in_force() -> None:
    client = Client(FakeGate(at_once=False))
    assert client.send(HELLO) == b""
    client.gate.grant()
    assert client.received == SWITCHED
    client.leave()


def test_a_held_session_sends_nothing_and_has_no_timer() -> None:
    client = Client()
    client.send(HELLO)
    assert not client.clock.getDelayedCalls()
    client.clock.advance(600)
    assert client.received == SWITCHED
    assert client.gate.sessions[0].heard == []
    client.leave()
    assert client.gate.sessions[0].heard == ["left"]
    assert client.gate.counted == []


def test_a_transport_need_not_be_tcp() -> None:
    gate = FakeGate()
    front = FrontFactory(gate, Clock()).buildProtocol(None)
    assert front is not None
    transport = StringTransport(peerAddress=UNIXAddress("/run/x"))
    front.makeConnection(transport)
    front.dataReceived(HELLO)
    assert transport.value() == SWITCHED
    assert gate.addresses == [None]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (IPv4Address("TCP", "203.0.113.7", 1), "203.0.113.7"),
        (IPv6Address("TCP", "2001:db8::7", 1), "2001:db8::7"),
        (IPv6Address("TCP", "::ffff:203.0.113.7", 1), "203.0.113.7"),
    ],
)
def test_the_gate_is_told_where_the_client_is(peer: Any, address: str) -> None:
    client = Client(peer=peer)
    client.send(HELLO)
    assert [str(one) for one in client.gate.addresses] == [address]


def test_behind_a_proxy_the_address_is_taken_once_it_is_known() -> None:
    client = Client(peer=UNKNOWN)
    client.transport.peerAddr = IPv4Address("TCP", "198.51.100.9", 1)
    client.send(HELLO[:10])
    client.send(HELLO[10:])
    assert str(client.gate.addresses[0]) == "198.51.100.9"


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(HELLO) + 6), max_size=20), st.booleans())
def test_the_answer_does_not_depend_on_how_bytes_are_split(cuts: list[int], at_once: bool) -> None:
    data = HELLO + frame(9)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    client = Client(FakeGate(at_once))
    client.send(*(data[a:b] for a, b in pairwise(edges)))
    if not at_once:
        client.gate.grant()
    assert client.received == SWITCHED + b"\x8a\x00"
    client.leave()


def test_a_request_may_arrive_byte_by_byte() -> None:
    client = Client()
    assert client.dribble(HELLO + frame(9, b"hi")) == SWITCHED + b"\x8a\x02hi"


def test_early_bytes_are_read_after_the_101() -> None:
    client = Client(FakeGate(at_once=False))
    client.send(HELLO + frame(9, b"a"), frame(9, b"b"))
    client.gate.grant()
    assert client.received == SWITCHED + b"\x8a\x01a\x8a\x01b"


@pytest.mark.parametrize("together", [True, False])
def test_too_many_early_bytes_drop_the_connection(together: bool) -> None:
    client = Client(FakeGate(at_once=False))
    client.send(*([HELLO + b"x" * 4096] if together else [HELLO, b"x" * 4096]))
    assert not client.gone
    client.send(b"x")
    assert client.transport.aborted
    client.send(b"x" * 10000)
    client.leave()
    assert client.gate.cancelled == 1
    assert client.received == b""


def test_losing_the_client_cancels_the_admission() -> None:
    client = Client(FakeGate(at_once=False))
    client.send(HELLO)
    client.leave()
    assert client.gate.cancelled == 1
    assert client.gate.counted == ["websocket-setup-failure"]
    assert client.received == b""


def test_a_session_after_the_client_was_lost_is_told_at_once() -> None:
    """As when the rule came into force in the same moment that the client left in."""
    gate = FakeGate(at_once=False)
    gate._cancel = lambda asked: gate.grant()  # type: ignore[method-assign,assignment]
    client = Client(gate)
    client.send(HELLO)
    client.leave()
    assert gate.sessions[0].heard == ["left"]
    assert client.received == b""


def test_a_failure_after_the_client_was_lost_is_ignored(logged: list[Any]) -> None:
    gate = FakeGate(at_once=False)
    gate._cancel = lambda asked: gate.fail(FirewallError("late"))  # type: ignore[method-assign]
    client = Client(gate)
    client.send(HELLO)
    client.leave()
    assert client.received == b""
    assert above_debug(logged) == []


# -- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [(FirewallError("no"), 500), (Refused(STOPPING), 503), (Refused(FULL), 503)],
)
def test_a_failure_of_the_gate_is_answered(error: Exception, status: int) -> None:
    client = Client(FakeGate(at_once=False))
    client.send(HELLO)
    client.gate.fail(error)
    assert client.status == status
    assert client.transport.disconnecting
    client.leave()
    assert client.gate.counted == []
    assert client.gate.cancelled == 0


def test_an_unexpected_error_of_the_gate_is_logged_and_answered(logged: list[Any]) -> None:
    client = Client(FakeGate(at_once=False))
    client.send(HELLO)
    client.gate.fail(ZeroDivisionError("oops"))
    assert client.status == 500
    assert b"oops" not in client.received
    assert [event["log_level"] for event in above_debug(logged)] == [LogLevel.critical]


def test_an_error_after_admission_is_logged_and_drops_the_client(logged: list[Any]) -> None:
    client = Client()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    client.factory.channels.open = broken  # type: ignore[assignment,method-assign]
    client.send(HELLO + frame(9))
    assert client.transport.aborted
    client.leave()
    assert client.gate.sessions[0].heard == ["left"]
    assert len(above_debug(logged)) == 1


TOKEN = b"/v0/envelope/access?access_token="
REFUSALS: dict[str, tuple[bytes, int, bytes]] = {
    "another path": (request(b"GET /metrics HTTP/1.1"), 404, b""),
    "path before token": (request(b"POST /?access_token=bad HTTP/1.1"), 404, b""),
    "no token": (request(b"GET /v0/envelope/access HTTP/1.1"), 401, b"WWW-Authenticate: Bearer"),
    "empty token": (request(b"GET " + TOKEN + b" HTTP/1.1"), 401, b"WWW-Authenticate: Bearer"),
    "bad token": (request(b"GET " + TOKEN + b"x HTTP/1.1"), 401, b'error="invalid_token"'),
    "token before method": (request(b"POST " + TOKEN + b"x HTTP/1.1"), 401, b""),
    "method": (request(b"POST " + PATH + b" HTTP/1.1"), 405, b"Allow: GET\r\n"),
    "method in small letters": (request(b"get " + PATH + b" HTTP/1.1"), 405, b"Allow: GET\r\n"),
    "no upgrade": (
        request(headers=b"Host: x\r\n"), 426, b"Sec-WebSocket-Version: 13\r\n"
    ),
    "version 8": (
        request(headers=UPGRADE.replace(b": 13", b": 8")), 426, b"Sec-WebSocket-Version: 13\r\n"
    ),
    "no key": (
        request(headers=UPGRADE.replace(b"Key", b"Kex")), 400, b"Sec-WebSocket-Version: 13\r\n"
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_answered_and_disconnected(name: str) -> None:
    data, status, header = REFUSALS[name]
    client = Client()
    client.send(data + b"GET / HTTP/1.1\r\nHost: pipelined\r\n\r\n")
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert client.status == status
    assert header in head + b"\r\n"
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert client.received.count(b"HTTP/1.1 ") == 1
    assert b"Server:" not in head
    assert client.transport.disconnecting
    assert client.gate.sessions == []
    client.leave()


def test_a_refused_client_has_two_seconds_to_close() -> None:
    client = Client()
    client.send(request(b"GET / HTTP/1.1"))
    client.clock.advance(1.9)
    assert not client.transport.aborted
    client.clock.advance(0.2)
    assert client.transport.aborted
    assert not client.clock.getDelayedCalls()
    client.leave()


def test_head_is_answered_without_a_body() -> None:
    client = Client()
    client.send(request(b"HEAD " + PATH + b" HTTP/1.1"))
    assert client.status == 405
    assert client.received.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 27\r\n" in client.received


def test_a_full_service_answers_503() -> None:
    client = Client()
    client.gate.load = Load(max_clients=0)
    client.send(HELLO)
    assert client.status == 503
    assert b"\r\nRetry-After: " in client.received


def test_bytes_after_a_refusal_are_ignored() -> None:
    client = Client()
    client.send(request(b"POST / HTTP/1.1", b"Host: x\r\nContent-Length: 100000\r\n"))
    once = client.received
    client.front.dataReceived(b"x" * 100000)
    client.front.dataReceived(HELLO)
    assert client.received == once
    assert len(client.gate.asked) == 1
    client.leave()


# -- waiting -------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET", HELLO[:-2]])
def test_a_request_has_eight_seconds(sent: bytes) -> None:
    client = Client()
    client.send(sent)
    client.clock.advance(7.9)
    assert not client.gone
    client.clock.advance(0.2)
    assert client.transport.aborted
    client.leave()
    assert client.received == b""


def test_slow_bytes_do_not_extend_the_time_limit() -> None:
    client = Client()
    for byte in HELLO[:10]:
        client.send(bytes([byte]))
        client.clock.advance(1)
    assert client.transport.aborted


@pytest.mark.parametrize("request_seconds", [1.0, 8.0])
def test_the_request_timeout_does_not_limit_the_answer(request_seconds: float) -> None:
    """The firewall may take 9 s to refuse (`ALLOW_WAIT`), and the client has to be told."""
    client = Client(FakeGate(at_once=False), limits=Limits(request_seconds=request_seconds))
    client.clock.advance(request_seconds - 0.1)
    client.send(HELLO)
    client.clock.advance(9)
    assert not client.gone
    client.gate.fail(FirewallError("the tool did not answer in time"))
    assert client.status == 500
    client.leave()


def test_the_limits_are_arguments() -> None:
    client = Client(limits=Limits(request_seconds=1, head_bytes=100))
    client.clock.advance(1)
    assert client.transport.aborted
    small = Client(limits=Limits(head_bytes=100))
    small.send(HELLO)
    assert small.status == 431


def test_a_port_scan_is_not_logged(logged: list[Any]) -> None:
    Client().leave()
    assert above_debug(logged) == []


def test_tokens_are_never_logged(logged: list[Any]) -> None:
    secret = b"c2VjcmV0"
    for data in (
        request(b"GET " + TOKEN + secret + b" HTTP/1.1"),
        request(b"GET " + PATH + b"&x=" + secret + b" HTTP/1.1"),
        b"GET " + TOKEN + secret + b"\r\n",
        b"GET " + TOKEN + secret + b" HTTP/1.1\r\nBad Header\r\n\r\n",
    ):
        client = Client()
        client.send(data)
        client.leave()
    assert secret.decode() not in repr(logged)


# -- the end -------------------------------------------------------------------------------


def held(revoke_at_once: bool = True) -> Client:
    client = Client(FakeGate(revoke_at_once=revoke_at_once))
    client.send(HELLO)
    return client


def test_a_close_frame_is_answered_once_the_grant_is_revoked() -> None:
    client = held(revoke_at_once=False)
    client.send(close_frame(1000, b"bye"))
    assert client.frames() == []
    assert not client.gone
    client.gate.sessions[0].revoked()
    assert client.frames() == [(8, b"\x03\xe8")]
    assert client.transport.disconnecting
    assert client.transport.producer is None
    client.leave()


def test_a_client_that_closes_and_disconnects_gets_no_answer() -> None:
    client = held(revoke_at_once=False)
    client.send(close_frame(1000))
    client.leave()
    client.gate.sessions[0].revoked()
    assert client.frames() == []
    assert client.gate.sessions[0].heard == ["closed", "left"]
    assert not client.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(1, b"x", mask=b""), 1002),
        (close_frame(1005), 1002),
        (close_frame(1000, b"\xff"), 1007),
        (frame(9) * 101, 1008),
    ],
    ids=["unmasked", "reserved code", "bad UTF-8", "flood"],
)
def test_violations_are_answered_once_the_grant_is_revoked(data: bytes, code: int) -> None:
    client = held(revoke_at_once=False)
    client.send(data, frame(9), b"\xff" * 1000)
    assert client.close_code() is None
    assert client.gate.sessions[0].heard == ["closed"]
    client.gate.sessions[0].revoked()
    assert client.close_code() == code
    assert client.transport.disconnecting
    client.leave()


@pytest.mark.parametrize("behind", [b"", close_frame(1000), frame(1, b"", mask=b""), b"\xff" * 99])
def test_data_ends_the_session_whatever_comes_after_it(behind: bytes) -> None:
    client = held(revoke_at_once=False)
    client.send(frame(1, b"hello"), behind)
    session = client.gate.sessions[0]
    assert session.heard == ["data"]
    assert client.close_code() is None
    session.carrier.close(1003, "data")
    assert client.frames() == [(8, b"\x03\xebdata")]
    if behind:
        assert client.transport.disconnecting
    client.clock.advance(1)
    assert client.transport.disconnecting
    client.leave()


def test_one_message_is_reported_once() -> None:
    client = held(revoke_at_once=False)
    client.send(frame(1, b"a", fin=False), frame(0, b"b"), frame(2, b"c"))
    assert client.gate.sessions[0].heard == ["data"]


@pytest.mark.parametrize(
    ("code", "reason"), [(4000, "deadline"), (4001, "revoked"), (1001, "stopping")]
)
def test_the_service_closes_and_the_client_answers(code: int, reason: str) -> None:
    client = held()
    client.gate.sessions[0].carrier.close(code, reason)
    assert client.frames() == [(8, code.to_bytes(2, "big") + reason.encode())]
    assert not client.gone
    client.send(close_frame(code))
    assert client.transport.disconnecting
    client.clock.advance(2)
    assert client.transport.aborted
    client.leave()
    assert "closed" not in client.gate.sessions[0].heard


def test_a_client_without_close_reply_is_disconnected_then_dropped() -> None:
    client = held()
    client.gate.sessions[0].carrier.close(4000, "deadline")
    client.clock.advance(0.9)
    assert not client.gone
    client.clock.advance(0.2)
    assert client.transport.disconnecting
    assert not client.transport.aborted
    client.clock.advance(2)
    assert client.transport.aborted
    client.leave()


@pytest.mark.parametrize("data", [frame(1, b"x"), frame(9), frame(9, mask=b""), b"\0" * 50])
def test_nothing_is_sent_after_our_close_frame(data: bytes) -> None:
    client = held()
    session = client.gate.sessions[0]
    session.carrier.close(4000, "deadline")
    once = client.received
    client.send(data, frame(8))
    assert client.received == once
    assert session.heard == []
    assert client.transport.disconnecting


def test_a_session_may_close_only_once() -> None:
    client = held()
    carrier = client.gate.sessions[0].carrier
    carrier.close(4000, "deadline")
    carrier.close(1001, "stopping")
    assert client.close_code() == 4000
    client.leave()
    carrier.close(1001, "stopping")
    carrier.abort()
    assert not client.transport.aborted


def test_a_carrier_without_a_channel_closes_nothing() -> None:
    client = Client(FakeGate(at_once=False))
    client.send(HELLO)
    client.front.close(1001, "stopping")
    assert client.received == b""


def test_a_carrier_can_be_aborted() -> None:
    client = held()
    client.gate.sessions[0].carrier.abort()
    assert client.transport.aborted


def test_reading_pauses_while_the_peer_does_not_read() -> None:
    client = held()
    assert client.transport.producer is None, "nothing is written to a silent client"
    client.send(frame(9))
    assert client.transport.streaming
    producer = client.transport.producer
    producer.pauseProducing()
    assert client.transport.producerState == "paused"
    producer.resumeProducing()
    assert client.transport.producerState == "producing"


MOST_SURPLUS = Limits().closing_bytes


@pytest.mark.parametrize(
    "sent",
    [request(b"GET / HTTP/1.1"), HELLO + close_frame(1000), HELLO + frame(9, mask=b""),
     HELLO + frame(2, b"x")],
    ids=["refused", "closed", "violation", "data"],
)
@pytest.mark.parametrize("revoke_at_once", [True, False])
def test_reading_stops_when_much_arrives_after_the_end(sent: bytes, revoke_at_once: bool) -> None:
    """Whether the grant is revoked yet or not; the peer is dropped in time."""
    client = Client(FakeGate(revoke_at_once=revoke_at_once))
    client.send(sent)
    client.front.dataReceived(b"\x82\xff" + b"x" * (MOST_SURPLUS - 2))
    assert client.transport.producerState == "producing"
    client.front.dataReceived(b"x")
    assert client.transport.producerState == "paused"
    assert client.transport.producer is None, "it would resume reading"
    for session in client.gate.sessions:
        session.revoked()
        if session.heard == ["data"]:
            session.carrier.close(1003, "data")
    assert client.transport.disconnecting
    client.clock.advance(2)
    assert client.transport.aborted
    client.leave()


def test_a_close_frame_is_not_awaited_from_a_peer_that_floods() -> None:
    client = held()
    client.gate.sessions[0].carrier.close(4000, "deadline")
    client.send(b"\x82\xff" + b"\x7f" * 7 + b"x" * MOST_SURPLUS)
    assert client.transport.producerState == "paused"
    assert client.transport.disconnecting
    client.clock.advance(2)
    assert client.transport.aborted
    client.leave()


# -- all of them ---------------------------------------------------------------------------


def fired(waiting: Any) -> bool:
    return bool(waiting.called)


def test_a_factory_without_connections_is_empty() -> None:
    assert fired(FrontFactory(FakeGate(), Clock()).when_empty())


def test_a_factory_is_empty_once_the_last_connection_is_lost() -> None:
    one = held()
    other = Client(one.gate, one.clock, factory=one.factory)
    idle = Client(one.gate, one.clock, factory=one.factory)
    other.send(HELLO)
    waiting, given_up = one.factory.when_empty(), one.factory.when_empty()
    assert idle.transport.aborted, "it has asked for nothing"
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    for client in (one, other, idle):
        assert not fired(waiting)
        client.leave()
    assert fired(waiting)


def test_all_connections_can_be_aborted() -> None:
    one = held()
    other = Client(one.gate, one.clock, factory=one.factory)
    one.factory.abort_all()
    assert one.transport.aborted
    assert other.transport.aborted


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans(), st.booleans())
def test_random_bytes_never_break_a_connection(
    pieces: list[bytes], let_in_first: bool, slow: bool
) -> None:
    client = Client(FakeGate(at_once=True, revoke_at_once=not slow))
    if let_in_first:
        client.send(HELLO)
    client.send(*pieces)
    client.clock.pump([1] * 12)
    client.leave()


# -- TLS -----------------------------------------------------------------------------------


class Recorder(Protocol):
    """A TLS client's application."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


def _server_context() -> SSL.Context:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "envelope.example")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(1)
        .not_valid_before(start).not_valid_after(start + timedelta(days=9000))
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class Creator:
    """Makes the TLS of one side; the client looks at no certificate."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class TLS:
    """A front and a client with TLS between them, in memory."""

    def __init__(self, gate: FakeGate) -> None:
        self.clock = Clock()
        self.front = FrontFactory(gate, self.clock)
        self.app = Recorder()
        server = TLSMemoryBIOFactory(
            Creator(_server_context()), False, self.front, clock=self.clock
        ).buildProtocol(None)
        client = TLSMemoryBIOFactory(
            Creator(SSL.Context(SSL.TLS_CLIENT_METHOD)),
            True,
            Factory.forProtocol(lambda: self.app),  # type: ignore[arg-type]
            clock=self.clock,
        ).buildProtocol(None)
        address = IPv4Address("TCP", "203.0.113.7", 4711)
        self.io = FakeTransport(server, isServer=True, peerAddress=address)
        self.pump: IOPump = connect(
            server, self.io, client, FakeTransport(client, isServer=False), clock=self.clock
        )
        self.flush()

    def send(self, data: bytes) -> bytes:
        """Send as the client, and return all that has come back."""
        self.app.transport.write(data)
        self.flush()
        return self.app.received

    def flush(self) -> None:
        for _ in range(3):
            self.clock.advance(0)
            self.pump.flush()


def test_a_session_over_tls() -> None:
    gate = FakeGate()
    tls = TLS(gate)
    assert tls.send(HELLO) == SWITCHED
    assert tls.send(frame(9, b"x")) == SWITCHED + b"\x8a\x01x"
    assert str(gate.addresses[0]) == "203.0.113.7"
    assert tls.send(close_frame(1000)).endswith(b"\x88\x02\x03\xe8")
    assert tls.app.lost
    assert gate.sessions[0].heard == ["closed", "left"]
    assert not tls.front.connections
    assert not tls.clock.getDelayedCalls()


def test_a_refusal_over_tls() -> None:
    tls = TLS(FakeGate())
    assert tls.send(request(b"GET / HTTP/1.1")).startswith(b"HTTP/1.1 404 ")
    assert tls.app.received.endswith(b"\n")
    assert tls.app.lost
    assert not tls.clock.getDelayedCalls()


def test_a_refused_tls_peer_without_close_notify_is_dropped() -> None:
    tls = TLS(FakeGate())
    tls.app.transport.write(request(b"GET / HTTP/1.1"))
    tls.clock.advance(0)
    tls.io.protocol.dataReceived(tls.app.transport.transport.getOutBuffer())
    tls.clock.advance(0)
    assert not tls.io.disconnecting, "it waits for the close_notify"
    tls.clock.advance(2)
    assert tls.io.disconnecting
    tls.io.protocol.connectionLost(Failure(ConnectionResetError()))
    assert not tls.clock.getDelayedCalls()


def test_a_held_tls_peer_without_close_reply_is_dropped() -> None:
    gate = FakeGate()
    tls = TLS(gate)
    tls.send(HELLO)
    gate.sessions[0].carrier.close(4000, "deadline")
    tls.clock.advance(1)
    assert not tls.io.disconnecting
    tls.clock.advance(2)
    assert tls.io.disconnecting
    tls.flush()
    assert tls.app.received.endswith(b"\x88\x0a\x0f\xa0deadline")
    assert not tls.clock.getDelayedCalls()


def test_a_lost_tls_peer_is_not_logged(logged: list[Any]) -> None:
    gate = FakeGate()
    tls = TLS(gate)
    tls.send(HELLO)
    tls.io.protocol.connectionLost(Failure(ConnectionResetError()))
    assert gate.sessions[0].heard == ["left"]
    assert above_debug(logged) == []
    assert not tls.clock.getDelayedCalls()


def test_no_bytes_for_eight_seconds_under_tls() -> None:
    tls = TLS(FakeGate())
    tls.clock.advance(8)
    assert tls.io.disconnecting
    tls.flush()
    assert not tls.clock.getDelayedCalls()
