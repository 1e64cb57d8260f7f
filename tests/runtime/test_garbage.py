"""A connection leaves no reference cycles, however it ends.

The garbage collector finds cycles only by going through all objects, which with thousands of
sessions blocks the reactor for too long.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from envelope.config import Config
from envelope.credentials.tls import ServerTLS
from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from envelope.front.factory import FrontFactory
from envelope.metrics import new_registry
from envelope.protocol import End
from envelope.runtime.transports import TLSFactory
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from tests.credentials.test_tls import Pair, client
from tests.support.frontfakes import HELLO, Client, close_frame, frame, request
from tests.support.scriptedfirewall import ScriptedFirewall

_VISITS = 20


class World:
    """A front factory and its sessions, without sockets or kernel."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.firewall = ScriptedFirewall()
        self.sessions = Sessions(
            self.clock, Config(token_required=False, firewall="none", max_clients=1000),
            self.firewall, self._verify, SessionMetrics(new_registry()), self.clock.seconds,
        )
        self.factory = FrontFactory(self.sessions, self.clock)

    def client(self) -> Client:
        return Client(clock=self.clock, factory=self.factory)

    @staticmethod
    def _verify(token: str, now: float) -> Claims | TokenRefusal:
        if token == "good":
            return Claims("locate", "ndt", (), now + 30)
        return TokenRefusal(TokenReason.CLAIMS)


def _leave(client: Client) -> None:
    client.front.connectionLost()


def leaves(world: World) -> None:
    client = world.client()
    client.send(HELLO)
    _leave(client)


def closes(world: World) -> None:
    client = world.client()
    client.send(HELLO, close_frame(1000))
    assert client.close_code() == 1000
    _leave(client)


def pings_and_vanishes(world: World) -> None:
    client = world.client()
    client.send(HELLO, frame(9, b"x"))
    _leave(client)


def sends_data(world: World) -> None:
    client = world.client()
    client.send(HELLO, frame(1, b"x"), close_frame(1003))
    assert client.close_code() == 1003
    _leave(client)


def breaks_the_rules(world: World) -> None:
    client = world.client()
    client.send(HELLO, frame(3))
    _leave(client)


def reaches_the_deadline(world: World) -> None:
    client = world.client()
    client.send(HELLO)
    world.clock.advance(60)
    assert client.close_code() == 4000
    client.send(close_frame(4000))
    _leave(client)


def is_revoked(world: World) -> None:
    client = world.client()
    client.send(HELLO)
    world.sessions.end_all(End.REVOKED)
    assert client.close_code() == 4001
    world.clock.advance(5)
    _leave(client)


def is_refused(world: World) -> None:
    client = world.client()
    client.send(request(b"GET /other HTTP/1.1"))
    assert client.status == 404
    _leave(client)


def is_malformed(world: World) -> None:
    client = world.client()
    client.send(b"\x16\x03\x01")
    _leave(client)


def says_nothing(world: World) -> None:
    client = world.client()
    world.clock.advance(10)
    _leave(client)


def leaves_while_the_firewall_is_asked(world: World) -> None:
    world.firewall.hold_back = True
    client = world.client()
    client.send(HELLO)
    _leave(client)
    world.firewall.release()
    world.firewall.hold_back = False


def is_refused_by_the_firewall(world: World) -> None:
    world.firewall.refuse = lambda call, _: "broken" if call == "allow" else None
    client = world.client()
    client.send(HELLO)
    assert client.status == 500
    _leave(client)
    world.firewall.refuse = lambda *_: None


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("visit", [
    leaves, closes, pings_and_vanishes, sends_data, breaks_the_rules, reaches_the_deadline,
    is_revoked, is_refused, is_malformed, says_nothing, leaves_while_the_firewall_is_asked,
    is_refused_by_the_firewall,
], ids=lambda visit: visit.__name__)
def test_a_client_that(visit: Callable[[World], None]) -> None:
    """The collector finds nothing of it."""
    world = World()
    visit(world)  # the first visit makes what is made only once
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    for _ in range(_VISITS):
        visit(world)
        world.clock.advance(100)
    gc.collect()
    found = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.garbage)
    ours = {name: number for name, number in found.items() if number >= _VISITS}
    assert not ours
    assert len(world.sessions) == 0


class SecureClient:
    """A TLS client of a front factory, in memory."""

    def __init__(self, world: World, tls: ServerTLS) -> None:
        factory = TLSFactory(tls, False, world.factory, world.clock)
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 4711))
        self.service = factory.buildProtocol(self.transport.getPeer())
        self.service.makeConnection(self.transport)
        self.peer = client()
        for _ in range(3):
            with suppress(SSL.WantReadError):
                self.peer.do_handshake()
            self._exchange()

    def _exchange(self) -> None:
        with suppress(SSL.WantReadError):
            self.service.dataReceived(self.peer.bio_read(65536))
        if self.transport.value():
            self.peer.bio_write(self.transport.value())
            self.transport.clear()

    def send(self, data: bytes) -> bytes:
        """Send `data`, and return the answer."""
        self.peer.send(data)
        self._exchange()
        with suppress(SSL.WantReadError):
            return self.peer.recv(65536)
        return b""

    def vanish(self) -> None:
        """Lose the connection without TLS's close_notify, as with most clients."""
        self.service.connectionLost(Failure(ConnectionLost()))


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("parting", [b"", close_frame(1000)], ids=["at once", "with a close frame"])
def test_a_client_that_vanishes_from_tls(tmp_path: Path, parting: bytes) -> None:
    """The collector finds nothing of it; a kept error would hold the whole connection."""
    files = Pair(tmp_path)
    files.write("first.example")
    world, tls = World(), ServerTLS.load(files.cert, files.key)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    for _ in range(_VISITS):
        guest = SecureClient(world, tls)
        assert b"101" in guest.send(HELLO)
        if parting:
            assert guest.send(parting)[:1] == b"\x88"
        guest.vanish()
        world.clock.advance(100)
    gc.collect()
    found = Counter(type(one).__name__ for one in gc.garbage)
    assert not [name for name, number in found.items() if number >= _VISITS]
    assert len(world.sessions) == 0
