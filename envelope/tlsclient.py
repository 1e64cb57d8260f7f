"""TLS to a server whose certificate must prove its name.

Twisted 26.10 alone accepts some certificates of a trusted authority for every name: those in which
service_identity finds no name, such as one with a common name alone, and those with a name that it
refuses to read, such as `*.lan`. It logs the exception, and keeps OpenSSL's verdict, which says
nothing of the name.
"""

from __future__ import annotations

from typing import Any, Final
from weakref import ref

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

_PROTOCOLS: Final = [b"http/1.1"]
_CHECKED: Final = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


@implementer(IOpenSSLClientConnectionCreator)
class ProvenServer:
    """What `startTLS` and `wrapClientTLS` take for a connection to `host`, a name or an address.

    An authority of `trust` must have signed the certificate; None: those of OpenSSL, which honours
    `SSL_CERT_FILE` and `SSL_CERT_DIR`. The connection's protocol learns of a failure as
    `connectionLost`, with `SSL.Error`, `VerificationError` (the certificate is for another name) or
    `CertificateError` (it has no name that can be read). Raises `ValueError` if no certificate can
    be for `host`.
    """

    def __init__(self, host: str, trust: Any = None) -> None:
        self._creator: Any = optionsForClientTLS(host, trust, acceptableProtocols=_PROTOCOLS)
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._name = IPAddress_ID(host) if is_address else DNS_ID(host)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        # The protocol holds the connection, which holds this function.
        protocol = ref(tlsProtocol)

        def verify(
            _connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, ok: int
        ) -> bool:
            fault = self._fault_of(certificate) if ok and depth == 0 else None
            if fault is not None:
                protocol().failVerification(Failure(fault))  # type: ignore[union-attr]
            return bool(ok) and fault is None

        connection.set_verify(_CHECKED, verify)
        return connection

    def _fault_of(self, certificate: crypto.X509) -> Exception | None:
        try:
            verify_service_identity(extract_patterns(certificate), [self._name], [])
        except (VerificationError, CertificateError) as fault:
            return fault
        except Exception as fault:  # of many kinds, for what is malformed in the certificate
            return CertificateError(str(fault))
        return None
