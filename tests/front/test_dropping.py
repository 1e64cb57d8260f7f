"""Too many connections, without sockets: which are dropped, which are not, how it is counted."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from envelope.config import Config
from envelope.front.eviction import ConnectionState, DropReason, EvictionLimits
from envelope.front.factory import FrontFactory
from envelope.front.limits import Limits
from envelope.front.metrics import ConnectionMetrics
from envelope.front.proxied import UNKNOWN
from envelope.metrics import as_text, new_registry
from tests.support.frontfakes import HELLO, SWITCHED, Client, FakeGate, close_frame, frame, request

NOT_HERE = request(b"GET / HTTP/1.1")


class Scene:
    """One front, many clients."""

    def __init__(
        self, connections: int = 100, per_network: int = 100, handshakes: int = 100,
        at_once: bool = True,
    ) -> None:
        self.clock = Clock()
        self.gate = FakeGate(at_once)
        self.reasons: list[DropReason] = []
        limits = Limits(eviction=EvictionLimits(connections, per_network, handshakes))
        self.front = FrontFactory(self.gate, self.clock, limits, dropped=self.reasons.append)

    def client(self, peer: Any = "203.0.113.7") -> Client:
        address = IPv4Address("TCP", peer, 1) if isinstance(peer, str) else peer
        return Client(self.gate, self.clock, factory=self.front, peer=address)

    def numbers(self) -> tuple[int, ...]:
        return tuple(self.front.count(state) for state in ConnectionState)


def test_the_oldest_of_a_network_is_dropped() -> None:
    scene = Scene(per_network=2)
    first, other = scene.client(), scene.client("192.0.2.1")
    second, third = scene.client(), scene.client()
    assert first.transport.aborted
    assert not any(client.gone for client in (other, second, third))
    first.leave_quietly()
    assert scene.reasons == ["network"]
    assert third.send(HELLO) == SWITCHED


def test_too_many_handshakes_drop_one() -> None:
    scene = Scene(handshakes=1)
    first, second = scene.client(), scene.client("192.0.2.1")
    assert (first.transport.aborted, second.gone) == (True, False)
    assert scene.reasons == ["handshakes"]


def test_an_answered_connection_is_as_new_as_an_accepted_one() -> None:
    scene = Scene(connections=2)
    refused, waiting = scene.client(), scene.client()
    refused.send(NOT_HERE)
    assert scene.numbers() == (1, 0, 1)
    scene.client()
    assert (waiting.transport.aborted, refused.transport.aborted) == (True, False)
    scene.client()
    assert refused.transport.aborted
    assert scene.reasons == ["total", "total"]


def test_sessions_are_never_dropped() -> None:
    """Not even those whose rule is being made."""
    scene = Scene(1, 1, 1, at_once=False)
    asking = scene.client()
    asking.send(HELLO)
    others = [scene.client() for _ in range(5)]
    assert scene.numbers() == (1, 1, 4), "four are aborted and not gone yet"
    for client in others[:-1]:
        client.leave_quietly()
    scene.gate.grant()
    assert asking.received == SWITCHED
    assert scene.numbers() == (1, 1, 0)
    scene.client()
    assert not asking.gone


def test_a_connection_after_its_session_counts_again() -> None:
    """A peer that takes its time to leave is no session any more."""
    scene = Scene(connections=1)
    client = scene.client()
    client.send(HELLO + close_frame(1000))
    assert scene.numbers() == (0, 0, 1)
    assert client.close_code() == 1000
    scene.client()
    assert client.transport.aborted
    assert scene.reasons == ["total"]


def test_a_session_that_is_closed_counts_from_its_close_frame_on() -> None:
    scene = Scene()
    client = scene.client()
    client.send(HELLO + frame(1, b"data"))
    assert client.close_code() == 1003
    assert not client.gone, "its own close frame is awaited"
    assert scene.numbers() == (0, 0, 1)
    client.leave()
    assert scene.numbers() == (0, 0, 0)


def test_behind_a_proxy_the_network_counts_once_it_is_known() -> None:
    scene = Scene(per_network=1)
    first, second = scene.client(UNKNOWN), scene.client(UNKNOWN)
    for client in (first, second):
        client.transport.peerAddr = IPv4Address("TCP", "198.51.100.9", 1)
    first.send(b"GET ")
    assert not first.gone
    second.front.handshakeCompleted()
    assert first.transport.aborted
    assert not second.gone
    assert scene.reasons == ["network"]


def test_a_dropped_connection_is_not_counted_again() -> None:
    scene = Scene(connections=1)
    first = scene.client(UNKNOWN)
    scene.client(UNKNOWN)
    first.transport.peerAddr = IPv4Address("TCP", "198.51.100.9", 1)
    first.front.handshakeCompleted()
    assert scene.front.count(ConnectionState.HANDSHAKE) == 1


def test_one_is_dropped_when_descriptors_run_out() -> None:
    scene = Scene()
    first, second = scene.client(), scene.client()
    assert scene.front.free_descriptor()
    assert (first.transport.aborted, second.gone) == (True, False)
    assert scene.front.free_descriptor()
    assert not scene.front.free_descriptor()
    assert scene.reasons == ["descriptors"] * 2


def _wait(client: Client) -> None:
    client.clock.advance(8)


def _linger(client: Client) -> None:
    client.send(NOT_HERE)
    client.clock.advance(2)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (_wait, "timeout"),
        (_linger, "lingering"),
        (lambda client: client.send(b"\x16\x03\x01"), "malformed"),
        (lambda client: client.send(HELLO, b"x" * 5000), "early-data"),
    ],
    ids=["timeout", "lingering", "malformed", "early-data"],
)
def test_connections_that_the_service_ends_are_counted(how: Any, reason: str) -> None:
    scene = Scene(at_once=False)
    client = scene.client()
    how(client)
    assert client.gone
    client.leave()
    assert scene.reasons == [reason]
    assert reason in set(DropReason)
    assert scene.numbers() == (0, 0, 0)


def test_a_client_that_leaves_by_itself_is_not_counted() -> None:
    scene = Scene()
    scene.client().leave()
    refused = scene.client()
    refused.send(NOT_HERE)
    refused.leave()
    assert scene.reasons == []
    assert scene.numbers() == (0, 0, 0)


def test_the_operators_limits_are_in_force() -> None:
    limits = Limits.of(Config(
        max_connections=1, max_connections_per_network=2, max_handshakes=3, request_timeout=4.0,
        max_header_bytes=2000,
    ))
    assert limits.eviction == EvictionLimits(1, 2, 3)
    assert (limits.request_seconds, limits.head_bytes) == (4.0, 2000)
    assert Limits.of(Config()) == Limits()


def test_the_metrics_show_states_and_reasons() -> None:
    registry = new_registry()
    metrics = ConnectionMetrics(registry)
    scene = Scene()
    metrics.watch(scene.front.count)
    scene.client()
    metrics.dropped(DropReason.NETWORK)
    text = as_text(registry).decode()
    assert 'envelope_connections{state="handshake"} 1.0' in text
    assert 'envelope_connections_dropped_total{reason="network"} 1.0' in text
    assert all(f'reason="{reason}"' in text for reason in DropReason)
