"""Connections from a proxy: the client's address is the one in the PROXY header, or unknown.

Only `haproxy:` endpoints use this. Elsewhere a PROXY header is a malformed request, so a client
cannot claim another's address.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address as Host4
from twisted.internet.address import IPv6Address as Host6
from twisted.internet.interfaces import IAddress, IProtocolFactory, ITransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from envelope.front.proxyheader import MalformedHeader, ProxyHeaderReader, Source


@implementer(IAddress)
class UnknownAddress:
    """The address of a client that no PROXY header has named, or not yet."""


UNKNOWN = UnknownAddress()


class ProxiedConnection(ProtocolWrapper):
    """Reads the header, then passes everything on; disconnects after a malformed header.

    The protocol above limits the time until the header has arrived.
    """

    factory: ProxiedFactory
    _peer: IAddress = UNKNOWN
    _reader: ProxyHeaderReader | None = None
    _broken = False

    def makeConnection(self, transport: ITransport) -> None:
        """Wait for the header."""
        self._reader = ProxyHeaderReader()
        super().makeConnection(transport)

    def getPeer(self) -> IAddress:
        """The client's address, `UNKNOWN` if no header has named it; never the proxy's."""
        return self._peer

    def dataReceived(self, data: bytes) -> None:
        """Parse the header, or pass on the bytes after it."""
        if self._broken:
            return
        if self._reader is not None:
            try:
                whole = self._reader.feed(data)
            except MalformedHeader:
                self._broken = True
                self.factory.malformed()
                self.loseConnection()
                return
            if whole is None:
                return
            self._reader = None
            source, data = whole
            if source is not None:
                self._peer = _host(source)
        if data:
            super().dataReceived(data)


def _host(source: Source) -> IAddress:
    kind = Host4 if source.address.version == 4 else Host6
    return kind("TCP", str(source.address), source.port)


class ProxiedFactory(WrappingFactory):
    """Reads a PROXY header on each connection before it reaches a protocol of `factory`.

    `malformed` is called for each connection without a valid one.
    """

    protocol = ProxiedConnection
    noisy = False

    def __init__(self, factory: IProtocolFactory, malformed: Callable[[], None]) -> None:
        super().__init__(factory)
        self.malformed = malformed
