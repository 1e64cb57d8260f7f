"""Fetches one document over https: certificate verified, size and time limited, no redirects.

Twisted's own HTTP client limits neither the size of an answer's head nor the time that closing its
connection takes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.ssl import Certificate, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure

from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply, ReplyReader
from envelope.credentials.pemfiles import TLSFileError, read_certificates
from envelope.credentials.tls import reason_of
from envelope.tlsclient import ProvenServer

# Seconds for the whole fetch: name lookup, connection, TLS and answer.
PATIENCE: Final = 10.0


class Fetcher(Protocol):
    """Fetches one document, the same each time."""

    def fetch(self) -> Deferred[Reply]:
        """Fetch it; fails with `FetchFailed`. Cancelling drops the connection."""


def trust_of(authorities: Path | None) -> Any:
    """Trust in the authorities of a PEM file, or in the system's; raise `TLSFileError`.

    The result is what `ProvenServer` takes; its interface is private to Twisted.
    """
    if authorities is None:
        return platformTrust()
    found = read_certificates(authorities)
    try:
        # OpenSSL reads them again, and more strictly.
        known = [Certificate(crypto.X509.from_cryptography(each)) for each in found]
    except crypto.Error as error:
        raise TLSFileError(f"{authorities} cannot be used: {reason_of(error)}") from None
    return trustRootFromCertificates(known)


class HttpsFetcher:
    """Fetches `url`; its host needs a certificate that `trust` accepts.

    `patience` is the time for a whole fetch, in reactor seconds.
    """

    def __init__(
        self, reactor: Any, url: str, trust: Any, patience: float = PATIENCE
    ) -> None:
        self.trust = trust
        self._reactor = reactor
        self._url = url
        self._patience = patience

    def fetch(self) -> Deferred[Reply]:
        """See `Fetcher`."""
        fetching = Deferred.fromCoroutine(self._fetch())
        return fetching.addTimeout(self._patience, self._reactor, self._too_late)

    def _too_late(self, _result: object, seconds: float) -> NoReturn:
        raise FetchFailed(FetchOutcome.TIMEOUT, f"there was no whole answer within {seconds:g} s")

    async def _fetch(self) -> Reply:
        reader = ReplyReader(self._url)
        try:
            endpoint = wrapClientTLS(
                ProvenServer(reader.host, self.trust),
                # Longer than the limit of the whole fetch, whose message says more.
                HostnameEndpoint(self._reactor, reader.host, reader.port, self._patience + 1),
            )
            fetch = _Fetch(reader)
            await endpoint.connect(_Once.forProtocol(lambda: fetch))
        except (DNSLookupError, ValueError):
            raise FetchFailed(
                FetchOutcome.UNREACHABLE, "its host's name cannot be looked up"
            ) from None
        except ConnectError as error:
            why = os.strerror(error.osError) if error.osError else "no connection to its host"
            raise FetchFailed(FetchOutcome.UNREACHABLE, why[:1].lower() + why[1:]) from None
        try:
            return await fetch.done
        finally:
            fetch.abort()


class _Once(protocol.Factory):
    noisy = False


class _Fetch(protocol.Protocol):
    """The connection: sends the request, and reads until the answer is complete."""

    transport: Any

    def __init__(self, reader: ReplyReader) -> None:
        self.done: Deferred[Reply] = Deferred()
        self._reader = reader

    def connectionMade(self) -> None:
        self.transport.write(self._reader.request)

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            reply = self._reader.feed(data)
        except FetchFailed as failed:
            self.done.errback(failed)
        else:
            if reply is not None:
                self.done.callback(reply)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.transport = None
        if self.done.called:
            return
        error = reason.value
        if isinstance(error, SSL.Error):
            self.done.errback(FetchFailed(FetchOutcome.TLS, f"TLS failed: {reason_of(error)}"))
        elif isinstance(error, VerificationError):
            self.done.errback(FetchFailed(FetchOutcome.TLS, "its certificate is for another host"))
        elif isinstance(error, CertificateError):
            self.done.errback(
                FetchFailed(FetchOutcome.TLS, "its certificate has no name that can be read")
            )
        else:
            self.dataReceived(b"")

    def abort(self) -> None:
        """Drop the connection, without waiting for the server to close it."""
        if self.transport is not None:
            self.transport.abortConnection()
