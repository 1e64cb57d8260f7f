"""Too many at the door, without sockets: who is hung up on, who is not, and how it is counted."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from envelope.config import Config
from envelope.front.eviction import CrowdLimits
from envelope.front.factory import FrontFactory
from envelope.front.limits import Limits
from envelope.front.metrics import ConnectionMetrics, ConnectionState, DropReason
from envelope.front.proxied import NOWHERE
from envelope.metrics import as_text, new_registry
from tests.support.frontfakes import HELLO, SWITCHED, Client, FakeGate, close_frame, frame, request

NOT_HERE = request(b"GET / HTTP/1.1")


class House:
    """One front, many clients."""

    def __init__(
        self, connections: int = 100, per_network: int = 100, handshakes: int = 100,
        at_once: bool = True,
    ) -> None:
        self.clock = Clock()
        self.gate = FakeGate(at_once)
        self.reasons: list[str] = []
        limits = Limits(crowd=CrowdLimits(connections, per_network, handshakes))
        self.front = FrontFactory(self.gate, self.clock, limits, dropped=self.reasons.append)

    def client(self, peer: Any = "203.0.113.7") -> Client:
        address = IPv4Address("TCP", peer, 1) if isinstance(peer, str) else peer
        return Client(self.gate, self.clock, factory=self.front, peer=address)

    def numbers(self) -> tuple[int, ...]:
        return tuple(self.front.number(state) for state in ConnectionState)


def test_the_oldest_of_a_network_makes_room() -> None:
    house = House(per_network=2)
    first, other = house.client(), house.client("192.0.2.1")
    second, third = house.client(), house.client()
    assert first.transport.aborted
    assert not any(client.gone for client in (other, second, third))
    first.leave_quietly()
    assert house.reasons == ["network"]
    assert third.send(HELLO) == SWITCHED


def test_too_many_handshakes_drop_one() -> None:
    house = House(handshakes=1)
    first, second = house.client(), house.client("192.0.2.1")
    assert (first.transport.aborted, second.gone) == (True, False)
    assert house.reasons == ["handshakes"]


def test_who_is_answered_has_as_long_to_go_as_others_to_come() -> None:
    house = House(connections=2)
    refused, waiting = house.client(), house.client()
    refused.send(NOT_HERE)
    assert house.numbers() == (1, 0, 1)
    house.client()
    assert (waiting.transport.aborted, refused.transport.aborted) == (True, False)
    house.client()
    assert refused.transport.aborted
    assert house.reasons == ["total", "total"]


def test_sessions_are_never_dropped() -> None:
    """Not even those whose rule is being made."""
    house = House(1, 1, 1, at_once=False)
    asking = house.client()
    asking.send(HELLO)
    crowd = [house.client() for _ in range(5)]
    assert house.numbers() == (1, 1, 4), "four are aborted and not gone yet"
    for client in crowd[:-1]:
        client.leave_quietly()
    house.gate.let_in()
    assert asking.received == SWITCHED
    assert house.numbers() == (1, 1, 0)
    house.client()
    assert not asking.gone


def test_who_comes_from_a_session_counts_again() -> None:
    """A peer that takes its time to leave is no session any more."""
    house = House(connections=1)
    client = house.client()
    client.send(HELLO + close_frame(1000))
    assert house.numbers() == (0, 0, 1)
    assert client.close_code() == 1000
    house.client()
    assert client.transport.aborted
    assert house.reasons == ["total"]


def test_a_session_that_is_closed_counts_from_its_close_frame_on() -> None:
    house = House()
    client = house.client()
    client.send(HELLO + frame(1, b"data"))
    assert client.close_code() == 1003
    assert not client.gone, "its own close frame is awaited"
    assert house.numbers() == (0, 0, 1)
    client.leave()
    assert house.numbers() == (0, 0, 0)


def test_behind_a_proxy_the_network_counts_once_it_is_known() -> None:
    house = House(per_network=1)
    first, second = house.client(NOWHERE), house.client(NOWHERE)
    for client in (first, second):
        client.transport.peerAddr = IPv4Address("TCP", "198.51.100.9", 1)
    first.send(b"GET ")
    assert not first.gone
    second.front.handshakeCompleted()
    assert first.transport.aborted
    assert not second.gone
    assert house.reasons == ["network"]


def test_who_was_dropped_is_not_placed_again() -> None:
    house = House(connections=1)
    first = house.client(NOWHERE)
    house.client(NOWHERE)
    first.transport.peerAddr = IPv4Address("TCP", "198.51.100.9", 1)
    first.front.handshakeCompleted()
    assert house.front.number("handshake") == 1


def test_room_is_made_when_descriptors_run_out() -> None:
    house = House()
    first, second = house.client(), house.client()
    assert house.front.make_room()
    assert (first.transport.aborted, second.gone) == (True, False)
    assert house.front.make_room()
    assert not house.front.make_room()
    assert house.reasons == ["descriptors"] * 2


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
def test_ends_that_are_not_the_peers_are_counted(how: Any, reason: str) -> None:
    house = House(at_once=False)
    client = house.client()
    how(client)
    assert client.gone
    client.leave()
    assert house.reasons == [reason]
    assert reason in set(DropReason)
    assert house.numbers() == (0, 0, 0)


def test_a_client_that_leaves_by_itself_is_not_counted() -> None:
    house = House()
    house.client().leave()
    refused = house.client()
    refused.send(NOT_HERE)
    refused.leave()
    assert house.reasons == []
    assert house.numbers() == (0, 0, 0)


def test_the_operators_limits_are_in_force() -> None:
    limits = Limits.of(Config(
        max_connections=1, max_connections_per_network=2, max_handshakes=3, request_timeout=4.0,
        max_header_bytes=2000,
    ))
    assert limits.crowd == CrowdLimits(1, 2, 3)
    assert (limits.request_seconds, limits.head_bytes) == (4.0, 2000)
    assert Limits.of(Config()) == Limits()


def test_the_metrics_show_it() -> None:
    registry = new_registry()
    metrics = ConnectionMetrics(registry)
    house = House()
    metrics.watch(house.front.number)
    house.client()
    metrics.dropped("network")
    text = as_text(registry).decode()
    assert 'envelope_connections{state="handshake"} 1.0' in text
    assert 'envelope_connections_dropped_total{reason="network"} 1.0' in text
    assert all(f'reason="{reason}"' in text for reason in DropReason)
    with pytest.raises(ValueError, match="not a valid"):
        metrics.dropped("a client's words")
