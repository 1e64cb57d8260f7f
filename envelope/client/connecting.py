"""Connections to a server: over the address family that is asked for, and never through a proxy."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope.client.answers import Answer, AnswerReader, NoAnswer
from envelope.client.outcomes import Refused
from envelope.client.urls import ServerURL

_KINDS: Final = {4: IPv4Address, 6: IPv6Address}
_ENDPOINTS: Final[dict[int, Any]] = {4: TCP4ClientEndpoint, 6: TCP6ClientEndpoint}
# Seconds; as the service does, so that both ends notice at about the same time that the other is
# gone (tcp(7)). Keepalive sends no byte that the other side's program sees.
_SILENCE: Final = 30
_KEEPALIVE: Final = {
    socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: _SILENCE * 1000,
}


class Exchange(Protocol):
    """A connection on which one request is answered.

    `answered` fires with the answer, or fails with `Refused`. What arrives after an answer with
    status 101 goes to `received`. `insecure` gives up the verification of the certificate.
    """

    transport: Any

    def __init__(self, url: ServerURL, reader: AnswerReader, insecure: bool) -> None:
        self.answered: Deferred[Answer] = Deferred()
        self.lost = False
        self._url = url
        self._reader = reader
        self._insecure = insecure
        self._done = False

    def connectionMade(self) -> None:
        """Send the request, after a TLS handshake if the URL asks for it."""
        handle: socket.socket = self.transport.getHandle()
        self.transport.setTcpKeepAlive(1)
        self.transport.setTcpNoDelay(1)
        for option, value in _KEEPALIVE.items():
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
        if self._url.secure:
            # Imported here because it takes long and plain connections do without.
            from envelope.client.tls import client_tls

            try:
                tls = client_tls(self._url.host, self._insecure)
            except ValueError:
                self._fail("no certificate can prove such a name")
                return
            self.transport.startTLS(tls)
        self.transport.write(self._reader.request)

    def dataReceived(self, data: bytes) -> None:
        """Read the answer, and then what follows it."""
        if self._done:
            self.received(data)
            return
        try:
            answer = self._reader.feed(data)
        except NoAnswer as fault:
            self._fail(str(fault))
            return
        if answer is not None:
            self._done = True
            self.answered.callback(answer)
            if self._reader.rest:
                self.received(self._reader.rest)

    def received(self, data: bytes) -> None:
        """Take bytes that arrived after the answer; here they are ignored."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail if there is no answer yet."""
        self.lost = True
        if self._done:
            return
        fault = None
        if self._url.secure:
            from envelope.client.tls import tls_fault

            fault = tls_fault(reason.value)
        if fault is None:
            self.dataReceived(b"")
        else:
            self._fail(fault)

    def abort(self) -> None:
        """Drop the connection at once."""
        if not self.lost:
            self.transport.abortConnection()

    def _fail(self, text: str) -> None:
        self._done = True
        self.answered.errback(Refused(self._url.server, None, text))
        self.abort()


class _Once(Factory):
    noisy = False


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects the addresses of a name."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.complete: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Do nothing: a look-up cannot be cancelled."""

    def addressResolved(self, address: IAddress) -> None:
        """Keep an address."""
        assert isinstance(address, IPv4Address | IPv6Address)
        self.found.append(address.host)

    def resolutionComplete(self) -> None:
        """Tell that there are no more."""
        # The caller may have given up.
        if not self.complete.called:
            self.complete.callback(None)


async def connect(
    reactor: Any, url: ServerURL, exchange: Exchange, version: int | None, patience: float
) -> None:
    """Connect `exchange` to the server of `url` over IP `version`, 4, 6, or None for either.

    With None, addresses of both versions are tried side by side (RFC 8305); otherwise one after
    the other, each for `patience` reactor seconds. Raises `Refused`.
    """
    places: list[Any] = []
    if version is None:
        places = [HostnameEndpoint(reactor, url.host, url.port, patience)]
    else:
        addresses = _Addresses()
        reactor.nameResolver.resolveHostName(
            addresses, url.host, url.port, addressTypes=[_KINDS[version]]
        )
        await addresses.complete
        places = [
            _ENDPOINTS[version](reactor, host, url.port, patience) for host in addresses.found
        ]
    fault = "its name cannot be looked up" if version is None else (
        f"it has no IPv{version} address, or its name cannot be looked up"
    )
    for place in places:
        attempt: Deferred[Any] = place.connect(_Once.forProtocol(lambda: exchange))
        # An endpoint that is cancelled fails as if there were no such name, or with an error of its
        # own.
        connected: Deferred[Any] = Deferred()
        attempt.chainDeferred(connected)
        try:
            await connected
        except (DNSLookupError, ValueError):
            # The second for what is no name, such as one with an underscore.
            continue
        except ConnectError as error:
            fault = _why(error)
        except CancelledError:
            attempt.cancel()
            raise
        else:
            return
    raise Refused(url.server, None, fault)


def _why(error: ConnectError) -> str:
    text = os.strerror(error.osError) if error.osError else "no connection within the time"
    return text[:1].lower() + text[1:]
