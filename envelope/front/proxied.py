"""Connections that a proxy hands on: the client's address is what its header says, or unknown.

Goes around the factory of a `haproxy:` endpoint and of no other: elsewhere a PROXY header is a
malformed request, and whoever sends it is who it is from.
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
class Nowhere:
    """The address of a client that no header has named (yet)."""


NOWHERE = Nowhere()


class ProxiedConnection(ProtocolWrapper):
    """Reads the header, and is transparent then; a malformed one ends the connection unanswered.

    The protocol above sees to it that the header comes in time.
    """

    factory: ProxiedFactory
    _peer: IAddress = NOWHERE
    _reader: ProxyHeaderReader | None = None
    _broken = False

    def makeConnection(self, transport: ITransport) -> None:
        """Await the header."""
        self._reader = ProxyHeaderReader()
        super().makeConnection(transport)

    def getPeer(self) -> IAddress:
        """The client's address; never the proxy's."""
        return self._peer

    def dataReceived(self, data: bytes) -> None:
        """Read the header, or pass on what comes behind it."""
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
    """Expects a PROXY header before whatever the protocols of `factory` expect.

    `malformed` is called for each connection that begins otherwise.
    """

    protocol = ProxiedConnection
    noisy = False

    def __init__(self, factory: IProtocolFactory, malformed: Callable[[], None]) -> None:
        super().__init__(factory)
        self.malformed = malformed
