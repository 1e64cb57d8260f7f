"""Accepted connections that write at once what their socket takes, and TLS above them.

Twisted's own leave each piece to the next turn of the reactor, so that small ones go out together:
two calls of epoll_ctl(2), and one turn more until the client has its answer. Each of the three
pieces of an opening handshake is the only one of its turn, and is awaited by the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Port, Server
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementedBy, implementer_only


# TLS declares each interface of what it stands on anew, for each connection; no other is asked for.
@implementer_only(ITCPTransport)
class PromptServer(Server):
    """A connection; what the socket does not take at once goes Twisted's usual way."""

    def write(self, data: bytes) -> None:
        """Send `data`, behind what has not gone out yet."""
        if self.connected and not (
            self.dataBuffer or self._tempDataBuffer or self._writeDisconnected
        ):
            sent = self.writeSomeData(data)
            # An error is told once more when it is tried again, and handled there.
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            super().write(data)


def write_promptly(port: object) -> None:
    """Make the connections that `port` accepts write at once; other than TCP ports stay as is."""
    if isinstance(port, Port) and port.transport is Server:
        port.transport = PromptServer


# More than OpenSSL ever has to send at once: a record, or a flight of the handshake.
_ALL: Final = 1 << 15


class TLSConnection(TLSMemoryBIOProtocol):
    """A connection that sends no ticket by itself, and leaves no garbage behind at its end."""

    # What goes out along with whatever is said next.
    _tickets = b""

    def _checkHandshakeStatus(self) -> None:
        """Go on with the handshake.

        A server's TLS 1.3 ends it with two tickets, which only a call that pyOpenSSL does not have
        could turn off (SSL_CTX_set_num_tickets(3)). No client waits for them, and alone they would
        cost both sides a packet.
        """
        super()._checkHandshakeStatus()
        if self._handshakeDone and self._tlsConnection.get_protocol_version() >= SSL.TLS1_3_VERSION:
            with suppress(SSL.WantReadError):
                self._tickets = self._tlsConnection.bio_read(_ALL)

    def _flushSendBIO(self) -> None:
        """Send what OpenSSL has to say, if anything."""
        with suppress(SSL.WantReadError):
            said = self._tlsConnection.bio_read(_ALL)
            tickets, self._tickets = self._tickets, b""
            assert self.transport is not None
            self.transport.write(tickets + said)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol above.

        Twisted would first look for bytes that OpenSSL has kept, which are all read as they come.
        Where the peer has not said goodbye that fails with an error that refers to itself by its
        traceback, and holds on to the connection.
        """
        self._lostTLSConnection = True
        super().connectionLost(reason)


class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS between a transport and the protocols of a factory, without a buffer in between.

    Twisted's own gathers small writes until the next turn of the reactor; there are none here to
    gather, and half a kilobyte of each connection went into it.
    """

    protocol = TLSConnection

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._declared = list(_declarations())


def _declarations() -> Iterator[TLSConnection]:
    """Yield an instance for each declaration that Twisted makes of a TLS connection's interfaces.

    zope.interface knows a declaration as long as somebody has it, and makes it anew otherwise:
    a twentieth of a millisecond for each connection.
    """
    transport = implementedBy(PromptServer)
    for declared in (*transport, transport):
        holder = TLSConnection.__new__(TLSConnection)
        directlyProvides(holder, declared)
        yield holder
