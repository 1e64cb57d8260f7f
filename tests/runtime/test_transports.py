"""Connections that write at once, over real sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.tcp import Server
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from envelope.runtime import transports
from envelope.runtime.transports import TLSFactory, together, write_promptly
from tests.support.certificates import Authority

LARGE = 8 * 2**20


class Talker(Protocol):
    """Says what it is told to; `gone` fires when its connection is lost."""

    def __init__(self) -> None:
        self.gone: Deferred[Failure] = Deferred()
        self.heard: DeferredQueue[bytes] = DeferredQueue()

    def dataReceived(self, data: bytes) -> None:
        self.heard.put(data)

    def connectionLost(self, reason: Failure) -> None:
        self.gone.callback(reason.value)


class Talkers(Factory):
    """Makes one."""

    noisy = False

    def buildProtocol(self, addr: object) -> Talker:
        self.talker = Talker()
        return self.talker


class Pair:
    """A client's blocking socket, and the protocol that serves it, over TLS with `tls`."""

    def __init__(self, tls: Any = None) -> None:
        factory = Talkers()
        outer = factory if tls is None else TLSFactory(tls, False, factory)
        self.port = reactor.listenTCP(0, outer, interface="127.0.0.1")
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
async def test_what_is_written_together_is_sent_in_one_piece(pair: Pair) -> None:
    """The close behind it loses nothing of it."""
    transport = pair.talker.transport
    pieces = record_pieces(transport)
    with together(transport):
        transport.write(b"good")
        transport.write(b"bye")
        transport.loseConnection()
    assert pieces == [b"goodbye"]
    await pair.talker.gone
    assert pair.client.recv(16) == b"goodbye"
    assert pair.client.recv(16) == b""


def test_what_was_written_together_is_sent_though_an_error_is_raised(pair: Pair) -> None:
    """And later writes are sent at once again."""
    def fail() -> None:
        with together(pair.talker.transport):
            pair.talker.transport.write(b"first")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    pair.talker.transport.write(b", second")
    assert pair.client.recv(13, socket.MSG_WAITALL) == b"first, second"


@ensureDeferred
async def test_a_visit_over_tls_takes_three_pieces(tmp_path: Path) -> None:
    """The tickets go with the first bytes, and the close_notify with the last."""
    certificate, key = Authority(tmp_path).issue("host")
    pair = Pair(PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes()).options())
    talker = pair.talker
    pieces = record_pieces(talker.transport.transport)

    def visit() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(pair.client) as client:
            client.sendall(b"hello")
            said = client.recv(16)
            client.sendall(b"bye")
            return said + client.recv(16) + client.recv(16)

    answers = deferToThread(visit)
    assert await talker.heard.get() == b"hello"
    talker.transport.write(b"welcome")
    assert await talker.heard.get() == b"bye"
    with together(talker.transport):
        talker.transport.write(b", bye")
        talker.transport.loseConnection()
    assert await answers == b"welcome, bye"
    await talker.gone
    assert len(pieces) == 3
    await pair.port.stopListening()


def record_pieces(connection: Any) -> list[bytes]:
    """The pieces that go to the socket from now on."""
    pieces: list[bytes] = []
    send = connection.writeSomeData

    def recorded(data: bytes) -> Any:
        pieces.append(bytes(data))
        return send(data)

    connection.writeSomeData = recorded
    return pieces


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
