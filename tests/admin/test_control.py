"""The control socket's format and protocol, byte by byte, without sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from envelope.admin.control import (
    ANSWER_WAIT,
    MOST_CONNECTIONS,
    REQUEST_WAIT,
    ControlFactory,
    ControlProtocol,
    Operations,
    Revoked,
    revoke,
)
from envelope.admin.wire import (
    MOST_REQUEST,
    Query,
    Revocation,
    RevokeAll,
    RevokeIds,
    RevokeNetwork,
    SessionsQuery,
    StatusQuery,
    WireError,
    query_line,
    read_query,
)
from tests.sessions.test_registry import World
from tests.support.leakdetector import LoggedFailures

STATUS = {"version": "9", "sessions": [{"id": "a"}]}


@pytest.mark.parametrize(("line", "query"), [
    (query_line("status"), StatusQuery()),
    (query_line("sessions"), SessionsQuery()),
    (query_line("revoke", all=True), RevokeAll()),
    (query_line("revoke", ids=["a", "b", "a"]), RevokeIds(("a", "b"))),
    (query_line("revoke", network="192.0.2.7"), RevokeNetwork(ip_network("192.0.2.7/32"))),
    (query_line("revoke", network="192.0.2.7/24"), RevokeNetwork(ip_network("192.0.2.0/24"))),
    (query_line("revoke", network="2001:db8::/32"), RevokeNetwork(ip_network("2001:db8::/32"))),
])
def test_requests(line: bytes, query: Query) -> None:
    assert read_query(line.rstrip(b"\n")) == query


@pytest.mark.parametrize("line", [
    b"", b"status", b"[]", b"{}", b"null", b"\xff", b'{"command": "status"}',
    b'{"version": 2, "command": "status"}', b'{"version": "1", "command": "status"}',
    b'{"version": true, "command": "status"}', b'{"version": 1.0, "command": "status"}',
    b'{"version": 1}', b'{"version": 1, "command": "stop"}',
    b'{"version": 1, "command": ["status"]}',
    b'{"version": 1, "command": "status", "verbose": true}',
    b'{"version": 1, "command": "status", "command": "sessions"}',
    *(query_line("revoke", **members) for members in (
        {}, {"ids": []}, {"ids": "a"}, {"ids": [1]}, {"ids": ["a"], "all": True}, {"all": False},
        {"all": 1}, {"network": "nowhere"}, {"network": 7}, {"all": True, "force": True},
        {"network": "192.0.2.0/24", "ids": ["a"]},
    )),
    b"[" * 100_000,
])
def test_requests_that_are_refused(line: bytes) -> None:
    """Each in one line, which repeats nothing of the request."""
    with pytest.raises(WireError) as caught:
        read_query(line.rstrip(b"\n"))
    assert str(caught.value).isprintable()


@given(st.binary())
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    with suppress(WireError):
        read_query(line)


class Peer:
    """Connections to a service of which the test plays the part."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.revoked: list[Query] = []
        self.result: Deferred[Revoked] = succeed(Revoked(1))
        self.status: Callable[[], dict[str, Any]] = lambda: STATUS
        self.factory = ControlFactory(
            Operations(self.read, self.revoke), self.clock
        )

    async def read(self) -> dict[str, Any]:
        return self.status()

    def revoke(self, query: Query) -> Deferred[Revoked]:
        self.revoked.append(query)
        return self.result

    def connect(self) -> tuple[ControlProtocol, StringTransport]:
        protocol, transport = self.factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, line: bytes) -> dict[str, Any]:
        protocol, transport = self.connect()
        protocol.dataReceived(line)
        protocol.connectionLost()
        assert transport.disconnecting
        answer = transport.value()
        assert answer.endswith(b"\n")
        assert answer.count(b"\n") == 1
        members = json.loads(answer)
        assert members.pop("version") == 1
        return members


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_answers(peer: Peer) -> None:
    assert peer.ask(query_line("status")) == {"status": STATUS}
    assert peer.ask(query_line("sessions")) == {"sessions": [{"id": "a"}]}
    peer.result = succeed(Revoked(1, ["b"]))
    line = query_line("revoke", ids=["a", "b"])
    assert peer.ask(line) == {"revoked": 1, "unknown": ["b"]}
    assert peer.revoked == [RevokeIds(("a", "b"))]
    assert "error" in peer.ask(b"GET / HTTP/1.1\r\n")


def test_what_follows_the_request_is_ignored(peer: Peer) -> None:
    peer.ask(query_line("revoke", all=True) * 2)
    assert peer.revoked == [RevokeAll()]


def test_a_request_in_pieces(peer: Peer) -> None:
    protocol, transport = peer.connect()
    for byte in query_line("status"):
        assert transport.value() == b""
        protocol.dataReceived(bytes([byte]))
    assert b'"status"' in transport.value()
    protocol.connectionLost()


def test_a_revocation_is_answered_when_the_grants_are_gone(peer: Peer) -> None:
    peer.result = Deferred()
    protocol, transport = peer.connect()
    protocol.dataReceived(query_line("revoke", all=True))
    peer.clock.advance(REQUEST_WAIT + 1)
    assert transport.value() == b""
    assert not transport.disconnecting
    peer.result.callback(Revoked(2))
    assert json.loads(transport.value()) == {"version": 1, "revoked": 2, "unknown": []}
    protocol.connectionLost()
    assert not peer.clock.getDelayedCalls()


def test_a_peer_that_sends_no_more_gets_its_answer(peer: Peer) -> None:
    peer.result = Deferred()
    protocol, transport = peer.connect()
    protocol.dataReceived(query_line("revoke", all=True))
    protocol.readConnectionLost()
    assert not transport.disconnected
    peer.result.callback(Revoked(2))
    assert b'"revoked": 2' in transport.value()
    protocol.connectionLost()
    protocol, transport = peer.connect()
    protocol.dataReceived(query_line("status")[:-1])
    protocol.readConnectionLost()
    assert transport.disconnected
    protocol.connectionLost()


def test_a_peer_that_leaves_before_its_answer(peer: Peer) -> None:
    peer.result = Deferred()
    protocol, transport = peer.connect()
    protocol.dataReceived(query_line("revoke", all=True))
    protocol.connectionLost(Failure(ConnectionDone()))
    peer.result.callback(Revoked(2))
    assert transport.value() == b""
    assert not peer.clock.getDelayedCalls()


def test_a_failure_is_one_line(peer: Peer, logged_failures: LoggedFailures) -> None:
    peer.result = fail(RuntimeError("a secret detail"))
    answer = peer.ask(query_line("revoke", all=True))
    assert answer == {"error": "the service failed to answer; its log says why"}
    assert len(logged_failures.flush()) == 1


@pytest.mark.parametrize("sent", [b"", b'{"version": 1, '])
def test_a_peer_that_does_not_ask_is_dropped(peer: Peer, sent: bytes) -> None:
    protocol, transport = peer.connect()
    protocol.dataReceived(sent)
    peer.clock.advance(REQUEST_WAIT)
    assert transport.disconnected
    protocol.connectionLost()
    assert not peer.clock.getDelayedCalls()


def test_a_peer_that_does_not_take_its_answer_is_dropped(peer: Peer) -> None:
    protocol, transport = peer.connect()
    protocol.dataReceived(query_line("status"))
    peer.clock.advance(ANSWER_WAIT)
    assert transport.disconnected
    protocol.connectionLost()


def test_a_request_that_is_too_long(peer: Peer) -> None:
    protocol, transport = peer.connect()
    protocol.dataReceived(b"x" * (MOST_REQUEST - 1))
    assert transport.value() == b""
    protocol.dataReceived(b"x")
    assert b"error" in transport.value()
    protocol.connectionLost()
    assert "error" in peer.ask(b" " * MOST_REQUEST + query_line("status"))


def test_of_too_many_connections_the_oldest_is_dropped(peer: Peer) -> None:
    connections = [peer.connect() for _ in range(MOST_CONNECTIONS + 1)]
    assert [transport.disconnected for _, transport in connections] == [
        True, *[False] * MOST_CONNECTIONS
    ]
    peer.factory.abort_all()
    assert all(transport.disconnected for _, transport in connections)
    for protocol, _ in connections:
        protocol.connectionLost()
    assert not peer.clock.getDelayedCalls()


@pytest.mark.parametrize(("what", "number", "unknown"), [
    (RevokeAll(), 3, []),
    (RevokeNetwork(ip_network("203.0.113.7/32")), 2, []),
    (RevokeNetwork(ip_network("192.0.2.0/24")), 0, []),
    (RevokeIds(("nosuch",)), 0, ["nosuch"]),
])
def test_what_is_revoked(what: Revocation, number: int, unknown: list[str]) -> None:
    """The answer comes when the firewall has removed the last of the grants."""
    world = World(max_clients=3)
    for text in ("203.0.113.7", "203.0.113.7", "203.0.113.8"):
        world.admit(ip_address(text))
    world.firewall.hold_back = True
    answers: list[Revoked] = []
    Deferred.fromCoroutine(revoke(world.sessions, what)).addCallback(answers.append)
    assert bool(answers) == (not number)
    world.firewall.release()
    assert answers == [Revoked(number, unknown)]
    assert len(world.sessions) == 3 - number
