"""Transports that write at once what the kernel takes: TCP, TLS above it, and pipes to children.

Twisted's own transports write in the next turn of the reactor, so that small pieces go out
together. That costs two calls of epoll_ctl(2), and one turn more until the client has its answer.
Here each piece is the only one of its turn, and the client waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, IPushProducer, ITCPTransport
from twisted.internet.process import Process, ProcessWriter
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer_only

from envelope.runtime.internals import require, require_use

_log = Logger(namespace="envelope.transports")

require_use(TLSMemoryBIOProtocol.connectionLost, "_lostTLSConnection")
require_use(TLSMemoryBIOProtocol.dataReceived, "_checkHandshakeStatus", "_handshakeDone")
require_use(TLSMemoryBIOProtocol._write, "_flushSendBIO", "_tlsConnection")
# Not private by name, but documented nowhere.
require_use(Process.__init__, "pipes")
require(ProcessWriter, "writeSomeData")


# More than OpenSSL ever has to send at once: a record, or a flight of the handshake.
_ALL: Final = 1 << 15


# TLS declares each interface of its transport again for each connection; only this one is used.
@implementer_only(ITCPTransport)
class PromptServer(Server):
    """An accepted connection; Twisted's own `write` takes what the socket does not."""

    # While `together` gathers them, what was written.
    _gathered: list[bytes] | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Twisted makes two texts of the client's address for its log, which take 200 bytes.
        self.logstr = self.repstr = "client"

    @contextmanager
    def together(self) -> Iterator[None]:
        """Send in one piece what is written meanwhile."""
        self._gathered = []
        try:
            yield
        finally:
            gathered, self._gathered = self._gathered, None
            if gathered:
                self.write(b"".join(gathered))

    def write(self, data: bytes) -> None:
        """Send `data` now, unless earlier bytes are still to be sent."""
        if self._gathered is not None:
            self._gathered.append(data)
            return
        if self.connected and not (
            self.dataBuffer or self._tempDataBuffer or self._writeDisconnected
        ):
            sent = self.writeSomeData(data)
            # After an error, Twisted's own write meets it again and handles it.
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            super().write(data)


@cache
def _can_write_promptly() -> bool:
    try:
        require(Server, "dataBuffer", "_writeDisconnected", "writeSomeData")
        require_use(Server.doWrite, "dataBuffer", "_tempDataBuffer", "writeSomeData")
        require_use(Port.doRead, "transport")
    except ImportError as error:
        _log.warn("writing takes one turn of the reactor more: {error}", error=str(error))
        return False
    return True


def write_promptly(port: object) -> None:
    """Make the connections that `port` accepts write at once; only TCP ports can."""
    if isinstance(port, Port) and port.transport is Server and _can_write_promptly():
        port.transport = PromptServer


class TLSConnection(TLSMemoryBIOProtocol):
    """A TLS connection that sends no ticket alone, and leaves no reference cycle behind."""

    # Sent with whatever is sent next.
    _tickets = b""

    def _checkHandshakeStatus(self) -> None:
        """Continue the handshake.

        A server ends it with two tickets in TLS 1.3, and pyOpenSSL lacks the call to turn them off
        (SSL_CTX_set_num_tickets(3)). No client waits for them, and alone they would cost both sides
        a packet.
        """
        super()._checkHandshakeStatus()
        if self._handshakeDone and self._tlsConnection.get_protocol_version() >= SSL.TLS1_3_VERSION:
            with suppress(SSL.WantReadError):
                self._tickets = self._tlsConnection.bio_read(_ALL)

    def _flushSendBIO(self) -> None:
        """Send what OpenSSL has to send, if anything."""
        with suppress(SSL.WantReadError):
            data = self._tlsConnection.bio_read(_ALL)
            if self._tickets:
                data, self._tickets = self._tickets + data, b""
            assert self.transport is not None
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol above.

        Twisted would first try to read bytes that OpenSSL still holds. There are none, because all
        are read as they arrive. If the peer sent no close_notify, trying raises an error that its
        own traceback refers to, and that keeps the connection in memory.
        """
        self._lostTLSConnection = True
        super().connectionLost(reason)


def together(transport: object) -> AbstractContextManager[None]:
    """Send in one piece what is written to `transport` meanwhile, if it can do so.

    For the last bytes of a connection: with TLS, a close_notify follows them at once.
    """
    socket = transport.transport if isinstance(transport, TLSConnection) else transport
    return socket.together() if isinstance(socket, PromptServer) else nullcontext()


class TLSFactory(TLSMemoryBIOFactory):
    """Adds TLS to the protocols of a factory, without Twisted's buffer for small writes.

    The buffer gathers small writes until the next turn of the reactor. Here there is one write in a
    turn, and the buffer takes half a kilobyte for each connection.
    """

    protocol = TLSConnection


def write_to_child(child: IProcessTransport, data: bytes) -> None:
    """Write `data` to the child's standard input; what its pipe does not take now is sent later.

    Data that was written before must have been sent.
    """
    process: Any = child
    pipe = process.pipes.get(0)
    sent = pipe.writeSomeData(data) if pipe is not None else 0
    # After an error, Twisted's own write meets it again and handles it.
    if isinstance(sent, int):
        data = data[sent:]
    if data:
        child.write(data)


def kill_child(child: IProcessTransport) -> None:
    """Kill a child, unless it has ended, and close its pipes, which a grandchild may hold open."""
    with suppress(ProcessExitedAlready):
        child.signalProcess("KILL")
    child.loseConnection()


def output_of_child(child: IProcessTransport, descriptor: int) -> IPushProducer:
    """The pipe that the child's output on `descriptor` is read from; it must be open."""
    process: Any = child
    pipe: IPushProducer = process.pipes[descriptor]
    return pipe
