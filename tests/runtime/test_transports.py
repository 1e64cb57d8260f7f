"""Connections that write at once, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Server
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from envelope.runtime import transports
from envelope.runtime.transports import write_promptly

LARGE = 8 * 2**20


class Talker(Protocol):
    """Says what it is told to; `gone` fires when its connection is lost."""

    def __init__(self) -> None:
        self.gone: Deferred[Failure] = Deferred()

    def connectionLost(self, reason: Failure) -> None:
        self.gone.callback(reason.value)


class Talkers(Factory):
    """Makes one."""

    noisy = False

    def buildProtocol(self, addr: object) -> Talker:
        self.talker = Talker()
        return self.talker


class Pair:
    """A client's blocking socket, and the protocol that serves it."""

    def __init__(self) -> None:
        factory = Talkers()
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        write_promptly(self.port)
        self.client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.client.settimeout(10)
        # The kernel has completed the connection already.
        self.port.doRead()
        self.talker = factory.talker

    def close(self) -> None:
        self.client.close()
        if not self.talker.gone.called:
            self.talker.transport.abortConnection()
            blockon(self.talker.gone)
        blockon(self.port.stopListening())


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_what_the_socket_takes_is_sent_at_once(pair: Pair) -> None:
    """The client has it, and the reactor has nothing left to write."""
    pair.talker.transport.write(b"now")
    assert pair.client.recv(16) == b"now"
    assert pair.talker.transport not in reactor.getWriters()


@ensureDeferred
async def test_what_it_does_not_take_is_sent_later_in_order(pair: Pair) -> None:
    """Nothing overtakes what still waits, and the connection closes behind the last of it."""
    sent = bytes(range(256)) * (LARGE // 256)
    pair.talker.transport.write(sent)
    pair.talker.transport.write(b"last")
    pair.talker.transport.loseConnection()
    received = bytearray()

    def read() -> bytes:
        while chunk := pair.client.recv(2**20):
            received.extend(chunk)
        return bytes(received)

    assert await deferToThread(read) == sent + b"last"


@ensureDeferred
async def test_a_connection_that_is_gone_is_lost_once(pair: Pair) -> None:
    """By the reactor, and not in the middle of writing."""
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.client.close()
    pair.talker.transport.write(b"into the void")
    assert not pair.talker.gone.called
    await pair.talker.gone
    pair.talker.transport.write(b"and again")


@ensureDeferred
async def test_a_twisted_without_the_names_writes_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one line in the log."""
    monkeypatch.setattr(transports, "require_use", removed)
    transports._can_write_promptly.cache_clear()
    port = reactor.listenTCP(0, Talkers(), interface="127.0.0.1")
    try:
        transports.write_promptly(port)
        assert port.transport is Server
    finally:
        transports._can_write_promptly.cache_clear()
        await port.stopListening()


def removed(*_: object) -> None:
    raise ImportError("twisted has no such name")
