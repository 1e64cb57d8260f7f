"""TLS of a client: certificates and names are verified, unless that was given up explicitly."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from envelope.tlsclient import ProvenServer

_PROTOCOLS: Final = [b"http/1.1"]
_NOT_PROVEN: Final = "the server's certificate does not prove its name:"


def client_tls(host: str, insecure: bool) -> Any:
    """What `startTLS` takes for a connection to `host`; raises `ValueError` as `ProvenServer`."""
    return _Unverified(host) if insecure else ProvenServer(host)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Accepts any certificate."""

    def __init__(self, host: str) -> None:
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._name = None if is_address else host.encode()

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol  # noqa: ARG002
    ) -> SSL.Connection:
        context = CertificateOptions(acceptableProtocols=_PROTOCOLS).getContext()
        connection = SSL.Connection(context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection


def tls_fault(error: object) -> str | None:
    """What a lost connection's error says of TLS, in one line; None if it says nothing of it."""
    if isinstance(error, VerificationError):
        return f"{_NOT_PROVEN} it is for another one"
    if isinstance(error, CertificateError):
        return f"{_NOT_PROVEN} it has no name that can be read"
    if not isinstance(error, SSL.Error):
        return None
    queue = error.args[0] if error.args else []
    reason = str(queue[-1][-1]) if queue else "OpenSSL does not say why"
    if reason == "certificate verify failed":
        return f"{_NOT_PROVEN} it has expired, or no authority that is trusted here signed it"
    return f"TLS failed: {reason}"
